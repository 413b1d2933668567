# SPDX-License-Identifier: Apache-2.0
"""One JSON document into NDJSON: its records are cut out byte for byte, so that no digit changes."""

from __future__ import annotations

import json
import mmap
import re
from typing import TYPE_CHECKING, NoReturn

from cdp_provider.core.exceptions import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Possessive: a quantifier that may go back keeps a place for each step of a document of gigabytes.
_STRING = rb'"[^"\\\x00-\x1f]*+(?:\\[^\x00-\x1f][^"\\\x00-\x1f]*+)*+"'
_TO_BRACKET = re.compile(rb'[^"\[\]{}]*+(?:' + _STRING + rb'[^"\[\]{}]*+)*+([\[\]{}])')
_NAME = re.compile(_STRING)
_PLAIN = rb'(?:[^"\[\]{}]++|' + _STRING + rb")"
_FLAT = rb"[\[{]" + _PLAIN + rb"*+[\]}]"
_NESTED = rb"[\[{](?:" + _PLAIN + rb"|" + _FLAT + rb")*+[\]}]"
#: What nearly all records are, in one step: an object that is nested three deep at the most.
_USUAL = re.compile(rb"([\[{](?:" + _PLAIN + rb"|" + _NESTED + rb")*+[\]}])[ \t\r\n]*+,[ \t\r\n]*+")
_SCALAR = re.compile(_STRING + rb'|[^\s",:\[\]{}]++')
_SPACE = re.compile(rb"[ \t\r\n]*+")
_BREAK = re.compile(rb"[\r\n]+")
_BOM = b"\xef\xbb\xbf"


def write_records(document: Path, target: Path, *, source: str, records: str = "") -> None:
    """Write each record of a JSON document as a line of `target`.

    Whether a record is sound is not looked at: it becomes a line, and lines are judged where they are read.

    :param document: the unpacked file.
    :param source: its name, for messages.
    :param records: dotted path of the list of records; empty when the document is the list.
    :raises DataError: the document is cut short, is no JSON around its records, or has no list there.
    """
    if not document.stat().st_size:
        msg = f"{source} is empty, which is no JSON document; upload it again"
        raise DataError(msg)
    with (
        document.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        target.open("wb") as lines,
    ):
        for record in _Document(data, source).records(records):
            # Outside of strings a line break is white space, and inside of them there is none.
            lines.write(_BREAK.sub(b" ", record) + b"\n")


class _Document:
    """Finds its way through the bytes of a document."""

    def __init__(self, data: mmap.mmap, source: str) -> None:
        self._data = data
        self._source = source

    def records(self, path: str) -> Iterator[bytes]:
        """The text of each record."""
        names = path.split(".") if path else []
        at = self._skip(len(_BOM) if self._data[: len(_BOM)] == _BOM else 0)
        for name in names:
            at = self._value_of(name, at, path)
        if self._byte(at) != b"[":
            where = f"at {path!r}" if path else "as the whole document"
            msg = f"{self._source} has no list of records {where}; correct `records` of the stream"
            raise DataError(msg)
        at = self._skip(at + 1)
        while self._byte(at) != b"]":
            if usual := _USUAL.match(self._data, at):
                yield usual[1]
                at = self._item(usual.end())
                continue
            end = self._end(at)
            yield self._data[at:end]
            at = self._following(end, b"]")
        self._finish(at + 1, len(names))

    def _value_of(self, name: str, at: int, path: str) -> int:
        """Where the value of a member of the object at `at` starts."""
        if self._byte(at) == b"{":
            at = self._skip(at + 1)
            while self._byte(at) != b"}":
                found = _NAME.match(self._data, at)
                if not found:
                    self._broken(at)
                at = self._skip(found.end())
                if self._byte(at) != b":":
                    self._broken(at)
                at = self._skip(at + 1)
                if self._is(found[0], name):
                    return at
                at = self._following(self._end(at), b"}")
        msg = f"{self._source} has no {name!r} on the way to {path!r}; correct `records` of the stream"
        raise DataError(msg)

    def _is(self, text: bytes, name: str) -> bool:
        try:
            return bool(json.loads(text) == name)
        except ValueError:  # no UTF-8, or an escape that JSON does not know
            return False

    def _following(self, at: int, close: bytes) -> int:
        """Where the next value starts after one that ended at `at`, or its container ends."""
        at = self._skip(at)
        if self._byte(at) == close:
            return at
        if self._byte(at) != b",":
            self._broken(at)
        return self._item(self._skip(at + 1))

    def _item(self, at: int) -> int:
        """Refuse a container that ends after a comma."""
        if self._byte(at) in (b"]", b"}"):
            self._broken(at)
        return at

    def _end(self, at: int) -> int:
        """Where the value that starts at `at` ends."""
        if self._byte(at) in (b"{", b"["):
            return self._closed(at, 0)
        scalar = _SCALAR.match(self._data, at)
        if not scalar:
            self._broken(at)
        return scalar.end()

    def _closed(self, at: int, depth: int) -> int:
        """Where `depth` open brackets, and those that open from `at` on, are closed."""
        while True:
            found = _TO_BRACKET.match(self._data, at)
            if not found:
                self._broken(at)
            at = found.end()
            depth += 1 if found[1] in b"[{" else -1
            if depth == 0:
                return at

    def _finish(self, at: int, depth: int) -> None:
        """Refuse a document that ends too early, or goes on."""
        at = self._skip(self._closed(at, depth) if depth else at)
        if at < len(self._data):
            self._broken(at)

    def _skip(self, at: int) -> int:
        space = _SPACE.match(self._data, at)
        return space.end() if space else at

    def _byte(self, at: int) -> bytes:
        return self._data[at : at + 1]

    def _broken(self, at: int) -> NoReturn:
        where = f"after {at} bytes" if at < len(self._data) else "at its end: it looks cut short"
        msg = f"{self._source} is no whole JSON document, {where}; upload it again"
        raise DataError(msg)
