# SPDX-License-Identifier: Apache-2.0
"""Slack: one message per event, once."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from cdp_provider.core.activation.delivery import Patience
from cdp_provider.core.activation.destinations.base import InvalidRecord
from cdp_provider.core.activation.destinations.slack import Slack, SlackOptions
from cdp_provider.core.exceptions import AccessError, ConfigurationError, RateLimitedError, UnavailableError
from cdp_provider.testing.destinations.conformance import DestinationConformance
from cdp_provider.testing.destinations.fake import FakeServer
from tests.contracts import audit
from tests.core.activation.destinations.fakes.slack import CHANNEL, SlackVendor


class TestSlack(DestinationConformance):
    kind = Slack
    options = {"channel": "{channel}", "text": "{person} became VIP with {orders} orders"}
    sync = {
        "mode": "event",
        "parameters": {"channel": CHANNEL},
        "fields": {"person": "email", "orders": "orders"},
    }

    def vendor(self):
        return SlackVendor()

    def fields(self, n):
        return {"person": self.key(n), "orders": n + 7}

    def test_what_was_rejected_is_told_apart_with_its_reason(self):
        """Slack's errors are names, and none of them is "refused"."""
        with self.serving() as (seen, server):
            seen.refuses.add(self.known_as(1))
            delivered = self.deliver(server, self.records(3))
            assert delivered.error is None
            assert delivered.states == ["accepted", "rejected", "accepted"]
            assert delivered.outcomes[str(self.key(1))].reason == "msg_too_long"
            assert set(seen.holds()) == {self.known_as(0), self.known_as(2)}

    def test_both_sides_keep_to_the_contract(self):
        """Of 2021, which knows refusals with other statuses than the 200 that Slack sends them with."""
        with audit(SlackVendor(), "slack") as seen, FakeServer(seen) as server:
            assert self.deliver(server, self.records(3)).states == ["accepted"] * 3

    @pytest.mark.parametrize(
        ("error", "raised"),
        [
            ("ratelimited", RateLimitedError),
            ("rate_limited", RateLimitedError),
            ("internal_error", UnavailableError),
            ("invalid_auth", AccessError),
            ("not_in_channel", ConfigurationError),
        ],
    )
    def test_errors_inside_a_200_are_errors(self, error, raised):
        with self.serving() as (seen, server):
            seen.vendor.error = error
            patience = Patience(throttles=1, tries=1)
            delivered = self.deliver(server, self.records(1), patience=patience)
            assert type(delivered.error) is raised
            assert error in str(delivered.error)
            assert not seen.applied

    def test_values_are_text_and_nothing_else(self):
        with self.serving() as (seen, server):
            nasty = {"person": "<!channel> & <@U1>", "orders": Decimal("3.50")}
            records = [
                self.record(0, fields=nasty),
                self.record(1, fields={"person": None, "orders": datetime(2026, 7, 1, tzinfo=UTC)}),
            ]
            assert self.deliver(server, records).states == ["accepted"] * 2
            assert sorted(seen.vendor.messages) == [
                " became VIP with 2026-07-01T00:00:00Z orders",
                "&lt;!channel&gt; &amp; &lt;@U1&gt; became VIP with 3.5 orders",
            ]

    @pytest.mark.parametrize(("text", "person"), [("{person}", " "), ("{person}", "x" * 40_001)])
    def test_texts_that_slack_would_not_show_are_invalid(self, text, person):
        kind = self.made(options=SlackOptions(channel="C1", text=text))
        with pytest.raises(InvalidRecord, match="text"):
            kind.item("event", self.record(0, fields={"person": person}))


@pytest.mark.parametrize(
    ("sync", "message"),
    [
        ({"mode": "upsert"}, "the mode 'upsert' needs more"),
        ({"mode": "mirror"}, "a mirror has to upsert"),
        ({"fields": {"person": "email"}}, "needs the parameter 'orders'"),
        ({"parameters": {}}, "needs the parameter 'channel'"),
        ({"fields": {"person": "email"}, "parameters": {"channel": CHANNEL, "orders": "many"}}, None),
        ({}, None),
    ],
)
def test_syncs_that_do_not_fit_are_told(sync, message):
    declared = TestSlack().declared(**sync)
    options = SlackOptions.model_validate(TestSlack.options)
    problems = [p.message for p in options.sync_problems(declared)]
    assert len(problems) == (message is not None)
    assert message is None or message in problems[0]
