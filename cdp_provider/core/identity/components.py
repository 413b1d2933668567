# SPDX-License-Identifier: Apache-2.0
"""Connected components: which nodes hang together, each named after its smallest node.

Two forms with one result. :func:`components` works on arrays in the process. :func:`components_sql` leaves
the edges where they are and contracts them by SQL alone, for graphs that do not fit into the process. Both
need no more rounds than a small multiple of the logarithm of the number of nodes, whatever the shape.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cdp_provider.core.warehouse import Session

#: A key is a hash of so many bits, and below it the node itself in so many: 62 bits of a BIGINT.
_HASH_BITS, _NODE_BITS = 22, 40


def components(left: NDArray[Any], right: NDArray[Any], count: int) -> NDArray[np.int64]:
    """The smallest node of each node's component.

    Any order of edges, repeated edges and edges from a node to itself are fine.

    :param left: one end of each edge, a whole number from 0 to `count` - 1; `right` the other.
    :param count: number of nodes, those without an edge included.
    :returns: one entry per node.
    :raises ValueError: the arrays differ in length, or hold a number that is no node.
    """
    _check(left, right, count)
    size = np.int32 if count <= np.iinfo(np.int32).max else np.int64
    found = _smallest(left.astype(size, copy=False), right.astype(size, copy=False), count)
    return found.astype(np.int64, copy=False)


def _check(left: NDArray[Any], right: NDArray[Any], count: int) -> None:
    if len(left) != len(right):
        msg = f"edges have two ends each, but there are {len(left)} left and {len(right)} right ones"
        raise ValueError(msg)
    for ends in (left, right):
        if len(ends) and not (ends.min() >= 0 and ends.max() < count):
            msg = (
                f"edges run from node {ends.min()} to node {ends.max()}, but there are {count} nodes,"
                " numbered from 0"
            )
            raise ValueError(msg)


def _smallest(left: NDArray[Any], right: NDArray[Any], count: int) -> NDArray[Any]:
    """Hook each node on to its smallest neighbour, take each tree for one node, and begin again with those.

    Nodes at least halve with every second round: when a tree is a single node, its neighbours have hooked on
    to smaller ones, and in the next round it does so too. Hooking and shortcutting come from Shiloach and
    Vishkin, "An O(log n) parallel connectivity algorithm", Journal of Algorithms 3, 1982.
    """
    parents = np.arange(count, dtype=left.dtype)
    np.minimum.at(parents, left, right)
    np.minimum.at(parents, right, left)
    parents = _roots(parents)
    left, right = parents[left], parents[right]
    apart = left != right
    if apart.any():
        left, right = left[apart], right[apart]
        met = np.zeros(count, np.bool_)
        met[left] = met[right] = True
        nodes = np.flatnonzero(met)
        numbers = np.empty(count, left.dtype)
        numbers[nodes] = np.arange(len(nodes))
        parents[nodes] = nodes[_smallest(numbers[left], numbers[right], len(nodes))]
        parents = parents[parents]
    return parents


def _roots(parents: NDArray[Any]) -> NDArray[Any]:
    """The root of each node's tree. Nodes that hang on it already are not looked at again."""
    roots: NDArray[Any] = parents[parents]
    moving = np.flatnonzero(roots != parents)
    while len(moving):
        before = roots[moving]
        above = roots[before]
        roots[moving] = above
        moving = moving[above != before]
    return roots


class Tables(Protocol):
    """Where the SQL form keeps its work: all that an engine has to offer for it."""

    def create(self, name: str, select: str) -> str:
        """Make a table of the query's result, instead of an earlier one, and let the planner know its size.

        :returns: the name by which SQL knows it.
        """

    def drop(self, table: str) -> None:
        """Drop what :meth:`create` returned."""

    def count(self, select: str) -> int:
        """The one number that the query returns."""


class TempTables:
    """:class:`Tables` of a warehouse session, gone with it.

    Use it outside a transaction: DuckDB 1.5 takes a table made in the open transaction for an empty one and
    joins it in a nested loop.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def create(self, name: str, select: str) -> str:
        table = self._session.warehouse.quote(name)
        self.drop(table)
        self._session.execute(f"create temporary table {table} as {select}")
        self._session.analyze(table)
        return table

    def drop(self, table: str) -> None:
        self._session.execute(f"drop table if exists {table}")

    def count(self, select: str) -> int:
        return int(self._session.scalar(select))


class Labels(NamedTuple):
    """What the SQL form found.

    :param table: columns ``v``, a node, and ``r``, the smallest node of its component; one row per node that
        has an edge. The caller drops it.
    :param rounds: how often the graph was contracted.
    """

    table: str
    rounds: int


def components_sql(tables: Tables, edges: str) -> Labels:
    """The smallest node of each node's component, by contraction.

    In each round every node picks one of its neighbours or itself, those with the same pick become one node,
    and only edges between different nodes stay; the picks of all rounds, joined in reverse, give the answer.
    Rounds take turns between two orders: smallest number, which empties hubs at once, and a hash, another one
    each round, under which a chain loses a share of its nodes whatever their order. So the number of rounds
    grows with the logarithm of the number of nodes, and the work of all rounds is a small multiple of the
    first one's. After Bögeholz, Brand and Todor, "In-database connected component analysis", ICDE 2020, where
    the order is a hash in every round.

    Only tables made by SELECT, so that it also runs where rows can't be changed (Spark on Parquet).

    :param edges: table, as SQL knows it, with BIGINT columns ``na`` and ``nb``. Repeated edges and edges from
        a node to itself are fine.
    :raises ValueError: a node is null, negative or 2**40 and more.
    """
    most = 1 << _NODE_BITS
    if wrong := tables.count(
        f"select count(*) from {edges} where na is null or nb is null or na < 0 or nb < 0"
        f" or na >= {most} or nb >= {most}"
    ):
        msg = f"{wrong} edges in {edges} have a node that is null or not from 0 to {most - 1}; number them so"
        raise ValueError(msg)
    picks: list[str] = []
    left = edges
    while not picks or tables.count(f"select count(*) from {left}"):
        pick = _pick_by_hash if len(picks) % 2 else _pick_smallest
        picks.append(pick(tables, left, len(picks)))
        before, left = left, tables.create(f"cdp_cc_edges_{len(picks)}", _contracted(left, picks[-1]))
        if before != edges:
            tables.drop(before)
    tables.drop(left)
    return Labels(table=_joined(tables, picks), rounds=len(picks))


def _pick_smallest(tables: Tables, edges: str, place: int) -> str:
    """Table (v, r): each node and the smallest of itself and its neighbours.

    The smallest node of a component picks itself in each round, so no other name ever outlives it.
    """
    return tables.create(
        f"cdp_cc_picks_{place}",
        f"select v, least(v, min(w)) as r from {_both_ways('na', 'nb', edges)} n group by v",
    )


def _pick_by_hash(tables: Tables, edges: str, place: int) -> str:
    """Table (v, r): each node and the smallest of those that picked the same neighbour.

    What is compared is a key, hash first and node below, so that no two nodes have the same.
    """
    # Multiplier and modulus change, so that no spacing of the numbers is bad in every round.
    chance = Random(place)  # noqa: S311 - an order, not a secret
    modulus = chance.randrange(1 << (_HASH_BITS - 1), 1 << _HASH_BITS)
    times = chance.randrange(1, modulus)

    def key(node: str) -> str:
        return f"mod({node} * {times}, {modulus}) * {1 << _NODE_BITS} + {node}"

    picked = tables.create(
        f"cdp_cc_keys_{place}",
        f"select v, least({key('v')}, min(w)) as k"
        f" from {_both_ways(key('na'), key('nb'), edges)} n group by v",
    )
    named = tables.create(
        f"cdp_cc_picks_{place}",
        f"select p.v as v, q.r as r from {picked} p"
        f" join (select k, min(v) as r from {picked} g group by k) q on q.k = p.k",
    )
    tables.drop(picked)
    return named


def _both_ways(left: str, right: str, edges: str) -> str:
    """Each node ``v`` with what its neighbour ``w`` counts as."""
    return (
        f"(select na as v, {right} as w from {edges} a union all select nb as v, {left} as w from {edges} b)"
    )


def _contracted(edges: str, picks: str) -> str:
    return (
        "select distinct least(x.r, y.r) as na, greatest(x.r, y.r) as nb"
        f" from {edges} e join {picks} x on x.v = e.na join {picks} y on y.v = e.nb where x.r <> y.r"
    )


def _joined(tables: Tables, picks: list[str]) -> str:
    """From the picks of each round to the name after the last one, for every node of the first."""
    labels = picks[-1]
    for place, step in reversed(list(enumerate(picks[:-1]))):
        found = tables.create(
            f"cdp_cc_labels_{place}",
            f"select p.v as v, coalesce(l.r, p.r) as r from {step} p left join {labels} l on l.v = p.r",
        )
        tables.drop(labels)
        tables.drop(step)
        labels = found
    return labels
