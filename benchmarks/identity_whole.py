# SPDX-License-Identifier: Apache-2.0
"""The whole of identity resolution: from landed rows with text identifiers to finished tables, limits on; and
the same for one per cent of new rows on top. Part of ``bench_identity.py``."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from benchmarks.identity_data import KINDS, LIMITS, as_rows, edges, more_edges
from cdp_provider.core import tables
from cdp_provider.core.identity.resolve import resolve
from cdp_provider.core.project.base import Options
from cdp_provider.core.project.identity import Identifier, Identity
from cdp_provider.core.project.streams import Column, Stream
from cdp_provider.core.run import Run, Window

if TYPE_CHECKING:
    from cdp_provider.core.runs import Report
    from cdp_provider.core.warehouse import Warehouse

IDENTITY = Identity(
    identifiers={
        kind: Identifier(priority=rank, limit=limit, normalize="email" if kind == "email" else "trim")
        for rank, (kind, limit) in enumerate(zip(KINDS, LIMITS, strict=True), 1)
    }
)
STREAM = Stream(
    source="bench",
    name="rows",
    primary_key=("key",),
    time="at",
    columns={"key": Column(), "at": Column(type="timestamp"), **{kind: Column() for kind in KINDS}},
    identifiers={kind: (kind,) for kind in KINDS},
    options=Options(),
)
_FIRST = datetime(2026, 6, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Resolved:
    """Seconds, and what the run says of itself."""

    seconds: float
    detail: dict[str, object]


def land(warehouse: Warehouse, count: int) -> None:
    """Batch 1: about `count` rows; batch 2, not checked yet: one per cent more."""
    left, right, kinds = edges(count)
    with warehouse.session() as session:
        tables.ensure(session)
        types = {"at": warehouse.types["timestamp"]}
        spec = ", ".join(
            f"{warehouse.quote(name)} {types.get(name, warehouse.types['string'])}" for name in STREAM.columns
        )
        session.execute(
            f"create table {warehouse.table(STREAM.raw_table)} ({spec}, _load_id bigint, _position bigint)"
        )
        _load(warehouse, 1, as_rows(left, right, kinds), "passed")
        more = more_edges(left, right, kinds, count // 100)
        _load(warehouse, 2, as_rows(*more, first=len(left)), "landed")
        session.analyze(warehouse.table(STREAM.raw_table))


def _load(warehouse: Warehouse, load_id: int, rows: pa.Table, state: str) -> None:
    places = {
        "_load_id": pa.array(np.full(len(rows), load_id)),
        "_position": pa.array(np.arange(1, len(rows) + 1)),
    }
    for name, column in places.items():
        rows = rows.append_column(name, column)
    with warehouse.session() as session, session.transaction():
        session.load(warehouse.table(STREAM.raw_table), rows)
        session.execute(
            f"insert into {warehouse.table('loads')} (load_id, load_seq, batch_id, pipeline, stream, run_id,"
            " window_end, rows_read, rows_landed, rows_quarantined, bytes, content_hash, state) values"
            " (:id, :id, 'batch', 'bench', :stream, 'run', :end, :rows, :rows, 0, 0, 'hash', :state)",
            {"id": load_id, "stream": STREAM.ref, "end": _FIRST, "rows": len(rows), "state": state},
        )


def first(warehouse: Warehouse) -> Resolved:
    """The first run over all rows."""
    return _resolve(warehouse, 1)


def daily(warehouse: Warehouse) -> Resolved:
    """The run over one per cent more."""
    with warehouse.session() as session:
        session.execute(f"update {warehouse.table('loads')} set state = 'passed' where state = 'landed'")
    return _resolve(warehouse, 2)


def _resolve(warehouse: Warehouse, day: int) -> Resolved:
    run = Run("bench", f"day_{day}", Window(None, _FIRST + timedelta(days=day)))
    started = time.perf_counter()
    report: Report = resolve(warehouse, IDENTITY, [STREAM], run)
    return Resolved(time.perf_counter() - started, report.detail)
