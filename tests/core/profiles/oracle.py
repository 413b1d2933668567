# SPDX-License-Identifier: Apache-2.0
"""What comparisons, traits and fields mean, in plain Python, row by row: what SQL must agree with."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from tests.core.profiles.world import STREAMS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from cdp_provider.core.project.conditions import Comparison, Filter
    from cdp_provider.core.project.profiles import ProfileField, Trait
    from tests.core.profiles.world import Row

STREAM = {stream.ref: stream for stream in STREAMS}
LONG_AGO = datetime.min.replace(tzinfo=UTC)


def plain(value: Any) -> Any:
    """A form in which values of the same meaning are equal and ordered."""
    if isinstance(value, float):
        return Decimal(repr(value))
    if isinstance(value, date) and not isinstance(value, datetime):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    if isinstance(value, datetime) and value.tzinfo is None:
        return value.replace(tzinfo=UTC)
    return value


def fulfils(value: Any, comparison: Comparison, now: datetime) -> bool:
    return all(_holds(name, plain(value), given, now) for name, given in comparison.operators().items())


def _holds(name: str, value: Any, given: Any, now: datetime) -> bool:
    if name == "exists":
        return (value is not None) == given
    if name == "within_last":
        return value is not None and now - given <= value < now
    constants = [plain(constant) for constant in (given if isinstance(given, tuple) else (given,))]
    if name in ("is_not", "none_of"):
        return value is None or value not in constants
    return value is not None and _OPERATORS[name](value, constants)


_OPERATORS: dict[str, Callable[[Any, list[Any]], bool]] = {
    "is": lambda value, given: value in given,
    "any_of": lambda value, given: value in given,
    "at_least": lambda value, given: value >= given[0],
    "after": lambda value, given: value >= given[0],
    "at_most": lambda value, given: value <= given[0],
    "more_than": lambda value, given: value > given[0],
    "less_than": lambda value, given: value < given[0],
    "before": lambda value, given: value < given[0],
    "between": lambda value, given: given[0] <= value <= given[1],
    "contains": lambda value, given: given[0].lower() in value.lower(),
    "starts_with": lambda value, given: value.lower().startswith(given[0].lower()),
    "ends_with": lambda value, given: value.lower().endswith(given[0].lower()),
}


def time_of(row: Row) -> datetime | None:
    column = STREAM[row.stream].time
    return row.values.get(column) if column else None


def place(row: Row) -> tuple[Any, ...]:
    """Newer rows have a larger place."""
    return (time_of(row) or LONG_AGO, row.load_seq, row.load_id, row.position)


def rows_of(
    rows: Iterable[Row],
    people: Mapping[int, int],
    profile: int,
    stream: str,
    now: datetime,
    where: Filter,
    last: timedelta | None,
) -> list[Row]:
    """A profile's rows in a stream that fulfil a filter."""
    return [
        row
        for row in rows
        if row.stream == stream
        and row.node is not None
        and people[row.node] == profile
        and (time_of(row) or LONG_AGO) < now
        and (last is None or (time_of(row) is not None and now - last <= time_of(row) < now))
        and all(fulfils(row.values.get(name), comparison, now) for name, comparison in where.items())
    ]


def trait(wanted: Trait, rows: Sequence[Row], people: Mapping[int, int], profile: int, now: datetime) -> Any:
    mine = rows_of(rows, people, profile, wanted.stream, now, wanted.where, wanted.within_last)
    if wanted.type == "count":
        return len(mine)
    if wanted.type == "exists":
        return bool(mine)
    if wanted.type == "days_since_last":
        times = [time for row in mine if (time := time_of(row)) is not None]
        return (now - max(times)) // timedelta(days=1) if times else None
    valued = sorted((row for row in mine if row.values.get(wanted.column) is not None), key=place)
    values = [row.values[wanted.column] for row in valued]
    if wanted.type == "distinct_count":
        return len(set(values))
    return _TRAITS[wanted.type](values) if values else None


#: Of the non-null values of the column, oldest first.
_TRAITS: dict[str, Callable[[list[Any]], Any]] = {
    "sum": sum,
    "average": lambda values: float(sum(values)) / len(values),
    "min": min,
    "max": max,
    "first": lambda values: values[0],
    "last": lambda values: values[-1],
}


def survivor(
    wanted: ProfileField, rows: Sequence[Row], people: Mapping[int, int], profile: int, now: datetime
) -> Any:
    stated = [
        (place(row), number, row.values[source.column])
        for number, source in enumerate(wanted.sources)
        for row in rows_of(rows, people, profile, source.stream, now, {}, None)
        if row.values.get(source.column) not in (None, "")
    ]
    if not stated:
        return None
    match wanted.keep:
        case "most_recent":
            return max(stated, key=_newest)[2]
        case "first":
            return min(stated, key=_oldest)[2]
        case "source_priority":
            first = min(number for _, number, _ in stated)
            return max((s for s in stated if s[1] == first), key=_newest)[2]
    times = Counter(value for _, _, value in stated)
    return max(stated, key=lambda s: (times[s[2]], _newest(s)))[2]


def _newest(statement: tuple[Any, ...]) -> tuple[Any, ...]:
    (time, seq, load, position), number, _ = statement
    return (time, seq, -number, load, position)


def _oldest(statement: tuple[Any, ...]) -> tuple[Any, ...]:
    (time, seq, load, position), number, _ = statement
    return (time, seq, number, load, position)
