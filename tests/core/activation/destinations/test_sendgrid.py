# SPDX-License-Identifier: Apache-2.0
"""SendGrid: import jobs and their files of errors, deletions by id, lists."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from cdp_provider.core.activation.destinations.base import InvalidRecord
from cdp_provider.core.activation.destinations.sendgrid import Sendgrid
from cdp_provider.core.exceptions import NotFoundError
from cdp_provider.testing.destinations.conformance import DestinationConformance
from cdp_provider.testing.destinations.fake import FakeAnswer
from tests.contracts import ByContract
from tests.core.activation.destinations.fakes.sendgrid import SendgridVendor

LIST = "ca7bc1f6-6a3c-4b3c-9c59-9a2f3a1f0d11"

#: Answers of other shapes than documented.
GARBAGE = [
    {"job_id": 5},
    {"job_id": "1", "status": ["completed"]},
    {"status": "errored", "results": [1], "result": [1]},
    {"status": "errored", "results": {"errored_count": "1", "errors_url": 5}, "result": {"a": 1}},
    {"status": "failed", "results": {"errors_url": "https://["}, "result": {"a": {"contact": [1]}}},
]


class TestSendgrid(ByContract, DestinationConformance):
    kind = Sendgrid
    contract = "sendgrid"
    unpublished = ("/v3/marketing/contacts/search/", "/v3/marketing/lists/", "/errors/")
    options: ClassVar[dict[str, Any]] = {"list": "{list}"}
    sync: ClassVar[dict[str, Any]] = {
        "fields": {"first_name": "first_name", "e1_T": "tier"},
        "parameters": {"list": LIST},
        "mode": "mirror",
    }

    def fake(self):
        return SendgridVendor(LIST)

    def test_the_body_is_what_sendgrid_documents(self):
        kind = self.made()
        fields = {"first_name": "Ada", "city": None, "e1_T": 3, "e2_T": None}
        item = kind.item("upsert", self.record(0, key="a@b.co", fields=fields))
        custom = {"custom_fields": {"e1_T": 3, "e2_T": None}}
        assert item == {"email": "a@b.co", "first_name": "Ada", "city": "", **custom}
        request = kind.request("upsert", [], [b'{"a":1}', b'{"b":2}'])
        assert (request.method, request.path) == ("PUT", "/v3/marketing/contacts")
        assert request.body == b'{"list_ids":["%b"],"contacts":[{"a":1},{"b":2}]}' % LIST.encode()

    def test_a_text_that_is_too_long_is_never_sent(self):
        with pytest.raises(InvalidRecord, match="^first_name has more than 50 characters$"):
            self.made().item("upsert", self.record(0, fields={"first_name": "x" * 51}))

    def test_a_job_is_asked_after_until_it_is_done(self):
        with self.serving() as (seen, server):
            seen.vendor.looks = 2
            assert self.deliver(server, self.records(2)).states == ["accepted"] * 2
            assert [method for method, _, _ in server.requests] == ["PUT", "GET", "GET", "GET"]

    def test_a_job_that_is_not_done_in_time_leaves_its_records_ambiguous(self):
        with self.serving() as (seen, server):
            seen.vendor.looks = 1_000_000
            options = self.kind.options.model_validate({**self.options, "wait": "1 second"})
            delivered = self.deliver(server, self.records(2), kind=self.made(options=options))
            assert delivered.error is None
            assert delivered.states == ["ambiguous"] * 2

    @pytest.mark.parametrize(("tells", "jobs"), [(True, 1), (False, 3)])
    def test_who_failed_stands_in_the_file_or_is_found_by_halving(self, tells, jobs):
        with self.serving() as (seen, server):
            seen.vendor.tells = tells
            seen.refuses.add(self.known_as(1))
            delivered = self.deliver(server, self.records(2))
            assert delivered.states == ["accepted", "rejected"]
            assert len([method for method, _, _ in server.requests if method == "PUT"]) == jobs
            reason = delivered.outcomes[str(self.key(1))].reason
            assert reason == ("… was refused" if tells else "the import failed")

    def test_a_job_that_failed_as_a_whole_is_not_halved(self):
        with self.serving() as (seen, server):
            seen.vendor.tells = False
            seen.refuses.update(self.known_as(n) for n in range(4))
            assert self.deliver(server, self.records(4)).states == ["rejected"] * 4
            assert [method for method, _, _ in server.requests] == ["PUT", "GET", "GET"]

    @pytest.mark.parametrize("url", ["http://198.51.100.1/errors", "file:///etc/passwd", "", "errors.csv"])
    def test_files_elsewhere_are_only_fetched_by_https(self, url):
        with self.serving() as (seen, server):
            results = {"errored_count": 1, "errors_url": url}
            seen.poison = lambda request: "/imports/" in request.path
            seen.poisoned = FakeAnswer(200, {"status": "errored", "results": results})
            delivered = self.deliver(server, self.records(1))
            assert delivered.states == ["rejected"]
            assert delivered.seconds < 2

    def test_a_refusal_says_why_without_whom(self):
        with self.serving() as (seen, server):
            said = {"errors": [{"field": "contacts[0].email", "message": f"{self.key(0)} is no address"}]}
            seen.poison = lambda _: True
            seen.poisoned = FakeAnswer(400, said)
            delivered = self.deliver(server, self.records(1))
            assert delivered.outcomes[str(self.key(0))].reason == "contacts[0].email: … is no address"

    def test_removals_look_up_a_hundred_at_a_time(self):
        with self.serving() as (seen, server):
            self.deliver(server, self.records(201))
            server.requests.clear()
            gone = [self.record(n, "remove") for n in range(205)]
            assert self.deliver(server, gone).states == ["accepted"] * 205
            methods = [method for method, _, _ in server.requests]
            assert methods[:6] == ["POST", "DELETE"] * 3
            assert seen.holds() == {}

    def test_contacts_outlive_their_removal_from_the_list(self):
        with self.serving() as (seen, server):
            self.deliver(server, self.records(2))
            assert self.deliver(server, [self.record(0, "remove")]).states == ["accepted"]
            assert len(seen.vendor.contacts) == 2
            kind = self.made(sync={"parameters": {"list": "other"}})
            wrong = self.deliver(server, [self.record(1, "remove")], kind=kind)
            assert isinstance(wrong.error, NotFoundError)


class WithoutList(TestSendgrid):
    __test__ = False
    options: ClassVar[dict[str, Any]] = {}
    sync: ClassVar[dict[str, Any]] = {"fields": TestSendgrid.sync["fields"], "mode": "mirror"}

    def fake(self):
        return SendgridVendor()


def test_without_a_list_contacts_are_deleted():
    with WithoutList().audit() as suite:
        suite.test_everything_is_accepted_once()
        suite.test_removal_takes_away_and_bears_that_nobody_is_there()
        suite.test_removals_look_up_a_hundred_at_a_time()
        assert suite.made().request("upsert", [], [b"{}"]).body == b'{"contacts":[{}]}'


def test_a_deletion_that_is_not_done_in_time_is_ambiguous():
    with WithoutList().audit() as suite, suite.serving() as (seen, server):
        suite.deliver(server, suite.records(1))
        seen.vendor.looks = 1_000_000
        kind = suite.made(options=Sendgrid.options.model_validate({"wait": "1 second"}))
        assert suite.deliver(server, [suite.record(0, "remove")], kind=kind).states == ["ambiguous"]


class Unaudited(TestSendgrid):
    """For answers that no contract allows."""

    __test__ = False

    def vendor(self):
        return self.fake()


@pytest.mark.parametrize("method", ["PUT", "GET"])
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
    suite = TestSendgrid()
    kind = suite.made(options=Sendgrid.options(identifier="external_id"))
    assert kind.item("remove", suite.record(0, "remove", key=7)) == {"external_id": "7"}
    assert not kind.capabilities.folds_keys


@pytest.mark.parametrize(
    ("options", "sync", "message"),
    [
        ({}, {"mode": "archive"}, "the mode 'archive'"),
        ({"list": "{list}"}, {}, "needs the parameter 'list'"),
        ({}, {"fields": {"email": "email"}}, "'email' is no field"),
    ],
)
def test_what_does_not_fit_together_is_told(options, sync, message):
    declared = TestSendgrid().declared(**{"parameters": {}, **sync})
    (problem,) = Sendgrid.options.model_validate(options).sync_problems(declared)
    assert message in problem.message
