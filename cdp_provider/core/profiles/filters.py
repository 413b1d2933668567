# SPDX-License-Identifier: Apache-2.0
"""Comparisons and filters of a project as SQL that is never NULL: true or false for every row."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from math import isfinite
from typing import TYPE_CHECKING, Any, NamedTuple

from cdp_provider.core.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cdp_provider.core.project.conditions import Comparison, Filter
    from cdp_provider.core.project.streams import Stream
    from cdp_provider.core.warehouse import Warehouse

_MAX_INTEGER = 2**63
_MAX_DECIMAL = Decimal(10) ** 22
_SMALLEST = Decimal("0.000001")

#: Which operators a column of each type understands.
_ANY = frozenset({"exists"})
_EQUAL = _ANY | {"is", "is_not", "any_of", "none_of"}
_ORDER = _EQUAL | {"at_least", "at_most", "more_than", "less_than", "between"}
OPERATORS_BY_TYPE: Mapping[str, frozenset[str]] = {
    "string": _ORDER | {"contains", "starts_with", "ends_with"},
    "integer": _ORDER,
    "number": _ORDER,
    "decimal": _ORDER,
    "boolean": _EQUAL,
    "date": _ORDER | {"before", "after", "within_last"},
    "timestamp": _ORDER | {"before", "after", "within_last"},
    "json": _ANY,
}


class Query(NamedTuple):
    """A statement, and the values that it binds by name."""

    sql: str
    params: Mapping[str, Any]


class Params:
    """The values of one statement, collected while its text is written.

    Equal values share one name, so equal conditions become equal text.

    :param now: the end of the window; every relative date counts from it.
    """

    def __init__(self, warehouse: Warehouse, now: datetime) -> None:
        self.warehouse = warehouse
        self.now = now
        self._values: dict[str, Any] = {}
        self._names: dict[tuple[str, Any], str] = {}

    def bind(self, value: Any, kind: str) -> str:
        """SQL for `value` as the project's column type `kind`."""
        name = self._names.setdefault((kind, value), f"p{len(self._names)}")
        self._values[name] = value
        return f"cast(:{name} as {self.warehouse.types[kind]})"

    def moment(self, ago: timedelta = timedelta()) -> str:
        """SQL for now, or for so long before it."""
        try:
            return self.bind(self.now - ago, "timestamp")
        except OverflowError:
            return self.bind(datetime.min.replace(tzinfo=UTC), "timestamp")

    def query(self, sql: str) -> Query:
        """The finished statement."""
        return Query(sql, dict(self._values))


def compile_filter(where: Filter, stream: Stream, params: Params) -> list[str]:
    """The conditions on a stream's columns, each as SQL over unqualified quoted column names.

    :raises ConfigurationError: a column does not exist, or an operator or value does not suit its type.
    """
    found = []
    for name, comparison in where.items():
        column = stream.columns.get(name)
        if column is None:
            msg = f"a filter names the column {name!r}, which the stream {stream.ref} does not have"
            raise ConfigurationError(msg)
        quoted = params.warehouse.quote(name)
        found.append(compile_comparison(quoted, column.type, comparison, params, f"{stream.ref}.{name}"))
    return found


def within_last(time: str, duration: timedelta, params: Params) -> str:
    """SQL: from now minus the duration (included) to now (excluded); NULL for a row without a time."""
    return f"{time} >= {params.moment(duration)} and {time} < {params.moment()}"


def compile_comparison(column: str, kind: str, comparison: Comparison, params: Params, label: str) -> str:
    """SQL that is true where every operator of `comparison` holds and false elsewhere, never NULL.

    :param column: SQL of the value.
    :param kind: its column type.
    :param label: what to call it in an error.
    :raises ConfigurationError: an operator or a value does not suit the type.
    """
    operators = comparison.operators()
    if wrong := sorted(set(operators) - OPERATORS_BY_TYPE[kind]):
        fitting = ", ".join(name for name in _COMPILERS if name in OPERATORS_BY_TYPE[kind])
        msg = f"{label} is of type {kind} and cannot be compared by {', '.join(wrong)}; use one of {fitting}"
        raise ConfigurationError(msg)
    value = _Value(column, kind, params, label)
    return "(" + " and ".join(_COMPILERS[name](value, given) for name, given in operators.items()) + ")"


class _Value:
    """The left side of a comparison, and how constants become its right side."""

    def __init__(self, column: str, kind: str, params: Params, label: str) -> None:
        self.column, self.kind, self.params, self.label = column, kind, params, label

    def against(self, *constants: Any) -> tuple[str, ...]:
        """SQL of the value and of each constant, in a type that holds them all."""
        # A date is the midnight, UTC, that it begins with; so all dates are compared as moments.
        kind = "timestamp" if self.kind == "date" else self.kind
        plain = [_READERS[kind](constant, self.label) for constant in constants]
        if kind == "integer" and any(isinstance(constant, Decimal) for constant in plain):
            kind = "decimal"
        # The session's time zone is UTC, which a cast from date to timestamp takes.
        wider = f"cast({self.column} as {self.params.warehouse.types[kind]})"
        bound = (self.params.bind(constant, kind) for constant in plain)
        return (self.column if kind == self.kind else wider), *bound

    def ordered(self, *constants: Any) -> tuple[str, ...]:
        """As :meth:`against`; texts in the order of their code points, whatever the database's locale."""
        column, *bound = self.against(*constants)
        return f'{column} collate "C"' if self.kind == "string" else column, *bound


def _text(given: Any, label: str) -> str:
    if not isinstance(given, str):
        raise _mismatch(given, label, "a text; put it in quotes")
    if "\x00" in given:
        raise _mismatch(given, label, "a text without NUL characters")
    return given


def _exact(given: Any, label: str) -> int | Decimal:
    """A whole number as int, any other as Decimal."""
    _number(given, label)
    exact = Decimal(repr(given)) if isinstance(given, float) else Decimal(given)
    if exact == exact.to_integral_value() and abs(exact) < _MAX_INTEGER:
        return int(exact)
    if abs(exact) >= _MAX_DECIMAL or exact != exact.quantize(_SMALLEST):
        raise _mismatch(given, label, "a number with at most 22 digits before and 6 behind the point")
    return exact


def _decimal(given: Any, label: str) -> Decimal:
    return Decimal(_exact(given, label))


def _number(given: Any, label: str) -> float:
    if not isinstance(given, bool) and isinstance(given, int | float | Decimal):
        with suppress(OverflowError):
            if isfinite(number := float(given)):
                return number
    raise _mismatch(given, label, "a finite number, without quotes")


def _boolean(given: Any, label: str) -> bool:
    if not isinstance(given, bool):
        raise _mismatch(given, label, "true or false")
    return given


def _moment(given: Any, label: str) -> datetime:
    """A date is its first moment; without a time zone it is UTC."""
    if isinstance(given, str):
        try:
            given = datetime.fromisoformat(given)
        except ValueError:
            raise _mismatch(given, label, "a date or a moment, such as 2026-01-31T12:00:00Z") from None
    if isinstance(given, datetime):
        return given.replace(tzinfo=UTC) if given.tzinfo is None else given.astimezone(UTC)
    if isinstance(given, date):
        return datetime(given.year, given.month, given.day, tzinfo=UTC)
    raise _mismatch(given, label, "a date or a moment, such as 2026-01-31T12:00:00Z")


def _mismatch(given: Any, label: str, wanted: str) -> ConfigurationError:
    return ConfigurationError(f"{label} is compared with {given!r}; it wants {wanted}")


_READERS: Mapping[str, Callable[[Any, str], Any]] = {
    "string": _text,
    "integer": _exact,
    "number": _number,
    "decimal": _decimal,
    "boolean": _boolean,
    "timestamp": _moment,
}


def _is(value: _Value, given: Any) -> str:
    column, bound = value.against(given)
    return f"coalesce({column} = {bound}, false)"


def _is_not(value: _Value, given: Any) -> str:
    column, bound = value.against(given)
    return f"coalesce({column} <> {bound}, true)"


def _any_of(value: _Value, given: Any) -> str:
    column, *bound = value.against(*given)
    return f"coalesce({column} in ({', '.join(bound)}), false)" if bound else "false"


def _none_of(value: _Value, given: Any) -> str:
    return f"not {_any_of(value, given)}"


def _ordering(symbol: str) -> Callable[[_Value, Any], str]:
    def compile_it(value: _Value, given: Any) -> str:
        column, bound = value.ordered(given)
        return f"coalesce({column} {symbol} {bound}, false)"

    return compile_it


def _between(value: _Value, given: Any) -> str:
    column, low, high = value.ordered(*given)
    return f"coalesce({column} >= {low} and {column} <= {high}, false)"


def _contains(value: _Value, given: Any) -> str:
    column, bound = value.against(given)
    return f"coalesce(strpos(lower({column}), lower({bound})) > 0, false)"


def _starts_with(value: _Value, given: Any) -> str:
    column, bound = value.against(given)
    return f"coalesce(starts_with(lower({column}), lower({bound})), false)"


def _ends_with(value: _Value, given: Any) -> str:
    column, bound = value.against(given)
    return f"coalesce(right(lower({column}), length(lower({bound}))) = lower({bound}), false)"


def _exists(value: _Value, given: Any) -> str:
    return f"{value.column} is {'not ' * given}null"


def _within_last(value: _Value, given: timedelta) -> str:
    (column,) = value.against()
    return f"coalesce({within_last(column, given, value.params)}, false)"


#: One per operator, in the order in which errors list them.
_COMPILERS: Mapping[str, Callable[[_Value, Any], str]] = {
    "is": _is,
    "is_not": _is_not,
    "any_of": _any_of,
    "none_of": _none_of,
    "at_least": _ordering(">="),
    "at_most": _ordering("<="),
    "more_than": _ordering(">"),
    "less_than": _ordering("<"),
    "between": _between,
    "contains": _contains,
    "starts_with": _starts_with,
    "ends_with": _ends_with,
    "exists": _exists,
    "before": _ordering("<"),
    "after": _ordering(">="),
    "within_last": _within_last,
}
