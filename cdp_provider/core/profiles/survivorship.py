# SPDX-License-Identifier: Apache-2.0
"""Survivorship: of the values that sources state for one field of a profile, the one that counts.

A statement is newer than another when its row's time is later (a row without a time is the oldest), then when
it arrived in a later load, then when its source stands earlier in the field's list, then by batch and place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdp_provider.core.exceptions import ConfigurationError
from cdp_provider.core.profiles.values import Stated

if TYPE_CHECKING:
    from cdp_provider.core.profiles.facts import Facts
    from cdp_provider.core.project.profiles import FieldFrom, ProfileField


def field_sql(name: str, field: ProfileField, facts: Facts) -> str:
    """SQL of a field, where the facts are joined.

    :raises ConfigurationError: a source does not exist, or is of another type than the first.
    """
    kinds = [_kind(name, source, facts) for source in field.sources]
    if len(set(kinds)) > 1:
        first = field.sources[0]
        given = ", ".join(f"{s.stream}.{s.column} is {k}" for s, k in zip(field.sources, kinds, strict=True))
        msg = (
            f"the field {name} has the type of {first.stream}.{first.column}, but {given}; declare them alike"
        )
        raise ConfigurationError(msg)
    sources = _Sources(field, facts, kinds[0])
    match field.keep:
        case "most_recent":
            return sources.winner(oldest=False)
        case "first":
            return sources.winner(oldest=True)
        case "source_priority":
            return sources.by_priority()
        case "most_frequent" | "list":
            return sources.of_values(field.keep, field.limit)
        case "min" | "max":
            return sources.extreme(field.keep)
        case "sum" | "average":
            return sources.sum(field.keep)
        case "any" | "all":
            return sources.boolean(field.keep)
    msg = f"the field {name} is kept by {field.keep}, which is no rule between sources"
    raise ConfigurationError(msg)


def _kind(name: str, source: FieldFrom, facts: Facts) -> str:
    stream = facts.stream(source.stream)
    if source.column not in stream.columns:
        msg = (
            f"the field {name} comes from {source.stream}.{source.column}, and the stream has no such column;"
            f" it has {', '.join(stream.columns)}"
        )
        raise ConfigurationError(msg)
    return stream.columns[source.column].type


class _Sources:
    """The sources of one field."""

    def __init__(self, field: ProfileField, facts: Facts, kind: str) -> None:
        self._field, self._facts, self._kind = field, facts, kind
        self._nulls = "keep" if field.empty == "keep" else "empty"

    def winner(self, *, oldest: bool) -> str:
        """The value of the newest (or oldest) statement of all sources."""
        offers = self._offers("first" if oldest else "last")
        if len(offers) == 1:
            return offers[0][0]
        head = self._facts.params.warehouse.order_head
        better = "<" if oldest else ">"
        cases = []
        for place, (value, order) in enumerate(offers):
            unbeaten = [
                f"({other} is null or {head(order)} {better}{'=' if place < rival else ''} {head(other)})"
                for rival, (_, other) in enumerate(offers)
                if rival != place
            ]
            cases.append(f"when {order} is not null and {' and '.join(unbeaten)} then {value}")
        return f"case {' '.join(cases)} end"

    def by_priority(self) -> str:
        """The newest statement of the first source that makes one."""
        offers = self._offers("last")
        if self._nulls != "keep":
            return f"coalesce({', '.join(value for value, _ in offers)})"
        return f"case {' '.join(f'when {order} is not null then {value}' for value, order in offers)} end"

    def extreme(self, function: str) -> str:
        """The smallest or largest statement; false is smaller than true."""
        if self._kind == "boolean":
            return self.boolean("all" if function == "min" else "any")
        warehouse = self._facts.params.warehouse
        found = [self._ask(source, function) for source in self._field.sources]
        if len(found) == 1:
            return found[0]
        pick = "least" if function == "min" else "greatest"
        if self._kind == "string":
            return warehouse.usual_order(f"{pick}({', '.join(map(warehouse.byte_order, found))})")
        return f"{pick}({', '.join(found)})"

    def sum(self, function: str) -> str:
        """The sum or average of all statements."""
        counts = [self._ask(source, "count_values") for source in self._field.sources]
        values = " + ".join(counts)
        added = " + ".join(f"coalesce({self._ask(source, 'sum')}, 0)" for source in self._field.sources)
        if function == "average":
            number = self._facts.params.warehouse.types["number"]
            return f"(cast({added} as {number}) / nullif({values}, 0))"
        return f"case when {values} > 0 then {added} end"

    def boolean(self, function: str) -> str:
        """Whether any or all statements are true."""
        found = [self._ask(source, function) for source in self._field.sources]
        neutral, word = ("false", " or ") if function == "any" else ("true", " and ")
        missing = " and ".join(f"{value} is null" for value in found)
        together = word.join(f"coalesce({value}, {neutral})" for value in found)
        return f"case when not ({missing}) then ({together}) end"

    def of_values(self, keep: str, limit: int) -> str:
        """The most frequent of different values, or a list of them."""
        stated = []
        for source in self._field.sources:
            column = self._facts.column(source.stream, source.column)
            empty = (f"{column} <> ''",) if self._kind == "string" else ()
            stated.append(Stated(source.stream, column, (f"{column} is not null", *empty)))
        values = self._facts.values(stated, self._kind)
        return values.most_frequent() if keep == "most_frequent" else values.most_recent(limit)

    def _offers(self, function: str) -> list[tuple[str, str]]:
        """Each source's value, and the order of its row."""
        return [
            (self._ask(source, function), self._ask(source, f"{function}_order"))
            for source in self._field.sources
        ]

    def _ask(self, source: FieldFrom, function: str) -> str:
        return self._facts.ask(source.stream, function, source.column, nulls=self._nulls)
