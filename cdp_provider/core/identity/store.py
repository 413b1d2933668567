# SPDX-License-Identifier: Apache-2.0
"""Reading the part of the graph that a run touches, and writing what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from cdp_provider.core.identity.graph import Known
from cdp_provider.core.identity.history import NO_TIME

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from cdp_provider.core.identity.graph import Graph
    from cdp_provider.core.identity.history import History, Load, Plan
    from cdp_provider.core.project.identity import Identifier
    from cdp_provider.core.warehouse import Session


def read_known(session: Session, history: History, rules: Mapping[str, Identifier], plan: Plan) -> Known:
    """What the warehouse holds of the history's identifiers; the cost follows their number, not the total.

    For a replay only the node ids count: profiles are made anew, and every id that was ever published is
    known as such, so that its merge is on record.
    """
    identifiers = session.warehouse.table("identifiers")
    nodes = np.zeros(len(history.values), np.int64)
    profiles, heads = np.zeros_like(nodes), np.zeros(len(nodes), bool)
    last_node = session.scalar(f"select max(node_id) from {identifiers}") or 0
    if not (last_node and len(nodes)):
        return Known(nodes, profiles, heads, last_node=last_node)
    numbers = np.arange(len(nodes))
    met = session.temp(
        "cdp_met_identifiers",
        pa.table({"identifier": numbers, **_typed(history, numbers, list(rules))}),
    )
    found = session.arrow(
        f"select m.identifier as identifier, i.node_id as node_id, i.profile_id as profile_id"
        f" from {met} m join {identifiers} i on i.value = m.value and i.type = m.type"
    )
    at, found_nodes, found_profiles = (found[n].to_numpy() for n in ("identifier", "node_id", "profile_id"))
    nodes[at] = found_nodes
    heads[at] = found_nodes == found_profiles
    if plan.replay:
        merges = session.warehouse.table("merges")
        published = session.fetch(f"select profile_id from {identifiers} union select loser from {merges}")
        return Known(nodes, profiles, heads, {}, last_node, frozenset(row[0] for row in published))
    profiles[at] = found_profiles
    return Known(nodes, profiles, heads, _counts(session, profiles, list(rules)), last_node)


def _counts(session: Session, profiles: NDArray[np.int64], kinds: Sequence[str]) -> dict[int, dict[int, int]]:
    """Touched profile -> type -> how many identifiers it holds."""
    touched = np.unique(profiles[profiles > 0])
    counts: dict[int, dict[int, int]] = {profile: {} for profile in touched.tolist()}
    name = session.temp("cdp_touched_profiles", pa.table({"profile_id": touched}))
    found = session.arrow(
        f"select i.profile_id as profile_id, i.type as type, count(*) as held"
        f" from {session.warehouse.table('identifiers')} i join {name} t on t.profile_id = i.profile_id"
        " group by i.profile_id, i.type"
    )
    places = {kind: place for place, kind in enumerate(kinds)}
    rows = zip(*(found[name].to_pylist() for name in ("profile_id", "type", "held")), strict=True)
    for profile, kind, held in rows:
        if kind in places:
            counts[profile][places[kind]] = held
    return counts


def recorded_runs(session: Session) -> dict[int, str]:
    """Identity run -> the DAG run that did it, as far as its evidence tells."""
    merges, refused = session.warehouse.table("merges"), session.warehouse.table("refused_links")
    return dict(
        session.fetch(
            f"select resolved_seq, run_id from {merges} union select resolved_seq, run_id from {refused}"
        )
    )


@dataclass(frozen=True)
class Changes:
    """What a run writes, as rows of the tables they are named after.

    :param nodes: identifiers that a row carried into the graph; in a replay all, else the new ones.
    :param moved: ``loser``, ``winner``: profiles that are part of another now. Not used by a replay.
    """

    nodes: pa.Table
    moved: pa.Table
    row_links: pa.Table
    merges: pa.Table
    refused_links: pa.Table


def changes(
    history: History,
    graph: Graph,
    refs: Sequence[str],
    rules: Mapping[str, Identifier],
    run_ids: Mapping[int, str],
) -> Changes:
    """The graph's outcome as tables.

    :param refs: references of the streams, in the project's order.
    :param run_ids: identity run -> DAG run, for every identity run of the history.
    """
    # Only its weaker identifiers are ever dropped from a row, so the strongest one always holds.
    strongest = np.full(len(history), -1, np.int64)
    for column in reversed(history.columns):
        strongest = np.where(column < 0, strongest, column)
    linked = np.flatnonzero(strongest >= 0)
    losers, winners = graph.moved()
    return Changes(
        nodes=_nodes(history, graph, list(rules)),
        moved=pa.table({"loser": losers, "winner": winners}),
        row_links=pa.table({**_place(history, linked, refs), "node_id": graph.nodes()[strongest[linked]]}),
        merges=_merges(history, graph, refs, list(rules), run_ids),
        refused_links=_refused_links(history, graph, refs, rules, run_ids),
    )


def _nodes(history: History, graph: Graph, kinds: Sequence[str]) -> pa.Table:
    accepted, rows = np.array(graph.accepted, np.int64), np.array(graph.accepted_rows, np.int64)
    return pa.table(
        {
            "node_id": graph.nodes()[accepted],
            **_typed(history, accepted, kinds),
            "profile_id": graph.profiles()[accepted],
            "first_seen": _moments(history.times[rows]),
            "resolved_seq": history.seqs[rows],
        }
    )


def _merges(
    history: History, graph: Graph, refs: Sequence[str], kinds: Sequence[str], run_ids: Mapping[int, str]
) -> pa.Table:
    rows = np.array([merge.row for merge in graph.merges], np.int64)
    met = [", ".join(kinds[kind] for kind in merge.kinds) for merge in graph.merges]
    return pa.table(
        {
            **_run(history, rows, run_ids),
            "loser": pa.array([merge.loser for merge in graph.merges], pa.int64()),
            "winner": pa.array([merge.winner for merge in graph.merges], pa.int64()),
            **_place(history, rows, refs),
            "evidence": pa.array(met, pa.string()),
        }
    )


def _refused_links(
    history: History,
    graph: Graph,
    refs: Sequence[str],
    rules: Mapping[str, Identifier],
    run_ids: Mapping[int, str],
) -> pa.Table:
    rows = np.array([refusal.row for refusal in graph.refusals], np.int64)
    identifiers = np.array([refusal.identifier for refusal in graph.refusals], np.int64)
    broken = [f"limit {kind} {rule.limit}" for kind, rule in rules.items()]
    return pa.table(
        {
            **_run(history, rows, run_ids),
            **_place(history, rows, refs),
            **_typed(history, identifiers, list(rules)),
            "rule": pa.array([broken[refusal.kind] for refusal in graph.refusals], pa.string()),
        }
    )


def _typed(history: History, identifiers: NDArray[np.int64], kinds: Sequence[str]) -> dict[str, pa.Array]:
    """Type and value of the identifiers with these numbers."""
    values = [history.values[identifier] for identifier in identifiers.tolist()]
    places = np.frombuffer(history.kinds, np.uint8)[identifiers]
    return {
        "type": pa.array(kinds, pa.string()).take(pa.array(places)),
        "value": pa.array(values, pa.string()),
    }


def _run(history: History, rows: NDArray[np.int64], run_ids: Mapping[int, str]) -> dict[str, pa.Array]:
    seqs = history.seqs[rows]
    return {
        "resolved_seq": pa.array(seqs),
        "run_id": pa.array([run_ids[seq] for seq in seqs.tolist()], pa.string()),
    }


def _place(history: History, rows: NDArray[np.int64], refs: Sequence[str]) -> dict[str, pa.Array]:
    """Where rows lie: stream, batch and position."""
    sources = pa.array(history.sources[rows].astype(np.int32))
    return {
        "stream": pa.DictionaryArray.from_arrays(sources, pa.array(refs, pa.string())),
        "load_id": pa.array(history.load_ids[rows]),
        "position": pa.array(history.positions[rows]),
    }


def _moments(times: NDArray[np.int64]) -> pa.Array:
    return pa.array(times, mask=times == NO_TIME).cast(pa.timestamp("us", tz="UTC"))


def apply(session: Session, changes: Changes, plan: Plan) -> int:
    """Write it all. Call it inside a transaction.

    :returns: identifiers that were cut off from their profile: no row carries them any more, or not within
        the limits. They keep their node, as a profile of their own without rows. Only a replay has any.
    """
    table = session.warehouse.table
    cut = _replace_graph(session, changes) if plan.replay else _extend_graph(session, changes)
    for name in ("row_links", "merges", "refused_links"):
        if plan.replay:
            session.execute(f"delete from {table(name)}")
        session.load(table(name), getattr(changes, name))
    taken = "resolved_seq = coalesce(resolved_seq, :seq), resolved_hash = content_hash"
    _mark(session, plan.loads, taken, plan.seq)
    _mark(session, plan.left_out, "resolved_hash = null", plan.seq)
    for name in ("identifiers", "row_links"):
        session.analyze(table(name))
    return cut


def _extend_graph(session: Session, changes: Changes) -> int:
    identifiers = session.warehouse.table("identifiers")
    if changes.moved.num_rows:
        moved = session.temp("cdp_moved_profiles", changes.moved)
        session.execute(
            f"update {identifiers} as i set profile_id = m.winner from {moved} m where i.profile_id = m.loser"
        )
    session.load(identifiers, changes.nodes)
    return 0


def _replace_graph(session: Session, changes: Changes) -> int:
    identifiers = session.warehouse.table("identifiers")
    nodes = session.temp("cdp_replayed_nodes", changes.nodes)
    cut = session.execute(
        f"update {identifiers} as i set profile_id = i.node_id where i.profile_id <> i.node_id"
        f" and not exists (select 1 from {nodes} n where n.node_id = i.node_id)"
    )
    session.execute(
        f"update {identifiers} as i set profile_id = n.profile_id, first_seen = n.first_seen,"
        f" resolved_seq = n.resolved_seq from {nodes} n where n.node_id = i.node_id"
        " and (i.profile_id <> n.profile_id or i.resolved_seq <> n.resolved_seq"
        " or i.first_seen is distinct from n.first_seen)"
    )
    columns = ", ".join(changes.nodes.column_names)
    session.execute(
        f"insert into {identifiers} ({columns}) select {columns} from {nodes} n"
        f" where not exists (select 1 from {identifiers} i where i.node_id = n.node_id)"
    )
    return cut


def _mark(session: Session, loads: frozenset[Load], assignment: str, seq: int) -> None:
    if not loads:
        return
    ids = session.temp("cdp_marked_loads", pa.table({"load_id": sorted(load.load_id for load in loads)}))
    session.execute(
        f"update {session.warehouse.table('loads')} set {assignment}"
        f" where load_id in (select load_id from {ids})",
        {"seq": seq},
    )


def totals(session: Session) -> tuple[int, int]:
    """How many profiles and how many identifiers there are. A profile's id is the node id of one member."""
    row = session.one(
        "select sum(case when node_id = profile_id then 1 else 0 end), count(*)"
        f" from {session.warehouse.table('identifiers')}"
    )
    return (int(row[0] or 0), int(row[1])) if row else (0, 0)
