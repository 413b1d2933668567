# SPDX-License-Identifier: Apache-2.0
"""Contracts that their stream cannot keep, because names lead nowhere or types do not meet."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from cdp_provider.core.project.circles import circles
from cdp_provider.core.project.comparison_checks import between_turned, shown
from cdp_provider.core.project.constants import convert
from cdp_provider.core.project.contract import (
    OF_A_BATCH,
    OF_A_ROW,
    ColumnRule,
    QueryRule,
    RowsRule,
    SqlRule,
    UniqueRule,
)
from cdp_provider.core.project.expressions import expression_fault, unbound
from cdp_provider.core.project.own_sql import places, sql_fault
from cdp_provider.core.project.patterns import pattern_fault, portable_fault
from cdp_provider.core.project.problems import Path, Problem, did_you_mean
from cdp_provider.core.project.typing import NUMERIC, TEMPORAL

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cdp_provider.core.project.contract import Conditions, Contract, Rule
    from cdp_provider.core.project.streams import Column, Stream
    from cdp_provider.core.project.world import World

#: Names of results that do not come from a rule; see core/ingest.
RESERVED = ("quarantine", "primary_key", "min_rows", "max_rows", "max_change", "freshness")

#: Condition -> column types that it applies to; the others apply to any.
_APPLIES: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(("pattern", "min_length", "max_length"), frozenset({"string"})),
    **dict.fromkeys(("min", "max"), NUMERIC | TEMPORAL),
    "values": frozenset({"string", "integer", "decimal", "boolean", "date"}),
    **dict.fromkeys(OF_A_BATCH, NUMERIC | TEMPORAL | {"string", "boolean"}),
}
_TURNED = {"max": "min", "max_length": "min_length"}


def contract_problems(world: World, stream: Stream) -> Iterator[Problem]:
    """What is wrong with the contract of a stream; paths are relative to the stream."""
    for name, column in stream.columns.items():
        here: Path = ("columns", name)
        yield from _conditions_problems(world, stream, name, column, here)
        yield from _idle_problems(column, here)
    yield from _bounds_problems(stream)
    for i, rule in enumerate(stream.contract.rules):
        yield from _rule_problems(world, stream, rule, ("contract", "rules", i))
    yield from _name_problems(stream)
    yield from _own_sql_problems(stream)


def circle_problems(world: World) -> Iterator[Problem]:
    """Streams that refer to each other: none of them could be checked first."""
    needs = {ref: (*looked_into(stream), *stream.options.after()) for ref, stream in world.streams.items()}
    for circle in circles(needs):
        source, name = circle[0].split(".")
        message = f"the streams need each other in a circle: {' -> '.join(circle)}"
        path = ("sources", source, "streams", name)
        yield Problem(path, message, "leave out one of the references", at_key=True)


def looked_into(stream: Stream) -> list[str]:
    """Other streams that a contract looks into."""
    return sorted({*_looked_into(stream)} - {stream.ref})


def _looked_into(stream: Stream) -> Iterator[str]:
    for conditions in (*stream.columns.values(), *stream.contract.rules):
        if isinstance(target := getattr(conditions, "references", None), str):
            yield target.rpartition(".")[0]
        if isinstance(conditions, QueryRule):
            yield from (place for place in places(conditions.query) if place != "rows")


def _conditions_problems(
    world: World, stream: Stream, name: str, conditions: Conditions, path: Path
) -> Iterator[Problem]:
    """What is wrong with conditions on a column that exists."""
    kind, typed = stream.columns[name].type, dict[str, Any]()
    for key, value in conditions.given().items():
        here = (*path, key)
        if kind not in _APPLIES.get(key, (kind,)):
            hint = f"it is for columns of type {', '.join(sorted(_APPLIES[key]))}"
            yield Problem(here, f"{name!r} is {kind}, which {key!r} does not apply to", hint)
        elif key == "references":
            yield from _reference_problems(world, kind, value, here)
        elif fault := _fault(key, value):
            yield fault.below(here)
        else:
            try:
                typed[key] = _typed(key, value, kind)
            except ValueError as error:
                yield Problem(here, f"{name!r} is {kind}, and {error}")
    yield from _turned_problems(typed, path)


def _fault(key: str, value: Any) -> Problem | None:
    """What is wrong with a pattern by itself."""
    if key != "pattern":
        return None
    if fault := pattern_fault(value):
        return Problem((), f"{value!r} is no regular expression that RE2 takes: {fault}", "correct it")
    if fault := portable_fault(value):
        return Problem((), f"{value!r} cannot be used: {fault}", "write it otherwise")
    return None


def _typed(key: str, value: Any, kind: str) -> Any:
    if key in ("min", "max"):
        return convert(value, kind)
    return [convert(item, kind) for item in value] if key == "values" else value


def _turned_problems(typed: Mapping[str, Any], path: Path) -> Iterator[Problem]:
    for high, low in _TURNED.items():
        if high in typed and low in typed and between_turned((typed[low], typed[high])):
            message = f"no value is at least {shown(typed[low])} and at most {shown(typed[high])}"
            yield Problem((*path, high), message, "turn it round")


def _reference_problems(world: World, kind: str, target: str, path: Path) -> Iterator[Problem]:
    ref, _, column = target.rpartition(".")
    stream, problems = world.stream(ref, path)
    if stream is None:
        yield from problems
    elif column not in stream.columns:
        yield world.no_column(stream, column, path)
    elif stream.columns[column].type != kind:
        message = f"{target} is {stream.columns[column].type}, and this column is {kind}: they never meet"
        yield Problem(path, message, "refer to a column of the same type")


def _idle_problems(column: Column, path: Path) -> Iterator[Problem]:
    """A severity or a limit of nothing."""
    given = column.given().keys()
    of_a_row, of_a_batch = given & set(OF_A_ROW), given & set(OF_A_BATCH)
    for key in ("severity", "max_rows", "max_share"):
        if getattr(column, key) is not None and not of_a_row | of_a_batch:
            message = f"there is no condition that this {key!r} could be of"
            hint = "add one, or write a rule in contract.rules: 'required' always quarantines"
            yield Problem((*path, key), message, hint, at_key=True)
            return
    if column.severity == "quarantine" and not of_a_row:
        yield _no_single_row(sorted(of_a_batch)[0], path)


def _no_single_row(condition: str, path: Path) -> Problem:
    message = f"{condition!r} looks at the whole batch, and cannot set a single row aside"
    return Problem((*path, "severity"), message, "write fail or warn")


def _bounds_problems(stream: Stream) -> Iterator[Problem]:
    contract: Contract = stream.contract
    if contract.max_rows is not None and contract.min_rows > contract.max_rows:
        message = f"no batch has at least {contract.min_rows} and at most {contract.max_rows} rows"
        yield Problem(("contract", "max_rows"), message, "turn it round")
    if contract.freshness is not None and stream.time is None:
        message = f"freshness needs the time of rows, and the stream {stream.ref} names none"
        hint = "add 'time: <a timestamp column>' to the stream"
        yield Problem(("contract", "freshness"), message, hint)
    if "freshness_severity" in contract.model_fields_set and contract.freshness is None:
        message = "there is no freshness that this severity could be of"
        yield Problem(("contract", "freshness_severity"), message, "add 'freshness'", at_key=True)
    if contract.schema_name is not None and contract.file is None:
        message = "there is no file that this schema could be in"
        yield Problem(("contract", "schema"), message, "add 'file'", at_key=True)


def _rule_problems(world: World, stream: Stream, rule: Rule, path: Path) -> Iterator[Problem]:
    if isinstance(rule, ColumnRule):
        if rule.column not in stream.columns:
            yield world.no_column(stream, rule.column, (*path, "column"))
            return
        yield from _conditions_problems(world, stream, rule.column, rule, path)
        condition = next(iter(rule.given()))
        if rule.severity == "quarantine" and condition in OF_A_BATCH:
            yield _no_single_row(condition, path)
    elif isinstance(rule, UniqueRule):
        yield from _unique_problems(world, stream, rule, (*path, "unique"))
    elif isinstance(rule, RowsRule):
        yield from _span_problems(rule.rows.min, rule.rows.max, (*path, "rows"), needed=True)
    elif isinstance(rule, QueryRule):
        yield from _span_problems(rule.min, rule.max, path, needed=False)
        yield from _query_problems(world, rule.query, (*path, "query"))
    elif fault := expression_fault(rule.sql):
        yield Problem((*path, "sql"), f"this condition cannot be computed: {fault}")


def _unique_problems(world: World, stream: Stream, rule: UniqueRule, path: Path) -> Iterator[Problem]:
    for name, count in Counter(rule.unique).items():
        if name not in stream.columns:
            yield world.no_column(stream, name, path)
        elif stream.columns[name].type == "json":
            yield Problem(path, f"{name!r} is json, whose values cannot be told apart")
        elif count > 1:
            yield Problem(path, f"{name!r} is listed twice", "remove one of them")


def _span_problems(low: Any, high: Any, path: Path, *, needed: bool) -> Iterator[Problem]:
    if low is not None and high is not None and low > high:
        message = f"nothing is at least {low} and at most {high}"
        yield Problem((*path, "max"), message, "turn it round")
    elif low is None and high is None and needed:
        yield Problem(path, "this bounds nothing", "add 'min', 'max' or both", at_key=True)


def _query_problems(world: World, query: str, path: Path) -> Iterator[Problem]:
    if fault := sql_fault(query):
        yield Problem(path, f"this query cannot run: {fault}")
        return
    for place in places(query):
        if place == "rows":
            continue
        _, problems = world.stream(place, path)
        if place not in world.streams:
            hint = did_you_mean(place, ["rows", *world.streams])
            yield from (Problem(path, f"in {{{place}}}, {problem.message}", hint) for problem in problems)


def _name_problems(stream: Stream) -> Iterator[Problem]:
    """Rules of one name: a result could be of either."""
    taken = {*RESERVED}
    taken |= {
        f"{name}.{key}"
        for name, column in stream.columns.items()
        for key in column.given()
        if key != "required"
    }
    for i, rule in enumerate(stream.contract.rules):
        name = rule.name or _default_name(rule)
        if name in taken:
            path: Path = ("contract", "rules", i, *(("name",) if rule.name else ()))
            yield Problem(path, f"there already is a rule {name!r}", "give it another name", at_key=True)
        taken.add(name)


def _default_name(rule: Rule) -> str:
    if isinstance(rule, ColumnRule):
        return f"{rule.column}.{next(iter(rule.given()))}"
    return f"{'_'.join(rule.unique)}.unique" if isinstance(rule, UniqueRule) else ""


def _own_sql_problems(stream: Stream) -> Iterator[Problem]:
    """Conditions that the parser, whose SQL is known, would not understand."""
    found = {
        i: rule.sql
        for i, rule in enumerate(stream.contract.rules)
        if isinstance(rule, SqlRule) and rule.severity == "quarantine" and not expression_fault(rule.sql)
    }
    types = {name: column.type for name, column in stream.columns.items()}
    for i, fault in unbound(found, types).items():
        path = ("contract", "rules", i, "sql")
        yield Problem(path, f"this condition cannot be computed: {fault}")
