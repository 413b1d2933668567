# SPDX-License-Identifier: Apache-2.0
"""Sets of ordered values as spans between cuts, so that intersections and complements are exact."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

#: A place between values: just before one (0), just after it (1), or beyond all of them.
Cut: TypeAlias = tuple[Any, ...]
#: Spans between two cuts each, ascending, none touching the next.
Spans: TypeAlias = tuple[tuple[Cut, Cut], ...]

LOWEST: Cut = (-1,)
HIGHEST: Cut = (1,)
EVERYTHING: Spans = ((LOWEST, HIGHEST),)
NOTHING: Spans = ()

_DAY = timedelta(days=1)


def before(value: Any) -> Cut:
    """The cut just before a value."""
    return (0, value, 0)


def after(value: Any) -> Cut:
    """The cut just after a value; of whole numbers and days it is the one before the next."""
    if isinstance(value, int) and not isinstance(value, bool):
        return (0, value + 1, 0)
    if isinstance(value, date) and not isinstance(value, datetime):
        return (0, value + _DAY, 0) if value < date.max else HIGHEST
    return (0, value, 1)


def span(low: Cut, high: Cut) -> Spans:
    """What lies between two cuts."""
    return ((low, high),) if low < high else NOTHING


def points(values: Iterable[Any]) -> Spans:
    """These values and no others."""
    return union((before(value), after(value)) for value in values)


def union(spans: Iterable[tuple[Cut, Cut]]) -> Spans:
    """All that lies in at least one of the spans."""
    found: list[tuple[Cut, Cut]] = []
    for low, high in sorted(spans):
        if found and low <= found[-1][1]:
            found[-1] = (found[-1][0], max(high, found[-1][1]))
        elif low < high:
            found.append((low, high))
    return tuple(found)


def outside(spans: Spans) -> Spans:
    """Everything else."""
    cuts = [LOWEST, *(cut for pair in spans for cut in pair), HIGHEST]
    return tuple((low, high) for low, high in zip(cuts[::2], cuts[1::2], strict=True) if low < high)


def both(one: Spans, other: Spans) -> Spans:
    """What lies in both."""
    found = []
    i = j = 0
    while i < len(one) and j < len(other):
        low, high = max(one[i][0], other[j][0]), min(one[i][1], other[j][1])
        if low < high:
            found.append((low, high))
        if one[i][1] < other[j][1]:
            i += 1
        else:
            j += 1
    return tuple(found)


def only_points(spans: Spans) -> list[Any] | None:
    """The values, where there are only single ones; None where there are more than can be named."""
    if all(len(low) > 1 and high == after(low[1]) and low[-1] == 0 for low, high in spans):
        return [low[1] for low, _ in spans]
    return None
