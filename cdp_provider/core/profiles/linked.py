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

from cdp_provider.core.exceptions import ConfigurationError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from cdp_provider.core.profiles.params import Params
    from cdp_provider.core.project.streams import Stream
    from cdp_provider.core.warehouse import Session, Warehouse

_INCOMING = '"cdp_incoming_rows"'
_BEATEN = '"cdp_beaten_rows"'
#: About so many rows are linked at a time.
_PORTION = 2_000_000

#: What an order key has room for.
_MOST_SEQS = 2**24
_MOST_OFFSETS = 2**14


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


class _Load(NamedTuple):
    load_id: int
    load_seq: int
    offset: int
    resolved_seq: int
    rows: int


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
    loads = _loads(session, stream)
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


def time_of(warehouse: Warehouse, stream: Stream, alias: str) -> str:
    """SQL of a row's time."""
    if stream.time is None:
        return f"cast(null as {warehouse.types['timestamp']})"
    return f"{alias}.{warehouse.quote(stream.time)}"


def from_raw(session: Session, stream: Stream, params: Params) -> str | None:
    """The same as a select in parentheses over the raw rows, as of any moment; None for an optional stream
    that was never landed."""
    if not lies_ready(session, stream):
        return None
    warehouse = session.warehouse
    visible = _visible(warehouse, stream, params.moment())
    rows = _rows(warehouse, stream, _loads(session, stream), visible, params.bind(stream.ref, "string"))
    names = [*_columns(warehouse, stream), '"_load_id"', '"_position"', '"_node_id"', '"_order"']
    keys = ", ".join(warehouse.quote(name) for name in stream.primary_key)
    return (
        f"(select {', '.join(names)} from (select r.*, row_number() over (partition by {keys}"
        f' order by "_order" desc) as "_rank" from ({rows}) r) ranked where "_rank" = 1)'
    )


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
    text = json.dumps([columns, stream.primary_key, stream.time])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _loads(session: Session, stream: Stream) -> list[_Load]:
    """The batches whose rows identity has taken in as they stand."""
    found = session.fetch(
        "select load_id, load_seq, load_id - min(load_id) over (partition by load_seq), resolved_seq,"
        " rows_landed"
        f" from {session.warehouse.table('loads')} where stream = :ref and state = 'passed'"
        " and resolved_hash = content_hash order by load_id",
        {"ref": stream.ref},
    )
    loads = [_Load(*row) for row in found]
    if any(load.load_seq >= _MOST_SEQS or load.offset >= _MOST_OFFSETS for load in loads):
        msg = (
            f"the stream {stream.ref} has more than {_MOST_SEQS} windows, or batches of one window"
            f" whose numbers lie more than {_MOST_OFFSETS} apart, and its rows can't be ordered; give the"
            " project a schema of its own"
        )
        raise ConfigurationError(msg)
    return loads


def _visible(warehouse: Warehouse, stream: Stream, now: str = ":linked_now") -> str:
    if stream.time is None:
        return "true"
    time = time_of(warehouse, stream, "r")
    return f"({time} < cast({now} as {warehouse.types['timestamp']}) or {time} is null)"


def _rows(
    warehouse: Warehouse, stream: Stream, loads: Sequence[_Load], condition: str, ref: str = ":linked_ref"
) -> str:
    """All versions of rows of some batches, linked. Numbers are our own, and written out."""
    quote = warehouse.quote
    order = warehouse.order_key(time_of(warehouse, stream, "r"), "l.load_seq", 'l."offset"', 'r."_position"')
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


def _make(session: Session, stream: Stream, loads: Sequence[_Load], now: datetime, seq: int) -> None:
    """All rows anew, in portions of whole batches: a join of all of them takes more memory and time."""
    warehouse = session.warehouse
    name, table = table_of(stream), warehouse.table(table_of(stream))
    values = {"linked_ref": stream.ref, "linked_now": now}
    session.index(stream.raw_table, "_load_id", clustered=True)
    session.index("row_links", "load_id", clustered=True)
    beaten = _find_beaten(session, stream, loads, values)
    session.execute(f"drop view if exists {warehouse.table('field_provenance')}")  # it reads these tables
    session.execute(f"drop table if exists {table}")
    into = f"create table {table} as"
    for portion in _portions(loads):
        rows = _rows(warehouse, stream, portion, _visible(warehouse, stream))
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


def _portions(loads: Sequence[_Load]) -> Iterator[list[_Load]]:
    """Batches of some million rows together; one empty portion where there are none."""
    portion: list[_Load] = []
    rows = 0
    for load in loads:
        if portion and rows + load.rows > _PORTION:
            yield portion
            portion, rows = [], 0
        portion.append(load)
        rows += load.rows
    yield portion


def _find_beaten(session: Session, stream: Stream, loads: Sequence[_Load], values: Mapping[str, Any]) -> str:
    """Find the rows that have a newer one with their key; returns a condition that leaves them out.

    Keys with several rows are found first: most streams have few, and events none.
    """
    warehouse = session.warehouse
    ids = ", ".join(str(load.load_id) for load in loads) or "0"
    hashed = warehouse.key_hash([f"r.{warehouse.quote(key)}" for key in stream.primary_key])
    visible = _visible(warehouse, stream)
    session.execute('drop table if exists "cdp_repeated_keys"')
    session.execute(
        f'create temporary table "cdp_repeated_keys" as select {hashed} as "hash"'
        f' from {warehouse.table(stream.raw_table)} r where r."_load_id" in ({ids}) and {visible}'
        " group by 1 having count(*) > 1",
        values,
    )
    if not session.scalar('select count(*) from "cdp_repeated_keys"'):
        return ""
    session.analyze('"cdp_repeated_keys"')
    keys = ", ".join(warehouse.quote(key) for key in stream.primary_key)
    session.execute(f"drop table if exists {_BEATEN}")
    session.execute(
        f'create temporary table {_BEATEN} as select "_load_id", "_position" from ('
        f'select "_load_id", "_position", row_number() over (partition by {keys}'
        f' order by "_order" desc) as "_rank" from ({_rows(warehouse, stream, loads, visible)}) r'
        ' where "_key" in (select "hash" from "cdp_repeated_keys")) ranked where "_rank" > 1',
        values,
    )
    session.analyze(_BEATEN)
    return (
        f" where not exists (select 1 from {_BEATEN} b"
        ' where b."_load_id" = r."_load_id" and b."_position" = r."_position")'
    )


def _append(
    session: Session,
    stream: Stream,
    fresh: Sequence[_Load],
    again: Sequence[_Load],
    before: datetime,
    now: datetime,
    seq: int,
) -> None:
    """New rows, and those whose time has come; what they replace goes."""
    warehouse = session.warehouse
    table = warehouse.table(table_of(stream))
    values = {"linked_ref": stream.ref, "linked_now": now, "linked_before": before, "seq": seq}
    known = ", ".join(str(load.load_id) for load in fresh) or "0"
    condition = _visible(warehouse, stream)
    if again:
        time = time_of(warehouse, stream, "r")
        start = f"cast(:linked_before as {warehouse.types['timestamp']})"
        condition += f' and (r."_load_id" in ({known}) or {time} >= {start})'
    rows = _rows(warehouse, stream, [*fresh, *again], condition)
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
    own = ('"_load_id"', '"_position"', '"_node_id"', '"_order"', '"_key"')
    names = ", ".join((*_columns(warehouse, stream), *own))
    session.execute(
        f'insert into {table} ({names}, "_linked") select {names}, :seq from {_INCOMING} n'
        f' where not exists (select 1 from {_BEATEN} b where b."incoming" = n."_order"'
        ' and b."standing" >= b."incoming")',
        values,
    )


def _columns(warehouse: Warehouse, stream: Stream) -> list[str]:
    return [warehouse.quote(name) for name in stream.columns]


def _waiting(session: Session, stream: Stream, loads: set[int], now: datetime) -> frozenset[int]:
    """Which of these batches have rows whose time is still to come."""
    if stream.time is None or not loads:
        return frozenset()
    warehouse = session.warehouse
    ids = ", ".join(map(str, sorted(loads)))
    found = session.fetch(
        f'select distinct "_load_id" from {warehouse.table(stream.raw_table)}'
        f' where "_load_id" in ({ids}) and {warehouse.quote(stream.time)} >= :now',
        {"now": now},
    )
    return frozenset(row[0] for row in found)


class StandingRows:
    """Reads linked rows where their table speaks of now, and raw rows elsewhere. Writes nothing."""

    def __init__(self, session: Session, params: Params) -> None:
        self._session, self._params = session, params

    def prepare(self, relations: object) -> None:
        """Nothing to do."""

    def table(self, stream: Stream) -> str | None:
        """A table, or a select in parentheses; None for an optional stream that was never landed."""
        state = _state(self._session, stream)
        if state and state.window_end == self._params.now and state.fingerprint == _fingerprint(stream):
            return self._session.warehouse.table(table_of(stream))
        return from_raw(self._session, stream, self._params)


class RawRows(StandingRows):
    """Reads raw rows, as of any moment, with all that is known of them today."""

    def table(self, stream: Stream) -> str | None:
        """A select in parentheses; None for an optional stream that was never landed."""
        return from_raw(self._session, stream, self._params)
