# SPDX-License-Identifier: Apache-2.0
"""Calls of Segment's spec: batches unwrapped, clocks corrected, one record per call."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import orjson
import pyarrow as pa
from pydantic import Field

from cdp_provider.core.exceptions import ConfigurationError, DataError
from cdp_provider.core.ingest.messages import parsed
from cdp_provider.core.project.base import Options
from cdp_provider.core.project.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

    from cdp_provider.core.ingest.base import Fetched, RawFile

CallType = Literal["identify", "track", "page", "screen", "group", "alias"]
_TYPES = frozenset(("identify", "track", "page", "screen", "group", "alias"))

#: What a call cannot do without, besides an id of somebody.
_NEEDED = {"track": ("event",), "group": ("groupId",), "alias": ("previousId", "userId")}

#: Mappings that a batch shares with its calls key by key.
_MERGED = ("context", "integrations")

#: A write key is a credential: it goes nowhere.
_DROPPED = ("batch", "writeKey")


class EventOptions(Options):
    """What streams say whose records may be calls of Segment's spec.

    :param spec: ``segment``: records are calls, or batches of them, and are made uniform before they are
        typed.
    :param types: only calls of these types; the others of the source are left to other streams.
    """

    spec: Literal["segment"] | None = None
    types: tuple[CallType, ...] | None = Field(default=None, min_length=1)

    def stream_problems(self, stream: Any) -> Iterator[Problem]:
        yield from super().stream_problems(stream)
        if self.types and not self.spec:
            yield Problem(("types",), "types are those of calls of Segment's spec", "add 'spec: segment'")
        form = getattr(self, "format", None)
        if self.spec and form not in (None, "json", "ndjson"):
            yield Problem(("spec",), f"calls are JSON, but the format is {form}", "use ndjson or json")


@dataclass
class _Counts:
    calls: int = 0
    batches: int = 0
    other_types: int = 0


def as_calls(options: EventOptions, fetched: Fetched, spool: Path) -> Fetched:
    """What was fetched, one line per call if the stream's ``spec`` says so; else as it is.

    A line that is no JSON object stays as it came, so that parsing can quarantine it. So does, after a word
    why, a call that nobody could use: of an unknown type, of nobody, without what its type needs.

    :param spool: a folder for the new files.
    :raises ConfigurationError: the files are not NDJSON.
    :raises DataError: a compressed file is damaged.
    """
    if options.spec is None:
        return fetched
    counts, files = _Counts(), []
    wanted = frozenset(options.types or _TYPES)
    for number, file in enumerate(fetched.files):
        target = spool / f"calls_{number:06d}.ndjson"
        with _opened(file) as lines, target.open("wb") as out:
            for line in lines:
                out.writelines(_lines(line, wanted, counts))
        file.path.unlink()
        files.append(replace(file, path=target, compression=""))
    return replace(fetched, files=files, detail={**fetched.detail, **vars(counts)})


@contextmanager
def _opened(file: RawFile) -> Iterator[BinaryIO | io.BufferedReader]:
    if file.format != "ndjson":
        msg = (
            f"{file.source} is {file.format}, but calls of Segment's spec are JSON; use format ndjson or json"
        )
        raise ConfigurationError(msg)
    try:
        if file.compression == "gzip":
            with gzip.open(file.path) as opened:
                yield opened  # type: ignore[misc]
        elif file.compression == "zstd":
            with pa.input_stream(str(file.path), compression="zstd") as opened:
                yield io.BufferedReader(opened)
        else:
            with file.path.open("rb") as opened:
                yield opened
    except (gzip.BadGzipFile, EOFError, zlib.error, pa.ArrowException) as error:
        msg = (
            f"{file.source} is not a whole {file.compression} file ({type(error).__name__}); upload it again"
        )
        raise DataError(msg) from error


def _lines(line: bytes, wanted: frozenset[str], counts: _Counts) -> Iterator[bytes]:
    """The lines that one line becomes. A call of another type leaves a blank one, so that lines keep their
    numbers."""
    try:
        found = parsed(line)
    except orjson.JSONDecodeError:
        yield _unreadable(line) + b"\n"
        return
    if not isinstance(found, dict):
        yield line.rstrip(b"\r\n") + b"\n"
        return
    for call in _unwrapped(found, counts):
        if isinstance(call, dict) and _type(call) in _TYPES - wanted:
            counts.other_types += 1
            yield b"\n"
            continue
        counts.calls += 1
        yield _uniform(call) + b"\n"


def _unreadable(line: bytes) -> bytes:
    """The line as it came, for parsing to refuse; what parsing might take for a call is refused here."""
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return line.rstrip(b"\r\n")
    return orjson.dumps(["holds a number or a character that no engine can", line.decode().rstrip()])


def _unwrapped(found: dict[str, Any], counts: _Counts) -> Iterator[Any]:
    """The calls of a batch, each with what the batch says for all of them; a call by itself is its own."""
    if "batch" not in found or "type" in found:
        yield found
        return
    counts.batches += 1
    if not isinstance(found["batch"], list):
        yield found
        return
    shared = {key: value for key, value in found.items() if key not in _DROPPED}
    for call in found["batch"]:
        yield _over(shared, call) if isinstance(call, dict) else call


def _over(shared: dict[str, Any], call: dict[str, Any]) -> dict[str, Any]:
    merged = {**shared, **{key: value for key, value in call.items() if value is not None}}
    for key in _MERGED:
        if isinstance(shared.get(key), dict) and isinstance(call.get(key), dict):
            merged[key] = {**shared[key], **call[key]}
    # The product's own keys say where the message came from, and no sender overrides them.
    return merged | {key: value for key, value in shared.items() if key.startswith("_")}


def _uniform(call: Any) -> bytes:
    """The call as a record, or as a line that parsing refuses."""
    if fault := _fault(call):
        return orjson.dumps([fault, call])
    record = {key: value for key, value in call.items() if key not in _DROPPED}
    if record["type"] != "track":
        record["event"] = record["type"]
    if record["type"] == "alias" and record["previousId"] == record.get("anonymousId"):
        # Said already, and better: as the anonymous id that it is.
        del record["previousId"]
    if record["type"] == "group" and "traits" in record:
        # They describe the group: its address is no identifier of all its members.
        record["groupTraits"] = record.pop("traits")
    record.update(_moments(record))
    return orjson.dumps(record)


def _fault(call: Any) -> str | None:
    """Why nobody could use the call."""
    if not isinstance(call, dict):
        return "a batch holds something that is no call"
    kind = _type(call)
    if kind not in _TYPES:
        return "no call of a type that Segment's spec knows"
    missing = [key for key in _NEEDED.get(kind, ()) if not _given(call.get(key))]
    if missing:
        return f"a call of type {kind} without {' and '.join(missing)}"
    if not _given(call.get("userId")) and not _given(call.get("anonymousId")):
        return "a call of nobody: it has neither userId nor anonymousId"
    return None


def _type(call: dict[str, Any]) -> str:
    kind = call.get("type")
    return kind if isinstance(kind, str) else ""


def _given(value: Any) -> bool:
    if isinstance(value, str):
        return bool(value.strip())
    return isinstance(value, int | float) and not isinstance(value, bool)


def _moments(call: dict[str, Any]) -> dict[str, Any]:
    """When it was made by the client's clock, when it arrived, and when it was made by the receiver's clock:
    as long before its arrival as it waited, by the client's clock, to be sent.

    Nothing is made after it arrived. Where a moment is missing or none, the next best counts.
    """
    original = call.get("originalTimestamp") or call.get("timestamp")
    arrived = call.get("receivedAt") or call.get("_received_at") or call.get("_timestamp")
    best = original or arrived or call.get("sentAt")
    found = {"originalTimestamp": original, "receivedAt": arrived, "timestamp": best}
    made, sent, received = _moment(original), _moment(call.get("sentAt")), _moment(arrived)
    if made and sent and received:
        try:
            corrected = min(received - (sent - made), received)
        except OverflowError:
            corrected = received
        found["timestamp"] = corrected.isoformat().replace("+00:00", "Z")
    return {key: value for key, value in found.items() if value is not None}


def _moment(value: Any) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
