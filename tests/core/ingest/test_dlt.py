# SPDX-License-Identifier: Apache-2.0
"""dlt itself, in an environment of its own."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest

from cdp_provider.core.exceptions import (
    AccessError,
    ConfigurationError,
    DataError,
    NotFoundError,
    UnavailableError,
)
from cdp_provider.core.ingest.contracts import check
from cdp_provider.core.ingest.dlt import DltConnector, DltOptions, packed, unpacked
from cdp_provider.core.ingest.landing import land
from cdp_provider.core.ingest.program import Settings
from cdp_provider.core.project.streams import Stream
from tests.core.ingest.conftest import window
from tests.core.ingest.environments import python_with

if TYPE_CHECKING:
    from collections.abc import Callable

    from cdp_provider.core.ingest.base import Cursor, Fetched

HERE = Path(__file__).parent
#: A run of dlt takes a second or two, and what it gives depends on no warehouse.
ONE_ENGINE = pytest.mark.parametrize("warehouse", ["duckdb"], indirect=True)
TOKEN = "hush-hush-token"
COLUMNS = {"id": "string", "text": "string", "items": "json"}


@pytest.fixture(scope="module")
def python() -> str:
    return str(python_with("dlt[parquet]>=1.31"))


@pytest.fixture
def stream_of(python) -> Callable[..., Stream]:
    def make(name: str, columns: dict[str, Any] | None = None, **options: Any) -> Stream:
        given = {"python": python, "resource": f"dlt_shop:{name}", "folder": str(HERE)} | options
        return Stream(
            source="shop",
            name="orders",
            primary_key=("id",) if not options.get("root_key") else ("order_id", "place"),
            columns=columns or COLUMNS,
            quarantine={"max_share": 0.9},
            options=DltOptions(**given),
        )

    return make


@pytest.fixture
def fetch(tmp_path) -> Callable[..., tuple[Fetched, list[dict[str, Any]]]]:
    """A function that runs the resource once, and gives what it brought and its rows."""

    def once(
        stream: Stream, cursor: Cursor | None = None, settings: Settings | None = None
    ) -> tuple[Fetched, list[dict[str, Any]]]:
        spool = tmp_path / f"spool_{len(list(tmp_path.iterdir()))}"
        spool.mkdir()
        fetched = DltConnector(settings or Settings()).fetch(stream, cursor, window(), spool)
        return fetched, [row for file in fetched.files for row in pq.read_table(file.path).to_pylist()]

    return once


def shown(warehouse: Any, columns: str) -> list[tuple[Any, ...]]:
    with warehouse.session() as session:
        return session.fetch(f"select {columns} from {warehouse.table('shop__orders')} order by 1, 2")


def test_every_window_goes_on_where_the_resource_said(warehouse, run, stream_of, tmp_path):
    path = tmp_path / "rows.json"
    stream = stream_of("orders", arguments={"path": str(path)}, credentials={"token": "password"})
    connector = DltConnector(Settings({"password": TOKEN}))
    days = [
        [
            {"id": 1, "at": "2026-07-01", "text": "a", "items": [1]},
            {"id": 2, "at": "2026-07-01", "text": "b"},
        ],
        [{"id": 1, "at": "2026-06-30", "text": "old"}, {"id": 2, "at": "2026-07-02", "text": "c"}],
    ]
    read = []
    for day, records in enumerate(days, 1):
        path.write_text(json.dumps(records))
        read.append(land(warehouse, stream, connector, run(day)).rows_in)
        check(warehouse, stream, run(day))
    assert read == [2, 1]
    assert shown(warehouse, "id, text") == [("1", "a"), ("2", "c")]
    # The second window again: from where it began.
    assert land(warehouse, stream, connector, run(2)).rows_in == 1


@ONE_ENGINE
def test_values_are_typed_by_the_project(warehouse, run, stream_of):
    columns = {
        "id": "string",
        "price": "decimal",
        "count": "integer",
        "ok": "boolean",
        "at": "timestamp",
        "weird": {"type": "string", "path": "weird_name"},
        "tags": "json",
        "city": {"type": "string", "path": "address__city"},
    }
    stream = stream_of("typed", columns)
    report = land(warehouse, stream, DltConnector(Settings()), run())
    check(warehouse, stream, run())
    assert report.detail["unknown_keys"] == []
    found = shown(warehouse, "id, cast(price as varchar), count, ok, weird, cast(tags as varchar), city")
    assert [(r[0], r[1].rstrip("0"), *r[2:5], r[6]) for r in found] == [
        ("1", "12345678901234567890.123457", 2**40, True, "x", "Bonn"),
        ("2", "1.5", None, False, None, None),
    ]
    assert json.loads(found[0][5]) == [{"a": 1}]


def test_types_that_the_project_does_not_name_must_not_mix(fetch, stream_of):
    with pytest.raises(DataError, match="values of 'n__v_text' in 'mixed' are not of one type") as error:
        fetch(stream_of("mixed", {"id": "integer"}))
    assert "personal" not in str(error.value)
    _, rows = fetch(stream_of("mixed", {"id": "integer", "n": "integer"}))
    assert [row["n"] for row in rows] == ["1", "personal"]


@ONE_ENGINE
def test_arrow_tables(warehouse, run, stream_of):
    stream = stream_of("arrow", {"id": "integer", "text": "string", "n": "number"}, arguments={"count": 1000})
    assert land(warehouse, stream, DltConnector(Settings()), run()).rows_out == 1000


@ONE_ENGINE
def test_a_resource_of_a_source_and_its_nested_table(warehouse, run, fetch, stream_of, tmp_path):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"id": 7, "items": [{"sku": "a"}, {"sku": "b"}]}]))
    given = {"arguments": {"path": str(path)}}
    fetched, rows = fetch(stream_of("shop", {"id": "string"}, **given))
    assert rows == [{"id": "7"}]
    assert fetched.detail == {"records": 1, "other_tables": ["orders__items"]}
    columns = {
        "order_id": {"type": "string", "path": "_root_id"},
        "place": {"type": "integer", "path": "_dlt_list_idx"},
        "sku": "string",
    }
    stream = stream_of("shop", columns, table="orders__items", root_key="id", **given)
    report = land(warehouse, stream, DltConnector(Settings()), run())
    check(warehouse, stream, run())
    assert shown(warehouse, "order_id, place, sku") == [("7", 0, "a"), ("7", 1, "b")]
    assert report.detail["unknown_keys"] == []
    with pytest.raises(NotFoundError, match="no resource 'nothing'; as `select`, name one of orders, others"):
        fetch(stream_of("shop", select="nothing", **given))


@ONE_ENGINE
def test_what_a_complete_resource_no_longer_gives_is_gone(warehouse, run, stream_of, tmp_path):
    path = tmp_path / "rows.json"
    stream = stream_of("shop", arguments={"path": str(path)}, complete=True)
    for day, ids in enumerate(((1, 2), (2, 3)), 1):
        path.write_text(json.dumps([{"id": n} for n in ids]))
        land(warehouse, stream, DltConnector(Settings()), run(day))
        check(warehouse, stream, run(day))
    assert shown(warehouse, "id, text") == [("2", None), ("3", None)]


def test_a_long_state_is_packed(fetch, stream_of):
    cursor = None
    for run in (1, 2):
        fetched, rows = fetch(stream_of("forgetful"), cursor)
        assert [row["id"] for row in rows] == [str(run)]
        cursor = json.loads(json.dumps(fetched.cursor))
        assert set(cursor) == {"zlib"}
    assert unpacked(packed({"a": "\uf026"})) == {"a": "\uf026"}


def test_a_resource_that_fails(fetch, stream_of, caplog):
    settings = Settings({}, {"secrets.key": TOKEN})
    with (
        caplog.at_level(logging.INFO),
        pytest.raises(UnavailableError, match="exit code 1; .*stands in the task's log$"),
    ):
        fetch(stream_of("failing"), None, settings)
    assert "out of tea, ***" in caplog.text
    assert TOKEN not in caplog.text
    assert "dlt.pipeline" not in caplog.text


@pytest.mark.parametrize(
    ("name", "options", "error", "match"),
    [
        ("refused", {}, AccessError, r"refused the dlt resource of shop.orders \(401\)"),
        ("nothing", {}, NotFoundError, "names 'nothing', which that module has not"),
        ("x", {"resource": "no_module:x"}, NotFoundError, "no module 'no_module'"),
        ("x", {"folder": "/nowhere"}, NotFoundError, "no '/nowhere'"),
        ("x", {"python": "/nowhere/python"}, NotFoundError, "no such program"),
        ("x", {"python": sys.executable}, ConfigurationError, r"can't import 'dlt'; install dlt"),
        ("orders", {"arguments": {"path": "x"}}, ConfigurationError, "lacks token; give it in `arguments`"),
    ],
)
def test_what_somebody_has_to_mend(fetch, stream_of, name, options, error, match):
    with pytest.raises(error, match=match):
        fetch(stream_of(name, **options))


def test_values_of_dlts_own_configuration_and_a_clean_environment(fetch, stream_of, tmp_path, monkeypatch):
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", "never")
    (tmp_path / "rows.json").write_text("[]")
    settings = Settings({}, {"sources.dlt_shop.orders.token": TOKEN})
    fetched, rows = fetch(
        stream_of("orders", arguments={"path": str(tmp_path / "rows.json")}), None, settings
    )
    assert (rows, fetched.files) == ([], [])
    fetch(stream_of("seen", arguments={"path": str(tmp_path / "seen.json")}))
    seen = json.loads((tmp_path / "seen.json").read_text())
    assert not [name for name in seen if name.startswith("AIRFLOW")]
    assert seen["RUNTIME__DLTHUB_TELEMETRY"] == "false"


def test_dots_lead_nowhere(stream_of):
    stream = stream_of("typed", {"id": "string", "city": {"path": "address.city"}}, root_key=())
    (problem,) = stream.options.stream_problems(stream)
    assert problem.path == ("columns", "city", "path")
    assert "address__city" in str(problem)
