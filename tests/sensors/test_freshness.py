# SPDX-License-Identifier: Apache-2.0
"""The sensor goes on at once when data is fresh, defers when it is not, and says what it lacks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from airflow.providers.standard.triggers.temporal import DateTimeTrigger
from airflow.sdk import Asset
from airflow.sdk.exceptions import AirflowSensorTimeout, AirflowSkipException, TaskDeferred

from cdp_provider.core.exceptions import ConfigurationError
from cdp_provider.sensors.freshness import FreshnessSensor
from cdp_provider.triggers.freshness import FreshnessTrigger
from tests.airflow_env import connection_json, context_of

NOW = datetime(2026, 7, 2, tzinfo=UTC)
HOUR = timedelta(hours=1)
ASSET = Asset("shop/profiles", "cdp://shop/profiles")


class Events(list[Any]):
    """The events of an inlet, newest last, as the context hands them out."""

    def ascending(self, ascending: bool) -> Events:
        return self if ascending else Events(reversed(self))

    def limit(self, limit: int) -> Events:
        return Events(self[:limit])


@pytest.fixture
def wh(make_warehouse: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """A connection to a DuckDB file whose table `orders` ends at NOW."""
    warehouse = make_warehouse("duckdb")
    with warehouse.session() as session:
        session.execute(f"create table {warehouse.table('orders')} (ordered_at timestamp with time zone)")
        session.load(warehouse.table("orders"), pa.table({"ordered_at": [NOW]}))
        path = session.scalar("select path from duckdb_databases() where not internal")
    monkeypatch.setenv("AIRFLOW_CONN_WH", connection_json("duckdb", path))
    return "wh"


def sensor(**arguments: Any) -> FreshnessSensor:
    return FreshnessSensor(task_id="wait", max_age=HOUR, **arguments)


def test_fresh_enough_does_not_wait(wh: str) -> None:
    waiting = sensor(warehouse_conn_id=wh, table="orders", time_column="ordered_at")
    waiting.execute(context_of(NOW + HOUR))


def test_too_old_defers(wh: str) -> None:
    waiting = sensor(
        warehouse_conn_id=wh, table="orders", time_column="ordered_at", poke_interval=7, timeout=600
    )
    with pytest.raises(TaskDeferred) as deferred:
        waiting.execute(context_of(NOW + 2 * HOUR))
    trigger = deferred.value.trigger
    assert isinstance(trigger, FreshnessTrigger)
    assert (trigger.at_least, trigger.poll_interval) == ((NOW + HOUR).isoformat(), 7)
    assert deferred.value.timeout == timedelta(seconds=600)
    resumed = {"event": {"newest": (NOW + HOUR).isoformat()}}
    waiting.resume_execution(deferred.value.method_name, resumed, context_of(NOW + 2 * HOUR))


def test_without_deferral_it_pokes(wh: str) -> None:
    waiting = sensor(
        warehouse_conn_id=wh,
        table="orders",
        time_column="ordered_at",
        deferrable=False,
        poke_interval=0.01,
        timeout=0.05,
    )
    waiting.execute(context_of(NOW))
    with pytest.raises(AirflowSensorTimeout):
        waiting.execute(context_of(NOW + 2 * HOUR))


@pytest.mark.parametrize(
    ("watermark", "fresh"),
    [(NOW.isoformat(), True), ((NOW - 2 * HOUR).isoformat(), False), (None, False)],
)
def test_newest_event_of_an_asset(watermark: str | None, fresh: bool) -> None:
    waiting = sensor(asset=ASSET, poke_interval=30, timeout=60)
    assert waiting.inlets == [ASSET]
    old = SimpleNamespace(extra={"watermark": "2020-01-01T00:00:00+00:00"})
    context = context_of(NOW + HOUR)
    context["inlet_events"] = {ASSET: Events([old, SimpleNamespace(extra={"watermark": watermark})])}
    if fresh:
        waiting.execute(context)
        return
    with pytest.raises(TaskDeferred) as deferred:
        waiting.execute(context)
    assert isinstance(deferred.value.trigger, DateTimeTrigger)
    assert deferred.value.kwargs == {"waited": 30}
    with pytest.raises(AirflowSensorTimeout, match="shop/profiles"):
        waiting.resume_execution("look_again", {"waited": 60}, context)
    waiting.soft_fail = True
    with pytest.raises(AirflowSkipException):
        waiting.resume_execution("look_again", {"waited": 60}, context)


def test_an_asset_without_events_is_waited_for() -> None:
    context = context_of(NOW)
    context["inlet_events"] = {ASSET: Events()}
    assert not sensor(asset=ASSET).poke(context)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"table": "orders"},
        {"table": "orders", "time_column": "ordered_at", "stream": "crm.customers"},
        {"stream": "crm.customers", "asset": ASSET},
        {"stream": "crm.customers", "warehouse_conn_id": None},
    ],
)
def test_what_it_cannot_watch(arguments: dict[str, Any]) -> None:
    waiting = sensor(**{"warehouse_conn_id": "wh", **arguments})
    with pytest.raises(ConfigurationError, match="task wait watches"):
        waiting.execute(context_of(NOW))
