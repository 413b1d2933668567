# SPDX-License-Identifier: Apache-2.0
"""Moments of an account: never above a limit, none of them lost, shared by processes."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import time
from collections import Counter
from datetime import datetime, timedelta
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple
from zoneinfo import ZoneInfo

import psycopg
import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from cdp_provider.core.activation.destinations.base import Limits
from cdp_provider.core.activation.limiter import Limiter, PostgresLimits, SqliteLimits
from cdp_provider.core.activation.limits.redis import RedisLimits
from cdp_provider.core.activation.limits.reservation import (
    Lease,
    Reservation,
    block,
    heard,
    may_go,
    release,
    reserve,
)
from cdp_provider.core.exceptions import ConfigurationError, RateLimitedError
from cdp_provider.core.project.activation import Rate
from tests.core.activation.redis_server import redis_server

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from multiprocessing.queues import Queue
    from multiprocessing.sharedctypes import Synchronized
    from multiprocessing.synchronize import Event, Semaphore
    from pathlib import Path

    from cdp_provider.core.activation.limits import LimitStore

#: From 20 on, processes share for 20 seconds, and in Redis too.
DEPTH = int(os.environ.get("CDP_TEST_DEPTH", "1"))
START = 1_790_000_000.0
DAY = 86_400.0


def limits(*rates: Rate, concurrency: int | None = None) -> Limits:
    return Limits(rates, concurrency)


def requests(amount: int, seconds: float, **other: Any) -> Rate:
    return Rate(requests=amount, per=timedelta(seconds=seconds), **other)


def records(amount: int, seconds: float) -> Rate:
    return Rate(records=amount, per=timedelta(seconds=seconds))


class Account:
    """An account in memory, whose clock stands still until it is told otherwise."""

    def __init__(self, allowed: Limits, now: float = START) -> None:
        self.allowed = allowed
        self.now = now
        self.state: str | None = None

    def reserve(self, carried: int = 0, max_wait: float = 60, lease: Lease | None = None) -> Reservation:
        return self.apply(reserve, limits=self.allowed, records=carried, max_wait=max_wait, lease=lease)

    def apply(self, change: Callable[..., tuple[str | None, Any]], **values: Any) -> Any:
        state, answer = change(self.state, self.now, **values)
        self.state = self.state if state is None else state
        return answer

    def waits(self, times: int) -> list[float]:
        return [round(self.reserve(max_wait=10 * DAY).wait, 6) for _ in range(times)]


def test_moments_lie_an_interval_apart_and_none_is_saved_up():
    account = Account(limits(requests(2, 1)))
    assert account.waits(4) == [0, 0.5075, 1.015, 1.5225], "1.5 % more than the limit's own interval"
    account.now += 100
    assert account.waits(3) == [0, 0.5075, 1.015]


def test_a_wait_too_long_takes_nothing_and_says_why():
    account = Account(limits(requests(1, 10)))
    account.reserve()
    for _ in range(3):
        refused = account.reserve(max_wait=1)
        assert (refused.taken, refused.wait) == (False, 10.15)
        assert refused.cause == "its 1 request per 10 seconds are taken by other requests"
    assert account.reserve().taken


_spans = st.sampled_from([1, 2, 5, 60, 3_600])
_rate = st.one_of(
    st.builds(requests, st.integers(1, 200), _spans),
    st.builds(records, st.one_of(st.integers(20, 40), st.integers(20, 2_000)), _spans),
    st.builds(requests, st.integers(20, 500), st.just(DAY), resets=st.just("America/Los_Angeles")),
)
_asked = st.lists(
    st.tuples(st.one_of(st.just(0.0), st.floats(0, 3), st.floats(0, 4_000)), st.integers(0, 20)),
    min_size=1,
    max_size=150,
)


def microseconds(seconds: float) -> int:
    return round(seconds * 1_000_000)


def above(rate: Rate, granted: list[tuple[float, int]]) -> list[int]:
    """The oracle: what each span (or day) that ends at a moment saw, where it is more than the limit."""
    costs = [(moment, carried if rate.records else 1) for moment, carried in granted]
    if rate.resets:
        days: Counter[Any] = Counter()
        for moment, cost in costs:
            days[datetime.fromtimestamp(moment, ZoneInfo(rate.resets)).date()] += cost
        return [seen for seen in days.values() if seen > rate.amount]
    per = microseconds(rate.per.total_seconds())
    seen = (
        sum(cost for moment, cost in costs[: last + 1] if microseconds(end) - microseconds(moment) < per)
        for last, (end, _) in enumerate(costs)
    )
    return [total for total in seen if total > rate.amount]


@settings(max_examples=60 * DEPTH, deadline=None)
@given(st.lists(_rate, min_size=1, max_size=4), _asked, st.integers(0, 300))
def test_no_span_ever_sees_more_than_any_limit(rates, asked, blocked_at):
    account, granted = Account(limits(*rates)), []
    for number, (pause, carried) in enumerate(asked):
        account.now += pause
        if number == blocked_at:
            account.apply(block, seconds=2)
        reserved = account.reserve(carried, max_wait=7_200)
        if reserved.taken:
            assert reserved.moment >= account.now - 2e-6
            granted.append((reserved.moment, carried))
    assert granted
    assert all(one[0] <= other[0] for one, other in pairwise(granted))
    for rate in rates:
        assert above(rate, granted) == []
    assert len(account.state) < 4_096


@settings(max_examples=25 * DEPTH, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.builds(requests, st.integers(1, 60), st.sampled_from([1, 3, 10, 60, 300])),
            st.builds(records, st.integers(20, 900), st.sampled_from([1, 3, 10, 60, 300])),
        ),
        min_size=1,
        max_size=3,
    ),
    st.integers(1, 20),
)
def test_saturated_use_gets_98_percent_of_the_tightest_limit(rates, carried):
    # Batches are not torn: of records, only whole batches can be used.
    account = Account(limits(*rates))
    tightest = min(
        (rate.amount // carried if rate.records else rate.amount) / rate.per.total_seconds() for rate in rates
    )
    moments = [account.reserve(carried, max_wait=1e9).moment for _ in range(1_200)]
    windows = max(rate.per.total_seconds() for rate in rates)
    lasted = moments[-1] - moments[0]
    if lasted >= 2 * windows:
        assert len(moments) >= 0.98 * tightest * lasted
    assert len(account.state) < 4_096


def test_the_state_stays_short_however_much_is_counted():
    account = Account(
        limits(requests(100, 1), requests(10**7, 3_600), requests(10**8, DAY), records(10**9, DAY))
    )
    for _ in range(4_000):
        account.now += 25
        assert account.reserve(10_000).taken
    assert len(account.state) < 4_096


def test_a_day_begins_anew_at_its_zones_midnight():
    zone = ZoneInfo("America/Los_Angeles")
    noon = datetime(2026, 10, 31, 12, tzinfo=zone).timestamp()
    account = Account(limits(requests(3, DAY, resets=zone.key)), noon)
    assert account.waits(3) == [0, 0, 0]
    refused = account.reserve()
    assert (refused.taken, refused.wait) == (False, 12 * 3600)
    assert refused.cause == "its 3 requests per day (America/Los_Angeles) are used up"
    # The next day has 25 hours there.
    assert account.waits(4) == [12 * 3600] * 3 + [37 * 3600]


def test_a_request_above_a_limit_is_a_fault_of_configuration():
    account = Account(limits(records(500, 60)))
    with pytest.raises(ConfigurationError, match="carries 501 records.*500 records per minute.*batch to 500"):
        account.reserve(501)


def test_what_is_used_stays_used_when_the_amount_changes():
    account = Account(limits(requests(10, 3_600)))
    account.waits(8)
    account.allowed = limits(requests(5, 3_600))
    assert account.reserve().wait == pytest.approx(3_600, rel=0.01)


def test_a_block_is_never_shortened_and_slows_the_account_down():
    account = Account(limits(requests(10, 1)))
    account.apply(block, seconds=30)
    account.apply(block, seconds=5)
    # Two at the same time count once.
    assert account.waits(2) == [30, pytest.approx(30 + 0.1015 / 0.8, abs=1e-5)]
    steps = []
    for quiet in range(4):
        account.now = START + 30 + 10 * quiet + 1
        steps.append(account.waits(2)[1])
    assert steps == [pytest.approx(0.1015 / pace, abs=1e-5) for pace in (0.8, 0.9, 1, 1)]


def test_the_pace_falls_to_a_tenth_at_most():
    account = Account(limits(requests(10, 1)))
    for _ in range(20):
        account.apply(block, seconds=1)
        account.now += 10
    account.now -= 9
    assert account.waits(2)[1] == pytest.approx(1.015, abs=1e-5)


def test_what_is_heard_only_lowers_the_rate():
    account = Account(limits(requests(10, 1)))
    account.apply(heard, remaining=1_000_000, seconds_left=60)
    assert account.waits(2) == [0, 0.1015]
    account.now += 10
    account.apply(heard, remaining=10, seconds_left=5)
    account.apply(heard, remaining=1_000, seconds_left=5)
    assert account.waits(3) == [0, 0.5, 1.0]
    account.now += 5  # its reset has passed
    assert account.waits(2) == [0, 0.1015]
    account.apply(heard, remaining=0, seconds_left=7)
    assert account.waits(1) == [7]


def test_a_block_without_a_number_or_an_absurd_one():
    account = Account(limits())
    account.apply(block, seconds=float("nan"))
    assert account.waits(1) == [0]
    account.apply(block, seconds=float("inf"))
    assert account.waits(1) == [DAY]


def test_who_was_overtaken_by_a_block_or_comes_late_in_a_crowd_may_not_go():
    account = Account(limits(requests(100, 1)))
    mine = account.reserve()
    may = partial(may_go, limits=account.allowed)
    assert may(account.state, mine.moment + 5, mine)  # nobody comes after
    account.reserve()
    assert may(account.state, mine.moment + 0.014, mine)
    assert not may(account.state, mine.moment + 0.03, mine)
    assert may(account.state, mine.moment + 0.03, mine, travelled=0.02)
    account.apply(block, seconds=1)
    assert not may(account.state, mine.moment, mine)
    assert may(account.state, account.now + 1, account.reserve())


def test_leases_are_given_in_the_order_of_asking_and_end_by_themselves():
    account = Account(limits(concurrency=1))
    first, second, third = (Lease(name, 100) for name in "abc")
    assert account.reserve(lease=first).taken
    for waiting in (second, third):
        refused = account.reserve(lease=waiting)
        assert not refused.taken
        assert 0 < refused.wait <= 0.05
        assert refused.cause == "its 1 simultaneous requests are all under way"
    account.apply(release, holder="a")
    assert not account.reserve(lease=third).taken
    assert account.reserve(lease=second).taken
    account.now += 99
    assert not account.reserve(lease=third).taken
    account.now += 1.1
    assert account.reserve(lease=third).taken


def test_who_waits_and_dies_loses_its_place():
    account = Account(limits(concurrency=1))
    for name in "abc":
        account.reserve(lease=Lease(name, 100))
    account.apply(release, holder="a")
    account.now += 0.4
    assert not account.reserve(lease=Lease("c", 100)).taken
    account.now += 0.2
    assert account.reserve(lease=Lease("c", 100)).taken


@pytest.fixture
def store(tmp_path: Path) -> SqliteLimits:
    return SqliteLimits(tmp_path / "limits.sqlite")


def within(
    store: LimitStore,
    allowed: Limits,
    work: Callable[[Limiter], Awaitable[Any]],
    max_wait: float = 60,
) -> Any:
    """What `work` returns, done with a limiter that is closed afterwards."""

    async def run() -> Any:
        limiter = Limiter(store, "acme", {"": allowed}, max_wait)
        try:
            return await work(limiter)
        finally:
            await limiter.close()

    return asyncio.run(run())


async def moments(limiter: Limiter, times: int) -> list[float]:
    seen = []
    for _ in range(times):
        async with limiter.admit():
            seen.append(time.monotonic())
    return seen


def test_tasks_of_a_worker_wait_in_line(store):
    async def work(limiter):
        return await asyncio.gather(*(moments(limiter, 10) for _ in range(5)))

    shares = within(store, limits(requests(100, 1)), work)
    gaps = [other - one for one, other in pairwise(sorted(sum(shares, [])))]
    assert 0.49 <= sum(gaps) < 0.7
    ends = [share[-1] for share in shares]
    assert max(ends) - min(ends) < 0.15  # evenly: all come to their end together


def test_a_long_wait_is_raised_with_its_seconds_and_its_cause(store):
    async def work(limiter):
        await moments(limiter, 3)

    with pytest.raises(
        RateLimitedError, match=r"account acme is busy until 20.* UTC, in 8\d+ s: its 2 "
    ) as told:
        within(store, limits(requests(2, DAY)), work, max_wait=0.2)
    assert DAY <= told.value.retry_after <= 1.01 * DAY


def test_a_block_stops_who_sleeps_for_a_moment_already_taken(store):
    async def work(limiter):
        await moments(limiter, 1)
        waiting = asyncio.create_task(moments(limiter, 1))
        await asyncio.sleep(0.05)
        before = time.monotonic()
        await limiter.blocked("", 0.6)
        return (await waiting)[0] - before

    assert 0.6 <= within(store, limits(requests(10, 1)), work) < 1


@pytest.mark.parametrize("allowed", [limits(), limits(requests(1000, 1)), limits(concurrency=5)])
def test_workers_hear_of_each_others_blocks(tmp_path, allowed):
    async def work(limiter):
        other = Limiter(SqliteLimits(tmp_path / "limits.sqlite"), "acme", {"": allowed}, 60)
        await moments(other, 1)
        await limiter.blocked("", 0.8)
        before = time.monotonic()
        await asyncio.sleep(0.2)  # as old as what is known of an account without limits may be
        (own,), (others,) = await moments(limiter, 1), await moments(other, 1)
        await other.close()
        return own - before, others - before

    own, others = within(SqliteLimits(tmp_path / "limits.sqlite"), allowed, work)
    assert 0.79 <= own < 1.5
    assert 0.79 <= others < 1.5


class Counting(SqliteLimits):
    calls = 0

    def transact(self, account, change):
        self.calls += 1
        return super().transact(account, change)

    def read(self, account):
        self.calls += 1
        return super().read(account)


def test_an_account_without_limits_seldom_asks_its_store(tmp_path):
    store = Counting(tmp_path / "limits.sqlite")
    within(store, limits(), lambda limiter: moments(limiter, 2_000))
    assert store.calls <= 10


def test_what_is_heard_reaches_everybody_and_is_passed_on_only_where_it_matters(tmp_path):
    store = Counting(tmp_path / "limits.sqlite")

    async def work(limiter):
        for _ in range(50):
            await limiter.heard("", 10_000, 60)  # allows more than the limit
        calls = store.calls
        for _ in range(50):
            await limiter.heard("", 20, 4)
        seen = await moments(limiter, 3)
        return calls, store.calls, [round(other - one, 1) for one, other in pairwise(seen)]

    unheard, calls, gaps = within(store, limits(requests(100, 1)), work)
    assert unheard == 0
    assert calls <= 1 + 2 * 3
    assert gaps == [0.2, 0.2]


def test_no_more_than_so_many_requests_at_the_same_time(store):
    async def work(limiter):
        now = most = 0

        async def one():
            nonlocal now, most
            async with limiter.admit():
                now += 1
                most = max(most, now)
                await asyncio.sleep(0.02)
                now -= 1

        begun = time.monotonic()
        await asyncio.gather(*(one() for _ in range(30)))
        return most, time.monotonic() - begun

    most, seconds = within(store, limits(concurrency=3), work)
    assert most == 3
    assert 0.2 <= seconds < 1.5


def test_a_lease_comes_back_from_a_request_that_fails_or_is_called_off(store):
    async def work(limiter):
        async def hang():
            async with limiter.admit():
                await asyncio.sleep(60)

        with pytest.raises(ZeroDivisionError):
            async with limiter.admit():
                raise ZeroDivisionError
        for _ in range(3):
            hanging, waiting = asyncio.create_task(hang()), asyncio.create_task(hang())
            await asyncio.sleep(0.05)
            for task in (hanging, waiting):
                task.cancel()
            await asyncio.gather(hanging, waiting, return_exceptions=True)
        begun = time.monotonic()
        await moments(limiter, 1)
        return time.monotonic() - begun

    assert within(store, limits(concurrency=1), work) < 0.5


def test_a_lease_that_stays_away_is_raised(store):
    async def work(limiter):
        async with limiter.admit():
            await moments(limiter, 1)

    with pytest.raises(RateLimitedError, match="simultaneous requests are all under way"):
        within(store, limits(concurrency=1), work, max_wait=0.2)


# Processes that share an account.

_processes = multiprocessing.get_context("forkserver")
WORKERS = 4
PER_SECOND = 100
SECONDS = 20 if DEPTH >= 20 else 5


class Place(NamedTuple):
    """Where processes meet, in words that travel."""

    kind: str
    where: str
    table: str = ""

    def open(self) -> LimitStore:
        if self.kind == "sqlite":
            return SqliteLimits(self.where)
        if self.kind == "redis":
            return RedisLimits(lambda: redis.Redis("127.0.0.1", int(self.where)))
        return PostgresLimits(lambda: psycopg.connect(self.where), self.table)


@pytest.fixture(params=["sqlite", "postgres", "redis"] if DEPTH >= 20 else ["sqlite", "postgres"])
def place(request, tmp_path, make_warehouse) -> Iterator[Place]:
    if request.param == "sqlite":
        yield Place("sqlite", str(tmp_path / "shared.sqlite"))
    elif request.param == "postgres":
        table = make_warehouse("postgres").table("account_limits")
        yield Place("postgres", request.getfixturevalue("postgres_url"), table)
    else:
        with redis_server() as port:
            yield Place("redis", str(port))


def work_in_process(
    place: Place,
    seconds: float,
    told_at: float | None,
    ready: Semaphore,
    begin: Event,
    begun: Synchronized[float],
    taken: Queue[Any],
) -> None:
    """Take moments for so long from `begun` on, which is the same for all; at `told_at` be told to wait for a
    second."""

    async def work() -> tuple[list[float], float]:
        limiter = Limiter(place.open(), "shared", {"": limits(requests(PER_SECOND, 1))}, 60)
        async with limiter.admit("another"):  # connected and warm
            pass
        ready.release()
        begin.wait(60)
        seen, start, told = [], begun.value, 0.0
        while (now := time.monotonic()) < start + seconds:
            if told_at is not None and not told and now > start + told_at:
                await limiter.blocked("", 1.0)
                told = time.monotonic()
            async with limiter.admit():
                seen.append(time.monotonic())
        await limiter.close()
        return [moment for moment in seen if moment < start + seconds], told

    taken.put(asyncio.run(work()))


def share(place: Place, seconds: float, told_at: float | None = None) -> tuple[list[list[float]], float]:
    """The moments of each process, and when one of them had been told to wait."""
    _processes.set_forkserver_preload(["tests.core.activation.test_limiter"])
    ready, begin, taken = _processes.Semaphore(0), _processes.Event(), _processes.Queue()
    begun = _processes.Value("d", 0.0)
    workers = [
        _processes.Process(
            target=work_in_process,
            args=(place, seconds, None if number else told_at, ready, begin, begun, taken),
        )
        for number in range(WORKERS)
    ]
    for worker in workers:
        worker.start()
    for _ in workers:
        assert ready.acquire(timeout=60), "a process did not come up; see its error above"
    begun.value = time.monotonic()  # one clock for all processes of a host
    begin.set()
    shares = [taken.get(timeout=seconds + 60) for _ in workers]
    for worker in workers:
        worker.join(30)
        assert worker.exitcode == 0
    return [seen for seen, _ in shares], max(told for _, told in shares)


def busiest_second(seen: list[float]) -> int:
    return max(sum(1 for moment in seen if end - 1 < moment <= end) for end in seen)


@pytest.mark.alone
def test_processes_share_one_limit_evenly(place):
    shares, _ = share(place, SECONDS)
    seen = sorted(sum(shares, []))
    said = f"{len(seen)} granted, {busiest_second(seen)} in a second, {sorted(map(len, shares))} each"
    print(place.kind, said)
    # Each worker's first two leave room behind them, which weighs in a few seconds and not in twenty.
    opening = 2 * WORKERS if SECONDS < 20 else 0
    assert 0.98 * PER_SECOND * SECONDS - opening <= len(seen) <= PER_SECOND * SECONDS, said
    assert busiest_second(seen) <= 1.03 * PER_SECOND, said
    assert max(map(len, shares)) <= 1.1 * min(map(len, shares)), said


@pytest.mark.alone
def test_no_process_sends_before_what_one_was_told_has_passed(place):
    shares, told = share(place, 3, told_at=1)
    seen = sorted(sum(shares, []))
    # Who looked just before it was written may be sending just now.
    assert not [moment for moment in seen if told + 0.05 < moment < told + 1 - 0.05]
    assert len([moment for moment in seen if moment < told]) > 0.9 * PER_SECOND
    after = [moment for moment in seen if moment >= told + 1 - 0.05]
    assert 0.5 * PER_SECOND < len(after) < 0.8 * PER_SECOND
    assert min(map(len, shares)) >= 0.7 * max(map(len, shares))
