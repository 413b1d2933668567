# SPDX-License-Identifier: Apache-2.0
"""What every limit store promises, in a file, in PostgreSQL and in Redis."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import psycopg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from cdp_provider.core.activation.limits import PostgresLimits, SqliteLimits, limits_of
from cdp_provider.core.activation.limits.redis import RedisLimits
from cdp_provider.core.exceptions import ConfigurationError, NotFoundError, UnavailableError
from cdp_provider.hooks.limits import limits_for
from tests.core.activation.redis_server import redis_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cdp_provider.core.activation.limits import LimitStore


@pytest.fixture(scope="module")
def redis_port() -> Iterator[int]:
    with redis_server() as port:
        yield port


@pytest.fixture(params=["sqlite", "postgres", "redis"])
def opened(request, tmp_path, make_warehouse) -> Iterator[Callable[[], LimitStore]]:
    """Returns a function: a further worker's store."""
    if request.param == "sqlite":
        make: Callable[[], LimitStore] = lambda: SqliteLimits(tmp_path / "limits.sqlite")  # noqa: E731
    elif request.param == "postgres":
        url, table = (
            request.getfixturevalue("postgres_url"),
            make_warehouse("postgres").table("account_limits"),
        )
        make = lambda: PostgresLimits(lambda: psycopg.connect(url), table)  # noqa: E731
    else:
        port = request.getfixturevalue("redis_port")
        make = lambda: RedisLimits(lambda: redis.Redis("127.0.0.1", port), f"{tmp_path.name}:")  # noqa: E731
    stores: list[LimitStore] = []

    def open_store() -> LimitStore:
        stores.append(make())
        return stores[-1]

    yield open_store
    for store in stores:
        store.close()


def state_of(store: LimitStore, account: str = "a") -> str | None:
    return store.read(account)[0]


def test_a_state_is_kept_for_everybody_and_per_account(opened):
    one, other = opened(), opened()
    assert one.transact("a", lambda state, _: ("first", state)) is None
    assert other.transact("a", lambda state, _: ("second", state)) == "first"
    assert (state_of(one), state_of(one, "b")) == ("second", None)


def test_no_new_state_leaves_the_old_one(opened):
    store = opened()
    assert store.transact("a", lambda state, _: (None, state)) is None
    assert state_of(store) is None
    store.transact("a", lambda *_: ("kept", None))
    assert store.transact("a", lambda state, _: (None, state)) == "kept"
    assert state_of(store) == "kept"


def test_a_change_that_fails_changes_nothing_and_holds_nobody_up(opened):
    one, other = opened(), opened()
    one.transact("a", lambda *_: ("kept", None))
    with pytest.raises(ZeroDivisionError):
        one.transact("a", lambda *_: (str(1 // 0), None))
    assert other.transact("a", lambda state, _: ("next", state)) == "kept"
    assert one.transact("a", lambda state, _: (None, state)) == "next"


def test_the_clock_is_one_and_moves_on(opened):
    one, other = opened(), opened()
    first = one.transact("a", lambda _, now: ("x", now))
    time.sleep(0.05)
    second = other.read("a")[1]
    third = one.transact("a", lambda _, now: (None, now))
    assert first + 0.04 < second < third < first + 5
    assert first == pytest.approx(time.time(), abs=5)  # all of them run on this host


def test_no_change_gets_lost_among_workers(opened):
    stores = [opened() for _ in range(4)]

    def count(store: LimitStore) -> None:
        for _ in range(50):
            store.transact("a", lambda state, _: (str(int(state or 0) + 1), None))

    with ThreadPoolExecutor(4) as workers:
        list(workers.map(count, stores))
    assert state_of(stores[0]) == "200"


def test_a_closed_store_can_be_used_again(opened):
    store = opened()
    store.transact("a", lambda *_: ("kept", None))
    store.close()
    store.close()
    assert state_of(store) == "kept"


@pytest.mark.parametrize(
    "store",
    [
        SqliteLimits("/nowhere/at/all/limits.sqlite"),
        PostgresLimits(lambda: psycopg.connect("host=127.0.0.1 port=1 user=me password=s3cret"), "limits"),
        RedisLimits(lambda: redis.Redis("127.0.0.1", 1, password="s3cret", retry=Retry(NoBackoff(), 0))),
    ],
    ids=["sqlite", "postgres", "redis"],
)
def test_a_store_out_of_reach_can_be_tried_again(store):
    for use in (lambda: store.read("a"), lambda: store.transact("a", lambda *_: ("x", None))):
        with pytest.raises(UnavailableError, match="limits.* cannot be used") as raised:
            use()
        assert "s3cret" not in str(raised.value)


def test_a_store_that_lost_its_server_finds_it_again(redis_port, postgres_url, make_warehouse):
    table = make_warehouse("postgres").table("account_limits")
    connections = []

    def connect() -> psycopg.Connection:
        connections.append(psycopg.connect(postgres_url))
        return connections[-1]

    store = PostgresLimits(connect, table)
    store.transact("a", lambda *_: ("kept", None))
    with psycopg.connect(postgres_url, autocommit=True) as killer:
        killer.execute("select pg_terminate_backend(%s)", (connections[0].info.backend_pid,))
    with pytest.raises(UnavailableError):
        store.transact("a", lambda *_: ("lost", None))
    assert state_of(store) == "kept"
    store.close()


def test_a_worker_that_stands_still_does_not_stop_the_others(make_warehouse, postgres_url):
    table = make_warehouse("postgres").table("account_limits")
    quick = PostgresLimits(lambda: psycopg.connect(postgres_url), table)
    slow = PostgresLimits(lambda: psycopg.connect(postgres_url), table)
    quick.transact("a", lambda *_: ("kept", None))

    def stand_still(state: str | None, now: float) -> tuple[str, None]:
        slow._connection.execute("set idle_in_transaction_session_timeout = '200ms'")
        begun = time.monotonic()
        assert quick.transact("a", lambda state, _: ("next", state)) == "kept"
        assert 0.1 < time.monotonic() - begun < 5
        return "too late", None

    with pytest.raises(UnavailableError):
        slow.transact("a", stand_still)
    assert state_of(quick) == "next"
    quick.close()
    slow.close()


def test_the_default_store_stands_with_the_warehouse(warehouse):
    for expected in (None, "kept"):
        store = limits_of(warehouse)
        assert store.transact("a", lambda state, _: ("kept", state)) == expected
        store.close()


def test_a_redis_connection_of_airflow_is_used_where_one_is_named(redis_port, make_warehouse, monkeypatch):
    warehouse = make_warehouse("duckdb")
    assert isinstance(limits_for(None, warehouse), SqliteLimits)
    monkeypatch.setenv("AIRFLOW_CONN_MEETING", f"redis://:@127.0.0.1:{redis_port}?db=3")
    store = limits_for("meeting", warehouse)
    store.transact("a/", lambda *_: ("kept", None))
    store.close()
    with redis.Redis("127.0.0.1", redis_port, db=3) as client:
        assert client.get("cdp:limits:a/") == b"kept"


def test_what_is_wrong_with_a_redis_connection_is_said(make_warehouse, monkeypatch):
    warehouse = make_warehouse("duckdb")
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", "postgres://localhost/x")
    monkeypatch.setenv("AIRFLOW_CONN_ODD", '{"conn_type": "redis", "extra": {"db": "first"}}')
    with pytest.raises(NotFoundError, match="no Airflow connection 'absent'"):
        limits_for("absent", warehouse)
    with pytest.raises(ConfigurationError, match="is of type 'postgres'"):
        limits_for("other", warehouse)
    with pytest.raises(ConfigurationError, match="the extras db 'first'"):
        limits_for("odd", warehouse)
