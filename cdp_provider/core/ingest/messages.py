# SPDX-License-Identifier: Apache-2.0
"""Messages of any bytes into lines of NDJSON that say where each came from."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import orjson

from cdp_provider.core.ingest.conversion import quote_long_numbers
from cdp_provider.core.ingest.lines import BOM

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

#: A number that is too long for a machine has a run of so many digits and points. Most lines have none, and
#: to look for that costs a tenth of looking for the number.
_DIGITS, _RUN = bytes.maketrans(b"123456789.", b"0" * 10), b"0" * 12

#: Outside of strings JSON takes them for spaces, and inside it knows no raw ones.
_BREAKS = bytes.maketrans(b"\r\n", b"  ")


def parsed(text: bytes) -> Any:
    """The JSON, in which a number that is too long for a machine is a text, digit for digit.

    :raises orjson.JSONDecodeError: it is none.
    """
    return orjson.loads(quote_long_numbers(text) if _RUN in text.translate(_DIGITS) else text)


def lines_of(value: bytes, about: Mapping[str, Any], reserved: Collection[str] = ()) -> Iterator[bytes]:
    """One line per record of a message: its JSON object, or each object of its JSON array.

    What is neither becomes one line that parsing puts into quarantine, whole. So does an object that itself
    has one of the keys that are added, for nobody could tell whose is whose.

    :param about: keys that every record gets, such as ``_offset``; JSON-serialisable.
    :param reserved: keys that a message must not have besides those.
    """
    text = value.removeprefix(BOM).strip()
    if text[:1] == b"{":
        yield _object(text, about, reserved)
        return
    members = _members(text) if text[:1] == b"[" else None
    if members is None:
        yield refused("neither a JSON object nor an array of objects", about, value)
        return
    for member in members:
        yield _object(orjson.dumps(member), about, reserved)


def refused(reason: str, about: Mapping[str, Any], value: bytes) -> bytes:
    """A line that is no record, for parsing to put into quarantine: the reason, where it stood, the value.

    Bytes that are no UTF-8 are written in base64.
    """
    try:
        shown: Any = value.decode()
    except UnicodeDecodeError:
        shown = {"base64": base64.b64encode(value).decode()}
    return orjson.dumps([reason, dict(about), shown])


def _members(text: bytes) -> list[dict[str, Any]] | None:
    """The objects of a JSON array; None when it is none, or has other members too."""
    try:
        members = parsed(text)
    except orjson.JSONDecodeError:
        return None
    return members if all(isinstance(member, dict) for member in members) else None


def _object(text: bytes, about: Mapping[str, Any], reserved: Collection[str]) -> bytes:
    """The object with more keys, digit for digit: it is not parsed, and what is malformed stays so."""
    if taken := _taken(text, {*about, *reserved}):
        return refused(f"has the reserved key {taken}", about, text)
    body = text[1:].translate(_BREAKS)
    added = orjson.dumps(dict(about))
    if added == b"{}":
        return b"{" + body
    return added[:-1] + (b"" if body.lstrip().startswith(b"}") else b",") + body


def _taken(text: bytes, reserved: Collection[str]) -> str | None:
    # An escape may spell any letter, so its presence counts as a suspicion.
    if b'"_' not in text and b"\\u00" not in text:
        return None
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return min((key for key in found if key in reserved), default=None)
