# SPDX-License-Identifier: Apache-2.0
"""Comparisons and filters of a project as SQL that is never NULL: true or false for every row."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdp_provider.core.exceptions import ConfigurationError
from cdp_provider.core.profiles.comparisons import COMPILERS, Day, Members, Moment, Value
from cdp_provider.core.project.typing import element, is_list

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cdp_provider.core.profiles.params import Params
    from cdp_provider.core.project.conditions import Comparison, Filter
    from cdp_provider.core.project.streams import Stream

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
