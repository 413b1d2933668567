# SPDX-License-Identifier: Apache-2.0
"""The graph: which identifiers are one profile, decided row by row, within limits.

A limit makes the outcome depend on order, so rows are taken one after the other, in recorded order. A row
joins the profiles of its identifiers into the one with the smallest id, unless a limit or a pair denied by
hand stands against it; what then happens is up to the policy (see ``policies.py``).

This is exact and slow: plain Python, a few hundred thousand rows a second. Rows that can't come near a limit
never get here (see ``decide.py``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa

from cdp_provider.core.identity.limits import DENIED, Limits

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray


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
    """An identifier that a row did not link.

    :param rule: the type whose limit asked for it, or :data:`~cdp_provider.core.identity.limits.DENIED`.
    """

    row: int
    identifier: int
    rule: int


class Eviction(NamedTuple):
    """An identifier that left its profile; its node stays there.

    :param place: the set of identifiers that it left.
    """

    row: int
    identifier: int
    node: int
    accepted_row: int
    place: int


@dataclass(frozen=True)
class Start:
    """What stands before the first row; everything by identifier is by its number in this graph.

    :param kinds: per identifier, its type.
    :param nodes: per identifier, its node id; 0 for one without.
    :param profiles: per identifier, the profile it belongs to; 0 for one that no row carried in yet.
    :param times: per identifier of a known profile, when it was first seen.
    :param counts: profile id -> type -> identifiers it holds.
    :param next_node: the node id that the next new identifier gets.
    :param spare_nodes: identifier -> further node ids it had before, each after it had been evicted.
    :param published: profile ids that somebody may remember; their merges are recorded.
    :param denied: identifier -> identifiers it is never one profile with.
    :param allowed: identifier -> identifiers it is one profile with, whatever the limits say.
    """

    kinds: Sequence[int]
    nodes: Sequence[int]
    profiles: Sequence[int]
    times: Sequence[int]
    counts: Mapping[int, Mapping[int, int]] = field(default_factory=dict)
    next_node: int = 1
    spare_nodes: Mapping[int, Sequence[int]] = field(default_factory=dict)
    published: frozenset[int] = frozenset()
    denied: Mapping[int, frozenset[int]] = field(default_factory=dict)
    allowed: Mapping[int, Sequence[int]] = field(default_factory=dict)


class Graph(ABC):
    """Disjoint sets of identifiers; the policy is a subclass.

    :param limits: of all types, strongest first.
    """

    #: Whether the policy looks at the members of a set one by one.
    keeps_members: ClassVar[bool] = False
    #: Whether a row whose identifiers were all linked needs no second look when it comes again.
    settles: ClassVar[bool] = True

    def __init__(self, start: Start, limits: Limits) -> None:
        self._limits = limits
        self._kinds = list(start.kinds)
        self._nodes = list(start.nodes)
        self._spare = {identifier: list(nodes) for identifier, nodes in start.spare_nodes.items()}
        self._next = start.next_node
        self._published = start.published
        self._denied, self._allowed = start.denied, start.allowed
        self._labels: list[int] = []
        self._parents: list[int] = []
        self._counts: list[int] = []
        self._seen: dict[int, int] = {}
        self._times: dict[int, dict[int, list[int]]] = {}
        self._marks: dict[int, set[int]] = {}
        self._members: dict[int, list[int]] = {}
        self._set = [-1] * len(self._kinds)
        self._row_times: Sequence[int] = ()
        self._known_sets(start)
        self._before = len(self._labels)
        #: number of the row that carried an identifier in; -1 for those of known profiles and for none.
        self.accepted_rows = [-1] * len(self._kinds)
        #: per new node, the row that made it.
        self.births: list[int] = []
        self.merges: list[Merge] = []
        self.refusals: list[Refusal] = []
        self.evictions: list[Eviction] = []
        #: identifiers that are none any more, and the row that broke each.
        self.broken: dict[int, int] = {}

    def _known_sets(self, start: Start) -> None:
        places: dict[int, int] = {}
        for identifier, profile in enumerate(start.profiles):
            if profile:
                if profile not in places:
                    places[profile] = self._new_set(profile)
                    self._counts[places[profile]] = self._limits.pack(start.counts[profile])
                at = self._set[identifier] = places[profile]
                self._note(at, identifier, start.times[identifier])

    def take(self, columns: Sequence[NDArray[np.int32]], times: Sequence[int]) -> list[int]:
        """Go through all rows in order.

        :param columns: the identifiers of each row, or -1, the strongest first.
        :param times: per row, microseconds since 1970 or ``NO_TIME``.
        :returns: per row, the node of the identifier it hangs on; 0 where it has none.
        """
        self._row_times = times
        combos, members = _combos(columns)
        settled = bytearray(len(members))
        anchors: list[int] = []
        for row, combo in enumerate(combos.tolist()):
            if not settled[combo]:
                settled[combo] = self._place(row, list(members[combo])) and self.settles
                if self._allowed:
                    self._allow(row, members[combo])
            if not self.settles:
                anchors.append(self._anchor(members[combo]))
        # Where rows settle, an identifier may still be broken by a later row.
        return [self._anchor(members[combo]) for combo in combos.tolist()] if self.settles else anchors

    def _anchor(self, members: Iterable[int]) -> int:
        return next((self._nodes[i] for i in members if i not in self.broken), 0)

    @abstractmethod
    def _place(self, row: int, identifiers: list[int]) -> bool:
        """Link a row's identifiers, strongest first; returns whether all links were made."""

    def _find(self, at: int) -> int:
        parents = self._parents
        while parents[at] != at:
            parents[at] = at = parents[parents[at]]
        return at

    def _conflict(self, row: int, total: int, roots: Iterable[int], fresh: Iterable[int]) -> int | None:
        """The limit that a joint set would break, as its type, or DENIED, or None.

        :param total: the joint set's packed counts.
        """
        limits = self._limits
        if limits.exceeded(total):
            parts = [self._counts[at] for at in roots]
            for kind in limits.grown(total, parts):
                if not limits.windows[kind] or self._in_window(row, kind, roots, fresh):
                    return kind
        if self._denied and self._is_denied(roots, fresh):
            return DENIED
        return None

    def _in_window(self, row: int, kind: int, roots: Iterable[int], fresh: Iterable[int]) -> bool:
        """Whether the joint set has too many first sights of a type within its window."""
        times = [time for at in roots for time in self._times.get(at, {}).get(kind, ())]
        times += [self._row_times[row] for identifier in fresh if self._kinds[identifier] == kind]
        return self._limits.crowded(kind, times)

    def _is_denied(self, roots: Iterable[int], fresh: Iterable[int]) -> bool:
        named = {identifier for at in roots for identifier in self._marks.get(at, ())}
        named.update(identifier for identifier in fresh if identifier in self._denied)
        return any(self._denied[identifier] & named for identifier in named)

    def _join(self, row: int, identifiers: Sequence[int], roots: set[int], fresh: list[int]) -> int:
        """Make one set of the roots and the fresh identifiers; the smallest id wins. Returns the set."""
        labels = self._labels
        if fresh:
            oldest = min([self._accept(row, identifier) for identifier in fresh])
            if not roots or oldest < min([labels[at] for at in roots]):
                winner = self._new_set(oldest)
                roots.add(winner)
            else:
                winner = min(roots, key=labels.__getitem__)
            for identifier in fresh:
                self._set[identifier] = winner
                self._counts[winner] += self._limits.units[self._kinds[identifier]]
                self._note(winner, identifier, self._row_times[row])
                if self._nodes[identifier] in self._published:
                    self._record(row, self._nodes[identifier], winner, identifiers)
        else:
            winner = min(roots, key=labels.__getitem__)
        for at in roots:
            if at != winner:
                self._parents[at] = winner
                self._counts[winner] += self._counts[at]
                self._hand_over(at, winner)
                if labels[at] in self._published:
                    self._record(row, labels[at], winner, identifiers)
        return winner

    def _hand_over(self, loser: int, winner: int) -> None:
        if loser in self._times:
            mine = self._times.setdefault(winner, {})
            for kind, times in self._times.pop(loser).items():
                mine.setdefault(kind, []).extend(times)
        if loser in self._marks:
            self._marks.setdefault(winner, set()).update(self._marks.pop(loser))
        if loser in self._members:
            fewer, more = sorted((self._members.pop(loser), self._members.pop(winner, [])), key=len)
            more.extend(fewer)
            self._members[winner] = more

    def _note(self, at: int, identifier: int, time: int) -> None:
        """What a set remembers of a member beside its count."""
        if self.keeps_members:
            self._members.setdefault(at, []).append(identifier)
        kind = self._kinds[identifier]
        if self._limits.windows[kind]:
            self._seen[identifier] = time
            self._times.setdefault(at, {}).setdefault(kind, []).append(time)
        if identifier in self._denied:
            self._marks.setdefault(at, set()).add(identifier)

    def _accept(self, row: int, identifier: int) -> int:
        """Make an identifier part of the graph; returns its node."""
        if not self._nodes[identifier]:
            if spare := self._spare.get(identifier):
                self._nodes[identifier] = spare.pop(0)
            else:
                self._nodes[identifier] = self._next
                self._next += 1
                self.births.append(row)
        self.accepted_rows[identifier] = row
        return self._nodes[identifier]

    def _new_set(self, label: int) -> int:
        self._labels.append(label)
        self._parents.append(len(self._parents))
        self._counts.append(0)
        return len(self._parents) - 1

    def _record(self, row: int, loser: int, winner: int, identifiers: Sequence[int]) -> None:
        if loser != self._labels[winner]:
            kinds = tuple(self._kinds[identifier] for identifier in identifiers)
            self.merges.append(Merge(loser, self._labels[winner], row, kinds))

    def _allow(self, row: int, identifiers: Iterable[int]) -> None:
        """Join what a row made known with what it is allowed to be, limits or not."""
        for identifier in identifiers:
            for other in self._allowed.get(identifier, ()):
                if (
                    self._set[identifier] < 0
                    or self._set[other] < 0
                    or self.broken.keys() & {identifier, other}
                ):
                    continue
                roots = {self._find(self._set[identifier]), self._find(self._set[other])}
                if len(roots) == 2 and not self._is_denied(roots, ()):
                    self._join(row, sorted((identifier, other)), roots, [])

    def nodes(self) -> NDArray[np.int64]:
        """Per identifier, its node id; 0 for one that no row carried in, or that was evicted."""
        return np.array(self._nodes, np.int64)

    def profiles(self) -> NDArray[np.int64]:
        """Per identifier, the id of its profile; 0 for one that no row carried in, or that was evicted."""
        sets = np.array(self._set, np.int64)
        return np.where(sets < 0, 0, self.labels(sets))

    def labels(self, sets: NDArray[np.int64]) -> NDArray[np.int64]:
        """The profile ids of sets as they are now."""
        if not self._labels:
            return np.zeros_like(sets)
        parents = np.array(self._parents, np.int64)
        while not np.array_equal(above := parents[parents], parents):
            parents = above
        found: NDArray[np.int64] = np.array(self._labels, np.int64)[parents[sets]]
        return found

    def moved(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The profiles that stood before the first row and are part of another now, and which one that is."""
        before = np.array(self._labels[: self._before], np.int64)
        after = self.labels(np.arange(self._before))
        return before[before != after], after[before != after]


def _combos(columns: Sequence[NDArray[np.int32]]) -> tuple[NDArray[np.int64], list[tuple[int, ...]]]:
    """Number the distinct combinations of identifiers in the order in which they are met.

    :returns: per row its combination; per combination its identifiers, each once, strongest first.
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
    rows = zip(*(column[first].tolist() for column in columns), strict=True)
    return combos, [tuple(dict.fromkeys(i for i in row if i >= 0)) for row in rows]
