# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL 15 and later: the production default, through psycopg 3 and COPY."""

from __future__ import annotations

import io
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import psycopg
import pyarrow as pa
import pyarrow.csv as pa_csv
from psycopg.pq import ExecStatus
from psycopg.waiting import Wait

from cdp_provider.core.exceptions import ConfigurationError, WarehouseBusyError
from cdp_provider.core.warehouse.base import Session, Warehouse, bind_names
from cdp_provider.core.warehouse.csv_pipe import written_as_csv
from cdp_provider.core.warehouse.patterns import translated

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from _typeshed import SupportsWrite
    from psycopg.abc import PQGen
    from psycopg.pq.abc import PGconn

_COPY_CHUNK = 1 << 20

#: PostgreSQL cuts longer names off.
_LONGEST_NAME = 63

#: Microseconds from the first moment of the year 1 to 1970.
_YEAR_ONE = 62_135_596_800_000_000

#: The bounds of numbers that are calculated with.
_TINY, _HUGE = "cast(1e-130 as double precision)", "cast(1e150 as double precision)"

#: Digits of a number of times in a key.
_TIMES_DIGITS = 12

#: What COPY's text is read back as; everything else arrives as text.
_ARROW_BY_OID: dict[int, pa.DataType] = {
    16: pa.bool_(),
    20: pa.int64(),
    21: pa.int16(),
    23: pa.int32(),
    700: pa.float32(),
    701: pa.float64(),
    1082: pa.date32(),
    1184: pa.timestamp("us", tz="UTC"),
    1700: pa.decimal128(38, 6),
}


class PostgresSession(Session):
    """A connection in autocommit mode; :meth:`transaction` opens a block."""

    def __init__(self, warehouse: PostgresWarehouse, connection: psycopg.Connection[Any]) -> None:
        super().__init__(warehouse)
        self._connection = connection

    def _run(self, sql: str, params: Mapping[str, Any] | None) -> psycopg.Cursor[Any]:
        text, used = bind_names(sql, lambda name: f"%({name})s", "%%")
        cursor = psycopg.Cursor(self._connection)
        if used:
            return cursor.execute(text, {name: (params or {})[name] for name in used})
        return cursor.execute(text.replace("%%", "%"))

    def execute(self, sql: str, params: Mapping[str, Any] | None = None) -> int:
        with self._run(sql, params) as cursor:
            return cursor.rowcount

    def fetch(self, sql: str, params: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        with self._run(sql, params) as cursor:
            return cursor.fetchall()

    def arrow(self, sql: str, params: Mapping[str, Any] | None = None) -> pa.Table:
        # COPY takes no bind parameters, so psycopg's own client-side binding writes the literals.
        text, used = bind_names(sql, lambda name: f"%({name})s", "%%")
        with psycopg.ClientCursor(self._connection) as cursor:
            query = cursor.mogrify(text, {name: (params or {})[name] for name in used})
            cursor.execute(f"select * from ({query}) result limit 0")
            described = cursor.description or []
            types = {c.name: _ARROW_BY_OID.get(c.type_code, pa.string()) for c in described}
            buffer = io.BytesIO()
            with cursor.copy(f"copy ({query}) to stdout (format csv)"):
                self._connection.wait(received(self._connection.pgconn, buffer))
        if buffer.tell() == 0:
            return pa.schema(types.items()).empty_table()
        buffer.seek(0)
        return pa_csv.read_csv(
            buffer,
            read_options=pa_csv.ReadOptions(column_names=list(types)),
            parse_options=pa_csv.ParseOptions(newlines_in_values=True),
            convert_options=pa_csv.ConvertOptions(
                column_types=types,
                null_values=[""],
                true_values=["t"],
                false_values=["f"],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )

    def load(self, table: str, rows: pa.Table | pa.RecordBatchReader) -> None:
        names = ", ".join(self.warehouse.quote(name) for name in rows.schema.names)
        with (
            written_as_csv(rows) as file,
            self._connection.cursor() as cursor,
            cursor.copy(f"copy {table} ({names}) from stdin (format csv)") as copy,
        ):
            while chunk := file.read(_COPY_CHUNK):
                copy.write(chunk)

    def analyze(self, table: str) -> None:
        self.execute(f"analyze {table}")

    def index(self, table: str, column: str, *, text: bool = False, clustered: bool = False) -> None:
        name = f"{table}__{column}"
        if len(name) > _LONGEST_NAME:
            name = f"{name[: _LONGEST_NAME - 9]}_{zlib.crc32(name.encode()):08x}"
        quoted = self.warehouse.quote(column)
        # A text itself may be longer than a line of an index.
        on = f"hashtextextended({quoted}, 0)" if text else quoted
        how = "using brin " if clustered else ""
        self.execute(
            f"create index if not exists {self.warehouse.quote(name)} on {self.warehouse.table(table)}"
            f" {how}({on}){' with (autosummarize = on)' * clustered}"
        )

    def replace_table(self, name: str, select: str, params: Mapping[str, Any] | None = None) -> None:
        """As in the base class; a table whose columns stay the same stays itself, with the views on it.

        :raises ConfigurationError: the columns changed, and views of somebody depend on them.
        """
        table = self.warehouse.table(name)
        if self.exists(name) and self._shape(f"select * from {table}") == self._shape(select, params):
            self.execute(f"delete from {table}")
            self.execute(f"insert into {table} {select}", params)
            self.analyze(table)
            return
        try:
            super().replace_table(name, select, params)
        except psycopg.errors.DependentObjectsStillExist as error:
            msg = (
                f"the columns of {table} have changed, and views depend on the table as it was; drop these"
                " views, run again, and create them anew"
            )
            raise ConfigurationError(msg) from error

    def _shape(self, select: str, params: Mapping[str, Any] | None = None) -> list[tuple[str, int]]:
        """Names and types of a query's columns."""
        with self._run(f"select * from ({select}) shaped limit 0", params) as cursor:
            return [(column.name, column.type_code) for column in cursor.description or ()]

    @contextmanager
    def transaction(self) -> Iterator[None]:
        with self._connection.transaction():
            yield

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        key = {"k": zlib.crc32(f"{self.warehouse.schema}.{name}".encode())}
        timeout = f"{int(self.warehouse.lock_timeout * 1000)}ms"
        self.fetch("select set_config('lock_timeout', :t, false)", {"t": timeout})
        try:
            self.fetch("select pg_advisory_lock(:k)", key)
        except psycopg.errors.LockNotAvailable as error:
            msg = (
                f"another run holds the lock {name!r} of schema {self.warehouse.schema!r} and did not release"
                f" it within {self.warehouse.lock_timeout:.0f} s; wait for that run, or end it"
            )
            raise WarehouseBusyError(msg, retry_after=30) from error
        finally:
            self.fetch("select set_config('lock_timeout', '0', false)")
        try:
            yield
        finally:
            if not self._connection.closed and self._connection.info.transaction_status.name == "IDLE":
                self.fetch("select pg_advisory_unlock(:k)", key)

    def columns(self, table: str) -> dict[str, str]:
        rows = self.fetch(
            "select column_name, data_type from information_schema.columns"
            " where table_schema = :schema and table_name = :table order by ordinal_position",
            {"schema": self.warehouse.schema, "table": table},
        )
        return dict(rows)


def received(libpq: PGconn, buffer: SupportsWrite[Any]) -> PQGen[None]:
    """Write what the running COPY sends to `buffer`; for ``Connection.wait``.

    psycopg's own loop over a COPY begins to wait anew for each row, and takes more than twice as long.
    """
    while (received := libpq.get_copy_data(1))[0] >= 0:
        size, row = received
        if size:
            buffer.write(row)
            continue
        while not (yield Wait.R):
            pass
        libpq.consume_input()
    results = list(iter(libpq.get_result, None))
    for result in results:
        if result.status != ExecStatus.COMMAND_OK:
            raise psycopg.errors.error_from_result(result)


class PostgresWarehouse(Warehouse):
    """A schema in a PostgreSQL database.

    :param connect: returns an open psycopg 3 connection (Airflow's ``PostgresHook.get_conn`` does).
    """

    engine = "postgres"
    order_width = 32
    ranked_width = 21 + 4 + 32
    types: ClassVar[Mapping[str, str]] = {
        "string": "text",
        "integer": "bigint",
        "number": "double precision",
        "decimal": "numeric(28, 6)",
        "boolean": "boolean",
        "date": "date",
        "timestamp": "timestamp with time zone",
        "json": "jsonb",
    }

    @contextmanager
    def session(self) -> Iterator[PostgresSession]:
        connection = self.connect()
        try:
            connection.autocommit = True
            connection.execute("set timezone = 'UTC'")
            connection.execute("set client_min_messages = warning")
            yield PostgresSession(self, connection)
        finally:
            connection.close()

    def same_text(self, one: str, other: str) -> str:
        return f"hashtextextended({other}, 0) = hashtextextended({one}, 0) and {other} = {one}"

    def byte_order(self, text: str) -> str:
        return f'({text}) collate "C"'

    def usual_order(self, text: str) -> str:
        return f'({text}) collate "default"'

    def order_key(self, time: str, load_seq: str, offset: str, position: str) -> str:
        # Text, because there is no other wide type of fixed length that every version knows the maximum of.
        since = f"coalesce(cast(extract(epoch from {time}) * 1000000 as bigint) + {_YEAR_ONE}, 0)"
        since = f"greatest(least({since}, {2**59 - 1}), 0)"
        parts = ((since, 15), (load_seq, 6), (f"({offset}) * {2**30}::bigint + {position}", 11))
        texts = (f"lpad(to_hex(cast({sql} as bigint)), {digits}, '0')" for sql, digits in parts)
        return f'({" || ".join(texts)}) collate "C"'

    def ranked_key(self, order: str, source: int) -> str:
        return f"{self.order_head(order)} || '{9_999 - source:04d}' || {order}"

    def counted_key(self, times: str, order: str, width: int) -> tuple[str, int]:
        return f"(lpad(cast({times} as text), {_TIMES_DIGITS}, '0') || {order})", width + _TIMES_DIGITS

    def latest(
        self, value: str, kind: str, order: str, where: str, *, oldest: bool = False, width: int | None = None
    ) -> str:
        # Ordered aggregates would sort all rows; a maximum of order and value together needs one pass.
        text = f"coalesce('v' || cast({value} as text), 'n')"
        digits = width or self.order_width
        only = "" if where == "true" else f" filter (where {where})"
        found = f'{"min" if oldest else "max"}(({order} || {text}) collate "C"){only}'
        there = f"substr({found}, {digits + 1}, 1) = 'v'"
        read = f"case when {there} then substr({found}, {digits + 2}) end"
        return f'cast(({read}) collate "default" as {self.column_type(kind)})'

    def order_head(self, order: str) -> str:
        return f"left({order}, 21)"

    def json_list(self, value: str, order: str, limit: int) -> str:
        return f"to_jsonb((array_agg({value} order by {order}))[1:{int(limit)}])"

    def key_hash(self, values: Sequence[str]) -> str:
        return f"hash_record_extended(row({', '.join(values)}), 0)"

    def pattern(self, pattern: str) -> str:
        return translated(pattern)

    def matches(self, text: str, pattern: str, *, ignore_case: bool = False) -> str:
        return f"{text} ~{'*' * ignore_case} {pattern}"

    def members(self, value: str, kind: str) -> str:
        listed = f"jsonb_array_elements_text({value}) as listed(member)"
        return f"array(select cast(member as {self.types[kind]}) from {listed})"

    def has_member(self, value: str, member: str) -> str:
        return f"{value} @> to_jsonb({member})"

    def hash_number(self, text: str) -> str:
        return f"cast(cast('x000' || substr(md5({text}), 1, 13) as bit(64)) as bigint)"

    def in_range(self, number: str) -> str:
        clamped = f"greatest(least(({number} + {_TINY}) - {_TINY}, {_HUGE}), -{_HUGE})"
        return f"nullif(nullif({clamped}, {_HUGE}), -{_HUGE})"

    def quotient(self, one: str, other: str) -> str:
        return self.in_range(f"({one} / nullif({other}, 0))")

    def rounded(self, number: str, places: int) -> str:
        # A cast to numeric would cut off the 16th digit; the text has all of them.
        return f"cast(round(cast(cast({number} as text) as numeric), {places}) as double precision)"

    def as_decimal(self, number: str) -> str:
        written = f"cast(cast(cast({number} as text) as numeric) as numeric(28, 6))"
        # Of a large number not all digits are written, and engines differ in which they leave out.
        high = f"trunc({number} / {2**32})"
        whole = f"cast({high} as numeric) * {2**32} + cast({number} - {high} * {2**32} as bigint)"
        return f"case when abs({number}) < {2**53} then {written} else cast({whole} as numeric(28, 6)) end"

    def json_text(self, value: str, key: str) -> str:
        return f"{value} ->> cast({key} as text)"

    def json_without(self, value: str, keys: Sequence[str]) -> str:
        listed = ", ".join(f"cast({key} as text)" for key in keys)
        return f"nullif({value} - array[{listed}], '{{}}')"

    def json_value(self, value: str, *, moment: bool = False) -> str:
        if moment:
            value = f"""to_char({value} at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"')"""
        return f"to_jsonb({value})"

    def hash_row(self, values: Sequence[str], seed: str) -> str:
        # The constant is for rows without values.
        row = f"row({', '.join(('0', *values))})"
        return f"cast(hash_record_extended({row}, cast({seed} as bigint)) as varchar)"
