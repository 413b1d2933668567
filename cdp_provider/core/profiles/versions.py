# SPDX-License-Identifier: Apache-2.0
"""Rows of a stream as they were landed, in all their versions, with the identifier that each hangs on."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cdp_provider.core.exceptions import ConfigurationError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cdp_provider.core.project.streams import Stream
    from cdp_provider.core.warehouse import Session, Warehouse

#: What an order key has room for.
_MOST_SEQS = 2**24
_MOST_OFFSETS = 2**14


class Load(NamedTuple):
    """A batch.

    :param offset: of its id, from the first one of the same window.
    """

    load_id: int
    load_seq: int
    offset: int
    resolved_seq: int
    rows: int


def lies_ready(session: Session, stream: Stream) -> bool:
    """Whether there are raw rows; not for an optional stream that was never landed.

    :raises NotFoundError: the stream, or columns of it, were never landed, and it is not optional.
    """
    present = session.columns(stream.raw_table)
    missing = [name for name in stream.columns if name not in present]
    if present and not missing:
        return True
    if stream.optional:
        return False
    what = f"its columns {', '.join(missing)}" if present else "it"
    msg = (
        f"the stream {stream.ref} is needed, but {what} was never landed; land it first,"
        " or mark the stream as optional"
    )
    raise NotFoundError(msg)


def loads_of(session: Session, stream: Stream) -> list[Load]:
    """The batches whose rows identity has taken in as they stand, by their id.

    One that was landed again with the same content and waits for its check is among them: it keeps what it
    said until then.

    :raises ConfigurationError: there are more than an order has room for.
    """
    found = session.fetch(
        "select load_id, load_seq, load_id - min(load_id) over (partition by load_seq), resolved_seq,"
        " rows_landed"
        f" from {session.warehouse.table('loads')} where stream = :ref and state <> 'failed'"
        " and resolved_hash = content_hash order by load_id",
        {"ref": stream.ref},
    )
    loads = [Load(*row) for row in found]
    if any(load.load_seq >= _MOST_SEQS or load.offset >= _MOST_OFFSETS for load in loads):
        msg = (
            f"the stream {stream.ref} has more than {_MOST_SEQS} windows, or batches of one window"
            f" whose numbers lie more than {_MOST_OFFSETS} apart, and its rows can't be ordered; give the"
            " project a schema of its own"
        )
        raise ConfigurationError(msg)
    return loads


def time_of(warehouse: Warehouse, stream: Stream, alias: str) -> str:
    """SQL of a row's time."""
    if stream.time is None:
        return f"cast(null as {warehouse.types['timestamp']})"
    return f"{alias}.{warehouse.quote(stream.time)}"


def ordering_time(warehouse: Warehouse, stream: Stream, alias: str) -> str:
    """SQL of the time by which a row counts; null where the order of arrival alone does."""
    if stream.options.by_arrival():
        return f"cast(null as {warehouse.types['timestamp']})"
    return time_of(warehouse, stream, alias)


def still_there(warehouse: Warehouse, stream: Stream, alias: str) -> str:
    """SQL condition on a version of a row: it does not say that the row is gone."""
    if not stream.options.by_arrival():
        return "true"
    return (
        f"not exists (select 1 from {warehouse.table(stream.raw_table)} d"
        f' where d."_load_id" = {alias}."_load_id" and d."_position" = {alias}."_position"'
        ' and d."_deleted" is true)'
    )


def visible(warehouse: Warehouse, stream: Stream, now: str = ":linked_now") -> str:
    """SQL condition: a raw row ``r`` has happened, or nobody knows when.

    :param now: SQL; a parameter unless given.
    """
    if stream.time is None or stream.options.by_arrival():
        return "true"
    time = time_of(warehouse, stream, "r")
    return f"({time} < cast({now} as {warehouse.types['timestamp']}) or {time} is null)"


def versions(
    warehouse: Warehouse, stream: Stream, loads: Sequence[Load], condition: str, ref: str = ":linked_ref"
) -> str:
    """A select of all rows of some batches: the stream's columns, ``_load_id``, ``_position``, ``_node_id``,
    ``_order`` (see :meth:`Warehouse.order_key`) and ``_key``, a hash of the primary key.

    :param condition: SQL on the raw rows ``r``.
    :param ref: SQL of the stream's reference; a parameter unless given.
    """
    quote = warehouse.quote
    time = ordering_time(warehouse, stream, "r")
    order = warehouse.order_key(time, "l.load_seq", 'l."offset"', 'r."_position"')
    chosen = [f"r.{quote(name)}" for name in stream.columns]
    hashed = warehouse.key_hash([f"r.{quote(key)}" for key in stream.primary_key])
    chosen += ['r."_load_id"', 'r."_position"', 'k.node_id as "_node_id"', f'{order} as "_order"']
    chosen.append(f'{hashed} as "_key"')
    listed = ", ".join(f"({load.load_id}, {load.load_seq}, {load.offset})" for load in loads) or "(0, 0, 0)"
    ids = ", ".join(str(load.load_id) for load in loads) or "0"
    return (
        f"select {', '.join(chosen)} from {warehouse.table(stream.raw_table)} r"
        f' join (values {listed}) l(load_id, load_seq, "offset") on l.load_id = r."_load_id"'
        f" left join (select load_id, position, node_id from {warehouse.table('row_links')}"
        f" where stream = {ref} and load_id in ({ids})) k"
        ' on k.load_id = r."_load_id" and k.position = r."_position"'
        f' where r."_load_id" in ({ids}) and {condition}'
    )


def columns_of(warehouse: Warehouse, stream: Stream) -> list[str]:
    """The stream's columns, quoted."""
    return [warehouse.quote(name) for name in stream.columns]


def rows_sql(warehouse: Warehouse, stream: Stream, table: str, columns: Sequence[str]) -> str:
    """A select of linked rows by profile: ``_profile_id``, ``_time``, ``_order``, columns.

    :param table: it, quoted, or a select in parentheses with its columns.
    :param columns: quoted.
    """
    chosen = ['i.profile_id as "_profile_id"', f'{time_of(warehouse, stream, "t")} as "_time"', 't."_order"']
    chosen += [f"t.{name}" for name in columns]
    return (
        f"select {', '.join(chosen)} from {table} t"
        f' join {warehouse.table("identifiers")} i on i.node_id = t."_node_id"'
    )
