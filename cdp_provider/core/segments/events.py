# SPDX-License-Identifier: Apache-2.0
"""How often something happened, or what it came to: conditions on a profile's rows in one stream."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cdp_provider.core.exceptions import ConfigurationError
from cdp_provider.core.profiles.filters import compile_comparison
from cdp_provider.core.project.conditions import Comparison

if TYPE_CHECKING:
    from collections.abc import Callable

    from cdp_provider.core.profiles.facts import Facts
    from cdp_provider.core.project.conditions import EventCount

#: Type of what is measured, where it is not that of the column.
_TYPES = {"average": "number", "distinct_count": "integer"}


def event_sql(condition: EventCount, facts: Facts, column: Callable[[str], str]) -> str:
    """SQL that is true or false for every profile.

    :param column: makes a column of SQL that :meth:`Facts.ask` gave.
    :raises ConfigurationError: the stream lacks what the condition asks, or a bound is missing.
    """
    ask = partial(facts.ask, condition.stream, event=condition.event, where=condition.where, window=condition)
    bounds = {
        "is_": condition.exactly,
        "at_least": condition.at_least,
        "at_most": condition.at_most,
        "more_than": condition.more_than,
        "less_than": condition.less_than,
    }
    given = {operator: bound for operator, bound in bounds.items() if bound is not None}
    measure = condition.measure()
    if measure is None:
        value, kind = ask("count"), "integer"
        given = given or {"at_least": 1}
        label = f"the number of {condition.stream}"
    else:
        function, name = measure
        value = ask(function, name)
        kind = _TYPES.get(function) or facts.stream(condition.stream).columns[name].type
        label = f"the {function} of {condition.stream}.{name}"
        if not given:
            msg = f"a condition measures {label} and holds it against nothing; add a bound such as at_least"
            raise ConfigurationError(msg)
    return compile_comparison(column(value), kind, Comparison(**given), facts.params, label)
