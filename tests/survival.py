# SPDX-License-Identifier: Apache-2.0
"""kill -9 at every step: the retry ends in the same tables and the same state at the destinations.

Each step of the road runs in a child process that kills itself with SIGKILL before its n-th statement,
commit or request; then again, killed a little later; and at last to its end. The outcome must equal that of
a road nobody disturbed, and the stand-in's own records must show no write applied twice.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import psycopg

from cdp_provider.core.run import Run, Window
from cdp_provider.testing.shop import generate
from cdp_provider.testing.vendor import VendorServer
from tests.world import World

if TYPE_CHECKING:
    from pathlib import Path

ANCHOR = datetime(2026, 7, 1, tzinfo=UTC)
WINDOWS = [Window(None, ANCHOR - timedelta(days=20)), Window(None, ANCHOR)]
KILLS_PER_STEP = 3 * int(os.environ.get("CDP_TEST_DEPTH", "1"))

_processes = multiprocessing.get_context("forkserver")


def _count_and_kill(fatal: int | None, done) -> None:
    """Wrap everything that leaves a trace outside the process; die before call number `fatal`."""
    import httpx

    from cdp_provider.core.activation.client import Client
    from cdp_provider.core.warehouse import duckdb, postgres

    def wrap(owner, name):
        original = getattr(owner, name)

        def counted(*args, **kwargs):
            done.value += 1
            if done.value == fatal:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*args, **kwargs)

        setattr(owner, name, counted)

    for session in (duckdb.DuckDBSession, postgres.PostgresSession):
        for method in ("execute", "fetch", "arrow", "load"):
            wrap(session, method)
    wrap(httpx.Client, "send")
    wrap(Client, "send")


def _child(world: World, stage: str, node: str, run: Run, fatal: int | None, done) -> None:
    _count_and_kill(fatal, done)
    world.step(stage, node, run)


def attempt(world: World, stage: str, node: str, run: Run, fatal: int | None) -> tuple[int, int]:
    """Run the step in a process; returns its exit code and how many calls it came to."""
    done = _processes.Value("i", 0)
    process = _processes.Process(target=_child, args=(world, stage, node, run, fatal, done))
    process.start()
    process.join(180)
    return process.exitcode, done.value


def make_world(engine: str, name: str, folder: Path, vendor: VendorServer, data: Path, url: str) -> World:
    if engine == "duckdb":
        return World(engine, str(folder / f"{name}.duckdb"), "cdp", vendor.url, str(data))
    return World(engine, url, f"survival_{os.getpid()}_{name}", vendor.url, str(data))


def kill_and_retry(world: World, stage: str, node: str, run: Run) -> int:
    """Kill the step ever later until it comes through; returns how often it was killed."""
    kills, fatal, stride = 0, 1, 1
    for _ in range(KILLS_PER_STEP):
        code, reached = attempt(world, stage, node, run, fatal)
        if code == 0:
            return kills
        assert code == -signal.SIGKILL, f"{stage} {node} failed with {code} after {reached} calls"
        kills += 1
        fatal, stride = fatal + stride, stride * 2
    code, _ = attempt(world, stage, node, run, None)
    assert code == 0
    return kills


def killed_anywhere_and_retried_equals_undisturbed(engine: str, tmp_path: Path, postgres_url: str) -> None:
    """The test, for one engine."""
    _processes.set_forkserver_preload(["tests.world", "tests.survival"])
    kills = 0
    outcomes = {}
    for name in ("calm", "killed"):
        data = tmp_path / name
        generate(data, customers=300, events=3000, orders=500)
        with VendorServer(data=data) as vendor:
            world = make_world(engine, name, tmp_path, vendor, data, postgres_url)
            for number, window in enumerate(WINDOWS):
                run = Run("shop", f"run_{number}", window)
                for stage, node in world.steps():
                    if name == "calm":
                        world.step(stage, node, run)
                        continue
                    kills += kill_and_retry(world, stage, node, run)
            outcomes[name] = (
                world.snapshot(),
                {name: vendor.contacts(name) for name in ("newsletter", "cart-abandoners")},
                vendor.customers(),
            )
            if name == "killed":
                assert vendor.doubled() == []
            if engine == "postgres":
                with psycopg.connect(postgres_url, autocommit=True) as connection:
                    connection.execute(f'drop schema "{world.schema}" cascade')
    calm, killed = outcomes["calm"], outcomes["killed"]
    for table, rows in calm[0].items():
        assert killed[0][table] == rows, table
    assert killed[1:] == calm[1:]
    assert calm[0]["profiles"], "the undisturbed road made no profiles"
    assert calm[1]["newsletter"], "the undisturbed road delivered nothing"
    assert kills > 40
