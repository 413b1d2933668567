# SPDX-License-Identifier: Apache-2.0
"""Conditions on rows that a project brings along, and why none of them could be computed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdp_provider.core.project.own_sql import filled, places, sql_fault

if TYPE_CHECKING:
    from collections.abc import Mapping

#: What the parser holds the types of columns as.
_TYPES = {
    "string": "varchar",
    "integer": "bigint",
    "number": "double",
    "decimal": "decimal(28, 6)",
    "boolean": "boolean",
    "date": "date",
    "timestamp": "timestamp with time zone",
    "json": "varchar",
}


def expression_fault(sql: str) -> str | None:
    """Why a text is no condition on the columns of a row, as far as any engine's SQL tells; None if it may be
    one."""
    if fault := sql_fault(f"select {sql}"):
        return fault
    if not condition(sql):
        return "it is empty"
    if found := places(sql):
        return f"there is no place {{{found[0]}}} in it: it sees one row; write a 'query' instead"
    if filled(sql, str, "") != filled(sql, str, ":now"):
        return "it knows no :now; write a 'query' instead"
    return None


def condition(sql: str) -> str:
    """The expression alone, without comments, to stand in parentheses."""
    return filled(sql, str, "null")


def unbound(conditions: Mapping[int, str], types: Mapping[str, str]) -> dict[int, str]:
    """Why DuckDB cannot compute conditions over columns of these types, for those that it cannot.

    :param conditions: number -> expression, without fault by :func:`expression_fault`.
    :param types: name -> column type.
    """
    if not conditions:
        return {}
    import duckdb

    faults = {}
    columns = ", ".join(f'cast(null as {_TYPES[kind]}) as "{name}"' for name, kind in types.items())
    with duckdb.connect(":memory:") as engine:
        for number, sql in conditions.items():
            try:
                engine.execute(
                    f"select coalesce(try(coalesce(({condition(sql)}), true)), false)"
                    f" from (select {columns}) as _row limit 0"
                )
            except duckdb.Error as error:
                faults[number] = " ".join(str(error).split("\n\n")[0].split("\nLINE ")[0].split())[:300]
    return faults
