# SPDX-License-Identifier: Apache-2.0
"""The reservation: never above the limit, none of it lost, shared by processes."""

from __future__ import annotations

import multiprocessing
import time
from typing import TYPE_CHECKING

import psycopg
import pytest

from cdp_provider.core.activation.limiter import PostgresLimits, SqliteLimits, Throttle, limits_of
from cdp_provider.core.exceptions import RateLimitedError
from tests.conftest import ENGINES
from tests.core.activation.scene import mail

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cdp_provider.core.activation.limiter import LimitStore

_processes = multiprocessing.get_context("forkserver")
PER_SECOND = 100
SECONDS = 2.0


def open_store(kind: str, place: str, table: str) -> LimitStore:
    return SqliteLimits(place) if kind == "duckdb" else PostgresLimits(lambda: psycopg.connect(place), table)


@pytest.fixture(params=ENGINES)
def place(request, tmp_path, make_warehouse) -> tuple[str, str, str]:
    """What :func:`open_store` takes, also in another process."""
    if request.param == "duckdb":
        return "duckdb", str(tmp_path / "limits.sqlite"), ""
    table = make_warehouse("postgres").table("rate_limits")
    return "postgres", request.getfixturevalue("postgres_url"), table


@pytest.fixture
def store(place) -> Iterator[LimitStore]:
    opened = open_store(*place)
    yield opened
    opened.close()


def test_moments_lie_an_interval_apart_and_none_is_saved_up(store):
    waits = [store.reserve("a", 0.5, 60) for _ in range(4)]
    assert waits == pytest.approx([0, 0.5, 1.0, 1.5], abs=0.1)
    assert store.reserve("other", 0.5, 60) == pytest.approx(0, abs=0.01)
    time.sleep(0.3)
    quick = [store.reserve("third", 0.05, 60) for _ in range(2)]
    time.sleep(0.5)
    assert quick == pytest.approx([0, 0.05], abs=0.04)
    assert [store.reserve("third", 0.05, 60) for _ in range(2)] == pytest.approx([0, 0.05], abs=0.04)


def test_a_wait_too_long_takes_nothing(store):
    assert store.reserve("a", 10, 1) == 0
    for _ in range(3):
        assert store.reserve("a", 10, 1) == pytest.approx(10, abs=0.2)
    assert store.reserve("a", 10, 60) == pytest.approx(10, abs=0.2)


def test_a_block_holds_for_everybody_and_is_never_shortened(store, place):
    store.block("a", 30)
    store.block("a", 5)
    other = open_store(*place)
    assert other.reserve("a", 0.01, 1) == pytest.approx(30, abs=0.5)
    assert other.reserve("b", 0.01, 1) == 0
    other.close()


def test_a_closed_store_can_be_used_again(store):
    store.reserve("a", 10, 60)
    store.close()
    assert store.reserve("a", 10, 60) == pytest.approx(10, abs=0.2)


def _take(kind: str, place: str, table: str, ready, begin, taken) -> None:
    store = open_store(kind, place, table)
    throttle = Throttle(store, "account", 1 / PER_SECOND, 60)
    store.reserve("another", 1, 60)  # connected and warm
    ready.release()
    begin.wait()
    moments, end = [], time.monotonic() + SECONDS
    while time.monotonic() < end:
        throttle.wait()
        moments.append(time.monotonic())
    store.close()
    taken.put(moments)


def test_two_processes_share_one_limit_evenly(place):
    ready, begin, taken = _processes.Semaphore(0), _processes.Event(), _processes.Queue()
    workers = [_processes.Process(target=_take, args=(*place, ready, begin, taken)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for _ in workers:
        ready.acquire()
    begin.set()
    shares = [taken.get(timeout=30) for _ in workers]
    for worker in workers:
        worker.join(30)
    moments = sorted(moment for share in shares for moment in share)
    # A busy machine may let a worker oversleep, but all its requests fit into the time that passed.
    allowed = PER_SECOND * (moments[-1] - moments[0]) + 1
    assert 0.9 * PER_SECOND * SECONDS <= len(moments) <= allowed + 5
    assert min(map(len, shares)) >= 0.6 * max(map(len, shares))


def test_throttle_raises_a_long_wait_with_its_seconds(store):
    throttle = Throttle.of(mail(rate=1), store, max_wait=0.2)
    throttle.wait()
    with pytest.raises(RateLimitedError, match="shop_mail/mail is free again in 1 s") as raised:
        throttle.wait()
    assert 0.5 < raised.value.retry_after <= 1


def test_default_store_stands_with_the_warehouse(warehouse):
    store = limits_of(warehouse)
    assert store.reserve("a", 10, 60) == 0
    store.close()
    again = limits_of(warehouse)
    assert again.reserve("a", 10, 60) == pytest.approx(10, abs=0.5)
    again.close()
