# SPDX-License-Identifier: Apache-2.0
"""The contract of every engine."""

from __future__ import annotations

import random
import subprocess
import sys
from datetime import UTC, date, datetime
from decimal import Decimal

import duckdb
import pyarrow as pa
import pytest

from cdp_provider.core import tables
from cdp_provider.core.exceptions import ConfigurationError, WarehouseBusyError
from cdp_provider.core.warehouse import DuckDBWarehouse
from cdp_provider.core.warehouse.base import bind_names

ROWS = pa.table(
    {
        "s": pa.array(["a", "", None, 'q"u,o\nté\t%:x'], pa.string()),
        "i": pa.array([1, None, -(2**62), 3], pa.int64()),
        "n": pa.array([1.5, None, 1e300, -0.0], pa.float64()),
        "d": pa.array(
            [Decimal("1.250000"), None, Decimal("-3.000001"), Decimal("0.000000")], pa.decimal128(28, 6)
        ),
        "b": pa.array([True, False, None, True], pa.bool_()),
        "day": pa.array([date(2024, 2, 29), None, date(1970, 1, 1), date(2999, 12, 31)], pa.date32()),
        "t": pa.array(
            [datetime(2024, 2, 29, 23, 59, 59, 999999, tzinfo=UTC), None]
            + [datetime(1969, 7, 20, tzinfo=UTC)] * 2,
            pa.timestamp("us", tz="UTC"),
        ),
    }
)


def test_every_type_survives_the_way_in_and_out(warehouse):
    with warehouse.session() as session:
        name = session.temp("kept", ROWS)
        back = session.arrow(f"select * from {name}")
        assert back.select(ROWS.column_names).to_pylist() == ROWS.to_pylist()
        plain = session.fetch(f"select s, i, n, d, b, day, t from {name}")
        assert [list(row) for row in plain] == [list(row.values()) for row in ROWS.to_pylist()]


def test_empty_chunks_and_slices_survive_the_way_in(warehouse):
    whole = pa.chunked_array(
        [pa.array([], pa.string()), pa.array([None, "a"] * 5000).slice(1), pa.array(["z"])]
    )
    with warehouse.session() as session:
        name = session.temp("kept", pa.table({"s": whole, "n": pa.array(range(len(whole)))}))
        assert [row[0] for row in session.fetch(f"select s from {name} order by n")] == whole.to_pylist()


def test_values_are_bound_and_never_read_as_sql(warehouse):
    nasty = "x'; drop table cdp.runs; -- :y %s"
    with warehouse.session() as session:
        assert (
            session.scalar("select cast(:v as varchar) || ':v %' -- :not_me", {"v": nasty}) == nasty + ":v %"
        )
        assert session.arrow("select cast(:v as varchar) as v", {"v": nasty}).to_pylist() == [{"v": nasty}]


def test_an_empty_result_keeps_its_columns(warehouse):
    with warehouse.session() as session:
        assert session.arrow(
            "select cast(1 as bigint) as a, cast('x' as varchar) as b where 1 = 0"
        ).schema.names == ["a", "b"]


def test_a_transaction_is_all_or_nothing(warehouse):
    with warehouse.session() as session:
        table = warehouse.table("progress")
        insert = f"insert into {table} values ('s', :n, :t, 'r')"
        at = datetime(2026, 1, 1, tzinfo=UTC)
        with pytest.raises(KeyError), session.transaction():  # noqa: PT012 - the first must succeed
            session.execute(insert, {"n": "lost", "t": at})
            session.execute(insert, {})
        with session.transaction():
            session.execute(insert, {"n": "kept", "t": at})
        assert session.fetch(f"select node, window_end from {table}") == [("kept", at)]


def test_execute_counts_rows(warehouse):
    with warehouse.session() as session:
        name = session.temp("counted", ROWS)
        assert session.execute(f"delete from {name} where i = :i", {"i": 1}) == 1
        assert session.execute(f"update {name} set b = true") == 3


def test_replace_table_swaps_the_whole_content(warehouse):
    with warehouse.session() as session:
        for value in (1, 2):
            with session.transaction():
                session.replace_table("swapped", "select cast(:v as integer) as v", {"v": value})
        assert session.fetch(f"select v from {warehouse.table('swapped')}") == [(2,)]
        assert list(session.columns("swapped")) == ["v"]
        assert not session.exists("swapped__new")


def test_views_of_others_survive_a_replaced_table(make_warehouse):
    warehouse = make_warehouse("postgres")
    with warehouse.session() as session:
        for value in (1, 2):
            with session.transaction():
                session.replace_table("swapped", "select cast(:v as integer) as v", {"v": value})
            if value == 1:
                session.execute(
                    f"create view {warehouse.table('theirs')} as select v from {warehouse.table('swapped')}"
                )
        assert session.fetch(f"select v from {warehouse.table('theirs')}") == [(2,)]
        with pytest.raises(ConfigurationError, match="views depend"), session.transaction():
            session.replace_table("swapped", "select 'x' as v, 1 as w")
        assert session.fetch(f"select v from {warehouse.table('theirs')}") == [(2,)]


def test_ensure_may_run_again_and_mends_what_an_earlier_version_made(warehouse):
    with warehouse.session() as session:
        tables.ensure(session)
        assert all(session.exists(table) for table in tables.TABLES)
        assert session.scalar(f"select count(*) from {warehouse.table('product')}") == 1
        session.execute(f"drop table {warehouse.table('delivery_log')}")
        session.execute(f"alter table {warehouse.table('quarantine')} drop column line")
        session.execute(f"update {warehouse.table('product')} set shape = 'earlier'")
        tables.ensure(session)
        for table in ("delivery_log", "quarantine"):
            assert set(session.columns(table)) == set(tables.TABLES[table])


def test_bind_names_leaves_literals_names_comments_and_casts_alone():
    sql = """select ':a', ":b", x::int, :c, '%' /* :d */ from t -- :e"""
    text, used = bind_names(sql, lambda n: f"%({n})s", "%%")
    assert used == {"c"}
    assert text == """select ':a', ":b", x::int, %(c)s, '%%' /* :d */ from t -- :e"""


@pytest.mark.other_process
def test_a_held_duckdb_file_is_waited_for_and_then_named(make_warehouse, tmp_path):
    warehouse = make_warehouse("duckdb")
    path = next(tmp_path.glob("*.duckdb"))
    code = (
        f"import duckdb, sys; c = duckdb.connect({str(path)!r}); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout.readline().strip() == b"held"
        warehouse.lock_timeout = 0.2
        with pytest.raises(WarehouseBusyError, match=str(holder.pid)), warehouse.session():
            raise AssertionError
        holder.stdin.close()
        warehouse.lock_timeout = 30
        with warehouse.session() as session:
            assert session.scalar("select 1") == 1


def test_a_held_postgres_lock_is_waited_for_and_then_named(make_warehouse):
    warehouse = make_warehouse("postgres")
    with warehouse.session() as first, first.lock("identity"), warehouse.session() as second:
        warehouse.lock_timeout = 0.2
        with pytest.raises(WarehouseBusyError, match="identity"), second.lock("identity"):
            raise AssertionError
        with second.lock("another"):
            assert second.scalar("select 1") == 1


def test_latest_takes_the_value_of_the_first_or_last_row(warehouse):
    """By time (none is the earliest), window, batch and position; a missing value is one too."""
    stamp = warehouse.types["timestamp"]
    order = warehouse.order_key(f"cast(t as {stamp})", "seq", "batch", "position")
    newest = warehouse.latest("v", "string", order, "v is null or v <> 'no'")
    oldest = warehouse.latest("v", "string", order, "v is null or v <> 'no'", oldest=True)
    rows = """(values
        (1, 'a', '2026-01-01', 1, 0, 1), (1, 'b', '2026-01-02', 9, 0, 1), (1, 'no', '2026-01-03', 1, 0, 1),
        (2, 'x', '2026-01-02', 1, 0, 2), (2, 'y', '2026-01-02', 1, 1, 1), (2, 'z', '2026-01-02', 1, 1, 10),
        (3, 'later', null, 2, 0, 1), (3, 'early', null, 1, 16383, 1073741823),
        (4, null, '9999-12-31 23:59:59.999999', 16777215, 16383, 1073741823), (4, 'n', '0001-01-01', 0, 0, 0),
        (5, 'no', '2026-01-01', 1, 0, 1)) t(g, v, t, seq, batch, position)"""
    with warehouse.session() as session:
        found = session.fetch(f"select g, {newest}, {oldest} from {rows} group by g order by g")
    assert found == [
        (1, "b", "a"),
        (2, "z", "x"),
        (3, "later", "early"),
        (4, None, "n"),
        (5, None, None),
    ]


def test_a_table_that_begins_with_an_empty_chunk_is_loaded_as_it_is(warehouse):
    schema = pa.schema({"n": pa.int64(), "t": pa.string()})
    chunks = [schema.empty_table(), *(pa.table({"n": [i], "t": [f"O{i:06}"]}, schema) for i in range(20))]
    with warehouse.session() as session:
        temp = session.temp("chunked", pa.concat_tables(chunks))
        assert session.fetch(f"select n, t from {temp} order by n") == [(i, f"O{i:06}") for i in range(20)]


def test_the_newest_of_lines_that_were_replaced_many_times_is_found():
    """DuckDB 2.0.0 finds none after some dozens of times, unless an optimizer of it is off."""
    root = duckdb.connect(":memory:")
    warehouse = DuckDBWarehouse(root.cursor)
    root.execute("create table lines (number bigint not null, text varchar not null, primary key (number))")
    rng = random.Random(3)  # noqa: S311 - numbers of lines, not a secret
    for turn in range(80):
        with warehouse.session() as session:
            session.execute("delete from lines")
            with session.transaction():
                for number in range(rng.randint(0, 5)):
                    session.execute("insert into lines values (:n, 'x')", {"n": 2 * number + turn % 2})
            newest = session.scalar("select number from lines order by number desc limit 1")
            assert newest == session.scalar("select max(number) from lines")


def test_a_query_that_fails_while_its_rows_arrive_leaves_the_session_sound(warehouse):
    with warehouse.session() as session:
        with pytest.raises(Exception, match="(?i)convert|invalid input syntax"):
            session.arrow(
                "select cast(case when i > 999990 then 'x' else '1' end as integer) as n"
                " from generate_series(1, 1000000) r(i)"
            )
        assert session.scalar("select 1") == 1


def test_a_duckdb_file_named_like_the_schema_is_refused_with_what_to_do(tmp_path):
    warehouse = DuckDBWarehouse(lambda: duckdb.connect(str(tmp_path / "people.duckdb")), schema="people")
    with pytest.raises(ConfigurationError, match="both called 'people'.*people_warehouse.duckdb"):
        with warehouse.session():
            pass
