# SPDX-License-Identifier: Apache-2.0
"""A stream's raw table and its view: how they follow the contract as it grows."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cdp_provider.core.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cdp_provider.core.project.streams import Stream
    from cdp_provider.core.warehouse import Session, Warehouse

#: What a raw table has besides the stream's columns.
OWN = {"_load_id": "integer", "_position": "integer", "_extra": "json", "_deleted": "boolean"}


def check(session: Session, stream: Stream) -> None:
    """Refuse a contract that the raw table cannot follow, before anything is fetched for it.

    :raises ConfigurationError: a column has changed its type.
    """
    existing = session.columns(stream.raw_table)
    for name, wanted in _types(session.warehouse, stream).items():
        if name in existing and _plain(existing[name]) != _plain(wanted):
            declared = stream.columns[name].type if name in stream.columns else wanted
            msg = (
                f"column {name!r} of {stream.ref} is now declared as {declared}, but the table"
                f" {stream.raw_table} holds it as {existing[name]}; give the column another name (its path"
                " may stay), or drop the table and its loads and land everything again"
            )
            raise ConfigurationError(msg)


def ensure(session: Session, stream: Stream, also: Sequence[str] = ()) -> None:
    """Create the raw table and its view, or add what the contract has gained. Call it inside a transaction.

    A column that the contract lost stays in the table, is null in new rows and leaves the view.

    :param also: columns of the raw table that the view has, too.
    """
    warehouse = session.warehouse
    types = _types(warehouse, stream)
    existing = session.columns(stream.raw_table)
    table = warehouse.table(stream.raw_table)
    if not existing:
        spec = ", ".join(f"{warehouse.quote(name)} {kind}" for name, kind in types.items())
        session.execute(f"create table {table} ({spec})")
    for name, kind in types.items():
        if existing and name not in existing:
            session.execute(f"alter table {table} add column {warehouse.quote(name)} {kind}")
    # The last one says how its rows are ordered: the view is made anew when that changes.
    last = "_arrived" if stream.options.by_arrival() else "_load_seq"
    wanted = [*stream.columns, *also, "_load_id", "_position", last]
    if list(session.columns(stream.view)) != wanted:
        view = warehouse.table(stream.view)
        session.execute(f"drop view if exists {view}")
        session.execute(f"create view {view} as {newest_rows(warehouse, stream, wanted)}")


def newest_rows(
    warehouse: Warehouse, stream: Stream, wanted: Sequence[str], of: str = "l.state = 'passed'"
) -> str:
    """A select of the newest row per primary key, unless it says that the row is gone.

    :param wanted: columns.
    :param of: SQL condition on batches ``l``; those that passed their check unless given.
    """
    columns = ", ".join(map(warehouse.quote, wanted))
    key = ", ".join(f"r.{warehouse.quote(name)}" for name in stream.primary_key)
    if stream.options.by_arrival():
        return (
            f"select {columns} from (select r.*, l.load_seq as _arrived,"
            f" row_number() over (partition by {key}"
            " order by l.load_seq desc, r._load_id desc, r._position desc) as _rank"
            f" from {warehouse.table(stream.raw_table)} r"
            f" join {warehouse.table('loads')} l on l.load_id = r._load_id"
            f" where {of}) ranked where _rank = 1 and _deleted is not true"
        )
    time = f"r.{warehouse.quote(stream.time)} desc nulls last, " if stream.time else ""
    return (
        f"select {columns} from (select r.*, l.load_seq as _load_seq, row_number() over (partition by {key}"
        f" order by {time}l.load_seq desc, r._load_id desc, r._position desc) as _rank"
        f" from {warehouse.table(stream.raw_table)} r"
        f" join {warehouse.table('loads')} l on l.load_id = r._load_id"
        f" where {of}) ranked where _rank = 1"
    )


def _types(warehouse: Warehouse, stream: Stream) -> dict[str, str]:
    declared = {name: warehouse.types[column.type] for name, column in stream.columns.items()}
    gone = stream.options.by_arrival()
    own = {name: kind for name, kind in OWN.items() if gone or name != "_deleted"}
    return declared | {name: warehouse.types[kind] for name, kind in own.items()}


def _plain(engine_type: str) -> str:
    """A type without what catalogues spell in several ways."""
    return re.sub(r"\(.*\)|\s", "", engine_type.lower())
