# SPDX-License-Identifier: Apache-2.0
"""DuckDB: one file, one process at a time; the embedded default."""

from __future__ import annotations

import random
import re
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import duckdb

from cdp_provider.core.exceptions import ConfigurationError, WarehouseBusyError
from cdp_provider.core.warehouse.base import Session, Warehouse, bind_names

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pyarrow as pa

#: They drop rows: the first takes deleted rows for rows that are there (``order by ... limit`` on a table
#: whose lines are replaced then finds nothing; seen with 2.0.0), the second loses rows whose window order is
#: null (1.5).
_UNSOUND = "row_group_pruner,top_n_window_elimination"

#: As DuckDB writes sizes.
_UNITS = {unit: 1024**power for power, unit in enumerate(("bytes", "KiB", "MiB", "GiB", "TiB", "PiB"))}

#: Two threads that open one file share the database, and the second may find it before the first has given it
#: its functions ("python_arrow_scan does not exist"; seen with 2.0.0).
_CONNECTING = threading.Lock()

#: Microseconds from the first moment of the year 1 to 1970.
_YEAR_ONE = 62_135_596_800_000_000

_HOLDER = re.compile(r"PID (\d+)")


class DuckDBSession(Session):
    """A connection to the file; while it is open, every other process waits."""

    def __init__(self, warehouse: DuckDBWarehouse, connection: duckdb.DuckDBPyConnection) -> None:
        super().__init__(warehouse)
        self._connection = connection

    def _run(self, sql: str, params: Mapping[str, Any] | None) -> duckdb.DuckDBPyConnection:
        text, used = bind_names(sql, lambda name: f"${name}")
        return self._connection.execute(text, {name: (params or {})[name] for name in used} or None)

    def execute(self, sql: str, params: Mapping[str, Any] | None = None) -> int:
        result = self._run(sql, params)
        described = result.description or []
        if len(described) == 1 and described[0][0] == "Count":
            row = result.fetchone()
            return int(row[0]) if row else -1
        return -1

    def fetch(self, sql: str, params: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        return self._run(sql, params).fetchall()

    def arrow(self, sql: str, params: Mapping[str, Any] | None = None) -> pa.Table:
        text, used = bind_names(sql, lambda name: f"${name}")
        values = {name: (params or {})[name] for name in used}
        return self._connection.sql(text, params=values or None).to_arrow_table()

    def load(self, table: str, rows: pa.Table | pa.RecordBatchReader) -> None:
        names = ", ".join(self.warehouse.quote(name) for name in rows.schema.names)
        self._connection.register("cdp_incoming", rows)
        self._connection.execute(f"insert into {table} ({names}) select {names} from cdp_incoming")
        # Not after an error: in the aborted transaction this would fail too, and hide what went wrong.
        self._connection.unregister("cdp_incoming")

    def analyze(self, table: str) -> None:
        """Nothing to do: DuckDB counts as it writes."""

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self._connection.execute("begin transaction")
        try:
            yield
        except BaseException:
            self._connection.execute("rollback")
            raise
        self._connection.execute("commit")

    @contextmanager
    def bounded(self, memory: int) -> Iterator[None]:
        before = str(self.scalar("select current_setting('memory_limit')"))
        number, unit = before.split()
        limit = int(min(float(number) * _UNITS[unit], memory))
        self.execute(f"set memory_limit = '{limit}B'")
        try:
            yield
        finally:
            self.execute(f"set memory_limit = '{before}'")

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:  # noqa: ARG002 - whoever has the file open has it alone
        yield

    def columns(self, table: str) -> dict[str, str]:
        rows = self.fetch(
            "select column_name, data_type from information_schema.columns"
            " where table_schema = :schema and table_name = :table order by ordinal_position",
            {"schema": self.warehouse.schema, "table": table},
        )
        return dict(rows)


class DuckDBWarehouse(Warehouse):
    """A DuckDB file.

    DuckDB admits one process while somebody writes, readers included, and says so at once. A session
    therefore waits for the file with growing, jittered pauses, up to ``lock_timeout``.
    """

    engine = "duckdb"
    single_process = True
    types: ClassVar[Mapping[str, str]] = {
        "string": "varchar",
        "integer": "bigint",
        "number": "double",
        "decimal": "decimal(28, 6)",
        "boolean": "boolean",
        "date": "date",
        "timestamp": "timestamp with time zone",
        "json": "json",
    }

    def _open(self) -> duckdb.DuckDBPyConnection:
        deadline = time.monotonic() + self.lock_timeout
        pause = 0.02
        while True:
            try:
                with _CONNECTING:
                    connection: duckdb.DuckDBPyConnection = self.connect()
            except duckdb.IOException as error:
                if "Could not set lock" not in str(error):
                    raise
                if time.monotonic() > deadline:
                    holder = _HOLDER.search(str(error))
                    who = f"process {holder.group(1)}" if holder else "another process"
                    msg = (
                        f"the DuckDB file is held by {who} and was not released within"
                        f" {self.lock_timeout:.0f} s; close that program, or use PostgreSQL when several"
                        " hosts or long readers share the warehouse"
                    )
                    raise WarehouseBusyError(msg, retry_after=30) from error
                time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
                pause = min(pause * 1.6, 1.0)
            else:
                return connection

    @contextmanager
    def session(self) -> Iterator[DuckDBSession]:
        connection = self._open()
        try:
            connection.execute("set TimeZone = 'UTC'")
            connection.execute("set enable_progress_bar = false")  # it would be drawn into task logs
            connection.execute(f"set disabled_optimizers = '{_UNSOUND}'")
            self._check_name(connection)
            yield DuckDBSession(self, connection)
        finally:
            connection.close()

    def _check_name(self, connection: duckdb.DuckDBPyConnection) -> None:
        """DuckDB names the database after its file, and takes ``x.table`` for neither when schema and
        database are both called ``x``."""
        name = connection.execute("select current_database()").fetchall()
        if name == [(self.schema,)]:
            msg = (
                f"the DuckDB file and the schema in it are both called {self.schema!r}, and DuckDB can't tell"
                f" them apart; rename the file, for example to {self.schema}_warehouse.duckdb, or choose"
                " another schema"
            )
            raise ConfigurationError(msg)

    def order_key(self, time: str, load_seq: str, offset: str, position: str) -> str:
        # 59 bits from the year 1 on, then 68 for the rest: 127 are a hugeint without its sign.
        since = f"least(coalesce(epoch_us({time}) + {_YEAR_ONE}, 0), {2**59 - 1})"
        since = f"cast(greatest({since}, 0) as hugeint)"
        place = f"cast({load_seq} as hugeint) * {2**44} + cast({offset} as hugeint) * {2**30} + {position}"
        return f"({since} * {2**68}::hugeint + {place})"

    def ranked_key(self, order: str, source: int) -> str:
        return f"row({self.order_head(order)}, {-source}, {order})"

    def counted_key(self, times: str, order: str, width: int) -> tuple[str, int]:
        return f"row({times}, {order})", width

    def latest(
        self,
        value: str,
        kind: str,  # noqa: ARG002
        order: str,
        where: str,
        *,
        oldest: bool = False,
        width: int | None = None,  # noqa: ARG002
    ) -> str:
        only = "" if where == "true" else f" filter (where {where})"
        return f"arg_{'min' if oldest else 'max'}_null({value}, {order}){only}"

    def order_head(self, order: str) -> str:
        return f"({order} >> 44)"

    def json_list(self, value: str, order: str, limit: int) -> str:
        return f"to_json(list({value} order by {order})[1:{int(limit)}])"

    def key_hash(self, values: Sequence[str]) -> str:
        return f"hash({', '.join(values)})"

    def matches(self, text: str, pattern: str, *, ignore_case: bool = False) -> str:
        return f"regexp_full_match({text}, {pattern}, 's{'i' * ignore_case}')"

    def members(self, value: str, kind: str) -> str:
        return f"cast({value} as {self.types[kind]}[])"

    def has_member(self, value: str, member: str) -> str:
        return f"json_contains({value}, to_json({member}))"

    def hash_number(self, text: str) -> str:
        return f"cast('0x' || substr(md5({text}), 1, 13) as bigint)"

    def in_range(self, number: str) -> str:
        # "nullif" is a macro here that writes its argument several times; a lambda's comes in once.
        return _let(number, "case when abs(v) < 1e150 then (v + 1e-130::double) - 1e-130::double end")

    def quotient(self, one: str, other: str) -> str:
        return self.in_range(f"({one} / {other})")  # infinite, or NaN, for 0

    def rounded(self, number: str, places: int) -> str:
        # What is written is exact but slow, so it is asked near a half and for large numbers only.
        y = f"(v * 1e{places}::double)"
        plain = f"abs({y}) < 1e15 and abs(abs({y} - trunc({y})) - 0.5) > abs({y}) * 1e-15"
        written = f"cast(cast(cast(cast(v as varchar) as decimal(38, {places})) as varchar) as double)"
        plain = f"when {plain} then round({y}) / 1e{places}::double"
        found = f"case {plain} when abs(v) < {2**53} then {written} else v end"
        return _let(number, f"({found} + 1e-130::double) - 1e-130::double")  # 0 without a sign

    def as_decimal(self, number: str) -> str:
        small = f"cast({self.rounded('w', 6)} as decimal(28, 6))"
        written = "cast(cast(w as varchar) as decimal(28, 6))"
        whole = "cast(cast(w as hugeint) as decimal(28, 6))"
        large = f"case when abs(w) < {2**53} then {written} else {whole} end"
        return _let(number, f"case when abs(w) < 1e8 then {small} else {large} end", "w")

    def json_text(self, value: str, key: str) -> str:
        return f"json_extract_string({value}, '$.\"' || {key} || '\"')"

    def json_without(self, value: str, keys: Sequence[str]) -> str:
        nothing = ", ".join(f"{key}, null" for key in keys)
        return f"nullif(cast(json_merge_patch({value}, json_object({nothing})) as varchar), '{{}}')"

    def json_value(self, value: str, *, moment: bool = False) -> str:
        if moment:
            value = f"strftime({value}, '%Y-%m-%dT%H:%M:%S.%f+00:00')"
        return f"case when {value} is not null then to_json({value}) end"

    def hash_row(self, values: Sequence[str], seed: str) -> str:
        return f"cast(hash({', '.join((f'cast({seed} as bigint)', *values))}) as varchar)"


def _let(value: str, sql: str, name: str = "v") -> str:
    """SQL over a name that stands for a value, which is computed once."""
    return f"list_transform([{value}], lambda {name}: {sql})[1]"
