# SPDX-License-Identifier: Apache-2.0
"""Iterable: bulk updates and lists, and an answer that names who failed."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from cdp_provider.core.activation.destinations.base import Refused
from cdp_provider.core.activation.destinations.iterable import IterableDestination
from cdp_provider.core.exceptions import DataError
from cdp_provider.core.http import Response
from cdp_provider.testing.destinations.conformance import DestinationConformance
from tests.contracts import ByContract
from tests.core.activation.destinations.fakes.iterable import IterableVendor


class TestIterable(ByContract, DestinationConformance):
    kind = IterableDestination
    contract = "iterable"
    options: ClassVar[dict[str, Any]] = {"list": "{list}"}
    sync: ClassVar[dict[str, Any]] = {
        "fields": {"firstName": "first_name", "tier": "tier"},
        "parameters": {"list": "42"},
        "mode": "mirror",
    }

    def fake(self):
        return IterableVendor(list_id=42)

    def test_ids_create_users_even_where_e_mail_addresses_identify(self):
        options = self.kind.options(identifier="user_id")
        item = self.made(options=options).item("upsert", self.record(0, key=7, fields={}))
        assert item == {"userId": "7", "preferUserId": True}

    def test_failures_that_are_not_named_are_found_by_halving(self):
        with self.serving() as (seen, server):
            seen.vendor.silent = True
            seen.refuses.add(self.known_as(1))
            delivered = self.deliver(server, self.records(2))
            assert delivered.states == ["accepted", "rejected"]
            assert len(server.requests) == 3

    @pytest.mark.parametrize("body", [b"[]", b'"x"', b"{}", b'{"failCount":"1"}', b'{"failCount":null}'])
    def test_an_answer_of_another_shape_cannot_be_read(self, body):
        with pytest.raises(DataError):
            self.made().outcomes("upsert", Response("POST", "/", 200, {}, body), self.records(1))

    def test_every_list_of_failures_has_a_reason_and_its_users(self):
        lists = ["invalid", "invalidData", "conflict", "forgotten", "notFound"]
        failed = {f"{why}Emails": [str(self.key(n)).upper()] for n, why in enumerate(lists)}
        body = b'{"failCount":5,"failedUpdates":%b}' % repr(failed).replace("'", '"').encode()
        response = Response("POST", "/", 200, {}, body)
        outcomes = self.made().outcomes("upsert", response, self.records(6))
        assert [outcome.state for outcome in outcomes] == ["rejected"] * 5 + ["accepted"]
        assert all(why in str(outcome.reason) for why, outcome in zip(lists, outcomes, strict=False))
        with pytest.raises(Refused, match="does not name all"):
            self.made().outcomes("upsert", response, self.records(4))

    def test_the_body_is_what_iterable_documents(self):
        request = self.made().request("remove", [], [b'{"email":"a@b.co"}'])
        assert (request.path, request.limit) == ("/api/lists/unsubscribe", "lists")
        assert request.body == b'{"listId":42,"subscribers":[{"email":"a@b.co"}]}'

    def test_who_was_forgotten_is_rejected_and_removed(self):
        with self.serving() as (seen, server):
            seen.vendor.forgotten.add(self.known_as(0))
            assert self.deliver(server, self.records(2)).states == ["rejected", "accepted"]
            gone = [self.record(n, "remove") for n in range(3)]
            assert self.deliver(server, gone).states == ["accepted"] * 3
            assert seen.holds() == {}

    def test_a_list_that_is_not_there_is_told(self):
        with self.serving() as (_, server):
            kind = self.made(sync={"parameters": {"list": "43"}})
            delivered = self.deliver(server, self.records(1), kind=kind)
            assert delivered.states == ["rejected"]
            assert delivered.outcomes[str(self.key(0))].reason == "BadParams: List does not exist"


class WithoutList(TestIterable):
    __test__ = False
    options: ClassVar[dict[str, Any]] = {}
    sync: ClassVar[dict[str, Any]] = {"fields": TestIterable.sync["fields"]}

    def fake(self):
        return IterableVendor()


def test_without_a_list_users_are_updated():
    with WithoutList().audit() as suite:
        assert suite.capabilities.operations == {"upsert"}
        suite.test_everything_is_accepted_once()
        suite.test_what_was_rejected_is_told_apart_with_its_reason()
        suite.test_clearing_empties_the_mapped_fields()
        request = suite.made().request("upsert", [], [b'{"email":"a@b.co"}', b'{"email":"c@d.co"}'])
        assert (request.method, request.path) == ("POST", "/api/users/bulkUpdate")
        assert request.body == b'{"users":[{"email":"a@b.co"},{"email":"c@d.co"}]}'


@pytest.mark.parametrize(("create", "text"), [(True, b"true"), (False, b"false")])
def test_unknown_fields_are_created_or_not(create, text):
    options = IterableDestination.options(create_fields=create)
    body = WithoutList().made(options=options).request("upsert", [], []).body
    assert body == b'{"createNewFields":%b,"users":[]}' % text


@pytest.mark.parametrize(
    ("options", "sync", "message"),
    [
        ({}, {"mode": "mirror"}, "cannot remove"),
        ({}, {"mode": "insert"}, "the mode 'insert'"),
        ({"list": "{list}"}, {}, "needs the parameter 'list'"),
        ({"list": "{list}"}, {"parameters": {"list": "news"}}, "whole number"),
        ({"list": "news"}, {}, "whole number"),
    ],
)
def test_what_does_not_fit_together_is_told(options, sync, message):
    declared = TestIterable().declared(**{"mode": "upsert", "parameters": {}, **sync})
    (problem,) = IterableDestination.options.model_validate(options).sync_problems(declared)
    assert message in problem.message


@pytest.mark.parametrize("options", [{"list": "{list}"}, {"list": 42}, {"list": "42"}])
def test_what_fits_is_fine(options):
    declared = TestIterable().declared(mode="mirror", parameters={"list": "42"})
    assert list(IterableDestination.options.model_validate(options).sync_problems(declared)) == []
