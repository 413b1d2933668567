# SPDX-License-Identifier: Apache-2.0
"""Who is who: most of it set by set, the rest row by row.

What no limit, no published profile and no rule set by hand can touch does not depend on the order of the
rows: it is a matter of connected components. Only components that might break a limit, that join published
profiles (whose merges name a row), or that a rule names go through the exact, slow :class:`Graph`. Components
do not know of each other, so the result is that of taking every row through the graph.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cdp_provider.core.identity.components import components
from cdp_provider.core.identity.graph import Eviction, Merge, Refusal, Start
from cdp_provider.core.identity.policies import POLICIES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from cdp_provider.core.identity.graph import Graph
    from cdp_provider.core.identity.limits import Limits

_NEVER = int(np.iinfo(np.int64).max)


class Facts(NamedTuple):
    """What the rows say, as far as it decides.

    :param columns: identifier columns, strongest type first: the number of each row's identifier, or -1.
    :param times: per row, microseconds since 1970 or ``NO_TIME``.
    :param seqs: per row, the identity run it belongs to; ascending.
    :param kinds: per identifier, its type. Identifiers that no row carries may follow those that rows do.
    """

    columns: Sequence[NDArray[np.int32]]
    times: NDArray[np.int64]
    seqs: NDArray[np.int64]
    kinds: NDArray[np.int8]


@dataclass(frozen=True)
class Rules:
    """What may be linked.

    :param policy: name of the over-limit policy.
    :param denied: pairs of identifiers that are never one profile.
    :param allowed: pairs of identifiers that are one profile whatever the limits say.
    """

    limits: Limits
    policy: str
    denied: Sequence[tuple[int, int]] = ()
    allowed: Sequence[tuple[int, int]] = ()


@dataclass(frozen=True)
class Known:
    """What stands before the first row.

    :param nodes: per identifier, its node id; 0 for one without.
    :param profiles: per identifier, the profile it belongs to; 0 for one that no row carried in yet, and for
        one whose rows are gone through again.
    :param times: per identifier of a known profile, when it was first seen.
    :param published: per identifier, the identity run after which a profile was first named after it; 0 for
        none.
    :param counts: profile id -> type -> identifiers it holds.
    :param spare_nodes: identifier -> further node ids it got, each after it had been evicted, and when each
        was published.
    :param last_node: the largest node id there is; 0 when there is none.
    :param old_from: rows of identity runs before this one are gone through again, but not on record anew.
    """

    nodes: NDArray[np.int64]
    profiles: NDArray[np.int64]
    times: NDArray[np.int64]
    published: NDArray[np.int64]
    counts: Mapping[int, Mapping[int, int]] = field(default_factory=dict)
    spare_nodes: Mapping[int, Sequence[tuple[int, int]]] = field(default_factory=dict)
    last_node: int = 0
    old_from: int = 0


@dataclass(frozen=True)
class Outcome:
    """Who is who now.

    :param nodes: per identifier, its node id; 0 for one that is not part of the graph (any more).
    :param profiles: per identifier, the id of its profile, or 0.
    :param accepted_rows: per identifier, the row that carried it in; -1 for one of a known profile.
    :param row_nodes: per row, the node of the identifier that it hangs on; 0 for none.
    :param moved: known profiles that became part of another, and which one that is.
    :param evicted: identifiers that left a profile, and the id that it has now.
    :param broken: identifier that is none any more -> the row that broke it.
    :param unions: how often two profiles or identifiers became one.
    """

    nodes: NDArray[np.int64]
    profiles: NDArray[np.int64]
    accepted_rows: NDArray[np.int64]
    row_nodes: NDArray[np.int64]
    moved: tuple[NDArray[np.int64], NDArray[np.int64]]
    merges: list[Merge]
    refusals: list[Refusal]
    evicted: list[tuple[Eviction, int]]
    broken: dict[int, int]
    unions: int


class Sets:
    """The components of identifiers and known profiles, and which of them have to be taken row by row."""

    def __init__(self, facts: Facts, known: Known, rules: Rules) -> None:
        self.count = len(facts.kinds)
        self.labels = np.unique(known.profiles[known.profiles > 0])
        self.strongest = strongest(facts.columns, len(facts.times))
        held = np.flatnonzero(known.profiles > 0)
        pairs = [*rules.denied, *rules.allowed]
        ends: list[tuple[NDArray[Any], NDArray[Any]]] = [
            *star(facts.columns, self.strongest),
            (held, self.count + np.searchsorted(self.labels, known.profiles[held])),
            (np.array([a for a, _ in pairs], np.int64), np.array([b for _, b in pairs], np.int64)),
        ]
        left = np.concatenate([left.astype(np.int32, copy=False) for left, _ in ends])
        right = np.concatenate([right.astype(np.int32, copy=False) for _, right in ends])
        del ends
        #: per identifier, and then per known profile, its component.
        self.of = components(left, right, self.count + len(self.labels))
        self.crowded = self._crowded(facts, known, rules)
        self.exceptional = self.crowded | self._meet(known)
        for pair in pairs:
            self.exceptional[self.of[list(pair)]] = True

    def _crowded(self, facts: Facts, known: Known, rules: Rules) -> NDArray[np.bool_]:
        """Components that hold more of a type, all in all, than one profile may."""
        found = np.zeros(len(self.of), bool)
        fresh = known.profiles == 0
        of_labels = self.of[self.count :]
        for kind, most in enumerate(rules.limits.values):
            members = fresh & (facts.kinds == kind)
            held = np.bincount(self.of[: self.count][members], minlength=len(self.of))
            if len(self.labels):
                counts = [known.counts[label].get(kind, 0) for label in self.labels.tolist()]
                np.add.at(held, of_labels, counts)
            found |= held > most
        return found

    def _meet(self, known: Known) -> NDArray[np.bool_]:
        """Components in which published profiles meet, or one meets an older identifier."""
        found = np.zeros(len(self.of), bool)
        published = np.flatnonzero((known.profiles == 0) & (known.published > 0))
        if not len(published) + len(self.labels):
            return found
        oldest = np.full(len(self.of), _NEVER, np.int64)
        standing = np.flatnonzero((known.profiles == 0) & (known.nodes > 0))
        np.minimum.at(oldest, self.of[standing], known.nodes[standing])
        found[self.of[published[known.nodes[published] > oldest[self.of[published]]]]] = True
        meeting = np.concatenate([self.of[published], self.of[self.count :]])
        return found | (np.bincount(meeting, minlength=len(self.of)) > 1)

    def in_danger(self) -> NDArray[np.int64]:
        """Known profiles that may come above a limit."""
        return self.labels[self.crowded[self.of[self.count :]]]


def strongest(columns: Sequence[NDArray[np.int32]], rows: int) -> NDArray[np.int32]:
    """Per row, its strongest identifier, or -1."""
    found = np.full(rows, -1, np.int32)
    for column in columns:
        np.copyto(found, column, where=found < 0)
    return found


def star(
    columns: Sequence[NDArray[np.int32]], strongest: NDArray[np.int32]
) -> list[tuple[NDArray[np.int32], NDArray[np.int32]]]:
    """The links of rows: each row's strongest identifier with each of its others."""
    links = []
    for column in columns:
        rows = (column >= 0) & (column != strongest)
        links.append((strongest[rows], column[rows]))
    return links


def decide(facts: Facts, known: Known, rules: Rules, sets: Sets) -> Outcome:
    """Take all rows in."""
    slots = max(len(facts.columns), 1)
    exceptional = sets.exceptional[sets.of[: sets.count]]
    births = _first_sights(facts.columns, sets.count)
    births[exceptional] = _NEVER
    part = _Exact(facts, known, rules, sets, np.flatnonzero(exceptional))
    seen = np.flatnonzero(births < _NEVER)
    accepted_rows = np.full(sets.count, -1, np.int64)
    accepted_rows[seen] = births[seen] // slots
    accepted_rows[seen[known.profiles[seen] > 0]] = -1

    # Number what is new in the order in which it was accepted, whichever way that went.
    new = seen[known.nodes[seen] == 0]
    order = np.argsort(np.concatenate([births[new], part.births * slots]), kind="stable")
    numbers = np.empty(len(order), np.int64)
    numbers[order] = known.last_node + 1 + np.arange(len(order))
    del births, order
    nodes = np.zeros(sets.count, np.int64)
    nodes[seen] = known.nodes[seen]
    nodes[new] = numbers[: len(new)]
    rename = _Renamed(known.last_node, numbers[len(new) :])

    profiles = _names(nodes, seen, known, sets)
    ids = part.identifiers
    nodes[ids], profiles[ids] = rename(part.graph.nodes()), rename(part.graph.profiles())
    accepted_rows[ids] = part.accepted_rows()
    row_nodes = np.append(nodes, 0)[sets.strongest]  # the last place stands for -1
    row_nodes[part.rows] = rename(part.row_nodes)
    still = np.flatnonzero((known.profiles > 0) & ~exceptional)
    profiles[still], nodes[still] = known.profiles[still], known.nodes[still]
    fresh = np.count_nonzero(accepted_rows >= 0)
    named = np.zeros(int(profiles.max(initial=0)) + 1, bool)
    named[profiles[(accepted_rows >= 0) | (known.profiles > 0)]] = True
    return Outcome(
        nodes=nodes,
        profiles=profiles,
        accepted_rows=accepted_rows,
        row_nodes=row_nodes,
        moved=tuple(map(rename, part.graph.moved())),  # type: ignore[arg-type]
        merges=_on_record(part.merges(rename), facts, known, profiles),
        refusals=part.refusals(),
        evicted=part.evictions(rename),
        broken=part.broken(),
        unions=int(fresh + len(sets.labels) - np.count_nonzero(named[1:])),
    )


def _first_sights(columns: Sequence[NDArray[np.int32]], count: int) -> NDArray[np.int64]:
    """Per identifier, its first row times the number of columns, plus the column; _NEVER for none."""
    first = np.full(count, _NEVER, np.int64)
    for slot, column in enumerate(columns):
        rows = np.flatnonzero(column >= 0)[::-1]
        sights = np.full(count, _NEVER, np.int64)
        sights[column[rows]] = rows * len(columns) + slot  # of several for one place, numpy keeps the last
        np.minimum(first, sights, out=first)
    return first


def _names(nodes: NDArray[np.int64], seen: NDArray[np.int64], known: Known, sets: Sets) -> NDArray[np.int64]:
    """Per identifier seen, the smallest id in its component: a known profile's, or a node."""
    smallest = np.full(len(sets.of), _NEVER, np.int64)
    smallest[sets.of[sets.count :]] = sets.labels
    np.minimum.at(smallest, sets.of[seen], nodes[seen])
    profiles = np.zeros(len(nodes), np.int64)
    profiles[seen] = smallest[sets.of[seen]]
    return profiles


class _Renamed:
    """Turns the numbers that the graph gave to new nodes into final ones."""

    def __init__(self, last: int, final: NDArray[np.int64]) -> None:
        self._last, self._final = last, final

    def __call__(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        found = numbers.copy()
        new = numbers > self._last
        found[new] = self._final[numbers[new] - self._last - 1]
        return found

    def one(self, number: int) -> int:
        return number if number <= self._last else int(self._final[number - self._last - 1])


class _Exact:
    """The rows and identifiers that go through the graph, and what came out, by their outer numbers."""

    def __init__(
        self, facts: Facts, known: Known, rules: Rules, sets: Sets, identifiers: NDArray[np.int64]
    ) -> None:
        self.identifiers = identifiers
        inside = np.zeros(sets.count + 1, bool)
        inside[identifiers] = True
        self.rows = np.flatnonzero(
            inside[sets.strongest]
        )  # a row without an identifier has -1: the last place
        inner = np.full(sets.count + 1, -1, np.int32)
        inner[identifiers] = np.arange(len(identifiers), dtype=np.int32)
        self._new = facts.seqs[self.rows] >= known.old_from
        self.graph = self._graph(known, rules, facts.kinds, inner)
        columns = [inner[column[self.rows]] for column in facts.columns]
        self.row_nodes = np.array(self.graph.take(columns, facts.times[self.rows].tolist()), np.int64)
        self.births = self.rows[np.array(self.graph.births, np.int64)]

    def _graph(self, known: Known, rules: Rules, kinds: NDArray[np.int8], inner: NDArray[np.int32]) -> Graph:
        ids = self.identifiers
        published = frozenset(known.nodes[ids][known.published[ids] > 0].tolist())
        spares = {int(inner[i]): nodes for i, nodes in known.spare_nodes.items() if inner[i] >= 0}
        published |= {node for nodes in spares.values() for node, since in nodes if since}
        profiles = known.profiles[ids]
        start = Start(
            kinds=kinds[ids].tolist(),
            nodes=known.nodes[ids].tolist(),
            profiles=profiles.tolist(),
            times=known.times[ids].tolist(),
            counts=known.counts,
            next_node=known.last_node + 1,
            spare_nodes={i: [node for node, _ in nodes] for i, nodes in spares.items()},
            published=published.union(profiles[profiles > 0].tolist()),
            denied={i: frozenset(others) for i, others in _partners(rules.denied, inner).items()},
            allowed=_partners(rules.allowed, inner),
        )
        return POLICIES[rules.policy](start, rules.limits)

    def accepted_rows(self) -> NDArray[np.int64]:
        rows = np.array(self.graph.accepted_rows, np.int64)
        found = np.full(len(rows), -1, np.int64)
        found[rows >= 0] = self.rows[rows[rows >= 0]]
        return found

    def merges(self, rename: _Renamed) -> list[Merge]:
        return [
            Merge(rename.one(m.loser), rename.one(m.winner), int(self.rows[m.row]), m.kinds)
            for m in self.graph.merges
            if self._new[m.row]
        ]

    def refusals(self) -> list[Refusal]:
        return [
            Refusal(int(self.rows[r.row]), int(self.identifiers[r.identifier]), r.rule)
            for r in self.graph.refusals
            if self._new[r.row]
        ]

    def evictions(self, rename: _Renamed) -> list[tuple[Eviction, int]]:
        gone = self.graph.evictions
        if not gone:
            return []
        labels = rename(self.graph.labels(np.array([e.place for e in gone], np.int64))).tolist()
        return [
            (
                Eviction(
                    int(self.rows[e.row]),
                    int(self.identifiers[e.identifier]),
                    rename.one(e.node),
                    int(self.rows[e.accepted_row]) if e.accepted_row >= 0 else -1,
                    e.place,
                ),
                label,
            )
            for e, label in zip(gone, labels, strict=True)
        ]

    def broken(self) -> dict[int, int]:
        return {int(self.identifiers[i]): int(self.rows[row]) for i, row in self.graph.broken.items()}


def _partners(pairs: Iterable[tuple[int, int]], inner: NDArray[np.int32]) -> dict[int, list[int]]:
    partners: dict[int, list[int]] = {}
    for a, b in pairs:
        partners.setdefault(int(inner[a]), []).append(int(inner[b]))
        partners.setdefault(int(inner[b]), []).append(int(inner[a]))
    return partners


def _on_record(
    merges: list[Merge],
    facts: Facts,
    known: Known,
    profiles: NDArray[np.int64],
) -> list[Merge]:
    """The merges of profiles that had been published when they happened.

    A replay meets profiles that were published later than the row that joins them. Such a join counts only
    where the published id has no merge of its own otherwise.
    """
    since = dict(zip(known.nodes.tolist(), known.published.tolist(), strict=True)) if merges else {}
    since.update(spare for spares in known.spare_nodes.values() for spare in spares)
    timely = [merge for merge in merges if since.get(merge.loser, 0) < facts.seqs[merge.row]]
    told = {merge.loser for merge in timely}
    standing = set(profiles.tolist()) if len(timely) < len(merges) else set()
    last = {merge.loser: merge for merge in merges if merge.loser not in told and merge.loser not in standing}
    return sorted([*timely, *last.values()], key=lambda merge: merge.row)
