# SPDX-License-Identifier: Apache-2.0
"""Reading the part of the graph that a run touches, and writing what became of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cdp_provider.core.identity.decide import Known
from cdp_provider.core.identity.history import microseconds
from cdp_provider.core.identity.limits import NO_TIME
from cdp_provider.core.tables import TABLES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from cdp_provider.core.identity.history import History, Load, Plan
    from cdp_provider.core.warehouse import Session

_COLUMNS = ", ".join(f"i.{name} as {name}" for name in TABLES["identifiers"])


@dataclass(frozen=True)
class Standing:
    """Nodes that stand in the warehouse, and whose profiles a run may change one by one.

    :param identifiers: per node, the number of its identifier in the history, or -1.
    :param profiles: per node, the profile it belonged to before the run.
    :param evicted: per node, the identity run that evicted it, or 0; `published` and `resolved` likewise.
    :param first_seen: microseconds since 1970 or ``NO_TIME``.
    """

    nodes: NDArray[np.int64]
    identifiers: NDArray[np.int64]
    profiles: NDArray[np.int64]
    evicted: NDArray[np.int64]
    published: NDArray[np.int64]
    resolved: NDArray[np.int64]
    first_seen: NDArray[np.int64]

    @classmethod
    def of(cls, found: pa.Table, history: History, kinds: Sequence[str]) -> Standing:
        """From lines of ``identifiers``."""
        return cls(
            nodes=_whole(found["node_id"]),
            identifiers=places(history, found, kinds),
            profiles=_whole(found["profile_id"]),
            evicted=_whole(found["evicted_seq"]),
            published=_whole(found["published_seq"]),
            resolved=_whole(found["resolved_seq"]),
            first_seen=microseconds(found["first_seen"]),
        )


def read_known(session: Session, history: History, kinds: Sequence[str]) -> Known:
    """What the warehouse holds of the history's identifiers; the cost follows their number, not the total."""
    identifiers = session.warehouse.table("identifiers")
    known = _nothing(len(history.kinds))
    last_node = session.scalar(f"select max(node_id) from {identifiers}") or 0
    if not (last_node and len(history.kinds)):
        return replace(known, last_node=last_node)
    numbers = np.arange(len(history.kinds))
    met = session.temp(
        "cdp_met_identifiers",
        pa.table({"identifier": numbers, **typed(history, numbers, kinds)}),
    )
    same = session.warehouse.same_text("m.value", "i.value")
    found = session.arrow(
        f"select m.identifier as identifier, {_COLUMNS} from {met} m"
        f" join {identifiers} i on {same} and i.type = m.type where i.evicted_seq is null"
    )
    at = found["identifier"].to_numpy()
    known.nodes[at] = found["node_id"].to_numpy()
    known.profiles[at] = found["profile_id"].to_numpy()
    known.times[at] = microseconds(found["first_seen"])
    known.published[at] = _whole(found["published_seq"])
    counts = _counts(session, known.profiles, kinds)
    return replace(known, counts=counts, last_node=last_node)


def _nothing(count: int) -> Known:
    return Known(
        nodes=np.zeros(count, np.int64),
        profiles=np.zeros(count, np.int64),
        times=np.full(count, NO_TIME, np.int64),
        published=np.zeros(count, np.int64),
    )


def read_all(session: Session, history: History, kinds: Sequence[str]) -> tuple[Known, Standing]:
    """For a replay: every node there is. Profiles are made anew; identifiers keep their nodes."""
    identifiers = session.warehouse.table("identifiers")
    found = session.arrow(f"select {_COLUMNS} from {identifiers} i order by i.node_id")
    standing = Standing.of(found, history, kinds)
    return _all_known(standing, len(history.kinds)), standing


def _all_known(standing: Standing, count: int) -> Known:
    """What is known when all profiles are made anew."""
    nodes, published, places = standing.nodes, standing.published, standing.identifiers
    known = _nothing(count)
    spare: dict[int, list[tuple[int, int]]] = {}
    met = np.flatnonzero(places >= 0)[::-1]
    known.nodes[places[met]] = nodes[met]  # of several nodes of one identifier, the first one
    known.published[places[met]] = published[met]
    later = met[known.nodes[places[met]] != nodes[met]][::-1]
    for row in later.tolist():
        spare.setdefault(int(places[row]), []).append((int(nodes[row]), int(published[row])))
    last = int(nodes[-1]) if len(nodes) else 0
    return replace(known, spare_nodes=spare, last_node=last)


def read_nodes(session: Session, history: History, kinds: Sequence[str]) -> Known:
    """For a replay of some identifiers: as :func:`read_all`, but of their nodes only."""
    numbers = np.arange(len(history.kinds))
    met = session.temp(
        "cdp_met_identifiers", pa.table({"identifier": numbers, **typed(history, numbers, kinds)})
    )
    same = session.warehouse.same_text("m.value", "i.value")
    found = session.arrow(
        f"select {_COLUMNS} from {met} m join {session.warehouse.table('identifiers')} i"
        f" on {same} and i.type = m.type order by i.node_id"
    )
    return _all_known(Standing.of(found, history, kinds), len(history.kinds))


def places(history: History, found: pa.Table, kinds: Sequence[str]) -> NDArray[np.int64]:
    """Per row of `type` and `value`, the number of the identifier in the history, or -1."""
    at = np.full(len(found), -1, np.int64)
    types = pc.index_in(found["type"], pa.array(kinds, found["type"].type)).fill_null(-1).to_numpy()
    for kind in range(len(kinds)):
        rows = np.flatnonzero(types == kind)
        if len(rows):
            at[rows] = history.numbers(kind, found["value"].take(pa.array(rows)).combine_chunks())
    return at


def _counts(session: Session, profiles: NDArray[np.int64], kinds: Sequence[str]) -> dict[int, dict[int, int]]:
    """Touched profile -> type -> how many identifiers it holds."""
    touched = np.unique(profiles[profiles > 0])
    counts: dict[int, dict[int, int]] = {profile: {} for profile in touched.tolist()}
    name = session.temp("cdp_touched_profiles", pa.table({"profile_id": touched}))
    found = session.arrow(
        f"select i.profile_id as profile_id, i.type as type, count(*) as held"
        f" from {session.warehouse.table('identifiers')} i join {name} t on t.profile_id = i.profile_id"
        " where i.evicted_seq is null group by i.profile_id, i.type"
    )
    places = {kind: place for place, kind in enumerate(kinds)}
    rows = zip(*(found[name].to_pylist() for name in ("profile_id", "type", "held")), strict=True)
    for profile, kind, held in rows:
        if kind in places:
            counts[profile][places[kind]] = held
    return counts


def members(session: Session, profiles: NDArray[np.int64]) -> pa.Table:
    """Lines of ``identifiers``: those that belong to profiles and were not evicted."""
    name = session.temp("cdp_wanted_profiles", pa.table({"profile_id": profiles}))
    return session.arrow(
        f"select {_COLUMNS} from {session.warehouse.table('identifiers')} i"
        f" join {name} w on w.profile_id = i.profile_id where i.evicted_seq is null"
    )


def with_members(
    history: History, known: Known, found: pa.Table, kinds: Sequence[str]
) -> tuple[History, Known]:
    """The history and what is known, with the members of touched profiles that no row carries at the end."""
    types = pc.index_in(found["type"], pa.array(kinds, found["type"].type))
    absent = (places(history, found, kinds) < 0) & types.is_valid().to_numpy()
    more = found.filter(pa.array(absent))
    more_kinds = types.filter(pa.array(absent)).to_numpy().astype(np.int8)
    more_values = more["value"].combine_chunks().cast(history.values.type)
    extended_history = replace(
        history,
        kinds=np.append(history.kinds, more_kinds),
        values=pa.concat_arrays([history.values, more_values]),
    )
    extended = replace(
        known,
        nodes=np.append(known.nodes, _whole(more["node_id"])),
        profiles=np.append(known.profiles, _whole(more["profile_id"])),
        times=np.append(known.times, microseconds(more["first_seen"])),
        published=np.append(known.published, _whole(more["published_seq"])),
    )
    return extended_history, extended


def renumbering(before: History, now: History) -> NDArray[np.int64]:
    """Number of an identifier in one history -> its number in another that holds it too."""
    return np.concatenate(
        [
            now.numbers(kind, before.values.filter(pa.array(before.kinds == kind)))
            for kind in range(int(before.kinds.max(initial=-1)) + 1)
        ]
        or [np.empty(0, np.int64)]
    )


def rows_of(session: Session, profiles: NDArray[np.int64]) -> str:
    """A temporary table of the raw rows that belong to profiles: ``stream``, ``load_id``, ``position``."""
    table = session.warehouse.table
    name = session.temp("cdp_wanted_profiles", pa.table({"profile_id": profiles}))
    found = session.arrow(
        "select l.stream as stream, l.load_id as load_id, l.position as position"
        f" from {table('row_links')} l join {table('identifiers')} i on i.node_id = l.node_id"
        f" join {name} w on w.profile_id = i.profile_id"
    )
    return session.temp("cdp_wanted_rows", found)


def recorded_runs(session: Session) -> dict[int, str]:
    """Identity run -> the DAG run that did it first."""
    runs = session.warehouse.table("identity_runs")
    return dict(session.fetch(f"select resolved_seq, min(run_id) from {runs} where not replayed group by 1"))


def barred(session: Session) -> list[tuple[str, str, str, int]]:
    """Identifiers that are none: type, value, ``hub`` or ``broken``, and since which identity run."""
    table = session.warehouse.table("barred_identifiers")
    return session.fetch(f"select type, value, reason, resolved_seq from {table}")


def neighbours(
    session: Session, history: History, numbers: NDArray[np.int64], kinds: Sequence[str]
) -> pa.Table:
    """With whom earlier runs saw identifiers: ``identifier``, ``type``, ``value`` of the other."""
    met = session.temp(
        "cdp_met_identifiers", pa.table({"identifier": numbers, **typed(history, numbers, kinds)})
    )
    same = session.warehouse.same_text("m.value", "n.value")
    return session.arrow(
        f"select m.identifier as identifier, n.other_type as type, n.other_value as value from {met} m"
        f" join {session.warehouse.table('neighbours')} n on {same} and n.type = m.type"
    )


@dataclass(frozen=True)
class Changes:
    """What a run writes, as rows of the tables they are named after.

    :param added: new lines of ``identifiers``.
    :param changed: ``node_id`` and the columns that are different now.
    :param moved: ``loser``, ``winner``: profiles that are part of another now, with all they hold.
    :param unlinked: rows whose links are written anew.
    """

    added: pa.Table
    changed: pa.Table
    moved: pa.Table
    unlinked: pa.Table
    row_links: pa.Table
    merges: pa.Table
    refused_links: pa.Table
    splits: pa.Table
    barred_identifiers: pa.Table
    neighbours: pa.Table


#: Tables that hold what history says, and are written anew by a replay. Splits are events: they stay.
_OF_HISTORY = ("row_links", "merges", "refused_links", "barred_identifiers", "neighbours")


@dataclass(frozen=True)
class Stored:
    """:class:`Changes` that lie in temporary tables of the session already; by name.

    Each holds all columns of the table it is named after; `changed` those of :data:`CHANGED`.
    """

    added: str
    changed: str
    moved: str
    unlinked: str
    row_links: str
    merges: str
    refused_links: str
    splits: str
    barred_identifiers: str
    neighbours: str


#: Columns of a line of ``identifiers`` that a run may change.
CHANGED = ("profile_id", "first_seen", "resolved_seq", "published_seq", "evicted_seq")


def apply(session: Session, changes: Changes | Stored, plan: Plan) -> None:
    """Write it all. Call it inside a transaction."""
    table = session.warehouse.table
    identifiers = table("identifiers")
    if moved := _held(session, "cdp_moved_profiles", changes.moved):
        session.execute(
            f"update {identifiers} as i set profile_id = m.winner from {moved} m where i.profile_id = m.loser"
        )
    if changed := _held(session, "cdp_changed_nodes", changes.changed):
        columns = (
            CHANGED
            if isinstance(changes, Stored)
            else [name for name in changes.changed.column_names if name != "node_id"]
        )
        assigned = ", ".join(f"{name} = c.{name}" for name in columns)
        session.execute(
            f"update {identifiers} as i set {assigned} from {changed} c where c.node_id = i.node_id"
        )
    _append(session, "identifiers", changes.added)
    for name in _OF_HISTORY:
        if plan.replay:
            session.execute(f"delete from {table(name)}")
    if unlinked := _held(session, "cdp_unlinked_rows", changes.unlinked):
        session.execute(
            f"delete from {table('row_links')} where exists (select 1 from {unlinked} u"
            f" where u.stream = {table('row_links')}.stream and u.load_id = {table('row_links')}.load_id"
            f" and u.position = {table('row_links')}.position)"
        )
    if plan.replay or (unlinked and session.scalar(f"select count(*) from {unlinked}")):
        # Rows that profiles have linked already hang on other identifiers now: they link all of them anew.
        session.execute(f"update {table('linked')} set fingerprint = ''")
    for name in (*_OF_HISTORY, "splits"):
        _append(session, name, getattr(changes, name))
    taken = "resolved_seq = coalesce(resolved_seq, :seq), resolved_hash = content_hash"
    _mark(session, plan.loads, taken, plan.seq)
    _mark(session, plan.left_out, "resolved_hash = null", plan.seq)
    session.index("identifiers", "value", text=True)
    session.index("identifiers", "profile_id")
    if plan.replay or _grew(changes):
        for name in ("identifiers", "row_links"):
            session.analyze(table(name))


def _grew(changes: Changes | Stored) -> bool:
    """Whether tables grew so much that a planner should know; looking at them costs seconds."""
    if isinstance(changes, Stored):
        return True
    added = changes.added["node_id"]
    return len(added) > 0 and pc.min(added).as_py() <= 10 * len(added)


def _held(session: Session, name: str, rows: pa.Table | str) -> str | None:
    """The temporary table that holds rows; None when there are no rows."""
    if isinstance(rows, str):
        return rows
    return session.temp(name, rows) if rows.num_rows else None


def _append(session: Session, name: str, rows: pa.Table | str) -> None:
    table = session.warehouse.table(name)
    if isinstance(rows, str):
        columns = ", ".join(TABLES[name])
        session.execute(f"insert into {table} ({columns}) select {columns} from {rows}")
    else:
        session.load(table, rows)


def _mark(session: Session, loads: frozenset[Load], assignment: str, seq: int) -> None:
    if not loads:
        return
    ids = session.temp("cdp_marked_loads", pa.table({"load_id": sorted(load.load_id for load in loads)}))
    session.execute(
        f"update {session.warehouse.table('loads')} set {assignment}"
        f" where load_id in (select load_id from {ids})",
        {"seq": seq},
    )


def typed(history: History, identifiers: NDArray[np.int64], kinds: Sequence[str]) -> dict[str, pa.Array]:
    """Type and value of the identifiers with these numbers."""
    places = pa.array(history.kinds[identifiers].astype(np.int32))
    return {
        "type": pa.DictionaryArray.from_arrays(places, pa.array(kinds, pa.string())),
        "value": history.values.take(pa.array(identifiers)),
    }


def _whole(column: pa.ChunkedArray) -> NDArray[np.int64]:
    numbers: NDArray[np.int64] = column.cast(pa.int64()).fill_null(0).to_numpy()
    return numbers
