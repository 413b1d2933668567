# SPDX-License-Identifier: Apache-2.0
"""Customer.io: people, events, removals."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from cdp_provider.core.activation.destinations.customerio import Customerio, CustomerioOptions
from cdp_provider.testing.destinations.conformance import DestinationConformance
from tests.core.activation.destinations.fakes.customerio import CustomerioVendor


class TestCustomerio(DestinationConformance):
    kind = Customerio
    sync = {"mode": "mirror", "fields": {"first_name": "first_name", "plan": "plan"}}

    def vendor(self):
        return CustomerioVendor()

    def test_an_update_creates_nobody(self):
        with self.serving() as (seen, server):
            self.deliver(server, [self.record(0)])
            records = [self.record(n, "update", fields={"plan": "gold"}) for n in (0, 1)]
            update = self.made(sync={"mode": "update"})
            assert self.deliver(server, records, kind=update).states == ["accepted"] * 2
            assert seen.holds() == {str(self.key(0)): {"first_name": "value 0", "plan": "gold"}}

    def test_timestamps_are_seconds(self):
        moment = datetime(2026, 7, 1, 12, tzinfo=UTC)
        with self.serving() as (seen, server):
            self.deliver(server, [self.record(0, fields={"plan": moment})])
            assert seen.holds()[self.known_as(0)] == {"plan": int(moment.timestamp())}

    def test_a_reason_names_the_field_and_not_the_person(self):
        with self.serving() as (seen, server):
            seen.refuses.add(self.known_as(0))
            delivered = self.deliver(server, self.records(2))
            reason = delivered.outcomes[self.known_as(0)].reason
            assert reason == "invalid: refused for … (attributes)"

    def test_errors_that_name_nobody_are_found_by_halving(self):
        with self.serving() as (seen, server):
            seen.poison = lambda request: self.carries(request, 2)
            seen.poisoned = type(seen.poisoned)(207, {"errors": [{"reason": "odd"}]})
            delivered = self.deliver(server, self.records(4))
            assert delivered.states == ["accepted", "accepted", "rejected", "accepted"]

    def test_a_request_keeps_below_500_kb(self):
        with self.serving() as (seen, server):
            records = [self.record(n, fields={"plan": "x" * 30_000}) for n in range(40)]
            assert self.deliver(server, records).states == ["accepted"] * 40
            assert 450_000 < max(len(request.body) for request in seen.got) <= 500_000


class TestCustomerioEvents(DestinationConformance):
    kind = Customerio
    options = {"key": "email"}
    sync = {"mode": "event", "event": "Became VIP", "fields": {"orders": "orders"}}

    def vendor(self):
        return CustomerioVendor()

    def test_an_event_that_is_told_twice_is_one(self):
        with self.serving() as (seen, server):
            for attempts in (0, 1):
                again = [self.record(n, attempts=attempts) for n in range(3)]
                assert self.deliver(server, again).states == ["accepted"] * 3
            assert set(seen.applied.values()) == {1}
            event = next(iter(seen.vendor.events.values()))
            assert event | {"id": ""} == {
                "type": "person",
                "identifiers": {"email": "person00000@example.com"},
                "action": "event",
                "name": "Became VIP",
                "id": "",
                "timestamp": 1782864000,
                "attributes": {"orders": "value 0"},
            }
            # The first ten digits of a ULID are its time.
            digits = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
            milliseconds = sum(digits.index(d) << 5 * n for n, d in enumerate(reversed(event["id"][:10])))
            assert milliseconds == 1782864000_000


@pytest.mark.parametrize(
    ("sync", "message"),
    [
        ({"mode": "archive"}, "the mode 'archive' needs more"),
        ({"fields": {"id": "email"}}, "is no field"),
        ({"mode": "mirror"}, None),
        ({"mode": "event"}, None),
    ],
)
def test_syncs_that_do_not_fit_are_told(sync, message):
    declared = TestCustomerio().declared(**sync)
    problems = [p.message for p in CustomerioOptions().sync_problems(declared)]
    assert len(problems) == (message is not None)
    assert message is None or message in problems[0]
