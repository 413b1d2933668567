# SPDX-License-Identifier: Apache-2.0
"""Shapes that are hard on a graph: long chains, hubs, nothing at all, very large values."""

from __future__ import annotations

import random

import numpy as np
import pytest

from cdp_provider.core.identity.graph import Graph, Known
from cdp_provider.core.project.identity import Identifier, Identity

FREE = Identity(identifiers={"a": Identifier(limit=10**9), "b": Identifier(limit=10**9)})


def graph_of(rows: list[tuple[int, int]], count: int, limits: tuple[int, int] = (10**9, 10**9)) -> Graph:
    """Two types: identifiers 0 to count - 1 are of the first, the others of the second."""
    columns = list(np.array(rows, np.int64).reshape(-1, 2).T)
    highest = max((int(column.max(initial=-1)) for column in columns), default=-1)
    kinds = bytes(count) + b"\x01" * max(0, highest + 1 - count)
    none = np.zeros(len(kinds), np.int64)
    graph = Graph(kinds, limits, Known(none, none, none.astype(bool)))
    graph.take(columns)
    return graph


def chain(length: int) -> list[tuple[int, int]]:
    """a0-b0, b0-a1, a1-b1, ...: a path through all identifiers."""
    return [(n // 2 + n % 2, length + n // 2) for n in range(2 * length - 1)]


@pytest.mark.parametrize("length", [1_000, 50_000])
@pytest.mark.parametrize("order", ["sorted", "reversed", "random"])
def test_a_chain_is_one_profile_in_any_order(length, order):
    rows = chain(length)
    if order == "reversed":
        rows.reverse()
    elif order == "random":
        random.Random(7).shuffle(rows)  # noqa: S311 - an order, not a secret
    graph = graph_of(rows, length)
    assert set(graph.profiles().tolist()) == {1}
    assert sorted(graph.nodes().tolist()) == list(range(1, 2 * length + 1))


@pytest.mark.parametrize("points", [10_000, 100_000])
def test_a_star_is_one_profile_without_limits(points):
    graph = graph_of([(n, points) for n in range(points)], points)
    assert set(graph.profiles().tolist()) == {1}


def test_a_star_stops_at_its_limit():
    graph = graph_of([(n, 10_000) for n in range(10_000)], 10_000, (5, 1))
    profiles = graph.profiles()
    assert (profiles == profiles[0]).sum() == 6
    assert len(graph.refusals) == 9_995
    assert all(refusal.identifier == 10_000 and refusal.kind == 0 for refusal in graph.refusals)


def test_repeated_rows_are_refused_each_time_and_change_nothing_else():
    graph = graph_of([(0, 2), (1, 2), (1, 2), (0, 2), (1, 2)], 2, (1, 1))
    assert [refusal.row for refusal in graph.refusals] == [1, 2, 4]
    assert graph.profiles().tolist() == [1, 3, 1]


def test_no_rows_and_rows_without_identifiers():
    assert graph_of([], 0).accepted == []
    graph = graph_of([(-1, -1), (-1, -1)], 0)
    assert (graph.accepted, graph.refusals, graph.nodes().tolist()) == ([], [], [])


def test_a_profile_above_a_lowered_limit_keeps_its_values_but_gets_no_more():
    nodes, profiles = np.array([1, 2, 0, 4], np.int64), np.array([1, 1, 0, 4], np.int64)
    known = Known(nodes, profiles, nodes == profiles, {1: {0: 2}, 4: {1: 1}}, last_node=4)
    graph = Graph(b"\x00\x00\x00\x01", (1, 5), known)
    graph.take([np.array([0, 2, 1]), np.array([3, 3, -1])])
    assert graph.profiles().tolist() == [1, 1, 5, 1]
    assert graph.refusals == [(1, 3, 0)]
    assert [(merge.loser, merge.winner, merge.row) for merge in graph.merges] == [(4, 1, 0)]


def test_every_shape_in_the_warehouse_too(history):
    history.identity = FREE
    history.streams = tuple(
        stream.model_copy(update={"identifiers": {"a": "user_id", "b": "email"}})
        for stream in history.streams
    )
    long, odd = "ü💶\"',;\n" * 1250 + ".", "a\u0301\u202e🏳️‍🌈\\N"
    history.land(*({"user_id": None} for _ in range(3)))
    history.land(*({"user_id": f"u{a}", "email": f"e{b}"} for a, b in chain(1_000)))
    history.land()
    history.land(
        {"user_id": long, "email": odd}, {"user_id": odd, "email": long}, {"user_id": long, "email": long}
    )
    report = history.resolve()
    assert (report.detail["profiles"], report.detail["identifiers"]) == (2, 2004)
    assert report.detail["rows_without_identifier"] == 3
    history.land(
        *({"user_id": f"s{n}", "email": "hub"} for n in range(10_000)), {"user_id": "u5", "email": "hub"}
    )
    assert history.resolve().detail["profiles"] == 2
    partition = history.partition()
    assert partition[f"a:{long}"] == partition[f"b:{odd}"] == partition[f"a:{odd}"]
    assert partition["b:hub"] == partition["a:s9999"] == 1
    before = history.state()
    assert history.rebuild().detail["new_profiles"] == 0
    assert history.state() == before
