# SPDX-License-Identifier: Apache-2.0
"""Recorded history: which batches a run takes in, and their rows in the order in which they count.

The order is (``resolved_seq`` of the batch, ``load_seq``, event time with nulls first, the stream's place in
the project, primary key, position). It is a function of what the tables remember, never of when somebody
asks, so that a replay meets the rows as the runs before it did.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cdp_provider.core.exceptions import ConfigurationError
from cdp_provider.core.identity.identifiers import Dictionary
from cdp_provider.core.project.identity import Identifier, Identity

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from cdp_provider.core.project.streams import Stream
    from cdp_provider.core.warehouse import Session

log = logging.getLogger(__name__)

#: Stands for "no time" where times are whole microseconds since 1970.
NO_TIME = int(np.iinfo(np.int64).min)

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
    """

    loads: frozenset[Load]
    left_out: frozenset[Load]
    replay: bool
    last_seq: int

    @property
    def seq(self) -> int:
        """The number that newly taken batches get."""
        return self.last_seq + 1

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


def plan(session: Session, streams: Sequence[Stream], *, replay: bool = False) -> Plan:
    """Decide between taking in what is new and replaying everything.

    A replay is due when a batch was landed again with other content after a run had taken it in, or has
    failed its check since. A batch that is landed but not checked yet keeps what it said until then, unless
    a replay happens meanwhile: that leaves it out, and it comes back when it has passed.

    :param replay: replay in any case; batches of streams that are not given are then left out for good.
    :raises ConfigurationError: a replay is due, but the graph holds batches of a stream that is not given.
    """
    last_seq = session.scalar(f"select max(resolved_seq) from {session.warehouse.table('loads')}") or 0
    refs = {stream.ref for stream in streams}
    work = [load for load in _loads(session, f"{_PENDING} or {_CHANGED}") if load.stream in refs]
    due = any(load.changed for load in work)
    if not (replay or due):
        return Plan(frozenset(work), frozenset(), replay=False, last_seq=last_seq)
    standing = _loads(session, _STANDING)
    held = {load for load in standing if load.resolved_hash is not None}
    foreign = sorted({load.stream for load in held} - refs)
    if foreign and not replay:
        msg = (
            "a batch that identity resolution had taken in was landed again, so all of them are replayed, but"
            f" the streams {', '.join(foreign)} are not among those given and their links would be lost; give"
            " these streams too, or call rebuild() to leave them out for good"
        )
        raise ConfigurationError(msg)
    if foreign:
        log.warning("identity is rebuilt without the streams %s: their links end", ", ".join(foreign))
    loads = frozenset(load for load in standing if load.state == "passed" and load.stream in refs)
    return Plan(loads, frozenset(held - loads), replay=True, last_seq=last_seq)


def _loads(session: Session, condition: str) -> list[Load]:
    rows = session.fetch(
        f"select {', '.join(Load._fields)} from {session.warehouse.table('loads')} where {condition}"
    )
    return [Load(*row) for row in rows]


@dataclass(frozen=True)
class RawRows:
    """Rows of one stream as they lie in its raw table, in no order.

    :param source: the stream's place in the project.
    :param table: ``load_id``, ``position``, ``at``, ``key_<n>``, ``id_<type>``, ``region_<type>``.
    """

    source: int
    table: pa.Table


def read(session: Session, plan: Plan, streams: Sequence[Stream], identity: Identity) -> list[RawRows]:
    """Fetch the columns of the planned batches that identity looks at."""
    found = []
    for source, stream in enumerate(streams):
        ids = [load.load_id for load in plan.loads if load.stream == stream.ref]
        if ids:
            wanted = session.temp("cdp_wanted_loads", pa.table({"load_id": pa.array(ids, pa.int64())}))
            columns = _columns(stream, identity, set(session.columns(stream.raw_table)))
            quote = session.warehouse.quote
            sql = (
                "select r._load_id as load_id, r._position as position, "
                + ", ".join(f"{f'r.{quote(c)}' if c else 'null'} as {quote(a)}" for a, c in columns.items())
                + f" from {session.warehouse.table(stream.raw_table)} r"
                f" join {wanted} w on w.load_id = r._load_id"
            )
            found.append(RawRows(source, session.arrow(sql)))
    return found


def _columns(stream: Stream, identity: Identity, there: set[str]) -> dict[str, str | None]:
    """Alias -> column of the raw table; None for a column that no batch has brought yet."""
    wanted = {"at": stream.time, **{f"key_{n}": column for n, column in enumerate(stream.primary_key)}}
    for kind, column in stream.identifiers.items():
        wanted[_id(kind)] = column
        region = identity.identifiers[kind].region_column if kind in identity.identifiers else None
        if region is not None:
            wanted[_region(kind)] = region
    return {alias: column if column in there else None for alias, column in wanted.items()}


def _id(kind: str) -> str:
    return f"id_{kind}"


def _region(kind: str) -> str:
    return f"region_{kind}"


def rules(identity: Identity, streams: Sequence[Stream]) -> dict[str, Identifier]:
    """Identifier type -> its rule, strongest first. A type that only a stream names has the default rule."""
    named = {kind: Identifier() for stream in streams for kind in stream.identifiers}
    everything = Identity(identifiers={**named, **identity.identifiers})
    return {kind: everything.identifiers[kind] for kind in everything.ranked()}


@dataclass(frozen=True)
class History:
    """Rows in the order in which they count, their identifiers as numbers.

    An identifier's number is its place in `values`; those of one type lie together, types strongest first.

    :param sources: per row, the stream's place in the project.
    :param times: per row, microseconds since 1970 in UTC, or :data:`NO_TIME`.
    :param seqs: per row, the identity run that took it in, or takes it in now; ascending.
    :param columns: per type, the number of each row's identifier, or -1.
    :param values: the distinct identifiers.
    :param kinds: per identifier, the place of its type among the rules.
    :param refused: reason -> type -> rows whose value did not become an identifier.
    """

    sources: NDArray[np.int64]
    load_ids: NDArray[np.int64]
    positions: NDArray[np.int64]
    times: NDArray[np.int64]
    seqs: NDArray[np.int64]
    columns: list[NDArray[np.int64]]
    values: list[str]
    kinds: bytes
    refused: Mapping[str, Mapping[str, int]]

    def __len__(self) -> int:
        return len(self.load_ids)

    def newest(self) -> datetime | None:
        """Time of the newest row, if any row has one."""
        latest = int(self.times.max(initial=NO_TIME))
        return None if latest == NO_TIME else _EPOCH + timedelta(microseconds=latest)


def arrange(raw: Sequence[RawRows], plan: Plan, rules: Mapping[str, Identifier]) -> History:
    """Normalise, number and order the rows. Needs no warehouse."""
    loads = {load.load_id: load for load in plan.loads}
    dictionaries = {kind: Dictionary(kind, rule) for kind, rule in rules.items()}
    parts = [_part(one, loads, plan.seq, dictionaries) for one in raw]
    joined = {name: _concat([part[name] for part in parts]) for name in (*_ROW, *map(_id, rules))}
    order = np.lexsort([joined[name] for name in ("rank", "source", "at", "load_seq", "seq")])
    columns: list[NDArray[np.int64]] = []
    values: list[str] = []
    kinds = bytearray()
    for number, (kind, dictionary) in enumerate(dictionaries.items()):
        codes = joined[_id(kind)][order]
        columns.append(np.where(codes < 0, codes, codes + len(values)))
        values += dictionary.values
        kinds += bytes([number]) * (len(values) - len(kinds))
    refused: dict[str, dict[str, int]] = {}
    for kind, dictionary in dictionaries.items():
        for reason, count in dictionary.refused.items():
            refused.setdefault(reason, {})[kind] = count
    sources, load_ids, positions, times, seqs = (
        joined[name][order] for name in ("source", "load_id", "position", "at", "seq")
    )
    return History(sources, load_ids, positions, times, seqs, columns, values, bytes(kinds), refused)


_ROW = ("source", "load_id", "position", "at", "seq", "load_seq", "rank")


def _part(
    raw: RawRows, loads: Mapping[int, Load], new_seq: int, dictionaries: Mapping[str, Dictionary]
) -> dict[str, NDArray[np.int64]]:
    """One stream's rows as columns of whole numbers; ``rank`` is their order by key and position."""
    table = raw.table
    load_ids = table["load_id"].to_numpy()
    distinct, place = np.unique(load_ids, return_inverse=True)
    of = [loads[int(load_id)] for load_id in distinct]
    keys = [name for name in table.column_names if name.startswith("key_")]
    sort_keys = [(name, "ascending") for name in (*keys, "position")]
    by_key = pc.sort_indices(table, sort_keys=sort_keys).to_numpy()
    rank = np.empty(len(load_ids), np.int64)
    rank[by_key] = np.arange(len(load_ids))
    part = {
        "source": np.full(len(load_ids), raw.source, np.int64),
        "load_id": load_ids,
        "position": table["position"].to_numpy(),
        "at": _microseconds(table["at"]),
        "seq": np.array([load.resolved_seq or new_seq for load in of], np.int64)[place],
        "load_seq": np.array([load.load_seq for load in of], np.int64)[place],
        "rank": rank,
    }
    for kind, dictionary in dictionaries.items():
        if _id(kind) in table.column_names:
            regions = table[_region(kind)] if _region(kind) in table.column_names else None
            part[_id(kind)] = dictionary.encode(table[_id(kind)], regions)
        else:
            part[_id(kind)] = np.full(len(load_ids), -1, np.int64)
    return part


def _microseconds(column: pa.ChunkedArray) -> NDArray[np.int64]:
    if not pa.types.is_timestamp(column.type):
        return np.full(len(column), NO_TIME, np.int64)
    whole = column.cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
    times: NDArray[np.int64] = whole.fill_null(NO_TIME).to_numpy()
    return times


def _concat(parts: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate(parts) if parts else np.empty(0, np.int64)
