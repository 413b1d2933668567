# SPDX-License-Identifier: Apache-2.0
"""Tables and queries of a database: whole, or what changed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, cast

from pydantic import AfterValidator

from cdp_provider.core.exceptions import ConfigurationError
from cdp_provider.core.ingest.base import Connector, Cursor, Fetched, FileKey, RawFile
from cdp_provider.core.ingest.sql_copy import copy_out
from cdp_provider.core.ingest.sql_faults import told
from cdp_provider.core.ingest.sql_reading import Changes, Reading
from cdp_provider.core.ingest.sql_rows import write_rows
from cdp_provider.core.project.base import Duration, Model, Options
from cdp_provider.core.project.problems import Problem, Problems, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

    from cdp_provider.core.project.streams import Stream
    from cdp_provider.core.run import Window

_KINDS = ("timestamp", "date", "integer")


@dataclass(frozen=True)
class Database:
    """A database that is read from.

    :param dialect: as SQLAlchemy calls it: ``postgresql``, ``mysql``, ``sqlite``, ``duckdb``, ...
    :param connect: opens a DB-API connection; for ``postgresql`` one of psycopg 3.
    """

    dialect: str
    connect: Callable[[], Any]


class ChangesBy(Model):
    """Only rows that changed since the last batch.

    :param column: a column of the stream that grows with every change; of type timestamp, date or integer.
    :param overlap: reads from this much before the highest value, for rows that are committed late;
        timestamps only.
    """

    column: str
    overlap: Duration = timedelta(0)


def _table(name: str) -> str:
    if not all(name.split(".")):
        msg = f"{name!r} is no name of a table; write 'orders' or 'public.orders'"
        raise ValueError(msg)
    return name


class SqlOptions(Options):
    """How a stream is read from a database.

    :param table: with its schema: ``public.orders``. Spelt as the database spells it.
    :param query: a ``select`` instead of a table.
    :param cursor: only what changed; without one everything is read each time.
    :param complete: rows that are gone from the table count as deleted; only without a cursor.
    """

    needs_connection: ClassVar[bool] = True

    table: Annotated[str, AfterValidator(_table)] | None = None
    query: str | None = None
    cursor: ChangesBy | None = None
    complete: bool = False

    def model_post_init(self, context: Any, /) -> None:
        """Refuse keys that contradict each other."""
        problems = []
        if (self.table is None) == (self.query is None or not self.query.strip(" \n;")):
            hint = "name a table, or write a query"
            problems.append(Problem(("query",), "a stream of a database has either a table or a query", hint))
        if self.complete and self.cursor:
            message = "what is gone can't be seen where only changes are read"
            problems.append(Problem(("complete",), message, "remove `complete`, or `cursor`"))
        if problems:
            raise Problems(problems)

    def by_arrival(self) -> bool:
        # What was read last is how the table is, whatever times its rows name.
        return self.complete

    def stream_problems(self, stream: Any) -> Iterator[Problem]:
        if self.cursor is None:
            return
        path = ("cursor", "column")
        column = stream.columns.get(self.cursor.column)
        if column is None:
            message = f"the stream {stream.ref} has no column {self.cursor.column!r}"
            yield Problem(path, message, did_you_mean(self.cursor.column, stream.columns))
        elif column.type not in _KINDS:
            message = f"the column {self.cursor.column!r} is {column.type}, which tells no change"
            yield Problem(path, message, f"name a column of type {', '.join(_KINDS)}")
        elif column.format is not None:
            message = f"the column {self.cursor.column!r} is a number in the database"
            yield Problem(path, message, "turn it into a timestamp in `query`")
        elif self.cursor.overlap and column.type != "timestamp":
            message = (
                f"the column {self.cursor.column!r} is {column.type}, and an overlap is a stretch of time"
            )
            yield Problem(("cursor", "overlap"), message, "leave `overlap` out")


class SqlConnector(Connector):
    """Reads a table or query in one transaction: PostgreSQL by COPY, other databases row by row.

    Rows whose cursor value lies at or past the end of the window are left for the next one.
    """

    options: ClassVar[type[Options]] = SqlOptions
    reaches = "database"

    def __init__(self, database: Database) -> None:
        self._database = database

    def fetch(
        self,
        stream: Stream,
        cursor: Cursor | None,
        window: Window,
        spool: Path,
        *,
        taken: Collection[FileKey] = (),  # a table is no file
        until: Cursor | None = None,
    ) -> Fetched:
        options = cast("SqlOptions", stream.options)
        reading = _reading(stream, options, cursor, window, until)
        with told(reading.what):
            file, after, counts = self._read(reading, spool)
        if after is None and reading.changes and reading.changes.before:
            after = cursor
        size = file.path.stat().st_size
        return Fetched([file], cursor=after, complete=options.complete, bytes=size, detail=counts)

    def _read(self, reading: Reading, spool: Path) -> tuple[RawFile, Cursor | None, dict[str, int]]:
        dialect, connect = self._database.dialect, self._database.connect
        if dialect == "postgresql":
            path = spool / "rows.csv"
            copied = copy_out(connect, reading, path)
            return RawFile(path, reading.what, "csv", null=copied.null), copied.cursor, copied.counts
        path = spool / "rows.ndjson"
        after, counts = write_rows(dialect, connect, reading, path)
        return RawFile(path, reading.what, "ndjson", clean=True), after, counts


def _reading(
    stream: Stream, options: SqlOptions, cursor: Cursor | None, window: Window, until: Cursor | None
) -> Reading:
    paths = {name: column.path or name for name, column in stream.columns.items()}
    documents = (paths[name] for name, column in stream.columns.items() if column.type == "json")
    return Reading(
        table=tuple(options.table.split(".")) if options.table else (),
        query=options.query or "",
        key=tuple(paths[name] for name in stream.primary_key),
        documents=frozenset(documents),
        changes=_changes(stream, options.cursor, cursor, window, until) if options.cursor else None,
    )


def _changes(
    stream: Stream, by: ChangesBy, cursor: Cursor | None, window: Window, until: Cursor | None
) -> Changes:
    column = stream.columns.get(by.column)
    if column is None or column.type not in _KINDS:
        msg = (
            f"cursor.column {by.column!r} of {stream.ref} must be one of its columns, of type"
            f" {', '.join(_KINDS)}; name another one"
        )
        raise ConfigurationError(msg)
    # Of another column: the stream was declared anew, and begins anew.
    before = cursor if cursor and cursor.get("column") == by.column else {}
    bound = until.get("value") if until and until.get("column") == by.column else None
    return Changes(
        name=by.column,
        column=column.path or by.column,
        kind=column.type,
        overlap=by.overlap,
        before=before,
        until=int(bound) if bound is not None and column.type == "integer" else None,
        end=window.end,
    )
