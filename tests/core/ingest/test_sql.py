# SPDX-License-Identifier: Apache-2.0
"""Tables and queries of real databases arrive in real warehouses, value for value."""

from __future__ import annotations

import math
import os
import signal
import sqlite3
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

import duckdb
import orjson
import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdp_provider.core.exceptions import (
    AccessError,
    ConfigurationError,
    DataError,
    NotFoundError,
    RetryableError,
    UnavailableError,
)
from cdp_provider.core.ingest.contracts import check
from cdp_provider.core.ingest.landing import land
from cdp_provider.core.ingest.sql import Database, SqlConnector, SqlOptions
from cdp_provider.core.ingest.sql_rows import written
from cdp_provider.core.project.streams import Stream
from tests.core.ingest.conftest import window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cdp_provider.core.run import Run
    from cdp_provider.core.runs import Report
    from cdp_provider.core.warehouse import Warehouse

#: Of the source, in a server that others may use at the same time.
#: By what is read, where it goes.
PAIRS = {"postgresql": "duckdb", "duckdb": "postgres", "sqlite": "duckdb"}
SCHEMA = f"cdp_source_{os.getpid()}"
DEPTH = int(os.environ.get("CDP_TEST_DEPTH", "1"))


def spelt(statement: str) -> str:
    return statement.replace("cdp_source", SCHEMA).replace("cdp_reader", f"{SCHEMA}_reader")


class Shop:
    """A source database, and how one speaks to it."""

    def __init__(self, dialect: str, connect: Callable[[], Any], table: str) -> None:
        self.database = Database(dialect, connect)
        self.table = table

    def run(self, *statements: str) -> None:
        connection = self.database.connect()
        for statement in statements:
            connection.execute(spelt(statement).replace("TABLE_", self.table))
        connection.commit()
        connection.close()


@pytest.fixture
def postgres(postgres_url: str) -> Iterator[Shop]:
    yield Shop("postgresql", lambda: psycopg.connect(postgres_url), f"{SCHEMA}.orders")
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"drop schema if exists {SCHEMA} cascade")
        connection.execute(f"drop role if exists {SCHEMA}_reader")


@pytest.fixture(params=["postgresql", "duckdb", "sqlite"])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Shop:
    """The same rows in three databases; each goes into one of the warehouses, and nightly into both."""
    lands = DEPTH == 1 and "warehouse" in request.fixturenames
    if lands and request.getfixturevalue("warehouse").engine != PAIRS[request.param]:
        pytest.skip(
            f"with CDP_TEST_DEPTH above 1 only: here {request.param} goes into {PAIRS[request.param]}"
        )
    if request.param == "postgresql":
        found: Shop = request.getfixturevalue("postgres")
        found.run("create schema cdp_source")
        return found
    path = str(tmp_path / "shop.db")
    module = duckdb if request.param == "duckdb" else sqlite3
    return Shop(request.param, lambda: module.connect(path), "orders")


def stream(options: dict[str, Any], columns: dict[str, Any], **parts: Any) -> Stream:
    given: dict[str, Any] = {"source": "shop", "name": "orders", "primary_key": ("id",)} | parts
    return Stream(**given, columns=columns, options=SqlOptions(**options))


def landed(warehouse: Warehouse, wanted: Stream, shop: Shop, run: Run) -> Report:
    report = land(warehouse, wanted, SqlConnector(shop.database), run)
    check(warehouse, wanted, run)
    return report


def view(warehouse: Warehouse, columns: str = "*") -> list[tuple[Any, ...]]:
    with warehouse.session() as session:
        return session.fetch(f"select {columns} from {warehouse.table('shop__orders')} order by 1")


CHANGES = {"id": "integer", "name": "string", "changed": "timestamp"}
EVERYTHING = """create table TABLE_ (id int primary key, total numeric(20, 6), happened timestamptz,
    wall timestamp, day date, ok boolean, doc jsonb, plain json, tags text[], times timestamptz[], uid uuid,
    words text, raw bytea, mood cdp_source.mood, ratio double precision, lasted interval, place point,
    twin cdp_source.pair, price money)"""
TYPES = {
    "id": "integer",
    "total": "decimal",
    "happened": "timestamp",
    "wall": "timestamp",
    "day": "date",
    "ok": "boolean",
    "doc": "json",
    "plain": "json",
    "tags": "json",
    "times": "json",
    "uid": "string",
    "words": "string",
    "raw": "string",
    "mood": "string",
    "ratio": "number",
    "lasted": "string",
    "place": "string",
    "twin": "json",
    "price": "decimal",
}


def test_every_type_of_postgres(postgres: Shop, warehouse: Warehouse, run: Callable[..., Run]) -> None:
    postgres.run(
        "create schema cdp_source",
        "create type cdp_source.mood as enum ('glad', 'sad')",
        "create type cdp_source.pair as (a int, b text)",
        EVERYTHING,
        r"""insert into TABLE_ values
        (1, 12345678901234.123456, '2026-07-01 10:00:00.123456+02', '2026-07-01 10:00', '2026-07-01', true,
         '{"a": [1, null, 12345678901234567890.123456]}', E'{"b":\n "c"}', '{"a,b", "c\"d", null}',
         '{2026-07-01 00:00+00}', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11',
         E'two\nlines, "quoted"; \\back', '\xDEADBEEF', 'glad', 0.1, '1 day 02:03:04.5', '(1,2)', row(1, 'x'),
         '1234.50'),
        (2, null, null, null, null, null, null, null, null, null, null, '', null, null, null, null, null,
         null, null)""",
    )
    wanted = stream({"table": postgres.table}, TYPES)
    report = landed(warehouse, wanted, postgres, run())
    assert (report.rows_in, report.rows_refused) == (2, 0)
    assert report.detail["unknown_keys"] == []
    first, second = ([*row] for row in view(warehouse, ", ".join(TYPES)))
    for place in [place for place, kind in enumerate(TYPES.values()) if kind == "json"]:
        # One engine gives texts, the other values.
        first[place] = orjson.loads(first[place]) if isinstance(first[place], str) else first[place]
    assert first[:6] == [
        1,
        Decimal("12345678901234.123456"),
        datetime(2026, 7, 1, 8, 0, 0, 123456, UTC),
        datetime(2026, 7, 1, 10, tzinfo=UTC),
        date(2026, 7, 1),
        True,
    ]
    assert float(first[6]["a"][2]) == 12345678901234567890.123456
    assert first[7:10] == [{"b": "c"}, ["a,b", 'c"d', None], ["2026-07-01T00:00:00+00:00"]]
    assert first[10:15] == [
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        'two\nlines, "quoted"; \\back',
        "deadbeef",
        "glad",
        0.1,
    ]
    assert first[15:] == ["P1DT2H3M4.5S", "(1,2)", {"a": 1, "b": "x"}, Decimal("1234.5")]
    assert second == [2, *[None] * 10, "", *[None] * 7]


def test_what_no_warehouse_holds_is_quarantined_and_not_lost(
    postgres: Shop, warehouse: Warehouse, run: Callable[..., Run]
) -> None:
    postgres.run(
        "create schema cdp_source",
        "create table TABLE_ (id int, happened timestamptz, total numeric)",
        "insert into TABLE_ values (1, 'infinity', 1), (2, '-infinity', 1), (3, '0044-03-15 BC', 1),"
        " (4, null, 'NaN'), (5, now(), 5), (null, now(), 6)",
    )
    types = {"id": "integer", "happened": "timestamp", "total": "decimal"}
    wanted = stream({"table": postgres.table}, types, quarantine={"max_share": 1})
    report = landed(warehouse, wanted, postgres, run())
    assert (report.rows_in, report.rows_out, report.rows_refused) == (6, 1, 5)
    with warehouse.session() as session:
        bad = session.fetch(f"select source, reason from {warehouse.table('quarantine')} order by position")
    assert {source for source, _ in bad} == {f"table {postgres.table}"}
    assert [reason.split(":")[0] for _, reason in bad[:4]] == [
        *['column "happened"'] * 3,
        'column "total"',
    ]
    assert "primary key" in bad[4][1]


def test_a_column_alone(postgres: Shop, warehouse: Warehouse, run: Callable[..., Run]) -> None:
    """A null alone on its line is a row, and no blank line."""
    postgres.run(
        "create schema cdp_source",
        "create table TABLE_ (id text)",
        r"insert into TABLE_ values ('1'), (null), (''), ('\N'), ('\.')",
    )
    wanted = stream({"table": postgres.table}, {"id": "string"}, quarantine={"max_share": 1})
    report = landed(warehouse, wanted, postgres, run())
    assert (report.rows_in, report.rows_refused) == (5, 2)
    assert sorted(view(warehouse, "id")) == [("1",), ("\\.",), ("\\N",)]


def test_a_query_with_percent_signs_and_comments(
    shop: Shop, warehouse: Warehouse, run: Callable[..., Run]
) -> None:
    shop.run(
        "create table TABLE_ (id int, name varchar(20), changed timestamp)",
        "insert into TABLE_ values (1, '10%s', '2026-06-01 00:00:00'), (2, 'x', '2026-06-01 00:00:00'),"
        " (3, '%(a)s', '2026-06-02 00:00:00')",
    )
    query = f"select * from {shop.table} where name like '%s' or name like '~%%' escape '~' -- all; {{}}\n;"
    wanted = stream({"query": query, "cursor": {"column": "changed"}}, CHANGES)
    landed(warehouse, wanted, shop, run())
    assert view(warehouse, "id, name") == [(1, "10%s"), (3, "%(a)s")]


def test_what_is_not_declared_is_kept(shop: Shop, warehouse: Warehouse, run: Callable[..., Run]) -> None:
    shop.run('create table TABLE_ (id int, "Odd ""name""" varchar(9))', "insert into TABLE_ values (1, 'x')")
    report = landed(warehouse, stream({"table": shop.table}, {"id": "integer"}), shop, run())
    with warehouse.session() as session:
        extra = session.scalar(f"select _extra from {warehouse.table('raw_shop__orders')}")
    assert (orjson.loads(extra) if isinstance(extra, str) else extra) == {'Odd "name"': "x"}
    assert report.rows_out == 1


BY_TIME = {"column": "changed", "overlap": "10 minutes"}


def test_only_changes_are_read(shop: Shop, warehouse: Warehouse, run: Callable[..., Run]) -> None:
    """A row that is late within the overlap is found; the ones around it do not come again."""
    shop.run(
        "create table TABLE_ (id int primary key, name varchar(9), changed timestamp)",
        "insert into TABLE_ values (1, 'a', '2026-07-01 10:00:00'), (2, 'b', '2026-07-01 23:59:59.5'),"
        " (3, 'c', '2026-07-02 00:00:00'), (4, 'd', null), (5, 'e', '2026-07-01 23:50:00')",
    )
    wanted = stream({"table": shop.table, "cursor": BY_TIME}, CHANGES, time="changed")
    first = landed(warehouse, wanted, shop, run(1))
    assert first.rows_in == 4
    assert first.detail["without_cursor"] == 1
    assert first.detail["left_for_later"] <= 1, "of those far beyond, some databases send nothing"
    assert [row[0] for row in view(warehouse, "id")] == [1, 2, 4, 5]

    shop.run(
        "insert into TABLE_ values (6, 'late', '2026-07-01 23:52:00'), (7, 'too l.', '2026-07-01 12:00:00')",
        "update TABLE_ set name = 'B', changed = '2026-07-02 11:00:00' where id = 2",
    )
    second = landed(warehouse, wanted, shop, run(2))
    assert second.detail["already_landed"] == 1
    assert second.rows_in == 4, "rows 2, 3 and 6, and 4, which says nothing of its time"
    assert view(warehouse, "id, name")[1:] == [
        (2, "B"),
        (3, "c"),
        (4, "d"),
        (5, "e"),
        (6, "late"),
    ]

    third = landed(warehouse, wanted, shop, run(3))
    assert (third.rows_in, third.detail["already_landed"]) == (1, 1)
    assert landed(warehouse, wanted, shop, run(2)).rows_in == 4, "the same batch once more"


def test_the_highest_number_is_where_it_goes_on(
    shop: Shop, warehouse: Warehouse, run: Callable[..., Run]
) -> None:
    shop.run(
        "create table TABLE_ (id bigint primary key, name varchar(9))",
        "insert into TABLE_ values (1, 'a'), (9007199254740993, 'b')",
    )
    wanted = stream({"table": shop.table, "cursor": {"column": "id"}}, {"id": "integer", "name": "string"})
    assert landed(warehouse, wanted, shop, run(1)).rows_in == 2
    shop.run("insert into TABLE_ values (2, 'before'), (9007199254740994, 'c')")
    second = landed(warehouse, wanted, shop, run(2))
    assert (second.rows_in, second.detail["already_landed"]) == (1, 1)
    shop.run("insert into TABLE_ values (9007199254740995, 'd')")
    assert landed(warehouse, wanted, shop, run(2)).rows_in == 1, "landed again, it ends where it ended"
    assert landed(warehouse, wanted, shop, run(3)).rows_in == 1
    assert [name for _, name in view(warehouse, "id, name")] == ["a", "b", "c", "d"]


def test_days_as_a_cursor(shop: Shop, warehouse: Warehouse, run: Callable[..., Run]) -> None:
    """A day is not over when a batch has read it."""
    shop.run(
        "create table TABLE_ (id int, day date)",
        "insert into TABLE_ values (1, '2026-07-01'), (2, '2026-07-02')",
    )
    wanted = stream({"table": shop.table, "cursor": {"column": "day"}}, {"id": "integer", "day": "date"})
    assert landed(warehouse, wanted, shop, run(1)).rows_in == 1
    shop.run("insert into TABLE_ values (3, '2026-07-01')")
    assert landed(warehouse, wanted, shop, run(2)).rows_in == 2
    assert [row[0] for row in view(warehouse, "id")] == [1, 2, 3]


def test_rows_that_are_gone(shop: Shop, warehouse: Warehouse, run: Callable[..., Run]) -> None:
    shop.run("create table TABLE_ (id int)", "insert into TABLE_ values (1), (2)")
    wanted = stream({"table": shop.table, "complete": True}, {"id": "integer"})
    landed(warehouse, wanted, shop, run(1))
    shop.run("delete from TABLE_ where id = 1", "insert into TABLE_ values (3)")
    landed(warehouse, wanted, shop, run(2))
    assert [row[0] for row in view(warehouse, "id")] == [2, 3]
    shop.run("insert into TABLE_ values (1)")
    landed(warehouse, wanted, shop, run(3))
    assert [row[0] for row in view(warehouse, "id")] == [1, 2, 3]


def test_a_batch_is_one_snapshot(postgres: Shop, warehouse: Warehouse, run: Callable[..., Run]) -> None:
    """A row that comes while the table is read belongs to the next batch, wherever its value lies."""
    postgres.run(
        "create schema cdp_source",
        "create table TABLE_ (id int, changed timestamptz)",
        "insert into TABLE_ select i, '2026-07-01' from generate_series(1, 20000) i",
    )
    opened: list[Any] = []

    def connect() -> Any:
        opened.append(postgres.database.connect())
        return opened[-1]

    meddled = Shop("postgresql", connect, postgres.table)
    wanted = stream({"table": postgres.table, "cursor": BY_TIME}, {"id": "integer", "changed": "timestamp"})
    import cdp_provider.core.ingest.sql_copy as copying

    original = copying._Copying.progress

    def progress(self: Any, changes: Any, null: str) -> Any:
        postgres.run("insert into TABLE_ values (0, '2026-07-01 12:00')")
        return original(self, changes, null)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(copying._Copying, "progress", progress)
        assert landed(warehouse, wanted, meddled, run(1)).rows_in == 20_000
    assert all(connection.closed for connection in opened)
    # More rows than are remembered: all of them come again, and with them the new one.
    assert landed(warehouse, wanted, meddled, run(2)).rows_in == 20_001


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"table": "nowhere.orders"}, NotFoundError, "there is no such"),
        ({"query": "select no_such_column from TABLE_"}, NotFoundError, "there is no such"),
        ({"query": "selec 1"}, ConfigurationError, "does not understand"),
        ({"query": "select name from TABLE_"}, NotFoundError, "no column 'id', which the primary key"),
    ],
)
def test_what_cannot_be_read(
    shop: Shop, tmp_path: Path, options: dict[str, str], error: type[Exception], message: str
) -> None:
    shop.run(
        "create table TABLE_ (id int, name varchar(30))", "insert into TABLE_ values (1, 'ann@example.com')"
    )
    given = {key: value.replace("TABLE_", shop.table) for key, value in options.items()}
    with pytest.raises(error, match=message) as caught:
        SqlConnector(shop.database).fetch(stream(given, {"id": "integer"}), None, window(), tmp_path)
    assert "ann@" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("query", "error", "message"),
    [
        ("select cast(name as int) as id from cdp_source.orders", DataError, "22P02"),
        ("select 1 / (id - 1) as id from cdp_source.orders", DataError, "22012"),
        ("select 1 as id, 2 as id", ConfigurationError, "two columns 'id'"),
        ("select nextval('cdp_source.numbers') as id", ConfigurationError, "would write"),
        ("select * from cdp_source.secret", AccessError, "permission denied for table secret"),
        ("select 1 as id, pg_sleep(9)", RetryableError, "57014"),
    ],
)
def test_what_postgres_refuses(
    postgres: Shop, tmp_path: Path, query: str, error: type[Exception], message: str
) -> None:
    postgres.run(
        "create schema cdp_source",
        "create table TABLE_ (id int, name text)",
        "create table cdp_source.secret (id int)",
        "create sequence cdp_source.numbers",
        "insert into TABLE_ values (1, 'ann@example.com')",
        "create role cdp_reader",
        "grant usage on schema cdp_source to cdp_reader",
        "grant select on TABLE_ to cdp_reader",
        "grant usage on sequence cdp_source.numbers to cdp_reader",
    )

    def connect() -> Any:
        connection = postgres.database.connect()
        connection.execute(spelt("set role cdp_reader"))
        connection.execute("set statement_timeout = 200")
        connection.commit()
        return connection

    with pytest.raises(error, match=message) as caught:
        SqlConnector(Database("postgresql", connect)).fetch(
            stream({"query": spelt(query)}, {"id": "integer"}), None, window(), tmp_path
        )
    assert "ann@" not in str(caught.value)


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    def connect() -> Any:
        return psycopg.connect(host="127.0.0.1", port=1, connect_timeout=2)

    with pytest.raises(UnavailableError, match="cannot be reached"):
        SqlConnector(Database("postgresql", connect)).fetch(
            stream({"table": "t"}, {"id": "integer"}), None, window(), tmp_path
        )


def test_a_reading_that_is_broken_off_ends_at_the_server_too(
    postgres: Shop, postgres_url: str, tmp_path: Path
) -> None:
    """A task that is killed leaves no statement that runs on for hours."""
    postgres.run("create schema cdp_source")

    class Killed(BaseException):
        pass

    def kill(*_: object) -> None:
        raise Killed

    def connect() -> Any:
        connection = postgres.database.connect()
        connection.execute("set statement_timeout = '60s'")
        connection.commit()
        return connection

    numbers = "generate_series(1, 1000000)"
    query = f"select count(*) as id from {numbers} cdp_endless, {numbers} other"
    before = signal.signal(signal.SIGALRM, kill)
    signal.setitimer(signal.ITIMER_REAL, 1.0)
    try:
        with pytest.raises(Killed):
            SqlConnector(Database("postgresql", connect)).fetch(
                stream({"query": query}, {"id": "integer"}), None, window(), tmp_path
            )
    finally:
        signal.signal(signal.SIGALRM, before)
    running = (
        "select count(*) from pg_stat_activity where query like 'copy%cdp_endless%' and state = 'active'"
    )
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        for _ in range(50):
            (still,) = connection.execute(running).fetchone() or (0,)
            if not still:
                break
            connection.execute("select pg_sleep(0.1)")
    assert still == 0


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.decimals(),
    st.binary(max_size=20),
    st.dates(),
    st.datetimes(),
    st.datetimes(timezones=st.just(UTC)),
    st.times(),
    st.uuids(),
    st.timedeltas(min_value=timedelta(days=-9999), max_value=timedelta(days=9999)),
)


def read(value: Any, text: Any) -> bool:
    """Whether `text`, out of JSON, is `value`, whatever was written."""
    if value is None or isinstance(value, bool):
        return text is value
    if isinstance(value, int):
        return int(text) == value
    if isinstance(value, float):
        return float(text) == value or (math.isnan(value) and text == "nan")
    if isinstance(value, Decimal):
        return str(value) == text
    if isinstance(value, bytes | memoryview):
        return bytes.fromhex(text) == bytes(value)
    if isinstance(value, datetime):
        return datetime.fromisoformat(text) == (value if value.tzinfo else value.replace(tzinfo=UTC))
    if isinstance(value, date | time):
        return type(value).fromisoformat(text) == value
    if isinstance(value, timedelta):
        return Decimal(text[2:-1]) == Decimal(value // timedelta(microseconds=1)) / 1_000_000
    return str(value) == text


@settings(max_examples=30 if DEPTH == 1 else 100 * DEPTH, deadline=None)
@given(st.lists(st.tuples(SCALARS, SCALARS, st.lists(SCALARS, max_size=3)), min_size=1, max_size=5))
def test_values_keep_every_digit(rows: list[tuple[Any, ...]]) -> None:
    lines = written(["a", "b", "c"], rows, ())
    assert all(line.endswith(b"\n") and line.count(b"\n") == 1 for line in lines)
    for row, line in zip(rows, lines, strict=True):
        record = orjson.loads(line)
        assert read(row[0], record["a"]), (row[0], line)
        assert read(row[1], record["b"]), (row[1], line)
        assert all(map(read, row[2], record["c"])), (row[2], line)


def test_values_that_drivers_give() -> None:
    row = (memoryview(b"\x01\xff"), {1: Decimal("0.10"), "b": {UUID(int=1)}}, 2**70, '{"n": 1}', "{no json")
    (line,) = written(["a", "b", "c", "d", "e"], [row], ("d", "e"))
    assert orjson.loads(line) == {
        "a": "01ff",
        "b": {"1": "0.10", "b": [str(UUID(int=1))]},
        "c": str(2**70),
        "d": {"n": 1},
        "e": "{no json",
    }
    (line,) = written(["d"], [('{"n":\r\n 123456789012345678901234567890}',)], ("d",))
    assert orjson.loads(line) == {"d": {"n": "123456789012345678901234567890"}}
    assert line.count(b"\n") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "either a table or a query"),
        ({"table": "t", "query": "select 1"}, "either a table or a query"),
        ({"query": " ;\n"}, "either a table or a query"),
        ({"table": "public."}, "no name of a table"),
        ({"table": "t", "complete": True, "cursor": {"column": "id"}}, "what is gone can't be seen"),
    ],
)
def test_options_that_contradict_each_other(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SqlOptions(**options)


@pytest.mark.parametrize(
    ("cursor", "message"),
    [
        ({"column": "chaged"}, "has no column 'chaged'"),
        ({"column": "name"}, "is string, which tells no change"),
        ({"column": "number"}, "is a number in the database"),
        ({"column": "id", "overlap": "1 day"}, "an overlap is a stretch of time"),
    ],
)
def test_cursors_that_tell_nothing(cursor: dict[str, Any], message: str, tmp_path: Path) -> None:
    types = {**CHANGES, "number": {"type": "timestamp", "format": "unix"}}
    wanted = stream({"table": "t", "cursor": cursor}, types)
    (problem,) = wanted.options.stream_problems(wanted)
    assert message in problem.message
