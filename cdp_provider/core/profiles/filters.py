# SPDX-License-Identifier: Apache-2.0
"""Comparisons and filters of a project as SQL that is never NULL: true or false for every row."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple
from zoneinfo import ZoneInfo

from cdp_provider.core.exceptions import ConfigurationError
from cdp_provider.core.profiles.comparisons import COMPILERS, Day, Members, Moment, Value
from cdp_provider.core.profiles.days import EARLIEST, LATEST
from cdp_provider.core.project.typing import element, is_list

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from cdp_provider.core.project.conditions import Comparison, Filter
    from cdp_provider.core.project.streams import Stream
    from cdp_provider.core.warehouse import Warehouse

#: Which operators a column of each type understands.
_ANY = frozenset({"exists"})
_EQUAL = _ANY | {"is", "is_not", "any_of", "none_of"}
_ORDER = _EQUAL | {"at_least", "at_most", "more_than", "less_than", "between"}
_TEXT = frozenset({"contains", "contains_any", "starts_with", "ends_with", "like", "matches"})
_FROM_NOW = frozenset({"today", "within_last", "before_last", "between_ago", "within_next", "after_next"})
OPERATORS_BY_TYPE: Mapping[str, frozenset[str]] = {
    "string": _ORDER | _TEXT,
    "integer": _ORDER,
    "number": _ORDER,
    "decimal": _ORDER,
    "boolean": _EQUAL,
    "date": _ORDER | {"before", "after"} | _FROM_NOW,
    "timestamp": _ORDER | {"before", "after"} | _FROM_NOW,
    "json": _ANY,
    "list": _ANY | {"contains", "contains_any"},
}

_VALUES: Mapping[str, type[Value]] = {"timestamp": Moment, "date": Day}


class Query(NamedTuple):
    """A statement, and the values that it binds by name."""

    sql: str
    params: Mapping[str, Any]


@dataclass
class Watch:
    """Whether what was written meanwhile depends on now."""

    relative: bool = False


class Params:
    """The values of one statement, collected while its text is written.

    Equal values share one name, so equal conditions become equal text. A value that follows from now has a
    name of its own, though a constant may be equal to it by chance.

    :param now: the end of the window; every relative date counts from it.
    :param zone: name of the time zone in which dates are days.
    """

    def __init__(self, warehouse: Warehouse, now: datetime, zone: str = "UTC") -> None:
        self.warehouse = warehouse
        self.now = now
        self.zone = ZoneInfo(zone)
        self._values: dict[str, Any] = {}
        self._meanings: dict[str, str] = {}
        self._names: dict[tuple[str, Any], str] = {}
        self._watches: list[Watch] = []

    def bind(self, value: Any, kind: str) -> str:
        """SQL for `value` as the project's column type `kind`."""
        # repr tells apart what Python holds equal: 1 and 1.0, 0.0 and -0.0.
        return self._bound(value, kind, repr(value))

    def relative(self, value: Any, kind: str, meaning: str) -> str:
        """As :meth:`bind`, for a value that follows from now; `meaning` says how."""
        for watch in self._watches:
            watch.relative = True
        return self._bound(value, kind, f"now: {meaning}")

    def moment(self, ago: timedelta = timedelta()) -> str:
        """SQL for now, or for so long before it."""
        return self.relative(self.at(ago), "timestamp", str(ago))

    def at(self, ago: timedelta) -> datetime:
        """So long before now, or as long as can be said."""
        try:
            return self.now - ago
        except OverflowError:
            return EARLIEST if ago > timedelta() else LATEST

    @contextmanager
    def watched(self) -> Iterator[Watch]:
        """Tells whether what is written within depends on now."""
        watch = Watch()
        self._watches.append(watch)
        try:
            yield watch
        finally:
            self._watches.pop()

    def meaning(self, name: str) -> str:
        """What a name stands for, in words that stay the same from run to run."""
        return self._meanings[name]

    def query(self, sql: str) -> Query:
        """The finished statement."""
        return Query(sql, dict(self._values))

    def _bound(self, value: Any, kind: str, meaning: str) -> str:
        name = self._names.setdefault((kind, meaning), f"p{len(self._names)}")
        self._values[name] = value
        self._meanings[name] = f"{kind} {meaning}"
        return f"cast(:{name} as {self.warehouse.types[kind]})"


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
    :param kind: its column type, or ``list of`` one.
    :param label: what to call it in an error.
    :raises ConfigurationError: an operator or a value does not suit the type.
    """
    operators = comparison.operators()
    allowed = OPERATORS_BY_TYPE["list" if is_list(kind) else kind]
    if wrong := sorted(set(operators) - allowed):
        fitting = ", ".join(name for name in COMPILERS if name in allowed)
        msg = f"{label} is of type {kind} and cannot be compared by {', '.join(wrong)}; use one of {fitting}"
        raise ConfigurationError(msg)
    left = Members if is_list(kind) else _VALUES.get(kind, Value)
    value = left(column, element(kind), params, label, fold=comparison.ignore_case)
    return "(" + " and ".join(COMPILERS[name](value, given) for name, given in operators.items()) + ")"
