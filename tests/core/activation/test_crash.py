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
    from pathlib import Path

    from cdp_provider.core.warehouse import Warehouse
    from cdp_provider.testing.vendor import VendorServer

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["tests.core.activation.test_crash"])
PEOPLE = 240
BATCH = 20
KILLS = 15


def _child(engine: str, place: str, schema: str, url: str, limits: str, day: int, started) -> None:
    if engine == "duckdb":
        warehouse: Warehouse = DuckDBWarehouse(lambda: duckdb.connect(place), schema=schema, lock_timeout=30)
    else:
        warehouse = PostgresWarehouse(lambda: psycopg.connect(place), schema=schema, lock_timeout=30)
    started.set()
    patience = Patience(max_wait=5, tries=6, throttles=6, pause=0.01)
    Scene(warehouse, url, SqliteLimits(limits), patience=patience).sync(day, destination=mail(batch=BATCH))


def wanted(rng: random.Random, day: int) -> list[dict]:
    """Some left, some changed, some are new."""
    numbers = rng.sample(range(PEOPLE + 40 * day), PEOPLE)
    return [person(n, country=rng.choice(["DE", "AT", "CH"])) for n in sorted(numbers)]


def trouble(vendor: VendorServer, rng: random.Random) -> None:
    """A few faults somewhere ahead, before or after the vendor acts."""
    vendor.clear_faults()
    for _ in range(3):
        kind = rng.choice(
            [{"cut": True}, {"status": 500}, {"malformed": True}, {"delay": 0.1},
             {"status": 429, "headers": {"Retry-After": "0"}}]
        )  # fmt: skip
        vendor.inject(
            "/mail", after=rng.randrange(6), acts=rng.random() < 0.5 and "status" not in kind, **kind
        )


@pytest.mark.parametrize("engine", ENGINES)
def test_killed_at_random_and_completed(engine, make_warehouse, request, tmp_path: Path, vendor):
    rng = random.Random(20260701)
    warehouse = make_warehouse(engine)
    if engine == "duckdb":
        with warehouse.session() as session:
            place = session.scalar(
                "select path from duckdb_databases() where database_name = current_database()"
            )
    else:
        place = request.getfixturevalue("postgres_url")
    limits = str(tmp_path / "limits.sqlite")
    scene = Scene(warehouse, vendor.url, SqliteLimits(limits))
    kills = day = 0
    while kills < KILLS:
        rows = wanted(rng, day)
        put_profiles(warehouse, rows)
        code = None
        while code != 0:
            trouble(vendor, rng)
            started = _processes.Event()
            process = _processes.Process(
                target=_child, args=(engine, place, warehouse.schema, vendor.url, limits, day, started)
            )
            process.start()
            assert started.wait(30)
            process.join(rng.uniform(0.0, 0.9))
            process.kill()
            process.join(30)
            code = process.exitcode
            assert code in (0, -signal.SIGKILL), f"the sync failed by itself with {code}"
            kills += code != 0
            import time

            print(time.perf_counter(), day, kills, code)
        assert vendor.contacts("news") == {
            row["email"]: {"FIRSTNAME": row["first_name"], "COUNTRY": row["country"]} for row in rows
        }
        held = {key for key, (state, _, _) in scene.ledger().items() if state == "accepted"}
        assert held == vendor.contacts("news").keys()
        assert {state for state, _, _ in scene.ledger().values()} <= {"accepted", "removed"}
        day += 1
    assert vendor.doubled() == []
    assert sum(write.times for write in vendor.applied()) == sum(
        entry[2] in ("accepted", "removed") for entry in scene.log()
    ), "every write was applied as often as it was acknowledged"
