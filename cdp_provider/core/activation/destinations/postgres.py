# SPDX-License-Identifier: Apache-2.0
"""Rows of a table in any PostgreSQL."""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import psycopg
from psycopg import sql
from pydantic import Field

from cdp_provider.core.activation.destinations.base import (
    ACCEPTED,
    Capabilities,
    DestinationKind,
    Outcome,
    Refused,
)
from cdp_provider.core.activation.destinations.fit import field_problems, operation_problems
from cdp_provider.core.activation.encoding import encode
from cdp_provider.core.exceptions import AccessError, ConfigurationError, NotFoundError, UnavailableError
from cdp_provider.core.project.base import Options
from cdp_provider.core.project.problems import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cdp_provider.core.activation.destinations.base import Line, Operation, Record
    from cdp_provider.core.exceptions import CdpError
    from cdp_provider.core.project.activation import Destination, Sync
    from cdp_provider.core.project.problems import Problem

    Connection = psycopg.Connection[Any]

#: At the same time, unless the project says otherwise: servers have few.
_CONNECTIONS = 4

_NO_ROW = Outcome("rejected", "no row has this key")


class PostgresOptions(Options):
    """A table.

    :param table: its name.
    :param schema_name: its schema (``schema`` in YAML).
    :param key: the column that the sync's key stands in; unique, unless the sync only updates and removes.
    :param archived: a boolean column, true for rows that are archived.
    """

    table: str = Field(min_length=1)
    schema_name: str = Field(default="public", min_length=1, alias="schema")
    key: str = Field(min_length=1)
    archived: str | None = None

    @property
    def operations(self) -> frozenset[Operation]:
        """What can be done to its rows."""
        able: set[Operation] = {"upsert", "insert", "update", "remove"}
        return frozenset(able | {"archive"} if self.archived else able)

    def sync_problems(self, sync: Sync) -> Iterator[Problem]:
        """Events, an archive without its column, a field in a column with a meaning of its own."""
        yield from operation_problems(sync, self.operations)
        yield from field_problems(sync, (self.key, self.archived or self.key))


class Postgres(DestinationKind):
    """Each batch is one transaction."""

    options = PostgresOptions
    transport = "sql"
    connection_types = ("postgres",)

    def __init__(self, destination: Destination, sync: Sync) -> None:
        super().__init__(destination, sync)
        self._options = cast("PostgresOptions", destination.options)
        self._table = _identifier(self._options.schema_name, self._options.table)
        self._key = _identifier(self._options.key)
        #: ``r``: a row of the table for each object of an array; ``item.number``: its place in it.
        self._rows = sql.SQL(
            "json_array_elements(%s::json) with ordinality item(value, number)"
            " cross join lateral json_populate_record(null::{}, item.value) r"
        ).format(self._table)
        self._name = f"{self._options.schema_name}.{self._options.table}"
        self._checked = False
        self._connections = threading.Semaphore(destination.concurrency or _CONNECTIONS)

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(self._options.operations, max_batch=5000, max_bytes=50_000_000, reads=True)

    def item(self, operation: Operation, record: Record) -> Any:
        item = {self._options.key: record.key, **record.fields}
        if self._options.archived is not None:
            item[self._options.archived] = operation == "archive"
        return item

    async def deliver(
        self, line: Line, operation: Operation, records: Sequence[Record], items: Sequence[bytes]
    ) -> list[Outcome]:
        return await asyncio.to_thread(self._write, line, operation, records, items)

    async def empty(self, line: Line, records: Sequence[Record], fields: Sequence[str]) -> list[set[str]]:
        return await asyncio.to_thread(self._read, line, records, fields)

    def _write(
        self, line: Line, operation: Operation, records: Sequence[Record], items: Sequence[bytes]
    ) -> list[Outcome]:
        outcomes = [ACCEPTED] * len(records)
        with self._transaction(line) as connection:
            for (cleared, fields), places in _alike(records).items():
                # Clearing a row that is gone must not bring it back.
                does: Operation = "update" if cleared else operation
                rows = b"[%s]" % b",".join(items[place] for place in places)
                cursor = connection.execute(self._statement(does, fields), (rows.decode(),))
                if does == "update" and not cleared:
                    found = {number - 1 for (number,) in cursor}
                    for number, place in enumerate(places):
                        outcomes[place] = ACCEPTED if number in found else _NO_ROW
        return outcomes

    def _read(self, line: Line, records: Sequence[Record], fields: Sequence[str]) -> list[set[str]]:
        nulls = sql.SQL(", ").join(sql.SQL("t.{} is null").format(_identifier(name)) for name in fields)
        query = sql.SQL("select item.number, {} from {}, {} as t where t.{} = r.{}").format(
            nulls, self._rows, self._table, self._key, self._key
        )
        keys = encode([{self._options.key: record.key} for record in records])
        empty = [set(fields) for _ in records]
        with self._transaction(line) as connection:
            for number, *values in connection.execute(query, (keys.decode(),)):
                empty[number - 1] = {name for name, null in zip(fields, values, strict=True) if null}
        return empty

    def _statement(self, operation: Operation, fields: Sequence[str]) -> sql.Composed:
        """What brings rows, given as one array of JSON objects, to the table."""
        if operation == "remove":
            return sql.SQL("delete from {} t using {} where t.{} = r.{}").format(
                self._table, self._rows, self._key, self._key
            )
        archived = [] if self._options.archived is None else [self._options.archived]
        columns = [self._options.key, *fields, *archived]
        if operation in ("update", "archive"):
            sets = self._sets(columns, "r")
            return sql.SQL("update {} t set {} from {} where t.{} = r.{} returning item.number").format(
                self._table, sets, self._rows, self._key, self._key
            )
        sets = self._sets(columns[1:], "excluded")
        keeps = operation == "insert" or not columns[1:]
        return sql.SQL(
            "insert into {} as t ({}) select {} from {} order by item.number on conflict ({}) do {}"
        ).format(
            self._table,
            sql.SQL(", ").join(map(_identifier, columns)),
            sql.SQL(", ").join(_identifier("r", name) for name in columns),
            self._rows,
            self._key,
            sql.SQL("nothing") if keeps else sql.SQL("update set {}").format(sets),
        )

    def _sets(self, columns: Sequence[str], source: str) -> sql.Composed:
        """``a = excluded.a, b = coalesce(t.b, excluded.b)``: what came up at the destination since it was
        asked stays there."""
        mapped = self.sync.fields
        sets = []
        for name in columns:
            value: sql.Composable = _identifier(source, name)
            if name in mapped and mapped[name].write == "if_empty":
                value = sql.SQL("coalesce(t.{}, {})").format(_identifier(name), value)
            sets.append(sql.SQL("{} = {}").format(_identifier(name), value))
        return sql.SQL(", ").join(sets)

    @contextmanager
    def _transaction(self, line: Line) -> Iterator[Connection]:
        try:
            with self._connections, line.target() as connection, connection.transaction():
                self._check(connection)
                yield connection
        except psycopg.Error as error:
            # The driver's own text quotes values.
            raise _meaning(error, self._name, self._options.key) from None

    def _check(self, connection: Connection) -> None:
        """Say at once what the table lacks, once."""
        if self._checked:
            return
        found = connection.execute(
            "select column_name from information_schema.columns where table_schema = %s and table_name = %s",
            (self._options.schema_name, self._options.table),
        )
        there = [name for (name,) in found]
        if not there:
            msg = f"there is no table {self._name} that we may see; create it, or correct table and schema"
            raise NotFoundError(msg)
        archived = () if self._options.archived is None else (self._options.archived,)
        for name in (self._options.key, *archived, *self.sync.fields):
            if name not in there:
                msg = f"the table {self._name} has no column {name!r}; {did_you_mean(name, there)}"
                raise ConfigurationError(msg)
        self._checked = True


def _identifier(*names: str) -> sql.Identifier:
    """A quoted name, in statements with values: there a single per cent sign would mean one of them."""
    return sql.Identifier(*(name.replace("%", "%%") for name in names))


def _alike(records: Sequence[Record]) -> dict[tuple[bool, tuple[str, ...]], list[int]]:
    """Places of the records with the same fields: a field that is left out stays as it is in the table."""
    alike: dict[tuple[bool, tuple[str, ...]], list[int]] = {}
    for place, record in enumerate(records):
        alike.setdefault((record.operation == "clear", tuple(record.fields)), []).append(place)
    return alike


def _meaning(error: psycopg.Error, table: str, key: str) -> CdpError:
    """What an error of PostgreSQL's means for the batch, without the values that it quotes."""
    name = f"{type(error).__name__} ({error.sqlstate})" if error.sqlstate else type(error).__name__
    if isinstance(error, (psycopg.IntegrityError, psycopg.DataError, psycopg.errors.RaiseException)):
        place = error.diag.constraint_name or error.diag.column_name
        return Refused(f"{name} at {place}" if place else name)
    if isinstance(error, (psycopg.errors.InsufficientPrivilege, psycopg.errors.InvalidPassword)):
        return AccessError(f"{table}: {name}; the connection's user needs select, insert, update and delete")
    if isinstance(error, psycopg.errors.InvalidColumnReference):
        return ConfigurationError(f"the column {key!r} of {table} is not unique; add a unique index to it")
    if isinstance(error, psycopg.ProgrammingError):
        return ConfigurationError(f"{table}: {name}: {error.diag.message_primary}; check the table's columns")
    return UnavailableError(f"{table}: {name}; check the connection, or try again later")
