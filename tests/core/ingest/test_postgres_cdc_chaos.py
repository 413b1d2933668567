# SPDX-License-Identifier: Apache-2.0
"""A table that changes in every way there is, and a landing process that is killed again and again: whenever
the landing has caught up, the stream's view is the table, row by row."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import threading
from typing import TYPE_CHECKING, Any

import duckdb
import psycopg
import pytest

from cdp_provider.core import tables
from cdp_provider.core.ingest.contracts import check
from cdp_provider.core.ingest.landing import land
from cdp_provider.core.ingest.postgres_cdc import PostgresCdcConnector
from cdp_provider.core.ingest.sql import Database
from cdp_provider.core.run import Run
from cdp_provider.core.warehouse import DuckDBWarehouse, PostgresWarehouse
from tests.conftest import ENGINES
from tests.core.ingest.cdc_source import OPTIONS, Source
from tests.core.ingest.conftest import window

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cdp_provider.core.project.streams import Stream
    from cdp_provider.core.warehouse import Warehouse

DEPTH = int(os.environ.get("CDP_TEST_DEPTH", "1"))
#: How often the landing catches up, and kills before each time.
ROUNDS, KILLS = (10, 6) if DEPTH > 1 else (2, 3)
#: Seconds that a landing may live before it is killed.
LIFE = (0.005, 0.35)
STUCK = 120

_processes = multiprocessing.get_context("forkserver")


def open_warehouse(engine: str, place: str) -> Warehouse:
    if engine == "duckdb":
        return DuckDBWarehouse(lambda: duckdb.connect(place), lock_timeout=60)
    return PostgresWarehouse(lambda: psycopg.connect(place), schema="cdc_chaos", lock_timeout=60)


def task(engine: str, place: str, url: str, stream: Stream, day: int) -> None:
    """One try of landing and checking a batch, in a process of its own."""
    warehouse = open_warehouse(engine, place)
    connector = PostgresCdcConnector(Database("postgresql", lambda: psycopg.connect(url)))
    run = Run("shop", f"run_{day}", window(day))
    land(warehouse, stream, connector, run)
    check(warehouse, stream, run)


class Writer:
    """An application that never rests: transactions of one to many changes, some of them rolled back."""

    def __init__(self, source: Source, rng: random.Random) -> None:
        self._source = source
        self._rng = rng
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self.failed: BaseException | None = None
        self._extra = 0

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        self._stop.set()
        self._thread.join()
        assert self.failed is None, self.failed

    def _work(self) -> None:
        try:
            with psycopg.connect(self._source.url, options=OPTIONS) as connection:
                while not self._stop.is_set():
                    for _ in range(self._rng.choice((1, 1, 1, 3, 10))):
                        self._change(connection)
                    if self._rng.random() < 0.1:
                        connection.rollback()
                    connection.commit()
        except psycopg.Error as error:
            self.failed = error

    def _change(self, connection: Any) -> None:
        table, rng = self._source.table, self._rng
        one, other = rng.randrange(1, 300), rng.randrange(1, 300)
        note = rng.choice((None, "", 'short, "quoted"\nnext', rng.randbytes(5_000).hex()))
        kind = rng.choices(
            ("put", "name", "note", "move", "delete", "many", "truncate", "extra", "declared"),
            (40, 30, 15, 10, 15, 2, 1, 0.5, 0.2),
        )[0]
        if kind == "put":
            connection.execute(
                f"insert into {table} (id, name, note, amount) values (%s, %s, %s, %s)"
                " on conflict (id) do update set name = excluded.name",
                (one, f"n{other}", note, other),
            )
        elif kind == "name":
            connection.execute(f"update {table} set name = %s where id = %s", (f"m{other}", one))
        elif kind == "note":
            connection.execute(f"update {table} set note = %s where id = %s", (note, one))
        elif kind == "move":
            free = f"not exists (select 1 from {table} where id = %s)"
            connection.execute(f"update {table} set id = %s where id = %s and {free}", (other, one, other))
        elif kind == "delete":
            connection.execute(f"delete from {table} where id = %s", (one,))
        elif kind == "many":
            connection.execute(
                f"update {table} set amount = amount + 1 where id between %s and %s", (one, one + 99)
            )
        elif kind == "truncate":
            connection.execute(f"truncate {table}")
        elif kind == "extra":
            # A column that the stream does not declare.
            self._extra += 1
            connection.execute(f"alter table {table} drop column if exists extra")
            connection.execute(f"alter table {table} add column extra text default 'e{self._extra}'")
        else:
            # One that it does: every row has another value, and no row a change.
            connection.execute(f"alter table {table} drop column amount")
            connection.execute(f"alter table {table} add column amount numeric(12,2) default {other}")


@pytest.fixture
def source(cdc_url: str) -> Iterator[Source]:
    made = Source(cdc_url)
    yield made
    made.close()


@pytest.fixture(params=ENGINES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Engine, and where its warehouse is."""
    _processes.set_forkserver_preload(["tests.core.ingest.test_postgres_cdc_chaos"])
    if request.param == "duckdb":
        yield request.param, str(tmp_path / "chaos.duckdb")
        return
    url = request.getfixturevalue("postgres_url")
    yield request.param, url
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("drop schema if exists cdc_chaos cascade")


def attempt(place: tuple[str, str], source: Source, day: int, life: float | None) -> int | None:
    """Exit code of one try, killed after `life` seconds."""
    process = _processes.Process(target=task, args=(*place, source.url, source.stream, day))
    process.start()
    process.join(STUCK if life is None else life)
    if process.is_alive():
        assert life is not None, "the landing got stuck"
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
    process.join()
    return process.exitcode


def test_killed_again_and_again_the_view_is_the_table(place: tuple[str, str], source: Source):
    rng = random.Random(5)
    warehouse = open_warehouse(*place)
    with warehouse.session() as session:
        tables.ensure(session)
    source.run(f"insert into {source.table} select g, 'n' || g, null, g from generate_series(1, 200) g")
    day, kills = 1, 0
    for _ in range(ROUNDS):
        with Writer(source, rng):
            killed = 0
            while killed < KILLS:
                code = attempt(place, source, day, rng.uniform(*LIFE))
                assert code in (0, -signal.SIGKILL)
                killed += code != 0
                day += code == 0
            kills += killed
        assert attempt(place, source, day, None) == 0
        assert attempt(place, source, day + 1, None) == 0
        day += 2
        with warehouse.session() as session:
            view = session.fetch(f"select id, name, note, amount from {warehouse.table(source.stream.view)}")
            left = session.scalar(f"select count(*) from {warehouse.table('quarantine')}")
        truth = source.run(f"select id, name, note, amount from {source.table}")
        assert sorted(view, key=lambda row: row[0]) == sorted(truth, key=lambda row: row[0])
        assert left == 0
    assert kills == ROUNDS * KILLS
