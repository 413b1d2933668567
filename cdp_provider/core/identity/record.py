# SPDX-License-Identifier: Apache-2.0
"""What a run decided, as rows of the tables that keep it, with its evidence."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cdp_provider.core.identity.history import moments
from cdp_provider.core.identity.limits import DENIED
from cdp_provider.core.identity.quality import Touched
from cdp_provider.core.identity.store import Changes, typed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from cdp_provider.core.identity.decide import Known, Outcome
    from cdp_provider.core.identity.history import History, Plan
    from cdp_provider.core.identity.hubs import Hubs
    from cdp_provider.core.identity.store import Standing
    from cdp_provider.core.project.identity import Identifier


class Record:
    """The outcome of one run.

    :param history: with the identifiers of touched profiles that no row carries at its end.
    :param standing: nodes whose profiles may have changed one by one; None when whole profiles moved at most.
    :param refs: references of the streams, in the project's order.
    :param run_ids: identity run -> the DAG run that did it.
    """

    def __init__(
        self,
        history: History,
        known: Known,
        outcome: Outcome,
        standing: Standing | None,
        plan: Plan,
        refs: Sequence[str],
        rules: Mapping[str, Identifier],
        run_ids: Mapping[int, str],
    ) -> None:
        self.history, self.known, self.outcome = history, known, outcome
        self.standing, self.plan = standing, plan
        self._refs, self._rules, self._run_ids = refs, rules, run_ids
        self._kinds = list(rules)

    def changes(self, hubs: Hubs) -> Changes:
        """All tables."""
        row_nodes = self.outcome.row_nodes
        linked = np.flatnonzero(row_nodes)
        again = np.flatnonzero(self.history.seqs() < self.known.old_from)
        losers, winners = self.outcome.moved
        changed = self._changed()
        return Changes(
            added=self._added(),
            changed=changed,
            moved=pa.table({"loser": losers, "winner": winners}),
            unlinked=pa.table(self._place(again)),
            row_links=pa.table({**self._place(linked), "node_id": row_nodes[linked]}),
            merges=self._merges(),
            refused_links=self._refused_links(),
            splits=self._splits(changed),
            barred_identifiers=self._barred(hubs),
            neighbours=self._neighbours(hubs),
        )

    def new_profiles(self, changes: Changes) -> int:
        """Profiles whose id was not published before."""
        known = self.standing.nodes[self.standing.published > 0] if self.standing else np.empty(0, np.int64)
        heads = pc.sum(pc.is_valid(changes.added["published_seq"])).as_py() or 0
        if self.standing is None:
            return int(heads)
        named = changes.changed.filter(pc.is_valid(changes.changed["published_seq"]))["node_id"].to_numpy()
        return int(heads) + int(np.count_nonzero(~np.isin(named, known)))

    def touched(self, changes: Changes) -> Touched:
        """The profiles that this run touched, and how many identifiers they held and hold."""
        whole = np.unique(self.known.profiles[self.known.profiles > 0])
        held = np.array([sum(self.known.counts[profile].values()) for profile in whole.tolist()], np.int64)
        moved = dict(zip(*(changes.moved[name].to_pylist() for name in ("loser", "winner")), strict=True))
        became = np.array([moved.get(profile, profile) for profile in whole.tolist()], np.int64)
        added = changes.added.filter(pc.is_null(changes.added["evicted_seq"]))["profile_id"].to_numpy()
        left = [profile for gone, profile in self.outcome.evicted if gone.node <= self.known.last_node]
        before = [(whole, held)]
        after = [
            (became, held),
            (added, np.ones_like(added)),
            (np.array(left, np.int64), np.full(len(left), -1)),
        ]
        if self.standing is not None:
            stood = self.standing.evicted == 0
            ones = np.ones(int(np.count_nonzero(stood)), np.int64)
            nodes, profiles = self.standing.nodes[stood].tolist(), self.standing.profiles[stood]
            now = dict(zip(nodes, profiles.tolist(), strict=True))
            now.update(
                zip(*(changes.changed[name].to_pylist() for name in ("node_id", "profile_id")), strict=True)
            )
            before.append((profiles, ones))
            after.append((np.array([now[node] for node in nodes], np.int64), ones))
        return Touched.of(before, after)

    def merged(self, changes: Changes) -> int:
        """Profiles that stood before and are part of another now."""
        if self.standing is None:
            return int(changes.moved.num_rows)
        now = dict(
            zip(
                changes.changed["node_id"].to_pylist(), changes.changed["profile_id"].to_pylist(), strict=True
            )
        )
        heads = self.standing.nodes[self.standing.profiles == self.standing.nodes].tolist()
        return int(changes.moved.num_rows) + sum(1 for head in heads if now.get(head, head) != head)

    def _added(self) -> pa.Table:
        """Lines of nodes that did not stand before, those that were evicted at once included."""
        outcome, last = self.outcome, self.known.last_node
        current = np.flatnonzero(outcome.nodes > last)
        gone = [(eviction, profile) for eviction, profile in outcome.evicted if eviction.node > last]
        ids = np.append(current, np.array([eviction.identifier for eviction, _ in gone], np.int64))
        rows = np.append(
            outcome.accepted_rows[current],
            np.array([eviction.accepted_row for eviction, _ in gone], np.int64),
        )
        nodes = np.append(outcome.nodes[current], np.array([eviction.node for eviction, _ in gone], np.int64))
        profiles = np.append(outcome.profiles[current], np.array([profile for _, profile in gone], np.int64))
        evicted = np.append(
            np.zeros(len(current), np.int64), self._seqs([eviction.row for eviction, _ in gone])
        )
        return pa.table(
            {
                "node_id": nodes,
                **typed(self.history, ids, self._kinds),
                "profile_id": profiles,
                "first_seen": moments(self.history.times[rows]),
                "resolved_seq": self.history.seqs(rows),
                "published_seq": _known_only(np.where(nodes == profiles, self.plan.stands, 0)),
                "evicted_seq": _known_only(evicted),
            }
        )

    def _changed(self) -> pa.Table:
        """Nodes that stood before and are something else now."""
        gone = {
            eviction.node: (profile, eviction.row)
            for eviction, profile in self.outcome.evicted
            if eviction.node <= self.known.last_node
        }
        if self.standing is not None:
            return self._stand(self.standing, gone)
        return pa.table(
            {
                "node_id": pa.array(gone, pa.int64()),
                "profile_id": pa.array([profile for profile, _ in gone.values()], pa.int64()),
                "evicted_seq": self._seqs([row for _, row in gone.values()]),
            }
        )

    def _stand(self, standing: Standing, gone: Mapping[int, tuple[int, int]]) -> pa.Table:
        """The nodes that may have changed one by one, where they did.

        One that no row carries in any more, or not within the limits, keeps its node as a profile of its own.
        """
        outcome, nodes, ids = self.outcome, standing.nodes, standing.identifiers
        met = ids >= 0
        found, profiles, known = (  # the last place stands for -1
            np.append(numbers, 0)[ids] for numbers in (outcome.nodes, outcome.profiles, self.known.nodes)
        )
        current = met & (found == nodes) & (profiles > 0)
        now = {
            "profile_id": np.where(current, profiles, nodes),
            "evicted_seq": np.where(current, 0, standing.evicted),
            "first_seen": standing.first_seen.copy(),
            "resolved_seq": standing.resolved.copy(),
        }
        first = met & (known == nodes)
        now["evicted_seq"][first & ~current] = 0
        unused = met & ~first & ~current & (standing.evicted == 0)
        now["evicted_seq"][unused] = self.plan.stands  # its value has an older node
        places = {node: place for place, node in enumerate(nodes.tolist())} if gone else {}
        for node, (profile, row) in gone.items():
            now["profile_id"][places[node]] = profile
            now["evicted_seq"][places[node]] = self._seqs([row])[0]
        if self.plan.replay:
            rows = outcome.accepted_rows[ids[current]]
            now["first_seen"][current], now["resolved_seq"][current] = (
                self.history.times[rows],
                self._seqs(rows),
            )
        heads = nodes == now["profile_id"]
        now["published_seq"] = np.where(
            (standing.published == 0) & heads, self.plan.stands, standing.published
        )
        differs = np.flatnonzero(
            (now["profile_id"] != standing.profiles)
            | (now["evicted_seq"] != standing.evicted)
            | (now["first_seen"] != standing.first_seen)
            | (now["resolved_seq"] != standing.resolved)
            | (now["published_seq"] != standing.published)
        )
        return pa.table(
            {
                "node_id": nodes[differs],
                "profile_id": now["profile_id"][differs],
                "first_seen": moments(now["first_seen"][differs]),
                "resolved_seq": now["resolved_seq"][differs],
                "published_seq": _known_only(now["published_seq"][differs]),
                "evicted_seq": _known_only(now["evicted_seq"][differs]),
            }
        )

    def _splits(self, changed: pa.Table) -> pa.Table:
        """Profiles that lost identifiers to others while they, or what they became, kept some.

        A profile that went over whole is a merge.
        """
        pairs: Counter[tuple[int, int]] = Counter()
        if self.standing is not None:
            now = dict(zip(self.standing.nodes.tolist(), self.standing.profiles.tolist(), strict=True))
            was = dict(now)
            now.update(zip(changed["node_id"].to_pylist(), changed["profile_id"].to_pylist(), strict=True))
            evicted = set(changed.filter(pc.is_valid(changed["evicted_seq"]))["node_id"].to_pylist())
            pairs.update(
                (was[node], now[node])
                for node in changed["node_id"].to_pylist()
                if was[node] not in (now[node], 0) and node not in evicted and now.get(was[node]) != now[node]
            )
        lost = sorted(pairs)
        return pa.table(
            {
                "resolved_seq": pa.array([self.plan.stands] * len(lost), pa.int64()),
                "run_id": pa.array([self._run_ids[self.plan.seq]] * len(lost), pa.string()),
                "profile_id": pa.array([old for old, _ in lost], pa.int64()),
                "new_profile_id": pa.array([new for _, new in lost], pa.int64()),
                "identifiers": pa.array([pairs[pair] for pair in lost], pa.int64()),
                "rule": pa.array([self.plan.reason or self._broken_by()] * len(lost), pa.string()),
            }
        )

    def _broken_by(self) -> str:
        """The limits that broke identifiers in this run."""
        return ", ".join(sorted({self._rule(refusal.rule) for refusal in self.outcome.refusals}))

    def _merges(self) -> pa.Table:
        merges = self.outcome.merges
        rows = np.array([merge.row for merge in merges], np.int64)
        met = [", ".join(self._kinds[kind] for kind in merge.kinds) for merge in merges]
        return pa.table(
            {
                **self._run(rows),
                "loser": pa.array([merge.loser for merge in merges], pa.int64()),
                "winner": pa.array([merge.winner for merge in merges], pa.int64()),
                **self._place(rows),
                "evidence": pa.array(met, pa.string()),
            }
        )

    def _refused_links(self) -> pa.Table:
        refusals = self.outcome.refusals
        rows = np.array([refusal.row for refusal in refusals], np.int64)
        ids = np.array([refusal.identifier for refusal in refusals], np.int64)
        rules = [self._rule(refusal.rule) for refusal in refusals]
        return pa.table(
            {
                **self._run(rows),
                **self._place(rows),
                **typed(self.history, ids, self._kinds),
                "rule": pa.array(rules, pa.string()),
            }
        )

    def _rule(self, kind: int) -> str:
        if kind == DENIED:
            return "deny"
        name = self._kinds[kind]
        return f"limit {name} {self._rules[name].limit}"

    def _barred(self, hubs: Hubs) -> pa.Table:
        broken = self.outcome.broken
        breakers = {refusal.identifier: refusal.rule for refusal in self.outcome.refusals}
        ids = np.array([*hubs.since, *broken], np.int64)
        rows = np.array(list(broken.values()), np.int64)
        seqs = np.append(np.array(list(hubs.since.values()), np.int64), self._seqs(rows))
        rules = [f"hub {self._rules[self._kinds[self.history.kinds[hub]]].hub}" for hub in hubs.since]
        return pa.table(
            {
                "resolved_seq": seqs,
                "run_id": pa.array([self._run_ids[seq] for seq in seqs.tolist()], pa.string()),
                **typed(self.history, ids, self._kinds),
                "reason": pa.array(["hub"] * len(hubs.since) + ["broken"] * len(broken), pa.string()),
                "rule": pa.array([*rules, *(self._rule(breakers[i]) for i in broken)], pa.string()),
                "seen_with": pa.array([*hubs.seen_with.values(), *([None] * len(broken))], pa.int64()),
                **self._place_or_none(len(hubs.since), rows),
            }
        )

    def _neighbours(self, hubs: Hubs) -> pa.Table:
        other = typed(self.history, hubs.pairs.others, self._kinds)
        return pa.table(
            {
                **typed(self.history, hubs.pairs.identifiers, self._kinds),
                "other_type": other["type"],
                "other_value": other["value"],
                "resolved_seq": hubs.pairs.seqs,
            }
        )

    def _place_or_none(self, without: int, rows: NDArray[np.int64]) -> dict[str, pa.Array]:
        """Nulls for so many lines, then where the rows lie."""
        return {
            name: pa.concat_arrays([pa.nulls(without, column.type), column])
            for name, column in self._place(rows).items()
        }

    def _seqs(self, rows: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
        return self.history.seqs(np.asarray(rows, np.int64))

    def _run(self, rows: NDArray[np.int64]) -> dict[str, pa.Array]:
        seqs = self._seqs(rows)
        return {
            "resolved_seq": pa.array(seqs),
            "run_id": pa.array([self._run_ids[seq] for seq in seqs.tolist()], pa.string()),
        }

    def _place(self, rows: NDArray[np.int64]) -> dict[str, pa.Array]:
        """Where rows lie: stream, batch and position."""
        history = self.history
        batch = history.batch[rows]
        load_ids = np.array([load.load_id for load in history.batches], np.int64)
        sources = pa.array(history.sources[batch].astype(np.int32))
        return {
            "stream": pa.DictionaryArray.from_arrays(sources, pa.array(self._refs, pa.string())),
            "load_id": pa.array(load_ids[batch]),
            "position": pa.array(history.positions[rows]),
        }


def _known_only(numbers: NDArray[np.int64]) -> pa.Array:
    """0 stands for "none"."""
    return pa.array(numbers, mask=numbers == 0)
