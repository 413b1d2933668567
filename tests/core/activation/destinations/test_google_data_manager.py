# SPDX-License-Identifier: Apache-2.0
"""Google's Data Manager: what every destination does, and what is its own."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from cdp_provider.core.activation.destinations import jobs
from cdp_provider.core.activation.destinations.base import InvalidRecord, Refused
from cdp_provider.core.activation.destinations.google_data_manager import (
    GoogleDataManager,
    GoogleDataManagerOptions,
)
from cdp_provider.core.activation.encoding import encode
from cdp_provider.core.activation.hashing import sha256
from cdp_provider.core.exceptions import ConfigurationError, RateLimitedError
from cdp_provider.core.http import Response
from cdp_provider.testing.destinations import FakeServer
from cdp_provider.testing.destinations.conformance import DestinationConformance
from tests.contracts import audit
from tests.core.activation.destinations.fakes.google_data_manager import GoogleDataManagerVendor


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(jobs, "_FIRST_PAUSE", 0.001)


class TestGoogleDataManager(DestinationConformance):
    kind = GoogleDataManager
    options = {"operating_account": "1", "audience": "{list}", "region": "DE", "accept_terms": True}
    sync = {
        "fields": {
            "phoneNumber": "phone",
            "givenName": "first_name",
            "familyName": "last_name",
            "regionCode": "country",
            "postalCode": "postcode",
        },
        "parameters": {"list": "9"},
    }

    def vendor(self):
        return GoogleDataManagerVendor({sha256(self.key(n)): self.key(n) for n in range(50)})

    def fields(self, n):
        address = {"givenName": f"Ada {n}", "familyName": "Byron", "regionCode": "DE", "postalCode": "10115"}
        return {"phoneNumber": f"0171 1{n:06}", **address}

    def held(self, n):
        return {}

    def test_both_sides_keep_to_the_contract(self):
        with audit(self.vendor(), "google-data-manager") as vendor, FakeServer(vendor) as server:
            vendor.refuses = {self.key(1)}
            delivered = self.deliver(server, self.records(3))
            assert delivered.states == ["accepted", "rejected", "accepted"]
            sent = delivered.outcomes[self.key(0)].sent
            assert self.deliver(server, [replace(self.record(0, "remove"), sent=sent)]).states == ["accepted"]
            assert list(vendor.holds()) == [self.key(2)]

    def test_a_changed_identifier_is_taken_back_first(self):
        with self.serving() as (seen, server):
            first = self.deliver(server, self.records(2)).outcomes
            moved = {**self.fields(0), "postalCode": "20095", "phoneNumber": None}
            records = [
                replace(self.record(0), sent=first[self.key(0)].sent, fields=moved),
                replace(self.record(1), sent=first[self.key(1)].sent),
            ]
            asked = len(server.requests)
            assert self.deliver(server, records).states == ["accepted"] * 2
            posts = [path for method, path, _ in server.requests[asked:] if method == "POST"]
            assert posts == ["/v1/audienceMembers:remove", "/v1/audienceMembers:ingest"]
            held = "".join(seen.vendor.identifiers)
            assert sha256("+491711000000") not in held
            assert sha256("+491711000001") in held
            assert "20095" in held
            assert held.count("10115") == 1

    def test_who_is_not_named_is_sent_again(self):
        with self.serving() as (seen, server):
            seen.refuses.add(self.key(1))
            seen.vendor.says_which = False
            assert self.deliver(server, self.records(3)).states == ["retryable"] * 3
            assert self.deliver(server, [self.record(1)]).states == ["rejected"]

    def test_trouble_of_google_itself_is_no_refusal(self):
        with self.serving() as (seen, server):
            seen.refuses.add(self.key(1))
            seen.vendor.reason = "INTERNAL_ERROR"
            assert self.deliver(server, self.records(3)).states == ["accepted", "retryable", "accepted"]

    def test_a_request_that_takes_too_long_is_left_to_the_next_try(self):
        kind = self.made(options=options(wait="1 second"))
        with self.serving() as (seen, server):
            seen.vendor.polls = 1_000_000
            delivered = self.deliver(server, self.records(2), kind=kind)
            assert delivered.states == ["ambiguous"] * 2
            assert "raise the option wait" in delivered.outcomes[self.key(0)].reason

    def test_unasked_a_request_that_was_taken_counts(self):
        kind = self.made(options=options(confirm=False))
        with self.serving() as (_, server):
            assert self.deliver(server, self.records(2), kind=kind).states == ["accepted"] * 2
            assert len(server.requests) == 1

    def test_a_wrong_audience_is_nobodys_fault(self):
        kind = self.made(options=options(audience="10"))
        with self.serving() as (_, server):
            delivered = self.deliver(server, self.records(4), kind=kind)
            assert isinstance(delivered.error, ConfigurationError)
            assert "INVALID_USER_LIST_ID at destinations[0]" in str(delivered.error)
            assert len(server.requests) == 1


def options(**changed):
    return GoogleDataManagerOptions.model_validate(
        {"operating_account": "1", "audience": "9", "region": "DE", **changed}
    )


def made(**changed):
    return TestGoogleDataManager().made(options=options(**changed))


def test_a_request_holds_what_google_documents():
    harness = TestGoogleDataManager()
    kind = harness.made(options=options(login_account="5", accept_terms=True))
    request = kind._request("add", [encode(kind.item("upsert", harness.record(0)))])
    assert json.loads(request.body) == {
        "destinations": [
            {
                "operatingAccount": {"accountType": "GOOGLE_ADS", "accountId": "1"},
                "loginAccount": {"accountType": "GOOGLE_ADS", "accountId": "5"},
                "productDestinationId": "9",
            }
        ],
        "audienceMembers": [
            {
                "userData": {
                    "userIdentifiers": [
                        {"emailAddress": sha256("person00000@example.com")},
                        {"phoneNumber": sha256("+491711000000")},
                        {
                            "address": {
                                "givenName": sha256("ada 0"),
                                "familyName": sha256("byron"),
                                "regionCode": "DE",
                                "postalCode": "10115",
                            }
                        },
                    ]
                }
            }
        ],
        "encoding": "HEX",
        "consent": {"adUserData": "CONSENT_GRANTED", "adPersonalization": "CONSENT_GRANTED"},
        "termsOfService": {"customerMatchTermsOfServiceStatus": "ACCEPTED"},
    }


def test_hashes_are_those_of_google():
    """https://github.com/googleads/data-manager-python/blob/main/tests/formatter_test.py"""
    values = {"emailAddress": "  ALEXZ@example.com   ", "phoneNumber": "1-800-555-0100   "}
    address = {"givenName": "  GivenName  ", "familyName": "  FamilyName ", "regionCode": " uS "}
    assert made(region="US").person({**values, **address, "postalCode": " 1229-076  "}) == {
        "emailAddress": "509e933019bb285a134a9334b8bb679dff79d0ce023d529af4bd744d47b4fd8a",
        "phoneNumber": "fb4f73a6ec5fdb7077d564cdd22c3554b43ce49168550c3b12c547b78c517b30",
        "address": {
            "givenName": "128a07bfe2df877c52076e60d7774cf5baaa046c5a6c48daf30ff43ecca2f814",
            "familyName": "77762c287e61ce065bee5c15464012c6fbe088398b8057627d5577249430d574",
            "regionCode": "US",
            "postalCode": "1229-076",
        },
    }


def test_half_an_address_is_none():
    record = TestGoogleDataManager().record(0, key="nobody", fields={"givenName": "Ada", "regionCode": "DE"})
    with pytest.raises(InvalidRecord, match="none of emailAddress, givenName, regionCode is an identifier"):
        made().item("upsert", record)


def test_a_quota_says_how_long_to_wait():
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "17.5s"}]
    body = {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "details": details}}
    answer = Response("POST", "/v1/audienceMembers:ingest", 429, {}, json.dumps(body).encode())
    with pytest.raises(RateLimitedError) as raised:
        made().inspect(answer)
    assert raised.value.retry_after == 17.5


def test_a_member_that_is_refused_is_named_without_its_data():
    violation = {
        "field": "audience_members[3].user_data",
        "reason": "INVALID_SHA256_FORMAT",
        "description": "x@y",
    }
    body = {"error": {"details": [{"fieldViolations": [violation]}]}}
    response = Response("POST", "/v1/audienceMembers:ingest", 400, {}, json.dumps(body).encode())
    with pytest.raises(Refused, match=r"^INVALID_SHA256_FORMAT at audience_members\[3\]\.user_data$"):
        made().inspect(response)
