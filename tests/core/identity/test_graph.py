# SPDX-License-Identifier: Apache-2.0
"""Shapes that are hard on a graph: long chains, hubs, nothing at all, very large values."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np
import pytest

from cdp_provider.core.identity.decide import Facts, Known, Outcome, Rules, Sets, decide
from cdp_provider.core.identity.limits import NO_TIME, Limit, Limits
from cdp_provider.core.identity.policies import POLICIES
from cdp_provider.core.project.identity import Identifier, Identity

if TYPE_CHECKING:
    from tests.core.identity.landed import History

NO_LIMIT = 10**9
LONG, ODD = "ü💶\"',;\n" * 1250 + ".", "a\u0301\u202e🏳️‍🌈\\N"


def decided(
    rows: list[tuple[int, int]], limits: tuple[int, int] = (NO_LIMIT, NO_LIMIT), policy: str = "demote"
) -> Outcome:
    """Two types: even identifiers are of the first, odd ones of the second; -1 for none."""
    columns = np.array(rows, np.int32).reshape(-1, 2)
    count = int(columns.max(initial=-1)) + 1
    none = np.zeros(count, np.int64)
    facts = Facts(
        list(columns.T),
        np.full(len(rows), NO_TIME),
        np.ones(len(rows), np.int64),
        (np.arange(count) % 2).astype(np.int8),
    )
    known = Known(none, none, np.full(count, NO_TIME), none)
    rules = Rules(Limits([Limit(limit) for limit in limits]), policy)
    return decide(facts, known, rules, Sets(facts, known, rules))


def chain(length: int, order: str) -> list[tuple[int, int]]:
    """0-1, 2-1, 2-3, ...: a path through `length` identifiers, the even one first in each row."""
    rows = [(n + n % 2, n + 1 - n % 2) for n in range(length - 1)]
    if order == "reversed":
        rows.reverse()
    elif order == "random":
        random.Random(7).shuffle(rows)  # noqa: S311 - an order, not a secret
    return rows


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("length", [1_000, 100_000])
@pytest.mark.parametrize("order", ["sorted", "reversed", "random"])
def test_a_chain_is_one_profile_in_any_order(policy, length, order):
    outcome = decided(chain(length, order), policy=policy)
    assert set(outcome.profiles.tolist()) == {1}
    assert sorted(outcome.nodes.tolist()) == list(range(1, length + 1))
    assert outcome.unions == length - 1


@pytest.mark.parametrize("order", ["sorted", "reversed", "random"])
def test_a_chain_with_one_value_too_many_is_cut_once(order):
    outcome = decided(chain(20_000, order), (NO_LIMIT, 9_999))
    (refusal,) = outcome.refusals
    assert refusal.rule == 1
    assert max(np.bincount(outcome.profiles[1::2])[1:]) <= 9_999
    assert outcome.unions == 20_000 - 2


@pytest.mark.parametrize("policy", POLICIES)
def test_a_star_is_one_profile_without_limits(policy):
    outcome = decided([(2 * n, 1) for n in range(100_000)], policy=policy)
    assert set(outcome.profiles[[1, *range(0, 200_000, 2)]].tolist()) == {1}


def test_a_star_stops_at_its_limit():
    outcome = decided([(2 * n, 1) for n in range(100_000)], (5, 1))
    profiles = outcome.profiles
    assert (profiles == profiles[0]).sum() == 6
    assert len(outcome.refusals) == 99_995
    assert {(refusal.identifier, refusal.rule) for refusal in outcome.refusals} == {(1, 0)}


def test_a_star_that_breaks_leaves_its_points_alone():
    outcome = decided([(2 * n, 1) for n in range(100_000)], (50_000, 1), "break")
    assert outcome.broken == {1: 50_000}
    assert len(set(outcome.profiles[::2].tolist())) == 100_000
    assert len(outcome.refusals) == 1


def test_a_star_that_evicts_keeps_the_newest_points():
    outcome = decided([(2 * n, 1) for n in range(20_000)], (5, 1), "evict")
    assert np.flatnonzero(outcome.profiles).tolist() == [1, *range(39_990, 40_000, 2)]
    assert [eviction.identifier for eviction, _ in outcome.evicted] == list(range(0, 39_990, 2))


def test_repeated_rows_are_refused_each_time_and_change_nothing_else():
    outcome = decided([(0, 1), (2, 1), (2, 1), (0, 1), (2, 1)], (1, 1))
    assert [refusal.row for refusal in outcome.refusals] == [1, 2, 4]
    assert outcome.profiles.tolist() == [1, 1, 3]


@pytest.mark.parametrize("policy", POLICIES)
def test_no_rows_and_rows_without_identifiers(policy):
    for rows in ([], [(-1, -1), (-1, -1)]):
        outcome = decided(rows, policy=policy)
        assert (outcome.nodes.tolist(), outcome.row_nodes.tolist()) == ([], [0] * len(rows))
        assert (outcome.refusals, outcome.merges, outcome.unions) == ([], [], 0)


def rows_of(pairs: list[tuple[int, int]]) -> list[dict[str, str]]:
    return [{"user_id": f"u{a}", "email": f"e{b}@x.de"} for a, b in pairs]


@pytest.mark.parametrize("policy", POLICIES)
def test_every_shape_in_the_warehouse_too(history, policy):
    history.identity = Identity(
        identifiers={
            "user_id": Identifier(priority=1, limit=NO_LIMIT),
            "email": Identifier(priority=2, limit=NO_LIMIT),
        },
        over_limit=policy,
    )
    assert history.resolve().detail["profiles"] == 0
    history.land(*({"user_id": None} for _ in range(3)))
    assert history.resolve().detail["profiles"] == 0
    history.land()
    history.land(*rows_of(chain(1_000, "random")))
    history.land({"user_id": LONG, "email": ODD}, {"user_id": ODD, "email": LONG})
    history.land({"user_id": LONG, "email": LONG})
    report = history.resolve()
    assert (report.detail["profiles"], report.detail["identifiers"]) == (2, 1_004)
    history.land(*({"user_id": f"s{n}", "email": "hub"} for n in range(10_000)))
    history.land({"user_id": "u0", "email": "hub"})
    assert history.resolve().detail["profiles"] == 2
    partition = history.partition()
    assert partition[f"user_id:{LONG}"] == partition[f"email:{ODD}"] == partition[f"user_id:{ODD}"]
    assert partition["email:hub"] == partition["user_id:s9999"] == partition["user_id:u0"] == 1
    before = history.state()
    history.rebuild()
    assert history.state() == before


def test_a_hundred_thousand_rows_that_share_one_value(history: History):
    history.land(*rows_of([(n, 0) for n in range(100_000)]))
    report = history.resolve()
    assert (report.rows_in, report.rows_out, report.rows_refused) == (100_000, 100_000, 99_999)
    assert report.detail["profiles"] == 100_000


def test_a_chain_of_a_hundred_thousand_in_the_warehouse(history: History):
    history.identity = Identity(
        identifiers={kind: Identifier(limit=NO_LIMIT) for kind in ("user_id", "email")}
    )
    history.land(*rows_of(chain(100_000, "random")))
    assert history.resolve().detail["profiles"] == 1
