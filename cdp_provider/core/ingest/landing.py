# SPDX-License-Identifier: Apache-2.0
"""Landing: a batch of a stream into its raw table, as a whole or not at all.

A batch belongs to a stream and a window. Landed again, it replaces itself and keeps its place in the order of
arrival. Fetching and parsing happen with no session open; one transaction then writes rows, quarantine, file
ledger, batch ledger and report.

Where a batch starts reading: where it started before, if it was landed before. Else where the newest batch
that did not fail ended, unless an earlier one failed its check and no later one has read its stretch again:
then where that one started. So the rows of a failed batch come back with the next window; so do its files.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from cdp_provider.core import tables
from cdp_provider.core.ingest import raw
from cdp_provider.core.ingest.parse import Parsed, parse
from cdp_provider.core.runs import Report, reported
from cdp_provider.core.warehouse.base import without_empty_chunks

if TYPE_CHECKING:
    from datetime import datetime

    from cdp_provider.core.ingest.base import Connector, Cursor, Fetched, FileKey
    from cdp_provider.core.project.streams import Stream
    from cdp_provider.core.run import Run
    from cdp_provider.core.warehouse import Session, Warehouse


@dataclass(frozen=True)
class _Start:
    """What a batch begins with, as the ledgers tell."""

    cursor: Cursor | None
    taken: frozenset[FileKey]


def land(warehouse: Warehouse, stream: Stream, connector: Connector, run: Run) -> Report:
    """Bring the stream's new rows of this window into its raw table; the batch then waits for its check.

    :returns: rows read, landed and quarantined; ``detail``: the batch, what the connector counted,
        ``duplicates`` (rows whose primary key occurs more than once in the batch), ``unknown_keys``.
    :raises CdpError: whatever the connector meets; the tables are then as they were.
    """
    with reported(warehouse, run, "land", stream.ref) as report:
        with warehouse.session() as session:
            tables.ensure(session)
            raw.check(session, stream)
            start = _start(session, stream, run)
        with tempfile.TemporaryDirectory(prefix="cdp_") as spool:
            fetched = connector.fetch(stream, start.cursor, run.window, Path(spool), taken=start.taken)
            parsed = parse(stream, fetched.files)
        batch = _Batch(stream, run, fetched, parsed, start)
        batch.describe(report)
        with warehouse.session() as session, session.lock("landing"), session.transaction():
            raw.ensure(session, stream)
            batch.write(session)
            report.write(session)
    return report


def _start(session: Session, stream: Stream, run: Run) -> _Start:
    loads, files = session.warehouse.table("loads"), session.warehouse.table("files")
    names = {"stream": stream.ref, "batch_id": run.batch_id(stream.ref)}
    taken = session.fetch(
        f"select f.path, f.size, f.checksum from {files} f join {loads} l on l.load_id = f.load_id"
        " where f.stream = :stream and l.batch_id <> :batch_id and l.state <> 'failed'",
        names,
    )
    own = session.one(f"select cursor_before from {loads} where batch_id = :batch_id", names)
    cursor = own or _uncovered(session, names) or _newest(session, names)
    text = cursor[0] if cursor else None
    return _Start(json.loads(text) if text else None, frozenset(taken))


def _uncovered(session: Session, names: dict[str, Any]) -> tuple[Any, ...] | None:
    """Where the oldest failed batch started whose stretch no later batch has read."""
    loads = session.warehouse.table("loads")
    return session.one(
        f"select f.cursor_before from {loads} f where f.stream = :stream and f.state = 'failed'"
        f" and not exists (select 1 from {loads} l where l.stream = f.stream and l.state <> 'failed'"
        " and l.load_id > f.load_id and l.cursor_before is not distinct from f.cursor_before)"
        " order by f.load_id limit 1",
        names,
    )


def _newest(session: Session, names: dict[str, Any]) -> tuple[Any, ...] | None:
    return session.one(
        f"select cursor_after from {session.warehouse.table('loads')}"
        " where stream = :stream and state <> 'failed' order by load_id desc limit 1",
        names,
    )


@dataclass
class _Batch:
    """A fetched and parsed batch on its way into the warehouse."""

    stream: Stream
    run: Run
    fetched: Fetched
    parsed: Parsed
    start: _Start

    def describe(self, report: Report) -> None:
        """Put the counts into the report."""
        report.rows_in = self.parsed.read
        report.rows_out = self.parsed.rows.num_rows
        report.rows_refused = self.parsed.bad.num_rows
        report.bytes = self.fetched.bytes
        report.watermark = self.watermark()
        report.detail = {
            "batch": self.run.batch_id(self.stream.ref),
            **self.fetched.detail,
            "duplicates": self.parsed.duplicates,
            "unknown_keys": self.parsed.unknown,
        }

    def watermark(self) -> datetime | None:
        """Time of the newest row that does not lie in the window's future."""
        if self.stream.time is None:
            return None
        times = self.parsed.rows[self.stream.time]
        end = pa.scalar(self.run.window.end, times.type)
        newest: datetime | None = pc.max(times.filter(pc.less(times, end))).as_py()
        return newest

    def write(self, session: Session) -> None:
        """Replace the batch's rows, in the caller's transaction."""
        load_id, load_seq, resolved = self._place(session)
        key = {"load_id": load_id}
        for name in (self.stream.raw_table, "quarantine", "files", "loads"):
            column = "_load_id" if name == self.stream.raw_table else "load_id"
            session.execute(f"delete from {session.warehouse.table(name)} where {column} = :load_id", key)
        _append(session, self.stream.raw_table, self.parsed.rows, {"_load_id": load_id})
        if self.parsed.rows.num_rows:
            session.analyze(session.warehouse.table(self.stream.raw_table))
        self._write_quarantine(session, load_id)
        self._write_files(session, load_id)
        self._write_load(session, {"load_id": load_id, "load_seq": load_seq, **resolved})

    def _place(self, session: Session) -> tuple[int, int, dict[str, Any]]:
        """The batch's id, its window's place in the order of arrival, and what identity knows of it.

        The caller holds the lock "landing".
        """
        loads = session.warehouse.table("loads")
        row = session.one(
            f"select load_id, load_seq, resolved_seq, resolved_hash from {loads} where batch_id = :batch_id",
            {"batch_id": self.run.batch_id(self.stream.ref)},
        )
        if row:
            return row[0], row[1], {"resolved_seq": row[2], "resolved_hash": row[3]}
        load_seq = session.scalar(
            f"select load_seq from {loads} where pipeline = :pipeline and window_end = :end"
            " and window_start is not distinct from cast(:start as timestamp with time zone) limit 1",
            {"pipeline": self.run.pipeline, "start": self.run.window.start, "end": self.run.window.end},
        )
        newest = session.one(f"select coalesce(max(load_id), 0), coalesce(max(load_seq), 0) from {loads}")
        last_id, last_seq = newest or (0, 0)
        return last_id + 1, load_seq or last_seq + 1, {"resolved_seq": None, "resolved_hash": None}

    def _write_quarantine(self, session: Session, load_id: int) -> None:
        facts = {
            "load_id": load_id,
            "stream": self.stream.ref,
            "run_id": self.run.run_id,
            "window_start": self.run.window.start,
            "window_end": self.run.window.end,
        }
        _append(session, "quarantine", self.parsed.bad, facts)

    def _write_files(self, session: Session, load_id: int) -> None:
        """Take the files over, from a failed batch too."""
        keys = [file.key for file in self.fetched.files if file.key]
        if not keys:
            return
        files = session.warehouse.table("files")
        table = pa.table(
            [[key[i] for key in keys] for i in range(3)],
            schema=pa.schema({"path": pa.string(), "size": pa.int64(), "checksum": pa.string()}),
        )
        new = session.temp("incoming_files", table)
        session.execute(
            f"delete from {files} where stream = :stream"
            f" and (path, checksum) in (select path, checksum from {new})",
            {"stream": self.stream.ref},
        )
        _append(session, "files", table, {"stream": self.stream.ref, "load_id": load_id})

    def _write_load(self, session: Session, facts: dict[str, Any]) -> None:
        values = {
            **facts,
            "batch_id": self.run.batch_id(self.stream.ref),
            "pipeline": self.run.pipeline,
            "stream": self.stream.ref,
            "run_id": self.run.run_id,
            "window_start": self.run.window.start,
            "window_end": self.run.window.end,
            "cursor_before": _text(self.start.cursor),
            "cursor_after": _text(self.fetched.cursor),
            "rows_read": self.parsed.read,
            "rows_landed": self.parsed.rows.num_rows,
            "rows_quarantined": self.parsed.bad.num_rows,
            "bytes": self.fetched.bytes,
            "watermark": self.watermark(),
            "content_hash": content_hash(self.parsed.rows),
            "state": "landed",
        }
        names = list(tables.TABLES["loads"])
        session.execute(
            f"insert into {session.warehouse.table('loads')} ({', '.join(names)})"
            f" values ({', '.join(':' + name for name in names)})",
            values,
        )


def content_hash(rows: pa.Table) -> str:
    """SHA-256 of the rows' names, values and order."""
    digest = _Digest()
    pa_csv.write_csv(without_empty_chunks(rows), pa.PythonFile(digest, mode="w"))
    return digest.hexdigest()


class _Digest:
    """A file that only remembers the hash of what was written to it."""

    closed = False

    def __init__(self) -> None:
        self._sha = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self._sha.update(data)
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        self.closed = True

    def hexdigest(self) -> str:
        return self._sha.hexdigest()


def _append(session: Session, table: str, rows: pa.Table, constants: dict[str, Any]) -> None:
    for name, value in constants.items():
        rows = rows.append_column(name, pa.repeat(pa.scalar(value, _arrow_type(table, name)), rows.num_rows))
    session.load(session.warehouse.table(table), rows)


def _arrow_type(table: str, name: str) -> pa.DataType:
    kind = tables.TABLES.get(table, {}).get(name, "integer").rstrip("!")
    return {"integer": pa.int64(), "timestamp": pa.timestamp("us", tz="UTC")}.get(kind, pa.string())


def _text(cursor: Cursor | None) -> str | None:
    return None if cursor is None else json.dumps(cursor, sort_keys=True)
