# SPDX-License-Identifier: Apache-2.0
"""What a run that was pushed down to the warehouse decided, as the rows of the tables that keep it.

What ``record.py`` does in the process, done by SQL. New nodes are numbered here, in the order in which their
identifiers were accepted, whichever way that went.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from cdp_provider.core.identity.quality import Made
from cdp_provider.core.identity.store import Stored
from cdp_provider.core.tables import TABLES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cdp_provider.core.identity.pushdown_rows import Bench, Rows

#: Columns with node ids, of the tables that the process filled; new ones are provisional there.
_NUMBERED = {
    "added": ("node_id", "profile_id"),
    "row_links": ("node_id",),
    "merges": ("loser", "winner"),
    "moved": ("loser", "winner"),
    "gone": ("profile_id",),
    "current": ("profile_id",),
}


@dataclass(frozen=True)
class Decided:
    """Tables of what is decided, by name.

    :param known: ``identifier``, ``node_id``, ``profile_id``, ``published_seq``.
    :param sets: ``identifier``, ``kind`` and its component ``r``; `labels`: ``profile_id``, ``r``.
    :param exceptional: ``r`` of components that went through the process.
    :param parts: what the process made of them.
    :param freed: ``profile_id`` of profiles whose rows were gone through again.
    :param old_from: rows of identity runs before this one are gone through again, but not on record anew.
    :param joins: how often profiles or identifiers became one in the process.
    :param rows_refused: rows of which the process dropped an identifier.
    """

    rows: Rows
    known: str
    sets: str
    labels: str
    exceptional: str
    parts: Mapping[str, str]
    freed: str
    old_from: int
    last_node: int
    run_ids: Mapping[int, str]
    joins: int
    rows_refused: int


class PushedRecord:
    """The outcome of one run."""

    def __init__(self, bench: Bench, decided: Decided) -> None:
        self._bench, self._decided, self._rows = bench, decided, decided.rows
        self._plan, self._session = bench.plan, bench.session
        self._identifiers = bench.session.warehouse.table("identifiers")
        self._whole = bench.type("integer")
        #: whether nodes that stood before may have changed one by one.
        self._stands = bench.plan.replay or decided.old_from > 0
        self._number()

    def _number(self) -> None:
        """Make the tables of new nodes, and of the nodes and profiles of what is left to components."""
        make, decided, rows = self._bench.make, self._decided, self._rows
        width = max(len(rows.slots), 1)
        sights = (
            " union all ".join(
                f"select r.s{slot} as identifier, r.n * {width} + {slot} as birth from {rows.rows} r"
                f" where r.s{slot} is not null"
                for slot in range(len(rows.slots))
            )
            or f"select r.n as identifier, r.n as birth from {rows.rows} r where 1 = 0"
        )
        first = make(
            "first",
            f"select b.identifier as identifier, b.birth as birth, mod(b.birth, {width}) as slot,"
            f" cast((b.birth - mod(b.birth, {width})) / {width} as {self._whole}) as n, s.r as r,"
            " k.node_id as node_id, k.profile_id as profile_id"
            f" from (select g.identifier, min(g.birth) as birth from ({sights}) g group by g.identifier) b"
            f" join {decided.sets} s on s.identifier = b.identifier"
            f" left join {decided.exceptional} e on e.r = s.r"
            f" left join {decided.known} k on k.identifier = b.identifier where e.r is null",
        )
        #: new nodes, by identifier, or by the number that they had in the process.
        self._new = make(
            "new",
            "select q.identifier as identifier, q.provisional as provisional,"
            f" {decided.last_node} + row_number() over (order by q.n, q.place) as node_id from ("
            f"select f.identifier as identifier, cast(null as {self._whole}) as provisional, f.n as n,"
            f" f.slot as place from {first} f where f.node_id is null union all"
            f" select cast(null as {self._whole}), a.node_id, a.n, a.node_id"
            f" from {decided.parts['added']} a) q",
        )
        nodes = make(
            "numbered",
            "select f.identifier as identifier, coalesce(f.node_id, x.node_id) as node_id, f.r as r,"
            f" f.n as n, f.profile_id as profile_id from {first} f"
            f" left join {self._new} x on x.identifier = f.identifier",
        )
        #: the smallest id in each component: a known profile's, or a node.
        names = make(
            "names",
            f"select c.r as r, min(c.id) as profile_id from (select n.r as r, n.node_id as id from {nodes} n"
            f" union all select l.r, l.profile_id from {decided.labels} l) c group by c.r",
        )
        self._nodes = make(
            "nodes",
            "select n.identifier as identifier, n.node_id as node_id, n.r as r, n.n as n,"
            " coalesce(n.profile_id, c.profile_id) as profile_id,"
            " case when n.profile_id is null then 1 else 0 end as fresh"
            f" from {nodes} n join {names} c on c.r = n.r",
        )
        for table in (first, nodes, names):
            self._session.execute(f"drop table {table}")

    def _final(self, name: str) -> str:
        """What the process put into a table, with final node ids."""
        part, ids = self._decided.parts[name], _NUMBERED[name]
        columns = ", ".join(
            f"coalesce(m{ids.index(column)}.node_id, p.{column}) as {column}"
            if column in ids
            else f"p.{column}"
            for column in self._columns(name)
        )
        joins = "".join(
            f" left join {self._new} m{place} on m{place}.provisional = p.{column}"
            for place, column in enumerate(ids)
        )
        return f"select {columns} from {part} p{joins}"

    def _columns(self, name: str) -> list[str]:
        others = {
            "added": list(TABLES["identifiers"]),
            "moved": ["loser", "winner"],
            "gone": ["node_id", "profile_id", "evicted_seq"],
            "current": ["node_id", "profile_id", "first_seen", "resolved_seq"],
        }
        return others.get(name) or list(TABLES[name])

    def changes(self) -> Stored:
        """All tables."""
        make, parts, rows = self._bench.make, self._decided.parts, self._rows
        changed = make("changed", self._changed() if self._stands else self._evicted())
        self._stored = Stored(
            added=make("added", self._added()),
            changed=changed,
            moved=make("moved", self._final("moved")),
            unlinked=make(
                "unlinked",
                "select t.stream as stream, r.load_id as load_id, r.position as position"
                f" from {rows.rows} r join {rows.sources} t on t.source = r.source"
                f" where r.seq < {self._decided.old_from}",
            ),
            row_links=make(
                "row_links",
                "select t.stream as stream, r.load_id as load_id, r.position as position,"
                f" n.node_id as node_id from {rows.rows} r join {self._nodes} n on n.identifier = r.strongest"
                f" join {rows.sources} t on t.source = r.source union all {self._final('row_links')}",
            ),
            merges=make("merges", self._final("merges")),
            refused_links=parts["refused_links"],
            splits=self._splits(changed),
            barred_identifiers=self._barred(),
            neighbours=self._neighbours(),
        )
        return self._stored

    def _added(self) -> str:
        rows = self._rows
        plain = (
            "select n.node_id as node_id, k.type as type, v.value as value, n.profile_id as profile_id,"
            " r.at as first_seen, r.seq as resolved_seq,"
            f" case when n.node_id = n.profile_id then {self._plan.stands} end as published_seq,"
            f" cast(null as {self._whole}) as evicted_seq from {self._nodes} n"
            f" join {rows.values} v on v.identifier = n.identifier join {rows.kinds} k on k.kind = v.kind"
            f" join {rows.rows} r on r.n = n.n where n.node_id > {self._decided.last_node}"
        )
        return f"{plain} union all {self._final('added')}"

    def _evicted(self) -> str:
        """Nodes that stood before and were evicted."""
        return (
            "select i.node_id as node_id, g.profile_id as profile_id, i.first_seen as first_seen,"
            " i.resolved_seq as resolved_seq, i.published_seq as published_seq, g.evicted_seq as evicted_seq"
            f" from ({self._final('gone')}) g join {self._identifiers} i on i.node_id = g.node_id"
        )

    def _standing(self) -> str:
        """Nodes that may have changed one by one: in a replay all, else the members of freed profiles.

        ``met``: rows carry its identifier; ``first``: it is the identifier's first node.
        """
        rows = self._rows
        only = (
            "where 1 = 1"
            if self._plan.replay
            else "where i.evicted_seq is null"
            f" and i.profile_id in (select profile_id from {self._decided.freed})"
        )
        return self._bench.make(
            "standing",
            "select i.node_id as node_id, i.profile_id as profile_id, i.first_seen as first_seen,"
            " i.resolved_seq as resolved_seq, i.published_seq as published_seq, i.evicted_seq as evicted_seq,"
            " case when v.identifier is null then 0 else 1 end as met,"
            " case when b.node_id is null then 0 else 1 end as first"
            f" from {self._identifiers} i left join {rows.kinds} k on k.type = i.type"
            f" left join {rows.values} v on v.kind = k.kind and v.value = i.value"
            f" left join {self._decided.known} b on b.node_id = i.node_id {only}",
        )

    def _current(self) -> str:
        """Nodes that stood before, that rows have carried in again: ``node_id``, ``profile_id``,
        ``first_seen``, ``resolved_seq``."""
        plain = (
            "select n.node_id as node_id, n.profile_id as profile_id, r.at as first_seen,"
            f" r.seq as resolved_seq from {self._nodes} n join {self._rows.rows} r on r.n = n.n"
            f" where n.fresh = 1 and n.node_id <= {self._decided.last_node}"
        )
        return self._bench.make("current", f"{plain} union all {self._final('current')}")

    def _changed(self) -> str:
        """The nodes that may have changed one by one, where they did.

        One that no row carries in any more, or not within the limits, keeps its node as a profile of its own.
        """
        stands, replay = self._plan.stands, self._plan.replay
        seen = ("c.first_seen", "c.resolved_seq") if replay else ("s.first_seen", "s.resolved_seq")
        self._before = self._standing()
        now = (
            "select s.node_id, coalesce(g.profile_id, c.profile_id, s.node_id) as profile_id,"
            f" case when c.node_id is null then s.first_seen else {seen[0]} end as first_seen,"
            f" case when c.node_id is null then s.resolved_seq else {seen[1]} end as resolved_seq,"
            " case when g.node_id is not null then g.evicted_seq when c.node_id is not null then null"
            " when s.met = 1 and s.first = 1 then null"
            f" when s.met = 1 and s.evicted_seq is null then {stands} else s.evicted_seq end as evicted_seq,"
            " s.published_seq, s.profile_id as was, s.first_seen as was_seen, s.resolved_seq as was_resolved,"
            " s.evicted_seq as was_evicted"
            f" from {self._before} s left join {self._current()} c on c.node_id = s.node_id"
            f" left join ({self._final('gone')}) g on g.node_id = s.node_id"
        )
        return (
            "select n.node_id as node_id, n.profile_id as profile_id, n.first_seen as first_seen,"
            " n.resolved_seq as resolved_seq, case when n.published_seq is null and n.node_id = n.profile_id"
            f" then {stands} else n.published_seq end as published_seq, n.evicted_seq as evicted_seq"
            f" from ({now}) n where n.profile_id <> n.was or n.evicted_seq is distinct from n.was_evicted"
            " or n.first_seen is distinct from n.was_seen or n.resolved_seq <> n.was_resolved"
            " or (n.published_seq is null and n.node_id = n.profile_id)"
        )

    def _splits(self, changed: str) -> str:
        """Profiles that lost identifiers to others while they, or what they became, kept some."""
        text = pa.string()
        reason = self._bench.put(
            "reason",
            {
                "run_id": [self._decided.run_ids[self._plan.seq]],
                "rule": [self._plan.reason or self._broken_by()],
            },
            {"run_id": text, "rule": text},
        )
        if not self._stands:
            return self._bench.make(
                "splits",
                "select l.profile_id as resolved_seq, b.run_id as run_id, l.profile_id as profile_id,"
                " l.profile_id as new_profile_id, l.profile_id as identifiers, b.rule as rule"
                f" from {reason} b join {self._decided.labels} l on 1 = 0",
            )
        return self._bench.make(
            "splits",
            f"select {self._plan.stands} as resolved_seq, b.run_id as run_id, p.was as profile_id,"
            " p.profile_id as new_profile_id, p.lost as identifiers, b.rule as rule from"
            " (select s.profile_id as was, c.profile_id as profile_id, count(*) as lost"
            f" from {changed} c join {self._before} s on s.node_id = c.node_id"
            f" left join {self._before} hs on hs.node_id = s.profile_id"
            f" left join {changed} hc on hc.node_id = s.profile_id"
            " where s.profile_id <> c.profile_id and c.evicted_seq is null"
            " and coalesce(hc.profile_id, hs.profile_id, 0) <> c.profile_id"
            f" group by s.profile_id, c.profile_id) p join {reason} b on 1 = 1",
        )

    def _broken_by(self) -> str:
        """The limits that broke identifiers in this run."""
        rules = self._session.fetch(f"select distinct r.rule from {self._decided.parts['refused_links']} r")
        return ", ".join(sorted(rule for (rule,) in rules))

    def _barred(self) -> str:
        rows, broken = self._rows, self._decided.parts["barred_identifiers"]
        if not rows.hubs:
            return broken
        seqs = [seq for (seq,) in self._session.fetch(f"select distinct h.since from {rows.hubs} h")]
        runs = self._bench.put(
            "runs",
            {"seq": seqs, "run_id": [self._decided.run_ids[seq] for seq in seqs]},
            {"seq": pa.int64(), "run_id": pa.string()},
        )
        whole, text = self._whole, self._bench.type("string")
        return self._bench.make(
            "barred_all",
            "select h.since as resolved_seq, u.run_id as run_id, k.type as type, v.value as value,"
            f" 'hub' as reason, 'hub ' || cast(k.hub as {text}) as rule, h.seen_with as seen_with,"
            f" cast(null as {text}) as stream, cast(null as {whole}) as load_id,"
            f" cast(null as {whole}) as position from {rows.hubs} h join {runs} u on u.seq = h.since"
            f" join {rows.values} v on v.identifier = h.identifier join {rows.kinds} k on k.kind = v.kind"
            f" union all select {', '.join(TABLES['barred_identifiers'])} from {broken}",
        )

    def _neighbours(self) -> str:
        rows = self._rows
        pairs = rows.neighbours or (
            f"(select v.identifier, v.identifier as other, v.kind as seq from {rows.values} v where 1 = 0)"
        )
        return self._bench.make(
            "neighbours_all",
            "select k.type as type, v.value as value, ok.type as other_type, o.value as other_value,"
            f" p.seq as resolved_seq from {pairs} p join {rows.values} v on v.identifier = p.identifier"
            f" join {rows.kinds} k on k.kind = v.kind join {rows.values} o on o.identifier = p.other"
            f" join {rows.kinds} ok on ok.kind = o.kind",
        )

    def made(self) -> Made:
        """Counts; call it after :meth:`changes`."""
        session, stored, count = self._session, self._stored, self._bench.count
        rows_in, without, newest = session.fetch(
            "select count(*), sum(case when r.strongest is null then 1 else 0 end), max(r.at)"
            f" from {self._rows.rows} r where r.seq >= {self._decided.old_from}"
        )[0]
        refused = session.fetch(f"select rule, count(*) from {stored.refused_links} group by rule")
        return Made(
            rows_in=rows_in,
            rows_linked=count(f"select count(*) from {stored.row_links}")
            - count(f"select count(*) from {stored.unlinked}"),
            rows_refused=self._decided.rows_refused,
            rows_without_identifier=int(without or 0),
            newest=newest,
            joins=self._decided.joins + self._joins(),
            new_identifiers=count(f"select count(*) from {stored.added}"),
            new_profiles=count(f"select count(published_seq) from {stored.added}") + self._newly_named(),
            merged=count(f"select count(*) from {stored.moved}") + self._merged(),
            split=count(f"select count(distinct profile_id) from {stored.splits}"),
            refused=dict(refused),
            unfit=self._rows.unfit,
        )

    def _joins(self) -> int:
        """How often identifiers or known profiles became one without coming into the process."""
        found = self._session.fetch(
            "select sum(c.fresh), count(*), sum(c.labels) from (select u.r, sum(u.fresh) as fresh,"
            f" sum(u.label) as labels from (select n.r, n.fresh, 0 as label from {self._nodes} n"
            f" union all select l.r, 0, 1 from {self._decided.labels} l"
            f" left join {self._decided.exceptional} e on e.r = l.r where e.r is null) u group by u.r) c"
        )
        fresh, sets, labels = (int(number or 0) for number in found[0])
        return fresh + labels - sets

    def _newly_named(self) -> int:
        """Profiles that are named after a node which stood before, for the first time."""
        if not self._stands:
            return 0
        return self._bench.count(
            f"select count(*) from {self._stored.changed} c join {self._before} s on s.node_id = c.node_id"
            " where s.published_seq is null and c.published_seq is not null"
        )

    def _merged(self) -> int:
        """Profiles of which members may have changed one by one, and that are part of another now."""
        if not self._stands:
            return 0
        return self._bench.count(
            f"select count(*) from {self._stored.changed} c join {self._before} s on s.node_id = c.node_id"
            " where s.profile_id = s.node_id and c.profile_id <> c.node_id"
        )
