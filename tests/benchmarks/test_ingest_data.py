# SPDX-License-Identifier: Apache-2.0
"""All contenders of ingestion are given the same rows, however they read them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import duckdb
import psycopg
import pytest

from benchmarks.ingest_api import PAGE, api
from benchmarks.ingest_data import (
    CHANGED_SUMS,
    CHANGING,
    COLUMNS,
    SUMS,
    TABLE,
    change,
    fill_table,
    make_changing,
    write_files,
)
from cdp_provider.core.warehouse import DuckDBWarehouse, PostgresWarehouse

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.ingest_data import Files

ROWS = 2 * PAGE + 500


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return write_files(tmp_path_factory.mktemp("orders"), ROWS)


@pytest.fixture
def server(postgres_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        yield connection
        for table in (TABLE, CHANGING):
            connection.execute(f"drop table if exists {table}")


def texts(row: tuple[Any, ...]) -> list[str]:
    return [str(value) for value in row]


def sums(function: str, path: Path, options: str) -> list[str]:
    types = {name: DuckDBWarehouse.types[kind] for name, kind in COLUMNS.items()}
    with duckdb.connect() as engine:
        source = f"{function}('{path}', columns = {types}, {options})"
        return texts(engine.execute(SUMS.format(source)).fetchall()[0])


def test_csv_ndjson_and_the_table_hold_the_same(files: Files, server: psycopg.Connection[Any]) -> None:
    fill_table(server, files, dict(PostgresWarehouse.types))
    csv = sums("read_csv", files.csv, "header = true, auto_detect = false")
    assert csv[0] == str(ROWS)
    assert csv == sums("read_json", files.ndjson, "format = 'newline_delimited'")
    assert csv == texts(server.execute(SUMS.format(TABLE)).fetchall()[0])


def test_the_short_file_is_the_beginning_of_the_long_one(files: Files) -> None:
    few = files.few.read_bytes()
    assert files.csv.read_bytes().startswith(few)
    assert few.count(b"\n") == 1001


def test_pages_hold_every_record_once(files: Files) -> None:
    found, after, pages = [], "0", 0
    with api(files.ndjson) as url:
        while after is not None:
            with urlopen(f"{url}/orders?after={after}", timeout=30) as answer:  # noqa: S310 - our own server
                page = json.load(answer)
            found += page["data"]
            after, pages = page["next"], pages + 1
        with urlopen(f"{url}/changed", timeout=30) as answer:  # noqa: S310
            first = json.load(answer)
        with urlopen(f"{url}/changed?since=2026", timeout=30) as answer:  # noqa: S310
            rest = json.load(answer)
    assert [record["order_id"] for record in found] == list(range(1, ROWS + 1))
    assert pages == 3
    assert (len(first["data"]), rest["data"]) == (PAGE, [])


def test_changes_are_as_many_as_asked_for(server: psycopg.Connection[Any]) -> None:
    make_changing(server)
    assert change(server, 800) == 800
    rows, ids, *_ = server.execute(CHANGED_SUMS.format(CHANGING)).fetchall()[0]
    # 500 came, the first 100 went.
    assert (rows, ids) == (400, sum(range(101, 501)))
