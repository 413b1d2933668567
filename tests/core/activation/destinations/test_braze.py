# SPDX-License-Identifier: Apache-2.0
"""Braze: attributes, events, removals."""

from __future__ import annotations

import pytest

from cdp_provider.core.activation.destinations.braze import Braze, BrazeOptions
from cdp_provider.testing.destinations.conformance import DestinationConformance
from tests.core.activation.destinations.fakes.braze import BrazeVendor


class TestBraze(DestinationConformance):
    kind = Braze
    sync = {"mode": "mirror", "fields": {"first_name": "first_name", "plan": "plan"}}

    def vendor(self):
        return BrazeVendor()

    def test_an_update_creates_nobody(self):
        sync = {"mode": "update"}
        with self.serving() as (seen, server):
            self.deliver(server, [self.record(0)])
            records = [self.record(n, "update", fields={"plan": "gold"}) for n in (0, 1)]
            assert self.deliver(server, records, kind=self.made(sync=sync)).states == ["accepted"] * 2
            assert seen.holds() == {str(self.key(0)): {"first_name": "value 0", "plan": "gold"}}

    def test_errors_without_a_position_are_found_by_halving(self):
        with self.serving() as (seen, server):
            seen.vendor.vague = True
            seen.refuses.add(self.known_as(2))
            delivered = self.deliver(server, self.records(5))
            assert delivered.error is None
            assert delivered.states == ["accepted", "accepted", "rejected", "accepted", "accepted"]
            assert delivered.outcomes[self.known_as(2)].reason == "refused"

    def test_batches_fit_the_endpoint(self):
        with self.serving() as (seen, server):
            assert self.deliver(server, self.records(60)).states == ["accepted"] * 60
            assert self.deliver(server, self.records(60, "remove")).states == ["accepted"] * 60
            assert [path for _, path, _ in server.requests] == ["/users/track"] * 2 + ["/users/delete"] * 2
            assert seen.holds() == {}
        assert self.made(sync={"mode": "upsert"}).capabilities.max_batch == 75


class TestBrazeByEmail(DestinationConformance):
    kind = Braze
    options = {"key": "email"}
    sync = {"fields": {"first_name": "first_name"}}

    def vendor(self):
        return BrazeVendor("email")


class TestBrazeEvents(DestinationConformance):
    kind = Braze
    options = {"app_id": "shop-web"}
    sync = {"mode": "event", "event": "Became VIP", "fields": {"orders": "orders"}}

    def vendor(self):
        return BrazeVendor()

    def test_an_event_says_what_when_and_of_whom(self):
        with self.serving() as (seen, server):
            self.deliver(server, self.records(1))
            assert seen.vendor.events == [
                {
                    "external_id": "person00000@example.com",
                    "app_id": "shop-web",
                    "name": "Became VIP",
                    "time": "2026-07-01T00:00:00Z",
                    "properties": {"orders": "value 0"},
                }
            ]

    def test_errors_that_name_no_event_are_left_to_a_person(self):
        with self.serving() as (seen, server):
            seen.vendor.vague = True
            seen.refuses.add(self.known_as(1))
            delivered = self.deliver(server, self.records(3))
            assert delivered.states == ["ambiguous"] * 3
            assert set(seen.applied.values()) == {1}


@pytest.mark.parametrize(
    ("options", "sync", "message"),
    [
        ({}, {"mode": "archive"}, "the mode 'archive' needs more"),
        ({}, {"mode": "insert"}, "the mode 'insert' needs more"),
        ({"key": "email"}, {"mode": "mirror"}, "cannot remove them"),
        ({}, {"fields": {"external_id": "email"}}, "is no field"),
        ({}, {"fields": {"_update_existing_only": "email"}}, "is no field"),
        ({}, {}, None),
        ({"key": "email"}, {"mode": "mirror", "removal": "clear"}, None),
        ({}, {"mode": "event", "fields": {"external_id": "email"}}, None),
    ],
)
def test_syncs_that_do_not_fit_are_told(options, sync, message):
    declared = TestBraze().declared(**{"mode": "upsert", **sync})
    problems = [p.message for p in BrazeOptions.model_validate(options).sync_problems(declared)]
    assert len(problems) == (message is not None)
    assert message is None or message in problems[0]
