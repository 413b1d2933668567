# SPDX-License-Identifier: Apache-2.0
"""The relations of a statement over profiles, each with the columns of the one before and some more."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence


class Expr(NamedTuple):
    """SQL over a relation's columns.

    :param level: number of the first relation that has all of them.
    """

    sql: str
    level: int = 0


def both(*parts: Expr) -> Expr:
    """All of them hold."""
    return joined(parts, "and")


def either(*parts: Expr) -> Expr:
    """One of them holds."""
    return joined(parts, "or")


def negated(part: Expr) -> Expr:
    """It does not hold."""
    return Expr(f"not {part.sql}", part.level)


def joined(parts: Sequence[Expr], word: str) -> Expr:
    """Conditions that are never null, with ``and`` or ``or`` between them."""
    if len(parts) == 1:
        return parts[0]
    return Expr(f"({f' {word} '.join(part.sql for part in parts)})", max(part.level for part in parts))


class Columns:
    """Columns that are asked for, and the number of the relation in which each can be computed.

    Relation 0 reads tables; each further one reads the one before. Names of projects never begin with an
    underscore.
    """

    def __init__(self) -> None:
        self._first: dict[str, str] = {}
        self._levels: list[dict[str, str]] = []
        self._count = 0

    def read(self, sql: str, name: str | None = None) -> Expr:
        """A column of relation 0.

        :param sql: over what relation 0 reads; equal SQL gives the same column.
        :param name: the quoted name that it must have.
        """
        if sql not in self._first:
            self._first[sql] = name or self._named()
        return Expr(self._first[sql])

    def store(self, expr: Expr) -> Expr:
        """A column of the first relation that can compute it; windows and what is used often need one."""
        while len(self._levels) <= expr.level:
            self._levels.append({})
        columns = self._levels[expr.level]
        if expr.sql not in columns:
            columns[expr.sql] = self._named()
        return Expr(columns[expr.sql], expr.level + 1)

    def relations(self, source: str) -> tuple[list[str], str]:
        """The relations as common table expressions, and the quoted name of the last one.

        :param source: SQL behind ``from`` of relation 0, where ``p`` is the table of profiles.
        """
        chosen = ["p.profile_id", *(f"{sql} as {name}" for sql, name in self._first.items())]
        below = '"_facts"'
        found = [f"{below} as (select {', '.join(chosen)} from {source})"]
        for number, columns in enumerate(self._levels, start=1):
            computed = ", ".join(f"{sql} as {name}" for sql, name in columns.items())
            # Without a barrier a planner may write a shared column's SQL out wherever it is referred to.
            barrier = "materialized " if number < len(self._levels) else ""
            found.append(f'"_level_{number}" as {barrier}(select *, {computed} from {below})')
            below = f'"_level_{number}"'
        return found, below

    def _named(self) -> str:
        self._count += 1
        return f'"_c{self._count}"'
