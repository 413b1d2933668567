# SPDX-License-Identifier: Apache-2.0
"""What is kept of a profile's rows in one stream: the parts that its traits are put together from.

A part is one aggregate. Most can be continued: parts of two sets of rows give the part of both together, and
counts and sums can be taken back for rows that leave a window. So a run adds what is new to what it kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from cdp_provider.core.profiles.params import Params

#: Aggregates that add up, of which rows can be taken back.
_SUMS = frozenset({"count", "sum"})
_CONTINUED = _SUMS | {"min", "max", "any", "all", "newest", "newest_order", "oldest", "oldest_order"}

#: Numbers are added up as whole millionths: exactly, whatever the order of rows.
MILLIONTHS = 1_000_000
_LARGEST = "1e12"


@dataclass(frozen=True)
class Part:
    """One aggregate over those rows of a profile that fulfil all conditions.

    :param function: ``count``, ``sum``, ``min``, ``max``, ``any``, ``all``; ``newest`` and
        ``oldest`` value by the rows' order, ``newest_order`` and ``oldest_order`` that order itself.
    :param value: SQL over the rows' columns; empty for ``count``.
    :param kind: its column type.
    :param where: SQL conditions that do not depend on now.
    :param last: only rows from now minus so long to now.
    """

    function: str
    value: str = ""
    kind: str = ""
    where: tuple[str, ...] = ()
    last: timedelta | None = None

    @property
    def continued(self) -> bool:
        """Whether a run can go on from what it was before."""
        return self.function in (_CONTINUED if self.last is None else _SUMS)

    def order(self) -> Part:
        """Of ``newest`` or ``oldest``: the part that says which row it is."""
        return Part(f"{self.function}_order", "", "", self.where, self.last)


def within(last: timedelta, params: Params) -> str:
    """SQL: a row's time lies in the window that ends now. Rows at or after now are no rows yet."""
    return f'"_time" >= {params.moment(last)}'


class Parts:
    """The parts that are asked of one stream, as columns of one relation with a line per profile."""

    def __init__(self, params: Params) -> None:
        self._params = params
        self.columns: dict[Part, str] = {}

    def column(self, part: Part) -> str:
        """The quoted column that holds a part."""
        if part.function in ("newest", "oldest"):
            self.column(part.order())
        return self.columns.setdefault(part, f'"c{len(self.columns)}"')

    def windows(self) -> set[timedelta]:
        """The lengths of windows that end now."""
        return {part.last for part in self.columns if part.last is not None}

    def of_rows(self, rows: str) -> str:
        """A select: ``_profile_id`` and every part, over a relation of rows."""
        windows = [part.last for part in self.columns]
        widest = max((last for last in windows if last is not None), default=None)
        if widest is not None and None not in windows:
            # No part is made of older rows, and they need not be read.
            rows = f"(select * from {rows} w where {within(widest, self._params)})"
        return self._grouped(rows, self._aggregate)

    def of_changes(self, rows: str, before: dict[timedelta, str]) -> str:
        """A select: what rows add to the parts, and take back where they left a window.

        :param rows: new rows, for which ``_fresh`` is true, and others.
        :param before: SQL of the beginning of each window as it was at the run before.
        """

        def change(part: Part, flag: str) -> str:
            if part.last is None:
                return self._aggregate(part, f"{flag} and _fresh")
            added = self._aggregate(part, f"{flag} and _fresh")
            start = self._params.moment(part.last)
            gone = f'not _fresh and "_time" >= {before[part.last]} and "_time" < {start}'
            conditions = " and ".join((*part.where, gone))
            return f"{added} - {self._aggregate(part, f'({conditions})')}"

        return self._grouped(rows, change)

    def together(self, parts: str) -> str:
        """A select: parts of the same profiles as one line each."""
        chosen = [
            '"_profile_id"',
            *(f"{self._merged(part)} as {name}" for part, name in self.columns.items()),
        ]
        return f'select {", ".join(chosen)} from {parts} group by "_profile_id"'

    def _grouped(self, rows: str, aggregate: Callable[[Part, str], str]) -> str:
        flags: dict[str, str] = {}
        chosen = ['"_profile_id"']
        for part, name in self.columns.items():
            conditions = [*part.where, *([within(part.last, self._params)] if part.last else [])]
            text = " and ".join(conditions) or "true"
            flag = flags.setdefault(text, "true" if text == "true" else f'"_f{len(flags)}"')
            chosen.append(f"{aggregate(part, flag)} as {name}")
        named = "".join(f", ({text}) as {flag}" for text, flag in flags.items() if flag != "true")
        return f'select {", ".join(chosen)} from (select *{named} from {rows}) r group by "_profile_id"'

    def _aggregate(self, part: Part, flag: str) -> str:
        warehouse = self._params.warehouse
        only = "" if flag == "true" else f" filter (where {flag})"
        match part.function:
            case "count":
                return f"count(*){only}"
            case "sum":
                return f"coalesce(sum({exact(part.value, part.kind)}){only}, 0)"
            case "min" | "max":
                return f"{part.function}({self._ordered(part.value, part.kind)}){only}"
            case "any" | "all":
                return f"bool_{'or' if part.function == 'any' else 'and'}({part.value}){only}"
            case "newest_order" | "oldest_order":
                return f'{"max" if part.function == "newest_order" else "min"}("_order"){only}'
        newest = part.function == "newest"
        return warehouse.latest(part.value, part.kind, '"_order"', flag, oldest=not newest)

    def _merged(self, part: Part) -> str:
        name = self.columns[part]
        match part.function:
            case "count" | "sum":
                return f"sum({name})"
            case "min" | "max":
                return f"{part.function}({self._ordered(name, part.kind)})"
            case "any" | "all":
                return f"bool_{'or' if part.function == 'any' else 'and'}({name})"
            case "newest_order":
                return f"max({name})"
            case "oldest_order":
                return f"min({name})"
            case "newest" | "oldest":
                order = self.columns[part.order()]
                return self._params.warehouse.latest(
                    name, part.kind, order, f"{order} is not null", oldest=part.function == "oldest"
                )
        msg = f"parts of the function {part.function} cannot be put together"
        raise ValueError(msg)

    def _ordered(self, value: str, kind: str) -> str:
        return self._params.warehouse.byte_order(value) if kind == "string" else value


def exact(value: str, kind: str) -> str:
    """SQL of a number in a type that adds up exactly; NULL for one that has no place in it."""
    if kind != "number":
        return value
    rounded = f"cast(floor({value} * {MILLIONTHS}.0 + 0.5) as bigint)"
    return f"case when abs({value}) < {_LARGEST} then {rounded} end"
