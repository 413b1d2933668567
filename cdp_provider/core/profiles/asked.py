# SPDX-License-Identifier: Apache-2.0
"""From what is asked of a profile's rows to the parts that answer it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cdp_provider.core.profiles.parts import MILLIONTHS, Part, Parts, exact

if TYPE_CHECKING:
    from datetime import timedelta

    from cdp_provider.core.profiles.facts import Facts


@dataclass(frozen=True)
class Asked:
    """Rows of a stream that fulfil conditions, and what is made of them: SQL of a value of each profile.

    :param moving: the conditions depend on now otherwise than by the window.
    """

    facts: Facts
    ref: str
    where: tuple[str, ...]
    last: timedelta | None
    moving: bool

    def of_rows(self, function: str) -> str:
        """``count``, ``first_time`` or ``last_time``."""
        if function == "count":
            return f"coalesce({self._part('count')}, 0)"
        newest = function == "last_time"
        return self._newest_time() if newest else self._part("min", '"_time"', "timestamp")

    def of_column(self, function: str, column: str, kind: str, nulls: str) -> str:
        """Of a column's values; as :meth:`Facts.ask` says."""
        if nulls == "zero":
            column = f"coalesce({column}, 0)"
        valued = () if nulls in ("keep", "zero") else (f"{column} is not null",)
        if nulls == "empty" and kind == "string":
            valued = (*valued, f"{column} <> ''")
        match function:
            case "count_values":
                return f"coalesce({self._part('count', where=valued)}, 0)"
            case "sum" | "average":
                return self._sum(function, column, kind, valued)
            case "min" | "max" | "any" | "all":
                found = self._part(function, column, kind, valued)
                return self.facts.params.warehouse.usual_order(found) if kind == "string" else found
            case "distinct_count":
                return self._distinct(column, kind, valued, missing=nulls == "keep")
            case "first" | "last":
                name = "oldest" if function == "first" else "newest"
                return self._extreme(name, column, kind, valued)
            case "first_order" | "last_order":
                name = "oldest" if function == "first_order" else "newest"
                return self._extreme(f"{name}_order", "", "", valued)
        msg = f"there is no function {function}"
        raise ValueError(msg)

    def _distinct(self, column: str, kind: str, valued: tuple[str, ...], *, missing: bool) -> str:
        found = f"coalesce({self._part('distinct', column, kind, valued)}, 0)"
        if not missing:
            return found
        nulls = self._part("count", where=(f"{column} is null",))
        return f"({found} + case when {nulls} > 0 then 1 else 0 end)"

    def _sum(self, function: str, column: str, kind: str, valued: tuple[str, ...]) -> str:
        added = exact(column, kind)
        counted = (f"{added} is not null",) if kind == "number" else valued
        total, values = self._part("sum", column, kind, valued), self._part("count", where=counted)
        types = self.facts.params.warehouse.types
        if kind == "number":
            total = f"(cast({total} as {types['number']}) / {MILLIONTHS})"
        if function == "average":
            return f"(cast({total} as {types['number']}) / nullif({values}, 0))"
        return f"case when {values} > 0 then cast({total} as {types[kind]}) end"

    def _extreme(self, name: str, column: str, kind: str, valued: tuple[str, ...]) -> str:
        if self.last is None or name.startswith("oldest"):
            return self._part(name, column, kind, valued)
        # The newest row leaves a window last of all, so nothing but its own time decides whether one is left.
        anytime = Asked(self.facts, self.ref, self.where, None, self.moving)
        found = anytime._part(name, column, kind, valued)
        time = anytime._part("max", '"_time"', "timestamp", valued)
        return f"case when {time} >= {self.facts.params.moment(self.last)} then {found} end"

    def _newest_time(self) -> str:
        anytime = Asked(self.facts, self.ref, self.where, None, self.moving)
        time = anytime._part("max", '"_time"', "timestamp")
        if self.last is None:
            return time
        return f"case when {time} >= {self.facts.params.moment(self.last)} then {time} end"

    def _part(self, function: str, value: str = "", kind: str = "", where: tuple[str, ...] = ()) -> str:
        part = Part(function, value, kind, (*self.where, *where), self.last)
        if self.moving:
            return self._computed_anew(part)
        totals = self.facts.totals_of(self.ref, continued=part.continued)
        return f"{totals.relation}.{totals.parts.column(part)}"

    def _computed_anew(self, part: Part) -> str:
        """A part whose conditions move with now: no row tells when it comes or goes."""
        parts = Parts(self.facts.params)
        column = parts.column(part)
        rows = self.facts.rows(self.ref)
        return f"{self.facts.relation(parts.of_rows(rows), [self.ref], always=True)}.{column}"
