# SPDX-License-Identifier: Apache-2.0
"""``airflow backfill create`` over many days, by a real scheduler, equals as many daily runs one by one."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import httpx
import pytest

from cdp_provider.core.ingest.http import HttpConnector
from cdp_provider.core.registry import load_project
from cdp_provider.core.warehouse import DuckDBWarehouse
from cdp_provider.testing.connectors import TOKEN, ApiSource
from scripts.airflow_api import AirflowApi
from scripts.local_airflow import LocalAirflow, free_port
from scripts.services import Services, wait_until
from tests.world import COMPARED

if TYPE_CHECKING:
    from collections.abc import Iterator


pytestmark = [
    # Airflow's server inside ``dag.test()`` warns of what its own dependencies deprecate.
    pytest.mark.filterwarnings("default"),
    pytest.mark.skipif(
        os.environ.get("CDP_TEST_DEPTH", "1") == "1",
        reason="with CDP_TEST_DEPTH above 1 only: a scheduler and thirty runs take many minutes",
    ),
]

ROOT = Path(__file__).resolve().parents[2]
DAYS = 30
FIRST = datetime(2024, 3, 1, tzinfo=UTC)
#: Seconds: for the start of Airflow, and for one day's run.
START, DAY = 180, 60

LIST = {
    "path": "/list",
    "records": "data",
    "paging": {"type": "cursor", "next": "next", "parameter": "after"},
    "cursor": {"column": "at", "parameter": "since", "overlap": "1 hour"},
}
PROJECT = """
project: backfilled
warehouse: {connection: wh, schema: cdp}
sources:
  crm:
    type: http
    connection: crm
    streams:
      people: &list
        path: /list
        records: data
        paging: {type: cursor, next: next, parameter: after}
        cursor: {column: at, parameter: since, overlap: 1 hour}
        primary_key: id
        time: at
        columns: {id: string, email: string, city: string, at: timestamp}
        identifiers: {email: email}
  web:
    type: http
    connection: web
    streams:
      visits: {<<: *list, quarantine: {max_share: 0.5}}
identity:
  identifiers: {email: {normalize: email, limit: 50}}
profiles:
  fields:
    city: {from: [crm.people.city]}
    email: {from: [crm.people.email]}
  traits:
    visits: {type: count, stream: web.visits}
    recent: {type: count, stream: web.visits, within_last: 2 days}
segments:
  lively:
    where: {trait: recent, at_least: 3}
  asleep:
    where:
      all:
        - {trait: visits, at_least: 1}
        - {trait: recent, is: 0}
"""
DAG = """
\"\"\"A DAG of Airflow with daily intervals.\"\"\"
from datetime import UTC, datetime
from pathlib import Path

from airflow.sdk import CronDataIntervalTimetable

from cdp_provider.factory import CdpDag

dag = CdpDag(
    project=Path(__file__).parent / "cdp.yaml",
    schedule=CronDataIntervalTimetable("@daily", timezone="UTC"),
    start_date=datetime(2024, 3, 1, tzinfo=UTC),
    end_date=datetime(2024, 4, 30, tzinfo=UTC),
)
"""
#: What batches are called differs where two of one window land at the same time.
NUMBERED = {"load_id", "_load_id"}


def records(seed: int, count: int, *, broken: bool) -> list[dict[str, Any]]:
    """A month of records; people change, visits are new each time, and some of those have no id."""
    chance = random.Random(seed)
    found = []
    for _ in range(count * DAYS):
        at = FIRST + timedelta(seconds=chance.randrange(DAYS * 86_400))
        person = chance.randrange(40)
        number = f"{chance.randrange(10**6) if broken else person}"
        found.append(
            {
                "id": None if broken and chance.random() < 0.05 else number,
                "email": f"p{person}@example.com",
                "city": chance.choice(["Ulm", "Köln", None]),
                "at": at.isoformat().replace("+00:00", "Z"),
            }
        )
    return found


@pytest.fixture
def sources() -> Iterator[dict[str, dict[str, Any]]]:
    """Airflow's connections to two APIs that hold all of it from the beginning."""
    with ExitStack() as stack:
        found = {}
        for name, seed, count in (("crm", 1, 15), ("web", 2, 40)):
            source = stack.enter_context(ApiSource(LIST, HttpConnector))
            source.put(records(seed, count, broken=name == "web"), FIRST)
            found[name] = {"conn_type": "http", "host": source.server.url, "password": TOKEN}
        yield found


def outcome(path: Path, project: Path) -> dict[str, list[dict[str, Any]]]:
    """All tables, with batches called by stream and window."""
    warehouse = DuckDBWarehouse(lambda: duckdb.connect(str(path)), schema="cdp")
    streams = list(load_project(project).streams())
    found = {}
    with warehouse.session() as session:
        loads = {
            number: (stream, end)
            for number, stream, end in session.fetch("select load_id, stream, window_end from cdp.loads")
        }
        extra = {table: set() for stream in streams for table in (stream.raw_table, stream.view)}
        for table, ignored in {**COMPARED, **extra}.items():
            names = [name for name in session.columns(table) if name not in ignored]
            columns = ", ".join(map(warehouse.quote, names))
            rows = session.fetch(f"select {columns} from {warehouse.table(table)}")
            found[table] = sorted(
                (
                    {
                        name: loads.get(value, value) if name in NUMBERED else value
                        for name, value in zip(names, row, strict=True)
                    }
                    for row in rows
                ),
                key=repr,
            )
    return found


def backfilled(home: Path, connections: dict[str, Any]) -> list[dict[str, Any]]:
    """The runs of a backfill over all days, in an Airflow of its own that is gone afterwards."""
    with Services(home / "running.json", home / "logs" / "services", "test") as services:
        airflow = LocalAirflow(services, home, home / "dags", ROOT, free_port(), connections)
        airflow.start(airflow.migrate(), START)
        with AirflowApi(airflow.address) as api:
            wait_until(
                lambda: api.parsed_at("backfilled", "backfilled.py"), services.running(), START, "parsing"
            )
        _create(airflow.environment())

        def ended() -> list[dict[str, Any]] | None:
            answer = httpx.get(
                f"{airflow.address}/api/v2/dags/backfilled/dagRuns",
                params={"limit": 100},
                trust_env=False,
                timeout=60,
            )
            runs = answer.raise_for_status().json()["dag_runs"]
            over = [run for run in runs if run["state"] in ("success", "failed")]
            return over if len(over) == DAYS else None

        return wait_until(ended, services.running(), START + DAY * DAYS, "the backfill", pause=0.5)


def _create(environment: dict[str, str]) -> None:
    """Order the backfill as a person would."""
    last = FIRST + timedelta(days=DAYS - 1)
    command = [sys.executable, "-m", "airflow", "backfill", "create", "--dag-id", "backfilled"]
    command += ["--from-date", FIRST.isoformat(), "--to-date", last.isoformat()]
    # A backfill does not care for the DAG's own limit; windows that overtake each other arrive in that order.
    command += ["--max-active-runs", "1"]
    for _ in range(10):
        made = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)
        # SQLite has no room for two writers. The runs that a try has made stay, and a later one adds the rest
        # once they are over.
        if made.returncode == 0 or "locked" not in made.stderr + made.stdout:
            break
        time.sleep(5)
    assert made.returncode == 0, made.stdout + made.stderr


def one_by_one(file: Path) -> set[str]:
    """States of daily runs, each made for itself."""
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db

    bag = DagBag(str(file), load_op_links=False)
    assert not bag.import_errors
    sync_bag_to_db(bag, "dags-folder", None)
    (dag,) = bag.dags.values()
    # A run by hand is about the interval that was over at its logical date.
    ends = [FIRST + timedelta(days=day + 1) for day in range(DAYS)]
    return {str(dag.test(run_after=end, logical_date=end).state) for end in ends}


@pytest.mark.usefixtures("run_dag")
def test_a_backfill_equals_daily_runs(sources, tmp_path, monkeypatch):
    dags = tmp_path / "backfill" / "dags"
    dags.mkdir(parents=True)
    (dags / "cdp.yaml").write_text(PROJECT)
    (dags / "backfilled.py").write_text(DAG)
    outcomes = []
    for name in ("backfill", "daily"):
        path = tmp_path / f"{name}.duckdb"
        connections = {"wh": {"conn_type": "duckdb", "host": str(path)}, **sources}
        if name == "backfill":
            runs = backfilled(tmp_path / "backfill", connections)
            assert {run["state"] for run in runs} == {"success"}
            assert {run["run_type"] for run in runs} == {"backfill"}
            starts = sorted(run["data_interval_start"] for run in runs)
            days = [FIRST + timedelta(days=day) for day in range(DAYS)]
            assert [datetime.fromisoformat(start) for start in starts] == days
        else:
            for connection, fields in connections.items():
                monkeypatch.setenv(f"AIRFLOW_CONN_{connection.upper()}", json.dumps(fields))
            assert one_by_one(dags / "backfilled.py") == {"success"}
        outcomes.append(outcome(path, dags / "cdp.yaml"))
    for table, rows in outcomes[0].items():
        assert rows == outcomes[1][table], table
    filled = {table for table, rows in outcomes[0].items() if rows}
    assert {"loads", "profiles", "memberships", "row_links", "crm__people", "web__visits"} <= filled
    assert len(outcomes[0]["loads"]) == 2 * DAYS
