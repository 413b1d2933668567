# SPDX-License-Identifier: Apache-2.0
"""The rows of a stream as profiles see them: the newest per primary key, with the identifier it hangs on.

They are kept in a table, ``linked_<source>__<stream>``, because finding the newest row of each key among
all raw rows costs more than all that is computed from them. A run appends what became known or visible
since: rows of batches that identity took in, and rows whose time has come. A row leaves when a newer one
with its key comes; ``unlinked`` says which identifier lost it.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, NamedTuple

from cdp_provider.core.profiles.versions import (
    Load,
    columns_of,
    lies_ready,
    loads_of,
    still_there,
    time_of,
    versions,
    visible,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from cdp_provider.core.project.streams import Stream
    from cdp_provider.core.warehouse import Session

_INCOMING = '"cdp_incoming_rows"'
_BEATEN = '"cdp_beaten_rows"'
#: What a table has behind the stream's columns.
_OWN = ("_load_id", "_position", "_node_id", "_order", "_key", "_linked")
#: About so many rows are linked at a time.
_PORTION = 2_000_000


def table_of(stream: Stream) -> str:
    """The table's unquoted name."""
    return f"linked_{stream.view}"


class _State(NamedTuple):
    linked_seq: int
    window_end: datetime
    fingerprint: str
    resolved_seq: int
    rebuilt_seq: int
    waiting: frozenset[int]


def seqs(session: Session) -> dict[str, tuple[int, int]]:
    """Stream -> how often its rows were brought up to date, and when that last made all of them anew."""
    table = session.warehouse.table("linked")
    return {
        row[0]: (row[1], row[2])
        for row in session.fetch(f"select stream, linked_seq, rebuilt_seq from {table}")
    }


def refresh(session: Session, stream: Stream, now: datetime) -> bool:
    """Bring a stream's linked rows up to `now`. Call it inside a transaction, under the lock ``linked``.

    :param now: where it lies before that of the last time, all rows are made anew.
    :returns: whether there is a table; not for an optional stream that was never landed.
    :raises NotFoundError: the stream, or columns of it, were never landed, and it is not optional.
    """
    if not lies_ready(session, stream):
        return False
    state = _state(session, stream)
    loads = loads_of(session, stream)
    fingerprint = _fingerprint(stream)
    seq = state.linked_seq + 1 if state else 1
    stands = state is not None and state.fingerprint == fingerprint and state.window_end <= now
    if state is None or not stands or not session.exists(table_of(stream)):
        _make(session, stream, loads, now, seq)
        rebuilt, fresh = seq, loads
    else:
        rebuilt = state.rebuilt_seq
        fresh = [load for load in loads if load.resolved_seq > state.resolved_seq]
        again = [load for load in loads if load.load_id in state.waiting and load not in fresh]
        if not fresh and not (again and now > state.window_end):
            fresh, seq = [], state.linked_seq
        else:
            _append(session, stream, fresh, again, state.window_end, now, seq)
    known = {load.load_id for load in loads}
    candidates = {load.load_id for load in fresh} | ((state.waiting if state else frozenset()) & known)
    waiting = _waiting(session, stream, candidates, now)
    newest = max((load.resolved_seq for load in loads), default=0)
    _remember(session, stream, _State(seq, now, fingerprint, newest, rebuilt, waiting))
    return True


def speaks_of(session: Session, stream: Stream, now: datetime) -> bool:
    """Whether the stream's table holds its rows as of that moment."""
    state = _state(session, stream)
    return state is not None and state.window_end == now and state.fingerprint == _fingerprint(stream)


def _state(session: Session, stream: Stream) -> _State | None:
    row = session.one(
        "select linked_seq, window_end, fingerprint, resolved_seq, rebuilt_seq, waiting"
        f" from {session.warehouse.table('linked')} where stream = :ref",
        {"ref": stream.ref},
    )
    if row is None:
        return None
    seq, window_end, fingerprint, resolved, rebuilt, waiting = row
    return _State(seq, window_end, fingerprint, resolved, rebuilt, frozenset(json.loads(waiting)))


def _remember(session: Session, stream: Stream, state: _State) -> None:
    table = session.warehouse.table("linked")
    values = {**state._asdict(), "waiting": json.dumps(sorted(state.waiting)), "stream": stream.ref}
    session.execute(f"delete from {table} where stream = :stream", values)
    names = ", ".join(values)
    session.execute(
        f"insert into {table} ({names}) values ({', '.join(':' + name for name in values)})", values
    )


def _fingerprint(stream: Stream) -> str:
    columns = {name: column.type for name, column in stream.columns.items()}
    text = json.dumps([columns, stream.primary_key, stream.time, stream.options.by_arrival()])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _make(session: Session, stream: Stream, loads: Sequence[Load], now: datetime, seq: int) -> None:
    """All rows anew, in portions of whole batches: a join of all of them takes more memory and time."""
    warehouse = session.warehouse
    name, table = table_of(stream), warehouse.table(table_of(stream))
    values = {"linked_ref": stream.ref, "linked_now": now}
    session.index(stream.raw_table, "_load_id", clustered=True)
    session.index("row_links", "load_id", clustered=True)
    beaten = _find_beaten(session, stream, loads, values)
    if list(session.columns(name)) == [*stream.columns, *_OWN]:
        # The view of provenance, and what others have built on it, reads this table.
        session.execute(f"truncate table {table}")
        into = f"insert into {table}"
    else:
        session.execute(f"drop view if exists {warehouse.table('field_provenance')}")
        session.execute(f"drop table if exists {table}")
        into = f"create table {table} as"
    for portion in _portions(loads):
        rows = versions(warehouse, stream, portion, visible(warehouse, stream))
        session.execute(
            f'{into} select r.*, cast({seq} as bigint) as "_linked" from ({rows}) r{beaten}', values
        )
        into = f"insert into {table}"
    session.execute(f"delete from {warehouse.table('unlinked')} where stream = :ref", {"ref": stream.ref})
    for column in ("_node_id", "_key"):
        session.index(name, column)
    for column in filter(None, (stream.time, "_linked")):
        session.index(name, column, clustered=True)
    session.analyze(table)


def _portions(loads: Sequence[Load]) -> Iterator[list[Load]]:
    """Batches of some million rows together; one empty portion where there are none."""
    portion: list[Load] = []
    rows = 0
    for load in loads:
        if portion and rows + load.rows > _PORTION:
            yield portion
            portion, rows = [], 0
        portion.append(load)
        rows += load.rows
    yield portion


def _find_beaten(session: Session, stream: Stream, loads: Sequence[Load], values: Mapping[str, Any]) -> str:
    """Find the rows that have a newer one with their key, and deletions; returns a condition that leaves
    them out.

    Keys with several rows are found first: most streams have few, and events none.
    """
    warehouse = session.warehouse
    ids = ", ".join(str(load.load_id) for load in loads) or "0"
    hashed = warehouse.key_hash([f"r.{warehouse.quote(key)}" for key in stream.primary_key])
    happened = visible(warehouse, stream)
    session.execute('drop table if exists "cdp_repeated_keys"')
    session.execute(
        f'create temporary table "cdp_repeated_keys" as select {hashed} as "hash"'
        f' from {warehouse.table(stream.raw_table)} r where r."_load_id" in ({ids}) and {happened}'
        " group by 1 having count(*) > 1",
        values,
    )
    none_repeated = not session.scalar('select count(*) from "cdp_repeated_keys"')
    if none_repeated and not stream.options.by_arrival():
        return ""
    session.analyze('"cdp_repeated_keys"')
    keys = ", ".join(warehouse.quote(key) for key in stream.primary_key)
    session.execute(f"drop table if exists {_BEATEN}")
    session.execute(
        f'create temporary table {_BEATEN} as select "_load_id", "_position" from ('
        f'select "_load_id", "_position", row_number() over (partition by {keys}'
        f' order by "_order" desc) as "_rank" from ({versions(warehouse, stream, loads, happened)}) r'
        ' where "_key" in (select "hash" from "cdp_repeated_keys")) ranked where "_rank" > 1',
        values,
    )
    if stream.options.by_arrival():
        session.execute(
            f'insert into {_BEATEN} select "_load_id", "_position" from {warehouse.table(stream.raw_table)}'
            f' where "_load_id" in ({ids}) and "_deleted" is true'
        )
    session.analyze(_BEATEN)
    return (
        f" where not exists (select 1 from {_BEATEN} b"
        ' where b."_load_id" = r."_load_id" and b."_position" = r."_position")'
    )


def _append(
    session: Session,
    stream: Stream,
    fresh: Sequence[Load],
    again: Sequence[Load],
    before: datetime,
    now: datetime,
    seq: int,
) -> None:
    """New rows, and those whose time has come; what they replace goes."""
    warehouse = session.warehouse
    table = warehouse.table(table_of(stream))
    values = {"linked_ref": stream.ref, "linked_now": now, "linked_before": before, "seq": seq}
    known = ", ".join(str(load.load_id) for load in fresh) or "0"
    condition = visible(warehouse, stream)
    if again:
        time = time_of(warehouse, stream, "r")
        start = f"cast(:linked_before as {warehouse.types['timestamp']})"
        condition += f' and (r."_load_id" in ({known}) or {time} >= {start})'
    rows = versions(warehouse, stream, [*fresh, *again], condition)
    keys = [warehouse.quote(key) for key in stream.primary_key]
    session.execute(f"drop table if exists {_INCOMING}")
    session.execute(
        f"create temporary table {_INCOMING} as select * from (select r.*, row_number() over (partition by"
        f' {", ".join(keys)} order by "_order" desc) as "_rank" from ({rows}) r) ranked where "_rank" = 1',
        values,
    )
    session.analyze(_INCOMING)
    # A column of numbers is read faster than one of texts, and most new rows have a key of their own.
    session.execute('drop table if exists "cdp_known_keys"')
    session.execute(
        f'create temporary table "cdp_known_keys" as select {", ".join(keys)}, "_order", "_node_id"'
        f' from {table} where "_key" in (select "_key" from {_INCOMING})'
    )
    same = " and ".join(f"t.{key} = n.{key}" for key in keys)
    session.execute(f"drop table if exists {_BEATEN}")
    session.execute(
        f'create temporary table {_BEATEN} as select t."_order" as "standing", n."_order" as "incoming",'
        f' t."_node_id", n."_key" from {_INCOMING} n join "cdp_known_keys" t on {same}'
    )
    session.execute(
        f"insert into {warehouse.table('unlinked')} (stream, linked_seq, node_id)"
        f' select :linked_ref, :seq, "_node_id" from {_BEATEN} where "standing" < "incoming"'
        ' and "_node_id" is not null',
        values,
    )
    if session.scalar(f'select count(*) from {_BEATEN} where "standing" < "incoming"'):
        session.execute(
            f'delete from {table} as t using {_BEATEN} b where b."_key" = t."_key"'
            ' and b."standing" = t."_order" and b."standing" < b."incoming"'
        )
    names = ", ".join((*columns_of(warehouse, stream), *(warehouse.quote(name) for name in _OWN[:-1])))
    session.execute(
        f'insert into {table} ({names}, "_linked") select {names}, :seq from {_INCOMING} n'
        f' where not exists (select 1 from {_BEATEN} b where b."incoming" = n."_order"'
        f' and b."standing" >= b."incoming") and {still_there(warehouse, stream, "n")}',
        values,
    )


def _waiting(session: Session, stream: Stream, loads: set[int], now: datetime) -> frozenset[int]:
    """Which of these batches have rows whose time is still to come."""
    if stream.time is None or stream.options.by_arrival() or not loads:
        return frozenset()
    warehouse = session.warehouse
    ids = ", ".join(map(str, sorted(loads)))
    found = session.fetch(
        f'select distinct "_load_id" from {warehouse.table(stream.raw_table)}'
        f' where "_load_id" in ({ids}) and {warehouse.quote(stream.time)} >= :now',
        {"now": now},
    )
    return frozenset(row[0] for row in found)
