# SPDX-License-Identifier: Apache-2.0
"""kill -9 at random moments, with a vendor that has troubles too: nothing lost, nothing applied twice."""

from __future__ import annotations

import multiprocessing
import random
import signal
from typing import TYPE_CHECKING

import duckdb
import psycopg
import pytest

from cdp_provider.core.activation.delivery import Patience
from cdp_provider.core.activation.limiter import SqliteLimits
from cdp_provider.core.warehouse import DuckDBWarehouse, PostgresWarehouse
from tests.conftest import ENGINES
from tests.core.activation.scene import Scene, mail, person, put_profiles

if TYPE_CHECKING:
    from cdp_provider.core.warehouse import Warehouse
    from cdp_provider.testing.vendor import VendorServer

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["tests.core.activation.test_crash"])
PEOPLE = 300
BATCH = 20
WINDOWS = 3
KILLS_PER_WINDOW = 5
FAULTS = (
    {"cut": True},
    {"status": 500},
    {"malformed": True},
    {"delay": 0.1},
    {"status": 429, "headers": {"Retry-After": "0"}},
)


def open_warehouse(engine: str, address: str, schema: str) -> Warehouse:
    if engine == "duckdb":
        return DuckDBWarehouse(lambda: duckdb.connect(address), schema=schema, lock_timeout=30)
    return PostgresWarehouse(lambda: psycopg.connect(address), schema=schema, lock_timeout=30)


def _child(place: tuple[str, str, str], url: str, limits: str, day: int, started) -> None:
    patience = Patience(max_wait=5, tries=6, throttles=6, pause=0.01)
    scene = Scene(open_warehouse(*place), url, SqliteLimits(limits), patience=patience)
    started.set()
    scene.sync(day, destination=mail(batch=BATCH))


def wanted(rng: random.Random, day: int) -> list[dict]:
    """Some left, some changed, some are new."""
    numbers = rng.sample(range(PEOPLE + 40 * day), PEOPLE)
    return [person(n, country=rng.choice(["DE", "AT", "CH"])) for n in sorted(numbers)]


def trouble(vendor: VendorServer, rng: random.Random) -> None:
    """A few faults somewhere ahead, before or after the vendor acts."""
    vendor.clear_faults()
    for _ in range(3):
        fault = rng.choice(FAULTS)
        acts = "status" not in fault and rng.random() < 0.5
        vendor.inject("/mail", after=rng.randrange(6), acts=acts, **fault)


@pytest.fixture(params=ENGINES)
def place(request, make_warehouse) -> tuple[str, str, str]:
    """Engine, address and schema of a warehouse, for another process to open."""
    warehouse = make_warehouse(request.param)
    if request.param == "postgres":
        return "postgres", request.getfixturevalue("postgres_url"), warehouse.schema
    with warehouse.session() as session:
        sql = "select path from duckdb_databases() where database_name = current_database()"
        return "duckdb", session.scalar(sql), warehouse.schema


def test_killed_at_random_and_completed(place, tmp_path, vendor):
    rng = random.Random(20260701)  # noqa: S311 - repeatable
    limits = str(tmp_path / "limits.sqlite")
    warehouse = open_warehouse(*place)
    scene = Scene(warehouse, vendor.url, SqliteLimits(limits))
    kills = 0
    for day in range(WINDOWS):
        rows = wanted(rng, day)
        put_profiles(warehouse, rows)
        for attempt in range(KILLS_PER_WINDOW + 1):
            trouble(vendor, rng)
            started = _processes.Event()
            process = _processes.Process(target=_child, args=(place, vendor.url, limits, day, started))
            process.start()
            assert started.wait(30)
            process.join(rng.uniform(0.0, 0.6) if attempt < KILLS_PER_WINDOW else 60)
            process.kill()
            process.join(30)
            assert process.exitcode in (0, -signal.SIGKILL), "the sync failed by itself"
            kills += process.exitcode != 0
        assert process.exitcode == 0
        assert vendor.contacts("news") == {
            row["email"]: {"FIRSTNAME": row["first_name"], "COUNTRY": row["country"]} for row in rows
        }
        held = {key for key, (state, _, _) in scene.ledger().items() if state == "accepted"}
        assert held == vendor.contacts("news").keys()
        assert {state for state, _, _ in scene.ledger().values()} <= {"accepted", "removed"}
    assert kills >= 10
    assert vendor.doubled() == []
    acknowledged = sum(outcome in ("accepted", "removed") for _, _, outcome, _ in scene.log())
    assert sum(write.times for write in vendor.applied()) == acknowledged
