# SPDX-License-Identifier: Apache-2.0
"""Mailchimp: what every destination does, and what is its own."""

from __future__ import annotations

import json

import pytest

from cdp_provider.core.activation.destinations.base import InvalidRecord, Outcome, Refused
from cdp_provider.core.activation.destinations.mailchimp import Mailchimp, MailchimpOptions
from cdp_provider.core.exceptions import DataError, RateLimitedError
from cdp_provider.core.http import Response
from cdp_provider.testing.destinations.conformance import DestinationConformance
from tests.core.activation.destinations.fakes.mailchimp import MailchimpVendor


class TestMembers(DestinationConformance):
    """Removals archive."""

    kind = Mailchimp
    options = {"list": "{audience}"}
    sync = {"fields": {"FNAME": "first_name", "COUNTRY": "country"}, "parameters": {"audience": "a1b2c3"}}

    def vendor(self):
        return MailchimpVendor()

    def test_archiving_names_members_by_their_contact_id(self):
        with self.serving() as (_, server):
            accepted = self.deliver(server, self.records(1)).outcomes["person00000@example.com"]
            assert accepted.sent == "contact0"
            self.deliver(server, [self.record(0, "archive", sent=accepted.sent)])
            assert server.requests[-1] == ("DELETE", "/lists/a1b2c3/members/contact0", 204)

    def test_a_removal_that_is_refused_keeps_its_reason(self):
        with self.serving() as (seen, server):
            self.deliver(server, self.records(3))
            seen.refuses.add("person00001@example.com")
            removed = self.deliver(server, [self.record(n, "remove") for n in range(3)])
            assert removed.states == ["accepted", "rejected", "accepted"]
            refusal = removed.outcomes["person00001@example.com"]
            assert (refusal.status, refusal.reason) == (
                405,
                "Method Not Allowed: refused: … cannot be removed.",
            )

    def test_who_comes_back_after_a_removal_is_subscribed_again(self):
        with self.serving() as (seen, server):
            self.deliver(server, self.records(1))
            self.deliver(server, [self.record(0, "remove")])
            assert seen.holds() == {}
            assert self.deliver(server, self.records(1)).states == ["accepted"]
            assert list(seen.holds()) == ["person00000@example.com"]

    def test_who_unsubscribed_stays_so_and_is_told(self):
        with self.serving() as (seen, server):
            seen.vendor.complied.add("person00000@example.com")
            self.deliver(server, self.records(2))
            seen.vendor.members["person00001@example.com"]["status"] = "unsubscribed"
            delivered = self.deliver(server, self.records(2))
            assert [outcome.reason for outcome in delivered.outcomes.values()] == [
                "ERROR_GENERIC: … is in a compliance state and cannot be subscribed.",
                "stays unsubscribed: only the person can subscribe again",
            ]
            assert seen.vendor.members["person00001@example.com"]["status"] == "unsubscribed"

    def test_clearing_subscribes_nobody(self):
        with self.serving() as (seen, server):
            self.deliver(server, self.records(1))
            seen.vendor.members["person00000@example.com"]["status"] = "unsubscribed"
            cleared = [self.record(0, "clear", fields={"FNAME": None, "COUNTRY": None})]
            assert self.deliver(server, cleared).states == ["accepted"]
            member = seen.vendor.members["person00000@example.com"]
            assert member["status"] == "unsubscribed"
            assert member["merge_fields"] == {"FNAME": "", "COUNTRY": ""}

    def test_inserting_whom_mailchimp_knows_changes_nothing(self):
        kind = self.made(sync={"mode": "insert"})
        with self.serving() as (seen, server):
            self.deliver(server, self.records(1))
            again = [self.record(n, "insert", fields={"FNAME": "new"}) for n in range(2)]
            assert self.deliver(server, again, kind=kind).states == ["accepted"] * 2
            assert seen.holds()["person00000@example.com"]["FNAME"] == "value 0"
            assert seen.holds()["person00001@example.com"] == {"FNAME": "new"}


class TestUnsubscribing(DestinationConformance):
    """Removals unsubscribe."""

    kind = Mailchimp
    options = {"list": "a1b2c3", "removal": "unsubscribe"}
    sync = {"fields": {"FNAME": "first_name"}}

    def vendor(self):
        return MailchimpVendor()


def made(**options):
    return type("Made", (TestMembers,), {"options": {"list": "x/y", **options}, "sync": {}})().made()


def record(operation="upsert", **fields):
    return TestMembers().record(0, operation, fields=fields)


def response(body, status=200, method="POST"):
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Response(method, "/lists/x", status, {}, text)


def test_a_member_as_it_travels():
    member = made(status="pending").item(
        "upsert", record(FNAME=None, VIP_NO=3, OK=True, language="de", vip=True)
    )
    assert member == {
        "email_address": "person00000@example.com",
        "status": "pending",
        "language": "de",
        "vip": True,
        "merge_fields": {"FNAME": "", "VIP_NO": 3, "OK": "true"},
    }
    with pytest.raises(InvalidRecord, match="'TAGS' holds a list"):
        made().item("upsert", record(TAGS=["a"]))


def test_requests_by_operation():
    kind = made(removal="unsubscribe", skip_merge_validation=False)
    upsert, insert = (kind.request(name, [record()], [b"{}", b"{}"]) for name in ("upsert", "insert"))
    assert (upsert.path, upsert.body) == ("/lists/x%2Fy", b'{"members":[{},{}],"update_existing":true}')
    assert insert.body.endswith(b'"update_existing":false}')
    assert kind.request("remove", [record()], [b"{}"]).path == "/lists/x%2Fy?skip_merge_validation=true"
    # The hash of Mailchimp's own guide.
    urist = TestMembers().record(0, "archive", key="Urist.McVankab@freddiesjokes.com")
    assert kind.request("archive", [urist], ()).path.endswith("/members/62eeb292278cc15f5817cb78f7790b08")


def test_a_403_without_json_is_a_limit_and_one_with_json_is_not():
    with pytest.raises(RateLimitedError, match="slows down"):
        made().inspect(response(b"<html>Forbidden</html>", 403))
    made().inspect(response({"title": "User Action Not Permitted", "status": 403}, 403))


def test_a_refusal_names_fields_and_no_addresses():
    problem = {"title": "Invalid Resource", "errors": [{"field": "members.0", "message": "ada@x.org is bad"}]}
    with pytest.raises(Refused, match=r"^Invalid Resource: members.0 … is bad$"):
        made().inspect(response(problem, 400))


def test_addresses_are_told_apart_as_mailchimp_spells_them():
    body = {
        "new_members": [],
        "updated_members": [],
        "errors": [
            {"email_address": '"Person00000@Example.com"', "error_code": "ERROR_GENERIC", "error": "no"}
        ],
    }
    other = TestMembers().record(1)
    assert made().outcomes("upsert", response(body), [record(), other]) == [
        Outcome("rejected", "ERROR_GENERIC: no"),
        Outcome("retryable", "no answer for this record"),
    ]
    with pytest.raises(DataError, match="without a list of errors"):
        made().outcomes("upsert", response({}), [record()])


@pytest.mark.parametrize(
    ("sync", "message"),
    [
        ({"mode": "event"}, "needs more"),
        ({"mode": "update"}, "needs more"),
        ({"parameters": {}}, "needs the parameter 'audience'"),
        ({"fields": {"FIRSTNAME_OF": "first_name"}}, "is no merge tag"),
        ({"fields": {"fname": "first_name"}}, "is no merge tag"),
    ],
)
def test_what_does_not_fit_is_told(sync, message):
    (problem,) = MailchimpOptions(list="{audience}").sync_problems(TestMembers().declared(**sync))
    assert message in problem.message
    assert problem.hint
