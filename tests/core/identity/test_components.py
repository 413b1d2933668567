# SPDX-License-Identifier: Apache-2.0
"""Connected components: in the process, by SQL on each engine and by searching, always the same."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cdp_provider.core.identity.components import TempTables, components, components_sql

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from cdp_provider.core.warehouse import Session, Warehouse

Edges = list[tuple[int, int]]

_SEED = 7
_LONG = 100_000


def searched(edges: Edges, count: int) -> list[int]:
    """The smallest node of each node's component, by breadth-first search from every node in turn."""
    neighbours: list[list[int]] = [[] for _ in range(count)]
    for left, right in edges:
        neighbours[left].append(right)
        neighbours[right].append(left)
    smallest = [-1] * count
    for start in range(count):
        if smallest[start] < 0:
            smallest[start] = start
            queue = [start]
            for node in queue:
                for other in neighbours[node]:
                    if smallest[other] < 0:
                        smallest[other] = start
                        queue.append(other)
    return smallest


def ends(edges: Edges) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    both = np.array(edges, np.int64).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def by_sql(session: Session, left: NDArray[np.int64], right: NDArray[np.int64]) -> tuple[dict[int, int], int]:
    """Node -> smallest node of its component, for nodes that have an edge; and the number of rounds."""
    tables = TempTables(session)
    edges = session.temp("edges_to_label", pa.table({"na": left, "nb": right}))
    found = components_sql(tables, edges)
    labels = session.arrow(f"select v, r from {found.table}")
    tables.drop(found.table)
    nodes = labels["v"].to_pylist()
    assert len(set(nodes)) == len(nodes)
    return dict(zip(nodes, labels["r"].to_pylist(), strict=True)), found.rounds


def with_edge(edges: Edges, smallest: list[int]) -> dict[int, int]:
    return {node: smallest[node] for edge in edges for node in edge}


@pytest.fixture
def session(warehouse: Warehouse) -> Iterator[Session]:
    with warehouse.session() as session:
        yield session


_graphs = st.integers(1, 40).flatmap(
    lambda count: st.tuples(
        st.lists(st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)), max_size=60), st.just(count)
    )
)


@settings(deadline=None)
@given(graph=_graphs)
@example(graph=([], 0))
@example(graph=([], 3))
@example(graph=([(0, 0), (2, 2)], 3))
@example(graph=([(1, 2)] * 256, 3))
def test_in_the_process_equals_a_search(graph):
    edges, count = graph
    assert components(*ends(edges), count).tolist() == searched(edges, count)


# One connection serves all examples: what one leaves behind, the next one meets.
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(graph=_graphs)
@example(graph=([], 1))
@example(graph=([(0, 0), (2, 2)], 3))
@example(graph=([(1, 2)] * 256, 3))
def test_sql_equals_a_search(session, graph):
    edges, count = graph
    assert by_sql(session, *ends(edges))[0] == with_edge(edges, searched(edges, count))


def sorted_chain(count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return np.arange(count - 1), np.arange(1, count)


def shuffled_chain(count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    order = np.random.default_rng(_SEED).permutation(count)
    return order[:-1], order[1:]


def star(count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The hub is the largest node, so that every other one is a candidate for its name."""
    return np.arange(count - 1), np.full(count - 1, count - 1)


def sparse(count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Components of all sizes, lone nodes, repeated edges and edges from a node to itself."""
    left, right = np.random.default_rng(_SEED).integers(0, count, (2, count * 6 // 10))
    return np.concatenate([left, left[:9], left[:9]]), np.concatenate([right, right[:9], left[:9]])


@pytest.mark.parametrize("shape", [sorted_chain, shuffled_chain, star, sparse])
def test_long_shapes_take_few_rounds(session, shape):
    """A constant per doubling, whatever the order; by smallest neighbours alone a sorted chain takes as many
    rounds as it has nodes."""
    rounds = []
    for count in (_LONG // 100, _LONG):
        left, right = shape(count)
        whole = components(left, right, count)
        found, needed = by_sql(session, left, right)
        nodes = np.union1d(left, right)
        assert found == dict(zip(nodes.tolist(), whole[nodes].tolist(), strict=True))
        rounds.append(needed)
        assert needed <= 3 * math.log2(count)
    assert rounds[1] <= 2 * rounds[0] + 1


@pytest.mark.parametrize("spacing", [2, 1 << 21, 1_000_003])
def test_chains_with_gaps_take_few_rounds(session, spacing):
    count = 10_000
    left, right = sorted_chain(count)
    found, needed = by_sql(session, left * spacing, right * spacing)
    assert found == dict.fromkeys(range(0, count * spacing, spacing), 0)
    assert needed <= 3 * math.log2(count)


def test_the_largest_nodes(session):
    last = 2**40 - 1
    assert by_sql(session, *ends([(last, last - 1), (last - 1, last - 2), (0, 5)]))[0] == {
        last: last - 2,
        last - 1: last - 2,
        last - 2: last - 2,
        0: 0,
        5: 0,
    }


def test_nothing_stays_behind_but_the_answer(session):
    tables = TempTables(session)
    edges = session.temp("edges_to_label", pa.table({"na": [1, 2, 7], "nb": [2, 3, 8]}))
    found = components_sql(tables, edges)
    left = session.fetch("select table_name from information_schema.tables where table_name like 'cdp_cc_%'")
    assert [session.warehouse.quote(name) for (name,) in left] == [found.table]
    assert session.scalar(f"select count(*) from {edges}") == 3


@pytest.mark.parametrize("node", [-1, 2**40, None])
def test_sql_refuses_what_is_no_node(session, node):
    edges = session.temp("edges_to_label", pa.table({"na": [1, 2], "nb": pa.array([2, node], pa.int64())}))
    with pytest.raises(ValueError, match="1 edges .* null or not from 0 to 1099511627775; number them"):
        components_sql(TempTables(session), edges)


@pytest.mark.parametrize(
    ("left", "right", "count", "message"),
    [
        ([0, 1], [1], 2, "two ends each, but there are 2 left and 1 right"),
        ([0, -1], [1, 1], 2, "from node -1 to node 0, but there are 2 nodes"),
        ([0, 1], [1, 2], 2, "from node 1 to node 2, but there are 2 nodes"),
        ([0], [0], 0, "from node 0 to node 0, but there are 0 nodes"),
    ],
)
def test_in_the_process_refuses_what_is_no_graph(left, right, count, message):
    with pytest.raises(ValueError, match=message):
        components(np.array(left), np.array(right), count)
