# SPDX-License-Identifier: Apache-2.0
"""What a Singer tap prints: its records as lines of NDJSON, and the state that comes after them."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import orjson

from cdp_provider.core.exceptions import ConfigurationError, DataError
from cdp_provider.core.ingest.messages import parsed, refused

if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import BinaryIO

#: What taps write behind a record.
_TAIL = re.compile(
    rb'(?:,\s*"(?:time_extracted|version)"\s*:\s*(?:"[^"\\]*"|\d+|null))*\s*\}$',
)
#: Longer than any record that could be landed.
_LONGEST = 64_000_000
_DELETED_AT = "_sdc_deleted_at"


class Messages:
    """Takes messages as they come and writes the records of one stream.

    A record goes on byte for byte, so its numbers keep their digits; a line that is no message becomes one
    that parsing puts into quarantine.

    :param names: what the tap may call the stream.
    :param deletions: a record with ``_sdc_deleted_at`` says that its row is gone.
    :param what: prints them, for messages.
    """

    def __init__(self, names: Collection[str], file: BinaryIO, *, deletions: bool, what: str) -> None:
        self._names, self._file, self._deletions, self._what = frozenset(names), file, deletions, what
        self._before: list[bytes] = []
        self._length = 0
        self._line = 0
        self._starts = tuple(
            form.encode()
            for name in map(json.dumps, sorted(names))
            for form in (
                f'{{"type": "RECORD", "stream": {name}, "record": ',
                f'{{"type":"RECORD","stream":{name},"record":',
            )
        )
        #: Records of the stream.
        self.records = 0
        #: Lines that are no message.
        self.refused = 0
        #: Records of other streams.
        self.skipped = 0
        #: Bytes that were printed.
        self.bytes = 0
        #: Streams that spoke.
        self.streams: set[str] = set()
        #: The last one that was told.
        self.state: dict[str, Any] | None = None

    def feed(self, piece: bytes) -> None:
        """Take the next piece of what was printed.

        :raises DataError: a line is endless.
        """
        self.bytes += len(piece)
        first, *lines = piece.split(b"\n")
        self._before.append(first)
        self._length += len(first)
        if self._length > _LONGEST:
            limit = f"{_LONGEST / 1e6:.0f} MB"
            msg = (
                f"{self._what} prints a line of more than {limit}, which is too long for a record; look at it"
            )
            raise DataError(msg)
        if lines:
            self._take(b"".join(self._before))
            *lines, last = lines
            for line in lines:
                self._take(line)
            self._before, self._length = [last], len(last)

    def end(self) -> None:
        """Nothing more will come."""
        self.feed(b"\n")

    def _take(self, line: bytes) -> None:
        self._line += 1
        line = line.strip()
        if line.startswith(self._starts):
            record = self._cut(line)
            if record is not None:
                self._write(record)
                return
        if line:
            self._read(line)

    def _cut(self, line: bytes) -> bytes | None:
        """The record of a line that starts as usual; None if the line does not end as usual."""
        start = next(len(start) for start in self._starts if line.startswith(start))
        end = line.rfind(b"}", start, -1) + 1
        if not end or _TAIL.match(line, end) is None:
            return None
        record = line[start:end]
        try:
            value = orjson.loads(record)
        except orjson.JSONDecodeError:
            return None
        return self._marked(record, value) if isinstance(value, dict) else None

    def _marked(self, record: bytes, value: dict[str, Any]) -> bytes:
        if self._deletions and value.get(_DELETED_AT):
            return b'{"_deleted":true,' + record[1:]
        return record

    def _write(self, record: bytes) -> None:
        self.records += 1
        self._file.write(record + b"\n")

    def _read(self, line: bytes) -> None:
        """Any message, as JSON says it."""
        try:
            message = parsed(line)
        except orjson.JSONDecodeError:
            message = None
        kind = message.get("type") if isinstance(message, dict) else None
        if not isinstance(kind, str):
            self._refuse("no message of Singer", line)
        elif kind.upper() == "STATE":
            self._keep(json.loads(line).get("value"))
        elif kind.upper() == "BATCH":
            msg = f"{self._what} gives its records in files (BATCH); take batch_config out of its config"
            raise ConfigurationError(msg)
        elif kind.upper() in ("RECORD", "SCHEMA"):
            self._of_stream(kind.upper(), message, line)

    def _of_stream(self, kind: str, message: dict[str, Any], line: bytes) -> None:
        name, record = message.get("stream"), message.get("record")
        self.streams.add(str(name))
        if kind == "SCHEMA":
            return
        if name not in self._names:
            self.skipped += 1
        elif isinstance(record, dict):
            self._write(self._marked(orjson.dumps(record), record))
        else:
            self._refuse("a record that is no JSON object", line)

    def _keep(self, state: Any) -> None:
        if not isinstance(state, dict):
            msg = f"{self._what} tells a state that is no JSON object, in line {self._line}; it has to be one"
            raise DataError(msg)
        self.state = state

    def _refuse(self, reason: str, line: bytes) -> None:
        self.refused += 1
        self._file.write(refused(reason, {"line": self._line}, line) + b"\n")
