# SPDX-License-Identifier: Apache-2.0
"""What must become of a broken file, worked out character by character in plain Python.

Nothing of the product is used here: rules come from the docstrings of ``conversion.py`` and
``delimited.py``. Where these leave it open whether a value is of its type, both are accepted; what is
landed must be the value then.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal, InvalidOperation, localcontext
from typing import Any, NamedTuple

#: A value that is none of its type.
BAD = object()
COLUMNS = {
    "id": "string",
    "i": "integer",
    "n": "number",
    "d": "decimal",
    "b": "boolean",
    "day": "date",
    "at": "timestamp",
    "j": "json",
    "s": "string",
}
_BLANK = " \t\r\n"
_DEEPEST = 200
_TOLERANCE = Decimal("0.0000005000001")


class Near(NamedTuple):
    """A number that may be rounded at its sixth place."""

    exact: Decimal


class Numeral(NamedTuple):
    """A text that reads as this number."""

    value: Decimal


class Same(NamedTuple):
    """JSON text of this value; numbers too long for a machine may be strings."""

    value: Any


@dataclass(frozen=True)
class Expected:
    """One record of a file.

    :param line: where it starts, from 1.
    :param raw: its text.
    :param values: by column, what may be landed, :data:`BAD` included; None: the record is bad as a whole.
    :param extra: what no column takes; None where it is not looked at.
    """

    line: int
    raw: str
    values: dict[str, list[Any]] | None = None
    extra: dict[str, Any] | None = None

    @property
    def may_land(self) -> bool:
        return self.values is not None and all(any(v is not BAD for v in vs) for vs in self.values.values())

    @property
    def must_land(self) -> bool:
        return self.values is not None and not any(v is BAD for vs in self.values.values() for v in vs)

    def agrees(self, row: dict[str, Any]) -> bool:
        """Whether a landed row is this record."""
        return self.values is not None and all(
            any(_equal(row[name], value) for value in accepted) for name, accepted in self.values.items()
        )


def _equal(landed: Any, wanted: Any) -> bool:
    if isinstance(wanted, Near):
        return isinstance(landed, Decimal) and abs(landed - wanted.exact) <= _TOLERANCE
    if isinstance(wanted, Numeral):
        return isinstance(landed, str) and _reads_as(landed, wanted.value)
    if isinstance(wanted, Same):
        return isinstance(landed, str) and same_json(_loads(landed), wanted.value)
    return type(landed) is type(wanted) and landed == wanted


def _reads_as(text: str, number: Decimal) -> bool:
    if not _NUMBER.fullmatch(text):
        return False
    return Decimal(text) == number or (len(text) < 18 and float(text) == float(number))


def same_json(landed: Any, given: Any) -> bool:
    """Equality of JSON values whose numbers were read as :class:`Decimal`."""
    if isinstance(given, Decimal) and not isinstance(landed, bool):
        if isinstance(landed, str):  # too long for a machine, and kept digit for digit
            return _reads_as(landed, given)
        return isinstance(landed, Decimal) and (landed == given or float(landed) == float(given))
    if isinstance(given, dict):
        return (
            isinstance(landed, dict)
            and landed.keys() == given.keys()
            and all(same_json(landed[key], value) for key, value in given.items())
        )
    if isinstance(given, list):
        return (
            isinstance(landed, list)
            and len(landed) == len(given)
            and all(same_json(a, b) for a, b in zip(landed, given, strict=True))
        )
    return type(landed) is type(given) and bool(landed == given)


def _split(data: bytes) -> list[bytes]:
    """The file's lines with their ends; a byte order mark at its very start is no part of the text."""
    data = data.removeprefix(b"\xef\xbb\xbf")
    parts = data.split(b"\n")
    found = [part + b"\n" for part in parts[:-1]]
    return [*found, parts[-1]] if parts[-1] else found


def readable(record: bytes) -> str:
    """How the quarantine shows a record."""
    return record.rstrip(b"\r\n").decode(errors="backslashreplace").replace("\x00", "\\x00")


# NDJSON


def expected_of_ndjson(data: bytes) -> tuple[list[Expected], int]:
    """The records of a file, and how many lines it has."""
    lines = _split(data)
    found = [
        _json_record(number, line)
        for number, line in enumerate(lines, 1)
        if line.decode(errors="replace").strip(_BLANK)
    ]
    return found, len(lines)


def _json_record(number: int, line: bytes) -> Expected:
    raw = readable(line)
    try:
        text = line.decode().strip(_BLANK)
        if _depth(text) > _DEEPEST:
            return Expected(number, raw)
        record = _loads(text)
    except ValueError:
        return Expected(number, raw)
    if not isinstance(record, dict) or _unstorable(record):
        return Expected(number, raw)
    values = {name: _of_json(kind, record.get(name)) for name, kind in COLUMNS.items()}
    values["id"] = [BAD if value is None or _blank(value) else value for value in values["id"]]
    extra = {key: value for key, value in record.items() if key not in COLUMNS}
    if _doubled(text):
        # Which of two members counts, JSON does not say; to refuse the record is as good as the last one.
        values = {name: [*accepted, BAD] for name, accepted in values.items()}
    return Expected(number, raw, values, extra)


def _blank(value: Any) -> bool:
    return isinstance(value, str) and not value.strip(" ")


def _loads(text: str) -> Any:
    def refuse(constant: str) -> Any:
        raise ValueError(constant)

    try:
        return json.loads(text, parse_constant=refuse, parse_float=_decimal, parse_int=_decimal)
    except (RecursionError, InvalidOperation) as error:
        raise ValueError(text[:20]) from error


def _decimal(number: str) -> Decimal:
    exponent = re.split("[eE]", number)[1] if re.search("[eE]", number) else "0"
    if len(exponent) > 6 or abs(int(exponent)) > 1000:
        raise ValueError(number)
    return Decimal(number)


def _doubled(text: str) -> bool:
    found = False

    def look(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal found
        found |= len({key for key, _ in pairs}) < len(pairs)
        return dict(pairs)

    json.loads(text, object_pairs_hook=look)
    return found


def _depth(text: str) -> int:
    depth = deepest = 0
    inside = escaped = False
    for character in text:
        if inside:
            inside = escaped or character != '"'
            escaped = character == "\\" and not escaped
        elif character == '"':
            inside = True
        elif character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth -= 1
    return deepest


def _unstorable(value: Any) -> bool:
    """NUL characters, and halves of surrogate pairs: no text of any engine."""
    if isinstance(value, str):
        return "\x00" in value or any("\ud800" <= c <= "\udfff" for c in value)
    if isinstance(value, dict):
        return any(_unstorable(key) or _unstorable(item) for key, item in value.items())
    return isinstance(value, list) and any(map(_unstorable, value))


def _of_json(kind: str, value: Any) -> list[Any]:
    """What may be landed of a JSON value."""
    if value is None:
        return [None]
    if kind == "json":
        return [Same(value)]
    if isinstance(value, dict | list):
        return [BAD]
    if isinstance(value, bool):
        return of_text(kind, "true" if value else "false")
    if isinstance(value, Decimal):
        return _of_number(kind, value)
    return of_text(kind, value)


def _of_number(kind: str, value: Decimal) -> list[Any]:
    """A number of JSON: the same in whatever notation; a text of it may be written in another one."""
    plain = format(value, "f") if abs(value.adjusted()) < 400 else str(value)
    notations = [plain, str(value), *([repr(float(value))] if math.isfinite(float(value)) else [])]
    if kind == "string":
        return [Numeral(value)]
    found: list[Any] = []
    for notation in notations:
        found += of_text(kind, notation)
    return found


# CSV


def expected_of_csv(data: bytes, width: int, header: list[str]) -> tuple[list[Expected], int]:
    """The records of a file after its header line, and how many lines it has, header included."""
    lines = _split(data)
    found, at = [], 1
    while at < len(lines):
        if not lines[at].strip(_BLANK.encode()):
            at += 1
            continue
        taken, cells = _csv_record(lines, at, width)
        raw = b"".join(lines[at : at + taken])
        found.append(_csv_expected(at + 1, raw, cells, header))
        at += taken
    return found, len(lines)


def _csv_expected(
    line: int, raw: bytes, cells: list[tuple[bytes, bool]] | None, header: list[str]
) -> Expected:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return Expected(line, readable(raw))
    if cells is None or b"\x00" in raw:
        return Expected(line, readable(raw))
    by_name = dict(zip(header, cells, strict=True))
    values = {}
    for name, kind in COLUMNS.items():
        content, quoted = by_name.get(name, (b"", False))
        values[name] = [None] if not content and not quoted else of_text(kind, content.decode())
    values["id"] = [BAD if value is None or _blank(value) else value for value in values["id"]]
    extra = {
        name: cell[0].decode() if cell[0] or cell[1] else None
        for name, cell in by_name.items()
        if name not in COLUMNS
    }
    return Expected(line, readable(raw), values, extra)


def _csv_record(lines: list[bytes], at: int, width: int) -> tuple[int, list[tuple[bytes, bool]] | None]:
    """How many lines the record takes, and its cells, each with whether it was quoted; None if it is broken.

    A record that does not work out is its first line alone.
    """
    text, cells, content = b"".join(lines[at:]), [], bytearray()
    place, state = 0, "start"  # of a field; or inside "plain", "quoted", or after the "closed" quote
    while True:
        one = text[place : place + 1]
        two = text[place : place + 2]
        if state == "quoted":
            if not one:
                return 1, None
            if two == b'""':
                content += b'"'
                place += 2
                continue
            if one == b'"':
                state = "closed"
            else:
                content += one
            place += 1
            continue
        ends = one in (b"", b"\n") or two in (b"\r\n", b"\r")
        if ends or one == b",":
            cells.append((bytes(content), state == "closed"))
            content, state = bytearray(), "start"
            if not ends:
                place += 1
                continue
            taken = text[:place].count(b"\n") + 1
            return (taken, cells) if len(cells) == width else (1, None)
        if state == "start" and one == b'"':
            state = "quoted"
        elif state == "closed" or one in (b'"', b"\r"):
            return 1, None
        else:
            state = "plain"
            content += one
        place += 1


# Texts as values

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_CLOCK = r"(?P<h>[0-9]{2}):(?P<m>[0-9]{2})(:(?P<s>[0-9]{2})([.,](?P<f>[0-9]+))?)?"
_ZONE = r"(?P<z>[Zz]|[+-][0-9]{2}(:?[0-9]{2})?)?"
_MOMENT = re.compile(rf"(?P<day>[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}})([Tt ]{_CLOCK}{_ZONE})?")


def of_text(kind: str, text: str) -> list[Any]:
    """What may be landed of a text; more than one value where the rules leave it open."""
    if kind == "string":
        return [text]
    if kind == "json":
        return _json_text(text)
    bare = text.strip(" ")
    found = _typed(kind, bare)
    # Whether white space around a value is part of it, nobody said.
    return [*found, BAD] if bare != text else found


def _typed(kind: str, text: str) -> list[Any]:
    if kind == "boolean":
        words = {**dict.fromkeys(("true", "t", "yes", "y", "1"), True)}
        words |= dict.fromkeys(("false", "f", "no", "n", "0"), False)
        return [words.get(text.lower(), BAD)]
    if kind in ("date", "timestamp"):
        return [_moment(kind, text)]
    if not text.isascii() or not _NUMBER.fullmatch(text):
        return [BAD]
    if kind == "integer":
        if not re.fullmatch(r"[+-]?[0-9]+(\.0*)?", text):
            # A whole number in another notation.
            with localcontext() as context:
                context.prec = 500
                value = Decimal(text) if len(text) < 400 else Decimal("0.5")
            whole = abs(value.adjusted()) < 30 and value == value.to_integral_value()
            return [int(value), BAD] if whole and -(2**63) <= value < 2**63 else [BAD]
        number = int(text.split(".")[0])
        long = len(text.lstrip("+-").split(".")[0]) > 40
        if not -(2**63) <= number < 2**63:
            return [BAD]
        return [number, BAD] if long else [number]
    if kind == "number":
        value = float(text)
        exponent = re.split("[eE]", text)[1] if re.search("[eE]", text) else ""
        odd = len(exponent.lstrip("+-")) > 4
        return ([value, BAD] if odd else [value]) if math.isfinite(value) else [BAD]
    return _decimal_text(text)


def _decimal_text(text: str) -> list[Any]:
    exponent = re.split("[eE]", text)[1] if re.search("[eE]", text) else "0"
    if len(exponent) > 6:
        return [Near(Decimal(0)), BAD]
    value = Decimal(text)
    if value and value.adjusted() >= 22:
        return [BAD]
    if not value or value.adjusted() < -300 or abs(int(exponent)) > 300:
        return [Near(value), BAD] if abs(int(exponent)) > 30 else [Near(value)]
    return [Near(value)] if abs(int(exponent)) < 20 else [Near(value), BAD]


def _moment(kind: str, text: str) -> Any:
    match = _MOMENT.fullmatch(text)
    if not match or not text.isascii():
        return BAD
    parts = match.groupdict()
    try:
        day = date.fromisoformat(parts["day"])
        moment = datetime.combine(day, datetime.min.time())
        if parts["h"] is not None:
            fraction = int((parts["f"] or "0")[:6].ljust(6, "0"))
            moment = moment.replace(
                hour=int(parts["h"]),
                minute=int(parts["m"]),
                second=int(parts["s"] or 0),
                microsecond=fraction,
            )
        offset = _offset(parts["z"])
        if kind == "date":
            midnight = moment == datetime.combine(day, datetime.min.time()) and not int(parts["f"] or 0)
            return day if midnight and not offset else BAD
        return moment.replace(tzinfo=timezone(offset)).astimezone(UTC)
    except (ValueError, OverflowError):
        return BAD


def _offset(zone: str | None) -> timedelta:
    if not zone or zone in "Zz":
        return timedelta(0)
    digits = zone[1:].replace(":", "").ljust(4, "0")
    hours, minutes = int(digits[:2]), int(digits[2:])
    if hours > 15 or minutes > 59:
        raise ValueError(zone)
    return timedelta(hours=hours, minutes=minutes) * (-1 if zone[0] == "-" else 1)


def _json_text(text: str) -> list[Any]:
    """A text that must be JSON itself."""
    try:
        if _depth(text) > _DEEPEST:
            return [BAD]
        value = _loads(text)
    except ValueError:
        return [BAD]
    return [BAD] if _unstorable(value) else [Same(value)]
