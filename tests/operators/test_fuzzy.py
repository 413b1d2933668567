# SPDX-License-Identifier: Apache-2.0
"""The example ``review_links`` whole, inside Airflow, with a person who answers through Airflow's API."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.standard.operators.hitl import ApprovalOperator

from cdp_provider.hooks.warehouse import WarehouseHook
from cdp_provider.operators.fuzzy import AcceptLinksOperator, ProposeLinksOperator, ReviewLinksOperator
from cdp_provider.testing import shop
from tests.airflow_env import connection_json
from tests.reviewer import Reviewer
from tests.test_example_dags import own_database

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cdp_provider.core.warehouse import Warehouse
    from tests.conftest import RunDag

#: Airflow's server inside ``dag.test()`` warns of what its own dependencies deprecate.
pytestmark = pytest.mark.filterwarnings("default")

EXAMPLE = Path(__file__).parents[2] / "dags" / "review_links.py"


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


@pytest.fixture
def reviewer() -> Iterator[Callable[[str], Reviewer]]:
    """Returns a function: starts a person who gives that answer."""
    hired: list[Reviewer] = []

    def hire(answer: str) -> Reviewer:
        hired.append(Reviewer("review_links", "review", answer))
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
