# SPDX-License-Identifier: Apache-2.0
"""The example ``review_links`` whole, inside Airflow, with a person who answers through Airflow's API."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.standard.operators.hitl import ApprovalOperator

from cdp_provider.hooks.warehouse import WarehouseHook
from cdp_provider.operators.fuzzy import AcceptLinksOperator, ProposeLinksOperator, ReviewLinksOperator
from cdp_provider.testing import shop
from tests.airflow_env import connection_json
from tests.test_example_dags import own_database

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cdp_provider.core.warehouse import Warehouse
    from tests.conftest import RunDag

#: Airflow's server inside ``dag.test()`` warns of what its own dependencies deprecate.
pytestmark = pytest.mark.filterwarnings("default")

EXAMPLE = Path(__file__).parents[2] / "dags" / "review_links.py"
PATIENCE = 120.0


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CRM with enough double accounts to learn from."""
    folder = tmp_path_factory.mktemp("accounts")
    shop.generate(folder, customers=5000, events=1000, orders=100)
    return folder


@pytest.fixture(params=["duckdb", "postgres"])
def warehouse(
    request: pytest.FixtureRequest, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Warehouse:
    if request.param == "duckdb":
        where = str(tmp_path / "crm.duckdb")
    else:
        where = own_database(request.getfixturevalue("postgres_url"))
    monkeypatch.setenv("AIRFLOW_CONN_CDP_WAREHOUSE", connection_json(request.param, where))
    files = json.dumps({"conn_type": "fs", "extra": {"path": str(data)}})
    monkeypatch.setenv("AIRFLOW_CONN_SHOP_FILES", files)
    return WarehouseHook("cdp_warehouse", schema="accounts").warehouse


class Reviewer(threading.Thread):
    """Waits until the task asks, and answers as the web page does."""

    def __init__(self, answer: str) -> None:
        super().__init__(daemon=True)
        self._answer = answer
        self._over = threading.Event()
        self.asked: list[dict[str, Any]] = []
        self.failure: str | None = None

    def run(self) -> None:
        from airflow.api_fastapi.app import create_app
        from fastapi.testclient import TestClient

        with TestClient(create_app(apps="core"), headers=_token()) as client:
            while not self._over.wait(0.5):
                found = client.get("/api/v2/dags/review_links/dagRuns/~/hitlDetails?response_received=false")
                for detail in found.json().get("hitl_details", []):
                    self._give(client, detail)

    def _give(self, client: Any, detail: dict[str, Any]) -> None:
        self.asked.append(detail)
        run = detail["task_instance"]["dag_run_id"]
        answered = client.patch(
            f"/api/v2/dags/review_links/dagRuns/{run}/taskInstances/review/-1/hitlDetails",
            json={"chosen_options": [self._answer], "params_input": {}},
        )
        if answered.status_code != 200:
            self.failure = answered.text

    def leave(self) -> None:
        self._over.set()
        self.join(PATIENCE)
        assert self.failure is None, self.failure


def _token() -> dict[str, str]:
    from airflow.api_fastapi.app import create_auth_manager
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

    manager = create_auth_manager()
    manager.init()
    token = manager.generate_jwt(SimpleAuthManagerUser(username="jo", role="admin"))
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
def reviewer() -> Iterator[Callable[[str], Reviewer]]:
    """Returns a function: starts a person who gives that answer."""
    hired: list[Reviewer] = []

    def hire(answer: str) -> Reviewer:
        hired.append(Reviewer(answer))
        hired[-1].start()
        return hired[-1]

    yield hire
    for person in hired:
        person.leave()


def links(warehouse: Warehouse) -> dict[tuple[str, str | None], int]:
    """State and who decided -> pairs."""
    table = warehouse.table("fuzzy_links")
    with warehouse.session() as session:
        rows = session.fetch(f"select state, decided_by, count(*) from {table} group by state, decided_by")
    return {(state, by): count for state, by, count in rows}


def profiles(warehouse: Warehouse) -> int:
    with warehouse.session() as session:
        table = warehouse.table("identifiers")
        return int(session.scalar(f"select count(distinct profile_id) from {table}"))


def test_approved_pairs_become_one_profile(run_dag: RunDag, warehouse: Warehouse, reviewer: Any) -> None:
    person = reviewer(ApprovalOperator.APPROVE)
    _, states = run_dag(EXAMPLE)
    assert set(states.values()) == {"success"}, states
    found = links(warehouse)
    assert set(found) == {("accepted", "score"), ("accepted", "review by jo")}
    assert profiles(warehouse) == 5000 - sum(found.values())
    (asked,) = person.asked
    assert asked["options"] == [ApprovalOperator.APPROVE, ApprovalOperator.REJECT]
    assert "phone" in asked["body"]
    assert "@" not in asked["body"]

    # Again a run later: nothing is left to review, and nothing changes.
    _, states = run_dag(EXAMPLE)
    assert states == {**dict.fromkeys(states, "success"), "review": "skipped"}
    assert links(warehouse) == found
    assert len(person.asked) == 1


@pytest.mark.parametrize("warehouse", ["duckdb"], indirect=True)
def test_rejected_pairs_stay_apart_and_that_is_recorded(
    run_dag: RunDag, warehouse: Warehouse, reviewer: Any
) -> None:
    reviewer(ApprovalOperator.REJECT)
    _, states = run_dag(EXAMPLE)
    assert set(states.values()) == {"success"}, states
    found = links(warehouse)
    assert set(found) == {("accepted", "score"), ("rejected", "review by jo")}
    assert profiles(warehouse) == 5000 - found["accepted", "score"]


@pytest.mark.parametrize("operator", [ProposeLinksOperator, ReviewLinksOperator, AcceptLinksOperator])
def test_template_fields_are_attributes(operator: Any) -> None:
    given = {"identity": None, "proposed": {}, "answer": None, "warehouse_conn_id": "w"}
    wanted = {
        ProposeLinksOperator: ("identity", "warehouse_conn_id"),
        ReviewLinksOperator: ("proposed",),
        AcceptLinksOperator: ("identity", "answer", "warehouse_conn_id"),
    }[operator]
    made = operator(task_id="t", **{name: given[name] for name in wanted})
    assert [name for name in operator.template_fields if not hasattr(made, name)] == []
