# SPDX-License-Identifier: Apache-2.0
"""The check inside Airflow: states of a DAG whose contract fails, and what OpenLineage hears of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import airflow.providers.openlineage.plugins.openlineage  # noqa: F401 - off, for tests other than these
import pytest
from airflow.providers.openlineage.plugins.listener import OpenLineageListener
from airflow.sdk.listener import get_listener_manager

from tests.airflow_env import connection_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import RunDag

#: Airflow's server inside ``dag.test()`` warns of what its own dependencies deprecate.
pytestmark = pytest.mark.filterwarnings("default")

PROJECT = """
project: checked
warehouse: {connection: wh_checked}
sources:
  shop:
    type: files
    streams:
      orders:
        path: orders.csv
        format: csv
        primary_key: order_id
        columns:
          order_id: string
          customer_id: {type: string, references: shop.customers.customer_id, severity: warn}
          total: {type: decimal, min: 0, severity: fail}
          email: {type: string, unique: true}
        identifiers: {email: email}
        contract:
          owner: team-shop
          rules:
            - {name: has_email, column: email, required: true, severity: warn}
      customers:
        path: customers.csv
        format: csv
        primary_key: customer_id
        columns: {customer_id: string}
        optional: true
        contract: {min_rows: 1}
identity:
  identifiers: {email: {normalize: email}}
"""
DAG_FILE = """
# airflow
from datetime import timedelta
from cdp_provider.factory import CdpDag

dag = CdpDag(project={project!r}, default_args={{"retries": 0}})
"""
ORDERS = "order_id,customer_id,total,email\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Returns a function: lines of orders and customers -> the file of a DAG over them."""
    place = str(tmp_path / "checked.duckdb")
    monkeypatch.setenv("AIRFLOW_CONN_WH_CHECKED", connection_json("duckdb", place))

    def write(orders: str, customers: str) -> Path:
        (tmp_path / "cdp.yaml").write_text(PROJECT)
        (tmp_path / "orders.csv").write_text(ORDERS + orders)
        (tmp_path / "customers.csv").write_text("customer_id\n" + customers)
        file = tmp_path / "checked_dag.py"
        file.write_text(DAG_FILE.format(project=str(tmp_path / "cdp.yaml")))
        return file

    return write


@pytest.fixture
def heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., dict[str, Any]]]:
    """The real OpenLineage listener writes to a file; returns a function: task, kind -> the event."""
    log = tmp_path / "lineage.ndjson"
    transport = {"type": "file", "log_file_path": str(log), "append": True}
    monkeypatch.setenv("AIRFLOW__OPENLINEAGE__TRANSPORT", json.dumps(transport))
    manager, listener = get_listener_manager(), OpenLineageListener()
    manager.add_listener(listener)

    def event(task: str, kind: str) -> dict[str, Any]:
        events = [json.loads(line) for line in log.read_text().splitlines()]
        (found,) = [e for e in events if e["job"]["name"].endswith(task) and e["eventType"] == kind]
        return found

    yield event
    manager.pm.unregister(listener)


def test_a_dag_whose_contract_fails(
    run_dag: RunDag, project: Callable[..., Path], heard: Callable[..., dict[str, Any]]
) -> None:
    _, states = run_dag(project("1,c1,-5,jane@example.com\n", "c1\n"))
    assert states[""] == "failed"
    assert (states["shop.land_orders"], states["shop.check_orders"]) == ("success", "failed")
    assert states["shop.check_customers"] == "success"
    assert states["gate"] == "failed"
    assert {states[name] for name in ("resolve_identity", "build_profiles", "build_segments")} == {
        "upstream_failed"
    }
    event = heard("shop.check_orders", "FAIL")
    assertions = event["inputs"][0]["inputFacets"]["dataQualityAssertions"]["assertions"]
    assert [a["name"] for a in assertions if not a["success"]] == ["total.min"]
    assert "jane" not in json.dumps(event)
    assert "-5" not in json.dumps(assertions)


def test_a_dag_whose_contract_only_warns(
    run_dag: RunDag, project: Callable[..., Path], heard: Callable[..., dict[str, Any]]
) -> None:
    _, states = run_dag(project("1,c1,5,jane@example.com\n2,c9,7,\n", "c1\n"))
    assert states[""] == "success"
    event = heard("shop.check_orders", "COMPLETE")
    (raw,), (view,) = event["inputs"], event["outputs"]
    assert (raw["name"], view["name"]) == ("cdp.raw_shop__orders", "cdp.shop__orders")
    facets = raw["inputFacets"]
    assert facets["dataQualityMetrics"]["rowCount"] == 2
    email = facets["dataQualityMetrics"]["columnMetrics"]["email"]
    assert (email["nullCount"], email["distinctCount"]) == (1, 1)
    assertions = {a["name"]: a for a in facets["dataQualityAssertions"]["assertions"]}
    told = {
        name: (a["assertion"], a["success"], a["severity"], a.get("column")) for name, a in assertions.items()
    }
    assert told == {
        "quarantine": ("quarantine", True, "error", None),
        "primary_key": ("required", True, "error", "order_id"),
        "total.min": ("min", True, "error", "total"),
        "has_email": ("required", False, "warn", "email"),
        "email.unique": ("unique", True, "error", "email"),
        "customer_id.references": ("references", False, "warn", "customer_id"),
    }
    assert assertions["has_email"]["actual"] == "1"
    assert assertions["has_email"]["params"] == {"checked": 2, "share": 0.5, "outcome": "warned"}
    assert "jane" not in json.dumps(event)
