# SPDX-License-Identifier: Apache-2.0
"""Formulas as SQL: the same value on every engine, and never an error over what the data hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdp_provider.core.exceptions import ConfigurationError
from cdp_provider.core.project.formula import FormulaError, Term, read_formula
from cdp_provider.core.project.typing import NUMERIC

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cdp_provider.core.profiles.params import Params
    from cdp_provider.core.warehouse import Warehouse

_SYMBOLS = {op: op for op in ("+", "-", "*", "/", "<", "<=", ">", ">=")} | {"==": "=", "!=": "<>"}
_LARGEST_INTEGER = "9223372036854775808.0"
_LARGEST_DECIMAL = "1e22"


def compile_formula(
    text: str,
    kinds: Mapping[str, str],
    column: Callable[[str], str],
    params: Params,
    wanted: str = "number",
) -> str:
    """SQL of a formula's value, of the engine's type for `wanted`; NULL where it is missing.

    An ``integer`` is rounded half away from zero, a ``decimal`` to 6 places likewise; one that has no place
    in its type is missing.

    :param kinds: column type of every field and trait.
    :param column: gives the SQL of a field or trait.
    :param wanted: column type of the result (``as``).
    :raises ConfigurationError: it is no formula, names what is not there, or its types do not fit.
    """
    try:
        term = read_formula(text, kinds, wanted)
    except FormulaError as error:
        msg = f"the formula {text!r} cannot be computed: {error}"
        raise ConfigurationError(msg) from None
    return _as(_Writer(kinds, column, params).sql(term), wanted, params.warehouse)


def as_number(sql: str, kind: str, warehouse: Warehouse) -> str:
    """SQL of a value of a numeric column type, as a number that can be calculated with."""
    if kind == "number":
        return warehouse.in_range(sql)
    return f"cast({sql} as {warehouse.types['number']})"


def _as(sql: str, wanted: str, warehouse: Warehouse) -> str:
    if wanted == "integer":
        rounded = f"cast({warehouse.rounded(sql, 0)} as {warehouse.types['integer']})"
        return f"case when abs({sql}) < {_LARGEST_INTEGER} then {rounded} end"
    if wanted == "decimal":
        return f"case when abs({sql}) < {_LARGEST_DECIMAL} then {warehouse.as_decimal(sql)} end"
    return sql


class _Writer:
    """Writes terms as SQL in which every number is finite and no zero has a sign.

    Each term's SQL is in its whole's once: a formula's length decides over the statement's.
    """

    def __init__(self, kinds: Mapping[str, str], column: Callable[[str], str], params: Params) -> None:
        self._kinds, self._column, self._params = kinds, column, params
        self._warehouse = params.warehouse

    def sql(self, term: Term) -> str:
        parts = [self.sql(part) for part in term.parts]
        match term.op:
            case "constant":
                return self._constant(term)
            case "name":
                return self._name(str(term.value))
            case "is none" | "is not none":
                return f"({parts[0]} {term.op.replace('none', 'null')})"
            case "and" | "or":
                return "(" + f" {term.op} ".join(_holds(part) for part in parts) + ")"
            case "not":
                return f"(not {_holds(parts[0])})"
            case "if":
                return f"(case when {parts[0]} then {parts[1]} else {parts[2]} end)"
        return self._binary(term, *parts) if term.op in _SYMBOLS else self._function(term, parts)

    def _constant(self, term: Term) -> str:
        if term.value is None:
            return "null"
        if term.kind == "boolean":
            return str(term.value).lower()
        return self._params.bind(term.value, term.kind)

    def _zero(self) -> str:
        return self._params.bind(0.0, "number")

    def _name(self, name: str) -> str:
        kind, sql = self._kinds[name], self._column(name)
        return as_number(sql, kind, self._warehouse) if kind in NUMERIC else sql

    def _binary(self, term: Term, left: str, right: str) -> str:
        if term.op == "/":
            return self._warehouse.quotient(left, right)
        if term.parts[0].kind == "string" and term.op not in ("==", "!="):
            left, right = self._warehouse.byte_order(left), self._warehouse.byte_order(right)
        found = f"({left} {_SYMBOLS[term.op]} {right})"
        return self._warehouse.in_range(found) if term.op == "*" else found

    def _function(self, term: Term, parts: list[str]) -> str:
        match term.op:
            case "negative":
                # Not "-x": zero would become negative.
                return f"({self._zero()} - {parts[0]})"
            case "round":
                return self._warehouse.rounded(parts[0], int(term.value or 0))
            case "ceil":
                return f"({self._zero()} - floor({self._zero()} - {parts[0]}))"
            case "least" | "greatest":
                return self._extreme(term, parts)
            case "length":
                return f"cast(length({parts[0]}) as {self._warehouse.types['number']})"
            case "upper":
                # Engines differ in the one letter whose capital is two.
                return f"upper(replace({parts[0]}, 'ß', 'SS'))"
            case "concat":
                return f"({' || '.join(parts)})"
        return f"{term.op}({', '.join(parts)})"

    def _extreme(self, term: Term, parts: list[str]) -> str:
        if term.kind == "string":
            ordered = ", ".join(self._warehouse.byte_order(part) for part in parts)
            return self._warehouse.usual_order(f"{term.op}({ordered})")
        return f"{term.op}({', '.join(parts)})"


def _holds(condition: str) -> str:
    return f"coalesce({condition}, false)"
