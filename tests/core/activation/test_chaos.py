# SPDX-License-Identifier: Apache-2.0
"""A destination that makes all the trouble there is, and a task killed at random moments: in the end it holds
exactly what it should, and nothing was sent again after it had been acknowledged.

Every request that brings a record carries the same idempotency key until its answer is in the ledger. So a
record whose payload was applied under two keys was sent again after its acknowledgement.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

import duckdb
import psycopg
import pytest

from cdp_provider.core import tables
from cdp_provider.core.activation.delivery import Patience
from cdp_provider.core.activation.sync import sync
from cdp_provider.core.exceptions import CdpError
from cdp_provider.core.http import Endpoint
from cdp_provider.core.warehouse import DuckDBWarehouse, PostgresWarehouse
from cdp_provider.testing.destinations import FakeAnswer, FakeServer, FakeVendor
from tests.conftest import ENGINES
from tests.core.activation.scene import PROFILES, mail, newsletter, person, put_profiles, run

if TYPE_CHECKING:
    from pathlib import Path

    from cdp_provider.core.warehouse import Warehouse
    from cdp_provider.testing.destinations import FakeRequest

DEPTH = int(os.environ.get("CDP_TEST_DEPTH", "1"))
RECORDS, KILLS = (20_000, 50) if DEPTH > 1 else (4_000, 12)
#: Seconds that a task may live before it is killed.
LIFE = (0.02, 0.9)

_processes = multiprocessing.get_context("forkserver")


class Troubled(FakeVendor):
    """A list of an e-mail tool. What it does with a request follows from a seed and the request's number.

    :param bad: members that it refuses in an answer that is a 200.
    :param poison: members for whose sake it refuses all of a request.

    It keeps no answers for idempotency keys: whatever is sent twice is applied twice.
    """

    def __init__(self, seed: int, bad: set[str], poison: set[str]) -> None:
        super().__init__()
        self._random = random.Random(seed)
        self._bad = bad
        self._poison = poison
        self.members: dict[str, dict[str, Any]] = {}
        self.day = 0
        #: Day, member, payload -> the idempotency keys under which it was applied.
        self.keys: dict[tuple[int, str, str], set[str]] = defaultdict(set)
        #: How often the answer to it left the member out, so that it has to come again.
        self.unanswered: Counter[tuple[int, str, str]] = Counter()

    def answer(self, request: FakeRequest) -> FakeAnswer:
        chance = self._random.random()
        if chance < 0.06:
            return FakeAnswer(429, {"error": "slow down"}, {"Retry-After": "0.05"})
        if chance < 0.10:
            return FakeAnswer(503, {"error": "try later"})
        if chance < 0.13:
            return FakeAnswer(None)  # a reset, nothing applied
        members = request.json()["members"]
        if any(member["email"] in self._poison for member in members):
            return FakeAnswer(422, {"error": "a member is wrong"})
        applied = [self._apply(request, member) for member in members]
        results = [result for _, result in applied]
        if chance < 0.20:
            return FakeAnswer(None)  # applied, and then a reset
        if chance < 0.24:
            return FakeAnswer(200, b'{"results": [{"email"')
        if chance < 0.30:
            half = len(results) // 2
            results = results[:half]
            self.unanswered.update(what for what, _ in applied[half:])
        return FakeAnswer(200, {"results": results})

    def _apply(self, request: FakeRequest, member: dict[str, Any]) -> tuple[Any, dict[str, str]]:
        email = member["email"]
        payload = "-" if request.path.endswith("/remove") else repr(sorted(member["fields"].items()))
        what = (self.day, email, payload)
        if email in self._bad:
            return what, {"email": email, "status": "refused", "reason": "no such person"}
        self.keys[what].add(request.headers["idempotency-key"])
        if payload == "-":
            self.members.pop(email, None)
            return what, {"email": email, "status": "removed"}
        self.members[email] = member["fields"]
        return what, {"email": email, "status": "updated"}

    def holds(self) -> dict[str, dict[str, Any]]:
        return self.members


def open_warehouse(engine: str, place: str) -> Warehouse:
    """The warehouse, in whatever process."""
    if engine == "duckdb":
        return DuckDBWarehouse(lambda: duckdb.connect(place), lock_timeout=60)
    return PostgresWarehouse(lambda: psycopg.connect(place), schema="chaos", lock_timeout=60)


def task(engine: str, place: str, url: str, day: int) -> None:
    """One try of the sync, in a process of its own; ends with 1 when the destination was too much."""
    try:
        sync(
            open_warehouse(engine, place),
            newsletter(),
            mail(batch=50),
            Endpoint(url, timeout=5),
            run(day),
            profiles=PROFILES,
            patience=Patience(tries=6, throttles=50, pause=0.005),
        )
    except CdpError:
        raise SystemExit(1) from None


def try_once(engine: str, place: str, url: str, day: int, life: float | None) -> int | None:
    """Exit code of one try, killed after `life` seconds."""
    process = _processes.Process(target=task, args=(engine, place, url, day))
    process.start()
    process.join(120 if life is None else life)
    if process.is_alive():
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
    process.join()
    return process.exitcode


@pytest.fixture(params=ENGINES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Engine, and where its warehouse is."""
    _processes.set_forkserver_preload(["tests.core.activation.test_chaos"])
    if request.param == "duckdb":
        yield request.param, str(tmp_path / "chaos.duckdb")
        return
    url = request.getfixturevalue("postgres_url")
    yield request.param, url
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("drop schema if exists chaos cascade")


def test_killed_and_troubled_it_ends_where_it_should(place: tuple[str, str]):
    engine, where = place
    warehouse = open_warehouse(engine, where)
    with warehouse.session() as session:
        tables.ensure(session)
    people = [person(number) for number in range(RECORDS)]
    bad = {person["email"] for person in people[:: RECORDS // 20]}
    poison = {person["email"] for person in people[7 :: RECORDS // 10]}
    chance = random.Random(7)
    killed = 0
    vendor = Troubled(11, bad, poison)
    with FakeServer(vendor) as server:
        for day in range(1_000):
            # Each day some people change, some leave and some come back.
            for one in chance.sample(people, RECORDS // 4):
                one["first_name"] = f"Name {day}.{chance.randrange(5)}"
                one["out"] = chance.random() < 0.2
            put_profiles(warehouse, people)
            vendor.day = day
            code = None
            for _ in range(200):
                if killed >= KILLS:
                    code = try_once(engine, where, server.url, day, None)
                else:
                    code = try_once(engine, where, server.url, day, chance.uniform(*LIFE))
                killed += code == -signal.SIGKILL
                if code == 0:
                    break
            assert code == 0, "the sync never came to its end"
            if killed >= KILLS and day:
                break
        # Records that every answer left out, three times over, are the next try's.
        while states(warehouse)["retryable"]:
            assert try_once(engine, where, server.url, day, None) in (0, 1)
        wanted = {
            one["email"]: {"FIRSTNAME": one["first_name"], "COUNTRY": one["country"]}
            for one in people
            if not one.get("out") and one["email"] not in bad | poison
        }
        assert vendor.holds() == wanted
    doubled = [what for what, keys in vendor.keys.items() if len(keys) > 1 + vendor.unanswered[what]]
    assert doubled == []
    with warehouse.session() as session:
        ledger = session.fetch(
            f"select record_key, state from {warehouse.table('sync_ledger')} where payload_hash is not null"
        )
    assert {key for key, _ in ledger} == set(wanted)
    assert {state for _, state in ledger} == {"accepted"}
    assert killed >= KILLS


class Slow(Troubled):
    """Without troubles, and slow for whoever comes first."""

    def answer(self, request: FakeRequest) -> FakeAnswer:
        applied = [self._apply(request, member) for member in request.json()["members"]]
        if self.applied.total() < 3:
            time.sleep(0.5)
        self.applied.update(["request"])
        return FakeAnswer(200, {"results": [result for _, result in applied]})


def test_a_task_that_was_taken_over_stops(place: tuple[str, str]):
    """Two tasks of one sync at the same time, as after a worker that was taken for dead: the later has it."""
    engine, where = place
    warehouse = open_warehouse(engine, where)
    with warehouse.session() as session:
        tables.ensure(session)
    put_profiles(warehouse, [person(number) for number in range(3_000)])
    vendor = Slow(1, set(), set())
    with FakeServer(vendor) as server:
        first = _processes.Process(target=task, args=(engine, where, server.url, 0))
        first.start()
        while not server.requests:
            time.sleep(0.01)
        assert try_once(engine, where, server.url, 0, None) == 0
        first.join()
    assert first.exitcode == 1, "it says that another has taken over"
    assert len(vendor.holds()) == 3_000
    assert {len(keys) for keys in vendor.keys.values()} == {1}
    assert states(warehouse) == {"accepted": 3_000}


def states(warehouse: Warehouse) -> Counter[str]:
    """How many records of the ledger are in which state."""
    with warehouse.session() as session:
        return Counter(
            dict(
                session.fetch(f"select state, count(*) from {warehouse.table('sync_ledger')} group by state")
            )
        )


def test_kills_happen(place: tuple[str, str]):
    engine, where = place
    started = time.monotonic()
    assert try_once(engine, where, "http://127.0.0.1:9", 0, 0.0) == -signal.SIGKILL
    assert time.monotonic() - started < 10
