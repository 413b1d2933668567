# SPDX-License-Identifier: Apache-2.0
"""Traits that are computed from a profile's other values, and from what all profiles have of them."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

from cdp_provider.core.exceptions import ConfigurationError
from cdp_provider.core.profiles.formula import as_number, compile_formula
from cdp_provider.core.project.formula import names
from cdp_provider.core.project.problems import did_you_mean
from cdp_provider.core.project.typing import NUMERIC, TEMPORAL

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cdp_provider.core.profiles.params import Params
    from cdp_provider.core.project.profiles import Trait

#: Types of traits that :func:`derived_levels` computes.
DERIVED = frozenset({"quantile", "rfm", "ratio", "formula"})
#: Those of them whose value in one profile depends on all others.
OF_ALL = frozenset({"quantile", "rfm"})
#: A code is three digits.
_MOST_BUCKETS = 9


def needed(trait: Trait) -> tuple[str, ...]:
    """The fields and traits that a trait is computed from."""
    return trait.needs() if trait.formula is None else names(trait.formula)


def derived_levels(
    traits: Mapping[str, Trait], kinds: Mapping[str, str], params: Params
) -> list[list[tuple[str, str]]]:
    """Names and SQL of all derived traits, in levels: a trait needs what comes from levels before its own.

    The SQL reads a relation of all profiles, a column for every field and trait known so far, and may hold
    window functions over it. Its values are of the trait's type, its `default` included.

    :param traits: all traits of the project.
    :param kinds: column type of every field and trait.
    :raises ConfigurationError: traits need each other in a circle, or something that is not there or not of a
        type that suits.
    """
    derived = {name: trait for name, trait in traits.items() if trait.type in DERIVED}
    before = {name: [other for other in needed(trait) if other in derived] for name, trait in derived.items()}
    order = TopologicalSorter(before)
    try:
        order.prepare()
    except CycleError as error:
        path = " -> ".join(reversed(error.args[1]))
        msg = f"traits are computed from each other in a circle: {path}; take one of them out of the other"
        raise ConfigurationError(msg) from None
    writer = _Writer(kinds, params)
    levels = []
    while order.is_active():
        ready = set(order.get_ready())
        levels.append([(name, writer.sql(name, derived[name])) for name in derived if name in ready])
        order.done(*ready)
    return levels


class _Writer:
    """Writes derived traits as SQL over columns of profiles."""

    def __init__(self, kinds: Mapping[str, str], params: Params) -> None:
        self._kinds, self._params, self._warehouse = kinds, params, params.warehouse

    def sql(self, name: str, trait: Trait) -> str:
        """The trait's value, or its default."""
        kind = self._kinds[name]
        value = self._value(name, trait)
        if trait.type != "formula":
            value = f"cast({value} as {self._warehouse.column_type(kind)})"
        return (
            value if trait.default is None else f"coalesce({value}, {self._params.bind(trait.default, kind)})"
        )

    def _value(self, name: str, trait: Trait) -> str:
        match trait.type:
            case "quantile":
                self._kind(name, trait.of, NUMERIC | TEMPORAL)
                return self._quantile(str(trait.of), trait.buckets, descending=trait.order == "descending")
            case "rfm":
                return self._rfm(name, trait)
            case "ratio":
                of, over = (
                    as_number(
                        self._warehouse.quote(str(part)), self._kind(name, part, NUMERIC), self._warehouse
                    )
                    for part in (trait.of, trait.over)
                )
                return self._warehouse.quotient(of, over)
        quote = self._warehouse.quote
        return compile_formula(str(trait.formula), self._kinds, quote, self._params, self._kinds[name])

    def _kind(self, name: str, of: str | None, allowed: frozenset[str]) -> str:
        kind = self._kinds.get(str(of))
        if kind is None:
            hint = did_you_mean(str(of), self._kinds)
            msg = f"the trait {name} is computed from {of!r}, and there is no such field or trait; {hint}"
            raise ConfigurationError(msg)
        if kind not in allowed:
            msg = f"the trait {name} is computed from {of!r}, which is of type {kind}; it needs numbers"
            raise ConfigurationError(msg + (" or dates" if TEMPORAL <= allowed else ""))
        return kind

    def _rfm(self, name: str, trait: Trait) -> str:
        if trait.buckets > _MOST_BUCKETS:
            msg = f"the trait {name} has {trait.buckets} buckets, and each is to be one digit; take 9 at most"
            raise ConfigurationError(msg)
        digits = []
        for part, small_is_good in ((trait.recency, True), (trait.frequency, False), (trait.monetary, False)):
            self._kind(name, part, NUMERIC | TEMPORAL)
            quantile = self._quantile(str(part), trait.buckets, descending=small_is_good)
            digits.append(f"cast({quantile} as {self._warehouse.types['string']})")
        return " || ".join(digits)

    def _quantile(self, of: str, buckets: int, *, descending: bool) -> str:
        """1 + floor(buckets * s / n), where s of the n profiles with a value have a smaller (larger) one."""
        value = self._warehouse.quote(of)
        number, integer = self._warehouse.types["number"], self._warehouse.types["integer"]
        direction = " desc" * descending
        smaller = f"(rank() over (order by {value}{direction} nulls last) - 1)"
        # Exact, because both are whole numbers far below 2^53.
        share = f"cast({buckets} * {smaller} as {number}) / count({value}) over ()"
        return f"case when {value} is not null then 1 + cast(floor({share}) as {integer}) end"
