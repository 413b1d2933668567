# SPDX-License-Identifier: Apache-2.0
"""A connector that fetches from a test's service, and what it fetched."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cdp_provider.core.http import Endpoint
from cdp_provider.core.ingest.http import HttpConnector, HttpOptions, Patience
from cdp_provider.core.project.streams import Stream
from cdp_provider.core.run import Window
from tests.core.ingest.conftest import window
from tests.core.ingest.service import Answer

if TYPE_CHECKING:
    from cdp_provider.core.ingest.base import Cursor, Fetched
    from tests.core.ingest.service import Asked, Service

HASTY = Patience(tries=3, longest=2, base=0.01)


def stream_of(columns: dict[str, Any] | None = None, **options: Any) -> Stream:
    """A stream of customers; keywords are its options, None leaves one of those given here out."""
    given = {"path": "/customers", "records": "data", **options}
    return Stream(
        source="crm",
        name="customers",
        primary_key=("id",),
        columns={"id": "string", "updated_at": "timestamp", **(columns or {})},
        options=HttpOptions(**{name: value for name, value in given.items() if value is not None}),
    )


class Ledger:
    """A source that filters by ``created[gte]`` and ``created[lt]``, seconds since 1970; newest first, two to
    a page."""

    def __init__(self, *at: int) -> None:
        self.rows = [{"id": n, "updated_at": moment} for n, moment in enumerate(at)]

    def __call__(self, asked: Asked) -> Answer:
        low, high = int(asked.query["created[gte]"]), int(asked.query["created[lt]"])
        rows = sorted((r for r in self.rows if low <= r["updated_at"] < high), key=lambda r: -r["updated_at"])
        if after := asked.query.get("after"):
            rows = rows[1 + [str(r["id"]) for r in rows].index(after) :]
        return Answer(body={"data": rows[:2], "more": len(rows) > 2})


@dataclass
class Got:
    """What a fetch brought: the records' ids, in order, and all that the connector says."""

    fetched: Fetched
    records: list[Any]

    @property
    def ids(self) -> list[Any]:
        return [record["id"] for record in self.records]

    @property
    def cursor(self) -> Cursor | None:
        return self.fetched.cursor

    @property
    def detail(self) -> dict[str, Any]:
        return self.fetched.detail


def fetch(
    service: Service,
    stream: Stream,
    cursor: Cursor | None = None,
    *,
    day: int = 1,
    whole: bool = True,
    until: Cursor | None = None,
    patience: Patience = HASTY,
) -> Got:
    """Fetch one window.

    :param day: of July 2026, which is the window.
    :param whole: False: the window has no start.
    """
    span = window(day)
    connector = HttpConnector(Endpoint(service.url, timeout=5), patience=patience)
    with tempfile.TemporaryDirectory() as spool:
        fetched = connector.fetch(
            stream, cursor, span if whole else Window(None, span.end), Path(spool), until=until
        )
        lines = fetched.files[0].path.read_bytes().splitlines()
    return Got(fetched, [json.loads(line) for line in lines])
