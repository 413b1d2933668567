# SPDX-License-Identifier: Apache-2.0
"""What fields, traits and accounts mean, in plain Python, row by row: what SQL must agree with."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple
from zoneinfo import ZoneInfo

from tests.core.profiles import comparing
from tests.core.profiles.evaluating import evaluate
from tests.core.profiles.world import STREAMS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from cdp_provider.core.project.conditions import Comparison, Filter
    from cdp_provider.core.project.profiles import ProfileField, Profiles, Trait
    from tests.core.profiles.world import Row

STREAM = {stream.ref: stream for stream in STREAMS}
LONG_AGO = datetime.min.replace(tzinfo=UTC)
DAY = timedelta(days=1)


def time_of(row: Row) -> datetime | None:
    column = STREAM[row.stream].time
    return row.values.get(column) if column else None


def place(row: Row) -> tuple[Any, ...]:
    """Newer rows have a larger place."""
    return (time_of(row) or LONG_AGO, row.load_seq, row.load_id, row.position)


class Statement(NamedTuple):
    """A value that a row states for a field; `source` is its place in the field's list."""

    value: Any
    source: int
    row: Row

    @property
    def newest(self) -> tuple[Any, ...]:
        time, seq, *rest = place(self.row)
        return (time, seq, -self.source, *rest)

    @property
    def oldest(self) -> tuple[Any, ...]:
        time, seq, *rest = place(self.row)
        return (time, seq, self.source, *rest)


class Oracle:
    """What all profiles are at a moment.

    :param rows: every raw row there is, whenever it happened.
    :param people: node -> profile.
    :param own_sql: the text of a statement -> what it gives: a function of this oracle and a profile.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        people: Mapping[int, int],
        profiles: Profiles,
        now: datetime,
        own_sql: Mapping[str, Callable[[Oracle, int], Any]] | None = None,
    ) -> None:
        self.people, self.profiles, self.now = people, profiles, now
        self.zone = ZoneInfo(profiles.timezone)
        self.own_sql = own_sql or {}
        self.ids = sorted(set(people.values()))
        self._objects = {ref: current(rows, ref, now) for ref in STREAM}
        self._columns: dict[str, dict[int, Any]] = {}

    # Rows

    def objects(self, ref: str) -> list[Row]:
        """All rows of a stream that count, whoever they belong to."""
        return self._objects[ref]

    def rows(self, profile: int, ref: str) -> list[Row]:
        """Those of them that belong to a profile."""
        return [row for row in self._objects[ref] if row.node and self.people[row.node] == profile]

    def fulfils(self, value: Any, comparison: Comparison) -> bool:
        return comparing.fulfils(value, comparison, self.now, self.zone)

    def passing(self, rows: Iterable[Row], where: Filter, event: str | None, window: Any) -> list[Row]:
        """The rows that a filter lets through.

        :param window: whatever has `within_last` and `between`.
        """
        return [
            row
            for row in rows
            if (event is None or row.values.get(STREAM[row.stream].event) == event)
            and all(self.fulfils(row.values.get(name), held) for name, held in where.items())
            and self.lies_in(time_of(row), window)
        ]

    def lies_in(self, time: datetime | None, window: Any) -> bool:
        if window.within_last and (time is None or time < self.now - window.within_last):
            return False
        if window.between is None:
            return True
        held = comparing.Held(time, self.now, self.zone, ignore_case=None)
        return time is not None and held.holds("between", window.between)

    # Values

    @cached_property
    def values(self) -> dict[int, dict[str, Any]]:
        """Profile -> field or trait -> value."""
        names = [*self.profiles.fields, *self.profiles.traits]
        return {profile: {name: self.column(name)[profile] for name in names} for profile in self.ids}

    def column(self, name: str) -> dict[int, Any]:
        """Profile -> value of a field or trait."""
        if name not in self._columns:
            field, trait = self.profiles.fields.get(name), self.profiles.traits.get(name)
            found = self._field_column(field) if field else self._trait_column(trait)
            if trait and trait.default is not None:
                found = {p: alike(trait, trait.default) if v is None else v for p, v in found.items()}
            self._columns[name] = found
        return self._columns[name]

    def _field_column(self, field: ProfileField) -> dict[int, Any]:
        if field.keep == "sql":
            return {profile: self.own_sql[field.sql](self, profile) for profile in self.ids}
        return {profile: survivor(field, self.statements(field, profile)) for profile in self.ids}

    def statements(self, field: ProfileField, profile: int) -> list[Statement]:
        return [
            Statement(value, number, row)
            for number, source in enumerate(field.sources)
            for row in self.rows(profile, source.stream)
            if (value := row.values.get(source.column)) not in (None, "") or field.empty == "keep"
        ]

    def _trait_column(self, trait: Trait) -> dict[int, Any]:
        match trait.type:
            case "quantile":
                return quantiles(self.column(trait.of), trait.buckets, descending=trait.order == "descending")
            case "rfm":
                return self._rfm(trait)
            case "ratio":
                over = self.column(trait.over)
                return {p: divided(of, over[p]) for p, of in self.column(trait.of).items()}
            case "formula":
                return {p: evaluate(trait.formula, lambda n, p=p: self.column(n)[p]) for p in self.ids}
            case "sql":
                return {profile: self.own_sql[trait.sql](self, profile) for profile in self.ids}
        return {profile: self._of_rows(trait, profile) for profile in self.ids}

    def _of_rows(self, trait: Trait, profile: int) -> Any:
        rows = self.passing(self.rows(profile, trait.stream), trait.where, trait.event, trait)
        rows.sort(key=place)
        match trait.type:
            case "count":
                return len(rows)
            case "exists":
                return bool(rows)
            case "days_since_last" | "days_since_first":
                times = [time for row in rows if (time := time_of(row)) is not None]
                chosen = max if trait.type == "days_since_last" else min
                return (self.now - chosen(times)) // DAY if times else None
        values = [row.values.get(trait.column) for row in rows]
        if trait.nulls == "ignore":
            values = [value for value in values if value is not None]
        if trait.nulls == "zero":
            values = [0 if value is None else value for value in values]
            values = [0 if trait.type in ("sum", "average") and not countable(v) else v for v in values]
        return aggregate(trait.type, values, trait.limit)

    def _rfm(self, trait: Trait) -> dict[int, Any]:
        parts = [
            quantiles(self.column(trait.recency), trait.buckets, descending=True),
            quantiles(self.column(trait.frequency), trait.buckets),
            quantiles(self.column(trait.monetary), trait.buckets),
        ]
        digits = {p: [part[p] for part in parts] for p in self.ids}
        return {p: None if None in given else "".join(map(str, given)) for p, given in digits.items()}

    # Accounts

    @cached_property
    def accounts(self) -> dict[Any, dict[str, Any]]:
        """Account -> ``profiles`` and its traits."""
        declared = self.profiles.accounts
        members: dict[Any, list[int]] = {}
        for profile, account in self.column(declared.key).items() if declared else ():
            if account is not None:
                members.setdefault(account, []).append(profile)
        return {
            account: {
                "profiles": len(ids),
                **{
                    name: len(ids)
                    if trait.type == "count"
                    else aggregate(
                        trait.type, [v for p in ids if (v := self.column(trait.of)[p]) is not None]
                    )
                    for name, trait in declared.traits.items()
                },
            }
            for account, ids in members.items()
        }


def current(rows: Iterable[Row], ref: str, now: datetime) -> list[Row]:
    """Of each primary key, the newest row that counts."""
    newest: dict[Any, Row] = {}
    for row in sorted(rows, key=place):
        if row.stream == ref and row.passed and (time_of(row) or LONG_AGO) < now:
            newest[tuple(row.values.get(name) for name in STREAM[ref].primary_key)] = row
    return list(newest.values())


def survivor(field: ProfileField, stated: list[Statement]) -> Any:
    stated = sorted(stated, key=lambda statement: statement.newest)
    if chosen := chosen_of(field, stated):
        return chosen.value
    return aggregate(field.keep, [statement.value for statement in stated], field.limit) if stated else None


def chosen_of(field: ProfileField, stated: list[Statement]) -> Statement | None:
    """The statement that counts, where it is a single one."""
    if not stated:
        return None
    match field.keep:
        case "most_recent":
            return max(stated, key=lambda statement: statement.newest)
        case "first":
            return min(stated, key=lambda statement: statement.oldest)
        case "source_priority":
            first = min(statement.source for statement in stated)
            return max((s for s in stated if s.source == first), key=lambda statement: statement.newest)
    return None


def aggregate(kind: str, values: list[Any], limit: int = 100) -> Any:
    """:param values: oldest first."""
    if kind in ("sum", "average"):
        values = [exact(value) for value in values if countable(value)]
    if kind == "distinct_count":
        return len(set(values))
    return _AGGREGATES[kind](values, limit) if values else None


def countable(value: Any) -> bool:
    """Whether a number is not too large to be added up exactly."""
    return not isinstance(value, float) or abs(value) < 10**12


def exact(value: Any) -> Any:
    if isinstance(value, float):
        return Float(Decimal(repr(value)).quantize(Decimal("0.000001"), ROUND_HALF_UP))
    return value


class Float(Decimal):
    """A float that is added up exactly."""


def _sum(values: list[Any], _: int) -> Any:
    total = sum(Decimal(value) for value in values)
    if any(isinstance(value, Float) for value in values):
        return float(total)
    return total if any(isinstance(value, Decimal) for value in values) else int(total)


def _average(values: list[Any], _: int) -> float:
    return float(sum(Decimal(value) for value in values) / len(values))


def _most_frequent(values: list[Any], _: int) -> Any:
    times = Counter(values)
    return max(enumerate(values), key=lambda place: (times[place[1]], place[0]))[1]


#: Of the values, oldest first.
_AGGREGATES: dict[str, Callable[[list[Any], int], Any]] = {
    "sum": _sum,
    "average": _average,
    "min": lambda values, _: min(values),
    "max": lambda values, _: max(values),
    "any": lambda values, _: any(values),
    "all": lambda values, _: all(values),
    "first": lambda values, _: values[0],
    "last": lambda values, _: values[-1],
    "most_frequent": _most_frequent,
    "list": lambda values, limit: list(dict.fromkeys(reversed(values)))[:limit],
}


def quantiles(column: Mapping[int, Any], buckets: int, *, descending: bool = False) -> dict[int, int | None]:
    known = [value for value in column.values() if value is not None]
    before = (lambda one, other: one > other) if descending else (lambda one, other: one < other)
    return {
        p: None if v is None else 1 + buckets * sum(before(other, v) for other in known) // len(known)
        for p, v in column.items()
    }


def divided(of: Any, over: Any) -> float | None:
    return None if of is None or not over else float(of) / float(over)


def alike(trait: Trait, default: Any) -> Any:
    """A default as a value of the trait's type."""
    column = STREAM[trait.stream].columns.get(trait.column) if trait.stream else None
    if trait.type in ("average", "ratio", "formula") or (column and column.type == "number"):
        return (
            float(default)
            if isinstance(default, int | Decimal) and not isinstance(default, bool)
            else default
        )
    return default
