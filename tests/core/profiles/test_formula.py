# SPDX-License-Identifier: Apache-2.0
"""Formulas: every part of the language on every engine against plain Python, and what is refused."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cdp_provider.core.exceptions import ConfigurationError
from cdp_provider.core.profiles.formula import compile_formula
from cdp_provider.core.profiles.params import Params
from cdp_provider.core.project.formula import formula_problem, names

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cdp_provider.core.warehouse import Warehouse

DEPTH = int(os.environ.get("CDP_TEST_DEPTH", "1"))
NOW = datetime(2026, 3, 1, tzinfo=UTC)
KINDS = {
    "n": "number",
    "m": "number",
    "i": "integer",
    "d": "decimal",
    "s": "string",
    "t": "string",
    "b": "boolean",
    "c": "boolean",
    "day": "date",
    "eve": "date",
    "at": "timestamp",
    "tags": "list of string",
}
ARROW = {
    "number": pa.float64(),
    "integer": pa.int64(),
    "decimal": pa.decimal128(28, 6),
    "string": pa.string(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us", tz="UTC"),
    "list of string": pa.string(),
}

Row = dict[str, Any]
#: As many digits as any number of double precision is written with.
WIDE = Context(prec=400)


@dataclass(frozen=True)
class Part:
    """A formula and what it is in Python."""

    text: str
    of: Callable[[Row], Any]


def in_range(number: float) -> float | None:
    if math.isnan(number) or not abs(number) < 1e150:
        return None
    return (number + 1e-130) - 1e-130


def all_there(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *values: None if None in values else function(*values)


def rounded(number: float, places: int) -> float:
    exact = Decimal(repr(number))
    with_places = exact.quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP, context=WIDE)
    return float(with_places) + 0.0


def some(choose: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *values: choose(known) if (known := [v for v in values if v is not None]) else None


ARITHMETIC = {
    "+": all_there(lambda a, b: a + b),
    "-": all_there(lambda a, b: a - b),
    "*": all_there(lambda a, b: in_range(a * b)),
    "/": all_there(lambda a, b: in_range(a / b) if b else None),
}
COMPARED = {
    "<": all_there(lambda a, b: a < b),
    "<=": all_there(lambda a, b: a <= b),
    ">": all_there(lambda a, b: a > b),
    ">=": all_there(lambda a, b: a >= b),
    "==": all_there(lambda a, b: a == b),
    "!=": all_there(lambda a, b: a != b),
}


def column(kind: str) -> st.SearchStrategy[Part]:
    def read(name: str) -> Callable[[Row], Any]:
        if KINDS[name] == "number":
            return lambda row: None if row[name] is None else in_range(row[name])
        if kind == "number":
            return lambda row: None if row[name] is None else float(row[name])
        return lambda row: row[name]

    fitting = [name for name, k in KINDS.items() if k == kind or (kind == "number" and k in NUMBERS)]
    return st.sampled_from(fitting).map(lambda name: Part(name, read(name)))


NUMBERS = ("number", "integer", "decimal")
CONSTANTS = {
    "number": ["0", "1", "2", "0.5", "100", "1.005", "3", "1e15", "1e100", "1e-100", "0.1"],
    "string": ["''", "'a'", '"it\'s"', "'ß :x %s é'", "'Z'"],
    "boolean": ["true", "false"],
}


def constant(kind: str) -> st.SearchStrategy[Part]:
    def part(text: str) -> Part:
        value = {"true": True, "false": False}.get(text) if kind == "boolean" else None
        if kind == "number":
            value = float(text)
        elif kind == "string":
            value = text[1:-1]
        return Part(text, lambda _: value)

    return st.sampled_from(CONSTANTS[kind]).map(part)


def call(name: str, function: Callable[..., Any], *arguments: Part, extra: str = "") -> Part:
    return Part(
        f"{name}({', '.join(a.text for a in arguments)}{extra})",
        lambda row: function(*(a.of(row) for a in arguments)),
    )


def infix(op: str, function: Callable[..., Any], one: Part, other: Part) -> Part:
    return Part(f"({one.text} {op} {other.text})", lambda row: function(one.of(row), other.of(row)))


@st.composite
def choices(draw: st.DrawFn, kind: str, depth: int) -> Part:
    condition, one, other = draw(parts("boolean", depth)), draw(parts(kind, depth)), draw(parts(kind, depth))
    if draw(st.integers(0, 4)) == 0:
        one = Part("none", lambda _: None)
    text = f"({one.text} if {condition.text} else {other.text})"
    return Part(text, lambda row: one.of(row) if condition.of(row) else other.of(row))


@st.composite
def several(draw: st.DrawFn, kind: str, depth: int) -> Part:
    found = draw(st.lists(parts(kind, depth), min_size=1, max_size=3))
    name, choose = draw(
        st.sampled_from([("coalesce", lambda known: known[0]), ("least", min), ("greatest", max)])
    )
    if kind == "boolean":
        name, choose = "coalesce", lambda known: known[0]
    return call(name, some(choose), *found)


@st.composite
def numbers(draw: st.DrawFn, depth: int) -> Part:
    one = draw(parts("number", depth))
    match draw(st.sampled_from(["op", "op", "round", "floor", "ceil", "abs", "negative", "length"])):
        case "op":
            op = draw(st.sampled_from(sorted(ARITHMETIC)))
            return infix(op, ARITHMETIC[op], one, draw(parts("number", depth)))
        case "round":
            places = draw(st.sampled_from([0, 0, 1, 2, 6, 15]))
            extra = f", {places}" if places or draw(st.booleans()) else ""
            return call("round", all_there(lambda v: rounded(v, places)), one, extra=extra)
        case "floor":
            return call("floor", all_there(lambda v: float(math.floor(v))), one)
        case "ceil":
            return call("ceil", all_there(lambda v: float(math.ceil(v))), one)
        case "abs":
            return call("abs", all_there(abs), one)
        case "negative":
            return Part(f"(-{one.text})", lambda row: all_there(lambda v: 0.0 - v)(one.of(row)))
    return call("length", all_there(lambda v: float(len(v))), draw(parts("string", depth)))


@st.composite
def texts(draw: st.DrawFn, depth: int) -> Part:
    one = draw(parts("string", depth))
    match draw(st.sampled_from(["lower", "upper", "concat"])):
        case "lower":
            return call("lower", all_there(str.lower), one)
        case "upper":
            return call("upper", all_there(str.upper), one)
    return call("concat", all_there(lambda *v: "".join(v)), one, draw(parts("string", depth)))


@st.composite
def conditions(draw: st.DrawFn, depth: int) -> Part:
    match draw(st.sampled_from(["compare", "compare", "logic", "not", "none", "dates"])):
        case "compare":
            kind = draw(st.sampled_from(["number", "number", "string", "boolean"]))
            op = draw(st.sampled_from(["==", "!="] if kind == "boolean" else sorted(COMPARED)))
            return infix(op, COMPARED[op], draw(parts(kind, depth)), draw(parts(kind, depth)))
        case "dates":
            op = draw(st.sampled_from(sorted(COMPARED)))
            one, other = draw(column("date")), draw(several("date", 0))
            return infix(op, COMPARED[op], one, other)
        case "logic":
            name, function = draw(
                st.sampled_from(
                    [("and", lambda a, b: bool(a) and bool(b)), ("or", lambda a, b: bool(a) or bool(b))]
                )
            )
            return infix(name, function, draw(parts("boolean", depth)), draw(parts("boolean", depth)))
        case "not":
            inner = draw(parts("boolean", depth))
            return Part(f"(not {inner.text})", lambda row: not inner.of(row))
    kind = draw(st.sampled_from(["number", "string", "boolean", "date", "list of string"]))
    inner = draw(column(kind) if kind in ("date", "list of string") else parts(kind, depth))
    negated = draw(st.booleans())
    text = f"({inner.text} is {'not ' * negated}none)"
    return Part(text, lambda row: (inner.of(row) is None) != negated)


@st.composite
def parts(draw: st.DrawFn, kind: str, depth: int) -> Part:
    if depth == 0 or draw(st.integers(0, 4)) == 0:
        leaves = [column(kind)] + ([constant(kind)] if kind in CONSTANTS else [])
        return draw(st.one_of(*leaves))
    depth -= 1
    own = {"number": numbers, "string": texts, "boolean": conditions}[kind](depth)
    return draw(st.one_of(own, own, own, choices(kind, depth), several(kind, depth)))


VALUES: Mapping[str, st.SearchStrategy[Any]] = {
    "number": st.one_of(
        st.sampled_from(
            [0.0, -0.0, 0.5, -0.5, 2.5, 1.005, -2.675, 0.1, 1e149, 1e150, -1e200, 1e-149, 5e-324]
        ),
        st.sampled_from([math.inf, -math.inf, math.nan, 2.0**53, 2.0**52 + 0.5, 1e15 + 0.5, 1e-131, 1e-145]),
        st.floats(-1e9, 1e9),
        st.floats(allow_nan=False, allow_infinity=False),
        st.integers(-(10**7), 10**7).map(lambda v: v / 1000),
    ),
    "integer": st.one_of(st.integers(-5, 5), st.integers(-(2**63), 2**63 - 1)),
    "decimal": st.one_of(
        st.integers(-(10**4), 10**4).map(lambda v: Decimal(v).scaleb(-2)),
        st.integers(-(10**20), 10**20).map(lambda v: Decimal(v).scaleb(-6)),
    ),
    "string": st.sampled_from(["", "a", "B", "b", "Straße", "é", "z", "😀", "Ω", "%s :p0 'x'"]),
    "boolean": st.booleans(),
    "date": st.sampled_from([date(2026, 1, 1), date(2024, 2, 29), date(1969, 12, 31)]),
    "timestamp": st.sampled_from([NOW, datetime(2024, 2, 29, 1, tzinfo=UTC)]),
    "list of string": st.just('["a"]'),
}
ROWS = st.lists(
    st.fixed_dictionaries({name: st.none() | VALUES[kind] for name, kind in KINDS.items()}),
    min_size=1,
    max_size=8,
)


def computed(warehouse: Warehouse, formulas: list[str], rows: list[Row], wanted: str) -> list[list[Any]]:
    """What each formula gives for each row, or what the message says."""
    params = Params(warehouse, NOW)
    compiled = [compile_formula(formula, KINDS, warehouse.quote, params, wanted) for formula in formulas]
    chosen = ", ".join(f"{sql} as c{i}" for i, sql in enumerate(compiled))
    arrow = pa.table(
        {
            "pos": pa.array(range(len(rows)), pa.int64()),
            **{name: pa.array([row[name] for row in rows], ARROW[kind]) for name, kind in KINDS.items()},
        }
    )
    with warehouse.session() as session:
        table = session.temp("given", arrow)
        query = params.query(f"select {chosen} from {table} order by pos")
        return [list(row) for row in session.fetch(query.sql, query.params)]


SETTINGS = settings(
    max_examples=12 * DEPTH,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def same(one: Any, other: Any) -> bool:
    """Cell by cell: the type counts, and the sign of zero."""
    return (
        type(one) is type(other)
        and one == other
        and not (isinstance(one, float) and math.copysign(1, one) != math.copysign(1, other))
    )


@SETTINGS
@given(data=st.data(), rows=ROWS)
@pytest.mark.parametrize("kind", ["number", "string", "boolean"])
def test_formulas_give_what_python_gives(
    warehouse: Warehouse, data: st.DataObject, rows: list[Row], kind: str
):
    found = data.draw(st.lists(parts(kind, 4), min_size=1, max_size=6))
    results = computed(warehouse, [part.text for part in found], rows, kind)
    for row, cells in zip(rows, results, strict=True):
        for part, cell in zip(found, cells, strict=True):
            expected = part.of(row)
            assert same(cell, expected), (part.text, row, cell, expected)


@SETTINGS
@given(rows=ROWS)
def test_results_of_other_types_round_half_away_or_are_missing(warehouse: Warehouse, rows: list[Row]):
    def wanted(row: Row, places: int, limit: float) -> Decimal | None:
        value = None if row["n"] is None else in_range(row["n"])
        if value is None or not abs(value) < limit:
            return None
        exact = Decimal(value) if abs(value) >= 2**53 else Decimal(repr(value))
        return exact.quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP, context=WIDE)

    integers = computed(warehouse, ["n"], rows, "integer")
    decimals = computed(warehouse, ["n"], rows, "decimal")
    for row, (integer,), (decimal,) in zip(rows, integers, decimals, strict=True):
        assert integer == wanted(row, 0, 2.0**63)
        assert decimal == wanted(row, 6, 1e22)


ROW: Row = dict.fromkeys(KINDS) | {
    "n": 7.5,
    "i": 2,
    "d": Decimal("2.5"),
    "s": "Straße",
    "b": True,
    "day": NOW.date(),
}
CASES: list[tuple[str, str, Any]] = [
    ("1 + 2 * 3 - 4 / 2", "number", 5.0),
    ("2 - 3 - 4", "number", -5.0),
    ("12 / 3 / 2", "number", 2.0),
    ("-2 * -3", "number", 6.0),
    ("+n", "number", 7.5),
    ("1 if b or c and c else 0", "number", 1.0),
    ("not b or b", "boolean", True),
    ("not n < 3", "boolean", True),
    ("1 if b else 2 if b else 3", "number", 1.0),
    # whole numbers are no whole-number division
    ("i / 4", "number", 0.5),
    # what is missing
    ("m + 1", "number", None),
    ("m == m", "boolean", None),
    ("m != 1", "boolean", None),
    ("1 if m > 1 else 0", "number", 0.0),
    ("1 if not m > 1 else 0", "number", 1.0),
    ("c and b", "boolean", False),
    ("c or b", "boolean", True),
    ("m is none and t is none and tags is none", "boolean", True),
    ("n is not none", "boolean", True),
    ("n / 0", "number", None),
    ("0 / 0", "number", None),
    ("n / (i - 2)", "number", None),
    ("least(m, n, 3)", "number", 3.0),
    ("greatest(m, n, 3)", "number", 7.5),
    ("least(m, m)", "number", None),
    ("coalesce(m, none, 4)", "number", 4.0),
    ("concat(s, t)", "string", None),
    ("concat(s, coalesce(t, '-'))", "string", "Straße-"),
    ("none if b else 1", "number", None),
    # rounding
    ("round(2.5)", "number", 3.0),
    ("round(-2.5)", "number", -3.0),
    ("round(0.49999999999999994)", "number", 0.0),
    ("round(1.005, 2)", "number", 1.01),
    ("round(-1.005, 2)", "number", -1.01),
    ("round(9007199254740993.0)", "number", 9007199254740992.0),
    ("round(4503599627370495.5)", "number", 4503599627370496.0),
    ("round(1234567890123456789)", "number", 1234567890123456768.0),
    ("floor(-0.5)", "number", -1.0),
    ("ceil(-0.5)", "number", 0.0),
    # texts
    ("length(s)", "number", 6.0),
    ("upper(s)", "string", "STRASSE"),
    ("lower('ÄÖÜ')", "string", "äöü"),
    ("'Z' < 'a' and 'a' < 'ä' and 'z' < 'ä'", "boolean", True),
    ("least('b', 'B') == 'B'", "boolean", True),
    ("'' is none", "boolean", False),
    # other types only pass through
    ("day == coalesce(eve, day)", "boolean", True),
    ("coalesce(eve, day)", "date", NOW.date()),
    ("day if b else eve", "date", NOW.date()),
    ("at", "timestamp", None),
    ("n\n  * 2\n", "number", 15.0),
    # beyond what is calculated with
    ("1e100 * 1e100", "number", None),
    ("1e100 * 1e100 / 1e100", "number", None),
    ("1e-100 * 1e-100", "number", 0.0),
    ("1 / (1e-100 * 1e-100)", "number", None),
]


def test_what_the_page_says(warehouse: Warehouse):
    for kind in dict.fromkeys(kind for _, kind, _ in CASES):
        cases = [(text, expected) for text, k, expected in CASES if k == kind]
        (cells,) = computed(warehouse, [text for text, _ in cases], [ROW], kind)
        for (text, expected), cell in zip(cases, cells, strict=True):
            assert same(cell, expected), (text, cell, expected)


def test_long_formulas_run(warehouse: Warehouse):
    """Neither a long chain nor deep nesting makes a statement that an engine refuses or never ends with."""
    chain = " * ".join(["n"] * 50)
    nested = "round(" * 25 + "n" + ")" * 25
    divided = "1 / (" * 25 + "n" + ")" * 25
    (cells,) = computed(warehouse, [chain, nested, divided], [ROW], "number")
    assert cells[0] == pytest.approx(7.5**50)
    assert cells[1] == 8.0
    assert cells[2] == pytest.approx(1 / 7.5)


REFUSED: list[tuple[str, str, str]] = [
    ("", "number", "cannot be read"),
    ("n +", "number", "cannot be read at character 4"),
    ("n) + (n", "number", "cannot be read"),
    ("n # and so on", "number", "a comment (#)"),
    ("n ** 2", "number", "+ - * / only: 'n ** 2' at character 1"),
    ("n // 2", "number", "+ - * / only"),
    ("n % 2", "number", "+ - * / only"),
    ("~i", "number", "no part of a formula"),
    ("1 + nn", "number", "there is no such field or trait (did you mean 'n'?): 'nn' at character 5"),
    ("'é' == nn", "boolean", "'nn' at character 8"),
    ("rond(n)", "number", "there is no such function (did you mean 'round'?)"),
    ("n.real", "number", "no part of a formula: 'n.real'"),
    ("n[0]", "number", "no part of a formula"),
    ("().__class__", "number", "no part of a formula"),
    ("__import__('os').system('x')", "number", "there is no such function"),
    ("(lambda: 1)()", "number", "there is no such function"),
    ("[n]", "number", "no part of a formula"),
    ("f'{n}'", "string", "no part of a formula"),
    ("(x := n)", "number", "no part of a formula"),
    ("abs(*n)", "number", "no part of a formula"),
    ("abs(x=n)", "number", "abs takes 1 value in parentheses"),
    ("abs(n, n)", "number", "abs takes 1 value in parentheses"),
    ("coalesce()", "number", "coalesce takes one or more values"),
    ("round(n, i)", "number", "whole number of decimals from 0 to 15"),
    ("round(n, -1)", "number", "whole number of decimals"),
    ("round(n, true)", "number", "whole number of decimals"),
    ("1 < n < 3", "boolean", "write 'a < b and b < c'"),
    ("n in (1, 2)", "boolean", "values are compared by"),
    ("n is 1", "boolean", "after 'is' and 'is not' comes none"),
    ("n == none", "boolean", "'x is none' tells"),
    ("none + 1", "number", "none can't be used here"),
    ("n == s", "boolean", "number and string are not compared with each other"),
    ("day < at", "boolean", "date and timestamp are not compared with each other"),
    ("b < c", "boolean", "this is of type boolean"),
    ("b + 1", "number", "'1 if ... else 0'"),
    ("s + t", "string", "this is of type string, and number is wanted"),
    ("n and b", "boolean", "this is of type number, and boolean is wanted"),
    ("1 if n else 0", "number", "this is of type number, and boolean is wanted"),
    ("1 if b else 'x'", "number", "number and string are not of one type"),
    ("least(n, s)", "number", "number and string are not of one type"),
    ("concat(s, n)", "string", "this is of type number, and string is wanted"),
    ("length(tags)", "number", "this is of type list of string"),
    ("coalesce(tags)", "number", "this is of type list of string"),
    ("tags", "number", "values of type list of string, and the type number is wanted"),
    ("none", "number", "always missing"),
    ("True", "boolean", "write 'true'"),
    ("1j", "number", "neither a number nor a text"),
    ("b'x'", "string", "neither a number nor a text"),
    ("...", "number", "neither a number nor a text"),
    ("1e999", "number", "a number is 0, or from"),
    ("1e-200", "number", "a number is 0, or from"),
    ("1" + "0" * 400, "number", "a number is 0, or from"),
    ("'\\x00'", "string", "no text of a warehouse"),
    ("'\\ud800'", "string", "no text of a warehouse"),
    ("n > 1", "number", "values of type boolean, and the type number is wanted; say 'as: boolean'"),
    ("n", "string", "say 'as: number'"),
    ("s", "json", "say 'as: string'"),
    ("n" + " + n" * 600, "number", "more than 2,000 characters"),
    ("n" + "+n" * 300, "number", "nested more than 60 deep"),
    ("(" * 500 + "n" + ")" * 500, "number", "cannot be read"),
    ("-" * 1500 + "n", "number", "nested"),
]


@pytest.mark.parametrize(("text", "wanted", "message"), REFUSED)
def test_what_is_refused(text: str, wanted: str, message: str):
    assert message in (formula_problem(text, KINDS, wanted) or "")


def test_a_fault_is_an_error_of_configuration_when_compiled():
    from cdp_provider.core.warehouse import DuckDBWarehouse

    params = Params(DuckDBWarehouse(lambda: None), NOW)
    with pytest.raises(ConfigurationError, match=r"'n \+' cannot be computed: the formula cannot be read"):
        compile_formula("n +", KINDS, params.warehouse.quote, params)


def test_names_are_the_fields_and_traits():
    assert names("round(b + coalesce(a, b), 2) if length(c) > 1 or none is none else abs") == (
        "b",
        "a",
        "c",
        "abs",
    )
    assert names("no formula (") == ()
