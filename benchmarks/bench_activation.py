# SPDX-License-Identifier: Apache-2.0
"""Activation: how much of an allowed rate is used, how fast records leave, what finding the difference costs.

``make bench-activation``; ``CDP_BENCH_ROWS`` instead of a million profiles. The vendor is a process of its
own (``vendor.py``); syncs are :func:`cdp_provider.core.activation.sync.sync`, whole, each in a process that
did nothing before, so that its peak memory is its own.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
import threading
import time
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.postgres import postgres
from benchmarks.table import Measured
from benchmarks.vendor import vendor
from cdp_provider.core import tables
from cdp_provider.core.activation import diff, ledger
from cdp_provider.core.activation.delivery import StoppedError, deliver
from cdp_provider.core.activation.destinations.base import Record
from cdp_provider.core.activation.destinations.http import HttpDestination
from cdp_provider.core.activation.limiter import Limiter
from cdp_provider.core.activation.limits import LimitStore, PostgresLimits, SqliteLimits
from cdp_provider.core.activation.shape import Shape
from cdp_provider.core.activation.sync import sync
from cdp_provider.core.http import Endpoint
from cdp_provider.core.project.activation import Consent, Destination, Sync
from cdp_provider.core.project.profiles import Profiles
from cdp_provider.core.run import Run, Window
from cdp_provider.core.warehouse import DuckDBWarehouse, PostgresWarehouse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cdp_provider.core.warehouse import Warehouse

ROWS = int(os.environ.get("CDP_BENCH_ROWS", "1_000_000"))
NAMES = {"duckdb": "DuckDB", "postgres": "PostgreSQL"}
#: The shared limit: requests per second, seconds that an answer takes, workers, seconds of measuring.
RATE, LATENCY, WORKERS, SPAN = 100, 0.2, 4, 60
#: Seconds before; four processes that start at once have no time to keep time.
WARM = 20
BATCH = 100
ROUNDS = 3
MB = 1_000_000

_MAXRSS = 1 if sys.platform == "darwin" else 1024
_processes = multiprocessing.get_context("spawn")

SYNC = Sync(
    name="news",
    segment="all",
    destination="mail",
    key="email",
    fields={name: {"from": name} for name in ("first_name", "last_name", "country", "orders", "city")},
    mode="mirror",
    parameters={"list": "news"},
)
COLUMNS = {
    "email": "string",
    "first_name": "string",
    "last_name": "string",
    "country": "string",
    "orders": "integer",
    "city": "string",
}
PROFILES = Profiles.model_validate({"fields": {name: {"from": [f"crm.c.{name}"]} for name in COLUMNS}})


def destination(rate: int | None = None) -> Destination:
    """The vendor of ``vendor.py``."""
    return Destination(
        name="mail",
        type="http",
        connection="mail",
        rate=[{"requests": rate, "per": "1 second"}] if rate else None,
        batch=BATCH,
        options=HttpDestination.options.model_validate(
            {
                "upsert": {"path": "/lists/{list}/members", "body": "members"},
                "remove": {"path": "/lists/{list}/members/remove", "body": "members"},
                "key": "email",
                "fields": "fields",
                "answer": {
                    "results": "results",
                    "key": "email",
                    "status": "status",
                    "accepted": ["updated"],
                    "reason": "reason",
                },
            }
        ),
    )


@dataclass(frozen=True)
class Place:
    """Where a warehouse is."""

    engine: str
    address: str

    def warehouse(self) -> Warehouse:
        """A new one, in whatever process."""
        import duckdb
        import psycopg

        if self.engine == "duckdb":
            return DuckDBWarehouse(lambda: duckdb.connect(self.address))
        return PostgresWarehouse(lambda: psycopg.connect(self.address))


def run() -> list[Measured]:
    """See the module."""
    with tempfile.TemporaryDirectory(prefix="cdp-bench-") as folder, postgres() as url:
        places = [Place("duckdb", str(Path(folder) / "activation.duckdb")), Place("postgres", url)]
        lines = [line for place in places for line in syncs(place)]
        lines += shares(places[1], folder)
    return lines


def syncs(place: Place) -> Iterator[Measured]:
    """The first sync, one without a change, one with 1 % changed; and what it takes at least."""
    name = NAMES[place.engine]
    apart(prepare, place)
    with vendor() as url:
        first, peak = apart(synced, place, url, 0)
        bare, _ = apart(posted, place, url, "aiohttp")
        httpx, _ = apart(posted, place, url, "httpx")
    yield Measured(
        f"{name}, {ROWS:,} records sent, share of a bare aiohttp loop's pace",
        first["seconds"],
        None,
        bare,
        bare / first["seconds"],
        0.6,
        f"{ROWS / first['seconds']:,.0f} records/s against {ROWS / bare:,.0f}; goal: floor / ours, at least",
        at_least=True,
    )
    yield Measured(
        f"{name}, {ROWS:,} records sent, share of a bare httpx loop's pace",
        first["seconds"],
        None,
        httpx,
        httpx / first["seconds"],
        0.6,
        f"against {ROWS / httpx:,.0f} records/s; goal: floor / ours, at least",
        at_least=True,
    )
    yield Measured(f"{name}, {ROWS:,} records sent, worker's peak, MB", peak / MB, None, None, None, 400)
    floor, _ = apart(scanned, place)
    none, _ = apart(unchanged, place)
    yield Measured(
        f"{name}, {ROWS:,} members, nothing changed",
        none["seconds"],
        None,
        floor,
        none["seconds"] / floor,
        1.3,
        f"{none['requests']} requests; goal: ours / one scan of the joined tables",
    )
    some, _ = apart(changed, place)
    yield Measured(
        f"{name}, {ROWS:,} members, the difference when 1 % changed",
        some,
        None,
        floor,
        some / floor,
        2.0,
        "goal: ours / one scan of the joined tables",
    )


def shares(place: Place, folder: str) -> Iterator[Measured]:
    """What of an allowed rate four workers use, by the vendor's own count."""
    for name, limits in (("PostgreSQL", place.address), ("a SQLite file", str(Path(folder) / "limits"))):
        with vendor(rate=RATE, latency=LATENCY) as url:
            stopping = _processes.Event()
            workers = [
                _processes.Process(target=busy, args=(url, limits, number, stopping))
                for number in range(WORKERS)
            ]
            for worker in workers:
                worker.start()
            while counts(url)["requests"] < WARM * RATE:
                time.sleep(0.1)
            before, started = counts(url), time.monotonic()
            time.sleep(SPAN)
            after, seconds = counts(url), time.monotonic() - started
            stopping.set()
            for worker in workers:
                worker.join()
        used = (after["requests"] - before["requests"]) / (RATE * seconds)
        throttled = after["throttled"] - before["throttled"]
        what = f"share of {RATE} requests/s that {WORKERS} workers use, limits in {name}"
        note = f"{throttled} answers 429 in {seconds:.0f} s; latency {LATENCY * 1000:.0f} ms; goal: at least"
        yield Measured(what, used, None, None, used, 0.98, note, at_least=True)


def busy(url: str, limits: str, number: int, stopping: Any) -> None:
    """A worker that always has something to send."""
    stop = threading.Event()

    def watch() -> None:
        stopping.wait()
        stop.set()

    threading.Thread(target=watch, daemon=True).start()
    kind = HttpDestination(destination(RATE), SYNC)
    now = datetime.now(UTC)

    def chunks() -> Iterator[list[Record]]:
        for start in count(0, 5 * BATCH):
            # Few names: a dictionary that grows pauses, and the vendor would see requests come at once.
            names = [f"{number}-{place}" for place in range(5 * BATCH)]
            yield [
                Record(name, name, None, {}, "upsert", "-", 0, now, place)
                for place, name in enumerate(names, start)
            ]

    store: LimitStore = SqliteLimits(limits)
    if "://" in limits:
        import psycopg

        store = PostgresLimits(lambda: psycopg.connect(limits), '"cdp"."account_limits"')
    limiter = Limiter.of(kind, store, 60.0)
    try:
        deliver(kind, Endpoint(url), chunks(), write=lambda _: None, limiter=limiter, stop=stop)
    except StoppedError:
        return


def counts(url: str) -> dict[str, int]:
    """What the vendor counted."""
    with urllib.request.urlopen(f"{url}/counts") as answer:  # noqa: S310 - our own vendor
        found: dict[str, int] = json.load(answer)
    return found


def prepare(place: Place) -> None:
    """Profiles, all of them members of one segment."""
    warehouse = place.warehouse()
    spec = ", ".join(f"{name} {warehouse.types[kind]}" for name, kind in COLUMNS.items())
    profiles, memberships = warehouse.table("profiles"), warehouse.table("memberships")
    numbers = "generate_series(1, :rows) as g(i)"
    with warehouse.session() as session:
        tables.ensure(session)
        session.execute(f"create table {profiles} (profile_id {warehouse.types['integer']} not null, {spec})")
        session.execute(
            f"insert into {profiles} select i, 'person' || i || '@example.com', 'First ' || (i % 5003),"
            " 'Last ' || (i % 70001), case i % 4 when 0 then 'DE' when 1 then 'FR' when 2 then 'IT' end,"
            f" i % 17, 'City ' || (i % 997) from {numbers}",
            {"rows": ROWS},
        )
        session.execute(
            f"insert into {memberships} (segment, profile_id, entered_at, entered_run)"
            f" select 'all', i, :now, 'bench' from {numbers}",
            {"rows": ROWS, "now": datetime(2026, 7, 1, tzinfo=UTC)},
        )
        for table in (profiles, memberships):
            session.analyze(table)


def synced(place: Place, url: str, day: int) -> dict[str, float]:
    """One whole sync."""
    started = time.perf_counter()
    report = sync(place.warehouse(), SYNC, destination(), Endpoint(url), window(day), profiles=PROFILES)
    seconds = time.perf_counter() - started
    if report.rows_refused:
        msg = f"{report.rows_refused} records were refused"
        raise RuntimeError(msg)
    return {"seconds": seconds, "requests": report.detail["requests"]}


def window(day: int) -> Run:
    """The run of a day."""
    end = datetime(2026, 7, 2, tzinfo=UTC) + timedelta(days=day)
    return Run("bench", f"run_{day}", Window(end - timedelta(days=1), end))


def posted(place: Place, url: str, library: str) -> float:
    """Seconds that a bare asyncio loop takes for the same bodies, which are ready before."""
    kind = HttpDestination(destination(), SYNC)
    warehouse = place.warehouse()
    with warehouse.session() as session:
        rows = session.arrow(
            f"select email, first_name, last_name, country, orders, city from {warehouse.table('profiles')}"
        ).to_pylist()
    from cdp_provider.core.activation.encoding import encode

    now = datetime.now(UTC)
    items = [
        encode(kind.item("upsert", Record(row.pop("email"), str(n), n, row, "upsert", "", 0, now)))
        for n, row in enumerate(rows)
    ]
    bodies = [b'{"members":[' + b",".join(items[n : n + BATCH]) + b"]}" for n in range(0, len(items), BATCH)]
    loop = _aiohttp if library == "aiohttp" else _httpx
    started = time.perf_counter()
    asyncio.run(loop(f"{url}/lists/news/members", bodies))
    return time.perf_counter() - started


_JSON = {"Content-Type": "application/json"}


async def _aiohttp(url: str, bodies: list[bytes]) -> None:
    import aiohttp

    slots = asyncio.Semaphore(32)
    async with aiohttp.ClientSession() as client:

        async def post(body: bytes) -> None:
            async with slots, client.post(url, data=body, headers=_JSON) as answer:
                await answer.read()

        await asyncio.gather(*map(post, bodies))


async def _httpx(url: str, bodies: list[bytes]) -> None:
    import httpx

    slots = asyncio.Semaphore(32)
    async with httpx.AsyncClient(timeout=60) as client:

        async def post(body: bytes) -> None:
            async with slots:
                await client.post(url, content=body, headers=_JSON)

        await asyncio.gather(*map(post, bodies))


def scanned(place: Place) -> float:
    """Seconds of one scan of profiles and memberships joined with the ledger, reading every mapped column; in
    a session of its own, as a sync has."""
    warehouse = place.warehouse()
    mapped = " || ".join(f"coalesce(cast(p.{name} as varchar), '')" for name in SYNC.sources)
    sql = (
        f"select count(*), count(case when l.payload_hash is distinct from ({mapped}) then 1 end)"
        f" from (select p.* from {warehouse.table('profiles')} p join {warehouse.table('memberships')} m"
        " on m.profile_id = p.profile_id and m.segment = :segment and m.left_at is null) p"
        f" full join (select * from {warehouse.table('sync_ledger')} where sync = :sync) l"
        " on l.record_key = p.email"
    )

    def scan() -> None:
        with warehouse.session() as session:
            session.fetch(sql, {"segment": "all", "sync": SYNC.name})

    return median(scan)


def unchanged(place: Place) -> dict[str, float]:
    """A whole sync that finds nothing to send; the median of some days."""
    rounds = [synced(place, "http://127.0.0.1:9", day) for day in range(1, ROUNDS + 1)]
    return {
        "seconds": statistics.median(each["seconds"] for each in rounds),
        "requests": sum(each["requests"] for each in rounds),
    }


def changed(place: Place) -> float:
    """Seconds until it is known what has to travel, and noted, when one in a hundred changed."""
    warehouse = place.warehouse()
    kind = HttpDestination(destination(), SYNC)
    with warehouse.session() as session:
        session.execute(
            f"update {warehouse.table('profiles')} set city = 'Elsewhere' where profile_id % 100 = 0"
        )

        def plan() -> None:
            with suppress(_Undo), session.transaction():
                ledger.fold(session, SYNC)
                shape = Shape.of(session, kind, Consent())
                found = diff.plan(session, shape, window(9), resync=None, claim="bench", approved=False)
                if found.total != ROWS // 100:
                    msg = f"{found.total} records differ, and {ROWS // 100} should"
                    raise RuntimeError(msg)
                raise _Undo

        return median(plan)


class _Undo(Exception):  # noqa: N818 - rolls back, so that the next round finds the same
    pass


def median(call: Callable[[], Any]) -> float:
    """Seconds, of some rounds after a first one."""
    taken = []
    for _ in range(ROUNDS + 1):
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken[1:])


def apart(function: Callable[..., Any], *values: Any) -> tuple[Any, int]:
    """A function's answer and the peak memory, in bytes, of the process that it had to itself."""
    told, telling = _processes.Pipe(duplex=False)
    process = _processes.Process(target=_apart, args=(telling, function, values))
    process.start()
    telling.close()
    try:
        answer: tuple[Any, int] = told.recv()
    except EOFError:
        process.join()
        msg = f"{function.__name__} failed; see above"
        raise RuntimeError(msg) from None
    process.join()
    return answer


def _apart(telling: Any, function: Callable[..., Any], values: tuple[Any, ...]) -> None:
    answer = function(*values)
    telling.send((answer, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS))
