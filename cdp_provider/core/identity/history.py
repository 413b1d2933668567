# SPDX-License-Identifier: Apache-2.0
"""Recorded history: which batches a run takes in, and their rows in the order in which they count.

The order is (``resolved_seq`` of the batch, ``load_seq``, event time with nulls first, the stream's place in
the project, primary key, position). It is a function of what the tables remember, never of when somebody
asks, so that a replay meets the rows as the runs before it did.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cdp_provider.core.exceptions import ConfigurationError
from cdp_provider.core.identity.identifiers import Dictionary
from cdp_provider.core.identity.limits import NO_TIME
from cdp_provider.core.project.identity import (
    Allow,
    Deny,
    Exclude,
    ExcludedRow,
    Identifier,
    Identity,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from cdp_provider.core.project.streams import Stream
    from cdp_provider.core.warehouse import Session

log = logging.getLogger(__name__)

MICROSECOND = timedelta(microseconds=1)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_PENDING = "(state = 'passed' and resolved_seq is null)"
_CHANGED = (
    "(resolved_seq is not null and ("
    "(state = 'passed' and (resolved_hash is null or resolved_hash <> content_hash))"
    " or (state = 'failed' and resolved_hash is not null)))"
)
_STANDING = "(state = 'passed' or resolved_hash is not null)"


class Load(NamedTuple):
    """A batch, as the run found it."""

    load_id: int
    stream: str
    load_seq: int
    state: str
    content_hash: str
    resolved_seq: int | None
    resolved_hash: str | None

    @property
    def changed(self) -> bool:
        """Whether the graph holds something else than this batch now says."""
        if self.resolved_seq is None:
            return False
        return self.resolved_hash != (self.content_hash if self.state == "passed" else None)


@dataclass(frozen=True)
class Plan:
    """What a run is going to take in, and what must still be so when it writes.

    :param loads: the batches whose rows are read.
    :param left_out: in a replay, batches the graph held until now whose rows no longer count.
    :param replay: whether all recorded history is gone through again, rather than what is new.
    :param last_seq: number of the newest identity run whose result stands; 0 before the first.
    :param reason: why it is a replay.
    """

    loads: frozenset[Load]
    left_out: frozenset[Load]
    replay: bool
    last_seq: int
    reason: str = ""

    @property
    def seq(self) -> int:
        """The number that newly taken batches get."""
        return self.last_seq + 1

    @property
    def stands(self) -> int:
        """The number of the newest identity run once this one is through."""
        return self.seq if any(load.resolved_seq is None for load in self.loads) else self.last_seq

    def holds(self, now: Plan) -> bool:
        """Whether a plan made now shows the state that this one was made on.

        A run that was first to write either took a pending batch, which moves :attr:`last_seq`, or replayed
        all batches there were, which must then be the very same ones.
        """
        if self.last_seq != now.last_seq or self.replay != now.replay:
            return False
        if self.replay:
            return self.loads == now.loads and self.left_out == now.left_out
        return self.loads <= now.loads


def plan(session: Session, streams: Sequence[Stream], rules: str, *, replay: bool = False) -> Plan:
    """Decide between taking in what is new and replaying everything.

    A replay is due when a batch was landed again with other content after a run had taken it in, or has
    failed its check since, or when the rules changed. A batch that is landed but not checked yet keeps what
    it said until then, unless a replay happens meanwhile: that leaves it out, and it comes back when it has
    passed.

    :param rules: as :func:`fingerprint` gives them.
    :param replay: replay in any case; batches of streams that are not given are then left out for good.
    :raises ConfigurationError: a replay is due, but the graph holds batches of a stream that is not given.
    """
    last_seq = session.scalar(f"select max(resolved_seq) from {session.warehouse.table('loads')}") or 0
    refs = {stream.ref for stream in streams}
    work = [load for load in _loads(session, f"{_PENDING} or {_CHANGED}") if load.stream in refs]
    reason = _reason(session, rules, last_seq, asked=replay, changed=any(load.changed for load in work))
    if not reason:
        return Plan(frozenset(work), frozenset(), replay=False, last_seq=last_seq)
    standing = _loads(session, _STANDING)
    held = {load for load in standing if load.resolved_hash is not None}
    foreign = sorted({load.stream for load in held} - refs)
    if foreign and not replay:
        msg = (
            f"{reason}, so all recorded history is replayed, but the streams {', '.join(foreign)} are not"
            " among those given and their links would be lost; give these streams too, or call rebuild() to"
            " leave them out for good"
        )
        raise ConfigurationError(msg)
    if foreign:
        log.warning("identity is rebuilt without the streams %s: their links end", ", ".join(foreign))
    loads = frozenset(load for load in standing if load.state == "passed" and load.stream in refs)
    return Plan(loads, frozenset(held - loads), replay=True, last_seq=last_seq, reason=reason)


def _reason(session: Session, rules: str, last_seq: int, *, asked: bool, changed: bool) -> str:
    """Why all history has to be replayed; empty when it has not."""
    if asked:
        return "a rebuild was asked for"
    if changed:
        return "a batch that identity resolution had taken in was landed again or has failed its check"
    if not last_seq:
        return ""
    runs = session.warehouse.table("identity_runs")
    before = session.scalar(f"select rules from {runs} order by resolved_seq desc, window_end desc limit 1")
    return "" if before is None or _same_rules(json.loads(before), json.loads(rules)) else "the rules changed"


def _same_rules(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """A stream that came or went changes nothing; one that changed, or moved among the others, does."""
    kept = [
        [part for part in side["streams"] if part[0] in dict(other["streams"])]
        for side, other in ((before, now), (now, before))
    ]
    return before["identity"] == now["identity"] and kept[0] == kept[1]


def fingerprint(identity: Identity, streams: Sequence[Stream]) -> str:
    """JSON that differs when identity resolution might decide differently; holds no value of a rule."""
    ways = [
        [stream.ref, _digest([stream.identifiers, stream.primary_key, stream.time])] for stream in streams
    ]
    own = identity.model_dump(mode="json", exclude={"memory", "fuzzy"})
    return json.dumps({"identity": _digest(own), "streams": ways})


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def loads_of(session: Session, rows: str) -> frozenset[Load]:
    """The batches of a table of rows."""
    return frozenset(_loads(session, f"load_id in (select load_id from {rows})"))


def _loads(session: Session, condition: str) -> list[Load]:
    rows = session.fetch(
        f"select {', '.join(Load._fields)} from {session.warehouse.table('loads')} where {condition}"
    )
    return [Load(*row) for row in rows]


@dataclass
class RawRows:
    """Rows of one stream as they lie in its raw table, in no order. :func:`arrange` takes what it has read of
    them away, to save the memory.

    :param source: the stream's place in the project.
    :param table: ``load_id``, ``position``, ``at``, ``key_<n>``, ``id_<type>_<n>``, ``region_<type>``.
    """

    source: int
    table: pa.Table


def read(
    session: Session,
    loads: Iterable[Load],
    streams: Sequence[Stream],
    identity: Identity,
    only: str | None = None,
) -> list[RawRows]:
    """Fetch the columns of batches that identity looks at.

    :param only: a table of ``stream``, ``load_id``, ``position``; other rows are left out.
    """
    ids: dict[str, list[int]] = {}
    for load in loads:
        ids.setdefault(load.stream, []).append(load.load_id)
    return [
        RawRows(source, _fetch(session, stream, identity, ids[stream.ref], only))
        for source, stream in enumerate(streams)
        if stream.ref in ids
    ]


def _fetch(
    session: Session, stream: Stream, identity: Identity, ids: Sequence[int], only: str | None
) -> pa.Table:
    quote, table = session.warehouse.quote, session.warehouse.table
    wanted = session.temp("cdp_wanted_loads", pa.table({"load_id": pa.array(sorted(ids), pa.int64())}))
    columns = _columns(stream, identity, set(session.columns(stream.raw_table)))
    chosen = ", ".join(f"{f'r.{quote(c)}' if c else 'null'} as {quote(a)}" for a, c in columns.items())
    sql = (
        f"select r._load_id as load_id, r._position as position, {chosen}"
        f" from {table(stream.raw_table)} r join {wanted} w on w.load_id = r._load_id"
    )
    if only is None:
        return session.arrow(sql)
    sql += f" join {only} o on o.load_id = r._load_id and o.position = r._position and o.stream = :stream"
    return session.arrow(sql, {"stream": stream.ref})


def _columns(stream: Stream, identity: Identity, there: set[str]) -> dict[str, str | None]:
    """Alias -> column of the raw table; None for a column that no batch has brought yet."""
    wanted = {"at": stream.time, **{f"key_{n}": column for n, column in enumerate(stream.primary_key)}}
    for kind, columns in stream.identifiers.items():
        wanted.update({_id(kind, n): column for n, column in enumerate(columns)})
        region = identity.identifiers[kind].region_column if kind in identity.identifiers else None
        if region is not None:
            wanted[_region(kind)] = region
    return {alias: column if column in there else None for alias, column in wanted.items()}


def _id(kind: str, place: int) -> str:
    return f"id_{kind}_{place}"


def _region(kind: str) -> str:
    return f"region_{kind}"


def types(identity: Identity, streams: Sequence[Stream]) -> dict[str, Identifier]:
    """Identifier type -> its rule, strongest first. A type that only a stream names has the default rule."""
    named = {kind: Identifier() for stream in streams for kind in stream.identifiers}
    everything = Identity(identifiers={**named, **identity.identifiers})
    return {kind: everything.identifiers[kind] for kind in everything.ranked()}


@dataclass(frozen=True)
class History:
    """Rows in the order in which they count, their identifiers as numbers.

    An identifier's number is its place in `values`; those of one type lie together, types strongest first.

    :param batches: the batches that rows come from.
    :param sources: per batch, its stream's place in the project.
    :param batch_seqs: per batch, the identity run that took it in, or takes it in now.
    :param batch: per row, the place of its batch; in the order of rows, `batch_seqs` ascend.
    :param positions: per row, its place in the batch.
    :param times: per row, microseconds since 1970 in UTC, or ``NO_TIME``.
    :param columns: identifier columns, strongest type first: the number of each row's identifier, or -1.
    :param values: the distinct identifiers.
    :param kinds: per identifier, the place of its type among the types.
    :param alone: rows that link nothing, excluded by hand; ascending.
    :param named: (type, value as written) of each identifier in a rule set by hand -> its number, or -1 where
        it identifies nobody.
    :param refused: reason -> type -> rows whose value did not become an identifier.
    """

    batches: list[Load]
    sources: NDArray[np.int64]
    batch_seqs: NDArray[np.int64]
    batch: NDArray[np.int32]
    positions: NDArray[np.int64]
    times: NDArray[np.int64]
    columns: list[NDArray[np.int32]]
    values: pa.Array
    kinds: NDArray[np.int8]
    alone: NDArray[np.int64]
    named: Mapping[tuple[str, str], int]
    refused: Mapping[str, Mapping[str, int]]

    def __len__(self) -> int:
        return len(self.batch)

    def seqs(self, rows: NDArray[np.int64] | slice = slice(None)) -> NDArray[np.int64]:
        """The identity runs that took rows in."""
        return self.batch_seqs[self.batch[rows]]

    def newest(self) -> datetime | None:
        """Time of the newest row, if any row has one."""
        latest = int(self.times.max(initial=NO_TIME))
        return None if latest == NO_TIME else _EPOCH + timedelta(microseconds=latest)

    def numbers(self, kind: int, values: Sequence[str] | pa.Array) -> NDArray[np.int64]:
        """The numbers of identifiers of one type; -1 for one that no row carries."""
        first, last = np.searchsorted(self.kinds, [kind, kind + 1])
        texts = (
            values.cast(self.values.type)
            if isinstance(values, pa.Array)
            else pa.array(values, self.values.type)
        )
        found = pc.index_in(texts, self.values.slice(first, last - first)).fill_null(-1).to_numpy()
        return np.where(found < 0, -1, found.astype(np.int64) + first)


def arrange(
    raw: Sequence[RawRows],
    loads: Iterable[Load],
    new_seq: int,
    identity: Identity,
    streams: Sequence[Stream],
    *,
    by_event_time: bool = False,
) -> History:
    """Normalise, number and order the rows. Needs no warehouse.

    :param loads: the batches of the rows, and no others.
    :param new_seq: the identity run that takes in batches that none took in yet.
    :param by_event_time: order rows by their time first, whenever they arrived.
    """
    batches = sorted(loads, key=lambda load: (load.resolved_seq or new_seq, load.load_seq, load.load_id))
    places = {stream.ref: place for place, stream in enumerate(streams)}
    sources = np.array([places[load.stream] for load in batches], np.int64)
    rules = types(identity, streams)
    excluded = excluded_values(identity)
    dictionaries = {kind: Dictionary(kind, rule, excluded.get(kind, ())) for kind, rule in rules.items()}
    slots = slots_of(rules, streams)
    parts = [
        _part(
            one,
            streams[one.source],
            batches,
            slots,
            dictionaries,
            excluded_rows(identity, streams[one.source]),
        )
        for one in raw
    ]
    rows = {name: np.concatenate([_NO_ROWS[name], *(part.pop(name) for part in parts)]) for name in _NO_ROWS}
    codes = [
        np.concatenate([np.empty(0, np.int32), *(part.pop(_id(*slot)) for part in parts)]) for slot in slots
    ]
    order = _order(rows, raw, batches, sources, new_seq, by_event_time=by_event_time)
    refused = _refused(dictionaries)
    written = _named(identity)
    told = {kind: dictionaries[kind].encode(_texts(values)).tolist() for kind, values in written.items()}
    values = [dictionary.values for dictionary in dictionaries.values()]
    starts = np.cumsum([0, *map(len, values)])
    first = dict(zip(rules, starts.tolist(), strict=False))
    return History(
        batches=batches,
        sources=sources,
        batch_seqs=np.array([load.resolved_seq or new_seq for load in batches], np.int64),
        batch=rows["batch"][order],
        positions=rows["position"][order],
        times=rows["at"][order],
        columns=[
            _numbered(column[order], first[kind]) for column, (kind, _) in zip(codes, slots, strict=True)
        ],
        values=pa.chunked_array(values, pa.large_string()).combine_chunks(),
        kinds=np.repeat(np.arange(len(rules), dtype=np.int8), np.diff(starts)),
        alone=np.flatnonzero(rows["alone"][order]),
        named={
            (kind, value): code + first[kind] if code >= 0 else -1
            for kind, values in written.items()
            for value, code in zip(values, told[kind], strict=True)
        },
        refused=refused,
    )


def _named(identity: Identity) -> dict[str, list[str]]:
    """Type -> values of the pairs that are allowed or denied by hand."""
    named: dict[str, list[str]] = {}
    for rule in identity.rules:
        for side in rule.allow if isinstance(rule, Allow) else rule.deny if isinstance(rule, Deny) else ():
            for kind, value in side.items():
                named.setdefault(kind, []).append(value)
    return named


def _texts(values: Sequence[str]) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values, pa.string())])


_NO_ROWS: Mapping[str, NDArray[Any]] = {
    "batch": np.empty(0, np.int32),
    "position": np.empty(0, np.int64),
    "at": np.empty(0, np.int64),
    "alone": np.empty(0, bool),
}


def slots_of(kinds: Iterable[str], streams: Sequence[Stream]) -> list[tuple[str, int]]:
    """Identifier columns, strongest type first: a type as often as one stream has columns of it."""
    widths = {
        kind: max((len(stream.identifiers.get(kind, ())) for stream in streams), default=0) for kind in kinds
    }
    return [(kind, place) for kind, width in widths.items() for place in range(width)]


def _numbered(codes: NDArray[np.int32], first: int) -> NDArray[np.int32]:
    """Numbers within a type as numbers among all; -1 stays."""
    codes[codes >= 0] += first
    return codes


def _refused(dictionaries: Mapping[str, Dictionary]) -> dict[str, dict[str, int]]:
    refused: dict[str, dict[str, int]] = {}
    for kind, dictionary in dictionaries.items():
        for reason, count in dictionary.refused.items():
            refused.setdefault(reason, {})[kind] = count
    return refused


def _part(
    raw: RawRows,
    stream: Stream,
    batches: Sequence[Load],
    slots: Sequence[tuple[str, int]],
    dictionaries: Mapping[str, Dictionary],
    excluded: Sequence[tuple[str, ...]],
) -> dict[str, NDArray[Any]]:
    """One stream's rows as columns of whole numbers."""
    table = raw.table
    places = {load.load_id: place for place, load in enumerate(batches)}
    distinct, at = np.unique(table["load_id"].to_numpy(), return_inverse=True)
    part: dict[str, NDArray[Any]] = {
        "batch": np.array([places[load_id] for load_id in distinct.tolist()], np.int32)[at],
        "position": table["position"].to_numpy(),
        "at": microseconds(table["at"]),
        "alone": has_key(table, len(stream.primary_key), excluded),
    }
    for kind, place in slots:
        if place < len(stream.identifiers.get(kind, ())):
            regions = table[_region(kind)] if _region(kind) in table.column_names else None
            texts = table[_id(kind, place)]
            table = raw.table = table.drop_columns([_id(kind, place)])
            part[_id(kind, place)] = dictionaries[kind].encode(texts, regions)
            del texts
        else:
            part[_id(kind, place)] = np.full(len(table), -1, np.int32)
    return part


def has_key(table: pa.Table, width: int, keys: Sequence[tuple[str, ...]]) -> NDArray[np.bool_]:
    """Which rows have one of the primary keys."""
    found = np.zeros(len(table), bool)
    for key in keys:
        fits = np.ones(len(table), bool)
        for n in range(width):
            equal = pc.equal(table[f"key_{n}"].cast(pa.string()), key[n]).fill_null(False)
            fits &= equal.to_numpy()
        found |= fits
    return found


def excluded_rows(identity: Identity, stream: Stream) -> list[tuple[str, ...]]:
    rows = [rule.exclude for rule in identity.rules if isinstance(rule, Exclude)]
    return [row.key for row in rows if isinstance(row, ExcludedRow) and row.stream == stream.ref]


def excluded_values(identity: Identity) -> dict[str, list[str]]:
    excluded: dict[str, list[str]] = {}
    for rule in identity.rules:
        if isinstance(rule, Exclude) and isinstance(rule.exclude, dict):
            for kind, value in rule.exclude.items():
                excluded.setdefault(kind, []).append(value)
    return excluded


def _order(
    rows: Mapping[str, NDArray[Any]],
    raw: Sequence[RawRows],
    batches: Sequence[Load],
    sources: NDArray[np.int64],
    new_seq: int,
    *,
    by_event_time: bool,
) -> NDArray[np.int64]:
    """Places of the rows in the order in which they count."""
    arrivals = [(load.resolved_seq or new_seq, load.load_seq) for load in batches]
    ranks = {arrival: 0 if by_event_time else rank for rank, arrival in enumerate(sorted(set(arrivals)))}
    batch = rows["batch"]
    columns = [
        np.array([ranks[arrival] for arrival in arrivals], np.int64)[batch],
        rows["at"],
        sources[batch],
    ]
    # The last key counts most; one that is the same for all costs a sort for nothing.
    told = [column for column in reversed(columns) if len(column) and column.min() != column.max()]
    order = np.lexsort(told) if told else np.arange(len(batch))
    same = np.ones(max(len(order) - 1, 0), bool)
    for column in told:
        same &= np.diff(column[order]) == 0
    _order_by_key(order, same, rows, raw)
    return order


def _order_by_key(
    order: NDArray[np.int64],
    same: NDArray[np.bool_],
    rows: Mapping[str, NDArray[Any]],
    raw: Sequence[RawRows],
) -> None:
    """Put rows of one moment and stream in the order of their keys, in place.

    :param same: whether a row of `order` is of the same moment and stream as the one after it.
    """
    tied = np.flatnonzero(np.append(same, False) | np.append(False, same))
    group = np.cumsum(np.append(True, ~same))[tied] if len(tied) else tied
    start = 0
    for one in raw:
        end = start + len(one.table)
        mine = (order[tied] >= start) & (order[tied] < end)
        picked = order[tied[mine]]
        keys = [name for name in one.table.column_names if name.startswith("key_")]
        taken = one.table.select(keys).take(pa.array(picked - start))
        taken = taken.append_column("group", pa.array(group[mine]))
        taken = taken.append_column("batch", pa.array(rows["batch"][picked]))
        taken = taken.append_column("place", pa.array(rows["position"][picked]))
        sort_keys = [(name, "ascending") for name in ("group", *keys, "batch", "place")]
        order[tied[mine]] = picked[pc.sort_indices(taken, sort_keys=sort_keys).to_numpy()]
        start = end


def microseconds(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """A timestamp column as whole numbers; ``NO_TIME`` for null."""
    if not pa.types.is_timestamp(column.type):
        return np.full(len(column), NO_TIME, np.int64)
    whole = column.cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
    times: NDArray[np.int64] = whole.fill_null(NO_TIME).to_numpy()
    return times


def moments(times: NDArray[np.int64]) -> pa.Array:
    """The inverse: whole microseconds as timestamps."""
    return pa.array(times, mask=times == NO_TIME).cast(pa.timestamp("us", tz="UTC"))
