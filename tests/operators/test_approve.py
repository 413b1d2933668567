# SPDX-License-Identifier: Apache-2.0
"""Removals that need an approval, inside Airflow, with a person who answers through Airflow's API."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from cdp_provider.core import tables
from cdp_provider.hooks.warehouse import WarehouseHook
from cdp_provider.testing.vendor import VendorServer
from tests.airflow_env import connection_json
from tests.core.activation.scene import person, put_profiles
from tests.reviewer import Reviewer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cdp_provider.core.warehouse import Warehouse
    from tests.conftest import RunDag

#: Airflow's server inside ``dag.test()`` warns of what its own dependencies deprecate.
pytestmark = pytest.mark.filterwarnings("default")

DAG = """
from airflow.sdk import DAG, Asset

from cdp_provider.operators.approve import ApproveRemovalsOperator, AskRemovalsOperator
from cdp_provider.operators.sync import SyncAudienceOperator
from tests.core.activation.scene import PROFILES, mail, newsletter

what = {
    "sync": newsletter(approve_above=0.2),
    "destination": mail(),
    "profiles": PROFILES,
    "warehouse_conn_id": "wh",
    "only_preview": "{{ params.dry_run }}",
}
with DAG("approvals", schedule=None, params={"dry_run": False}):
    ask = AskRemovalsOperator(task_id="ask", **what)
    approve = ApproveRemovalsOperator(task_id="approve", proposed=ask.output)
    sync = SyncAudienceOperator(
        task_id="sync", approval=approve.output, trigger_rule="none_failed", outlets=[Asset("news")], **what
    )
"""


@pytest.fixture
def vendor(monkeypatch: pytest.MonkeyPatch) -> Iterator[VendorServer]:
    with VendorServer() as server:
        mail = {"conn_type": "cdp_destination", "host": server.url, "password": "shop-mail-token"}
        monkeypatch.setenv("AIRFLOW_CONN_SHOP_MAIL", json.dumps(mail))
        yield server


@pytest.fixture
def warehouse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Warehouse:
    monkeypatch.setenv("AIRFLOW_CONN_WH", connection_json("duckdb", str(tmp_path / "wh.duckdb")))
    found = WarehouseHook("wh").warehouse
    with found.session() as session:
        tables.ensure(session)
    put_profiles(found, [person(1), person(2), person(3)])
    return found


def test_a_person_decides_about_removals(
    run_dag: RunDag, tmp_path: Path, warehouse: Warehouse, vendor: VendorServer
) -> None:
    file = tmp_path / "approvals.py"
    file.write_text(DAG)
    _, states = run_dag(file)
    assert states == {"ask": "success", "approve": "skipped", "sync": "success", "": "success"}
    assert len(vendor.contacts("news")) == 3

    put_profiles(warehouse, [person(1), person(2), person(3, out=True), person(4)])
    for answer, left, held in (("Reject", 4, 3), ("Approve", 3, 4)):
        reviewer = Reviewer("approvals", "approve", answer)
        reviewer.start()
        _, states = run_dag(file)
        reviewer.leave()
        assert set(states.values()) == {"success"}, states
        assert len(vendor.contacts("news")) == left
        (asked,) = reviewer.asked
        assert f"would remove 1 of the {held} records" in asked["body"]


@pytest.mark.usefixtures("warehouse")
def test_a_dry_run_sends_nothing_and_publishes_nothing(
    run_dag: RunDag, tmp_path: Path, vendor: VendorServer
) -> None:
    from airflow.models.asset import AssetEvent
    from airflow.utils.session import create_session
    from sqlalchemy import func, select

    events = []
    for dry in (True, False):
        file = tmp_path / f"dry_{dry}.py".lower()
        file.write_text(DAG.replace("approvals", file.stem).replace('"dry_run": False', f'"dry_run": {dry}'))
        _, states = run_dag(file)
        assert states == {"ask": "success", "approve": "skipped", "sync": "success", "": "success"}
        with create_session() as session:
            query = select(func.count()).where(AssetEvent.source_dag_id == file.stem)
            events.append((session.scalar(query), len(vendor.contacts("news"))))
    assert events == [(0, 0), (1, 3)]
