# SPDX-License-Identifier: Apache-2.0
"""What a run records of the graph's quality is what a count of everything gives."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdp_provider.core.identity import quality
from tests.core.identity.landed import History
from tests.core.identity.test_oracle import POLICIES, histories, in_memory, play, settings_of

__all__ = ["in_memory"]


class Counted(History):
    """Compares after each run."""

    def resolve(self):
        report = super().resolve()
        with self.warehouse.session() as session:
            sizes, largest = session.one(
                f"select sizes, largest from {self.warehouse.table('identity_runs')} where run_id = :run",
                {"run": report.run.run_id},
            )
            counted = quality._count(session)
            found = quality._find_largest(session, counted)
        assert {int(size): count for size, count in json.loads(sizes).items()} == counted
        assert [(large["profile_id"], large["identifiers"]) for large in json.loads(largest)] == [
            (large.profile_id, large.identifiers) for large in found
        ]
        assert report.detail["identifiers"] == sum(size * count for size, count in counted.items())
        return report


@pytest.mark.parametrize("policy", POLICIES)
@settings_of(15)
@given(data=st.data())
def test_sizes_kept_from_run_to_run_are_those_that_are_counted(in_memory, policy, data):
    counted = Counted(in_memory.warehouse, in_memory.identity, in_memory.streams)
    play(counted, data.draw(histories(policy, changing=True)))


def test_a_run_records_rows_merges_and_refusals(history):
    history.land({"user_id": "u1", "email": "a@example.com"}, {"email": "b@example.com"}, {})
    history.resolve()
    history.land(
        {"user_id": "u1", "email": "b@example.com"}, {"user_id": "u2", "email": "a@example.com"}, stream=1
    )
    history.resolve()
    table = history.warehouse.table("identity_runs")
    columns = "rows_in, rows_without_identifier, identifiers, new_identifiers, profiles, new_profiles, merged"
    with history.warehouse.session() as session:
        runs = session.fetch(f"select {columns}, split, refused from {table} order by resolved_seq")
    assert runs == [
        (3, 1, 3, 3, 2, 2, 0, 0, "{}"),
        (2, 0, 4, 1, 2, 1, 1, 0, json.dumps({"limit user_id 1": 1})),
    ]


def test_the_largest_profiles_say_what_glues_them(history):
    history.land({"user_id": "u1", "email": "a@example.com"}, {"user_id": "u1", "anonymous_id": "a1"})
    history.resolve()
    history.land({"user_id": "u1", "anonymous_id": "a2"}, {"anonymous_id": "a2", "email": "b@example.com"})
    history.resolve()
    with history.warehouse.session() as session:
        table = history.warehouse.table("identity_runs")
        runs = session.fetch(f"select largest from {table} order by resolved_seq")
    assert [json.loads(row[0])[0]["glue"][0] for row in runs] == [
        {"node_id": 1, "type": "user_id", "linked_with": 2},
        {"node_id": 1, "type": "user_id", "linked_with": 3},
    ]


def test_percentiles():
    assert quality.percentile({}, 0.5) == 0
    assert [quality.percentile({1: 50, 2: 40, 9: 9, 100: 1}, share) for share in (0.5, 0.9, 0.99, 1)] == [
        *(1, 2, 9, 100)
    ]
