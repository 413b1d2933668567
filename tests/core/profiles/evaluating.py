# SPDX-License-Identifier: Apache-2.0
"""What a formula gives, in plain Python: numbers are floats, missing values are None."""

from __future__ import annotations

import ast
import math
import operator
from datetime import date
from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_NAMED = {"true": True, "false": False, "none": None}
_ARITHMETIC: dict[type, Callable[[float, float], float | None]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: lambda one, other: one / other if other else None,
}
_COMPARED: dict[type, Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}


def evaluate(formula: str, value: Callable[[str], Any]) -> Any:
    """:param value: gives a field's or trait's value by its name."""
    return _Evaluation(value).of(ast.parse(formula.strip(), mode="eval").body)


class _Evaluation:
    def __init__(self, value: Callable[[str], Any]) -> None:
        self._value = value

    def of(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=value):
                return _number(value)
            case ast.Name(id=name):
                return _NAMED[name] if name in _NAMED else _number(self._value(name))
            case ast.IfExp(test=test, body=body, orelse=orelse):
                return self.of(body) if self._true(test) else self.of(orelse)
            case ast.BoolOp(op=op, values=parts):
                return (all if isinstance(op, ast.And) else any)(self._true(part) for part in parts)
            case ast.UnaryOp(op=op, operand=inner):
                return self._not(inner) if isinstance(op, ast.Not) else _if_all(operator.neg, self.of(inner))
            case ast.BinOp(left=left, op=op, right=right):
                return _if_all(_ARITHMETIC[type(op)], self.of(left), self.of(right))
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                return self._compare(op, self.of(left), self.of(right))
            case ast.Call(func=ast.Name(id=name), args=args):
                return _FUNCTIONS[name](*map(self.of, args))
        raise AssertionError(ast.dump(node))

    def _not(self, node: ast.expr) -> bool:
        return not self._true(node)

    def _true(self, node: ast.expr) -> bool:
        return self.of(node) is True

    def _compare(self, op: ast.cmpop, left: Any, right: Any) -> bool | None:
        if isinstance(op, ast.Is | ast.IsNot):
            return (left is right) == isinstance(op, ast.Is)
        return _if_all(_COMPARED[type(op)], left, right)


def _number(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | str | date) else float(value)


def _if_all(function: Callable[..., Any], *values: Any) -> Any:
    return None if None in values else function(*values)


def _round(value: float, places: float = 0) -> float | None:
    if value is None:
        return None
    return float(Decimal(repr(value)).quantize(Decimal(1).scaleb(-int(places)), ROUND_HALF_UP))


def _known(values: tuple[Any, ...]) -> list[Any]:
    return [value for value in values if value is not None]


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": lambda value: _if_all(abs, value),
    "round": _round,
    "floor": lambda value: _if_all(lambda v: float(math.floor(v)), value),
    "ceil": lambda value: _if_all(lambda v: float(math.ceil(v)), value),
    "least": lambda *values: min(_known(values), default=None),
    "greatest": lambda *values: max(_known(values), default=None),
    "coalesce": lambda *values: next(iter(_known(values)), None),
    "length": lambda text: _if_all(lambda t: float(len(t)), text),
    "lower": lambda text: _if_all(str.lower, text),
    "upper": lambda text: _if_all(str.upper, text),
    "concat": lambda *texts: _if_all(lambda *parts: "".join(parts), *texts),
}
