# SPDX-License-Identifier: Apache-2.0
"""Change data capture from PostgreSQL: inserts, updates and deletes out of its log, by plain SQL functions.

The first batch is a snapshot. Each later one holds the transactions that were committed since, whole and in
the order of their commits. The server keeps its log until a batch is confirmed; the cursor says what a batch
has, so one that was landed and not confirmed is not told again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, cast

import psycopg
from psycopg import sql
from pydantic import StringConstraints

from cdp_provider.core.exceptions import ConfigurationError
from cdp_provider.core.ingest.base import Connector, Cursor, Fetched, FileKey, RawFile
from cdp_provider.core.ingest.pgoutput import Decoder, Snapshot, Span
from cdp_provider.core.ingest.postgres_changes import ChangesFile, Lookup, Messages
from cdp_provider.core.ingest.postgres_slot import (
    Slot,
    advance,
    find_slot,
    in_use,
    lsn,
    lsn_text,
    make_slot,
    settle,
)
from cdp_provider.core.ingest.postgres_table import check_server, find_table, publish, session
from cdp_provider.core.ingest.sql_faults import told
from cdp_provider.core.project.base import Options
from cdp_provider.core.warehouse.postgres import received

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from cdp_provider.core.ingest.sql import Database
    from cdp_provider.core.project.streams import Stream
    from cdp_provider.core.run import Window

#: A name that is quoted wherever it stands: upper and lower case count.
_TABLE_PATTERN = r"^[^.\x00\"]{1,63}(\.[^.\x00\"]{1,63})?$"


class PostgresCdcOptions(Options):
    """How a stream of changes is read.

    :param table: ``schema.table``; without a schema, that of ``public``. Upper and lower case count.
    :param slot: the server's replication slot, made at need; each stream has its own.
    :param publication: made at need, for this one table.
    """

    needs_connection: ClassVar[bool] = True

    table: Annotated[str, StringConstraints(pattern=_TABLE_PATTERN)]
    slot: Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]{1,63}$")] | None = None
    publication: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]{1,63}$")] | None = None

    def by_arrival(self) -> bool:
        return True

    def place(self) -> tuple[str, str]:
        """Schema and table."""
        schema, _, name = self.table.rpartition(".")
        return schema or "public", name


class _Unreadable(Exception):  # noqa: N818 - no fault: there is a way on
    """What the slot holds cannot be read any more; says why."""


class PostgresCdcConnector(Connector):
    """Reads the changes of one table.

    A deletion is a record with the replica identity's columns and a true ``_deleted``; an update that changes
    the primary key is a deletion and a record.

    :param database: the primary server's, not a standby's.
    :raises ConfigurationError: it is no PostgreSQL.
    """

    options: ClassVar[type[Options]] = PostgresCdcOptions
    reaches = "database"
    rereadable = False

    def __init__(self, database: Database) -> None:
        if database.dialect != "postgresql":
            msg = (
                f"a source of type postgres_cdc needs a connection of type postgres, and this one leads to"
                f" {database.dialect}; name another, or read it with the type sql"
            )
            raise ConfigurationError(msg)
        self._connect = database.connect

    def fetch(
        self,
        stream: Stream,
        cursor: Cursor | None,
        window: Window,  # a transaction is told when it is committed
        spool: Path,
        *,
        taken: Collection[FileKey] = (),  # changes are no files
        until: Cursor | None = None,
    ) -> Fetched:
        with told(_what(stream)), session(self._connect) as connection:
            return _Batch(connection, self._connect, stream, spool).fetch(cursor, until)

    def confirm(self, stream: Stream, cursor: Cursor) -> None:
        with told(_what(stream)), session(self._connect) as connection:
            advance(connection, _slot(stream), lsn(cursor["lsn"]))


def _what(stream: Stream) -> str:
    return f"table {cast('PostgresCdcOptions', stream.options).table}"


def _slot(stream: Stream) -> str:
    return cast("PostgresCdcOptions", stream.options).slot or f"cdp_{stream.source}_{stream.name}"


class _Batch:
    """One batch on its way into the spool."""

    def __init__(
        self, connection: psycopg.Connection[Any], connect: Callable[[], Any], stream: Stream, spool: Path
    ) -> None:
        options = cast("PostgresCdcOptions", stream.options)
        self._connection = connection
        self._connect = connect
        self._spool = spool
        self._paths = {name: column.path or name for name, column in stream.columns.items()}
        self._key = [self._paths[name] for name in stream.primary_key]
        self._slot_name = _slot(stream)
        self._publication = options.publication or f"cdp_{stream.source}_{stream.name}"
        self._source = ".".join(options.place())
        check_server(connection)
        table = find_table(connection, *options.place(), self._key)
        self._table = publish(connection, table, self._publication)

    def fetch(self, cursor: Cursor | None, until: Cursor | None) -> Fetched:
        slot = find_slot(self._connection, self._slot_name)
        reason = self._why_anew(cursor, slot)
        if cursor is not None and slot is not None and reason is None:
            try:
                return self._changes(cursor, slot, until)
            except _Unreadable as fault:
                reason = str(fault)
        fresh = reason in ("slot_gone", "slot_lost", "publication_changed") or slot is None or slot.lost
        if fresh:
            slot = make_slot(self._connection, self._slot_name, instead=slot is not None)
        return self._snapshot(cast("Slot", slot), reason or "first")

    def _why_anew(self, cursor: Cursor | None, slot: Slot | None) -> str | None:
        """Why the changes since the cursor are not all there is to know; None when they are."""
        if cursor is None:
            return "first"
        place = lsn(cursor["lsn"])
        reasons = {
            "slot_gone": slot is None,
            "slot_lost": slot is not None and slot.lost,
            "publication_changed": cursor["publication"] != self._table.publication,
            "table_recreated": cursor["table"] != self._table.oid,
            "columns_changed": cursor["columns"] != self._columns(),
            "slot_ahead": slot is not None and slot.confirmed > place,
            "server_behind": place > self._flushed(),
        }
        return next((reason for reason, holds in reasons.items() if holds), None)

    def _columns(self) -> dict[str, str]:
        """Of the declared columns those that are there. What rows that nobody touched hold in a column that
        came, went or changed, no change tells."""
        there = self._table.columns
        return {path: there[path] for path in sorted(self._paths.values()) if path in there}

    def _flushed(self) -> int:
        return lsn(self._one("select pg_current_wal_flush_lsn()::text"))

    def _one(self, statement: str) -> str:
        return str(self._connection.execute(statement).fetchall()[0][0])

    def _cursor(self, place: int, **more: str) -> Cursor:
        table = self._table
        facts = {"table": table.oid, "publication": table.publication, "columns": self._columns()}
        return {"lsn": lsn_text(place), **facts, **more}

    def _snapshot(self, slot: Slot, reason: str) -> Fetched:
        """All rows of the table, and which transactions they show."""
        settle(self._connection)
        path = self._spool / "snapshot.csv"
        columns = sql.SQL(", ").join(map(sql.Identifier, self._table.columns))
        self._connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        with self._connection.transaction(), path.open("wb", buffering=1 << 20) as file:
            # Locked before it is looked at: what empties or rewrites a table is seen by older snapshots too.
            self._connection.execute(sql.SQL("lock table {} in access share mode").format(self._table.sql))
            seen = self._one("select pg_current_snapshot()")
            end = self._one("select pg_current_wal_insert_lsn()")
            copy = sql.SQL("copy (select {} from {}) to stdout (format csv, header)")
            with self._connection.cursor() as cursor, cursor.copy(copy.format(columns, self._table.sql)):
                self._connection.wait(received(self._connection.pgconn, file))
        size = path.stat().st_size
        return Fetched(
            [RawFile(path, self._source, "csv")],
            cursor=self._cursor(slot.confirmed, snapshot=seen, snapshot_end=end),
            complete=True,
            bytes=size,
            detail={"snapshot": reason, "wal_retained": slot.retained},
        )

    def _changes(self, cursor: Cursor, slot: Slot, until: Cursor | None) -> Fetched:
        """The transactions after the cursor."""
        limit = lsn(until["lsn"]) if until else None
        target = self._flushed() if limit is None else min(limit, self._flushed())
        decoder = Decoder(self._table.oid, self._key, _span(cursor, limit))
        lookup = Lookup(self._connect, self._table, self._key)
        file = ChangesFile(self._spool, lookup)
        messages = Messages(decoder, file)
        try:
            self._peek(target, messages)
        finally:
            lookup.close()
        end = target if limit is not None else max(target, decoder.end)
        waits = lsn(cursor.get("snapshot_end", "0/0")) > end
        more = {name: cursor[name] for name in ("snapshot", "snapshot_end")} if waits else {}
        return Fetched(
            [RawFile(path, f"changes of {self._source}", "csv") for path in file.finish()],
            cursor=self._cursor(max(end, lsn(cursor["lsn"])), **more),
            complete=file.emptied,
            bytes=messages.bytes,
            detail={
                "transactions": decoder.transactions,
                "changes": decoder.changes,
                "looked_up": lookup.count,
                "truncated": file.emptied,
                "wal_retained": slot.retained,
            },
        )

    def _peek(self, target: int, messages: Messages) -> None:
        peek = sql.SQL(
            "copy (select data from pg_logical_slot_peek_binary_changes({}, {}::pg_lsn, null,"
            " 'proto_version', '1',"
            " 'publication_names', {})) to stdout (format binary)"
        ).format(
            sql.Literal(self._slot_name), sql.Literal(lsn_text(target)), sql.Literal(f'"{self._publication}"')
        )
        try:
            with self._connection.cursor() as cursor, cursor.copy(peek):
                self._connection.wait(received(self._connection.pgconn, messages))
        except psycopg.errors.ObjectInUse:
            raise in_use(self._slot_name) from None
        except psycopg.errors.UndefinedObject:
            # The log is read with the catalogue of its time, when there was no such publication.
            reason = "publication_changed"
            raise _Unreadable(reason) from None
        messages.flush()


def _span(cursor: Cursor, limit: int | None) -> Span:
    snapshot = Snapshot.of(cursor["snapshot"]) if "snapshot" in cursor else None
    start = lsn(cursor["lsn"])
    return Span(start, snapshot=snapshot) if limit is None else Span(start, limit, snapshot)
