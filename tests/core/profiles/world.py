# SPDX-License-Identifier: Apache-2.0
"""Small worlds: streams, rows and who they belong to, put straight into a warehouse."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from cdp_provider.core.project.base import Options
from cdp_provider.core.project.streams import Stream
from cdp_provider.core.run import Run, Window

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cdp_provider.core.warehouse import Warehouse

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)

EVENTS = Stream(
    source="web",
    name="events",
    primary_key=("id",),
    time="at",
    event="name",
    columns={
        "id": "string",
        "at": "timestamp",
        "name": "string",
        "s": "string",
        "i": "integer",
        "n": "number",
        "d": "decimal",
        "b": "boolean",
        "day": "date",
        "t": "timestamp",
        "j": "json",
    },
    options=Options(),
)
PEOPLE = Stream(
    source="crm",
    name="people",
    primary_key=("id",),
    time="at",
    columns={"id": "string", "at": "timestamp", "s": "string", "i": "integer", "b": "boolean"},
    options=Options(),
)
LIST = Stream(
    source="old",
    name="list",
    primary_key=("id",),
    columns={"id": "string", "s": "string", "i": "integer"},
    options=Options(),
)
STREAMS = (EVENTS, PEOPLE, LIST)

_ARROW = {
    "string": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "decimal": pa.decimal128(28, 6),
    "boolean": pa.bool_(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us", tz="UTC"),
    "json": pa.string(),
}
_PLACE = {"_load_id": "integer", "_position": "integer", "_load_seq": "integer"}


@dataclass(frozen=True)
class Row:
    """A row of a stream, where it lies, and the identifier that it hangs on (None for none)."""

    stream: str
    node: int | None
    values: Mapping[str, Any] = field(default_factory=dict)
    load_id: int = 1
    load_seq: int = 1
    position: int = 1


def event(node: int | None, **values: Any) -> Row:
    """An event, at noon of the day before now unless `at` says otherwise."""
    return Row("web.events", node, {"at": NOW - timedelta(days=1), **values})


def numbered(rows: Sequence[Row]) -> list[Row]:
    """The rows at different positions of the same load."""
    return [Row(r.stream, r.node, r.values, r.load_id, r.load_seq, n) for n, r in enumerate(rows, 1)]


def run(now: datetime = NOW, run_id: str = "run") -> Run:
    return Run("shop", run_id, Window(None, now))


def put(
    warehouse: Warehouse,
    rows: Sequence[Row],
    profiles: Mapping[int, int],
    streams: Sequence[Stream] = STREAMS,
) -> None:
    """Make the warehouse hold these rows and nothing else.

    :param profiles: node_id -> profile_id.
    """
    links = [
        {"stream": r.stream, "load_id": r.load_id, "position": r.position, "node_id": r.node} for r in rows
    ]
    people = [
        {"node_id": n, "type": "user_id", "value": f"u{n}", "profile_id": p, "resolved_seq": 1}
        for n, p in profiles.items()
    ]
    with warehouse.session() as session:
        for stream in streams:
            types = {name: column.type for name, column in stream.columns.items()} | _PLACE
            table = warehouse.table(stream.view)
            if not session.exists(stream.view):
                spec = ", ".join(f"{warehouse.quote(n)} {warehouse.types[k]}" for n, k in types.items())
                session.execute(f"create table {table} ({spec})")
            session.execute(f"delete from {table}")
            mine = [
                {**r.values, "_load_id": r.load_id, "_position": r.position, "_load_seq": r.load_seq}
                for r in rows
                if r.stream == stream.ref
            ]
            columns = {n: pa.array([row.get(n) for row in mine], _ARROW[k]) for n, k in types.items()}
            session.load(table, pa.table(columns))
        for table, content in (("row_links", [x for x in links if x["node_id"]]), ("identifiers", people)):
            session.execute(f"delete from {warehouse.table(table)}")
            if content:
                session.load(warehouse.table(table), pa.Table.from_pylist(content))


def fetch(warehouse: Warehouse, sql: str) -> list[dict[str, Any]]:
    with warehouse.session() as session:
        return session.arrow(sql).to_pylist()


def profile_rows(warehouse: Warehouse) -> dict[int, dict[str, Any]]:
    """The table ``profiles`` by profile id; values as the driver gives them."""
    with warehouse.session() as session:
        names = list(session.columns("profiles"))
        chosen = ", ".join(warehouse.quote(name) for name in names)
        rows = session.fetch(f"select {chosen} from {warehouse.table('profiles')}")
    return {row[0]: dict(zip(names, row, strict=True)) for row in rows}
