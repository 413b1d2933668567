# SPDX-License-Identifier: Apache-2.0
"""Files in a folder or an object store: what changed, or all there is, as CSV, NDJSON or Parquet."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, date, datetime
from decimal import Decimal
from io import BytesIO
from typing import TYPE_CHECKING, Any, Literal, cast

import pyarrow as pa
from pyarrow import csv, parquet
from pydantic import Field

from cdp_provider.core.activation.destinations.base import ACCEPTED, Capabilities, DestinationKind
from cdp_provider.core.activation.destinations.fit import (
    field_problems,
    operation_problems,
    parameter_problems,
)
from cdp_provider.core.activation.encoding import text as text_of
from cdp_provider.core.exceptions import AccessError, NotFoundError, UnavailableError
from cdp_provider.core.project.base import Options
from cdp_provider.core.project.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cdp_provider.core.activation.destinations.base import Line, Operation, Outcome, Record
    from cdp_provider.core.project.activation import Destination, Sync

_OPERATIONS: frozenset[Operation] = frozenset({"upsert", "insert", "update", "remove", "archive", "event"})
_PLACE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_OWN_PLACES = frozenset({"sync", "date", "time", "batch"})

#: Columns beside the key and the mapped fields.
_OPERATION, _EVENT, _TIME = "_operation", "_event", "_time"

#: The warehouse's decimals fit into this, so all files of a sync agree.
_DECIMAL = pa.decimal128(38, 6)


class FileOptions(Options):
    """Files.

    :param path: below the connection's folder. ``{sync}``, ``{date}`` and ``{time}`` (of the window's end, in
        UTC) and ``{batch}`` are filled in, other places by the sync's parameters.
    :param content: ``changes``: records that changed, each with its ``_operation``; ``snapshot``: all records
        at each run.
    :param key: name of the column that holds the key.
    """

    path: str = Field(default="{sync}/{date}/{batch}", pattern=r"^[^/]")
    format: Literal["csv", "ndjson", "parquet"] = "ndjson"
    content: Literal["changes", "snapshot"] = "changes"
    key: str = Field(default="key", min_length=1)

    def model_post_init(self, context: Any, /) -> None:
        """Refuse a path that would overwrite its own files, or leave the folder."""
        if "{batch}" not in self.path or ".." in self.path.split("/"):
            msg = f"the path {self.path!r} needs a place {{batch}} and no '..', so that each batch is a file"
            raise ValueError(msg)

    def sync_problems(self, sync: Sync) -> Iterator[Problem]:
        """A snapshot of a mode that is about changes, a place that nothing fills, a column twice."""
        operations: frozenset[Operation] = frozenset({"upsert"})
        yield from operation_problems(sync, operations if self.content == "snapshot" else _OPERATIONS)
        yield from parameter_problems(sync, self.places() - _OWN_PLACES)
        yield from field_problems(sync, (self.key, _OPERATION, _EVENT, _TIME))
        for name, value in sync.parameters.items():
            if "/" in value or value in ("", ".", ".."):
                message = f"{value!r} is no name of a file or folder"
                yield Problem(("parameters", name), message, "use a name without slashes")


class File(DestinationKind):
    """Each batch is a file, whose name is the same for each try of the batch."""

    options = FileOptions
    transport = "files"
    connection_types = ("fs", "file", "aws", "google_cloud_platform", "wasb", "adls")

    def __init__(self, destination: Destination, sync: Sync) -> None:
        super().__init__(destination, sync)
        self._options = cast("FileOptions", destination.options)

    @property
    def capabilities(self) -> Capabilities:
        snapshot = self._options.content == "snapshot"
        operations: frozenset[Operation] = frozenset({"upsert"}) if snapshot else _OPERATIONS
        return Capabilities(operations, max_batch=20_000, snapshot=snapshot)

    def item(self, operation: Operation, record: Record) -> Any:
        row: dict[str, Any] = {self._options.key: record.key, **record.fields}
        if self._options.content == "changes":
            row[_OPERATION] = operation
        if operation == "event":
            row[_EVENT] = self.sync.event or self.sync.segment
            row[_TIME] = record.time or record.intended
        return row

    async def deliver(
        self, line: Line, operation: Operation, records: Sequence[Record], items: Sequence[bytes]
    ) -> list[Outcome]:
        path = self._path(line.idempotency_key, records)
        await asyncio.to_thread(self._write, line.target, path, operation, records, items)
        return [ACCEPTED] * len(records)

    def _path(self, key: str, records: Sequence[Record]) -> str:
        end = max(record.intended for record in records).astimezone(UTC)
        values = {
            **self.sync.parameters,
            "sync": self.sync.name,
            "date": f"{end:%Y-%m-%d}",
            "time": f"{end:%Y%m%dT%H%M%SZ}",
            "batch": key,
        }
        path = _PLACE.sub(lambda place: values[place[1]], self._options.path)
        suffix = f".{self._options.format}"
        return path if path.endswith(suffix) else path + suffix

    def _write(
        self, folder: Any, path: str, operation: Operation, records: Sequence[Record], items: Sequence[bytes]
    ) -> None:
        content = self._content(operation, records, items)
        target = folder / path
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if getattr(target, "protocol", "") not in ("", "file", "local"):
                # An object is there when it is there as a whole.
                _put(target, content)
                return
            part = target.parent / f".{target.name}.part"
            _put(part, content)
            part.replace(target)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            msg = f"{path}: {type(error).__name__}; check the folder of the connection and the path"
            raise NotFoundError(msg) from None
        except PermissionError:
            msg = f"{path}: we may not write there; check the rights of the worker's user or of the key"
            raise AccessError(msg) from None
        except OSError as error:
            msg = f"{path}: {error.strerror or type(error).__name__}; try again later"
            raise UnavailableError(msg) from None

    def _content(self, operation: Operation, records: Sequence[Record], items: Sequence[bytes]) -> bytes:
        if self._options.format == "ndjson":
            return b"".join(item + b"\n" for item in items)
        rows = [self.item(operation, record) for record in records]
        own = [] if self._options.content == "snapshot" else [_OPERATION]
        own += [_EVENT, _TIME] if self.sync.mode == "event" else []
        names = [self._options.key, *self.sync.fields, *own]
        text = self._options.format == "csv"
        columns = {name: [row.get(name) for row in rows] for name in names}
        if not text:
            # A type made up for it would contradict the other files of the sync.
            columns = {name: values for name, values in columns.items() if values != [None] * len(values)}
        table = pa.table({name: _column(values, text=text) for name, values in columns.items()})
        content = BytesIO()
        if text:
            csv.write_csv(table, content)
        else:
            parquet.write_table(table, content)
        return content.getvalue()


def _column(values: list[Any], *, text: bool) -> pa.Array:
    """Values of one type; as JSON has them where `text` is wanted, or where Parquet has no such type."""
    kinds = {type(value) for value in values if value is not None}
    if len(kinds) == 1 and kinds <= {bool, int, float, str, date}:
        return pa.array(values)
    if kinds == {datetime} and not text:
        return pa.array(values, pa.timestamp("us", "UTC"))
    if kinds == {Decimal} and not text:
        return pa.array(values, _DECIMAL)
    return pa.array([None if value is None else text_of(value) for value in values], pa.string())


def _put(path: Any, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
