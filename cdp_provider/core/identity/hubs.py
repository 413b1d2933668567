# SPDX-License-Identifier: Apache-2.0
"""Hubs: values that were seen together with too many others to identify anybody."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

_NEVER = int(np.iinfo(np.int64).max)
_ROUNDS = 1000


class Pairs(NamedTuple):
    """Distinct pairs of an identifier of a type with a hub limit and another one it shared a row with.

    :param seqs: the identity run that first saw the pair.
    """

    identifiers: NDArray[np.int64]
    others: NDArray[np.int64]
    seqs: NDArray[np.int64]


class Hubs(NamedTuple):
    """:param since: identifier -> the identity run from whose rows on it is none.
    :param seen_with: identifier -> how many others it was seen with by the end of that run.
    :param pairs: what the rows showed of identifiers that are no hubs, and no run had seen before.
    """

    since: Mapping[int, int]
    seen_with: Mapping[int, int]
    pairs: Pairs

    def renumbered(self, numbers: NDArray[np.int64]) -> Hubs:
        """The same by other numbers.

        :param numbers: old number -> new number.
        """
        return Hubs(
            {int(numbers[hub]): seq for hub, seq in self.since.items()},
            {int(numbers[hub]): count for hub, count in self.seen_with.items()},
            Pairs(numbers[self.pairs.identifiers], numbers[self.pairs.others], self.pairs.seqs),
        )


def pairs_of(
    columns: Sequence[NDArray[np.int32]],
    slots: Sequence[int],
    limits: Mapping[int, int],
    seqs: NDArray[np.int64],
) -> Pairs:
    """All pairs that the rows show, each with the first run that showed it.

    :param slots: type of each column.
    :param limits: type -> how many others a value may be seen with.
    """
    found: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]] = []
    for mine, column in enumerate(columns):
        for other, theirs in enumerate(columns):
            if slots[mine] in limits and other != mine:
                rows = np.flatnonzero((column >= 0) & (theirs >= 0) & (column != theirs))
                found.append((column[rows].astype(np.int64), theirs[rows].astype(np.int64), seqs[rows]))
    if not found:
        none = np.empty(0, np.int64)
        return Pairs(none, none, none)
    identifiers, others, when = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.lexsort((when, others, identifiers))
    identifiers, others, when = identifiers[order], others[order], when[order]
    first = np.ones(len(order), bool)
    first[1:] = (np.diff(identifiers) != 0) | (np.diff(others) != 0)
    return Pairs(identifiers[first], others[first], when[first])


def unseen(pairs: Pairs, identifiers: NDArray[np.int64], others: NDArray[np.int64]) -> Pairs:
    """The pairs but those that an earlier run saw.

    :param others: -1 for one that no row carries now.
    """
    width = int(max(pairs.others.max(initial=0), others.max(initial=0))) + 2
    fresh = ~np.isin(pairs.identifiers * width + pairs.others, identifiers * width + others)
    return Pairs(*(column[fresh] for column in pairs))


def find(pairs: Pairs, seen: Mapping[int, int], limits: NDArray[np.int64], count: int) -> Hubs:
    """Which identifiers pass their limit, and when.

    A pair whose other side had become a hub in an earlier run does not count, and whether it had depends on
    its own pairs: found by going round until nothing changes; each round settles at least one more run.

    :param pairs: without those that an earlier run had seen.
    :param seen: identifier -> how many others earlier runs had seen it with.
    :param limits: per identifier, how many others it may be seen with.
    """
    since = np.full(count, _NEVER, np.int64)
    most = limits.copy()
    for identifier, before in seen.items():
        most[identifier] -= before
    for _ in range(_ROUNDS):
        counts = since[pairs.others] >= pairs.seqs
        found = _passed(Pairs(*(column[counts] for column in pairs)), most, count)
        if np.array_equal(found, since):
            break
        since = found
    hubs = np.flatnonzero(since < _NEVER)
    seen_with = _seen_with(pairs, since, seen, hubs)
    kept = since[pairs.identifiers] == _NEVER
    kept &= since[pairs.others] >= pairs.seqs
    return Hubs(
        dict(zip(hubs.tolist(), since[hubs].tolist(), strict=True)),
        seen_with,
        Pairs(*(column[kept] for column in pairs)),
    )


def _passed(pairs: Pairs, most: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Per identifier, the run of its first pair beyond what it may have."""
    order = np.lexsort((pairs.seqs, pairs.identifiers))
    identifiers, seqs = pairs.identifiers[order], pairs.seqs[order]
    starts = np.searchsorted(identifiers, np.arange(count + 1))
    since = np.full(count, _NEVER, np.int64)
    beyond = np.flatnonzero(np.diff(starts) > most)
    since[beyond] = seqs[starts[beyond] + np.maximum(most[beyond], 0)]
    return since


def _seen_with(
    pairs: Pairs, since: NDArray[np.int64], seen: Mapping[int, int], hubs: NDArray[np.int64]
) -> dict[int, int]:
    counts = (since[pairs.others] >= pairs.seqs) & (pairs.seqs <= since[pairs.identifiers])
    totals = np.bincount(pairs.identifiers[counts], minlength=len(since))
    return {hub: int(totals[hub]) + seen.get(hub, 0) for hub in hubs.tolist()}
