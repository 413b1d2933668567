# SPDX-License-Identifier: Apache-2.0
"""Where the contenders of ingestion meet: the same sources for all, an empty warehouse for each."""

from __future__ import annotations

import statistics
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from benchmarks import ingest_peers as peers
from benchmarks.ingest_program import Answer, apart
from cdp_provider.core.warehouse import DuckDBWarehouse, PostgresWarehouse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from benchmarks.ingest_data import Files

TYPES = {"duckdb": dict(DuckDBWarehouse.types), "postgres": dict(PostgresWarehouse.types)}


@dataclass(frozen=True)
class Contender:
    """A program's case, and the Python that runs it."""

    program: str
    case: str
    python: Path = Path(sys.executable)


@dataclass
class Bench:
    """Where everything is.

    :param folder: for warehouses and the rest.
    :param rounds: how often each contender runs.
    :param profile: ours run under a profiler, once and alone.
    """

    folder: Path
    files: Files
    postgres: str
    rows: int
    rounds: int
    profile: bool = False

    def __post_init__(self) -> None:
        self._numbers = count(1)

    @contextmanager
    def target(self, engine: str) -> Iterator[dict[str, Any]]:
        """An empty place to land in, gone afterwards."""
        schema = f"bench_{next(self._numbers)}"
        given = {"engine": engine, "schema": schema, "types": TYPES[engine]}
        if engine == "duckdb":
            with tempfile.TemporaryDirectory(prefix="duckdb-", dir=self.folder) as folder:
                yield {**given, "target": str(Path(folder) / "warehouse.duckdb")}
            return
        with self.connect() as connection:
            connection.execute(f"create schema {schema}".encode())
            connection.execute("checkpoint")
            yield {**given, "target": self.postgres}
            connection.execute(f"drop schema {schema} cascade".encode())

    @contextmanager
    def connect(self) -> Iterator[psycopg.Connection[Any]]:
        """A connection to the server, which commits by itself."""
        with psycopg.connect(self.postgres, autocommit=True) as connection:
            connection.execute("set client_min_messages = warning")
            yield connection

    def task(self, **more: Any) -> dict[str, Any]:
        """What contenders are told of the sources."""
        return {
            "csv": str(self.files.csv),
            "postgres": self.postgres,
            "rows": self.rows,
            "profile": self.profile,
            **more,
        }

    def compare(
        self, engine: str, contenders: Mapping[str, Contender], task: Mapping[str, Any]
    ) -> dict[str, Answer]:
        """The median of each contender, by its name; ours alone where it is profiled."""
        answers: dict[str, list[Answer]] = {name: [] for name in contenders}
        for _ in range(1 if self.profile else self.rounds):
            for name, contender in contenders.items():
                if self.profile and name != "ours":
                    continue
                with self.target(engine) as target:
                    given = self.task(**target, **task)
                    found = apart(contender.program, contender.case, given, python=contender.python)
                answers[name].append(found)
        return summed({name: found for name, found in answers.items() if found})


def summed(answers: Mapping[str, list[Answer]]) -> dict[str, Answer]:
    """Medians.

    :raises RuntimeError: contenders disagree on what came out.
    """
    sums = {name: {tuple(answer.sums) for answer in found} for name, found in answers.items()}
    if len(set().union(*sums.values())) > 1:
        msg = f"contenders disagree on what came out: {sums}"
        raise RuntimeError(msg)
    return {name: median(found) for name, found in answers.items()}


def median(found: list[Answer]) -> Answer:
    """Of all but the peak, of which it is the highest."""
    told = {key: statistics.median(answer.told[key] for answer in found) for key in found[0].told}
    seconds = statistics.median(answer.seconds for answer in found)
    cpu = statistics.median(answer.cpu for answer in found)
    return Answer(seconds, cpu, max(answer.peak for answer in found), found[0].sums, told)


def peer(case: str, check: Callable[[], None] | None = None) -> Contender | str:
    """A peer, or why it can't run here."""
    try:
        if check is not None:
            check()
        return Contender("ingest_peers", case, peers.python())
    except peers.Missing as missing:
        return str(missing)
