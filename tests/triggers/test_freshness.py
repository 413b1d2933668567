# SPDX-License-Identifier: Apache-2.0
"""The trigger fires when the rows are there, waits while they are not, and holds no secret."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pytest

from cdp_provider.core.exceptions import ConfigurationError, NotFoundError
from cdp_provider.hooks.warehouse import WarehouseHook
from cdp_provider.triggers.freshness import FreshnessTrigger, Watched, as_moment
from tests.airflow_env import connection_json

if TYPE_CHECKING:
    from pathlib import Path

    from cdp_provider.core.warehouse import Warehouse

NOW = datetime(2026, 7, 2, tzinfo=UTC)


def put(warehouse: Warehouse, moment: datetime) -> None:
    table = warehouse.table("orders")
    with warehouse.session() as session:
        session.execute(
            f"create table if not exists {table} (ordered_at timestamp with time zone, note text)"
        )
        session.load(table, pa.table({"ordered_at": [moment], "note": ["x"]}))


def watched(**what: Any) -> dict[str, Any]:
    return {
        "warehouse_conn_id": "wh",
        "schema": "cdp",
        "table": "orders",
        "time_column": "ordered_at",
        **what,
    }


async def first(trigger: FreshnessTrigger) -> dict[str, Any]:
    async for event in trigger.run():
        return event.payload
    raise AssertionError


def test_newest_row(warehouse: Warehouse) -> None:
    look = Watched(**watched())
    assert look.read(warehouse) is None  # no table yet
    put(warehouse, NOW)
    put(warehouse, NOW - timedelta(days=1))
    assert look.read(warehouse) == NOW


def test_newest_batch_of_a_stream(warehouse: Warehouse) -> None:
    loads = warehouse.table("loads")
    look = Watched("wh", "cdp", stream="crm.customers")
    assert look.read(warehouse) is None
    with warehouse.session() as session:
        for number, (stream, state) in enumerate(
            [("crm.customers", "passed"), ("crm.customers", "failed"), ("web.events", "passed")]
        ):
            session.execute(
                f"insert into {loads} (load_id, load_seq, batch_id, pipeline, stream, run_id, rows_read,"
                " rows_landed, rows_quarantined, bytes, content_hash, state, watermark)"
                " values (:n, 1, 'b', 'p', :stream, 'r', 0, 0, 0, 0, '', :state, :watermark)",
                {
                    "n": number,
                    "stream": stream,
                    "state": state,
                    "watermark": NOW + timedelta(hours=number),
                },
            )
    assert look.read(warehouse) == NOW


def test_a_column_that_is_not_there(warehouse: Warehouse) -> None:
    put(warehouse, NOW)
    with pytest.raises(NotFoundError, match=r"no column 'when'; it has ordered_at, note"):
        Watched(**watched(time_column="when")).read(warehouse)
    with pytest.raises(ConfigurationError, match="type str"):
        Watched(**watched(time_column="note")).read(warehouse)


def test_moments() -> None:
    assert as_moment(date(2026, 7, 2)) == NOW
    assert as_moment(datetime(2026, 7, 2)) == NOW  # noqa: DTZ001 - that is the case
    assert as_moment(None) is None


def test_it_survives_serialization_and_holds_an_id_only() -> None:
    path, fields = FreshnessTrigger(watched(), NOW.isoformat(), 5).serialize()
    assert path == "cdp_provider.triggers.freshness.FreshnessTrigger"
    assert FreshnessTrigger(**fields).serialize() == (path, fields)
    assert fields["watched"] == {**watched(), "stream": None}


def test_it_fires_once_the_row_is_there(
    make_warehouse: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warehouse = make_warehouse("duckdb")
    with warehouse.session() as session:
        path = session.scalar("select path from duckdb_databases() where not internal")
    monkeypatch.setenv("AIRFLOW_CONN_WH", connection_json("duckdb", path))
    # One process opens a file with one configuration at a time, so the test uses the trigger's.
    warehouse = WarehouseHook("wh").warehouse
    put(warehouse, NOW - timedelta(days=2))
    trigger = FreshnessTrigger(watched(), NOW.isoformat(), 0.05)

    async def scene() -> dict[str, Any]:
        waiting = asyncio.create_task(first(trigger))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(waiting), 0.5)
        assert not waiting.done()
        await asyncio.to_thread(put, warehouse, NOW)
        return await asyncio.wait_for(waiting, 20)

    assert asyncio.run(scene()) == {"newest": NOW.isoformat()}


def test_a_busy_file_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from cdp_provider.core.exceptions import WarehouseBusyError

    looks = iter([WarehouseBusyError("held"), NOW])

    def look(self: Watched) -> datetime:
        result = next(looks)
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(Watched, "newest", look)
    trigger = FreshnessTrigger(watched(), NOW.isoformat(), 0.01)
    assert asyncio.run(first(trigger)) == {"newest": NOW.isoformat()}


def test_the_file_is_free_between_two_looks(make_warehouse: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    warehouse = make_warehouse("duckdb")
    put(warehouse, NOW)
    with warehouse.session() as session:
        path = session.scalar("select path from duckdb_databases() where not internal")
    monkeypatch.setenv("AIRFLOW_CONN_WH", connection_json("duckdb", path))
    assert Watched(**watched()).newest() == NOW
    # A connection with other settings is refused while one is open in this process.
    duckdb.connect(path, read_only=True).close()
