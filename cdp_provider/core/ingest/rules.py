# SPDX-License-Identifier: Apache-2.0
"""A contract's conditions on rows, one by one and taken together; the former as SQL of any engine."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any

import duckdb

from cdp_provider.core.project.constants import convert
from cdp_provider.core.project.contract import (
    OF_A_ROW,
    ColumnRule,
    QueryRule,
    RowsRule,
    SqlRule,
    UniqueRule,
)
from cdp_provider.core.project.expressions import condition
from cdp_provider.core.warehouse import DuckDBWarehouse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cdp_provider.core.project.contract import Conditions, Severity, Tolerance
    from cdp_provider.core.project.streams import Stream
    from cdp_provider.core.warehouse import Warehouse

#: The parser's dialect; nothing is ever opened.
_PARSER = DuckDBWarehouse(duckdb.connect)
#: Longest stretch of a bad value that a reason quotes.
_SHOWN = 60
#: What stands for the value where a reason is told outside of the quarantine.
MASK = "…"


@dataclass(frozen=True)
class RowCheck:
    """One condition on single rows.

    :param name: tells the stream's rules apart: ``total.min``.
    :param kind: ``required``, ``pattern``, ``min``, ``max``, ``min_length``, ``max_length``, ``values``,
        ``sql``.
    :param column: None for ``sql``.
    :param type: of the column.
    :param value: what the project says, in the column's type; the expression of ``sql``.
    :param limits: how many rows may break it; with severity ``quarantine`` only where that is said.
    """

    name: str
    kind: str
    column: str | None
    type: str
    value: Any
    severity: Severity
    limits: Tolerance

    def bad(self, warehouse: Warehouse) -> str:
        """SQL condition over the stream's columns: true for a row that breaks it, else false or null."""
        if self.column is None:
            return f"not ({condition(self.value)})"
        return _broken(warehouse, self.kind, self.type, warehouse.quote(self.column), self.value)

    def told(self) -> str:
        """What is wrong with a row that breaks it; :data:`MASK` stands for the value."""
        if self.column is None:
            return f'rule "{self.name}" is broken'
        if self.kind == "required":
            return f'required column "{self.column}" is missing'
        return f'column "{self.column}": {MASK} {_complaint(self.kind, self.value)}'


def row_faults(stream: Stream) -> list[tuple[str, str]]:
    """What sets a row aside beyond missing keys, missing required columns and wrong types.

    :returns: pairs of DuckDB's SQL over the stream's columns, by their names and typed: a condition, true for
        a bad row and never null; and the reason, a text that may quote the value. A deleted row has to keep
        none of these conditions: leave it out.
    """
    return [
        (_never_null(check), _reason(check)) for check in row_checks(stream) if check.severity == "quarantine"
    ]


def row_checks(stream: Stream) -> list[RowCheck]:
    """All conditions on single rows, but for ``required`` of the columns themselves: those and the types are
    the parser's own."""
    return [*_of_columns(stream), *_of_rules(stream)]


def _of_columns(stream: Stream) -> Iterator[RowCheck]:
    for name, column in stream.columns.items():
        severity = column.severity or "quarantine"
        for kind, value in column.given().items():
            if kind in OF_A_ROW:
                typed = _typed(kind, value, column.type)
                yield RowCheck(f"{name}.{kind}", kind, name, column.type, typed, severity, column)


def _of_rules(stream: Stream) -> Iterator[RowCheck]:
    for rule in stream.contract.rules:
        if isinstance(rule, SqlRule):
            yield RowCheck(rule.name, "sql", None, "", rule.sql, rule.severity, rule)
        elif isinstance(rule, ColumnRule):
            ((kind, value),) = rule.given().items()
            if kind in ("required", *OF_A_ROW):
                name, column = rule.name or f"{rule.column}.{kind}", stream.columns[rule.column]
                typed, severity = _typed(kind, value, column.type), rule.severity or "quarantine"
                yield RowCheck(name, kind, rule.column, column.type, typed, severity, rule)


@dataclass(frozen=True)
class BatchCheck:
    """A condition that only a whole batch can tell.

    :param columns: that are unique together, or the one that refers.
    :param target: ``source.stream.column`` that it refers to; None for ``unique``.
    """

    name: str
    columns: tuple[str, ...]
    severity: Severity
    limits: Tolerance
    target: str | None = None


def batch_checks(stream: Stream) -> list[BatchCheck]:
    """All that has to be unique, and all references."""
    found: list[BatchCheck] = []
    for name, column in stream.columns.items():
        found += _of_column(None, name, column, column.severity, column)
    for rule in stream.contract.rules:
        if isinstance(rule, UniqueRule):
            name = rule.name or f"{'_'.join(rule.unique)}.unique"
            found.append(BatchCheck(name, rule.unique, rule.severity, rule))
        elif isinstance(rule, ColumnRule):
            found += _of_column(rule.name, rule.column, rule, rule.severity, rule)
    return found


def failing(stream: Stream) -> list[str]:
    """Names of the rules that can fail a batch."""
    checks: list[RowCheck | BatchCheck] = [*row_checks(stream), *batch_checks(stream)]
    limited = [
        check.name
        for check in checks
        if check.severity == "fail"
        or (check.severity == "quarantine" and {check.limits.max_rows, check.limits.max_share} != {None})
    ]
    rules = stream.contract.rules
    return limited + [r.name for r in rules if isinstance(r, QueryRule | RowsRule) and r.severity == "fail"]


def _of_column(
    name: str | None, column: str, conditions: Conditions, severity: Severity | None, limits: Tolerance
) -> Iterator[BatchCheck]:
    # Neither can set a single row aside.
    severity = "warn" if severity == "warn" else "fail"
    if conditions.unique:
        yield BatchCheck(name or f"{column}.unique", (column,), severity, limits)
    if conditions.references:
        name = name or f"{column}.references"
        yield BatchCheck(name, (column,), severity, limits, conditions.references)


def _typed(kind: str, value: Any, type_: str) -> Any:
    """The constants of a condition in the column's type; the project's checks have seen that they fit."""
    if kind in ("min", "max"):
        return convert(value, type_)
    return tuple(convert(item, type_) for item in value) if kind == "values" else value


def _broken(warehouse: Warehouse, kind: str, type_: str, column: str, value: Any) -> str:
    if kind == "required":
        return f"{column} is null"
    if kind == "pattern":
        return f"not ({warehouse.matches(column, _text(warehouse.pattern(value)))})"
    if kind in ("min_length", "max_length"):
        return f"length({column}) {'<' if kind == 'min_length' else '>'} {int(value)}"
    if kind == "values":
        listed = ", ".join(_constant(warehouse, item, type_) for item in value)
        return f"{column} not in ({listed})"
    if kind == "max" and type_ == "timestamp" and not isinstance(value, datetime):
        # It means the whole day.
        return f"{column} >= {_constant(warehouse, value + timedelta(days=1), type_)}"
    return f"{column} {'<' if kind == 'min' else '>'} {_constant(warehouse, value, type_)}"


def _constant(warehouse: Warehouse, value: Any, type_: str) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if type_ == "string":
        return _text(value)
    if type_ == "timestamp" and not isinstance(value, datetime):
        value = datetime.combine(value, time(), UTC)
    text = value.isoformat() if isinstance(value, date) else format(value, "f" if type_ == "decimal" else "")
    return f"cast('{text}' as {warehouse.types[type_]})"


def _text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _never_null(check: RowCheck) -> str:
    if check.column is None:
        # A row for which it cannot be computed must not pass, and the error would tell the row's values.
        return f"not coalesce(try(coalesce(({condition(check.value)}), true)), false)"
    return f"coalesce({check.bad(_PARSER)}, false)"


def _reason(check: RowCheck) -> str:
    before, mask, after = check.told().partition(f"{MASK} ")
    if not mask:
        return _text(before)
    value = f"cast({_PARSER.quote(check.column or '')} as varchar)"
    if check.type == "decimal":
        value = rf"regexp_replace({value}, '\.?0+$', '')"  # what was read as -3 is held as -3.000000
    shown = f"case when length({value}) > {_SHOWN} then left({value}, {_SHOWN}) || '…' else {value} end"
    return f"{_text(before)} || to_json({shown}) || {_text(f' {after}')}"


def _complaint(kind: str, value: Any) -> str:
    if kind == "pattern":
        return f"is not of the pattern {value}"
    if kind == "min_length":
        return f"is shorter than {value} characters"
    if kind == "max_length":
        return f"is longer than {value} characters"
    if kind == "values":
        return "is none of the allowed values"
    if isinstance(value, date):
        return f"is {'before' if kind == 'min' else 'after'} {value.isoformat()}"
    shown = json.dumps(value) if isinstance(value, float) else str(value)
    return f"is {'below' if kind == 'min' else 'above'} {shown}"
