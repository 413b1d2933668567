# SPDX-License-Identifier: Apache-2.0
"""A connection of any type with a database behind it is one that a source of type sql can read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import duckdb
import psycopg
import pytest

from cdp_provider.core.exceptions import ConfigurationError, NotFoundError
from cdp_provider.core.ingest.sql import SqlConnector, SqlOptions
from cdp_provider.core.project.streams import Stream
from cdp_provider.hooks.source import SourceHook
from tests.airflow_env import connection_json
from tests.core.ingest.conftest import window

if TYPE_CHECKING:
    from pathlib import Path

QUERY = "select 7 as id, 'x' as name"


def stream(query: str = QUERY) -> Stream:
    columns = {"id": "integer", "name": "string"}
    return Stream(
        source="db", name="rows", primary_key=("id",), columns=columns, options=SqlOptions(query=query)
    )


@pytest.mark.parametrize("engine", ["postgres", "duckdb"])
def test_airflow_opens_the_database(
    engine: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = str(tmp_path / "source.duckdb")
    if engine == "postgres":
        place = request.getfixturevalue("postgres_url")
    monkeypatch.setenv("AIRFLOW_CONN_SHOP_DB", connection_json(engine, place))
    hook = SourceHook("shop_db")
    database = hook.database
    assert database.dialect == ("postgresql" if engine == "postgres" else "duckdb")
    connection = database.connect()
    assert isinstance(connection, psycopg.Connection if engine == "postgres" else duckdb.DuckDBPyConnection)
    connection.close()
    connector = hook.connector(stream())
    assert isinstance(connector, SqlConnector)
    (file,) = connector.fetch(stream(), None, window(), tmp_path).files
    written = {"postgres": "id,name\n7,x\n", "duckdb": '{"id":7,"name":"x"}\n'}
    assert file.path.read_text() == written[engine]


def test_a_cursor_extra_does_not_change_what_is_read(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = json.loads(connection_json("postgres", postgres_url))
    fields["extra"] = {**fields.get("extra", {}), "cursor": "dictcursor"}
    monkeypatch.setenv("AIRFLOW_CONN_SHOP_DB", json.dumps(fields))
    fetched = SourceHook("shop_db").connector(stream()).fetch(stream(), None, window(), tmp_path)
    assert fetched.files[0].path.read_text() == "id,name\n7,x\n"


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        (None, NotFoundError, "no Airflow connection 'shop_db', which is to be a database"),
        ({"conn_type": "http", "host": "h"}, ConfigurationError, "'http', which is no database"),
        ({"conn_type": "abacus", "host": "h"}, ConfigurationError, "no installed provider opens.*'abacus'"),
    ],
)
def test_what_is_no_database(
    fields: dict[str, str] | None,
    error: type[Exception],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if fields:
        monkeypatch.setenv("AIRFLOW_CONN_SHOP_DB", json.dumps(fields))
    with pytest.raises(error, match=message):
        _ = SourceHook("shop_db").database


def test_a_database_needs_a_connection() -> None:
    with pytest.raises(ConfigurationError, match="needs a connection to a database"):
        _ = SourceHook().database
