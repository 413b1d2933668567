# SPDX-License-Identifier: Apache-2.0
"""Salesforce: what every destination does, by both APIs, and what is its own."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from cdp_provider.core.activation.destinations import jobs
from cdp_provider.core.activation.destinations.base import InvalidRecord, Refused
from cdp_provider.core.activation.destinations.salesforce import Salesforce, SalesforceOptions
from cdp_provider.core.exceptions import AccessError, ConfigurationError, RateLimitedError
from cdp_provider.core.http import Response
from cdp_provider.testing.destinations.conformance import DestinationConformance
from tests.core.activation.destinations.fakes.salesforce import SalesforceVendor


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(jobs, "_FIRST_PAUSE", 0.001)


class TestCollections(DestinationConformance):
    kind = Salesforce
    options = {"object": "Contact", "external_id": "External_Id__c"}
    sync = {"fields": {"FirstName": "first_name", "Country__c": "country"}}

    def vendor(self):
        return SalesforceVendor()

    def test_a_removal_uses_the_remembered_id_or_else_the_external_id(self):
        with self.serving() as (seen, server):
            first = self.deliver(server, self.records(60)).outcomes
            gone = [self.record(n, "remove", sent=first[self.key(n)].sent) for n in range(10)]
            gone += [self.record(n, "remove") for n in range(10, 50)]
            assert self.deliver(server, gone).states == ["accepted"] * 50
            assert sorted(seen.holds()) == [self.key(n) for n in range(50, 60)]
            posts = [path for method, path, _ in server.requests if method == "POST"]
            assert len(posts) == (2 if self.options.get("api") != "bulk" else 4)
            # Whoever is gone already, is gone.
            assert self.deliver(server, gone).states == ["accepted"] * 50

    def test_a_lock_is_no_refusal(self):
        with self.serving() as (seen, server):
            seen.refuses.add(self.key(1))
            seen.vendor.error = "UNABLE_TO_LOCK_ROW"
            assert self.deliver(server, self.records(3)).states == ["accepted", "retryable", "accepted"]

    def test_a_reason_does_not_quote_the_record(self):
        with self.serving() as (seen, server):
            seen.refuses.add(self.key(1))
            reason = self.deliver(server, self.records(2)).outcomes[self.key(1)].reason
            assert reason.startswith("FIELD_CUSTOM_VALIDATION_EXCEPTION: refused …") or reason.startswith(
                "FIELD_CUSTOM_VALIDATION_EXCEPTION:refused …"
            )
            assert "FirstName" in reason

    def test_a_field_that_the_object_has_not_is_nobodys_fault(self):
        kind = self.made(sync={"fields": {"Wrong__c": "first_name"}})
        with self.serving() as (seen, server):
            records = [self.record(n, fields={"Wrong__c": "x"}) for n in range(5)]
            delivered = self.deliver(server, records, kind=kind)
            assert isinstance(delivered.error, ConfigurationError)
            assert not seen.applied


class TestBulk(TestCollections):
    options = {**TestCollections.options, "api": "bulk"}

    def test_a_job_that_ends_early_leaves_the_rest_to_the_next_try(self):
        with self.serving() as (seen, server):
            seen.vendor.stops = {self.key(1)}
            delivered = self.deliver(server, self.records(3))
            assert delivered.states == ["accepted", "retryable", "accepted"]
            assert delivered.outcomes[self.key(1)].reason == "the job ended before this record"

    def test_a_job_that_takes_too_long_is_left_to_the_next_try(self, monkeypatch):
        monkeypatch.setattr(SalesforceVendor, "_work", lambda *_: None)
        kind = self.made(options=options(api="bulk", wait="1 second"))
        with self.serving() as (_, server):
            assert self.deliver(server, self.records(2), kind=kind).states == ["ambiguous"] * 2

    def test_null_empties_a_field_and_a_skipped_one_stays(self):
        with self.serving() as (seen, server):
            self.deliver(server, self.records(1))
            self.deliver(server, [self.record(0, fields={"FirstName": None})])
            assert seen.holds()[self.key(0)] == {
                "External_Id__c": self.key(0),
                "FirstName": None,
                "Country__c": "value 0",
            }

    def test_cells_survive_whatever_they_hold(self):
        names = ["a,b", 'say "hi"', "two\nlines", " spaces ", "\u2028", "'"]
        with self.serving() as (seen, server):
            records = [self.record(n, fields={"FirstName": name}) for n, name in enumerate(names)]
            assert self.deliver(server, records).states == ["accepted"] * len(names)
            assert [seen.holds()[self.key(n)]["FirstName"] for n in range(len(names))] == names


def options(**changed):
    return SalesforceOptions.model_validate({"object": "Contact", "external_id": "External_Id__c", **changed})


def kind(**changed):
    return TestCollections().made(options=options(**changed))


def test_values_are_written_as_salesforce_reads_them():
    fields = {
        "A": Decimal("12.50"),
        "B": datetime(2026, 7, 1, 12, tzinfo=UTC),
        "C": date(2026, 7, 1),
        "D": True,
        "E": ["a", "b"],
        "F": "",
        "G": None,
    }
    harness = TestBulk()
    bulk = harness.made(sync={"fields": {name: "x" for name in [*fields, "Z"]}})
    item = bulk.item("upsert", harness.record(0, fields=fields))
    assert item == (
        '"person00000@example.com","12.5","2026-07-01T12:00:00Z","2026-07-01",true,"a;b","#N/A","#N/A",'
    )
    with pytest.raises(InvalidRecord, match="the field 'A' holds an object"):
        bulk.item("upsert", harness.record(0, fields={"A": {"b": 1}}))


def test_a_request_holds_what_salesforce_documents():
    harness, made = TestCollections(), kind(version="65.0")
    record = harness.record(0, key=7, fields={"FirstName": None})
    item = json.dumps(made.item("upsert", record)).encode()
    request = made.request("upsert", [record], [item])
    assert (request.method, request.path) == (
        "PATCH",
        "/services/data/v65.0/composite/sobjects/Contact/External_Id__c",
    )
    assert json.loads(request.body) == {
        "allOrNone": False,
        "records": [{"attributes": {"type": "Contact"}, "External_Id__c": 7, "FirstName": None}],
    }


@pytest.mark.parametrize(
    ("status", "error", "expected", "wait"),
    [
        (403, ("REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded."), RateLimitedError, 900.0),
        (403, ("REQUEST_LIMIT_EXCEEDED", "ConcurrentRequests Limit exceeded."), RateLimitedError, None),
        (400, ("INVALID_FIELD", "No such column"), ConfigurationError, None),
        (404, ("NOT_FOUND", "The requested resource does not exist"), ConfigurationError, None),
        (400, ("JSON_PARSER_ERROR", "Cannot deserialize a@x.org"), Refused, None),
    ],
)
def test_errors_are_told_apart_by_their_code(status, error, expected, wait):
    code, message = error
    body = json.dumps([{"errorCode": code, "message": message}]).encode()
    answer = Response("PATCH", "/services", status, {"sforce-limit-info": "api-usage=5000/5000"}, body)
    with pytest.raises(expected, match=code) as raised:
        kind().inspect(answer)
    assert getattr(raised.value, "retry_after", None) == wait
    assert "a@x.org" not in str(raised.value)
    assert ("api-usage=5000/5000" in str(raised.value)) == (code == "REQUEST_LIMIT_EXCEEDED")


def test_other_403s_are_about_access():
    body = json.dumps([{"errorCode": "INSUFFICIENT_ACCESS", "message": "no"}]).encode()
    answer = Response("PATCH", "/services", 403, {}, body)
    kind().inspect(answer)
    with pytest.raises(AccessError):
        answer.raise_for_status()


@pytest.mark.parametrize(
    ("sync", "path"),
    [
        ({"mode": "update"}, ("mode",)),
        ({"mode": "event"}, ("mode",)),
        ({"fields": {"External_Id__c": "email"}}, ("fields", "External_Id__c")),
        ({"fields": {"Id": "email"}}, ("fields", "Id")),
    ],
)
def test_what_does_not_fit_is_told(sync, path):
    (problem,) = options().sync_problems(TestCollections().declared(**sync))
    assert problem.path == path


def test_keys_are_compared_as_the_option_says():
    assert not kind().capabilities.folds_keys
    assert kind(key_case="lower").capabilities.folds_keys
