# SPDX-License-Identifier: Apache-2.0
"""Streams and windows for the tests of ingestion."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from cdp_provider.core.ingest.files import FileOptions
from cdp_provider.core.ingest.http import HttpOptions
from cdp_provider.core.project.streams import Stream
from cdp_provider.core.run import Run, Window

if TYPE_CHECKING:
    from collections.abc import Callable

START = datetime(2026, 7, 1, tzinfo=UTC)


def window(day: int = 1) -> Window:
    return Window(START + timedelta(days=day - 1), START + timedelta(days=day))


@pytest.fixture
def run() -> Callable[..., Run]:
    """Day of July -> the run of that day."""
    return lambda day=1, **more: Run("shop", f"run_{day}", window(day), **more)


@pytest.fixture
def orders() -> Callable[..., Stream]:
    """A stream of files; keywords replace its parts."""

    def make(
        path: str = "*.csv", form: str = "csv", options: dict[str, Any] | None = None, **parts: Any
    ) -> Stream:
        columns = {
            "order_id": {"type": "string", "required": True},
            "email": "string",
            "total": {"type": "decimal", "required": True},
            "ordered_at": "timestamp",
        }
        given: dict[str, Any] = {
            "source": "till",
            "name": "orders",
            "primary_key": ("order_id",),
            "time": "ordered_at",
            "columns": columns,
            "quarantine": {"max_share": 0.5},
        } | parts
        return Stream(**given, options=FileOptions(path=path, format=form, **(options or {})))

    return make


@pytest.fixture
def customers() -> Callable[..., Stream]:
    """A stream over HTTP, incremental; keywords replace its options."""

    def make(**options: Any) -> Stream:
        given: dict[str, Any] = {
            "path": "/customers",
            "records": "data",
            "paging": {"type": "cursor", "next": "next", "parameter": "after"},
            "cursor": {"column": "updated_at", "parameter": "since"},
        } | options
        return Stream(
            source="crm",
            name="customers",
            primary_key=("id",),
            time="updated_at",
            columns={"id": "string", "name": "string", "updated_at": "timestamp"},
            options=HttpOptions(**given),
        )

    return make


@pytest.fixture
def cdc_url(postgres_url: str) -> str:
    """A PostgreSQL whose log tells changes."""
    with psycopg.connect(postgres_url) as connection:
        (level,) = connection.execute("show wal_level").fetchone() or ("",)
    if level != "logical":
        pytest.skip(f"the server at CDP_TEST_POSTGRES_URL has wal_level {level}; changes need logical")
    return postgres_url
