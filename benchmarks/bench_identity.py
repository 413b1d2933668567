# SPDX-License-Identifier: Apache-2.0
"""Identity resolution: from edges between numbered identifiers to a table of labels, and as a whole.

``make bench-identity``; ``CDP_BENCH_ROWS`` instead of 10 million edges or rows, and a tenth of it besides.

Labels first. Ours is :func:`cdp_provider.core.identity.components.components` between
:meth:`Session.arrow` and :meth:`Session.load`. The peer is Splink's clustering of the same edges in the same
DuckDB file. The floor does what any program has to do, with nothing around it: edges out as Arrow, scipy,
labels in as Arrow; on PostgreSQL through ADBC. Contenders take turns, each in a process of its own, so that
its peak memory is its own. Each first runs on a few edges, so that no import counts; nor does the check that
its labels are right.

Then the whole (``identity_whole.py``): landed rows to finished tables, with limits, and one per cent more.
"""

from __future__ import annotations

import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.postgres import postgres
from benchmarks.table import Measured

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import pyarrow as pa

    from cdp_provider.core.warehouse import Warehouse

ROWS = int(os.environ.get("CDP_BENCH_ROWS", "10_000_000"))
#: Edges -> rounds.
SIZES = {ROWS // 10: 3, ROWS: 2}
MB = 1_000_000

_FEW = 1_000
#: What a process says of its largest size is in kilobytes, on macOS in bytes.
_MAXRSS = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True)
class Task:
    """Edges to label, and where they are.

    :param file: the DuckDB file; `url` the PostgreSQL server. Both hold the same.
    :param rows: about so many edges, in table ``cdp.edges_ROWS`` (na, nb).
    :param nodes: how many there are, each with an edge, numbered from 0 in ``cdp.nodes_ROWS`` (unique_id).
    :param components: how many the edges make.
    """

    file: str
    url: str
    rows: int
    nodes: int = 0
    components: int = 0

    @property
    def edges(self) -> str:
        """Their table."""
        return f"cdp.edges_{self.rows}"


@dataclass(frozen=True)
class Taken:
    """Seconds, and bytes of the process at its largest."""

    seconds: float
    peak: int


def run() -> list[Measured]:
    """Seconds, medians of :data:`SIZES` rounds."""
    with tempfile.TemporaryDirectory(prefix="cdp-bench-") as folder, postgres() as url:
        file = str(Path(folder) / "identity.duckdb")
        return [*labels(file, url), *whole(file, url)]


def whole(file: str, url: str) -> list[Measured]:
    """From landed rows to finished tables, on each engine."""
    taken: dict[int, dict[str, Taken]] = {}
    for rows in SIZES:
        task = Task(f"{file}.{rows}", url, rows)
        apart("clear", task)
        for engine in NAMES:
            apart(f"{engine}_land", task)
            for step in ("first", "daily"):
                taken.setdefault(rows, {})[f"{engine}_{step}"] = Taken(**apart(f"{engine}_{step}", task))
    lines = [line for rows, found in taken.items() for line in _whole_of(rows, found)]
    return [*lines, *(_whole_growth(engine, name, taken) for engine, name in NAMES.items())]


def _whole_of(rows: int, taken: Mapping[str, Taken]) -> Iterator[Measured]:
    most = {"duckdb": (60.0, 4.0, 0.05), "postgres": (150.0, None, 0.08)}
    for engine, name in NAMES.items():
        seconds, memory, share = most[engine]
        first, daily = taken[f"{engine}_first"], taken[f"{engine}_daily"]
        what = f"{name}, {rows:,} rows to finished tables"
        note = f"goal: seconds, at {10_000_000:,} rows"
        yield Measured(what, first.seconds, None, None, None, seconds * rows / 10_000_000, note)
        note = "goal: GB" if memory else ""
        yield Measured(f"{what}, client's peak, GB", first.peak / 1e9, None, None, None, memory, note)
        ratio = daily.seconds / first.seconds
        note = f"peak {daily.peak // MB} MB; goal: ours / the run over all rows"
        yield Measured(f"{what}, 1 % more", daily.seconds, None, None, ratio, share, note)


def _whole_growth(engine: str, name: str, taken: Mapping[int, Mapping[str, Taken]]) -> Measured:
    few, many = SIZES
    ours = taken[many][f"{engine}_first"].seconds / taken[few][f"{engine}_first"].seconds
    allowed = many * math.log(many) / (few * math.log(few))
    what = f"{name}, from {few:,} to {many:,} rows to finished tables, times as long"
    note = f"n log n: {allowed:.3g}; goal: ours / that"
    return Measured(what, ours, None, None, ours / allowed, 1.0, note)


def labels(file: str, url: str) -> list[Measured]:
    """From edges to labels, on each engine."""
    few = Task(**apart("prepare", Task(file, url, _FEW)))
    taken: dict[int, dict[str, Taken]] = {}
    for rows, rounds in SIZES.items():
        task = Task(**apart("prepare", Task(file, url, rows)))
        taken[rows] = in_turn([name for name in CONTENDERS if not name.endswith("_sql")], rounds, few, task)
        taken[rows] |= in_turn([name for name in CONTENDERS if name.endswith("_sql")], 1, few, task)
    lines = [line for rows, found in taken.items() for line in _labels_of(rows, found)]
    return [*lines, *(_growth(engine, name, taken) for engine, name in NAMES.items())]


def _labels_of(rows: int, taken: Mapping[str, Taken]) -> Iterator[Measured]:
    for engine, name in NAMES.items():
        ours, floor, sql = (taken[f"{engine}_{who}"] for who in ("ours", "floor", "sql"))
        what = f"{name}, {rows:,} edges to labels"
        note = f"peak {ours.peak // MB} MB, floor {floor.peak // MB} MB; goal: ours / floor"
        ratio = ours.seconds / floor.seconds
        yield Measured(what, ours.seconds, None, floor.seconds, ratio, 1.5, note)
        if peer := taken.get(f"{engine}_splink"):
            note = f"Splink's peak {peer.peak // MB} MB; goal: ours / Splink"
            ratio = ours.seconds / peer.seconds
            yield Measured(f"{what}, Splink", ours.seconds, peer.seconds, None, ratio, 0.2, note)
        note = f"client's peak {sql.peak // MB} MB; one round"
        yield Measured(f"{what}, in SQL", sql.seconds, None, floor.seconds, None, None, note)
    peak = taken["postgres_ours"].peak / 1e9
    yield Measured(f"PostgreSQL, {rows:,} edges to labels, client's peak, GB", peak, None, None, None, 1.5)


def _growth(engine: str, name: str, taken: Mapping[int, Mapping[str, Taken]]) -> Measured:
    """How much longer ten times as much takes, against what n log n allows."""
    few, many = SIZES
    ours, floor = (
        taken[many][f"{engine}_{who}"].seconds / taken[few][f"{engine}_{who}"].seconds
        for who in ("ours", "floor")
    )
    allowed = many * math.log(many) / (few * math.log(few))
    what = f"{name}, from {few:,} to {many:,} edges, times as long"
    return Measured(
        what, ours, None, floor, ours / allowed, 1.0, f"n log n: {allowed:.3g}; goal: ours / that"
    )


def in_turn(contenders: list[str], rounds: int, few: Task, task: Task) -> dict[str, Taken]:
    """Median seconds and highest peak of each; rounds alternate, so that a noisy machine hits all."""
    taken: dict[str, list[Taken]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name in contenders:
            taken[name].append(Taken(**apart(name, few, task)))
    return {
        name: Taken(statistics.median(t.seconds for t in each), max(t.peak for t in each))
        for name, each in taken.items()
    }


def apart(step: str, *tasks: Task) -> dict[str, Any]:
    """The step's answer, from a process of its own."""
    command = [sys.executable, "-m", "benchmarks.bench_identity", step]
    command += [json.dumps(asdict(task)) for task in tasks]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)  # noqa: S603 - this very file
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def measure(name: str, few: Task, task: Task) -> Taken:
    """Run a contender; in a process that did nothing before.

    :raises RuntimeError: its labels do not make the components that they must.
    """
    for each in (few, task):
        started = time.perf_counter()
        table, label = CONTENDERS[name](each)
        taken = Taken(
            time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS
        )
        with warehouse(name, each).session() as session:
            found = session.one(f"select count(*), count(distinct {label}) from {table}")
            session.execute(f"drop table {table}")
        if found != (each.nodes, each.components):
            msg = f"{name} labelled {found}; nodes and components are {(each.nodes, each.components)}"
            raise RuntimeError(msg)
    return taken


def warehouse(contender: str, task: Task) -> Warehouse:
    """The one that a contender works on."""
    import duckdb
    import psycopg

    from cdp_provider.core.warehouse import DuckDBWarehouse, PostgresWarehouse

    if contender.startswith("duckdb"):
        return DuckDBWarehouse(lambda: duckdb.connect(task.file))
    return PostgresWarehouse(lambda: psycopg.connect(task.url))


def prepare(task: Task) -> Task:
    """Make the edges, on both engines."""
    import numpy as np
    import pyarrow as pa

    from benchmarks.identity_data import edges
    from cdp_provider.core.identity.components import components

    left, right, kinds = edges(task.rows)
    found = len(np.unique(components(left, right, len(kinds))))
    for engine in NAMES:
        with warehouse(engine, task).session() as session:
            session.execute("create schema if not exists cdp")
            session.execute(f"create table {task.edges} (na bigint, nb bigint)")
            session.load(task.edges, pa.table({"na": left, "nb": right}))
            session.execute(f"create table cdp.nodes_{task.rows} (unique_id bigint)")
            session.load(f"cdp.nodes_{task.rows}", pa.table({"unique_id": np.arange(len(kinds))}))
            session.execute("checkpoint")
            session.execute(f"vacuum analyze {task.edges}")
    return replace(task, nodes=len(kinds), components=found)


def ours(engine: str, task: Task) -> tuple[str, str]:
    """The product's own way. As every contender: the table with the labels, and their column."""
    import numpy as np
    import pyarrow as pa

    from cdp_provider.core.identity.components import components

    with warehouse(engine, task).session() as session:
        edges = session.arrow(f"select na, nb from {task.edges}")
        found = components(edges["na"].to_numpy(), edges["nb"].to_numpy(), task.nodes)
        session.execute("create table cdp.labels_ours (v bigint, r bigint)")
        session.load("cdp.labels_ours", pa.table({"v": np.arange(task.nodes), "r": found}))
    return "cdp.labels_ours", "r"


def in_sql(engine: str, task: Task) -> tuple[str, str]:
    """The product's other way, for what does not fit into the process."""
    from cdp_provider.core.identity.components import TempTables, components_sql

    with warehouse(engine, task).session() as session:
        found = components_sql(TempTables(session), task.edges)
        session.execute(f"create table cdp.labels_sql as select v, r from {found.table}")
    return "cdp.labels_sql", "r"


def duckdb_floor(task: Task) -> tuple[str, str]:
    """DuckDB's own interface and scipy."""
    import duckdb

    with duckdb.connect(task.file) as connection:
        edges = connection.sql(f"select na, nb from {task.edges}").to_arrow_table()
        connection.register("found", labelled(edges, task.nodes))
        connection.execute("create table cdp.labels_floor as select * from found")
    return "cdp.labels_floor", "r"


def postgres_floor(task: Task) -> tuple[str, str]:
    """ADBC's own interface and scipy."""
    from adbc_driver_postgresql import dbapi

    with dbapi.connect(task.url) as connection, connection.cursor() as cursor:
        cursor.execute(f"select na, nb from {task.edges}")
        found = labelled(cursor.fetch_arrow_table(), task.nodes)
        cursor.adbc_ingest("labels_floor", found, mode="create", db_schema_name="cdp")
        connection.commit()
    return "cdp.labels_floor", "r"


def labelled(edges: pa.Table, count: int) -> pa.Table:
    """Each node with the number that scipy gave its component."""
    import numpy as np
    import pyarrow as pa
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    left, right = edges["na"].to_numpy(), edges["nb"].to_numpy()
    graph = coo_array((np.ones(len(left)), (left, right)), shape=(count, count))
    _, found = connected_components(graph, directed=False)
    return pa.table({"v": np.arange(count), "r": found})


def duckdb_splink(task: Task) -> tuple[str, str]:
    """Splink's clustering of pairs that are all taken for matches."""
    import duckdb
    from splink import DuckDBAPI
    from splink.clustering import cluster_pairwise_predictions_at_threshold

    with duckdb.connect(task.file) as connection:
        found = cluster_pairwise_predictions_at_threshold(
            connection.table(f"cdp.nodes_{task.rows}"),
            connection.table(task.edges),
            DuckDBAPI(connection=connection),
            node_id_column_name="unique_id",
            edge_id_column_name_left="na",
            edge_id_column_name_right="nb",
        )
    return found.physical_name, "cluster_id"


NAMES = {"duckdb": "DuckDB", "postgres": "PostgreSQL"}
CONTENDERS: Mapping[str, Callable[[Task], tuple[str, str]]] = {
    "duckdb_ours": partial(ours, "duckdb"),
    "duckdb_floor": duckdb_floor,
    "duckdb_splink": duckdb_splink,
    "duckdb_sql": partial(in_sql, "duckdb"),
    "postgres_ours": partial(ours, "postgres"),
    "postgres_floor": postgres_floor,
    "postgres_sql": partial(in_sql, "postgres"),
}


def main(step: str, *tasks: str) -> None:
    """In a process of its own: print the answer to :func:`apart`."""
    given = [Task(**json.loads(task)) for task in tasks]
    if step == "prepare":
        answer = asdict(prepare(*given))
    elif step in CONTENDERS:
        answer = asdict(measure(step, *given))
    else:
        answer = measure_whole(step, *given)
    print(json.dumps(answer))


def measure_whole(step: str, task: Task) -> dict[str, Any]:
    """A step of the whole resolution: ``clear``, or ENGINE_ with ``land``, ``first`` or ``daily``."""
    from benchmarks import identity_whole

    if step == "clear":
        with warehouse("postgres", task).session() as session:
            session.execute("drop schema if exists cdp cascade")
        return {}
    engine, _, name = step.partition("_")
    house = warehouse(engine, task)
    if name == "land":
        identity_whole.land(house, task.rows)
        return {}
    found = identity_whole.first(house) if name == "first" else identity_whole.daily(house)
    print(f"{step} {task.rows:,}: {found.seconds:.1f} s, {found.detail}", file=sys.stderr)
    return asdict(Taken(found.seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS))


if __name__ == "__main__":
    main(*sys.argv[1:])
