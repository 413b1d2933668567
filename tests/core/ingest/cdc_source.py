# SPDX-License-Identifier: Apache-2.0
"""A PostgreSQL table whose changes are captured, for the tests."""

from __future__ import annotations

import csv
import itertools
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pyarrow as pa
import pyarrow.csv as pa_csv

from cdp_provider.core.ingest.postgres_cdc import PostgresCdcConnector, PostgresCdcOptions
from cdp_provider.core.ingest.sql import Database
from cdp_provider.core.project.streams import Stream
from tests.core.ingest.conftest import window

if TYPE_CHECKING:
    from cdp_provider.core.ingest.base import Cursor, Fetched

COLUMNS = "id int primary key, name text, note text, amount numeric(12,2), at timestamptz"
OPTIONS = "-c synchronous_commit=on -c timezone=UTC -c intervalstyle=iso_8601"
_numbers = itertools.count(1)


class Source:
    """A schema with a table ``t``, its stream, and what has been learnt of it so far.

    Rows are dicts of the text that PostgreSQL writes; None is null.
    """

    def __init__(self, url: str, spec: str = COLUMNS, after: str = "", **parts: Any) -> None:
        self.url = url
        self.schema = f"cdc_{os.getpid()}_{next(_numbers)}"
        # What was committed is to be in the log at once.
        self.connection = psycopg.connect(url, autocommit=True, options=OPTIONS)
        self.run(f"create schema {self.schema}")
        self.run(f"create table {self.table} ({spec}) {after}")
        given: dict[str, Any] = {
            "source": "shop",
            "name": "t",
            "primary_key": ("id",),
            "columns": {"id": "integer", "name": "string", "note": "string", "amount": "decimal"},
        } | parts
        options = {"table": self.table, "slot": self.schema, "publication": self.schema}
        self.stream = Stream(**given, options=PostgresCdcOptions(**options))
        self.database = Database("postgresql", lambda: psycopg.connect(url))
        self.connector = PostgresCdcConnector(self.database)
        self.cursor: Cursor | None = None
        self.rows: dict[tuple[Any, ...], dict[str, Any]] = {}
        self.spooled: list[list[dict[str, Any]]] = []

    @property
    def table(self) -> str:
        return f"{self.schema}.t"

    def run(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        cursor = self.connection.execute(statement, values or None)
        return cursor.fetchall() if cursor.description else []

    def fetch(self, *, confirm: bool = True, until: Cursor | None = None, connector: Any = None) -> Fetched:
        """One batch, taken into :attr:`rows` as the landing takes it into the view."""
        with tempfile.TemporaryDirectory() as spool:
            fetched = (connector or self.connector).fetch(
                self.stream, self.cursor, window(), Path(spool), until=until
            )
            self.spooled = [read(file.path) for file in fetched.files]
        if fetched.complete:
            self.rows = {}
        key = [self.stream.columns[name].path or name for name in self.stream.primary_key]
        for row in itertools.chain.from_iterable(self.spooled):
            gone = row.pop("_deleted", None) == "true"
            identity = tuple(row[name] for name in key)
            self.rows.pop(identity, None)
            if not gone:
                self.rows[identity] = row
        self.cursor = fetched.cursor
        if confirm and fetched.cursor:
            self.connector.confirm(self.stream, fetched.cursor)
        return fetched

    def truth(self, columns: str = "*") -> list[dict[str, Any]]:
        """The table as it is, in the text that COPY writes."""
        query = f"copy (select {columns} from {self.table}) to stdout (format csv, header)"
        with self.connection.cursor() as cursor, cursor.copy(query) as copy:
            text = b"".join(copy)
        with tempfile.NamedTemporaryFile() as file:
            Path(file.name).write_bytes(text)
            return in_order(read(Path(file.name)))

    def known(self) -> list[dict[str, Any]]:
        """:attr:`rows`, comparable with :meth:`truth`."""
        return in_order(self.rows.values())

    def close(self) -> None:
        self.run(f"drop schema if exists {self.schema} cascade")
        self.run(f"drop publication if exists {self.schema}")
        self.run(
            "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = %s",
            self.schema,
        )
        self.connection.close()


def in_order(rows: Any) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: [(value is not None, value or "") for value in row.values()])


def read(path: Path) -> list[dict[str, Any]]:
    """Records of a CSV file in which a bare nothing is null and a quoted one an empty text."""
    with path.open(newline="") as file:
        names = next(csv.reader(file))
    table = pa_csv.read_csv(
        path,
        parse_options=pa_csv.ParseOptions(newlines_in_values=True),
        convert_options=pa_csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()),
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )
    return list(table.to_pylist())
