# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL into a CSV file, by COPY: in one snapshot, and as fast as the server writes."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus

from cdp_provider.core.ingest.sql_reading import MOST_SEEN, ROW
from cdp_provider.core.warehouse.postgres import received

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cdp_provider.core.ingest.base import Cursor
    from cdp_provider.core.ingest.sql_reading import Changes, Reading

#: How values are written, whatever the server, the database and the user are set to.
_SESSION = {
    "TimeZone": "UTC",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "iso_8601",
    "bytea_output": "hex",
    "extra_float_digits": "1",
}
#: Types whose text another reader would not understand; arrays and composite types become JSON too.
_WRITTEN = {"bytea": "encode({}, 'hex')", "money": "cast({} as numeric)", "hstore": "to_json({})"}
_TYPES = {"timestamp": "timestamptz", "date": "date", "integer": "numeric"}


@dataclass(frozen=True)
class Copied:
    """What was read into a file.

    :param null: the unquoted text that stands for NULL.
    """

    null: str
    cursor: Cursor | None = None
    counts: dict[str, int] = field(default_factory=dict)


def copy_out(connect: Callable[[], Any], reading: Reading, path: Path) -> Copied:
    """Write what is to be read to `path`, as CSV with a header.

    :param connect: opens a psycopg 3 connection.
    :raises psycopg.Error: whatever the server says.
    """
    with _snapshot(connect) as connection:
        copying = _Copying(connection, reading)
        null = copying.write(path)
        changes = reading.changes
        return copying.progress(changes, null) if changes else Copied(null)


@contextmanager
def _snapshot(connect: Callable[[], Any]) -> Iterator[psycopg.Connection[Any]]:
    """A transaction in which every statement sees the same rows and none can change one."""
    connection = connect()
    try:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        for name, value in _SESSION.items():
            connection.execute("select set_config(%s, %s, true)", (name, value))
        yield connection
    finally:
        # A server that sorts notices only at its first row that nobody listens any more.
        if not connection.closed and connection.info.transaction_status == TransactionStatus.ACTIVE:
            connection.cancel_safe(timeout=5.0)
        connection.close()


class _Copying:
    """The statements of one batch."""

    def __init__(self, connection: psycopg.Connection[Any], reading: Reading) -> None:
        self._connection = connection
        self._reading = reading
        self._relation = sql.SQL(reading.relation(_quoted))  # the project's own
        self._what = _Conditions(reading.changes) if reading.changes else None

    def write(self, path: Path) -> str:
        """Copy the rows; returns the text of NULL."""
        columns = self._columns()
        # A line of one NULL or empty text and nothing else would be blank.
        null, quoted = ("", "") if len(columns) > 1 else ("\\N", ", force_quote *")
        where = self._what.news() if self._what else sql.SQL("true")
        select = sql.SQL("select {} from {} where {}").format(
            sql.SQL(", ").join(columns), self._relation, where
        )
        copy = sql.SQL("copy ({}) to stdout (format csv, header, encoding 'utf8', null {}{})")
        with path.open("wb", buffering=1 << 20) as file, self._connection.cursor() as cursor:
            with cursor.copy(copy.format(select, sql.Literal(null), sql.SQL(quoted))):
                self._connection.wait(received(self._connection.pgconn, file))
        return null

    def progress(self, changes: Changes, null: str) -> Copied:
        """Where the next batch goes on, from the same snapshot that was copied."""
        what = _Conditions(changes)
        value, left, without, known = self._one(
            "select {highest}, count(*) filter (where {future}), count(*) filter (where {column} is null),"
            " count(*) filter (where {known}) from {relation} where {column} >= {low} or {column} is null",
            highest=what.highest(),
            future=what.future(),
            known=what.known(),
            column=what.column,
            low=what.low(changes.last),
        )
        counts = {"left_for_later": left, "without_cursor": without, "already_landed": known}
        if value is None:
            return Copied(null, None, counts)
        rows = self._connection.execute(
            sql.SQL("select {} from {} where {} >= {} and {} limit {}").format(
                what.digest, self._relation, what.column, what.low(value), what.bounded(), MOST_SEEN + 1
            )
        ).fetchall()
        return Copied(null, changes.cursor(value, [digest for (digest,) in rows]), counts)

    def _one(self, text: str, **parts: Any) -> tuple[Any, ...]:
        statement = sql.SQL(text).format(relation=self._relation, **parts)
        row: tuple[Any, ...] = self._connection.execute(statement).fetchall()[0]
        return row

    def _columns(self) -> list[sql.Composed]:
        cursor = self._connection.execute(sql.SQL("select * from {} limit 0").format(self._relation))
        described = cursor.description or []
        self._reading.check([column.name for column in described])
        found = self._connection.execute(
            "select oid, typname, typcategory::text from pg_type where oid = any(%s)",
            ([column.type_code for column in described],),
        )
        types = {oid: _WRITTEN.get(name, "to_json({})" * (kind in "AC")) for oid, name, kind in found}
        return [
            sql.SQL("{} as {}").format(
                sql.SQL(types.get(column.type_code) or "{}").format(sql.Identifier(ROW, column.name)),
                sql.Identifier(column.name),
            )
            for column in described
        ]


class _Conditions:
    """SQL about the column that tells what changed."""

    def __init__(self, changes: Changes) -> None:
        self._changes = changes
        self.column = sql.Identifier(ROW, changes.column)
        #: Differs for rows that differ in anything.
        self.digest = sql.SQL("md5(cast({} as text))").format(sql.Identifier(ROW))

    def news(self) -> sql.Composed:
        """Rows of this window that are not landed just so; one without a value may be new at any time."""
        return sql.SQL("({c} >= {low} and {bounded} and not ({known}) or {c} is null)").format(
            c=self.column, low=self.low(self._changes.last), bounded=self.bounded(), known=self.known()
        )

    def low(self, value: Any) -> sql.Composable:
        """The lowest value to read, when `value` is the highest that was read."""
        kind, overlap = self._changes.kind, self._changes.overlap
        if value is None:
            # Everything, -infinity too.
            return self.column
        if kind == "timestamp" and overlap:
            return sql.SQL("{} - make_interval(secs => {})").format(
                self._value(value), sql.Literal(overlap.total_seconds())
            )
        return self._value(value)

    def bounded(self) -> sql.Composable:
        """Not beyond this window."""
        if self._changes.kind != "integer":
            return sql.SQL("{} < {}").format(self.column, sql.Literal(self._changes.end))
        until = self._changes.until
        return sql.SQL("true") if until is None else sql.SQL("{} <= {}").format(self.column, until)

    def future(self) -> sql.Composed:
        return sql.SQL("not ({})").format(self.bounded())

    def known(self) -> sql.Composable:
        """Rows that an earlier batch has just so. Digests are only calculated where there may be one."""
        seen, last = self._changes.before.get("seen"), self._changes.last
        if not seen:
            return sql.SQL("false")
        return sql.SQL("{} <= {} and {} = any({})").format(
            self.column, self._value(last), self.digest, sql.Literal(seen)
        )

    def highest(self) -> sql.Composed:
        """Aggregate: the highest value so far, as text. It never goes back."""
        kind = sql.SQL(_TYPES[self._changes.kind])
        value = sql.SQL("cast(max({}) filter (where {}) as {})").format(self.column, self.bounded(), kind)
        if self._changes.kind == "integer":
            value = sql.SQL("floor({})").format(value)
        last = self._changes.last
        before = sql.SQL("null") if last is None else self._value(last)
        return sql.SQL("cast(greatest({}, {}) as text)").format(value, before)

    def _value(self, value: Any) -> sql.Composable:
        if self._changes.kind == "integer":
            return sql.Literal(int(value))
        kind = sql.SQL(_TYPES[self._changes.kind])
        return sql.SQL("cast({} as {})").format(sql.Literal(str(value)), kind)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
