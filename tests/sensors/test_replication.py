# SPDX-License-Identifier: Apache-2.0
"""The sensor fails, and says why, when a real server keeps too much of its log for a slot."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from airflow.sdk.exceptions import TaskDeferred

from cdp_provider.core.exceptions import ConfigurationError, NotFoundError, RetryableError
from cdp_provider.core.ingest.postgres_lag import Lag, excess
from cdp_provider.sensors.replication import ReplicationLagSensor
from cdp_provider.triggers.replication import ReplicationLagTrigger
from tests.airflow_env import connection_json, context_of

if TYPE_CHECKING:
    from collections.abc import Iterator

SLOT = f"cdp_lag_{os.getpid()}"
CONTEXT = context_of(datetime(2026, 7, 1, tzinfo=UTC))


@pytest.fixture
def server(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[psycopg.Connection[Any]]:
    """A connection `shop_db`, and a slot for which 100 kB at the least are kept."""
    monkeypatch.setenv("AIRFLOW_CONN_SHOP_DB", connection_json("postgres", postgres_url))
    with psycopg.connect(postgres_url, autocommit=True, options="-c synchronous_commit=on") as connection:
        if connection.execute("show wal_level").fetchone() != ("logical",):
            pytest.skip("the server at CDP_TEST_POSTGRES_URL has no wal_level logical")
        connection.execute("select pg_create_logical_replication_slot(%s, 'pgoutput')", (SLOT,))
        connection.execute("select pg_logical_emit_message(true, 'cdp', repeat('x', 100000))")
        yield connection
        connection.execute("select pg_drop_replication_slot(%s)", (SLOT,))


def sensor(**arguments: Any) -> ReplicationLagSensor:
    given = {"source_conn_id": "shop_db", "limit": "1 GB", "slots": [SLOT]} | arguments
    return ReplicationLagSensor(task_id="lag", **given)


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("slots", [[SLOT], []])
def test_within_the_limit_it_goes_on(slots: list[str]) -> None:
    sensor(slots=slots).execute(CONTEXT)


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("limit", ["10 kB", 10_000, "10000"])
@pytest.mark.parametrize("deferrable", [True, False])
def test_beyond_the_limit_it_fails_and_says_why(limit: str | int, deferrable: bool) -> None:
    with pytest.raises(RetryableError) as caught:
        sensor(limit=limit, deferrable=deferrable).execute(CONTEXT)
    message = str(caught.value)
    assert SLOT in message
    assert "10000" in message
    assert "pg_drop_replication_slot" in message


def test_it_waits_until_the_reader_has_caught_up(server: psycopg.Connection[Any]) -> None:
    waiting = sensor(limit=50_000, wait=True, poke_interval=0.05, timeout=60)
    with pytest.raises(TaskDeferred) as deferred:
        waiting.execute(CONTEXT)
    path, arguments = deferred.value.trigger.serialize()
    assert path == "cdp_provider.triggers.replication.ReplicationLagTrigger"
    trigger = ReplicationLagTrigger(**arguments)

    async def fire() -> dict[str, int]:
        async def catch_up() -> None:
            await asyncio.sleep(0.2)
            await asyncio.to_thread(advance, server)

        reader = asyncio.create_task(catch_up())
        event = await anext(aiter(trigger.run()))
        assert reader.done(), "it fires when the reader has caught up, not before"
        return dict(event.payload)

    event = asyncio.run(fire())
    assert 0 <= event["retained"] <= 50_000
    waiting.caught_up(CONTEXT, event)


def advance(connection: psycopg.Connection[Any]) -> None:
    """Read on until hardly any log is kept: what a slot needs is only counted anew now and then."""
    retained = (
        "select pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) from pg_replication_slots"
        f" where slot_name = '{SLOT}'"
    )
    for _ in range(50):
        connection.execute("checkpoint")
        connection.execute("select pg_replication_slot_advance(%s, pg_current_wal_flush_lsn())", (SLOT,))
        if int((connection.execute(retained).fetchone() or (0,))[0]) < 50_000:
            return
    pytest.fail("the slot keeps its log")


@pytest.mark.usefixtures("server")
def test_a_slot_that_is_not_there() -> None:
    with pytest.raises(NotFoundError, match="no logical replication slot 'nobodys'"):
        sensor(slots=["nobodys"]).execute(CONTEXT)


def test_a_connection_to_another_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_SHOP_DB", connection_json("duckdb", "/tmp/x.duckdb"))  # noqa: S108
    with pytest.raises(ConfigurationError, match="PostgreSQL"):
        sensor().execute(CONTEXT)


@pytest.mark.usefixtures("server")
def test_a_limit_that_is_none() -> None:
    with pytest.raises(ConfigurationError, match="is no size"):
        sensor(limit="much").execute(CONTEXT)


def test_a_lost_slot_is_a_fault_whatever_the_limit() -> None:
    assert excess([Lag("a", 10, lost=False)], 10) is None
    assert "'b' has lost its log" in str(excess([Lag("a", 0, lost=False), Lag("b", 0, lost=True)], 10))


def test_template_fields_exist() -> None:
    made = sensor()
    assert all(hasattr(made, name) for name in made.template_fields)
