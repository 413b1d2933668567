# SPDX-License-Identifier: Apache-2.0
"""The trigger fires when files come: once for a task; for an asset each time, and never for nothing."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from cdp_provider.core.exceptions import ConfigurationError, NotFoundError
from cdp_provider.triggers import files
from cdp_provider.triggers.files import NAMED, FilesTrigger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

DEPTH = int(os.environ.get("CDP_TEST_DEPTH", "1"))


class Store:
    """An asset's state store as a trigger sees it: what was set is there after a restart, as JSON."""

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}

    async def aget(self, key: str, default: Any = None) -> Any:
        return json.loads(self.kept[key]) if key in self.kept else default

    async def aset(self, key: str, value: Any) -> None:
        self.kept[key] = json.dumps(value)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_HANDED_OVER", 0.05)


def trigger(folder: Path, store: Store | None = None, **arguments: Any) -> FilesTrigger:
    made = FilesTrigger("*.csv", root=str(folder), **{"poll_interval": 0.05, **arguments})
    made.asset_state_store = store  # type: ignore[assignment]
    return made


async def following(events: AsyncIterator[Any], within: float = 10) -> list[str]:
    event = await asyncio.wait_for(anext(events), within)
    return [file["name"] for file in event.payload["files"]]


async def silent(events: AsyncIterator[Any]) -> bool:
    """Whether nothing comes for several looks. Ends the trigger."""
    try:
        await asyncio.wait_for(anext(events), 0.5)
    except TimeoutError:
        return True
    return False


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).write_text(name)


def test_it_survives_serialization_and_holds_ids_only(tmp_path: Path) -> None:
    path, fields = FilesTrigger(
        "*.csv", source_conn_id="till", stream="a.b", warehouse_conn_id="wh", at_least=2, settle=True
    ).serialize()
    assert path == "cdp_provider.triggers.files.FilesTrigger"
    assert FilesTrigger(**fields).serialize() == (path, fields)
    assert json.loads(json.dumps(fields)) == fields


def test_a_task_is_told_once(tmp_path: Path) -> None:
    put(tmp_path, ".hidden.csv", "x.txt")

    async def scene() -> None:
        events = trigger(tmp_path, at_least=2).run()
        waiting = asyncio.create_task(following(events))
        put(tmp_path, "a.csv")
        await asyncio.sleep(0.3)
        assert not waiting.done()
        put(tmp_path, "b.csv")
        assert await waiting == ["a.csv", "b.csv"]
        with pytest.raises(StopAsyncIteration):
            await anext(events)

    asyncio.run(scene())


def test_a_watcher_tells_each_arrival_once(tmp_path: Path) -> None:
    put(tmp_path, "a.csv")

    async def scene() -> None:
        events = trigger(tmp_path, Store()).run()
        assert await following(events) == ["a.csv"]
        put(tmp_path, "b.csv", "c.csv")
        told = await following(events)
        told += await following(events) if len(told) == 1 else []  # a look may fall between the two
        assert told == ["b.csv", "c.csv"]
        (tmp_path / "a.csv").write_text("changed")
        assert await following(events) == ["a.csv"]
        (tmp_path / "b.csv").unlink()
        assert await silent(events)

    asyncio.run(scene())


def test_a_restart_repeats_nothing_and_loses_nothing(tmp_path: Path) -> None:
    store = Store()
    put(tmp_path, "a.csv")

    async def first() -> None:
        events = trigger(tmp_path, store).run()
        assert await following(events) == ["a.csv"]
        assert await silent(events)

    async def second() -> None:
        events = trigger(tmp_path, store).run()
        assert await following(events) == ["b.csv"]

    async def third() -> None:
        # The one before ended before it could note its event.
        assert await following(trigger(tmp_path, store).run()) == ["b.csv"]

    asyncio.run(first())
    put(tmp_path, "b.csv")
    asyncio.run(second())
    asyncio.run(third())


def test_two_watchers_of_an_asset_keep_apart(tmp_path: Path) -> None:
    store = Store()
    put(tmp_path, "a.csv")

    async def scene() -> None:
        for arguments in ({}, {"schema": "other"}):
            events = trigger(tmp_path, store, **arguments).run()
            assert await following(events) == ["a.csv"]
            assert await silent(events)

    asyncio.run(scene())
    assert len(store.kept) == 2


def test_settled_files_are_the_same_in_two_looks(tmp_path: Path) -> None:
    async def scene() -> None:
        waiting = asyncio.create_task(following(trigger(tmp_path, settle=True, poll_interval=0.2).run()))
        for size in range(12):
            (tmp_path / "a.csv").write_text("x" * size)
            await asyncio.sleep(0.05)
            assert not waiting.done()
        assert await waiting == ["a.csv"]

    asyncio.run(scene())


def test_an_event_names_some_and_counts_all(tmp_path: Path) -> None:
    put(tmp_path, *(f"{n:04d}.csv" for n in range(NAMED + 5)))

    async def scene() -> Any:
        return await anext(trigger(tmp_path).run())

    payload = asyncio.run(scene()).payload
    assert (payload["count"], len(payload["files"])) == (NAMED + 5, NAMED)
    assert payload["bytes"] == 8 * (NAMED + 5)
    assert payload["files"][0] == {"name": "0000.csv", "size": 8}


def test_a_folder_that_goes_away_ends_a_task_but_no_watcher(tmp_path: Path) -> None:
    folder = tmp_path / "mounted"

    async def scene() -> None:
        with pytest.raises(NotFoundError, match="does not exist"):
            await following(trigger(folder).run())
        waiting = asyncio.create_task(following(trigger(folder, Store()).run()))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        folder.mkdir()
        put(folder, "a.csv")
        assert await waiting == ["a.csv"]

    asyncio.run(scene())


def test_assets_that_share_a_trigger_are_refused(tmp_path: Path) -> None:
    from airflow.sdk import Asset
    from airflow.sdk.execution_time.context import AssetStateStoreAccessors

    made = trigger(tmp_path)
    made.asset_state_store = AssetStateStoreAccessors(inlets=[Asset("a"), Asset("b")])
    with pytest.raises(ConfigurationError, match=r"several assets watch '\*.csv'"):
        asyncio.run(following(made.run()))


DAG = """
from airflow.sdk import DAG, Asset, AssetWatcher
from cdp_provider.triggers.files import FilesTrigger
trigger = FilesTrigger("*.csv", source_conn_id="till", poll_interval=0.5)
with DAG("d", schedule=[Asset("till", watchers=[AssetWatcher("w", trigger)])], is_paused_upon_creation=False):
    pass
"""
PREPARE = """
import sys
from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
from airflow.utils.db import initdb
initdb()
DagBundlesManager().sync_bundles_to_db()
sync_bag_to_db(DagBag(sys.argv[1], load_op_links=False), "dags-folder", None)
"""


class Triggerer:
    """A real one, with a database of its own."""

    def __init__(self, home: Path, folder: Path) -> None:
        self.database = home / "airflow.db"
        self._process: subprocess.Popen[bytes] | None = None
        self._env = os.environ | {
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(home),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.database}",
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
            "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
            "AIRFLOW_CONN_TILL": json.dumps({"conn_type": "fs", "extra": {"path": str(folder)}}),
        }
        (home / "d.py").write_text(DAG)
        subprocess.run(
            [sys.executable, "-c", PREPARE, str(home / "d.py")],
            env=self._env,
            check=True,
            capture_output=True,
        )

    def start(self) -> None:
        # Of one that was killed nobody knows so before its last heartbeat is old.
        self._execute("update job set latest_heartbeat = '2020-01-01 00:00:00'")
        command = [sys.executable, "-m", "airflow", "triggerer", "--skip-serve-logs"]
        self._process = subprocess.Popen(
            command,
            env=self._env,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def kill(self) -> None:
        if self._process:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def events(self, number: int) -> list[list[str]]:
        """The names in the events, once there are so many."""
        for _ in range(600):
            rows = self._execute("select extra from asset_event order by id")
            if len(rows) >= number:
                break
            time.sleep(0.2)
        return [[file["name"] for file in json.loads(extra)["payload"]["files"]] for (extra,) in rows]

    def noted(self) -> bool:
        for _ in range(100):
            if self._execute("select 1 from asset_state_store"):
                return True
            time.sleep(0.2)
        return False

    def _execute(self, sql: str) -> list[Any]:
        with sqlite3.connect(self.database, timeout=30) as connection:
            return connection.execute(sql).fetchall()


@pytest.mark.skipif(DEPTH < 2, reason="two starts of a triggerer take minutes; CDP_TEST_DEPTH=2 runs it")
def test_a_real_triggerer_that_is_killed_tells_each_file_once(tmp_path: Path) -> None:
    home, folder = tmp_path / "home", tmp_path / "in"
    home.mkdir()
    folder.mkdir()
    put(folder, "a.csv")
    triggerer = Triggerer(home, folder)
    try:
        triggerer.start()
        assert triggerer.events(1) == [["a.csv"]]
        assert triggerer.noted()
        triggerer.kill()
        put(folder, "b.csv")
        triggerer.start()
        assert triggerer.events(2) == [["a.csv"], ["b.csv"]]
    finally:
        triggerer.kill()
