# SPDX-License-Identifier: Apache-2.0
"""Where raw rows came from: their keys, and the runs that landed them and took them in."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

from cdp_provider.core.identity import fuzzy, history
from cdp_provider.core.identity.explanation import Row

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from cdp_provider.core.project.identity import Identity
    from cdp_provider.core.project.streams import Stream
    from cdp_provider.core.warehouse import Session


class Place(NamedTuple):
    """Where a raw row lies."""

    stream: str
    load_id: int
    position: int


def rows(
    session: Session, identity: Identity, streams: Sequence[Stream], places: Collection[Place]
) -> dict[Place, Row]:
    """The rows that lie there; all are to be there, and of one of these streams."""
    if not places:
        return {}
    columns = dict(zip(Place._fields, map(list, zip(*places, strict=True)), strict=True))
    wanted = session.temp("cdp_wanted_rows", pa.table(columns))
    loads = {load.load_id: load for load in history.loads_of(session, wanted)}
    landed = _landed(session, wanted)
    found = {}
    for raw in history.read(session, loads.values(), streams, identity, wanted):
        keys = [name for name in raw.table.column_names if name.startswith("key_")]
        for line in raw.table.to_pylist():
            load = loads[line["load_id"]]
            found[Place(load.stream, load.load_id, line["position"])] = Row(
                load.stream,
                tuple(str(line[name]) for name in keys),
                load.load_id,
                line["position"],
                line["at"] if isinstance(line["at"], datetime) else None,
                load.resolved_seq or 0,
                *landed[load.load_id],
            )
    return found


def _landed(session: Session, rows: str) -> dict[int, tuple[Any, ...]]:
    """Batch -> ``pipeline``, ``run_id``, ``window_start``, ``window_end``."""
    lines = session.fetch(
        "select load_id, pipeline, run_id, window_start, window_end"
        f" from {session.warehouse.table('loads')} where load_id in (select load_id from {rows})"
    )
    return {load_id: tuple(told) for load_id, *told in lines}


def pairs(session: Session, rows: Iterable[Row]) -> dict[tuple[str, ...], dict[str, Any]]:
    """Primary key of an accepted fuzzy link -> ``score``, ``evidence``, ``decided_by``.

    Rows of other streams are passed over.
    """
    table = session.warehouse.table(fuzzy.TABLE)
    found = {}
    for row in rows:
        if row.stream == f"cdp.{fuzzy.TABLE}":
            line = session.one(
                f"select score, evidence, decided_by from {table} where pair = :pair", {"pair": row.key[0]}
            )
            found[row.key] = dict(zip(("score", "evidence", "decided_by"), line or (), strict=False))
    return found
