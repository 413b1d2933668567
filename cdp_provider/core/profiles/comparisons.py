# SPDX-License-Identifier: Apache-2.0
"""The operators of comparisons as SQL, by the type of what is compared."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from cdp_provider.core.exceptions import ConfigurationError
from cdp_provider.core.profiles.constants import read
from cdp_provider.core.profiles.days import day_of, first_day, first_moment, next_day
from cdp_provider.core.warehouse.patterns import PatternError, translated

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import date
    from decimal import Decimal

    from cdp_provider.core.profiles.params import Params

_TICK = timedelta(microseconds=1)


class Value:
    """The left side of a comparison; every method gives SQL that is NULL at most where the value is.

    :param column: SQL of the value; `kind` its column type.
    :param fold: whether upper and lower case are the same; None leaves that to the operator.
    :param label: what to call it in an error.
    """

    def __init__(
        self, column: str, kind: str, params: Params, label: str, *, fold: bool | None = None
    ) -> None:
        self.column, self.kind, self.params, self.label, self.fold = column, kind, params, label, fold

    def bound(self, constant: Any) -> str:
        """SQL of a constant of the value's own type."""
        return self.params.bind(read(constant, self.kind, self.label), self.kind)

    def among(self, constants: tuple[Any, ...]) -> str:
        """The value equals one of them."""
        column, *bound = self._against(*constants)
        if not bound:
            return "false"
        return f"{column} = {bound[0]}" if len(bound) == 1 else f"{column} in ({', '.join(bound)})"

    def since(self, constant: Any) -> str:
        """The value is at least the constant, or in it."""
        return self._ordered(">=", constant)

    def until(self, constant: Any) -> str:
        """The value is at most the constant, or in it."""
        return self._ordered("<=", constant)

    def below(self, constant: Any) -> str:
        """The value is less than the constant and all in it."""
        return self._ordered("<", constant)

    def above(self, constant: Any) -> str:
        """The value is more than the constant and all in it."""
        return self._ordered(">", constant)

    def _against(self, *constants: Any) -> tuple[str, ...]:
        """SQL of the value and of each constant, in a type that holds them all."""
        plain: list[int | Decimal] = [read(constant, self.kind, self.label) for constant in constants]
        if self.kind == "integer" and not all(isinstance(constant, int) for constant in plain):
            wider = f"cast({self.column} as {self.params.warehouse.types['decimal']})"
            return wider, *(self.params.bind(constant, "decimal") for constant in plain)
        sides = (self.column, *(self.params.bind(constant, self.kind) for constant in plain))
        return tuple(f"lower({side})" for side in sides) if self.fold and self.kind == "string" else sides

    def _ordered(self, symbol: str, constant: Any) -> str:
        column, bound = self._against(constant)
        # Texts are in the order of their code points, whatever the database's language is.
        left = self.params.warehouse.byte_order(column) if self.kind == "string" else column
        return f"{left} {symbol} {bound}"


class Moment(Value):
    """A timestamp. A date that it is held against is a whole day."""

    def among(self, constants: tuple[Any, ...]) -> str:
        days = {c for c in constants if not isinstance(read(c, self.kind, self.label), datetime)}
        moments = tuple(c for c in constants if c not in days)
        found = [f"({self.since(day)} and {self.until(day)})" for day in constants if day in days]
        if moments or not found:
            found.append(super().among(moments))
        return f"({' or '.join(found)})" if len(found) > 1 else found[0]

    def _ordered(self, symbol: str, constant: Any) -> str:
        given = read(constant, self.kind, self.label)
        if not isinstance(given, datetime):
            zone = self.params.zone
            begins_here = symbol in (">=", "<")
            edge = first_moment(given, zone) if begins_here else next_day(given, zone)
            if edge is None:  # the last day of all
                return f"{self.column} is {'not ' * (symbol == '<=')}null"
            given, symbol = edge, {">=": ">=", "<": "<", "<=": "<", ">": ">="}[symbol]
        return f"{self.column} {symbol} {self.params.bind(given, self.kind)}"

    def span(self, start: timedelta | None, end: timedelta | None, *, closed: bool = False) -> str:
        """From now plus `start` (included) to now plus `end` (excluded, or included if `closed`)."""
        bounds = []
        if start is not None:
            bounds.append(f"{self.column} >= {self.params.moment(-start)}")
        if end is not None:
            bounds.append(f"{self.column} {'<=' if closed else '<'} {self.params.moment(-end)}")
        return " and ".join(bounds)

    def today(self) -> str:
        """The value lies in the calendar day of now."""
        zone = self.params.zone
        day = day_of(self.params.now, zone)
        bounds = [f"{self.column} >= {self.params.relative(first_moment(day, zone), 'timestamp', 'today')}"]
        if (end := next_day(day, zone)) is not None:
            bounds.append(f"{self.column} < {self.params.relative(end, 'timestamp', 'tomorrow')}")
        return " and ".join(bounds)


class Day(Value):
    """A date, which stands for the first moment of its day where it is measured from now."""

    def span(self, start: timedelta | None, end: timedelta | None, *, closed: bool = False) -> str:
        """As :meth:`Moment.span`."""
        bounds = []
        if start is not None:
            bounds.append(f"{self.column} >= {self._first(start)}")
        if end is not None:
            bounds.append(f"{self.column} < {self._first(end + _TICK * closed)}")
        return " and ".join(bounds)

    def today(self) -> str:
        """The value is the calendar day of now."""
        day = day_of(self.params.now, self.params.zone)
        return f"{self.column} = {self.params.relative(day, 'date', 'today')}"

    def _first(self, ahead: timedelta) -> str:
        """SQL of the first day that begins so long after now, or later."""
        day: date = first_day(self.params.at(-ahead), self.params.zone)
        return self.params.relative(day, "date", f"first day from now + {ahead}")


class Members(Value):
    """A list, which is a JSON array in the warehouse; `kind` is that of its members."""

    def holds_any(self, constants: tuple[Any, ...]) -> str:
        """One of the constants is a member."""
        members = self.params.warehouse.members(self.column, self.kind)
        tests = []
        for constant in constants:
            # Members are of one type, which a number with a fraction is not.
            if self.kind == "integer" and not isinstance(read(constant, self.kind, self.label), int):
                continue
            bound = self.bound(constant)
            if self.fold and self.kind == "string":
                one = (
                    f"select 1 from unnest({members}) as listed(member) where lower(member) = lower({bound})"
                )
                tests.append(f"exists ({one})")
            else:
                tests.append(f"coalesce({self.params.warehouse.has_member(self.column, bound)}, false)")
        return f"({' or '.join(tests)})" if tests else "false"


def _true(sql: str) -> str:
    return f"coalesce({sql}, false)"


def _sign(test: Callable[[Any, Any], str]) -> Callable[[Any, Any], str]:
    return lambda value, given: _true(test(value, given))


def _folded(value: Value, *texts: str) -> tuple[str, ...]:
    """SQL of a text and of constants held against parts of it: in lower case, unless case matters."""
    sides = (value.column, *map(value.bound, texts))
    return sides if value.fold is False else tuple(f"lower({side})" for side in sides)


def _contains(value: Value, given: Any) -> str:
    return _contains_any(value, (given,))


def _contains_any(value: Value, given: tuple[Any, ...]) -> str:
    if isinstance(value, Members):
        return value.holds_any(given)
    column, *bound = _folded(value, *given)
    found = [f"strpos({column}, {part}) > 0" for part in bound]
    return _true(f"({' or '.join(found)})") if found else "false"


def _starts_with(value: Value, given: str) -> str:
    column, bound = _folded(value, given)
    return _true(f"starts_with({column}, {bound})")


def _ends_with(value: Value, given: str) -> str:
    column, bound = _folded(value, given)
    return _true(f"right({column}, length({bound})) = {bound}")


def _like(value: Value, given: str) -> str:
    pattern = "".join({"*": "%", "?": "_"}.get(c, f"\\{c}" if c in "%_\\" else c) for c in given)
    sides = (value.column, value.bound(pattern))
    column, bound = (f"lower({side})" for side in sides) if value.fold else sides
    return _true(f"{column} like {bound} escape '\\'")


def _matches(value: Value, given: str) -> str:
    warehouse = value.params.warehouse
    try:
        translated(given)
    except PatternError as error:
        msg = f"{value.label} is held against the regular expression {given!r}: {error}; write it without"
        raise ConfigurationError(msg) from None
    pattern = value.bound(warehouse.pattern(given))
    return _true(warehouse.matches(value.column, pattern, ignore_case=bool(value.fold)))


def _none_of(value: Value, given: tuple[Any, ...]) -> str:
    return f"not {_true(value.among(given))}"


def _between(value: Value, given: tuple[Any, Any]) -> str:
    return _true(f"{value.since(given[0])} and {value.until(given[1])}")


def _exists(value: Value, given: bool) -> str:  # noqa: FBT001 - as it is written in the project
    return f"{value.column} is {'not ' * given}null"


def _today(value: Moment | Day, given: bool) -> str:  # noqa: FBT001
    return f"{'not ' * (not given)}{_true(value.today())}"


def _between_ago(value: Moment | Day, given: tuple[timedelta, timedelta]) -> str:
    return _true(value.span(-max(given), -min(given), closed=True))


#: One per operator, in the order in which errors list them.
COMPILERS: Mapping[str, Callable[[Any, Any], str]] = {
    "is": _sign(lambda value, given: value.among((given,))),
    "is_not": lambda value, given: _none_of(value, (given,)),
    "any_of": _sign(lambda value, given: value.among(given)),
    "none_of": _none_of,
    "at_least": _sign(lambda value, given: value.since(given)),
    "at_most": _sign(lambda value, given: value.until(given)),
    "more_than": _sign(lambda value, given: value.above(given)),
    "less_than": _sign(lambda value, given: value.below(given)),
    "between": _between,
    "contains": _contains,
    "contains_any": _contains_any,
    "starts_with": _starts_with,
    "ends_with": _ends_with,
    "like": _like,
    "matches": _matches,
    "exists": _exists,
    "before": _sign(lambda value, given: value.below(given)),
    "after": _sign(lambda value, given: value.since(given)),
    "today": _today,
    "within_last": _sign(lambda value, given: value.span(-given, timedelta())),
    "before_last": _sign(lambda value, given: value.span(None, -given)),
    "between_ago": _between_ago,
    "within_next": _sign(lambda value, given: value.span(timedelta(), given)),
    "after_next": _sign(lambda value, given: value.span(given, None)),
}
