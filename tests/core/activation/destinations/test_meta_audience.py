# SPDX-License-Identifier: Apache-2.0
"""Meta's custom audiences: what every destination does, and what is its own."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date

import pytest

from cdp_provider.core.activation.destinations.base import InvalidRecord, Refused
from cdp_provider.core.activation.destinations.meta_audience import MetaAudience, MetaAudienceOptions
from cdp_provider.core.activation.hashing import sha256
from cdp_provider.core.activation.limiter import SqliteLimits
from cdp_provider.core.activation.sync import sync
from cdp_provider.core.exceptions import AccessError, ConfigurationError, RateLimitedError, UnavailableError
from cdp_provider.core.http import Endpoint, Response
from cdp_provider.core.project.activation import Consent, Destination
from cdp_provider.testing.destinations import FakeServer
from cdp_provider.testing.destinations.conformance import DestinationConformance
from tests.core.activation.destinations.fakes.meta_audience import MetaAudienceVendor
from tests.core.activation.scene import PROFILES, newsletter, person, put_profiles, run


class TestMetaAudience(DestinationConformance):
    kind = MetaAudience
    options = {"audience": "{audience}", "region": "DE"}
    sync = {"fields": {"PHONE": "phone", "FN": "first_name"}, "parameters": {"audience": "42"}}

    def vendor(self):
        return MetaAudienceVendor({sha256(self.key(n)): self.key(n) for n in range(50)})

    def fields(self, n):
        return {"PHONE": f"0171 1{n:06}", "FN": f"Person {n}"}

    def held(self, n):
        return {}

    def test_a_changed_identifier_is_taken_back_first(self):
        with self.serving() as (seen, server):
            first = self.deliver(server, self.records(2)).outcomes
            old = {("PHONE", sha256(f"491711{n:06}")) for n in range(2)}
            assert old <= seen.vendor.identifiers
            records = [
                replace(
                    self.record(n),
                    sent=first[self.key(n)].sent,
                    fields={**self.fields(n), **changed},
                    payload_hash="b",
                )
                for n, changed in enumerate([{"PHONE": "0171 9999999"}, {}])
            ]
            asked = len(server.requests)
            changed = self.deliver(server, records).outcomes
            assert [method for method, *_ in server.requests[asked:]] == ["DELETE", "POST"]
            assert old & seen.vendor.identifiers == {("PHONE", sha256("491711000001"))}
            assert ("PHONE", sha256("491719999999")) in seen.vendor.identifiers
            assert sha256("491719999999") in json.loads(changed[self.key(0)].sent)["row"]
            assert len(set(seen.vendor.sessions)) == len(seen.vendor.sessions)

            gone = replace(self.record(0, "remove"), sent=changed[self.key(0)].sent)
            self.deliver(server, [gone])
            assert ("PHONE", sha256("491719999999")) not in seen.vendor.identifiers

    def test_a_removal_of_whom_the_ledger_forgot_goes_by_the_key(self):
        with self.serving() as (seen, server):
            self.deliver(server, self.records(2))
            assert self.deliver(server, [self.record(1, "remove")]).states == ["accepted"]
            assert list(seen.holds()) == [self.key(0)]

    def test_the_session_is_the_same_for_equal_batches(self):
        sessions = []
        for _ in range(2):
            with self.serving() as (seen, server):
                self.deliver(server, self.records(3))
                sessions.append(seen.vendor.sessions)
        assert sessions[0] == sessions[1]


def kind(sync=None, **options):
    return TestMetaAudience().made(
        sync=sync, options=MetaAudienceOptions.model_validate({"audience": "42", **options})
    )


def test_rows_hold_what_meta_documents():
    values = {
        "EMAIL": " John_Smith@gmail.com ",
        "PHONE": "(650)555-1212",
        "EXTERN_ID": 7,
        "MADID": " AB-CD ",
        "GEN": "Female",
        "DOBY": date(1997, 2, 16),
        "DOBM": "2",
        "DOBD": 16,
        "FN": "Valéry",
        "FI": "Valéry",
        "LN": "O'Brien-Smith",
        "CT": "New York",
        "ST": "CA",
        "ZIP": "94035-1234",
        "COUNTRY": "US",
    }
    person = kind(region="US").person(values)
    assert person == {
        "EMAIL": "62a14e44f765419d10fea99367361a727c12365e2520f32218d505ed9aa0f62f",
        "PHONE": "e323ec626319ca94ee8bff2e4c87cf613be6ea19919ed1364124e16807ab3176",
        "EXTERN_ID": "7",
        "MADID": "ab-cd",
        "details": {
            "GEN": sha256("f"),
            "DOBY": sha256("1997"),
            "DOBM": sha256("02"),
            "DOBD": sha256("16"),
            "FN": "08e1996b5dd49e62a4b4c010d44e4345592a863bb9f8e3976219bac29417149c",
            "FI": sha256("v"),
            "LN": sha256("obriensmith"),
            "CT": sha256("newyork"),
            "ST": sha256("ca"),
            "ZIP": sha256("94035"),
            "COUNTRY": "79adb2a2fce5c6ba215fe5f27f532d4e7edbac4b6a5e09e1ef3a08084a904621",
        },
    }


def test_nobody_is_told_apart_by_a_city():
    record = TestMetaAudience().record(0, key="no address", fields={"CT": "Berlin", "COUNTRY": "DE"})
    with pytest.raises(InvalidRecord, match="none of COUNTRY, CT, EMAIL is an identifier") as raised:
        kind().item("upsert", record)
    assert "Berlin" not in str(raised.value)


@pytest.mark.parametrize(
    ("status", "error", "headers", "expected"),
    [
        (400, {"code": 17, "error_subcode": 2446079}, {}, (RateLimitedError, None)),
        (
            400,
            {"code": 80003},
            {
                "x-business-use-case-usage": '{"1": [{"type": "custom_audience",'
                ' "estimated_time_to_regain_access": 3}]}'
            },
            (RateLimitedError, 180.0),
        ),
        (400, {"code": 4}, {"x-business-use-case-usage": "[5]"}, (RateLimitedError, None)),
        (403, {"code": 613}, {}, (RateLimitedError, None)),
        (400, {"code": 2}, {}, (UnavailableError, None)),
        (400, {"code": 100, "is_transient": True}, {}, (UnavailableError, None)),
        (400, {"code": 190}, {}, (AccessError, None)),
        (403, {"code": 200}, {}, (AccessError, None)),
        (400, {"code": 100, "error_subcode": 1713230}, {}, (ConfigurationError, None)),
        (400, {"code": 100, "message": "bad a@x.org"}, {}, (Refused, None)),
    ],
)
def test_errors_are_told_apart_by_their_code(status, error, headers, expected):
    answer = Response("POST", "/v25.0/42/users", status, headers, json.dumps({"error": error}).encode())
    kind_of_error, retry_after = expected
    with pytest.raises(kind_of_error, match=f"error {error['code']}") as raised:
        kind().inspect(answer)
    assert getattr(raised.value, "retry_after", None) == retry_after
    assert "a@x.org" not in str(raised.value)


@pytest.mark.parametrize(
    ("options", "sync", "message"),
    [
        ({}, {"mode": "event", "fields": {}}, "only takes persons in and out"),
        ({}, {"mode": "mirror", "removal": "clear"}, "only takes persons in and out"),
        ({"key": "none"}, {"fields": {}}, "nothing tells the audience"),
        ({}, {"fields": {"EMAIL_ADDRESS": "email"}}, "is no identifier of a person there"),
        ({}, {"fields": {"EMAIL": "email"}}, "is what the sync's key already fills"),
        ({}, {"fields": {"FN": {"from": "first_name", "write": "if_empty"}}}, "does not say what it holds"),
        ({"audience": "{id}"}, {}, "needs the parameter 'id'"),
    ],
)
def test_what_does_not_fit_is_told(options, sync, message):
    told = MetaAudienceOptions.model_validate({"audience": "42", **options})
    problems = list(told.sync_problems(TestMetaAudience().declared(**sync)))
    assert len(problems) == 1
    assert message in problems[0].message
    assert problems[0].hint


def test_who_leaves_changes_or_withdraws_consent_is_taken_out(warehouse, tmp_path):
    vendor = MetaAudienceVendor({sha256(f"person{n:05}@example.com"): str(n) for n in range(9)})
    declared = newsletter(fields={"EXTERN_ID": "country"}, parameters={"audience": "42"})
    destination = Destination(
        name="mail",
        type="meta_audience",
        connection="meta",
        options=MetaAudienceOptions.model_validate({"audience": "{audience}"}),
    )
    limits = SqliteLimits(tmp_path / "limits.sqlite")

    def run_day(day, *people):
        put_profiles(warehouse, [{"consent": True, **one} for one in people])
        sync(
            warehouse,
            declared,
            destination,
            Endpoint(server.url),
            run(day),
            profiles=PROFILES,
            consent=Consent(purposes={"advertising": "consent"}),
            limits=limits,
        )
        return {vendor.names.get(value, value) for _, value in vendor.identifiers}

    people = [person(n, country=f"c{n}") for n in range(5)]
    with FakeServer(vendor) as server:
        people[4]["consent"] = False
        assert run_day(0, *people) == {"0", "1", "2", "3", "c0", "c1", "c2", "c3"}
        people[0]["out"], people[1]["country"], people[2]["consent"] = True, "new", False
        assert run_day(1, *people) == {"1", "3", "new", "c3"}
        # The profile itself is gone, and so is all that is known of it but the ledger.
        assert run_day(2, people[1]) == {"1", "new"}
