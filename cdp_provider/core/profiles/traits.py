# SPDX-License-Identifier: Apache-2.0
"""Traits that are computed from a profile's rows in one stream."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cdp_provider.core.exceptions import ConfigurationError
from cdp_provider.core.project.conditions import Window

if TYPE_CHECKING:
    from cdp_provider.core.profiles.facts import Facts
    from cdp_provider.core.project.profiles import Trait


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
    return ask(function, trait.column, nulls=trait.nulls, limit=trait.limit)
