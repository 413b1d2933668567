# SPDX-License-Identifier: Apache-2.0
"""Values that no column of the contract takes.

Where it says ``drift: evolve``, they get columns of text: text takes whatever comes later, so a column never
splits, and no value of it is ever lost for its type. Where it says ``freeze``, they fail the batch.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cdp_provider.core.ingest.raw import OWN
from cdp_provider.core.ingest.results import Result, of_batch
from cdp_provider.core.project.base import COLUMN_PATTERN
from cdp_provider.core.project.streams import Column

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cdp_provider.core.ingest.results import Load
    from cdp_provider.core.project.streams import Stream
    from cdp_provider.core.warehouse import Session

_NAME = re.compile(COLUMN_PATTERN)
#: A source whose keys are data would give a table without end; beyond it, keys stay in ``_extra``.
_MOST = 200
_LONGEST = 60


def evolved(session: Session, stream: Stream) -> tuple[str, ...]:
    """Columns that earlier batches have given the raw table."""
    if stream.contract.drift != "evolve":
        return ()
    there = session.columns(stream.raw_table)
    return tuple(name for name in there if name not in stream.columns and name not in OWN)


def widened(stream: Stream, names: Sequence[str]) -> Stream:
    """The stream with columns for these keys, too."""
    if not names:
        return stream
    return stream.model_copy(update={"columns": {**stream.columns, **{name: Column() for name in names}}})


def evolve(session: Session, stream: Stream, unknown: Sequence[str], load_id: int) -> list[str]:
    """Give keys that came with a batch for the first time a column each, and move their values there.

    Call it inside the batch's transaction.

    :returns: the new columns. A key that is no name of a column, or one of a column but for upper and lower
        case, stays in ``_extra``.
    """
    if stream.contract.drift != "evolve":
        return []
    warehouse, table = session.warehouse, session.warehouse.table(stream.raw_table)
    there = session.columns(stream.raw_table)
    # Of names that differ in upper and lower case only, the first.
    fit = {name.lower(): name for name in reversed(unknown) if _NAME.match(name) and len(name) <= _LONGEST}
    taken = {name.lower() for name in there}
    new = sorted(name for lower, name in fit.items() if lower not in taken)[: max(0, _MOST - len(there))]
    if not new:
        return []
    for name in new:
        session.execute(f"alter table {table} add column {warehouse.quote(name)} {warehouse.types['string']}")
    keys = {f"key_{i}": name for i, name in enumerate(new)}
    moved = ", ".join(
        f"{warehouse.quote(name)} = {warehouse.json_text('_extra', ':' + key)}" for key, name in keys.items()
    )
    rest = warehouse.json_without("_extra", [f":{key}" for key in keys])
    session.execute(
        f"update {table} set {moved}, _extra = {rest} where _load_id = :load_id and _extra is not null",
        {**keys, "load_id": load_id},
    )
    return new


def frozen_results(session: Session, stream: Stream, load: Load) -> Iterator[Result]:
    """The result of a contract that takes nothing beyond its columns."""
    if stream.contract.drift != "freeze":
        return
    rows = session.scalar(
        f"select count(*) from {session.warehouse.table(stream.raw_table)}"
        " where _load_id = :load_id and _extra is not null",
        {"load_id": load.load_id},
    )
    fault = (
        f"{rows} rows hold keys that no column takes; the landing's report names them (unknown_keys). Declare"
        " them as columns, or let contract.drift keep them"
    )
    yield of_batch("drift", "drift", "fail", load.rows_landed, fault if rows else None)
