# SPDX-License-Identifier: Apache-2.0
"""What ingestion takes at least: the bare statement or loop, without contract, quarantine, ledger or retry.

``python -m benchmarks.ingest_floors CASE TASK``, started by ``bench_ingest.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import orjson
import psycopg
import requests

from benchmarks.ingest_data import COLUMNS, SUMS, TABLE, fields
from benchmarks.ingest_program import main

_PIECE = 1 << 20


@dataclass
class Floor:
    """A table made of whatever there is.

    :param task: ``types`` of the engine, ``target`` (a file or an address), and the source.
    """

    task: dict[str, Any]

    def work(self) -> None:
        raise NotImplementedError

    def sums(self) -> list[Any]:
        if self.task["engine"] == "duckdb":
            with duckdb.connect(self.task["target"]) as engine:
                return list(engine.execute(SUMS.format("orders")).fetchall()[0])
        with psycopg.connect(self.task["target"]) as connection:
            return list(connection.execute(SUMS.format(self._table).encode()).fetchall()[0])

    @property
    def _table(self) -> str:
        return f"{self.task['schema']}.orders"

    def _read(self, function: str, path: Path | str, *options: str) -> None:
        """A DuckDB table of a file."""
        types = {name: self.task["types"][kind] for name, kind in COLUMNS.items()}
        spec = ", ".join(f"'{name}': '{kind}'" for name, kind in types.items())
        given = ", ".join((f"'{path}'", f"columns = {{{spec}}}", *options))
        with duckdb.connect(self.task["target"]) as engine:
            engine.execute(f"create table orders as select * from {function}({given})")


class Api(Floor):
    """Pages with one connection, into a file, into a table."""

    def work(self) -> None:
        path = Path(self.task["folder"]) / "orders.ndjson"
        following: str | None = "0"
        with path.open("wb") as file, requests.Session() as client:
            while following is not None:
                wanted = {"limit": "1000", "after": following}
                answer = client.get(f"{self.task['api']}/orders", params=wanted, timeout=60)
                answer.raise_for_status()
                page = orjson.loads(answer.content)
                file.write(b"\n".join(map(orjson.dumps, page["data"])) + b"\n")
                following = page["next"]
        self._read("read_json", path, "format = 'newline_delimited'")


_CSV = ("header = true", "auto_detect = false", "delim = ','", "quote = '\"'", "escape = '\"'")


class CsvDuckDB(Floor):
    """One typed ``read_csv``."""

    def work(self) -> None:
        self._read("read_csv", self.task["csv"], *_CSV)


class CsvPostgres(Floor):
    """One COPY."""

    def work(self) -> None:
        with psycopg.connect(self.task["target"]) as connection, Path(self.task["csv"]).open("rb") as file:
            connection.execute(f"create table {self._table} ({fields(self.task['types'])})".encode())
            copying = f"copy {self._table} from stdin (format csv, header)"
            with connection.cursor() as cursor, cursor.copy(copying.encode()) as copy:
                while piece := file.read(_PIECE):
                    copy.write(piece)


class TableDuckDB(Floor):
    """COPY into a file, and one typed ``read_csv``."""

    def work(self) -> None:
        path = Path(self.task["folder"]) / "orders.csv"
        with psycopg.connect(self.task["postgres"]) as connection, path.open("wb") as file:
            connection.execute("set timezone = 'UTC'")
            copying = f"copy {TABLE} to stdout (format csv, header)"
            with connection.cursor() as cursor, cursor.copy(copying.encode()) as copy:
                for piece in copy:
                    file.write(piece)
        self._read("read_csv", path, *_CSV)


#: The rules of ``ingest_ours.py``, as somebody would write them who needs no names, limits and results.
_RULES = (
    "order_id >= 1",
    "{customer_id}",
    "length(customer_id) <= 20",
    "length(first_name) >= 1",
    "length(first_name) <= 50",
    "length(last_name) >= 1",
    "length(last_name) <= 50",
    "{email}",
    "length(email) <= 320",
    "country in ('DE', 'FR', 'IT', 'ES', 'NL', 'AT', 'PL')",
    "quantity >= 0",
    "quantity <= 1000",
    "total >= 0",
    "total <= 100000",
    "score >= 0",
    "score <= 1",
    "ordered_at >= timestamptz '2020-01-01 00:00:00+00'",
    "updated_at >= timestamptz '2020-01-01 00:00:00+00'",
    "not paid or total > 0",
)
_PATTERNS = {"customer_id": "c[0-9]+", "email": "[^@]+@[^@]+[.][a-z]+"}


class Contract(Floor):
    """The rules of a contract in one SELECT over the rows that were landed."""

    def work(self) -> None:
        match = {"duckdb": "regexp_full_match({}, '{}')", "postgres": "{} ~ '^(?:{})$'"}[self.task["engine"]]
        patterns = {name: match.format(name, pattern) for name, pattern in _PATTERNS.items()}
        counts = [f"count(*) filter (where not ({rule.format(**patterns)}))" for rule in _RULES]
        asked = ", ".join(["count(*)", *counts, "count(order_id) - count(distinct order_id)"])
        sql = f"select {asked} from {self.task['schema']}.raw_shop__orders"
        if self.task["engine"] == "duckdb":
            with duckdb.connect(self.task["target"]) as engine:
                self.found = engine.execute(sql).fetchall()[0]
        else:
            with psycopg.connect(self.task["target"]) as connection:
                self.found = connection.execute(sql.encode()).fetchall()[0]

    def sums(self) -> list[Any]:
        """Rows, and how often any rule is broken."""
        return [self.found[0], sum(self.found[1:])]


CASES = {
    "api_duckdb": Api,
    "csv_duckdb": CsvDuckDB,
    "csv_postgres": CsvPostgres,
    "table_duckdb": TableDuckDB,
    "contract": Contract,
}

if __name__ == "__main__":
    main({name: partial(case) for name, case in CASES.items()})
