# SPDX-License-Identifier: Apache-2.0
"""Limits: how many values of each type one profile may hold, ever or within a window of time."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

#: Stands for "no time" where times are whole microseconds since 1970.
NO_TIME = int(np.iinfo(np.int64).min)

#: In the place of a type: the link was denied by hand.
DENIED = -1

#: Counts per type lie side by side in one whole number, each in so many bits. The top bit of a field is its
#: guard: adding it to the limit and taking the count away clears it exactly when the count is too high.
_BITS = 32
_FIELD = (1 << _BITS) - 1
_MOST = 1 << (_BITS - 2)


class Limit(NamedTuple):
    """:param within: microseconds of the window; None: ever."""

    values: int
    within: int | None = None


class Limits:
    """The limits of all types, strongest first; a type is its place among them."""

    def __init__(self, limits: Sequence[Limit]) -> None:
        self.values = [min(limit.values, _MOST) for limit in limits]
        self.windows = [limit.within for limit in limits]
        self.units = [1 << (_BITS * kind) for kind in range(len(limits))]
        self._guards = sum(unit << (_BITS - 1) for unit in self.units)
        self._room = self._guards + sum(
            most * unit for most, unit in zip(self.values, self.units, strict=True)
        )

    def pack(self, counts: Mapping[int, int]) -> int:
        """Counts per type as one number, which can be added up."""
        return sum(count * self.units[kind] for kind, count in counts.items())

    def count(self, total: int, kind: int) -> int:
        """One type's count out of the packed ones."""
        return total >> (_BITS * kind) & _FIELD

    def exceeded(self, total: int) -> bool:
        """Whether any of the packed counts is above its limit, windows left aside."""
        return (self._room - total) & self._guards != self._guards

    def grown(self, total: int, parts: Iterable[int]) -> Iterator[int]:
        """Types above their limit in the joint set, and with more values than any of its parts.

        A part may stand above a limit because of a pair allowed by hand; it must not grow in that type.
        """
        parts = list(parts)
        for kind, most in enumerate(self.values):
            count = self.count(total, kind)
            if count > most and count > max((self.count(part, kind) for part in parts), default=0):
                yield kind

    def crowded(self, kind: int, times: list[int]) -> bool:
        """Whether more values than allowed were first seen within one window; one without time always was."""
        window, most = self.windows[kind], self.values[kind]
        if window is None:
            return len(times) > most
        timed = sorted(time for time in times if time != NO_TIME)
        most -= len(times) - len(timed)
        if most < 0:
            return True
        return any(late - early < window for early, late in zip(timed, timed[most:], strict=False))
