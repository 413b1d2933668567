# SPDX-License-Identifier: Apache-2.0
"""Many windows of several streams, landed by a process that is killed at random moments and begun again.

Some batches break their contract, and some windows are landed once more after later ones. In the end the
warehouse holds what a process holds that nobody killed, and that is what the sources held: each record once.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import psycopg
import pytest

from cdp_provider.core import tables
from cdp_provider.core.exceptions import DataError
from cdp_provider.core.http import Endpoint
from cdp_provider.core.ingest.contracts import check
from cdp_provider.core.ingest.files import FileOptions, FilesConnector
from cdp_provider.core.ingest.http import HttpConnector, HttpOptions
from cdp_provider.core.ingest.landing import land
from cdp_provider.core.project.streams import Stream
from cdp_provider.core.run import Run, Window
from cdp_provider.core.warehouse import DuckDBWarehouse, PostgresWarehouse
from cdp_provider.testing.connectors import TOKEN, ApiSource, moment, newest, record
from tests.conftest import ENGINES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cdp_provider.core.ingest.base import Connector
    from cdp_provider.core.warehouse import Warehouse

DEPTH = int(os.environ.get("CDP_TEST_DEPTH", "1"))
KILLS = 3 if DEPTH == 1 else 50
DAYS = 4 if DEPTH == 1 else 20
#: On these days most of what a source brings is broken; the next day's batch carries the rest of it.
BROKEN_DAYS = (
    {"till.orders": {2}, "crm.people": {2, 3}}
    if DEPTH == 1
    else {
        "till.orders": {2, 7, 8, 15},
        "crm.people": {3, 4, 5, 11, 17},
    }
)
#: Landed once more after the day: an earlier day whose batch stands.
AGAIN = {3: 1, DAYS: 1}
#: Seconds until a process counts as stuck.
STUCK = 120

_processes = multiprocessing.get_context("forkserver")

COLUMNS = {"id": "string", "name": "string", "amount": "decimal", "updated_at": "timestamp"}
PEOPLE = {
    "path": "/people",
    "records": "data",
    "paging": {"type": "cursor", "next": "next", "parameter": "after"},
    "page_size": {"parameter": "limit", "value": 7},
    "cursor": {"column": "updated_at", "parameter": "since", "overlap": "2 hours"},
}


def stream(ref: str) -> Stream:
    source, name = ref.split(".")
    options = FileOptions(path="*.csv", format="csv") if source == "till" else HttpOptions(**PEOPLE)
    return Stream(
        source=source,
        name=name,
        primary_key=("id",),
        time="updated_at",
        columns=COLUMNS,
        quarantine={"max_share": 0.4},
        options=options,
    )


@dataclass(frozen=True)
class Place:
    """Where everything is; plain values, so that a child process can be told of it.

    :param ready: a folder per day; its files come into `folder` when the day begins.
    """

    engine: str
    url: str
    schema: str
    api: str
    ready: str
    folder: str

    @property
    def warehouse(self) -> Warehouse:
        if self.engine == "duckdb":
            return DuckDBWarehouse(lambda: duckdb.connect(self.url), schema=self.schema, lock_timeout=60)
        return PostgresWarehouse(lambda: psycopg.connect(self.url), schema=self.schema, lock_timeout=60)

    def connector(self, ref: str) -> Connector:
        if ref.startswith("till."):
            return FilesConnector(self.folder)
        return HttpConnector(Endpoint(self.api, headers={"Authorization": f"Bearer {TOKEN}"}))

    def arrive(self, day: int) -> None:
        """The day's files come; those that are there already stay."""
        for file in sorted(Path(self.ready, str(day)).glob("*.csv")):
            file.replace(Path(self.folder, file.name))


def steps() -> list[tuple[str, int]]:
    """What one process after the other has to do, in this order: stream and day."""
    found = []
    for day in range(1, DAYS + 1):
        found += [(ref, day) for ref in BROKEN_DAYS]
        found += [(ref, AGAIN[day]) for ref in BROKEN_DAYS if day in AGAIN]
    return found


def work(place: Place, done: Any, calls: Any, fatal: int | None) -> None:
    """Take up the steps where they were left, and die before call number `fatal`."""
    _count_and_kill(calls, fatal)
    for ref, day in steps()[done.value :]:
        run = Run("chaos", f"run_{day}", Window(moment(day), moment(day + 1)))
        place.arrive(day)
        land(place.warehouse, stream(ref), place.connector(ref), run)
        try:
            check(place.warehouse, stream(ref), run)
        except DataError:
            assert day in BROKEN_DAYS[ref]
        done.value += 1


def _count_and_kill(calls: Any, fatal: int | None) -> None:
    import httpx

    from cdp_provider.core.warehouse import duckdb as of_duckdb
    from cdp_provider.core.warehouse import postgres as of_postgres

    def wrap(owner: type, name: str) -> None:
        original = getattr(owner, name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            calls.value += 1
            if calls.value == fatal:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*args, **kwargs)

        setattr(owner, name, counted)

    for session in (of_duckdb.DuckDBSession, of_postgres.PostgresSession):
        for method in ("execute", "fetch", "arrow", "load"):
            wrap(session, method)
    wrap(httpx.Client, "send")


def attempt(
    place: Place, done: Any, *, fatal: int | None = None, life: float | None = None
) -> tuple[int, int]:
    """Exit code of one process and how many calls it came to; killed before a call, or after seconds."""
    calls = _processes.Value("i", 0)
    process = _processes.Process(target=work, args=(place, done, calls, fatal))
    process.start()
    process.join(STUCK if life is None else life)
    if process.is_alive():
        assert life is not None, "the process is stuck"
        os.kill(process.pid, signal.SIGKILL)
    process.join()
    return process.exitcode, calls.value


def made(chance: random.Random) -> dict[str, dict[int, list[dict[str, Any]]]]:
    """What each source brings on each day: new records, changed ones, late ones, broken ones."""
    found: dict[str, dict[int, list[dict[str, Any]]]] = {}
    for ref, broken in BROKEN_DAYS.items():
        number, found[ref] = 0, {}
        for day in range(1, DAYS + 1):
            records = []
            for _ in range(8 if day in broken else 30):
                # Late by up to an hour, so also just before midnight of the day before.
                at = day + chance.uniform(0.0, 0.95)
                known = number and chance.random() < 0.3
                which = chance.randrange(number) if known else number
                number += not known
                records.append(record(which, at, name=f"of day {day} at {at:.6f}"))
            bad = 7 if day in broken else 2
            records += [
                record(10_000 * day + n, day + 0.5 + n / 100, amount=f"{n} coins") for n in range(bad)
            ]
            found[ref][day] = sorted(records, key=lambda one: one["updated_at"])
    return found


def write_files(folder: Path, days: dict[int, list[dict[str, Any]]]) -> None:
    for day, records in days.items():
        (folder / str(day)).mkdir(parents=True)
        for part in range(3):
            lines = [",".join(COLUMNS), *(",".join(map(str, one.values())) for one in records[part::3])]
            (folder / str(day) / f"{day:03}_{part}.csv").write_text("\n".join(lines) + "\n")


def tables_of(place: Place) -> dict[str, list[tuple[Any, ...]]]:
    """Everything that landing and checks have written, without what differs between two tries."""
    found, warehouse = {}, place.warehouse
    with warehouse.session() as session:
        for ref in BROKEN_DAYS:
            for table in (stream(ref).raw_table, stream(ref).view, "quarantine", "files", "loads", "runs"):
                names = [n for n in session.columns(table) if n not in ("seconds", "modified")]
                columns = ", ".join(map(warehouse.quote, names))
                rows = session.fetch(f"select {columns} from {warehouse.table(table)}")
                found[table] = sorted(rows, key=repr)
    return found


def standing(place: Place, ref: str) -> tuple[Counter[Any], int]:
    """The good rows of batches that passed, each with how often it is there; and how many bad ones."""
    warehouse, of = place.warehouse, stream(ref)
    loads = warehouse.table("loads")
    with warehouse.session() as session:
        rows = session.fetch(
            f"select r.id, r.name, r.amount, r.updated_at from {warehouse.table(of.raw_table)} r"
            f" join {loads} l on l.load_id = r._load_id where l.state = 'passed'"
        )
        bad = session.scalar(
            f"select count(*) from {warehouse.table('quarantine')} q join {loads} l"
            " on l.load_id = q.load_id where l.state = 'passed' and q.stream = :stream",
            {"stream": ref},
        )
    return Counter((i, name, amount, when.astimezone(UTC)) for i, name, amount, when in rows), bad


def shown(place: Place, ref: str) -> dict[str, tuple[Any, ...]]:
    warehouse = place.warehouse
    with warehouse.session() as session:
        rows = session.fetch(f"select id, name, amount, updated_at from {warehouse.table(stream(ref).view)}")
    return {row[0]: (row[1], row[2], row[3].astimezone(UTC)) for row in rows}


@pytest.fixture(params=ENGINES)
def places(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """Returns a function: name -> a place of that name, with nothing in it."""
    _processes.set_forkserver_preload(["tests.core.ingest.test_landing_chaos"])
    dropped = []

    def make(name: str, api: str) -> Place:
        ready, folder = tmp_path / name / "ready", tmp_path / name / "folder"
        ready.mkdir(parents=True)
        folder.mkdir()
        schema, url = f"chaos_{os.getpid()}_{name}", str(tmp_path / f"{name}.duckdb")
        if request.param == "postgres":
            url = request.getfixturevalue("postgres_url")
            dropped.append((url, schema))
        place = Place(request.param, url, schema, api, str(ready), str(folder))
        with place.warehouse.session() as session:
            tables.ensure(session)
        return place

    yield make
    for url, schema in dropped:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f'drop schema if exists "{schema}" cascade')


def test_killed_at_random_it_holds_what_the_sources_held(places):
    seed = random.randrange(10**6)
    print(f"seed {seed}")  # pytest shows it when the test fails
    chance = random.Random(seed)
    given = made(chance)
    outcomes, calls, seconds, killed = {}, 0, 0.0, Counter()
    with ApiSource(PEOPLE, HttpConnector) as source:
        source.put([one for day in given["crm.people"].values() for one in day], moment(1))
        for name in ("calm", "killed"):
            place = places(name, source.server.url)
            write_files(Path(place.ready), given["till.orders"])
            done = _processes.Value("i", 0)
            code, started = None, time.monotonic()
            while name == "killed" and code != 0 and killed.total() < KILLS:
                how = chance.choice(("call", "time"))
                if how == "call":
                    code, _ = attempt(place, done, fatal=chance.randint(1, 1 + int(1.2 * calls / KILLS)))
                else:
                    code, _ = attempt(place, done, life=chance.uniform(0.02, 0.05 + 1.2 * seconds / KILLS))
                assert code in (0, -signal.SIGKILL), f"failed with {code} at step {done.value}"
                killed[how] += code != 0
            if code != 0:
                code, calls = attempt(place, done)
                seconds = time.monotonic() - started
            assert code == 0
            assert done.value == len(steps())
            outcomes[name] = place, tables_of(place)
    for table, rows in outcomes["calm"][1].items():
        assert outcomes["killed"][1][table] == rows, table
    place = outcomes["killed"][0]
    for ref, days in given.items():
        records = [one for day in sorted(days) for one in days[day]]
        good = [one for one in records if isinstance(one["amount"], float)]
        rows, bad = standing(place, ref)
        assert set(rows.values()) == {1}, "a record was landed twice"
        assert rows == Counter(_row(one) for one in good)
        assert bad == len(records) - len(good)
        assert shown(place, ref) == newest(good)
    with place.warehouse.session() as session:
        states = session.fetch(
            f"select stream, count(*) from {place.warehouse.table('loads')} where state = 'failed' group by 1"
        )
    assert dict(states) == {ref: len(broken) for ref, broken in BROKEN_DAYS.items()}
    assert killed.total() >= min(KILLS - 1, 3), "it came to its end before it could be killed often enough"


def _row(one: dict[str, Any]) -> tuple[str, str, Decimal, datetime]:
    return one["id"], one["name"], Decimal(str(one["amount"])), datetime.fromisoformat(one["updated_at"])
