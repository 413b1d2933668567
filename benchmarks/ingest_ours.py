# SPDX-License-Identifier: Apache-2.0
"""A whole landing and its check, as the operators do them: contract, quarantine, ledger, report.

``python -m benchmarks.ingest_ours CASE TASK``, started by ``bench_ingest.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import psycopg

from benchmarks.ingest_api import PAGE
from benchmarks.ingest_data import CHANGED_SUMS, CHANGING, CHANGING_COLUMNS, COLUMNS, COUNTRIES, SUMS, TABLE
from benchmarks.ingest_program import main
from cdp_provider.core.http import Endpoint
from cdp_provider.core.ingest.contracts import check
from cdp_provider.core.ingest.files import FileOptions, FilesConnector
from cdp_provider.core.ingest.http import HttpConnector, HttpOptions
from cdp_provider.core.ingest.landing import land
from cdp_provider.core.ingest.postgres_cdc import PostgresCdcConnector, PostgresCdcOptions
from cdp_provider.core.ingest.sql import Database, SqlConnector, SqlOptions
from cdp_provider.core.project.streams import Stream
from cdp_provider.core.run import Run, Window
from cdp_provider.core.warehouse import DuckDBWarehouse, PostgresWarehouse

if TYPE_CHECKING:
    from cdp_provider.core.ingest import Connector
    from cdp_provider.core.project.base import Options
    from cdp_provider.core.warehouse import Warehouse

END = datetime(2026, 7, 1, tzinfo=UTC)

#: A contract as streams usually have one: what breaks a condition of a column is set aside.
_USUAL: dict[str, Any] = {
    "columns": {
        "order_id": {"required": True},
        "email": {"pattern": "[^@]+@[^@]+[.][a-z]+", "max_length": 320},
        "country": {"values": COUNTRIES},
        "quantity": {"min": 0, "max": 1000},
        "total": {"min": 0},
        "ordered_at": {"required": True},
    },
    "contract": {
        "owner": "team-shop",
        "min_rows": 1,
        "freshness": "10 days",
        "rules": [{"name": "paid_has_total", "sql": "not paid or total > 0", "severity": "fail"}],
    },
}
#: Twenty rules that the check computes.
_TWENTY: dict[str, Any] = {
    "columns": {
        "order_id": {"min": 1, "unique": True},
        "customer_id": {"pattern": "c[0-9]+", "max_length": 20},
        "first_name": {"min_length": 1, "max_length": 50},
        "last_name": {"min_length": 1, "max_length": 50},
        "email": {"pattern": "[^@]+@[^@]+[.][a-z]+", "max_length": 320},
        "country": {"values": COUNTRIES},
        "quantity": {"min": 0, "max": 1000},
        "total": {"min": 0, "max": 100000},
        "score": {"min": 0, "max": 1},
        "ordered_at": {"min": datetime(2020, 1, 1, tzinfo=UTC)},
        "updated_at": {"min": datetime(2020, 1, 1, tzinfo=UTC)},
    },
    "contract": {
        "rules": [{"name": "paid_has_total", "sql": "not paid or total > 0", "severity": "fail"}],
    },
}
RULES = 20


def orders(options: Options, contract: dict[str, Any], severity: str | None = None) -> Stream:
    """The stream of the orders."""
    more = {"severity": severity} if severity else {}
    columns = {
        name: {"type": kind, **(given | more if (given := contract["columns"].get(name)) else {})}
        for name, kind in COLUMNS.items()
    }
    return Stream(
        source="shop",
        name="orders",
        primary_key=("order_id",),
        time="updated_at",
        columns=columns,
        contract=contract["contract"],
        options=options,
    )


def run(day: int = 0) -> Run:
    """The run of a day."""
    end = END + timedelta(days=day)
    return Run("bench", f"run_{day}", Window(end - timedelta(days=1), end))


@dataclass
class Landing:
    """A batch, landed and checked.

    :param task: ``engine``, ``target`` (a file or an address), ``schema``, and the source.
    """

    task: dict[str, Any]
    told: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.stream, self.connector = self.source()

    def source(self) -> tuple[Stream, Connector]:
        """What is landed."""
        raise NotImplementedError

    @property
    def warehouse(self) -> Warehouse:
        """Where it is landed."""
        target, schema = self.task["target"], self.task["schema"]
        if self.task["engine"] == "duckdb":
            return DuckDBWarehouse(lambda: duckdb.connect(target), schema=schema)
        return PostgresWarehouse(lambda: psycopg.connect(target), schema=schema)

    def work(self) -> None:
        report = land(self.warehouse, self.stream, self.connector, run())
        check(self.warehouse, self.stream, run())
        if report.rows_refused:
            msg = f"{report.rows_refused} rows went to quarantine, and none should"
            raise RuntimeError(msg)

    def sums(self) -> list[Any]:
        with self.warehouse.session() as session:
            view = self.warehouse.table(self.stream.view)
            return list(session.fetch(self.select.format(view))[0])

    select = SUMS


class Api(Landing):
    """Of an API."""

    def source(self) -> tuple[Stream, Connector]:
        options = HttpOptions.model_validate(
            {
                "path": "/orders",
                "records": "data",
                "page_size": {"parameter": "limit", "value": PAGE},
                "paging": {"type": "cursor", "next": "next", "parameter": "after"},
            }
        )
        return orders(options, _USUAL), HttpConnector(Endpoint(self.task["api"]))


class Csv(Landing):
    """Of a file."""

    def source(self) -> tuple[Stream, Connector]:
        folder = Path(self.task["csv"]).parent
        return orders(FileOptions(path="*.csv", format="csv"), _USUAL), FilesConnector(folder)


def _database(address: str) -> Database:
    return Database("postgresql", lambda: psycopg.connect(address))


class Table(Landing):
    """Of a table of PostgreSQL."""

    def source(self) -> tuple[Stream, Connector]:
        return orders(SqlOptions(table=TABLE), _USUAL), SqlConnector(_database(self.task["postgres"]))


class Contract(Csv):
    """The check alone, of a batch that :class:`Twenty` has landed."""

    def source(self) -> tuple[Stream, Connector]:
        options = FileOptions(path="*.csv", format="csv")
        folder = Path(self.task["csv"]).parent
        return orders(options, _TWENTY, severity="fail"), FilesConnector(folder)

    def work(self) -> None:
        self.report = check(self.warehouse, self.stream, run())

    def sums(self) -> list[Any]:
        """Rows, and how often any rule is broken."""
        with self.warehouse.session() as session:
            results = self.warehouse.table("contract_results")
            count, failed = session.fetch(
                f"select count(distinct rule), coalesce(sum(failed), 0) from {results}"
                f" where rule not in ('primary_key', 'quarantine', 'min_rows')"
            )[0]
        if count < RULES:
            msg = f"{count} results of {RULES} rules"
            raise RuntimeError(msg)
        return [self.report.rows_out, int(failed)]


class Twenty(Contract):
    """What :class:`Contract` checks."""

    def work(self) -> None:
        land(self.warehouse, self.stream, self.connector, run())

    def sums(self) -> list[Any]:
        return []


class FirstChanges(Landing):
    """The first batch of a table whose changes are captured: there is nothing yet, and a slot is made."""

    select = CHANGED_SUMS

    def source(self) -> tuple[Stream, Connector]:
        slot = self.task["slot"]
        stream = Stream(
            source="shop",
            name="customers",
            primary_key=("id",),
            time="updated_at",
            columns={name: {"type": kind} for name, kind in CHANGING_COLUMNS.items()},
            options=PostgresCdcOptions(table=CHANGING, slot=slot, publication=slot),
        )
        return stream, PostgresCdcConnector(_database(self.task["postgres"]))


class Changes(FirstChanges):
    """All that came after, up to the table as it then is: the newest version of every row is looked at."""

    def work(self) -> None:
        report = land(self.warehouse, self.stream, self.connector, run(1))
        check(self.warehouse, self.stream, run(1))
        self.found = super().sums()
        self.told = {"changes": report.detail["changes"]}

    def sums(self) -> list[Any]:
        return self.found


CASES = {
    "api": Api,
    "csv": Csv,
    "table": Table,
    "contract": Contract,
    "contract_landed": Twenty,
    "changes_first": FirstChanges,
    "changes": Changes,
}

if __name__ == "__main__":
    main({name: partial(case) for name, case in CASES.items()})
