# SPDX-License-Identifier: Apache-2.0
"""A PostgreSQL table whose changes are to be told, and its publication."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from cdp_provider.core.exceptions import AccessError, ConfigurationError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: How values are written, whatever the server, the database and the user are set to. Rows that a policy
#: hides would be missing without a word, so a policy is an error.
_SESSION = {
    "TimeZone": "UTC",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "iso_8601",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "client_encoding": "UTF8",
    "row_security": "off",
}


@dataclass(frozen=True)
class Table:
    """A source table, as it is now.

    :param columns: that are published: name -> type, each with its number in the table, so that a column that
        was dropped and added again is another one.
    :param types: name -> type.
    :param partitioned: its rows lie in other tables.
    :param publication: changes whenever the table joins the publication anew.
    """

    oid: int
    schema: str
    name: str
    columns: dict[str, str]
    types: dict[str, str]
    partitioned: bool
    publication: str = ""

    @property
    def sql(self) -> sql.Composed:
        """The table in a statement; without the tables that inherit from it, whose changes are not told."""
        only = sql.SQL("" if self.partitioned else "only ")
        return only + sql.Identifier(self.schema, self.name)


@contextmanager
def session(connect: Callable[[], Any]) -> Iterator[psycopg.Connection[Any]]:
    """A connection in autocommit mode that writes values in one way."""
    connection = connect()
    try:
        connection.autocommit = True
        for name, value in _SESSION.items():
            connection.execute("select set_config(%s, %s, false)", (name, value))
        yield connection
    finally:
        connection.close()


def check_server(connection: psycopg.Connection[Any]) -> None:
    """Refuse a server that cannot tell changes.

    :raises ConfigurationError: it is a standby, or its ``wal_level`` is not ``logical``.
    """
    level, standby = row_of(connection, "select current_setting('wal_level'), pg_is_in_recovery()")
    if standby:
        msg = "the connection leads to a standby server; changes are read from the primary: name that one"
        raise ConfigurationError(msg)
    if level != "logical":
        msg = (
            f"the server's wal_level is {level!r}, and only 'logical' tells changes; have the"
            " administrator set"
            " wal_level = logical and restart the server"
        )
        raise ConfigurationError(msg)


def find_table(connection: psycopg.Connection[Any], schema: str, name: str, key: list[str]) -> Table:
    """The source table.

    :param key: columns that must come with every deletion.
    :raises NotFoundError: there is no such table or key column.
    :raises ConfigurationError: its changes cannot be told, or not with the key.
    """
    what = f"the table {schema}.{name}"
    found = connection.execute(
        "select c.oid, c.relkind::text, c.relpersistence::text, c.relreplident::text from pg_class c"
        " join pg_namespace n on n.oid = c.relnamespace where n.nspname = %s and c.relname = %s",
        (schema, name),
    ).fetchone()
    if found is None:
        msg = (
            f"{what} does not exist; correct the name (upper and lower case count) or the connection's"
            " database"
        )
        raise NotFoundError(msg)
    oid, kind, persistence, identity = found
    if kind not in "rp" or persistence != "p":
        msg = (
            f"{what} is no ordinary, logged table, and the log tells changes of such only; name its base"
            " table"
        )
        raise ConfigurationError(msg)
    rows = connection.execute(
        "select attname, attnum, format_type(atttypid, atttypmod), format_type(atttypid, null) from"
        " pg_attribute"
        " where attrelid = %s and attnum > 0 and not attisdropped"
        # Calculated columns are told since 18, where the publication says so.
        " and (attgenerated = '' or current_setting('server_version_num')::int >= 180000) order by attnum",
        (oid,),
    ).fetchall()
    table = Table(
        oid,
        schema,
        name,
        {column: f"{number} {kind}" for column, number, kind, _ in rows},
        {column: plain for column, _, _, plain in rows},
        kind == "p",
    )
    _check_key(connection, what, table, identity, key)
    return table


def _check_key(
    connection: psycopg.Connection[Any], what: str, table: Table, identity: str, key: list[str]
) -> None:
    for column in key:
        if column not in table.columns:
            msg = (
                f"{what} has no column {column!r}, which belongs to the primary key; correct the key or"
                " its path"
            )
            raise NotFoundError(msg)
    if "_deleted" in table.columns:
        msg = (
            f"{what} has a column _deleted, a name that marks deletions here; publish the other columns only"
        )
        raise ConfigurationError(msg)
    if identity == "f":
        return
    index = "indisprimary" if identity == "d" else "indisreplident"
    statement = sql.SQL(
        "select a.attname from pg_index i join pg_attribute a on a.attrelid = i.indrelid"
        " and a.attnum = any(i.indkey) where i.indrelid = {} and i.{} and i.indimmediate"
    ).format(sql.Literal(table.oid), sql.Identifier(index))
    sent = {column for (column,) in connection.execute(statement)}
    lacking = [column for column in key if column not in sent]
    if lacking:
        # Published without an identity, the table would refuse updates and deletes to everybody.
        msg = (
            f"deletions in {what} come with {', '.join(sorted(sent)) or 'no column at all'} only, so"
            f" {lacking[0]!r}"
            " cannot be told; declare the table's own primary key, or run: alter table"
            f" {table.schema}.{table.name} replica identity full"
        )
        raise ConfigurationError(msg)


def publish(connection: psycopg.Connection[Any], table: Table, name: str) -> Table:
    """The table as it is published; the publication is made, and the table added, where that is missing.

    :raises AccessError: that takes rights which the user does not have.
    :raises ConfigurationError: the publication leaves something out.
    """
    member = _member(connection, table, name)
    if member is None:
        exists = connection.execute("select 1 from pg_publication where pubname = %s", (name,)).fetchone()
        statement = sql.SQL(
            "alter publication {} add table {}"
            if exists
            else "create publication {} for table {} with (publish_via_partition_root = true)"
        ).format(sql.Identifier(name), table.sql)
        try:
            connection.execute(statement)
        except psycopg.errors.InsufficientPrivilege:
            msg = (
                f"the connection's user may not make the publication {name!r}; have the table's owner run:"
                f" {statement.as_string(connection)}"
            )
            raise AccessError(msg) from None
        member = _member(connection, table, name)
    if member is None:
        msg = (
            f"the publication {name!r} tells the changes of the parts of {table.schema}.{table.name}, not"
            " its own;"
            " create it with publish_via_partition_root = true"
        )
        raise ConfigurationError(msg)
    token, whole, columns, condition = member
    if not whole or condition:
        msg = (
            f"the publication {name!r} leaves out rows or kinds of changes of {table.schema}.{table.name};"
            " let it"
            " publish insert, update, delete and truncate of all rows"
        )
        raise ConfigurationError(msg)
    kept = {column: kind for column, kind in table.columns.items() if column in columns}
    return Table(table.oid, table.schema, table.name, kept, table.types, table.partitioned, token)


def _member(connection: psycopg.Connection[Any], table: Table, name: str) -> tuple[Any, ...] | None:
    return connection.execute(
        "select p.oid || '/' || coalesce(r.oid, 0), p.pubinsert and p.pubupdate and p.pubdelete and"
        " p.pubtruncate,"
        " t.attnames::text[], t.rowfilter from pg_publication p join pg_publication_tables t on t.pubname"
        " = p.pubname"
        " left join pg_publication_rel r on r.prpubid = p.oid and r.prrelid = %s"
        " where p.pubname = %s and t.schemaname = %s and t.tablename = %s",
        (table.oid, name, table.schema, table.name),
    ).fetchone()


def row_of(connection: psycopg.Connection[Any], statement: str, *values: Any) -> tuple[Any, ...]:
    row: tuple[Any, ...] = connection.execute(statement, values or None).fetchall()[0]
    return row
