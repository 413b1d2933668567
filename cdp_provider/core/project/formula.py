# SPDX-License-Identifier: Apache-2.0
"""The language of formulas: what may stand in one, and which type each part of it has."""

from __future__ import annotations

import ast
import io
import tokenize
import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NoReturn

from cdp_provider.core.project.problems import did_you_mean
from cdp_provider.core.project.typing import NUMERIC, TEMPORAL

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

#: A number in a formula is 0 or lies between these; warehouses calculate within them, too.
SMALLEST, LARGEST = 1e-130, 1e150
#: How many decimals `round` may keep: double precision has no more.
MOST_PLACES = 15

_LONGEST = 2_000
#: Warehouses stop somewhere, too; each part of a formula nests up to six of theirs.
_DEEPEST = 60
_CONSTANTS = {"true": True, "false": False, "none": None}

_ARITHMETIC: Mapping[type[ast.operator], str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}
_COMPARISONS: Mapping[type[ast.cmpop], str] = {
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
}
#: What has an order, and what can be told to be the same.
_ORDERED = frozenset({"number", "string"}) | TEMPORAL
_EQUAL = _ORDERED | {"boolean"}

#: Function -> what it takes, what it gives (None: the same), fewest and most arguments (None: any number).
_FUNCTIONS: Mapping[str, tuple[frozenset[str], str | None, int, int | None]] = {
    "abs": (frozenset({"number"}), None, 1, 1),
    "round": (frozenset({"number"}), None, 1, 2),
    "floor": (frozenset({"number"}), None, 1, 1),
    "ceil": (frozenset({"number"}), None, 1, 1),
    "least": (_ORDERED, None, 1, None),
    "greatest": (_ORDERED, None, 1, None),
    "coalesce": (_EQUAL, None, 1, None),
    "length": (frozenset({"string"}), "number", 1, 1),
    "lower": (frozenset({"string"}), None, 1, 1),
    "upper": (frozenset({"string"}), None, 1, 1),
    "concat": (frozenset({"string"}), None, 1, None),
}
#: They pass over missing values, so `none` may be among what they are given.
_OF_SOME = frozenset({"least", "greatest", "coalesce"})


class FormulaError(ValueError):
    """What is wrong in a formula, and where; a sentence without a capital."""


@dataclass(frozen=True, slots=True)
class Term:
    """A part of a formula whose types are right.

    :param op: ``constant``, ``name``, ``negative``, ``if``, ``is none``, ``is not none``; an operator as it
        is written; or the name of a function.
    :param kind: ``number`` for every numeric type, ``none`` for nothing but none, or a column type.
    :param value: of a constant; the name of a field or trait; the places that ``round`` keeps.
    """

    op: str
    kind: str
    parts: tuple[Term, ...] = ()
    value: float | str | bool | int | None = None


def names(formula: str) -> tuple[str, ...]:
    """The fields and traits that a formula names, in its order; none of one that cannot be read."""
    try:
        tree = _read(formula)
    except FormulaError:
        return ()
    functions = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    found = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and id(node) not in functions and node.id not in _CONSTANTS
    ]
    return tuple(dict.fromkeys(node.id for node in sorted(found, key=lambda node: node.col_offset)))


def formula_problem(text: str, kinds: Mapping[str, str], wanted: str) -> str | None:
    """What is wrong with a formula; None when it can be computed.

    :param kinds: column type of every field and trait.
    :param wanted: column type of the result.
    """
    try:
        read_formula(text, kinds, wanted)
    except FormulaError as error:
        return str(error)
    return None


def read_formula(text: str, kinds: Mapping[str, str], wanted: str) -> Term:
    """The formula as typed terms.

    :param kinds: column type of every field and trait.
    :param wanted: column type of the result.
    :raises FormulaError: it is no formula, names what is not there, or its types do not fit.
    """
    tree = _read(text)
    term = _Typing(tree.text, kinds).term(tree.body)
    if term.kind == "none":
        msg = "the formula is always missing"
        raise FormulaError(msg)
    if term.kind != ("number" if wanted in NUMERIC else wanted):
        hint = f"; say 'as: {term.kind}'" if term.kind in _EQUAL else ""
        msg = f"the formula gives values of type {term.kind}, and the type {wanted} is wanted{hint}"
        raise FormulaError(msg)
    return term


class _Tree(ast.Expression):
    """An expression, and the text that its positions count in."""

    text: str


@lru_cache(maxsize=1024)
def _read(formula: str) -> _Tree:
    """Read as an expression of Python, whose precedence this is.

    :raises FormulaError: it is none.
    """
    if len(formula) > _LONGEST:
        msg = f"the formula has more than {_LONGEST:,} characters; make parts of it traits of their own"
        raise FormulaError(msg)
    # Python would end the expression, or a comment, with the line.
    text = " ".join(formula.split("\n")).strip()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a backslash that escapes nothing is a backslash
            tree = ast.parse(text, mode="eval")
    except SyntaxError as error:
        msg = f"the formula cannot be read at character {error.offset or len(text) + 1}: {error.msg}"
        raise FormulaError(msg) from None
    except (ValueError, RecursionError, MemoryError) as error:
        msg = f"the formula cannot be read: {error or 'it is nested too deeply'}"
        raise FormulaError(msg) from None
    if "#" in text and any(
        token.type == tokenize.COMMENT for token in tokenize.generate_tokens(io.StringIO(text).readline)
    ):
        msg = "the formula has a comment (#); put it into YAML, on a line of its own"
        raise FormulaError(msg)
    found = _Tree(tree.body)
    found.text = text
    return found


class _Typing:
    """Turns expressions of Python into terms, and refuses what is no part of the language."""

    def __init__(self, text: str, kinds: Mapping[str, str]) -> None:
        self._text, self._kinds, self._depth = text, kinds, 0
        self._readers: Mapping[type[ast.expr], Callable[..., Term]] = {
            ast.Constant: self._constant,
            ast.Name: self._name,
            ast.BinOp: self._arithmetic,
            ast.UnaryOp: self._unary,
            ast.BoolOp: self._logic,
            ast.Compare: self._comparison,
            ast.IfExp: self._choice,
            ast.Call: self._call,
        }

    def term(self, node: ast.expr) -> Term:
        reader = self._readers.get(type(node))
        if reader is None:
            self._refuse(node, "this is no part of a formula")
        self._depth += 1
        if self._depth > _DEEPEST:
            self._refuse(node, f"the formula is nested more than {_DEEPEST} deep; make a part of it a trait")
        found = reader(node)
        self._depth -= 1
        return found

    def _refuse(self, node: ast.expr, why: str) -> NoReturn:
        position = len(self._text.encode()[: node.col_offset].decode()) + 1
        shown = ast.get_source_segment(self._text, node) or ""
        shown = shown if len(shown) <= 40 else f"{shown[:37]}..."
        msg = f"{why}: {shown!r} at character {position} of the formula"
        raise FormulaError(msg)

    def _typed(self, node: ast.expr, allowed: frozenset[str], *, none: bool = False) -> Term:
        term = self.term(node)
        if term.kind in allowed or (none and term.kind == "none"):
            return term
        if term.kind == "none":
            self._refuse(node, "none can't be used here; 'x is none' tells whether a value is missing")
        wanted = ", ".join(sorted(allowed))
        hint = "; write '1 if ... else 0'" if term.kind == "boolean" and allowed == {"number"} else ""
        self._refuse(node, f"this is of type {term.kind}, and {wanted} is wanted{hint}")

    def _constant(self, node: ast.Constant) -> Term:
        value = node.value
        if value is None or isinstance(value, bool):
            self._refuse(node, f"write {str(value).lower()!r}")
        if isinstance(value, str):
            if "\x00" in value or any("\ud800" <= sign <= "\udfff" for sign in value):
                self._refuse(node, "no text of a warehouse holds such a character")
            return Term("constant", "string", value=value)
        if not isinstance(value, int | float):
            self._refuse(node, "this is neither a number nor a text")
        if value != 0 and not SMALLEST <= value < LARGEST:
            self._refuse(node, f"a number is 0, or from {SMALLEST:g} to less than {LARGEST:g}")
        return Term("constant", "number", value=float(value))

    def _name(self, node: ast.Name) -> Term:
        if node.id in _CONSTANTS:
            value = _CONSTANTS[node.id]
            return Term("constant", "none" if value is None else "boolean", value=value)
        kind = self._kinds.get(node.id)
        if kind is None:
            hint = did_you_mean(node.id, self._kinds)
            self._refuse(node, "there is no such field or trait" + (f" ({hint})" if hint else ""))
        return Term("name", "number" if kind in NUMERIC else kind, value=node.id)

    def _arithmetic(self, node: ast.BinOp) -> Term:
        op = _ARITHMETIC.get(type(node.op))
        if op is None:
            self._refuse(node, "numbers are calculated by + - * / only")
        number = frozenset({"number"})
        return Term(op, "number", (self._typed(node.left, number), self._typed(node.right, number)))

    def _unary(self, node: ast.UnaryOp) -> Term:
        if isinstance(node.op, ast.Not):
            return Term("not", "boolean", (self._typed(node.operand, frozenset({"boolean"})),))
        number = self._typed(node.operand, frozenset({"number"}))
        if isinstance(node.op, ast.UAdd):
            return number
        if not isinstance(node.op, ast.USub):
            self._refuse(node, "this is no part of a formula")
        return Term("negative", "number", (number,))

    def _logic(self, node: ast.BoolOp) -> Term:
        parts = tuple(self._typed(part, frozenset({"boolean"})) for part in node.values)
        return Term("and" if isinstance(node.op, ast.And) else "or", "boolean", parts)

    def _comparison(self, node: ast.Compare) -> Term:
        if len(node.ops) > 1:
            self._refuse(node, "one comparison at a time; write 'a < b and b < c'")
        comparison, other = node.ops[0], node.comparators[0]
        if isinstance(comparison, ast.Is | ast.IsNot):
            if not (isinstance(other, ast.Name) and other.id == "none"):
                self._refuse(node, "after 'is' and 'is not' comes none; compare with == and !=")
            op = "is none" if isinstance(comparison, ast.Is) else "is not none"
            return Term(op, "boolean", (self.term(node.left),))
        op = _COMPARISONS.get(type(comparison), "")
        if not op:
            self._refuse(node, "values are compared by < <= > >= == != and 'is none' only")
        allowed = _EQUAL if op in ("==", "!=") else _ORDERED
        parts = (self._typed(node.left, allowed), self._typed(other, allowed))
        self._alike(node, parts, "are not compared with each other")
        return Term(op, "boolean", parts)

    def _choice(self, node: ast.IfExp) -> Term:
        condition = self._typed(node.test, frozenset({"boolean"}))
        branches = tuple(self._typed(part, _EQUAL, none=True) for part in (node.body, node.orelse))
        return Term("if", self._alike(node, branches, "are not of one type"), (condition, *branches))

    def _call(self, node: ast.Call) -> Term:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name not in _FUNCTIONS:
            hint = did_you_mean(name, _FUNCTIONS)
            self._refuse(node, f"there is no such function ({hint})")
        allowed, gives, fewest, most = _FUNCTIONS[name]
        if node.keywords or not fewest <= len(node.args) <= (len(node.args) if most is None else most):
            count = f"{fewest}" if most == fewest else f"{fewest} or {most}" if most else "one or more"
            self._refuse(node, f"{name} takes {count} value{'' if count == '1' else 's'} in parentheses")
        if name == "round":
            places = self._places(node.args[1]) if len(node.args) > 1 else 0
            return Term(name, "number", (self._typed(node.args[0], allowed),), places)
        parts = tuple(self._typed(part, allowed, none=name in _OF_SOME) for part in node.args)
        kind = self._alike(node, parts, "are not of one type")
        return Term(name, gives or kind, parts)

    def _places(self, node: ast.expr) -> int:
        value = node.value if isinstance(node, ast.Constant) else None
        if type(value) is not int or not 0 <= value <= MOST_PLACES:
            self._refuse(node, f"round keeps a whole number of decimals from 0 to {MOST_PLACES}")
        return value

    def _alike(self, node: ast.expr, parts: Sequence[Term], why: str) -> str:
        """The type of them all."""
        kinds = list(dict.fromkeys(part.kind for part in parts if part.kind != "none"))
        if len(kinds) > 1:
            self._refuse(node, f"values of type {' and '.join(kinds)} {why}")
        return kinds[0] if kinds else "none"
