# SPDX-License-Identifier: Apache-2.0
"""Ingestion beside dlt, Debezium and bare statements: landing, change capture, contracts, memory, start-up.

``make bench-ingest``; ``CDP_BENCH_INGEST`` instead of a million rows, ``CDP_BENCH_ROUNDS`` instead of three,
``CDP_BENCH_MEMORY=10`` to land ten times the rows once more for their peak memory (12 GB of disk).
``python -m benchmarks.bench_ingest CASE ...`` does single cases, ``--profile CASE`` shows where ours spends
its time.

Each contender does its work in a process that did nothing before (``ingest_program.py``); rounds alternate
between contenders, and the median counts. All must find the same sums.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from benchmarks import ingest_data as data
from benchmarks import ingest_peers as peers
from benchmarks.ingest_api import api
from benchmarks.ingest_contest import TYPES, Bench, Contender, median, peer, summed
from benchmarks.ingest_program import Answer, apart
from benchmarks.postgres import replicating
from benchmarks.table import Measured, publish

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROWS = int(os.environ.get("CDP_BENCH_INGEST", "1_000_000"))
ROUNDS = int(os.environ.get("CDP_BENCH_ROUNDS", "3"))
#: Times the rows, for peak memory; 0: the peak of the ordinary rounds is shown.
MORE = int(os.environ.get("CDP_BENCH_MEMORY", "0"))
MB = 1_000_000
NAMES = {"duckdb": "DuckDB", "postgres": "PostgreSQL"}
#: What Airflow's connections are called in ``ingest_operator.py``.
_WAREHOUSE, _SOURCE = "AIRFLOW_CONN_BENCH_WAREHOUSE", "AIRFLOW_CONN_BENCH_SOURCE"


def lands(
    bench: Bench,
    what: str,
    engine: str,
    case: str,
    *,
    against: Contender | str | None = None,
    least: str | None = None,
    goals: tuple[float | None, float | None] = (None, None),
    **task: Any,
) -> Iterator[Measured]:
    """Ours beside a peer and a floor.

    :param against: the peer, or why there is none.
    :param least: the floor's case.
    :param goals: of ours ÷ peer and of ours ÷ floor.
    """
    contenders = {"ours": Contender("ingest_ours", case)}
    if isinstance(against, Contender):
        contenders["peer"] = against
    if least is not None:
        contenders["floor"] = Contender("ingest_floors", least)
    found = bench.compare(engine, contenders, task)
    ours, other, floor = found["ours"], found.get("peer"), found.get("floor")
    name = f"{what} → {NAMES[engine]}, {bench.rows:,} rows"
    note = f"{bench.rows / ours.seconds:,.0f} rows/s, {ours.cpu:.1f} s of CPU"
    seconds = (ours.seconds, other.seconds if other else None, floor.seconds if floor else None)
    if other:
        beside = f"{note}; dlt {other.cpu:.1f} s, peak {other.peak / MB:,.0f} MB"
        yield Measured(f"{name}, ours ÷ dlt", *seconds, ours.seconds / other.seconds, goals[0], beside)
    elif against is not None:
        missing = f"dlt is missing: {against}; goal {goals[0]}"
        yield Measured(f"{name}, ours ÷ dlt", *seconds, None, None, missing)
    if floor:
        beside = f"{note}; floor {floor.cpu:.1f} s"
        yield Measured(f"{name}, ours ÷ floor", *seconds, ours.seconds / floor.seconds, goals[1], beside)
    yield Measured(f"{name}, peak MB", ours.peak / MB, None, None, None, 500)


def api_duckdb(bench: Bench) -> Iterator[Measured]:
    """Pages of JSON into a file."""
    with api(bench.files.ndjson) as url:
        yield from lands(
            bench,
            "JSON API",
            "duckdb",
            "api",
            against="profiled alone" if bench.profile else peer("api"),
            least="api_duckdb",
            goals=(0.10, 1.8),
            api=url,
        )


def api_postgres(bench: Bench) -> Iterator[Measured]:
    """Pages of JSON into a server."""
    with api(bench.files.ndjson) as url:
        yield from lands(
            bench,
            "JSON API",
            "postgres",
            "api",
            against="profiled alone" if bench.profile else peer("api"),
            goals=(0.12, None),
            api=url,
        )


def csv_duckdb(bench: Bench) -> Iterator[Measured]:
    """A CSV file, beside one typed ``read_csv``."""
    yield from lands(bench, "CSV", "duckdb", "csv", least="csv_duckdb", goals=(None, 1.5))


def csv_postgres(bench: Bench) -> Iterator[Measured]:
    """A CSV file, beside one COPY."""
    yield from lands(bench, "CSV", "postgres", "csv", least="csv_postgres", goals=(None, 1.4))


def table_duckdb(bench: Bench) -> Iterator[Measured]:
    """A table of PostgreSQL, beside COPY into a file and ``read_csv``."""
    with bench.connect() as connection:
        data.fill_table(connection, bench.files, TYPES["postgres"])
        yield from lands(
            bench, "PostgreSQL table", "duckdb", "table", least="table_duckdb", goals=(None, 1.3)
        )
        connection.execute(f"drop table {data.TABLE}".encode())


def changes(bench: Bench) -> Iterator[Measured]:
    """Change capture, into a table whose newest rows are read, beside Debezium into a file."""
    wanted = bench.rows * 2 // 5
    what = f"change capture → DuckDB, {wanted:,} changes, changes/s ÷ Debezium's"
    rival = "profiled alone" if bench.profile else peer("changes", peers.java)
    rounds = 1 if bench.profile else bench.rounds
    with bench.connect() as connection, ExitStack() as stack:
        if connection.execute("show wal_level").fetchall() != [("logical",)]:
            yield Measured(what, 0, None, None, None, None, "the server's wal_level is not logical")
            return
        data.make_changing(connection)
        targets = [stack.enter_context(bench.target("duckdb")) for _ in range(rounds)]
        slots = [f"bench_ours_{number}" for number in range(rounds)]
        rivals = [f"bench_peer_{number}" for number in range(rounds) if isinstance(rival, Contender)]
        for target, slot in zip(targets, slots, strict=True):
            apart("ingest_ours", "changes_first", bench.task(**target, slot=slot) | {"profile": False})
        for slot in rivals:
            connection.execute(f"create publication {slot} for table {data.CHANGING}".encode())
            connection.execute("select pg_create_logical_replication_slot(%s, 'pgoutput')", [slot])
        done = data.change(connection, wanted)
        truth = connection.execute(data.CHANGED_SUMS.format(data.CHANGING).encode()).fetchall()[0]
        ours, theirs = [], []
        for number, (target, slot) in enumerate(zip(targets, slots, strict=True)):
            ours.append(apart("ingest_ours", "changes", bench.task(**target, slot=slot)))
            if isinstance(rival, Contender):
                theirs.append(debezium(bench, rival, rivals[number], done))
        forget(connection, [*slots, *rivals])
    if {tuple(answer.sums) for answer in ours} != {tuple(map(str, truth))}:
        msg = f"change capture: the view has {[answer.sums for answer in ours]}, the table {truth}"
        raise RuntimeError(msg)
    mine, other = done / median(ours).seconds, None
    note = f"Debezium is missing: {rival}; goal: 3 times its pace"
    if theirs:
        their = median(theirs)
        other = done / their.seconds
        note = (
            f"{median(ours).cpu:.1f} s of CPU; Debezium's go to a file, take {their.cpu:.1f} s and"
            f" {their.peak / MB:,.0f} MB, and {done / their.told['from_first']:,.0f}/s from the first on;"
            " goal: at least"
        )
    ratio, goal = (mine / other, 3.0) if other else (None, None)
    yield Measured(what, mine, other, None, ratio, goal, note, at_least=True)
    yield Measured("change capture, peak MB", median(ours).peak / MB, None, None, None, 500)


def debezium(bench: Bench, rival: Contender, slot: str, changes: int) -> Answer:
    """One round of Debezium."""
    parts = psycopg.conninfo.conninfo_to_dict(bench.postgres)
    place = {
        "host": parts.get("host", "localhost"),
        "port": parts.get("port", 5432),
        "user": parts.get("user", "postgres"),
        "password": parts.get("password", ""),
        "database": parts.get("dbname", "postgres"),
    }
    task = {**place, "slot": slot, "changes": changes}
    answer = apart(rival.program, rival.case, task, python=rival.python)
    if answer.sums != [str(changes)]:
        msg = f"Debezium wrote {answer.sums} of {changes} changes"
        raise RuntimeError(msg)
    return answer


def forget(connection: psycopg.Connection[Any], slots: list[str]) -> None:
    """Drop the slots and publications, and the table."""
    for slot in slots:
        connection.execute(
            "select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = %s", [slot]
        )
        connection.execute("select pg_drop_replication_slot(%s)", [slot])
        connection.execute(f"drop publication {slot}".encode())
    connection.execute(f"drop table {data.CHANGING}".encode())


def contract_duckdb(bench: Bench) -> Iterator[Measured]:
    """See :func:`_contract`."""
    yield _contract(bench, "duckdb")


def contract_postgres(bench: Bench) -> Iterator[Measured]:
    """See :func:`_contract`."""
    yield _contract(bench, "postgres")


def _contract(bench: Bench, engine: str) -> Measured:
    """A check of twenty rules, beside the same rules in one SELECT."""
    contenders = {"ours": Contender("ingest_ours", "contract")}
    if not bench.profile:
        contenders["floor"] = Contender("ingest_floors", "contract")
    answers: dict[str, list[Answer]] = {name: [] for name in contenders}
    with bench.target(engine) as target:
        task = bench.task(**target)
        apart("ingest_ours", "contract_landed", {**task, "profile": False})
        for _ in range(1 if bench.profile else bench.rounds):
            for name, contender in contenders.items():
                answers[name].append(apart(contender.program, contender.case, task))
    found = summed(answers)
    ours, floor = found["ours"], found.get("floor")
    what = f"contract of 20 rules, {NAMES[engine]}, {bench.rows:,} rows, ours ÷ one SELECT"
    if floor is None:
        return Measured(what, ours.seconds, None, None, None, None)
    note = f"{ours.cpu:.2f} s of CPU; floor {floor.cpu:.2f} s"
    return Measured(what, ours.seconds, None, floor.seconds, ours.seconds / floor.seconds, 1.2, note)


def empty(bench: Bench) -> Iterator[Measured]:
    """A task that finds nothing new."""
    with api(bench.files.ndjson) as url:
        for kind, source in (
            ("http", {"conn_type": "http", "host": url}),
            ("files", {"conn_type": "fs", "extra": {"path": str(bench.files.few.parent)}}),
        ):
            for engine in NAMES:
                yield _empty(bench, kind, source, engine)


def _empty(bench: Bench, kind: str, source: dict[str, Any], engine: str) -> Measured:
    with bench.target(engine) as target, tempfile.TemporaryDirectory(dir=bench.folder) as home:
        settings = {
            "AIRFLOW_HOME": home,
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            _SOURCE: json.dumps(source),
            _WAREHOUSE: json.dumps(_connection(engine, target["target"])),
        }
        first = apart("ingest_operator", kind, {"first": True}, **settings)
        if first.sums == ["0"]:
            msg = f"the first batch of {kind} is empty"
            raise RuntimeError(msg)
        found = []
        for _ in range(1 if bench.profile else bench.rounds):
            task = {"first": False, "profile": bench.profile}
            found.append(apart("ingest_operator", kind, task, **settings))
        if {tuple(answer.sums) for answer in found} != {("0",)}:
            msg = f"a later batch of {kind} is not empty"
            raise RuntimeError(msg)
    note = f"{median(found).cpu:.2f} s of CPU, imports of ours included"
    what = f"task of an empty increment, {kind} → {NAMES[engine]}, seconds beyond airflow.sdk"
    return Measured(what, median(found).seconds, None, None, None, 0.7, note)


def _connection(engine: str, target: str) -> dict[str, Any]:
    if engine == "duckdb":
        return {"conn_type": "duckdb", "host": target}
    parts = psycopg.conninfo.conninfo_to_dict(target)
    known = {"host": "host", "user": "login", "password": "password", "dbname": "schema", "port": "port"}
    fields: dict[str, Any] = {known[name]: value for name, value in parts.items() if name in known}
    if "port" in fields:
        fields["port"] = int(fields["port"])
    return {"conn_type": "postgres", **fields}


def memory(bench: Bench) -> Iterator[Measured]:
    """Peak memory with more rows, where that is asked for."""
    if not MORE:
        return
    rows = bench.rows * MORE
    with tempfile.TemporaryDirectory(prefix="more-", dir=bench.folder) as folder:
        files = data.write_files(Path(folder), rows)
        larger = Bench(bench.folder, files, bench.postgres, rows, 1)
        yield list(lands(larger, "CSV", "duckdb", "csv"))[-1]
        yield list(lands(larger, "CSV", "postgres", "csv"))[-1]
        with api(files.ndjson) as url:
            yield list(lands(larger, "JSON API", "duckdb", "api", api=url))[-1]


CASES: dict[str, Callable[[Bench], Iterator[Measured]]] = {
    case.__name__: case
    for case in (
        api_duckdb,
        api_postgres,
        csv_duckdb,
        csv_postgres,
        table_duckdb,
        changes,
        contract_duckdb,
        contract_postgres,
        empty,
        memory,
    )
}


def run(names: list[str] | None = None, *, profile: bool = False) -> list[Measured]:
    """See the module.

    :param names: of cases; all when left out.
    """
    with tempfile.TemporaryDirectory(prefix="cdp-bench-") as folder, replicating() as url:
        files = data.write_files(Path(folder), ROWS)
        bench = Bench(Path(folder), files, url, ROWS, ROUNDS, profile=profile)
        return [line for name in names or CASES for line in CASES[name](bench)]


def main(arguments: list[str]) -> int:
    """``[--profile] CASE ...``; 2 when a case is unknown."""
    profile = "--profile" in arguments
    names = [argument for argument in arguments if argument != "--profile"]
    if not names or (unknown := [name for name in names if name not in CASES]):
        told = f"no case {', '.join(unknown)}" if names else "name a case"
        print(f"{told}; there are {', '.join(CASES)}", file=sys.stderr)
        return 2
    publish("ingest-once", run(names, profile=profile))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
