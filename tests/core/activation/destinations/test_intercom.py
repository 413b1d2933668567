# SPDX-License-Identifier: Apache-2.0
"""Intercom: what every destination does, and what is its own."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from cdp_provider.core.activation.destinations.base import InvalidRecord
from cdp_provider.core.activation.destinations.intercom import Conflict, Intercom, IntercomOptions
from cdp_provider.core.http import Response
from cdp_provider.testing.destinations.conformance import DestinationConformance
from tests.core.activation.destinations.fakes.intercom import IntercomVendor


def calls(server):
    """Method and path of each request, ids left out."""
    return [f"{method} {path.replace('0' * 23, '')}" for method, path, _ in server.requests]


class TestByExternalId(DestinationConformance):
    kind = Intercom
    sync = {"fields": {"name": "first_name", "plan": "country"}}

    def key(self, n):
        return f"cust-{n:05}"

    def vendor(self):
        return IntercomVendor()

    def test_the_id_is_remembered_and_used(self):
        with self.serving() as (seen, server):
            created = self.deliver(server, self.records(1)).outcomes["cust-00000"]
            changed = self.record(0, fields={"name": "new"}, sent=created.sent)
            assert self.deliver(server, [changed]).outcomes["cust-00000"].sent == created.sent
            assert calls(server) == ["POST /contacts", "PUT /contacts/1"]
            assert seen.holds()["cust-00000"] == {"name": "new", "plan": "value 0"}

    def test_whom_intercom_knows_already_is_updated(self):
        with self.serving() as (seen, server):
            self.deliver(server, self.records(1))
            server.requests.clear()
            assert self.deliver(server, self.records(1)).states == ["accepted"]
            assert calls(server) == ["POST /contacts", "GET /contacts/1", "PUT /contacts/1"]
            assert len(seen.holds()) == 1

    def test_who_was_archived_comes_back(self):
        with self.serving() as (seen, server):
            sent = self.deliver(server, self.records(1)).outcomes["cust-00000"].sent
            self.deliver(server, [self.record(0, "archive", sent=sent)])
            assert seen.holds() == {}
            server.requests.clear()
            again = self.record(0, sent=sent)
            assert self.deliver(server, [again]).outcomes["cust-00000"].sent == sent
            assert calls(server) == [
                "PUT /contacts/1",
                "POST /contacts",
                "POST /contacts/1/unarchive",
                "GET /contacts/1",
                "PUT /contacts/1",
            ]
            assert list(seen.holds()) == ["cust-00000"]

    def test_another_persons_contact_is_left_alone(self):
        with self.serving() as (seen, server):
            shared = {"email": "shared@example.com", "name": "first"}
            self.deliver(server, [self.record(0, fields=shared)])
            second = self.deliver(server, [self.record(1, fields={**shared, "name": "second"})])
            assert second.outcomes["cust-00001"].reason == (
                "a contact with another external_id has some of these details"
            )
            assert seen.holds() == {"cust-00000": shared}

    def test_a_contact_without_an_external_id_is_claimed(self):
        with self.serving() as (seen, server):
            id_ = "a" * 24
            lead = {"id": id_, "email": "lead@example.com", "archived": False, "custom_attributes": {}}
            seen.vendor.contacts[id_] = lead
            claimed = self.deliver(server, [self.record(0, fields={"email": "lead@example.com"})])
            assert claimed.outcomes["cust-00000"].sent == id_
            assert seen.holds() == {"cust-00000": {"email": "lead@example.com"}}

    def test_inserting_whom_intercom_knows_changes_nothing(self):
        kind = self.made(sync={"mode": "insert"})
        with self.serving() as (seen, server):
            sent = self.deliver(server, self.records(1)).outcomes["cust-00000"].sent
            again = self.deliver(server, [self.record(0, "insert", fields={"name": "new"})], kind=kind)
            assert again.outcomes["cust-00000"].sent == sent
            assert seen.holds()["cust-00000"]["name"] == "value 0"

    def test_updating_looks_up_and_creates_nobody(self):
        kind = self.made(sync={"mode": "update"})
        with self.serving() as (seen, server):
            self.deliver(server, self.records(1))
            server.requests.clear()
            records = [self.record(n, "update", fields={"name": "new"}) for n in range(2)]
            updated = self.deliver(server, records, kind=kind)
            assert updated.states == ["accepted", "rejected"]
            assert updated.outcomes["cust-00001"].reason == "no such contact"
            assert seen.holds() == {"cust-00000": {"name": "new", "plan": "value 0"}}
            assert not any("cust" in path for _, path, _ in server.requests)


class TestByEmail(DestinationConformance):
    kind = Intercom
    options = {"key": "email"}
    sync = {"fields": {"plan": "country"}}

    def vendor(self):
        return IntercomVendor(key="email")


def made():
    return TestByExternalId().made()


def record(**fields):
    return TestByExternalId().record(0, fields=fields)


def refusal(status, code, message, path="/contacts/1"):
    body = {"type": "error.list", "errors": [{"code": code, "message": message}]}
    return Response("PUT", path, status, {}, json.dumps(body).encode())


def test_a_contact_as_it_travels():
    fields = {
        "name": None,
        "signed_up_at": datetime(2026, 7, 1, 12, tzinfo=UTC),
        "spent": Decimal("12.5"),
        "renews_at": date(2026, 7, 1),
        "born": date(1990, 1, 2),
        "vip": True,
    }
    assert made().item("upsert", record(**fields)) == {
        "external_id": "cust-00000",
        "role": "user",
        "name": None,
        "signed_up_at": 1782907200,
        "custom_attributes": {
            "spent": Decimal("12.5"),
            "renews_at": 1782864000,
            "born": date(1990, 1, 2),
            "vip": True,
        },
    }
    assert "role" not in made().item("update", record())
    with pytest.raises(InvalidRecord, match="'tags' holds a list"):
        made().item("upsert", record(tags=["a"]))


def test_a_conflict_names_the_contact():
    text = "An archived contact matching those details already exists with id=5ff25dc6ec394ef8296e873f"
    with pytest.raises(Conflict) as conflict:
        made().inspect(refusal(409, "conflict", text))
    assert (conflict.value.contact, conflict.value.archived) == ("5ff25dc6ec394ef8296e873f", True)


def test_a_wrong_address_is_not_taken_for_a_missing_contact():
    made().inspect(Response("PUT", "/contacts/1", 404, {}, b"<html>nothing here</html>"))
    made().inspect(refusal(404, "not_found", "nothing", path="/contact"))


@pytest.mark.parametrize(
    ("sync", "message"),
    [
        ({"mode": "event"}, "needs more"),
        ({"fields": {"external_id": "email"}}, "'external_id' is no field"),
        ({"fields": {"role": "country"}}, "'role' is no field"),
    ],
)
def test_what_does_not_fit_is_told(sync, message):
    (problem,) = IntercomOptions().sync_problems(TestByExternalId().declared(**sync))
    assert message in problem.message
