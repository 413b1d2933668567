# SPDX-License-Identifier: Apache-2.0
"""Traits that are computed from a profile's rows in one stream."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cdp_provider.core.exceptions import ConfigurationError
from cdp_provider.core.profiles.survivorship import Stated, of_values
from cdp_provider.core.project.conditions import Window

if TYPE_CHECKING:
    from datetime import timedelta

    from cdp_provider.core.profiles.facts import Facts
    from cdp_provider.core.project.profiles import Trait

#: Types of traits that :func:`trait_sql` computes.
OF_ROWS = frozenset(
    {
        "count",
        "exists",
        "days_since_last",
        "days_since_first",
        "sum",
        "min",
        "max",
        "average",
        "distinct_count",
        "first",
        "last",
        "most_frequent",
        "list",
    }
)


def trait_sql(name: str, trait: Trait, facts: Facts) -> str:
    """SQL of a trait, where the facts are joined; its `default` is not in it.

    :raises ConfigurationError: the stream lacks what the trait needs.
    """
    ref, window = str(trait.stream), Window(within_last=trait.within_last, between=trait.between)
    ask = partial(facts.ask, ref, event=trait.event, where=trait.where, window=window)
    match trait.type:
        case "count":
            return ask("count")
        case "exists":
            return f"({ask('count')} > 0)"
        case "days_since_last" | "days_since_first":
            facts.time(ref)
            time = ask(f"{trait.type.rpartition('_')[2]}_time")
            # The difference is taken first: it is exact, whereas seconds since 1970 are rounded.
            return f"cast(floor(extract(epoch from ({facts.params.moment()} - {time})) / 86400) as bigint)"
        case "most_frequent" | "list":
            return _of_values(trait, facts, ref, window)
    known = facts.stream(ref).columns.get(str(trait.column))
    kind = known.type if known else ""
    if trait.type in ("sum", "average") and kind not in ("integer", "number", "decimal"):
        msg = (
            f"the trait {name} is the {trait.type} of {ref}.{trait.column}, which is {kind or 'not there'};"
            " it needs a column of numbers"
        )
        raise ConfigurationError(msg)
    function: str = trait.type
    if kind == "boolean" and function in ("min", "max"):
        function = "all" if function == "min" else "any"
    return ask(function, trait.column, nulls=trait.nulls)


def _of_values(trait: Trait, facts: Facts, ref: str, window: Window) -> str:
    column = facts.column(ref, str(trait.column))
    with facts.params.watched() as seen:
        between = Window(between=window.between)
        where = facts.conditions(ref, trait.where, event=trait.event, window=between)
    if trait.nulls == "ignore":
        where.append(f"{column} is not null")
    last: tuple[timedelta, ...] = ()
    if window.within_last is not None:
        where += facts.conditions(ref, {}, window=Window(within_last=window.within_last))
        last = (window.within_last,)
    stated = Stated(ref, column, tuple(where))
    return of_values(facts, [stated], trait.type, trait.limit, last=last, always=seen.relative)
