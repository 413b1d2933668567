# SPDX-License-Identifier: Apache-2.0
"""Landing: a batch of a stream into its raw table, as a whole or not at all.

A batch belongs to a stream and a window. Landed again, it replaces itself and keeps its place in the order of
arrival. Fetching happens with no session open. Then one transaction takes in the rows, as they are parsed,
and writes quarantine, file ledger, batch ledger and report.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pyarrow as pa

from cdp_provider.core import tables
from cdp_provider.core.ingest import drift, raw, retention
from cdp_provider.core.ingest.batches import Start, begin, cursor_text, place_of, standing
from cdp_provider.core.ingest.parse import Parsing
from cdp_provider.core.ingest.whole import Broken
from cdp_provider.core.runs import Report, reported

if TYPE_CHECKING:
    from cdp_provider.core.ingest.base import Connector, Fetched
    from cdp_provider.core.ingest.batches import Place
    from cdp_provider.core.project.streams import Stream
    from cdp_provider.core.run import Run
    from cdp_provider.core.warehouse import Session, Warehouse

#: Bytes that a warehouse inside this process takes; rows stream through it.
_MEMORY = 256_000_000
_FILES = pa.schema(
    {"path": pa.string(), "size": pa.int64(), "checksum": pa.string(), "modified": pa.string()}
)


def land(warehouse: Warehouse, stream: Stream, connector: Connector, run: Run) -> Report:
    """Bring the stream's new rows of this window into its raw table; the batch then waits for its check.

    A batch of a source that can't be read again stays as it is once it was landed.

    :returns: rows read, landed and quarantined; ``detail``: the batch, what the connector counted,
        ``duplicates`` (rows whose primary key occurs more than once in the batch), ``unknown_keys``, ``gone``
        (rows that are deleted at the source), ``expired`` (rows beyond the stream's retention).
    :raises CdpError: whatever the connector meets; the tables are then as they were.
    """
    with reported(warehouse, run, "land", stream.ref) as report:
        with warehouse.session() as session:
            tables.ensure(session)
            raw.check(session, stream)
            known = drift.evolved(session, stream)
            start = begin(session, stream, run, rereadable=connector.rereadable)
            if start.landed and not connector.rereadable:
                standing(session, report, run.batch_id(stream.ref))
                with session.transaction():
                    report.write(session)
        if start.landed and not connector.rereadable:
            if start.until is not None:
                connector.confirm(stream, start.until)
            return report
        with tempfile.TemporaryDirectory(prefix="cdp_") as folder:
            spool = Path(folder)
            fetched = connector.fetch(
                stream, start.cursor, run.window, spool, taken=start.taken, until=start.until
            )
            batch = Batch(stream, run, fetched, start, spool, known)
            batch.land(warehouse, report)
        if fetched.cursor is not None:
            connector.confirm(stream, fetched.cursor)
    return report


@dataclass
class Batch:
    """A fetched batch on its way into the warehouse.

    :param known: columns that drift has given the raw table before.
    """

    stream: Stream
    run: Run
    fetched: Fetched
    start: Start
    spool: Path
    known: tuple[str, ...] = ()

    #: The batch's state in the ledger; nobody reads it before its check.
    state: ClassVar[str] = "landed"

    def __post_init__(self) -> None:
        self.parsing = self._parsing(exact=False)

    def _parsing(self, *, exact: bool) -> Parsing:
        widened = drift.widened(self.stream, self.known)
        files, end = self.fetched.files, self.run.window.end
        return Parsing(widened, files, self.spool, end=end, loose=self.known, exact=exact)

    @property
    def batch_id(self) -> str:
        """Its name, the same in every try."""
        return self.run.batch_id(self.stream.ref)

    def land(self, warehouse: Warehouse, report: Report) -> None:
        """Write it, and the report that speaks of it."""
        try:
            with (
                warehouse.session() as session,
                session.bounded(_MEMORY),
                session.lock("landing"),
                session.transaction(),
            ):
                raw.ensure(session, self.stream, self.known)
                self.write(session, report)
                report.write(session)
        except Exception as error:
            failure = self.parsing.failure
            if isinstance(failure, Broken):
                self.parsing = self._parsing(exact=True)
                self.land(warehouse, report)
            elif failure is not None and failure is not error:
                raise failure from error
            else:
                raise

    def write(self, session: Session, report: Report) -> Place:
        """Replace the batch's rows, in the caller's transaction; say in the report what came of it."""
        place = place_of(session, self.stream, self.run, self.batch_id)
        self._clear(session, place)
        table = session.warehouse.table(self.stream.raw_table)
        session.load(table, self.parsing.rows({"_load_id": place.load_id}))
        gone = self._bury(session, place) if self.fetched.complete else 0
        new = drift.evolve(session, self.stream, self.parsing.all_unknown, place.load_id)
        if new:
            raw.ensure(session, self.stream, (*self.known, *new))
        if self.parsing.landed:
            session.analyze(table)
        self._write_quarantine(session, place.load_id)
        self._write_files(session, place)
        self._write_load(session, place)
        expired = retention.expire(session, self.stream, self.run.window.end)
        self._describe(report, gone, new, expired)
        return place

    def _clear(self, session: Session, place: Place) -> None:
        for name in (self.stream.raw_table, "quarantine", "files", "loads"):
            column = "_load_id" if name == self.stream.raw_table else "load_id"
            session.execute(
                f"delete from {session.warehouse.table(name)} where {column} = :load_id",
                {"load_id": place.load_id},
            )

    def _bury(self, session: Session, place: Place) -> int:
        """Add a deletion for each row that the batch, which has all there are, has not."""
        warehouse, quote = session.warehouse, session.warehouse.quote
        keys = ", ".join(map(quote, self.stream.primary_key))
        same = " and ".join(f"r.{quote(key)} = v.{quote(key)}" for key in self.stream.primary_key)
        table = warehouse.table(self.stream.raw_table)
        after = self.parsing.last_position
        # Rows that are not shown yet, because their batch failed, must not come up later either.
        session.execute(
            f"insert into {table} ({keys}, _load_id, _position, _deleted)"
            f" select {keys}, :load_id, :after + row_number() over (order by {keys}), true"
            f" from ({raw.newest_rows(warehouse, self.stream, self.stream.primary_key, 'true')}) v"
            f" where not exists (select 1 from {table} r where r._load_id = :load_id and {same})",
            {"load_id": place.load_id, "after": after},
        )
        return int(
            session.scalar(
                f"select count(*) from {table} where _load_id = :load_id and _position > :after",
                {"load_id": place.load_id, "after": after},
            )
        )

    def _write_quarantine(self, session: Session, load_id: int) -> None:
        if not self.parsing.quarantined:
            return
        bad = session.create_temp(
            "cdp_bad_rows",
            {field.name: session.warehouse.arrow_type(field.type) for field in self.parsing.bad().schema},
        )
        session.load(bad, self.parsing.bad())
        session.execute(
            f"insert into {session.warehouse.table('quarantine')} (load_id, stream, run_id, window_start,"
            " window_end, source, line, position, reason, raw, format)"
            " select :load_id, :stream, :run_id, cast(:window_start as timestamp with time zone),"
            f" :window_end, source, line, position, reason, raw, format from {bad}",
            {**self._facts(), "load_id": load_id},
        )

    def _write_files(self, session: Session, place: Place) -> None:
        """Take the files over, from a failed batch too."""
        keys = [file.key for file in self.fetched.files if file.key]
        if not keys:
            return
        files = session.warehouse.table("files")
        table = pa.table([list(values) for values in zip(*keys, strict=True)], schema=_FILES)
        new = session.temp("incoming_files", table)
        session.execute(
            f"delete from {files} where stream = :stream"
            f" and (path, checksum) in (select path, checksum from {new})",
            {"stream": self.stream.ref},
        )
        session.execute(
            f"insert into {files} (stream, load_id, path, size, checksum, modified)"
            f" select :stream, :load_id, path, size, checksum, modified from {new}",
            {"stream": self.stream.ref, "load_id": place.load_id},
        )

    def _write_load(self, session: Session, place: Place) -> None:
        values = {
            **self._facts(),
            **place._asdict(),
            "batch_id": self.batch_id,
            "pipeline": self.run.pipeline,
            "cursor_before": cursor_text(self.start.cursor),
            "cursor_after": cursor_text(self.fetched.cursor),
            "rows_read": self.parsing.read,
            "rows_landed": self.parsing.landed,
            "rows_quarantined": self.parsing.quarantined,
            "bytes": self.fetched.bytes,
            "watermark": self.parsing.watermark,
            "content_hash": self.parsing.content_hash,
            "state": self.state,
        }
        names = list(tables.TABLES["loads"])
        session.execute(
            f"insert into {session.warehouse.table('loads')} ({', '.join(names)})"
            f" values ({', '.join(':' + name for name in names)})",
            values,
        )

    def _facts(self) -> dict[str, object]:
        return {
            "stream": self.stream.ref,
            "run_id": self.run.run_id,
            "window_start": self.run.window.start,
            "window_end": self.run.window.end,
        }

    def _describe(self, report: Report, gone: int, new: list[str], expired: int) -> None:
        report.rows_in = self.parsing.read
        report.rows_out = self.parsing.landed
        report.rows_refused = self.parsing.quarantined
        report.bytes = self.fetched.bytes
        report.watermark = self.parsing.watermark
        report.detail = {
            "batch": self.batch_id,
            **self.fetched.detail,
            "duplicates": self.parsing.duplicates(),
            "unknown_keys": self.parsing.unknown,
        }
        told = {"gone": gone + self.parsing.deleted, "new_columns": new, "expired": expired}
        report.detail |= {name: value for name, value in told.items() if value}
