# SPDX-License-Identifier: Apache-2.0
"""Statements that a project brings along: what stands in them, and what no warehouse could run."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Part: TypeAlias = Literal["code", "quoted", "note", "place", "parameter"]

#: Read like warehouse.base.bind_names does, so that nothing is a text to the one and code to the other.
_TOKENS = re.compile(
    r"""(?P<quoted>'(?:[^']|'')*'|"(?:[^"]|"")*")
      | (?P<note>--[^\n]*|/\*.*?\*/)
      | (?P<cast>::)
      | :(?P<parameter>[A-Za-z_][A-Za-z0-9_]*)
      | \{\s*(?P<place>[A-Za-z_][A-Za-z0-9_.]*)\s*\}""",
    re.VERBOSE | re.DOTALL,
)

#: Spellings that engines end elsewhere than `_TOKENS` does.
_ESCAPES = re.compile(r"\b[eE]$")
_WORD = re.compile(r"\s*\(*\s*([A-Za-z]+)")
_CHANGES = re.compile(r"[()]\s*(insert|update|delete|merge)\b|\b(into)\b", re.IGNORECASE)


def places(sql: str) -> list[str]:
    """Names of the ``{places}`` of a statement, each once, in order: ``profiles``, ``web.events``."""
    return list(dict.fromkeys(text for part, text in _parts(sql) if part == "place"))


def filled(sql: str, place: Callable[[str], str], now: str) -> str:
    """The statement with SQL in its places. It must be free of faults, by :func:`sql_fault`.

    Comments are left out, and a semicolon at the end, so that it can stand within other SQL.

    :param place: SQL for the name of a place.
    :param now: SQL for ``:now``.
    """
    fixed = {"parameter": now, "note": " "}
    text = "".join(place(text) if part == "place" else fixed.get(part, text) for part, text in _parts(sql))
    return text.strip().removesuffix(";").rstrip()


def sql_fault(sql: str) -> str | None:
    """Why a statement cannot be one ``select``, and what to do; None when it may be."""
    code = ""
    for part, text in _parts(sql):
        if part == "parameter" and text != "now":
            return f"there is no parameter :{text}, only :now; after any other colon put a space"
        if part == "quoted" and _ESCAPES.search(code):
            return "texts with E'...' are not taken; write '...', and '' for a quote within"
        if part == "note" and "/*" in text[2:]:
            return "a comment holds another one; remove it"
        code += {"code": text, "note": " ", "parameter": "0"}.get(part, " x ")
    return _code_fault(code)


def _code_fault(code: str) -> str | None:
    """What is wrong with a statement whose texts, names and places are replaced."""
    if "$" in code:
        return "a dollar sign begins neither a text nor a parameter here; write '...' or :now"
    for mark, name in (("'", "single quote"), ('"', "double quote"), ("/*", "comment")):
        if mark in code:
            return f"a {name} is not closed"
    statement = code.strip().removesuffix(";").rstrip()
    if not statement:
        return "it is empty; write a select"
    if ";" in statement:
        return "it holds several statements; write one select"
    first = _WORD.match(statement)
    if first is None or first[1].lower() not in ("select", "with"):
        return f"it begins with {statement.split()[0][:20]!r}; write a select, or with ... select"
    if first[1].lower() == "with" and not re.search(r"\bselect\b", statement, re.IGNORECASE):
        return "nothing is selected; write with ... select"
    if change := _CHANGES.search(statement):
        return f"{(change[1] or change[2]).lower()!r} would change a table; only select"
    return _parenthesis_fault(statement)


def _parenthesis_fault(code: str) -> str | None:
    depth = 0
    for sign in re.findall(r"[()]", code):
        depth += 1 if sign == "(" else -1
        if depth < 0:
            return "a parenthesis is closed that was not opened"
    return "a parenthesis is not closed" if depth else None


def _parts(sql: str) -> Iterator[tuple[Part, str]]:
    """The statement in order; of a place and a parameter the name only."""
    end = 0
    kinds: tuple[Part, ...] = ("quoted", "note", "place", "parameter")
    for match in _TOKENS.finditer(sql):
        if before := sql[end : match.start()]:
            yield "code", before
        found = next((kind for kind in kinds if match[kind] is not None), None)
        yield (found, match[found]) if found else ("code", match[0])
        end = match.end()
    if rest := sql[end:]:
        yield "code", rest
