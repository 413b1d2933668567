# SPDX-License-Identifier: Apache-2.0
"""Changes of a real PostgreSQL: whatever happens to the table, the batches tell it."""

from __future__ import annotations

import os
import random
import threading
import time
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import pq, sql

from cdp_provider.core.exceptions import AccessError, ConfigurationError, NotFoundError, RetryableError
from cdp_provider.core.ingest import postgres_changes, postgres_slot
from cdp_provider.core.ingest.postgres_cdc import PostgresCdcConnector, PostgresCdcOptions
from cdp_provider.core.ingest.postgres_lag import lags
from cdp_provider.core.ingest.sql import Database
from cdp_provider.core.project.streams import Stream
from tests.core.ingest.cdc_source import Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Longer than what PostgreSQL keeps in the row itself; random, so that it cannot be compressed.
LONG = "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=9_000))


@pytest.fixture
def make(cdc_url: str) -> Iterator[Callable[..., Source]]:
    """Returns a function: columns of the table, and parts of the stream -> a source."""
    made: list[Source] = []

    def source(*args: Any, **parts: Any) -> Source:
        made.append(Source(cdc_url, *args, **parts))
        return made[-1]

    yield source
    for one in made:
        one.close()


@pytest.fixture
def source(make: Callable[..., Source]) -> Source:
    """Three rows, and a first batch."""
    made = make()
    made.run(f"insert into {made.table} values (1, 'Ann', null, 1.5), (2, '', 'a', null), (3, 'C', 'b', 3)")
    made.fetch()
    return made


def test_the_first_batch_is_a_snapshot(make: Callable[..., Source]):
    source = make()
    source.run(f"insert into {source.table} values (1, 'Ann', null, 1.5, now()), (2, '', 'a', null, null)")
    fetched = source.fetch()
    assert fetched.complete
    assert fetched.detail["snapshot"] == "first"
    assert source.known() == source.truth()
    assert source.known()[1]["name"] == ""
    assert not source.fetch().complete
    assert source.known() == source.truth()


def test_inserts_updates_and_deletes(source: Source):
    source.run(f"insert into {source.table} values (4, 'D', 'new', 4, '2026-07-01 12:00+02')")
    source.run(f"update {source.table} set name = 'Anna' where id = 1")
    source.run(f"delete from {source.table} where id = 2")
    fetched = source.fetch()
    assert fetched.detail["transactions"] == 3
    assert fetched.detail["changes"] == 3
    assert fetched.detail["wal_retained"] > 0
    assert [row["id"] for row in source.spooled[0]] == ["4", "1", "2"]
    assert source.known() == source.truth()


def test_every_kind_of_text_comes_as_it_is(source: Source):
    for number, text in enumerate(
        ['"', '""', ",", "\n", "\r\n", "", " ", "é€😀", "\\N", "\\.", 'a,b\n"c"', "\t\x01"], 10
    ):
        source.run(f"insert into {source.table} (id, name, note) values (%s, %s, null)", number, text)
    source.fetch()
    assert source.known() == source.truth()
    assert {row["note"] for row in source.known() if int(row["id"]) >= 10} == {None}


def test_all_types_are_written_as_a_snapshot_writes_them(make: Callable[..., Source]):
    columns = (
        "id uuid primary key, b bool, i bigint, f float8, n numeric, d date, ts timestamp, tz timestamptz,"
        " iv interval, j json, jb jsonb, a text[], by bytea, c char(5), e inet"
    )
    source = make(columns, columns={"id": "string"})
    row = (
        "(gen_random_uuid(), true, 9223372036854775807, 0.1, 12345678901234567890.123456789, '2026-07-01',"
        " '2026-07-01 12:00:00.000001', '2026-07-01 12:00+02', '1 day 2 hours', '{\"a\": [1, \"x\"]}',"
        " '{\"b\": 1.50}', array['x', 'y \"z\"', null], '\\x00ff', 'ab', '10.0.0.1')"
    )
    source.run(f"insert into {source.table} values {row}")
    source.fetch()
    source.run(f"insert into {source.table} values {row.replace('true', 'false')}")
    source.fetch()
    first, second = ({**row, "id": "", "b": ""} for row in source.known())
    assert first == second
    assert first["tz"] == "2026-07-01 10:00:00+00"
    assert source.known() == source.truth()


def test_a_new_key_is_a_deletion_and_a_row(source: Source):
    source.run(f"update {source.table} set id = 30 where id = 3")
    source.fetch()
    assert [(row["id"], row["name"]) for row in source.spooled[0]] == [("3", None), ("30", "C")]
    assert source.known() == source.truth()


def test_rows_of_one_statement_may_pass_their_keys_on(source: Source):
    with source.connection.transaction():
        source.run(f"update {source.table} set id = id + 100")
        source.run(f"update {source.table} set id = id - 99")
    source.fetch()
    assert source.known() == source.truth()


@pytest.mark.parametrize("identity", ["default", "full", "using index"])
def test_long_values_that_did_not_change(make: Callable[..., Source], identity: str):
    """They are not in the log, unless the whole row is."""
    source = make("id int primary key, name text, note text, amount int, code text not null unique")
    key = f" {source.schema}.t_code_key" if identity == "using index" else ""
    if key:
        source.stream = source.stream.model_copy(
            update={"primary_key": ("code",), "columns": {"code": source.stream.columns["name"]}}
        )
        key = " t_code_key"
    source.run(f"alter table {source.table} replica identity {identity}{key}")
    source.run(
        f"insert into {source.table} select g, 'n', %s || g, g, 'c' || g from generate_series(1, 6) g", LONG
    )
    source.fetch()
    source.run(f"update {source.table} set amount = 10")
    source.run(f"update {source.table} set id = 20, code = 'c20' where id = 2")
    source.run(f"update {source.table} set note = note || 'x' where id = 3")
    source.run(f"update {source.table} set amount = 11 where id = 3")
    fetched = source.fetch()
    assert fetched.detail["looked_up"] == (0 if identity == "full" else 8)
    assert source.known() == source.truth()
    assert all(row["note"].startswith(LONG) for row in source.known())


def test_a_row_that_is_gone_before_its_long_value_is_looked_up(
    source: Source, monkeypatch: pytest.MonkeyPatch
):
    source.run(f"insert into {source.table} values (4, 'D', %s, 4), (5, 'E', %s, 5)", LONG, LONG)
    source.fetch()
    source.run(f"update {source.table} set name = 'DD' where id in (4, 5)")
    select = postgres_changes.Lookup._select

    def later(self: Any, names: Any, keys: Any) -> Any:
        source.run(f"delete from {source.table} where id = 4")
        source.run(f"update {source.table} set note = 'short' where id = 5")
        return select(self, names, keys)

    monkeypatch.setattr(postgres_changes.Lookup, "_select", later)
    source.fetch()
    monkeypatch.undo()
    assert ("4",) not in source.rows
    assert source.rows[("5",)]["note"] == "short"
    source.fetch()
    assert source.known() == source.truth()


def test_truncate(source: Source):
    source.run(f"insert into {source.table} values (4, 'D')")
    source.run(f"truncate {source.table}")
    fetched = source.fetch()
    assert fetched.complete
    assert fetched.files == []
    assert source.known() == []
    source.run(f"insert into {source.table} values (5, 'E')")
    source.run(f"truncate {source.table}")
    source.run(f"insert into {source.table} values (6, 'F'), (7, 'G')")
    source.run(f"delete from {source.table} where id = 7")
    assert source.fetch().complete
    assert [row["id"] for row in source.spooled[0]] == ["6", "7", "7"]
    assert source.known() == source.truth()
    assert not source.fetch().complete


def test_other_tables_and_transactions_that_were_rolled_back(source: Source):
    source.run(f"create table {source.schema}.other (id int primary key)")
    source.run(f"alter publication {source.schema} add table {source.schema}.other")
    source.run(f"insert into {source.schema}.other select generate_series(1, 10)")
    source.run(f"truncate {source.schema}.other")
    with source.connection.transaction(force_rollback=True):
        source.run(f"insert into {source.table} values (9, 'never')")
    fetched = source.fetch()
    assert (fetched.detail["changes"], fetched.complete) == (0, False)
    assert source.known() == source.truth()


def test_subtransactions(source: Source):
    with source.connection.transaction():
        source.run(f"insert into {source.table} values (10, 'kept')")
        with source.connection.transaction(force_rollback=True):
            source.run(f"insert into {source.table} values (11, 'never')")
        with source.connection.transaction():
            source.run(f"insert into {source.table} values (12, 'kept')")
    source.fetch()
    assert source.known() == source.truth()


def test_what_was_not_confirmed_is_not_told_twice(source: Source):
    source.run(f"insert into {source.table} values (4, 'D')")
    source.fetch(confirm=False)
    source.run(f"insert into {source.table} values (5, 'E')")
    fetched = source.fetch(confirm=False)
    assert [row["id"] for row in source.spooled[0]] == ["5"]
    assert fetched.detail["transactions"] == 1
    source.fetch()
    assert source.known() == source.truth()


def test_confirming_twice_and_late(source: Source):
    source.run(f"insert into {source.table} values (4, 'D')")
    first = source.fetch()
    source.run(f"insert into {source.table} values (5, 'E')")
    second = source.fetch()
    assert first.cursor
    assert second.cursor
    for cursor in (second.cursor, first.cursor, second.cursor):
        source.connector.confirm(source.stream, cursor)
    assert source.fetch().detail["transactions"] == 0


def test_confirmed_log_is_let_go(source: Source):
    source.run(f"insert into {source.table} select g, repeat('x', 1000) from generate_series(10, 3000) g")
    source.fetch()
    source.run("checkpoint")
    source.run(f"update {source.table} set name = 'y' where id = 1")
    source.fetch()
    assert source.fetch().detail["wal_retained"] < 500_000


def test_a_batch_that_is_fetched_again_ends_where_it_ended(source: Source):
    source.run(f"insert into {source.table} values (4, 'D')")
    before = source.cursor
    until = source.fetch(confirm=False).cursor
    source.run(f"insert into {source.table} values (5, 'E')")
    source.cursor = before
    assert source.fetch(confirm=False, until=until).cursor == until
    assert [row["id"] for row in source.spooled[0]] == ["4"]
    source.fetch()
    assert source.known() == source.truth()


def test_a_snapshot_amid_writers(make: Callable[..., Source]):
    """What it saw is not told again, and what it did not see is told: no gap, and nothing twice."""
    source = make("id int primary key, name text, n int not null")
    source.run(f"insert into {source.table} select g, 'x', 0 from generate_series(1, 200) g")
    stop = threading.Event()

    def write(number: int) -> None:
        rng = random.Random(number)
        with psycopg.connect(source.url, options="-c synchronous_commit=on") as connection:
            while not stop.is_set():
                for _ in range(rng.randrange(1, 4)):
                    place = rng.randrange(50) * 4 + number + 1
                    connection.execute(f"update {source.table} set n = n + 1 where id = %s", (place,))
                if rng.random() < 0.2:
                    connection.rollback()
                connection.commit()

    writers = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for writer in writers:
        writer.start()
    told: dict[str, int] = {}
    try:
        for _ in range(4):
            source.cursor = None
            time.sleep(0.1)
            source.fetch(confirm=False)
            told = {row["id"]: int(row["n"]) for row in source.spooled[0]}
            for _ in range(3):
                source.fetch(confirm=False)
                for row in source.spooled[0] if source.spooled else []:
                    assert int(row["n"]) == told[row["id"]] + 1, "each update counts up by one"
                    told[row["id"]] = int(row["n"])
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    source.fetch()
    assert source.known() == source.truth()


@pytest.mark.parametrize("reason", ["slot_gone", "slot_ahead", "publication_changed", "table_recreated"])
def test_what_cannot_be_told_is_read_anew(source: Source, reason: str):
    source.run(f"delete from {source.table} where id = 1")
    if reason == "slot_gone":
        source.run("select pg_drop_replication_slot(%s)", source.schema)
    elif reason == "slot_ahead":
        source.run("select pg_replication_slot_advance(%s, pg_current_wal_flush_lsn())", source.schema)
    elif reason == "publication_changed":
        source.run(f"drop publication {source.schema}")
    else:
        source.run(f"drop publication {source.schema}")
        source.run(f"create publication {source.schema} for all tables")
        source.fetch()
        source.run(f"drop table {source.table}")
        source.run(
            f"create table {source.table} (id int primary key, name text, note text, amount numeric(12,2))"
        )
        source.run(f"insert into {source.table} values (100, 'other')")
    fetched = source.fetch()
    assert (fetched.complete, fetched.detail["snapshot"]) == (True, reason)
    assert source.known() == source.truth()
    source.run(f"insert into {source.table} values (200, 'more')")
    assert not source.fetch().complete
    assert source.known() == source.truth()


@pytest.mark.skipif(
    "CDP_TEST_POSTGRES_URL" in os.environ, reason="the server's settings are changed, and it is not our own"
)
def test_a_slot_whose_log_the_server_threw_away(source: Source):
    source.run("alter system set max_slot_wal_keep_size = '1MB'")
    source.run("select pg_reload_conf()")
    try:
        for number in range(5):
            source.run(f"insert into {source.table} values (%s, 'x')", 10 + number)
            source.run("select pg_switch_wal()")
        source.run("checkpoint")
        assert [lag.lost for lag in lags(source.database, [source.schema])] == [True]
        fetched = source.fetch()
    finally:
        source.run("alter system reset max_slot_wal_keep_size")
        source.run("select pg_reload_conf()")
    assert (fetched.complete, fetched.detail["snapshot"]) == (True, "slot_lost")
    source.run(f"insert into {source.table} values (20, 'more')")
    assert not source.fetch().complete
    assert source.known() == source.truth()


def test_a_publication_that_was_made_anew_by_somebody(source: Source):
    source.run(f"insert into {source.table} values (10, 'before')")
    source.run(f"drop publication {source.schema}")
    source.run(f"insert into {source.table} values (11, 'between')")
    source.run(f"create publication {source.schema} for table {source.table}")
    source.run(f"insert into {source.table} values (12, 'after')")
    assert source.fetch().detail["snapshot"] == "publication_changed"
    assert source.known() == source.truth()
    source.run(f"insert into {source.table} values (13, 'later')")
    assert not source.fetch().complete
    assert source.known() == source.truth()


def test_a_slot_older_than_the_publication(make: Callable[..., Source]):
    source = make()
    source.run("select pg_create_logical_replication_slot(%s, 'pgoutput')", source.schema)
    source.run(f"insert into {source.table} values (1, 'A')")
    assert source.fetch().detail["snapshot"] == "first"
    source.run(f"insert into {source.table} values (2, 'B')")
    source.fetch()
    source.fetch()
    assert source.known() == source.truth()


def test_another_server_with_an_older_log(source: Source):
    assert source.cursor
    source.cursor = source.cursor | {"lsn": "FFFF/0"}
    assert source.fetch().detail["snapshot"] == "server_behind"
    source.run(f"insert into {source.table} values (10, 'D')")
    assert not source.fetch().complete
    assert source.known() == source.truth()


def test_columns_come_and_go(source: Source):
    source.run(f"insert into {source.table} values (10, 'before')")
    source.run(f"alter table {source.table} add column extra text default 'e'")
    source.run(f"insert into {source.table} values (11, 'after')")
    source.run(f"alter table {source.table} drop column at")
    source.run(f"insert into {source.table} values (12, 'later')")
    fetched = source.fetch()
    assert not fetched.complete
    assert [list(rows[0]) for rows in source.spooled] == [
        ["id", "name", "note", "amount", "at"],
        ["id", "name", "note", "amount", "at", "extra"],
        ["id", "name", "note", "amount", "extra"],
    ]
    # What it holds in rows that nobody touched matters once it is declared.
    columns = source.stream.columns | {"extra": source.stream.columns["name"]}
    source.stream = source.stream.model_copy(update={"columns": columns})
    fetched = source.fetch()
    assert fetched.detail["snapshot"] == "columns_changed"
    assert source.known() == source.truth()


@pytest.mark.parametrize(
    "change",
    [
        "alter column amount type numeric(12, 4)",
        "drop column amount",
        "rename column amount to total",
        "alter column amount type text using 'x' || amount",
    ],
)
def test_a_declared_column_that_changed_is_read_anew(source: Source, change: str):
    source.run(f"alter table {source.table} {change}")
    assert source.fetch().detail["snapshot"] == "columns_changed"
    assert source.known() == source.truth()
    source.run(f"insert into {source.table} (id, name) values (10, 'D')")
    assert not source.fetch().complete
    assert source.known() == source.truth()


def test_a_table_that_gets_another_name(source: Source):
    source.run(f"insert into {source.table} values (10, 'D')")
    source.run(f"alter table {source.table} rename to u")
    with pytest.raises(NotFoundError, match="does not exist"):
        source.fetch()
    options = source.stream.options.model_copy(update={"table": f"{source.schema}.u"})
    source.stream = source.stream.model_copy(update={"options": options})
    assert not source.fetch().complete
    assert ("10",) in source.rows


def test_partitions(make: Callable[..., Source]):
    source = make("id int, name text, primary key (id)", "partition by range (id)", columns={"id": "integer"})
    for number in range(3):
        source.run(
            f"create table {source.schema}.p{number} partition of {source.table}"
            f" for values from ({number * 100}) to ({number * 100 + 100})"
        )
    source.run(f"insert into {source.table} select g, 'x' from generate_series(0, 299, 50) g")
    source.fetch()
    assert len(source.known()) == 6
    source.run(f"update {source.table} set id = id + 77 where id in (50, 150)")
    source.run(f"delete from {source.table} where id = 250")
    source.run(f"create table {source.schema}.p3 partition of {source.table} for values from (300) to (400)")
    source.run(f"insert into {source.table} values (333, 'new part')")
    assert not source.fetch().complete
    assert source.known() == source.truth()
    # The log does not tell it of a part alone.
    source.run(f"truncate {source.schema}.p3")
    assert source.fetch().detail["changes"] == 0
    source.run(f"truncate {source.table}")
    source.run(f"insert into {source.table} values (1, 'again')")
    assert source.fetch().complete
    assert source.known() == source.truth()


def test_generated_columns_are_left_out(make: Callable[..., Source]):
    source = make("id int primary key, name text, twice int generated always as (id * 2) stored")
    source.run(f"insert into {source.table} values (1, 'A')")
    source.fetch()
    source.run(f"insert into {source.table} values (2, 'B')")
    source.fetch()
    assert source.known() == source.truth("id, name")


def test_tables_that_inherit_are_left_out(source: Source):
    source.run(f"create table {source.schema}.child () inherits ({source.table})")
    source.run(f"insert into {source.schema}.child values (50, 'child')")
    source.run(f"insert into {source.table} values (51, 'own')")
    source.fetch()
    source.cursor = None
    source.fetch()
    assert ("50",) not in source.rows
    assert ("51",) in source.rows


def test_a_publication_with_some_columns(make: Callable[..., Source]):
    source = make()
    source.run(f"insert into {source.table} values (1, 'A', 'secret')")
    source.run(f"create publication {source.schema} for table {source.table} (id, name)")
    source.fetch()
    source.run(f"insert into {source.table} values (2, 'B', 'secret')")
    source.fetch()
    assert source.known() == source.truth("id, name")


def test_many_changes_in_one_transaction(source: Source):
    with source.connection.transaction():
        source.run(
            f"insert into {source.table} (id, name) select g, 'n' || g from generate_series(10, 60009) g"
        )
        source.run(f"update {source.table} set note = 'x' where id % 2 = 0")
        source.run(f"delete from {source.table} where id % 3 = 0")
    fetched = source.fetch()
    assert fetched.detail["transactions"] == 1
    assert fetched.detail["changes"] > 100_000
    assert source.known() == source.truth()


def test_a_composite_key_and_spelling(make: Callable[..., Source]):
    source = make(
        '"Shop" text, "No." bigint, "50 % off" text, "a ""b"", c" int, primary key ("Shop", "No.")',
        primary_key=("shop", "number"),
        columns={"shop": {"path": "Shop"}, "number": {"type": "integer", "path": "No."}},
    )
    source.run(
        f"insert into {source.table} values ('x', 1, %s, 1), ('x', 2, %s, 2), ('', 1, 'b', 3)", LONG, LONG
    )
    source.fetch()
    source.run(f"""update {source.table} set "a ""b"", c" = 7""")
    source.run(f"""update {source.table} set "Shop" = 'y' where "Shop" = 'x' and "No." = 1""")
    source.run(f"""delete from {source.table} where "No." = 2""")
    source.fetch()
    assert source.known() == source.truth()


@pytest.mark.parametrize(
    ("columns", "identity", "advice"),
    [
        ("id int, name text, note text, amount int", "default", "replica identity full"),
        ("id int primary key, name text, note text, amount int", "nothing", "replica identity full"),
        ("id int, name text primary key, note text, amount int", "default", "'id' cannot be told"),
        ("id int primary key, name text, note text, amount int, _deleted bool", "default", "_deleted"),
    ],
)
def test_a_table_whose_deletions_could_not_be_told(
    make: Callable[..., Source], columns: str, identity: str, advice: str
):
    """Published as it is, it would even refuse updates to the application that it belongs to."""
    source = make(columns)
    source.run(f"alter table {source.table} replica identity {identity}")
    source.run(f"insert into {source.table} (id, name) values (1, 'A')")
    with pytest.raises(ConfigurationError, match=advice):
        source.fetch()
    source.run(f"delete from {source.table}")
    assert source.run("select 1 from pg_publication where pubname = %s", source.schema) == []


def test_without_a_key_the_whole_row_tells(make: Callable[..., Source]):
    source = make("id int, name text, note text, amount int")
    source.run(f"alter table {source.table} replica identity full")
    source.run(f"insert into {source.table} values (1, 'A', %s), (2, 'B', null)", LONG)
    source.fetch()
    source.run(f"update {source.table} set name = 'AA' where id = 1")
    source.run(f"update {source.table} set id = 20 where id = 2")
    source.run(f"insert into {source.table} values (3, 'C')")
    source.run(f"delete from {source.table} where id = 3")
    assert source.fetch().detail["looked_up"] == 0
    assert source.known() == source.truth()


def test_no_such_table_or_column(make: Callable[..., Source]):
    source = make()
    source.run(f"alter table {source.table} rename column id to number")
    with pytest.raises(NotFoundError, match="no column 'id'"):
        source.fetch()
    source.run(f"drop table {source.table}")
    with pytest.raises(NotFoundError, match="does not exist"):
        source.fetch()
    source.run(f"create view {source.table} as select 1 as id")
    with pytest.raises(ConfigurationError, match="no ordinary"):
        source.fetch()


def test_a_publication_that_leaves_something_out(make: Callable[..., Source]):
    source = make()
    source.run(f"create publication {source.schema} for table {source.table} with (publish = 'insert')")
    with pytest.raises(ConfigurationError, match="leaves out"):
        source.fetch()
    source.run(f"drop publication {source.schema}")
    source.run(f"create publication {source.schema} for table {source.table} where (id > 1)")
    with pytest.raises(ConfigurationError, match="leaves out"):
        source.fetch()


def test_a_user_who_may_not(make: Callable[..., Source]):
    source = make()
    role = source.schema
    source.run(f"create role {role} login")

    def connect() -> Any:
        connection = psycopg.connect(source.url)
        connection.execute(sql.SQL("set session authorization {}").format(sql.Identifier(role)))
        connection.commit()
        return connection

    connector = PostgresCdcConnector(Database("postgresql", connect))
    try:
        with pytest.raises(AccessError, match="create publication"):
            source.fetch(connector=connector)
        source.run(f"create publication {source.schema} for table {source.table}")
        with pytest.raises(AccessError, match="replication"):
            source.fetch(connector=connector)
        source.run(f"alter role {role} replication")
        with pytest.raises(AccessError, match="may not read"):
            source.fetch(connector=connector)
        source.run(f"grant usage on schema {source.schema} to {role}")
        source.run(f"grant select on {source.table} to {role}")
        source.run(f"insert into {source.table} values (1, 'A')")
        source.fetch(connector=connector)
        source.run(f"update {source.table} set name = 'B'")
        cursor = source.fetch(connector=connector, confirm=False).cursor
        assert cursor
        connector.confirm(source.stream, cursor)
        assert source.fetch(connector=connector).detail["transactions"] == 0
        assert source.known() == source.truth()
        source.run(f"alter table {source.table} enable row level security")
        source.cursor = None
        with pytest.raises(AccessError):
            source.fetch(connector=connector)
    finally:
        source.run(f"drop owned by {role}")
        source.run(f"drop role {role}")


def test_a_slot_in_use(source: Source, monkeypatch: pytest.MonkeyPatch):
    """A killed task's session may live on for a moment; a second reader is a mistake."""
    source.run(f"insert into {source.table} values (10, 'D')")
    reader = pq.PGconn.connect(f"{source.connection.info.dsn} replication=database".encode())
    options = f"(proto_version '1', publication_names '{source.schema}')"
    held = reader.exec_(f"START_REPLICATION SLOT {source.schema} LOGICAL 0/0 {options}".encode())
    assert held.status == pq.ExecStatus.COPY_BOTH
    monkeypatch.setattr(postgres_slot, "PATIENCE", 0.3)
    with pytest.raises(RetryableError, match="one reader") as caught:
        source.fetch()
    monkeypatch.undo()
    assert caught.value.retry_after == 60
    threading.Timer(0.5, reader.finish).start()
    source.fetch()
    assert source.known() == source.truth()


def test_a_slot_of_another_database(make: Callable[..., Source]):
    source = make()
    other = f"{source.schema}_other"
    source.run(f"create database {other}")
    try:
        with psycopg.connect(source.url, dbname=other, autocommit=True) as connection:
            create = "select pg_create_logical_replication_slot(%s, 'pgoutput')"
            connection.execute(create, (source.schema,))
        with pytest.raises(ConfigurationError, match="another database or plugin"):
            source.fetch()
    finally:
        source.run("select pg_drop_replication_slot(%s)", source.schema)
        source.run(f"drop database {other} (force)")


def test_another_database_than_postgresql():
    with pytest.raises(ConfigurationError, match="leads to mysql"):
        PostgresCdcConnector(Database("mysql", lambda: None))


def test_no_server():
    source = Database("postgresql", lambda: psycopg.connect("host=127.0.0.1 port=9"))
    with pytest.raises(RetryableError):
        PostgresCdcConnector(source).confirm(_stream(), {"lsn": "0/1"})


def _stream() -> Stream:
    options = PostgresCdcOptions(table="t")
    return Stream(source="shop", name="t", primary_key="id", columns={"id": "integer"}, options=options)
