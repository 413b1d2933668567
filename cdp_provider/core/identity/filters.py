# SPDX-License-Identifier: Apache-2.0
"""Which of the identifiers that rows carry count: hubs, rows excluded by hand, broken identifiers.

The order matters. Hubs are told from what rows carry; a row excluded by hand keeps the strongest identifier
that is left; and broken identifiers go last, as in a replay, in which nobody knows yet who is going to break.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cdp_provider.core.identity.decide import strongest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from cdp_provider.core.identity.history import History

#: type, value, ``hub`` or ``broken``, and since which identity run.
Barred = tuple[str, str, str, int]


def carried(rows: History, kinds: Sequence[str], barred: Sequence[Barred]) -> list[NDArray[np.int32]]:
    """The identifier columns of rows whose hubs are known."""
    columns = without(rows, rows.columns, numbered(rows, kinds, barred, "hub"))
    return without(rows, alone(rows, columns), numbered(rows, kinds, barred, "broken"))


def numbered(
    rows: History, kinds: Sequence[str], barred: Iterable[Barred], reason: str
) -> list[tuple[int, int]]:
    """Identifiers barred for a reason, by number, and since which identity run; broken ones always were."""
    by_kind: dict[str, list[tuple[str, int]]] = {}
    for kind, value, why, seq in barred:
        if why == reason and kind in kinds:
            by_kind.setdefault(kind, []).append((value, seq if why == "hub" else 0))
    found = []
    for kind, lines in by_kind.items():
        numbers = rows.numbers(kinds.index(kind), [value for value, _ in lines]).tolist()
        found += [(number, seq) for number, (_, seq) in zip(numbers, lines, strict=True) if number >= 0]
    return found


def without(
    rows: History, columns: Sequence[NDArray[np.int32]], since: Iterable[tuple[int, int]]
) -> list[NDArray[np.int32]]:
    """The columns without identifiers from the rows of an identity run on."""
    gone = dict(since)
    if not gone:
        return list(columns)
    first = np.full(len(rows.kinds) + 1, np.iinfo(np.int64).max)  # the last place stands for -1
    first[list(gone)] = list(gone.values())
    seqs = rows.seqs()
    return [np.where(first[column] <= seqs, np.int32(-1), column) for column in columns]


def alone(rows: History, columns: list[NDArray[np.int32]]) -> list[NDArray[np.int32]]:
    """The columns, but of rows excluded by hand only the strongest identifier."""
    if len(rows.alone):
        only = strongest([column[rows.alone] for column in columns], len(rows.alone))
        columns = [column.copy() for column in columns]
        for column in columns:
            column[rows.alone] = np.where(column[rows.alone] == only, only, -1)
    return columns
