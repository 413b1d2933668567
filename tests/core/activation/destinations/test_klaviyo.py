# SPDX-License-Identifier: Apache-2.0
"""Klaviyo: import jobs, their errors, and lists that profiles are taken off by id."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import pytest

from cdp_provider.core.activation.destinations.klaviyo import Klaviyo
from cdp_provider.core.exceptions import NotFoundError
from cdp_provider.testing.destinations.conformance import DestinationConformance
from cdp_provider.testing.destinations.fake import FakeAnswer
from tests.contracts import ByContract
from tests.core.activation.destinations.fakes.klaviyo import KlaviyoVendor

#: Answers of other shapes than documented.
GARBAGE = [
    {"data": 5},
    {"data": {"id": 5}},
    {"data": {"id": "1", "attributes": [1]}},
    {"data": {"attributes": {"status": ["complete"]}}},
    {"data": {"attributes": {"status": "complete", "failed_count": "1"}}},
    {"data": [{"attributes": {"status": "complete"}}], "links": []},
    {"data": [{"attributes": {"source": 1, "original_payload": {"data": [1]}}}], "links": {"next": 5}},
]


class TestKlaviyo(ByContract, DestinationConformance):
    kind = Klaviyo
    contract = "klaviyo"
    unpublished = ("/api/lists/",)
    options: ClassVar[dict[str, Any]] = {"list": "{list}"}
    sync: ClassVar[dict[str, Any]] = {
        "fields": {"first_name": "first_name", "location.city": "city", "tier": "tier"},
        "parameters": {"list": "Y6nRLr"},
        "mode": "mirror",
    }

    def fake(self):
        return KlaviyoVendor("Y6nRLr")

    def test_the_body_is_what_klaviyo_documents(self):
        kind = self.made()
        fields = {"first_name": "Ada", "location.city": None, "tier": 3, "gone": None}
        item = kind.item("upsert", self.record(0, key="a@b.co", fields=fields))
        assert item == {
            "type": "profile",
            "attributes": {
                "email": "a@b.co",
                "first_name": "Ada",
                "location": {"city": None},
                "properties": {"tier": 3},
            },
            "meta": {"patch_properties": {"unset": ["gone"]}},
        }
        body = json.loads(kind.request("upsert", [], [b'{"a":1}', b'{"b":2}']).body or b"")
        profiles = {"profiles": {"data": [{"a": 1}, {"b": 2}]}}
        lists = {"lists": {"data": [{"type": "list", "id": "Y6nRLr"}]}}
        job = {"type": "profile-bulk-import-job", "attributes": profiles, "relationships": lists}
        assert body == {"data": job}

    def test_a_job_is_asked_after_until_it_is_complete(self):
        with self.serving() as (seen, server):
            seen.vendor.looks = 2
            assert self.deliver(server, self.records(2)).states == ["accepted"] * 2
            assert [method for method, _, _ in server.requests] == ["POST", "GET", "GET", "GET"]

    def test_a_job_that_is_not_done_in_time_leaves_its_records_ambiguous(self):
        with self.serving() as (seen, server):
            seen.vendor.looks = 1_000_000
            options = self.kind.options.model_validate({**self.options, "wait": "1 second"})
            delivered = self.deliver(server, self.records(2), kind=self.made(options=options))
            assert delivered.error is None
            assert delivered.states == ["ambiguous"] * 2
            assert 0.9 < delivered.seconds < 3
            assert len(server.requests) < 10

    def test_a_cancelled_job_is_sent_again(self):
        with self.serving() as (seen, server):
            seen.vendor.cancelled = True
            assert self.deliver(server, self.records(2)).states == ["retryable"] * 2

    @pytest.mark.parametrize(
        ("payloads", "places", "jobs"), [(True, False, 1), (False, True, 1), (False, False, 3)]
    )
    def test_errors_are_about_a_payload_or_a_place_or_found_by_halving(self, payloads, places, jobs):
        with self.serving() as (seen, server):
            seen.vendor.payloads, seen.vendor.places = payloads, places
            seen.refuses.add(self.known_as(1))
            delivered = self.deliver(server, self.records(2))
            assert delivered.states == ["accepted", "rejected"]
            assert len([method for method, _, _ in server.requests if method == "POST"]) == jobs
            assert str(self.key(1)) not in str(delivered.outcomes[str(self.key(1))].reason)

    def test_errors_stand_on_several_pages(self):
        with self.serving() as (seen, server):
            seen.refuses.update(self.known_as(n) for n in range(250))
            delivered = self.deliver(server, self.records(300))
            assert delivered.states == ["rejected"] * 250 + ["accepted"] * 50
            assert len(server.requests) == 5

    def test_a_refusal_says_why_without_whom(self):
        with self.serving() as (seen, server):
            said = {"errors": [{"code": "invalid", "detail": f"{self.key(0)} is no address"}]}
            seen.poison = lambda _: True
            seen.poisoned = FakeAnswer(400, said)
            delivered = self.deliver(server, self.records(1))
            assert delivered.outcomes[str(self.key(0))].reason == "invalid: … is no address"

    def test_removals_look_up_a_hundred_and_take_off_a_thousand_at_a_time(self):
        with self.serving() as (seen, server):
            self.deliver(server, self.records(1_101))
            server.requests.clear()
            gone = [self.record(n, "remove") for n in range(1_101)]
            assert self.deliver(server, gone).states == ["accepted"] * 1_101
            assert [method for method, _, _ in server.requests] == ["GET"] * 12 + ["DELETE"] * 2
            assert seen.holds() == {}
            assert len(seen.vendor.profiles) == 1_101

    def test_a_list_that_is_not_there_ends_a_removal(self):
        with self.serving() as (_, server):
            self.deliver(server, self.records(1))
            kind = self.made(sync={"parameters": {"list": "../x"}})
            delivered = self.deliver(server, [self.record(0, "remove")], kind=kind)
            assert isinstance(delivered.error, NotFoundError)
            assert server.requests[-1][1] == "/api/lists/../x/relationships/profiles"


class WithoutList(TestKlaviyo):
    __test__ = False
    options: ClassVar[dict[str, Any]] = {}
    sync: ClassVar[dict[str, Any]] = {"fields": TestKlaviyo.sync["fields"]}

    def fake(self):
        return KlaviyoVendor()


def test_without_a_list_profiles_are_updated():
    with WithoutList().audit() as suite:
        assert suite.capabilities.operations == {"upsert"}
        suite.test_everything_is_accepted_once()
        assert b"relationships" not in (suite.made().request("upsert", [], []).body or b"")


class Unaudited(TestKlaviyo):
    """For answers that no contract allows."""

    __test__ = False

    def vendor(self):
        return self.fake()


@pytest.mark.parametrize("method", ["POST", "GET"])
@pytest.mark.parametrize("said", GARBAGE)
def test_answers_of_another_shape_end_as_errors_that_are_known(method, said):
    suite = Unaudited()
    with suite.serving() as (seen, server):
        suite.deliver(server, suite.records(1))
        seen.poison = lambda request: request.method == method
        seen.poisoned = FakeAnswer(200, said)
        options = suite.kind.options.model_validate({**suite.options, "wait": "1 second"})
        for operation in ("upsert", "remove"):
            delivered = suite.deliver(server, [suite.record(0, operation)], kind=suite.made(options=options))
            assert len(delivered.states) == 1


def test_other_identifiers_keep_their_case():
    suite = TestKlaviyo()
    kind = suite.made(options=Klaviyo.options(identifier="external_id"))
    item = kind.item("upsert", suite.record(0, key=7, fields={"email": "a@b.co"}))
    assert item["attributes"] == {"external_id": "7", "email": "a@b.co"}
    assert not kind.capabilities.folds_keys


def test_removal_by_another_identifier():
    class ByExternalId(Unaudited):
        options: ClassVar[dict[str, Any]] = {"list": "{list}", "identifier": "external_id"}

        def fake(self):
            return KlaviyoVendor("Y6nRLr", "external_id")

        def key(self, n):
            return f'customer "{n}"'

    ByExternalId().test_removal_takes_away_and_bears_that_nobody_is_there()


@pytest.mark.parametrize(
    ("options", "sync", "message"),
    [
        ({}, {"mode": "mirror"}, "cannot remove"),
        ({}, {"mode": "update"}, "the mode 'update'"),
        ({"list": "{list}"}, {}, "needs the parameter 'list'"),
        ({}, {"fields": {"email": "email"}}, "'email' is no field"),
    ],
)
def test_what_does_not_fit_together_is_told(options, sync, message):
    declared = TestKlaviyo().declared(**{"mode": "upsert", "parameters": {}, **sync})
    (problem,) = Klaviyo.options.model_validate(options).sync_problems(declared)
    assert message in problem.message
