# SPDX-License-Identifier: Apache-2.0
"""The connection's type picks the engine; Airflow's own hooks open it."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING

import duckdb
import psycopg
import pytest

from cdp_provider.core.exceptions import ConfigurationError, NotFoundError
from cdp_provider.core.warehouse import DuckDBWarehouse, PostgresWarehouse
from cdp_provider.hooks.warehouse import WarehouseHook
from tests.airflow_env import connection_json

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(params=["duckdb", "postgres"])
def hook(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WarehouseHook:
    place = (
        str(tmp_path / "warehouse.duckdb")
        if request.param == "duckdb"
        else request.getfixturevalue("postgres_url")
    )
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", connection_json(request.param, place))
    return WarehouseHook("warehouse", schema="elsewhere")


def test_the_type_picks_the_engine(hook: WarehouseHook) -> None:
    warehouse = hook.warehouse
    assert isinstance(warehouse, DuckDBWarehouse | PostgresWarehouse)
    assert warehouse.schema == "elsewhere"
    with warehouse.session() as session:
        assert session.fetch("select 1 as a, 'x' as b") == [(1, "x")]


def test_a_running_statement_can_be_cancelled(hook: WarehouseHook) -> None:
    slow = (
        "select count(*) from range(100000000) a, range(1000) b"
        if isinstance(hook.warehouse, DuckDBWarehouse)
        else "select pg_sleep(60)"
    )

    def cancel() -> None:
        time.sleep(0.3)
        hook.cancel()

    killer = threading.Thread(target=cancel)
    killer.start()
    with (
        hook.warehouse.session() as session,
        pytest.raises((duckdb.InterruptException, psycopg.errors.QueryCanceled)),
    ):
        session.fetch(slow)
    killer.join()


def test_a_cursor_extra_does_not_change_the_rows(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = json.loads(connection_json("postgres", postgres_url))
    fields["extra"] = {**fields.get("extra", {}), "cursor": "dictcursor"}
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(fields))
    with WarehouseHook("warehouse").warehouse.session() as session:
        assert session.fetch("select 1 as a") == [(1,)]


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        (None, NotFoundError, "no Airflow connection 'warehouse'.*duckdb or postgres"),
        ({"conn_type": "mysql", "host": "h"}, ConfigurationError, "'mysql'.*duckdb or postgres"),
        ({"conn_type": "duckdb"}, ConfigurationError, "names no database file"),
        ({"conn_type": "duckdb", "host": "/gone/for/good/w.duckdb"}, NotFoundError, "does not exist"),
    ],
)
def test_what_is_no_warehouse(
    fields: dict[str, str] | None,
    error: type[Exception],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if fields:
        monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(fields))
    with pytest.raises(error, match=message):
        _ = WarehouseHook("warehouse").warehouse
