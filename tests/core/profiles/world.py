# SPDX-License-Identifier: Apache-2.0
"""Small worlds: streams, raw rows and who they belong to, put straight into a warehouse."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from cdp_provider.core import tables
from cdp_provider.core.ingest import raw
from cdp_provider.core.project.base import Options
from cdp_provider.core.project.streams import Stream
from cdp_provider.core.run import Run, Window

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cdp_provider.core.warehouse import Session, Warehouse

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)

EVENTS = Stream(
    source="web",
    name="events",
    primary_key=("id",),
    time="at",
    event="name",
    columns={
        "id": "string",
        "uid": "string",
        "cookie": "string",
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
    identifiers={"user_id": "uid", "cookie": "cookie"},
    options=Options(),
)
PEOPLE = Stream(
    source="crm",
    name="people",
    primary_key=("id",),
    time="at",
    columns={
        "id": "string",
        "uid": "string",
        "at": "timestamp",
        "s": "string",
        "i": "integer",
        "b": "boolean",
    },
    identifiers={"user_id": "uid"},
    options=Options(),
)
LIST = Stream(
    source="old",
    name="list",
    primary_key=("id",),
    columns={"id": "string", "uid": "string", "s": "string", "i": "integer"},
    identifiers={"user_id": "uid"},
    options=Options(),
)
#: Without identifiers: its rows are nobody's, and are reached by their columns.
ITEMS = Stream(
    source="shop",
    name="items",
    primary_key=("id",),
    time="at",
    columns={
        "id": "string",
        "at": "timestamp",
        "ref": "string",
        "s": "string",
        "i": "integer",
        "b": "boolean",
    },
    options=Options(),
)
STREAMS = (EVENTS, PEOPLE, LIST, ITEMS)
#: Columns that say who or which a row is, not what it says.
NAMES = ("id", "uid", "cookie")

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


@dataclass(frozen=True)
class Row:
    """A raw row of a stream, where it lies, and the identifier that it hangs on (None for none).

    :param passed: whether its batch passed its check.
    """

    stream: str
    node: int | None
    values: Mapping[str, Any] = field(default_factory=dict)
    load_id: int = 1
    load_seq: int = 1
    position: int = 1
    passed: bool = True


def event(node: int | None, **values: Any) -> Row:
    """An event, at noon of the day before now unless `at` says otherwise."""
    return Row("web.events", node, {"at": NOW - timedelta(days=1), **values})


def numbered(rows: Sequence[Row]) -> list[Row]:
    """The rows at different positions of the same load."""
    return [replace(row, position=n) for n, row in enumerate(rows, 1)]


def run(now: datetime = NOW, run_id: str = "run") -> Run:
    return Run("shop", run_id, Window(None, now))


def landed(rows: Iterable[Row]) -> list[Row]:
    """The rows as they lie in the warehouse: each with a key, and no batch with rows of two streams.

    Of the streams that share a batch, the first one in the order of the project keeps its id.
    """
    rows = list(rows)
    of = {load: sorted({_place(r) for r in rows if r.load_id == load}) for load in {r.load_id for r in rows}}
    found = []
    for row in rows:
        shift = 1000 * of[row.load_id].index(_place(row))
        key = f"k{row.load_id}_{row.position}"
        found.append(replace(row, load_id=row.load_id + shift, values={"id": key, **row.values}))
    return found


def _place(row: Row) -> int:
    return [stream.ref for stream in STREAMS].index(row.stream)


def put(
    warehouse: Warehouse,
    rows: Sequence[Row],
    profiles: Mapping[int, int],
    streams: Sequence[Stream] = STREAMS,
) -> None:
    """Make the warehouse hold these rows and nothing else, as if identity had replayed such a history.

    :param profiles: node_id -> profile_id.
    """
    with warehouse.session() as session, session.transaction():
        seq = next_seq(session)
        for table in ("loads", "row_links", "identifiers", "merges", "splits"):
            session.execute(f"delete from {warehouse.table(table)}")
        for stream in streams:
            raw.ensure(session, stream)
            session.execute(f"delete from {warehouse.table(stream.raw_table)}")
        add_rows(session, landed(rows), seq)
        add_identifiers(session, profiles, seq)
        add_run(session, seq, replayed=True)


def next_seq(session: Session) -> int:
    """The number of the next identity run."""
    return (
        session.scalar(f"select max(resolved_seq) from {session.warehouse.table('identity_runs')}") or 0
    ) + 1


def add_rows(session: Session, rows: Sequence[Row], seq: int | None, end: datetime = NOW) -> None:
    """Batches as identity run `seq` leaves them (None: before it): raw rows, ``loads``, ``row_links``."""
    for ref in dict.fromkeys(row.stream for row in rows):
        stream = next(stream for stream in STREAMS if stream.ref == ref)
        mine = [row for row in rows if row.stream == ref]
        records = [
            {
                "uid": f"u{row.node}" if row.node else None,
                **row.values,
                "_load_id": row.load_id,
                "_position": row.position,
            }
            for row in mine
        ]
        types = {name: column.type for name, column in stream.columns.items()}
        types |= {"_load_id": "integer", "_position": "integer"}
        columns = {n: pa.array([record.get(n) for record in records], _ARROW[k]) for n, k in types.items()}
        session.load(session.warehouse.table(stream.raw_table), pa.table(columns))
    loads = {row.load_id: row for row in rows}
    fill(session, "loads", [_load(row, rows, seq, end) for row in loads.values()])
    add_links(session, rows)


def _load(row: Row, rows: Sequence[Row], seq: int | None, end: datetime) -> dict[str, Any]:
    count = sum(other.load_id == row.load_id for other in rows)
    content = repr([other for other in rows if other.load_id == row.load_id])
    return {
        "load_id": row.load_id,
        "load_seq": row.load_seq,
        "batch_id": f"batch_{row.load_id}",
        "pipeline": "shop",
        "stream": row.stream,
        "run_id": "run",
        "window_end": end,
        **dict.fromkeys(("rows_read", "rows_landed"), count),
        "rows_quarantined": 0,
        "bytes": 0,
        "content_hash": content,
        "state": "passed" if row.passed else "failed",
        "resolved_seq": seq if row.passed else None,
        "resolved_hash": content if row.passed and seq else None,
    }


def add_links(session: Session, rows: Sequence[Row]) -> None:
    links = [
        {"stream": r.stream, "load_id": r.load_id, "position": r.position, "node_id": r.node}
        for r in rows
        if r.node and r.passed
    ]
    fill(session, "row_links", links)


def add_identifiers(session: Session, profiles: Mapping[int, int], seq: int) -> None:
    fill(
        session,
        "identifiers",
        [
            {
                "node_id": node,
                "type": "user_id",
                "value": f"u{node}",
                "profile_id": profile,
                "resolved_seq": seq,
                "published_seq": seq if node == profile else None,
            }
            for node, profile in profiles.items()
        ],
    )


def add_run(
    session: Session, seq: int, *, replayed: bool = False, relinked: bool = False, end: datetime = NOW
) -> None:
    """A line of ``identity_runs``, and the word to profiles that rows hang on other identifiers now."""
    if replayed or relinked:
        session.execute(f"update {session.warehouse.table('linked')} set fingerprint = ''")
    numbers = dict.fromkeys(
        ("rows_in", "rows_without_identifier", "identifiers", "new_identifiers", "profiles", "new_profiles"),
        0,
    )
    fill(
        session,
        "identity_runs",
        [
            {
                **{"pipeline": "shop", "run_id": f"identity_{seq}", "resolved_seq": seq, "window_end": end},
                **{"replayed": replayed, "rules": "-", **numbers, "merged": 0, "split": 0},
                **dict.fromkeys(("refused", "sizes", "largest"), "{}"),
            }
        ],
    )


def fill(session: Session, table: str, lines: Sequence[Mapping[str, Any]]) -> None:
    """Append to one of the product's tables; columns that are left out are null."""
    types = {name: _ARROW[kind.rstrip("!")] for name, kind in tables.TABLES[table].items()}
    columns = {name: pa.array([line.get(name) for line in lines], kind) for name, kind in types.items()}
    session.load(session.warehouse.table(table), pa.table(columns))


def clear(warehouse: Warehouse) -> None:
    """Make the warehouse as new, but for the raw tables, which stay and are empty."""
    ours = [stream.raw_table for stream in STREAMS]
    made = (
        "select table_name from information_schema.tables"
        " where table_schema = :schema and table_type <> 'VIEW'"
    )
    with warehouse.session() as session:
        names = {name for (name,) in session.fetch(made, {"schema": warehouse.schema})}
        for view in [stream.view for stream in STREAMS] + ["field_provenance"]:
            session.execute(f"drop view if exists {warehouse.table(view)}")
        for name in names - tables.TABLES.keys() - {"product", *ours}:
            session.execute(f"drop table {warehouse.table(name)}")
        for name in names & {*tables.TABLES, *ours}:
            session.execute(f"delete from {warehouse.table(name)}")
        for stream in STREAMS:
            raw.ensure(session, stream)


def fetch(warehouse: Warehouse, sql: str) -> list[dict[str, Any]]:
    with warehouse.session() as session:
        return session.arrow(sql).to_pylist()


def table_rows(warehouse: Warehouse, table: str) -> list[dict[str, Any]]:
    """All rows of a table; values as the driver gives them."""
    with warehouse.session() as session:
        names = list(session.columns(table))
        chosen = ", ".join(warehouse.quote(name) for name in names)
        rows = session.fetch(f"select {chosen} from {warehouse.table(table)}")
    return [dict(zip(names, row, strict=True)) for row in rows]


def profile_rows(warehouse: Warehouse, table: str = "profiles") -> dict[int, dict[str, Any]]:
    """A table of profiles by profile id."""
    return {row["profile_id"]: row for row in table_rows(warehouse, table)}
