# SPDX-License-Identifier: Apache-2.0
"""Text into typed values, as DuckDB expressions that are NULL where the text is not of the type.

DuckDB's own casts are generous (``'4.2'`` is the integer 4, ``'1_000'`` is 1000, ``'2024-1-1'`` a date), so
a pattern decides what may be cast.

=========  =====================================================================================
integer    digits with an optional sign and an optional ``.0``; 64 bits
number     decimal or scientific notation; finite
decimal    the same; 22 digits before the point; rounded to six places after it
boolean    true/false, t/f, yes/no, y/n, 1/0 in any case
date       ``2026-07-01``; a midnight behind it is allowed
timestamp  ISO 8601 to the minute or finer, or a date alone; no zone means UTC; microseconds.
           A bare number is no timestamp: nobody can tell seconds from milliseconds
json       any JSON
=========  =====================================================================================
"""

from __future__ import annotations

import json
import re
from typing import Any

import pyarrow as pa

#: What the typed table looks like in Arrow.
ARROW: dict[str, pa.DataType] = {
    "string": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "decimal": pa.decimal128(28, 6),
    "boolean": pa.bool_(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us", tz="UTC"),
    "json": pa.string(),
}

#: How a reason names the type.
NOUNS: dict[str, str] = {
    "string": "a string",
    "integer": "an integer",
    "number": "a number",
    "decimal": "a decimal",
    "boolean": "a boolean",
    "date": "a date",
    "timestamp": "a timestamp",
    "json": "JSON",
}

_INTEGER = r"[+-]?[0-9]{1,40}(\.0*)?"
_NUMBER = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,4})?"
_DATE = r"(000[1-9]|00[1-9][0-9]|0[1-9][0-9]{2}|[1-9][0-9]{3})-[0-9]{2}-[0-9]{2}"
_MIDNIGHT = r"([Tt ]00:00(:00(\.0+)?)?([Zz]|[+-]00(:?00)?)?)?"
_CLOCK = r"([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9]([.,][0-9]+)?)?"
_ZONE = r"([Zz]|[+-](0[0-9]|1[0-5])(:?[0-5][0-9])?)?"
_TIMESTAMP = rf"{_DATE}([Tt ]{_CLOCK}{_ZONE})?"
#: Layouts in which most timestamps are written: told by their signs alone, for a tenth of what the pattern
#: costs; the cast then sees to the digits.
_USUAL = (
    "____-__-__T__:__:__Z",
    "____-__-__T__:__:__.___Z",
    "____-__-__T__:__:__.______Z",
    "____-__-__T__:__:__+00:00",
    "____-__-__T__:__:__.______+00:00",
    "____-__-__ __:__:__+00",
    "____-__-__ __:__:__.______+00",
)
#: Microseconds in a unit of a timestamp that is a number.
_UNITS = {"unix": 1_000_000, "unix_ms": 1_000}


def convert(kind: str, text: str, form: str | None = None) -> str:
    """SQL that turns the text expression `text` into a column type.

    :param form: ``unix`` or ``unix_ms`` for timestamps that are numbers.
    """
    trimmed = f"trim({text})"

    def where(pattern: str, value: str) -> str:
        return f"case when regexp_full_match({trimmed}, '{pattern}') then {value} end"

    # What is written just as DuckDB would write it needs no look at its signs.
    if kind == "integer":
        whole = f"split_part({trimmed}, '.', 1)"
        plain = f"try_cast({text} as bigint)"
        odd = f"try_cast({where(_INTEGER, whole)} as bigint)"
        return f"case when cast({plain} as varchar) = {text} then {plain} else {odd} end"
    if kind == "number":
        plain, odd = f"try_cast({text} as double)", f"try_cast({where(_NUMBER, trimmed)} as double)"
        value = f"case when cast({plain} as varchar) = {text} then {plain} else {odd} end"
        return f"case when isfinite({value}) then {value} end"
    if kind == "decimal":
        plain = f"try_cast({text} as decimal(28, 6))"
        odd = f"try_cast({where(_NUMBER, trimmed)} as decimal(28, 6))"
        same = f"starts_with(cast({plain} as varchar), {text}) and {text} <> ''"
        return f"case when {same} then {plain} else {odd} end"
    if kind == "boolean":
        return (
            f"case when {text} = 'true' then true when {text} = 'false' then false"
            f" when lower({trimmed}) in ('true', 't', 'yes', 'y', '1') then true"
            f" when lower({trimmed}) in ('false', 'f', 'no', 'n', '0') then false end"
        )
    if kind == "date":
        day = f"left({trimmed}, 10)"
        return f"try_cast({where(_DATE + _MIDNIGHT, day)} as date)"
    if kind == "timestamp" and form:
        number = f"try_cast({where(_NUMBER, trimmed)} as decimal(28, 6)) * {_UNITS[form]}"
        return _in_years(f"make_timestamptz(try_cast(round({number}, 0) as bigint))")
    if kind == "timestamp":
        moment = f"replace(upper({trimmed}), ',', '.')"
        usual = " or ".join(f"{text} like '{layout}'" for layout in _USUAL)
        usual = f"({usual}) and substr({text}, 12, 2) between '00' and '23'"
        written = f"case when {usual} then {text} else {where(_TIMESTAMP, moment)} end"
        return _in_years(f"try_cast({written} as timestamptz)")
    if kind == "json":
        return f"case when json_valid({text}) then {text} end"
    return text


def _in_years(value: str) -> str:
    """SQL of a timestamp that every engine can hold: of the years 1 to 9999; NULL for others."""
    return (
        f"case when {value} >= timestamptz '0001-01-01 00:00:00+00'"
        f" and {value} < timestamptz '10000-01-01 00:00:00+00' then {value} end"
    )


#: Numbers that a double cannot hold to six places after the point, or that 64 bits cannot hold.
_LONG_NUMBER = r"([0-9]{19}|(9|[0-9]{2})[0-9]{9}\.[0-9]|[0-9.]{17}[eE])"

#: DuckDB is kinder than RFC 8259 and PostgreSQL is not: NaN, commas before a closing bracket, NUL characters,
#: exponents beyond any number. Text that matches *may* hold one of these, or a long number, and is looked at
#: by :func:`strict` and :func:`quote_long_numbers`.
SUSPECT = (
    r"\\u0000"
    r"|,\s*[\]}]"
    r"|[:\[,]\s*[+-]?[nNiI][aAnN]"
    r"|[:\[,]\s*-?[0-9.]+[eE][+-]?[0-9]{4}"
    rf"|[:\[,]\s*-?[0-9.]*{_LONG_NUMBER}"
)
#: Engines parse JSON recursively; beyond this they would run out of stack.
MAX_DEPTH = 200

_BRACKET = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)
_LONG = re.compile(_LONG_NUMBER.encode())
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|-?[0-9][0-9.eE+-]*', re.DOTALL)


def quote_long_numbers(text: bytes) -> bytes:
    """JSON in which numbers too long for a machine number are strings, digit for digit."""
    if not _LONG.search(text):
        return text

    def quoted(match: re.Match[bytes]) -> bytes:
        token = match[0]
        return b'"' + token + b'"' if token[:1] != b'"' and _LONG.search(token) else token

    return _TOKEN.sub(quoted, text)


def strict(text: str) -> str | None:
    """Why `text`, which DuckDB takes for JSON, is none that every engine can hold; None when it is fine."""
    if _depth(text) > MAX_DEPTH:
        return f"JSON nested more than {MAX_DEPTH} deep"
    try:
        value = json.loads(text, parse_constant=_refuse, parse_float=_in_range)
    except ValueError:
        return "malformed JSON"
    return "holds a NUL character" if _holds_nul(value) else None


def _depth(text: str) -> int:
    """The deepest nesting; brackets inside strings do not count."""
    depth = deepest = 0
    for token in _BRACKET.finditer(text):
        if token[0] in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif token[0] in "]}":
            depth -= 1
    return deepest


def _refuse(constant: str) -> Any:
    msg = f"{constant} is no JSON"
    raise ValueError(msg)


def _in_range(number: str) -> float:
    exponent = re.split("[eE]", number)[-1] if "e" in number.lower() else "0"
    if abs(int(exponent)) > 1000:
        msg = "no engine holds a number of that size"
        raise ValueError(msg)
    return float(number)


def _holds_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\x00" in value
    if isinstance(value, dict):
        return any("\x00" in key or _holds_nul(item) for key, item in value.items())
    return isinstance(value, list) and any(map(_holds_nul, value))
