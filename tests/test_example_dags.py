# SPDX-License-Identifier: Apache-2.0
"""The example DAGs run whole, inside Airflow, against the stand-in vendor and real warehouses."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
from airflow.sdk import DagRunState

from cdp_provider.hooks.warehouse import WarehouseHook
from cdp_provider.testing import shop
from cdp_provider.testing.vendor import VendorServer
from tests.airflow_env import connection_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from cdp_provider.core.warehouse import Warehouse
    from tests.conftest import RunDag

#: Airflow's server inside ``dag.test()`` warns of what its own dependencies deprecate.
pytestmark = pytest.mark.filterwarnings("default")

DAGS = Path(__file__).parent.parent / "dags"
Run: TypeAlias = "Callable[[str], tuple[datetime, dict[str, str]]]"
_databases = itertools.count(1)
SECRETS = ("shop-crm-token", "shop-mail-token")


@pytest.fixture
def run(run_dag: RunDag) -> Run:
    """Returns a function: runs the DAG of that name in ``dags/``."""
    return lambda name: run_dag(DAGS / f"{name}.py")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    shop.generate(folder, customers=300, events=3000, orders=500)
    return folder


@pytest.fixture(params=["duckdb", "postgres"])
def place(
    request: pytest.FixtureRequest,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[VendorServer]:
    """Connections of the example, to a fresh warehouse and a fresh vendor."""
    if request.param == "duckdb":
        where = str(tmp_path / "shop.duckdb")
    else:
        where = own_database(request.getfixturevalue("postgres_url"))
    with VendorServer(data=data, fail_every=None) as vendor:
        http = {"host": vendor.url, "conn_type": "cdp_destination"}
        connections = {
            "cdp_warehouse": connection_json(request.param, where),
            "shop_crm": json.dumps({**http, "conn_type": "http", "password": SECRETS[0]}),
            "shop_files": json.dumps({"conn_type": "fs", "extra": {"path": str(data)}}),
            "shop_mail": json.dumps({**http, "password": SECRETS[1]}),
            "shop_crm_writeback": json.dumps({**http, "password": SECRETS[0]}),
        }
        for name, connection in connections.items():
            monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", connection)
        yield vendor


def own_database(url: str) -> str:
    """A new database of that server: the examples name their schemas themselves."""
    import psycopg

    name = f"cdp_examples_{os.getpid()}_{next(_databases)}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f'create database "{name}"')
    return psycopg.conninfo.make_conninfo(url, dbname=name)


def ledger(warehouse: Warehouse, run_after: datetime) -> dict[str, dict[str, Any]]:
    names = ("stage", "node", "state", "rows_in", "rows_out", "rows_refused", "detail")
    with warehouse.session() as session:
        rows = session.fetch(
            f"select {', '.join(names)} from {warehouse.table('runs')} where window_end = :end",
            {"end": run_after},
        )
    reports = [dict(zip(names, row, strict=True)) for row in rows]
    return {f"{r['stage']} {r['node']}": {**r, **json.loads(r["detail"])} for r in reports}


def test_shop_end_to_end_and_once_more(
    run: Run,
    place: VendorServer,
    capfd: pytest.CaptureFixture[str],
) -> None:
    warehouse = WarehouseHook("cdp_warehouse").warehouse
    first_end, states = run("shop")
    assert set(states.values()) == {"success"}, states
    first = ledger(warehouse, first_end)
    assert {r["state"] for r in first.values()} == {"ok"}
    assert first["land crm.customers"]["rows_out"] == 300
    assert first["land web.events"]["rows_refused"] > 0
    assert first["resolve -"]["profiles"] > 0
    assert first["resolve -"]["identifiers"] > first["resolve -"]["profiles"]
    sizes = first["segments -"]["sizes"]
    assert sizes["newsletter"] > 0
    delivered = first["sync newsletter_to_mail"]
    assert delivered["accepted"] == len(place.contacts("newsletter"))
    assert delivered["accepted"] + delivered["rejected"] + delivered["invalid"] == sizes["newsletter"]
    assert place.doubled() == []

    writes = len(place.requests("/mail")) + len(place.requests("/crm/customers/batch"))
    second_end, states = run("shop")
    assert set(states.values()) == {"success"}, states
    second = ledger(warehouse, second_end)
    assert {r["rows_in"] for name, r in second.items() if name.startswith("land ")} == {0}
    assert second["resolve -"]["new_profiles"] == 0
    assert place.doubled() == []
    rejected = sum(r["rejected"] for name, r in first.items() if name.startswith("sync "))
    again = len(place.requests("/mail")) + len(place.requests("/crm/customers/batch")) - writes
    assert again == 0 or rejected  # only what was rejected is tried again

    out = "".join(capfd.readouterr())
    assert not any(secret in out for secret in SECRETS)


def test_a_failed_source_makes_the_run_red(
    run: Run,
    place: VendorServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connection = {"conn_type": "http", "host": place.url, "password": "wrong"}
    monkeypatch.setenv("AIRFLOW_CONN_SHOP_CRM", json.dumps(connection))
    _, states = run("shop")
    assert states["crm.land_customers"] == "failed"  # at its first try
    assert states["crm.check_customers"] == "upstream_failed"
    assert states["web.check_events"] == "success"
    assert states["gate"] == "failed"
    assert states["resolve_identity"] == "upstream_failed"
    assert states["run_report"] == "failed"
    assert states[""] == DagRunState.FAILED
    assert place.requests("/mail") == []


@pytest.mark.usefixtures("place")
def test_handmade(run: Run) -> None:
    _, states = run("handmade")
    assert set(states.values()) == {"success"}, states
