# SPDX-License-Identifier: Apache-2.0
"""The graph: which identifiers are one profile, decided row by row, within limits.

A limit makes the outcome depend on order, so rows are taken one after the other, in recorded order. A row
joins the profiles of all its identifiers into the one with the smallest id, unless the joint profile would
hold more values of a type than its limit. Then (policy ``demote``) the row's weakest identifier is dropped
from it, on record, and the rest is looked up again. A dropped identifier stays where it was; one that was
never accepted before becomes no node, until some row carries it in that can.

Profiles only grow, so what was refused once stays refused, and a row that repeats an earlier row's
identifiers changes nothing. Only the first of such rows costs more than a glance.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from numpy.typing import NDArray

#: Counts per type lie side by side in one whole number, each in so many bits. The top bit of a field is its
#: guard: adding it to the limit and taking the count away clears it exactly when the count is too high.
_BITS = 32
_FIELD = (1 << _BITS) - 1
_MOST = 1 << (_BITS - 2)


class Merge(NamedTuple):
    """A published profile that was joined into an older one.

    :param row: place of the row that did it.
    :param kinds: types of the identifiers that met in it, strongest first.
    """

    loser: int
    winner: int
    row: int
    kinds: tuple[int, ...]


class Refusal(NamedTuple):
    """An identifier that was dropped from a row, and the type whose limit asked for it."""

    row: int
    identifier: int
    kind: int


@dataclass(frozen=True)
class Known:
    """What stands before the first row.

    :param nodes: per identifier, its node id; 0 for one without.
    :param profiles: per identifier, the profile it belongs to; 0 for one that no row carried in yet.
    :param heads: per identifier, whether a profile is named after it.
    :param counts: profile id -> type -> identifiers it holds.
    :param last_node: the largest node id there is; 0 when there is none.
    :param published: profile ids that somebody may remember, besides those in `profiles`. Only their merges
        are recorded, not those of profiles that came and went within a run.
    """

    nodes: NDArray[np.int64]
    profiles: NDArray[np.int64]
    heads: NDArray[np.bool_]
    counts: Mapping[int, Mapping[int, int]] = field(default_factory=dict)
    last_node: int = 0
    published: AbstractSet[int] = frozenset()


class Graph:
    """Disjoint sets of identifiers.

    :param kinds: per identifier, its type.
    :param limits: per type, how many values one profile may hold; types strongest first.
    """

    def __init__(self, kinds: bytes, limits: Sequence[int], known: Known) -> None:
        self._kinds = kinds
        self._limits = [min(limit, _MOST) for limit in limits]
        self._units = [1 << (_BITS * kind) for kind in range(len(limits))]
        self._guards = sum(unit << (_BITS - 1) for unit in self._units)
        self._room = self._guards + sum(
            limit * unit for limit, unit in zip(self._limits, self._units, strict=True)
        )
        labels, places = np.unique(known.profiles, return_inverse=True)
        fresh = int(labels.size > 0 and labels[0] == 0)  # unknown ones have profile 0, which sorts first
        self._labels: list[int] = labels[fresh:].tolist()
        self._set: list[int] = (places - fresh).tolist()
        self._parents = list(range(len(self._labels)))
        self._counts = [self._pack(known.counts[label]) for label in self._labels]
        self._before = len(self._labels)
        self._nodes: list[int] = known.nodes.tolist()
        self._next = known.last_node + 1
        self._published = known.published
        #: identifiers that became part of the graph, in order, and the rows that carried them in.
        self.accepted: list[int] = []
        self.accepted_rows: list[int] = []
        #: sets of identifiers that became part of an older one, named profiles or not.
        self.joins = 0
        self.merges: list[Merge] = []
        self.refusals: list[Refusal] = []

    def take(self, columns: Sequence[NDArray[np.int64]]) -> None:
        """Go through all rows in order.

        :param columns: per type, the identifier of each row or -1.
        """
        combos, members = _combos(columns)
        settled = bytearray(len(members))
        for row, combo in enumerate(combos.tolist()):
            if not settled[combo]:
                settled[combo] = self._place(row, [i for i in members[combo] if i >= 0])

    def _place(self, row: int, identifiers: list[int]) -> bool:
        """Accept the row's identifiers, dropping the weakest while a limit is in the way.

        :returns: whether none was dropped.
        """
        sets, parents, units, kinds = self._set, self._parents, self._units, self._kinds
        whole = True
        while True:
            total = 0
            roots: set[int] = set()
            fresh: list[int] = []
            for identifier in identifiers:
                at = sets[identifier]
                if at < 0:
                    fresh.append(identifier)
                    total += units[kinds[identifier]]
                    continue
                while parents[at] != at:
                    parents[at] = at = parents[parents[at]]
                roots.add(at)
            if not fresh and len(roots) < 2:
                return whole
            for at in roots:
                total += self._counts[at]
            if (self._room - total) & self._guards == self._guards:
                break
            kind = self._over_limit(total, roots)
            if kind is None:
                break
            self.refusals.append(Refusal(row, identifiers.pop(), kind))
            whole = False
        self._join(row, identifiers, roots, fresh, total)
        return whole

    def _over_limit(self, total: int, roots: set[int]) -> int | None:
        """The strongest type of which the joint profile would hold too many and more than any part does.

        A profile may stand above a limit that was lowered since; it must not grow further in that type.
        """
        for kind, limit in enumerate(self._limits):
            count = total >> (_BITS * kind) & _FIELD
            largest = max((self._counts[at] >> (_BITS * kind) & _FIELD for at in roots), default=0)
            if count > limit and count > largest:
                return kind
        return None

    def _join(self, row: int, identifiers: list[int], roots: set[int], fresh: list[int], total: int) -> None:
        """Make one set of the roots and the fresh identifiers; the smallest id wins."""
        labels = self._labels
        if fresh:
            oldest = self._accept(row, fresh)
            if not roots or oldest < min([labels[at] for at in roots]):
                winner = self._new_set(oldest)
                roots.add(winner)
            else:
                winner = min(roots, key=labels.__getitem__)
            for identifier in fresh:
                self._set[identifier] = winner
                if self._published and self._nodes[identifier] in self._published:
                    self._record(row, self._nodes[identifier], winner, identifiers)
        else:
            winner = min(roots, key=labels.__getitem__)
        self._counts[winner] = total
        if len(roots) > 1:
            self.joins += len(roots) - 1
            for at in roots:
                if at != winner:
                    self._parents[at] = winner
                    if at < self._before or labels[at] in self._published:
                        self._record(row, labels[at], winner, identifiers)

    def _accept(self, row: int, fresh: list[int]) -> int:
        """Give the identifiers nodes, where they have none yet; returns the oldest of these nodes."""
        nodes = self._nodes
        for identifier in fresh:
            if not nodes[identifier]:
                nodes[identifier] = self._next
                self._next += 1
            self.accepted.append(identifier)
            self.accepted_rows.append(row)
        return nodes[fresh[0]] if len(fresh) == 1 else min([nodes[identifier] for identifier in fresh])

    def _new_set(self, label: int) -> int:
        self._labels.append(label)
        self._parents.append(len(self._parents))
        self._counts.append(0)
        return len(self._parents) - 1

    def _record(self, row: int, loser: int, winner: int, identifiers: list[int]) -> None:
        if loser == self._labels[winner]:
            return
        kinds = tuple(self._kinds[identifier] for identifier in identifiers)
        self.merges.append(Merge(loser, self._labels[winner], row, kinds))

    def _pack(self, counts: Mapping[int, int]) -> int:
        return sum(count * self._units[kind] for kind, count in counts.items())

    def nodes(self) -> NDArray[np.int64]:
        """Per identifier, its node id; 0 for one that no row carried in."""
        return np.array(self._nodes, np.int64)

    def profiles(self) -> NDArray[np.int64]:
        """Per identifier, the id of its profile; 0 for one that no row carried in."""
        sets = np.array(self._set, np.int64)
        if not self._labels:
            return np.zeros(len(sets), np.int64)
        return np.where(sets < 0, 0, np.array(self._labels, np.int64)[self._roots()[sets]])

    def moved(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The profiles that stood before and are part of another now, and which one that is."""
        labels, roots = np.array(self._labels, np.int64), self._roots()[: self._before]
        gone = np.flatnonzero(roots != np.arange(len(roots)))
        return labels[gone], labels[roots[gone]]

    def _roots(self) -> NDArray[np.int64]:
        parents = np.array(self._parents, np.int64)
        while not np.array_equal(above := parents[parents], parents):
            parents = above
        return parents


def _combos(columns: Sequence[NDArray[np.int64]]) -> tuple[NDArray[np.int64], list[tuple[int, ...]]]:
    """Number the distinct combinations of identifiers in the order in which they are met.

    :returns: per row its combination; per combination its identifiers, one per type, -1 for none.
    """
    if not columns or not len(columns[0]):
        return np.empty(0, np.int64), []
    combos = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        width = int(column.max()) + 2
        encoded = pa.array(combos * width + column + 1).dictionary_encode()
        combos = encoded.indices.to_numpy().astype(np.int64)
    highest = np.maximum.accumulate(combos)
    first = np.flatnonzero(np.diff(highest, prepend=-1))
    return combos, list(zip(*(column[first].tolist() for column in columns), strict=True))
