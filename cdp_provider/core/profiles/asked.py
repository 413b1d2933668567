# SPDX-License-Identifier: Apache-2.0
"""From what is asked of a profile's rows to the parts that answer it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cdp_provider.core.profiles.parts import MILLIONTHS, Part, Parts, exact, within
from cdp_provider.core.profiles.values import Stated

if TYPE_CHECKING:
    from datetime import timedelta

    from cdp_provider.core.profiles.relations import Relations
    from cdp_provider.core.profiles.values import Values


@dataclass(frozen=True)
class Asked:
    """Rows of a stream that fulfil conditions, and what is made of them: SQL of a value of each profile.

    :param moving: the conditions depend on now otherwise than by the window.
    """

    relations: Relations
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

    def of_column(self, function: str, column: str, kind: str, nulls: str, limit: int) -> str:
        """Of a column's values; :meth:`Facts.ask` says which functions there are."""
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
                return self.relations.params.warehouse.usual_order(found) if kind == "string" else found
            case "distinct_count" | "most_frequent" | "list":
                values = self._values(column, kind, valued)
                if function == "list":
                    return values.most_recent(limit)
                return values.most_frequent() if function == "most_frequent" else values.distinct()
            case "first" | "last" | "first_order" | "last_order":
                return self._extreme(function, column, kind, valued)
        msg = f"there is no function {function}"
        raise ValueError(msg)

    def _values(self, column: str, kind: str, valued: tuple[str, ...]) -> Values:
        where = (*self.where, *valued)
        if self.last is not None:
            where = (*where, within(self.last, self.relations.params))
        stated = [Stated(self.ref, column, where)]
        return self.relations.values(stated, kind, last=self.last, always=self.moving)

    def _sum(self, function: str, column: str, kind: str, valued: tuple[str, ...]) -> str:
        added = exact(column, kind)
        counted = (f"{added} is not null",) if kind == "number" else valued
        total, values = self._part("sum", column, kind, valued), self._part("count", where=counted)
        types = self.relations.params.warehouse.types
        if kind == "number":
            total = f"(cast({total} as {types['number']}) / {MILLIONTHS})"
        if function == "average":
            return f"(cast({total} as {types['number']}) / nullif({values}, 0))"
        return f"case when {values} > 0 then cast({total} as {types[kind]}) end"

    def _extreme(self, function: str, column: str, kind: str, valued: tuple[str, ...]) -> str:
        which, _, order = function.partition("_")
        name = "oldest" if which == "first" else "newest"
        if order:
            name, column, kind = f"{name}_order", "", ""
        if self.last is None or name.startswith("oldest"):
            return self._part(name, column, kind, valued)
        # The newest row leaves a window last of all, so nothing but its own time decides whether one is left.
        anytime = Asked(self.relations, self.ref, self.where, None, self.moving)
        found = anytime._part(name, column, kind, valued)
        time = anytime._part("max", '"_time"', "timestamp", valued)
        return f"case when {time} >= {self.relations.params.moment(self.last)} then {found} end"

    def _newest_time(self) -> str:
        anytime = Asked(self.relations, self.ref, self.where, None, self.moving)
        time = anytime._part("max", '"_time"', "timestamp")
        if self.last is None:
            return time
        return f"case when {time} >= {self.relations.params.moment(self.last)} then {time} end"

    def _part(self, function: str, value: str = "", kind: str = "", where: tuple[str, ...] = ()) -> str:
        part = Part(function, value, kind, (*self.where, *where), self.last)
        if self.moving:
            return self._computed_anew(part)
        totals = self.relations.totals_of(self.ref, continued=part.continued)
        return f"{totals.relation}.{totals.parts.column(part)}"

    def _computed_anew(self, part: Part) -> str:
        """A part whose conditions move with now: no row tells when it comes or goes."""
        parts = Parts(self.relations.params)
        column = parts.column(part)
        rows = self.relations.rows(self.ref)
        return f"{self.relations.relation(parts.of_rows(rows), [self.ref], always=True)}.{column}"
