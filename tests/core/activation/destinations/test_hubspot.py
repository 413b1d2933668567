# SPDX-License-Identifier: Apache-2.0
"""HubSpot: what every destination does, and what is its own."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from pydantic import ValidationError

from cdp_provider.core.activation.destinations.base import Outcome, Refused
from cdp_provider.core.activation.destinations.hubspot import Hubspot, HubspotOptions
from cdp_provider.core.activation.encoding import encode
from cdp_provider.core.activation.limiter import SqliteLimits
from cdp_provider.core.exceptions import DataError, RateLimitedError, UnavailableError
from cdp_provider.core.http import Response
from cdp_provider.testing.destinations.conformance import DestinationConformance
from cdp_provider.testing.destinations.fake import FakeServer
from tests.core.activation.destinations.fakes.hubspot import HubspotVendor
from tests.core.activation.scene import Scene, newsletter, person, put_profiles


class TestContacts(DestinationConformance):
    """By e-mail address: one bad contact refuses its batch."""

    kind = Hubspot
    sync = {"fields": {"firstname": "first_name", "country": "country"}}

    def vendor(self):
        return HubspotVendor(partial=False, echoes=False)

    def test_inserting_whom_hubspot_knows_is_no_failure(self):
        kind = self.made(sync={"mode": "insert"})
        with self.serving() as (seen, server):
            seen.vendor.objects["7"] = {"email": "person00001@example.com", "firstname": "Ada"}
            inserted = self.deliver(server, [self.record(n, "insert") for n in range(3)], kind=kind)
            assert inserted.states == ["accepted"] * 3
            assert seen.holds()["person00001@example.com"] == {"firstname": "Ada"}
            assert inserted.outcomes["person00001@example.com"].sent == "7"

    def test_updating_whom_hubspot_does_not_know_is_rejected(self):
        kind = self.made(sync={"mode": "update"})
        with self.serving() as (seen, server):
            self.deliver(server, self.records(1))
            updated = self.deliver(server, [self.record(n, "update") for n in range(2)], kind=kind)
            assert updated.states == ["accepted", "rejected"]
            assert updated.outcomes["person00001@example.com"].reason.startswith("OBJECT_NOT_FOUND")
            assert len(seen.holds()) == 1

    def test_removal_without_a_remembered_id_looks_it_up(self):
        with self.serving() as (seen, server):
            accepted = self.deliver(server, self.records(2)).outcomes
            assert accepted["person00000@example.com"].sent == "512"
            self.deliver(server, [self.record(0, "archive"), self.record(5, "archive")])
            assert list(seen.holds()) == ["person00001@example.com"]
            assert [path.rpartition("/")[2] for _, path, _ in server.requests] == [
                "upsert",
                "read",
                "archive",
            ]


class TestCompanies(DestinationConformance):
    """By a property of the account's own: batches are applied in part."""

    kind = Hubspot
    options = {"object": "companies", "id_property": "customer_number"}
    sync = {"fields": {"name": "name"}}

    def key(self, n):
        return f"Cust-{n:05}"

    def vendor(self):
        return HubspotVendor(id_property="customer_number")


def test_a_mirror_archives_by_the_ids_that_the_ledger_remembers(warehouse, tmp_path):
    hubspot = TestContacts().made(type="hubspot").destination
    contacts = newsletter(destination="vendor", parameters={}, fields={"firstname": "first_name"})
    limits, vendor = SqliteLimits(tmp_path / "limits.sqlite"), HubspotVendor()
    with FakeServer(vendor) as server:
        scene = Scene(warehouse, server.url, limits)
        put_profiles(warehouse, [person(n) for n in range(5)])
        scene.sync(0, contacts, hubspot)
        put_profiles(warehouse, [person(0, first_name="new"), *(person(n, out=n > 2) for n in range(1, 5))])
        scene.sync(1, contacts, hubspot)
        assert [path.rpartition("/")[2] for _, path, _ in server.requests] == ["upsert", "archive", "upsert"]
    limits.close()
    assert {key: held["firstname"] for key, held in vendor.holds().items()} == {
        "person00000@example.com": "new",
        "person00001@example.com": "Person 1",
        "person00002@example.com": "Person 2",
    }


def made(**options):
    return type("Made", (TestContacts,), {"options": options})().made()


def record(**fields):
    return TestContacts().record(0, fields=fields)


def response(body, status=200, **headers):
    return Response(
        "POST", "/crm/objects/2026-09/contacts/batch/upsert", status, headers, json.dumps(body).encode()
    )


def test_the_request_as_it_travels():
    kind, sent = made(), record(firstname="Ada", city=None)
    item = encode(kind.item("upsert", sent))
    request = kind.request("upsert", [sent], [item])
    assert (request.method, request.path) == ("POST", "/crm/objects/2026-09/contacts/batch/upsert")
    (given,) = json.loads(request.body)["inputs"]
    assert given == {
        "id": "person00000@example.com",
        "idProperty": "email",
        "properties": {"firstname": "Ada", "city": ""},
        "objectWriteTraceId": given["objectWriteTraceId"],
    }
    assert len(given["objectWriteTraceId"]) == 16


def test_all_values_travel_as_text():
    fields = {
        "a": Decimal("12.500"),
        "b": True,
        "c": datetime(2026, 7, 1, 12, tzinfo=UTC),
        "d": date(2026, 7, 1),
        "e": ["one", "two"],
        "f": 7,
        "g": 'say "hi"',
    }
    assert made().item("upsert", record(**fields))["properties"] == {
        "a": "12.5",
        "b": "true",
        "c": "2026-07-01T12:00:00Z",
        "d": "2026-07-01",
        "e": "one;two",
        "f": "7",
        "g": 'say "hi"',
    }


def test_reasons_name_properties_and_never_values():
    message = (
        'Property values were not valid: [{"isValid":false,"message":"Email address ada@x is invalid",'
        '"error":"INVALID_EMAIL","name":"email","portalId":1}]'
    )
    refusal = response({"category": "VALIDATION_ERROR", "message": message}, 400)
    with pytest.raises(Refused, match=r"^VALIDATION_ERROR: email INVALID_EMAIL$") as refused:
        made().inspect(refusal)
    assert refused.value.status == 400


def test_errors_that_name_no_record_refuse_the_batch():
    body = {"results": [], "numErrors": 1, "errors": [{"category": "VALIDATION_ERROR", "message": "no"}]}
    with pytest.raises(Refused, match="VALIDATION_ERROR: no"):
        made().outcomes("upsert", response(body, 207), [record(), record()])


def test_a_record_without_an_answer_is_tried_again():
    body = {"results": [{"id": "1", "properties": {"email": "other@example.com"}}]}
    silent = Outcome("retryable", "no answer for this record")
    assert made().outcomes("upsert", response(body), [record(), record()]) == [silent, silent]
    with pytest.raises(DataError, match="without a list of results"):
        made().outcomes("upsert", response({"status": "COMPLETE"}), [record()])


def test_results_that_name_no_trace_are_told_apart_by_key():
    kind, cases = TestCompanies().made(), [record(), record()]
    cases = [replace(case, record_key=key, key=key) for case, key in zip(cases, ("Ab", "aB"), strict=True)]
    named = [{"id": str(n), "properties": {"customer_number": key}} for n, key in enumerate(("aB", "Ab"))]
    told = kind.outcomes("upsert", response({"results": named}), cases)
    assert [outcome.sent for outcome in told] == ["1", "0"]


def test_an_error_without_a_category_is_one_all_the_same():
    errors = [{"message": "no", "context": {"ids": ["person00000@example.com"]}}]
    (told,) = made().outcomes("update", response({"results": [], "errors": errors}, 207), [record()])
    assert told == Outcome("rejected", "refused: no")


def test_a_daily_quota_and_a_lock_are_told_from_refusals():
    with pytest.raises(RateLimitedError, match="daily quota") as daily:
        made().inspect(response({"policyName": "DAILY"}, 429))
    assert daily.value.retry_after == 3600
    made().inspect(response({"policyName": "TEN_SECONDLY_ROLLING"}, 429))
    with pytest.raises(UnavailableError) as locked:
        made().inspect(response({}, 423))
    assert locked.value.retry_after == 2


@pytest.mark.parametrize("id_property", [None, "domain"])
def test_companies_need_a_property_that_tells_them_apart(id_property):
    with pytest.raises(ValidationError, match="not unique among companies"):
        HubspotOptions(object="companies", id_property=id_property)


@pytest.mark.parametrize(
    ("sync", "message"),
    [
        ({"mode": "event"}, "the mode 'event' needs more"),
        ({"fields": {"email": "email"}}, "'email' is no field"),
    ],
)
def test_what_does_not_fit_is_told(sync, message):
    (problem,) = HubspotOptions().sync_problems(TestContacts().declared(**sync))
    assert message in problem.message
