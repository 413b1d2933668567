# SPDX-License-Identifier: Apache-2.0
"""The last task says what happened, and is never green over a failure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException

from cdp_provider.core.runs import Report
from cdp_provider.operators.base import CdpOperator, run_of
from cdp_provider.operators.report import RunReportOperator, as_table

if TYPE_CHECKING:
    from cdp_provider.core.warehouse import Warehouse
from tests.airflow_env import context_of

NOW = datetime(2026, 7, 2, tzinfo=UTC)


@pytest.fixture
def operator(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> RunReportOperator:
    monkeypatch.setattr(RunReportOperator, "warehouse", warehouse)
    with DAG("shop"):
        CdpOperator(task_id="first", warehouse_conn_id="wh") >> (
            report := RunReportOperator(task_id="run_report", warehouse_conn_id="wh")
        )
    return report


def write(warehouse: Warehouse, *reports: Report) -> None:
    with warehouse.session() as session:
        for report in reports:
            report.write(session)


def context(states: dict[str, str | None] | None = None, run_id: str = "run-1") -> Any:
    return context_of(
        NOW,
        run_id=run_id,
        get_task_states=lambda dag_id, run_ids: {run_ids[0]: states or {"first": "success"}},
    )


def test_nothing_was_written(operator: RunReportOperator) -> None:
    assert operator.execute(context()) == {"stages": 0, "rows_refused": 0}


def test_no_product_tables_at_all(operator: RunReportOperator, warehouse: Warehouse) -> None:
    with warehouse.session() as session:
        session.execute(f"drop table {warehouse.table('runs')}")
    assert operator.execute(context()) == {"stages": 0, "rows_refused": 0}


def test_all_went_well(operator: RunReportOperator, warehouse: Warehouse) -> None:
    run, other = run_of(context()), run_of(context(run_id="another"))
    write(
        warehouse,
        Report(run, "land", "crm.customers", rows_in=10, rows_out=9, rows_refused=1),
        Report(run, "resolve", "-", state="superseded"),
        Report(other, "gate", "-", state="failed", error="not ours"),
    )
    assert operator.execute(context()) == {"stages": 2, "rows_refused": 1}


def test_a_failed_stage(operator: RunReportOperator, warehouse: Warehouse) -> None:
    failed = Report(run_of(context()), "check", "web.events", state="failed", error="9 of 10 rows malformed")
    write(warehouse, failed)
    with pytest.raises(AirflowFailException, match=r"run run-1 .*check web.events: 9 of 10 rows malformed"):
        operator.execute(context())


@pytest.mark.parametrize("states", [{"first": "failed"}, {"first_3": "upstream_failed"}])
def test_a_failed_task_that_wrote_nothing(operator: RunReportOperator, states: dict[str, str]) -> None:
    with pytest.raises(AirflowFailException, match=r"task first.*failed"):
        operator.execute(context(states))


def test_tasks_that_do_not_come_before_it(operator: RunReportOperator) -> None:
    operator.execute(context({"first": "success", "first_aid": "failed", "run_report": "running"}))


def test_table() -> None:
    rows = [
        {"stage": "land", "node": "crm.customers", "state": "ok", "rows_in": 10, "rows_out": 9}
        | {"rows_refused": 1, "seconds": 0.25, "error": None}
    ]
    assert as_table(rows).splitlines() == [
        "stage  node           state  rows_in  rows_out  rows_refused  seconds",
        "land   crm.customers  ok          10         9             1     0.25",
    ]
    assert as_table([]) == "no stage has written to the run ledger"
