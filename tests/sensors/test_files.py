# SPDX-License-Identifier: Apache-2.0
"""The sensor goes on at once when files wait, and is deferred until they do, in a real Airflow too."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk.exceptions import AirflowSensorTimeout, TaskDeferred

from cdp_provider.core.exceptions import ConfigurationError, NotFoundError
from cdp_provider.core.ingest.files import FileOptions, FilesConnector
from cdp_provider.core.ingest.landing import land
from cdp_provider.core.project.streams import Stream
from cdp_provider.core.run import Run, Window
from cdp_provider.sensors.files import FilesSensor
from cdp_provider.triggers.files import FilesTrigger
from tests.airflow_env import connection_json, context_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import RunDag

NOW = datetime(2026, 7, 2, tzinfo=UTC)
ORDERS = Stream(
    source="till",
    name="orders",
    primary_key=("id",),
    columns={"id": "string"},
    options=FileOptions(path="*.csv", format="csv"),
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    connection = {"conn_type": "fs", "extra": {"path": str(folder)}}
    monkeypatch.setenv("AIRFLOW_CONN_TILL", json.dumps(connection))
    return folder


@pytest.fixture
def landed(make_warehouse: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A warehouse whose stream has taken the file a.csv."""
    warehouse = make_warehouse("duckdb")
    with warehouse.session() as session:
        path = session.scalar("select path from duckdb_databases() where not internal")
    monkeypatch.setenv("AIRFLOW_CONN_WH", connection_json("duckdb", path))
    (folder / "a.csv").write_text("id\n1\n")
    run = Run("shop", "r", Window(NOW - timedelta(days=1), NOW))
    assert land(warehouse, ORDERS, FilesConnector(folder), run).rows_out == 1


def sensor(**arguments: Any) -> FilesSensor:
    given = {"path": "*.csv", "source_conn_id": "till", "poke_interval": 0.01, "timeout": 0.05, **arguments}
    return FilesSensor(task_id="wait", **given)


def test_files_that_wait_are_told_at_once(folder: Path) -> None:
    (folder / "a.csv").write_text("12345")
    told = {"count": 1, "bytes": 5, "files": [{"name": "a.csv", "size": 5}]}
    assert sensor().execute(context_of(NOW)) == told
    assert sensor(deferrable=False).execute(context_of(NOW)) == told


def test_too_few_files_are_waited_for(folder: Path) -> None:
    (folder / "a.csv").write_text("x")
    with pytest.raises(TaskDeferred) as deferred:
        sensor(at_least=2, poke_interval=7, timeout=600).execute(context_of(NOW))
    trigger = deferred.value.trigger
    assert isinstance(trigger, FilesTrigger)
    assert (trigger.awaited.path, trigger.at_least, trigger.poll_interval) == ("*.csv", 2, 7)
    assert deferred.value.timeout == timedelta(seconds=600)
    told = {"count": 2, "bytes": 9, "files": []}
    waiting = sensor()
    assert waiting.resume_execution(deferred.value.method_name, {"event": told}, context_of(NOW)) == told
    with pytest.raises(AirflowSensorTimeout):
        sensor(at_least=2, deferrable=False).execute(context_of(NOW))


@pytest.mark.usefixtures("landed")
def test_files_that_were_landed_do_not_count(folder: Path) -> None:
    stream = {"stream": "till.orders", "warehouse_conn_id": "wh"}
    assert sensor().poke(context_of(NOW))
    assert not sensor(**stream).poke(context_of(NOW))
    (folder / "b.csv").write_text("id\n2\n")
    looked = sensor(**stream).poke(context_of(NOW))
    assert looked.xcom_value == {"count": 1, "bytes": 5, "files": [{"name": "b.csv", "size": 5}]}
    other = sensor(**{**stream, "stream": "till.other"}).poke(context_of(NOW))
    assert other.xcom_value
    assert other.xcom_value["count"] == 2


@pytest.mark.usefixtures("folder")
def test_a_single_file_is_waited_for_too() -> None:
    assert not sensor(path="later.csv").poke(context_of(NOW))


def test_settled_files_need_two_looks(folder: Path) -> None:
    (folder / "a.csv").write_text("x")
    with pytest.raises(TaskDeferred):
        sensor(settle=True).execute(context_of(NOW))
    with pytest.raises(ConfigurationError, match="task wait has settle"):
        sensor(settle=True, deferrable=False).execute(context_of(NOW))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"stream": "till.orders"}, ConfigurationError, "'till.orders' are awaited with the warehouse None"),
        ({"warehouse_conn_id": "wh"}, ConfigurationError, "stream None .*'wh'; give both"),
        ({"source_conn_id": None}, ConfigurationError, "needs a folder"),
        ({"source_conn_id": None, "root": "/gone/for/good"}, NotFoundError, "does not exist"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_what_it_cannot_wait_for(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        sensor(**arguments).execute(context_of(NOW))


def test_in_airflow_it_waits_for_a_file_that_comes(run_dag: RunDag, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "waits.py").write_text(
        "from airflow.sdk import DAG\n"
        "from cdp_provider.sensors.files import FilesSensor\n"
        "with DAG('waits', schedule=None):\n"
        "    FilesSensor(task_id='wait', path='{{ dag.dag_id }}*.csv', source_conn_id='till',\n"
        "                poke_interval=0.1, timeout=60)\n"
    )
    late = threading.Timer(1.5, lambda: (folder / "waits_1.csv").write_text("x"))
    late.start()
    _, states = run_dag(tmp_path / "waits.py")
    assert states == {"wait": "success", "": "success"}
    late.join()
    assert (folder / "waits_1.csv").exists()
