# SPDX-License-Identifier: Apache-2.0
"""Who is who, by SQL in the warehouse, for rows that do not fit into memory.

The same decisions as in ``resolve.py``, with the same split as in ``decide.py``: what no limit, published
profile or rule set by hand can touch is a matter of connected components, and never leaves the warehouse. The
rows of all other components come into the process, as many whole components at a time as fit, and are decided
there by the same code as ever.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from cdp_provider.core.exceptions import ConfigurationError
from cdp_provider.core.identity import history, store
from cdp_provider.core.identity.components import TempTables, components_sql
from cdp_provider.core.identity.pushdown_record import Decided, PushedRecord
from cdp_provider.core.identity.pushdown_rows import Bench, Rows, wanted
from cdp_provider.core.project.identity import Allow, Deny
from cdp_provider.core.tables import TABLES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from cdp_provider.core.identity.decide import Outcome
    from cdp_provider.core.identity.history import History, Load, Plan
    from cdp_provider.core.identity.quality import Made
    from cdp_provider.core.identity.record import Record
    from cdp_provider.core.identity.store import Changes, Stored
    from cdp_provider.core.project.identity import Identifier, Identity, Rule
    from cdp_provider.core.project.streams import Stream
    from cdp_provider.core.warehouse import Session

log = logging.getLogger(__name__)

#: What a row takes in the process, all in all, and each identifier column on top of it. Measured.
_BYTES_PER_ROW, _BYTES_PER_COLUMN = 150, 45

#: Tables that the process fills in their final form.
_FINAL = ("refused_links", "barred_identifiers")


def is_due(session: Session, plan: Plan, identity: Identity, streams: Sequence[Stream]) -> bool:
    """Whether the rows of the planned batches are too many for the process; says so in the log."""
    ids = session.temp(
        "cdp_planned_loads",
        pa.table({"load_id": pa.array([load.load_id for load in plan.loads], pa.int64())}),
    )
    loads = session.warehouse.table("loads")
    rows = session.scalar(
        f"select sum(l.rows_landed) from {loads} l where l.load_id in (select load_id from {ids})"
    )
    needed = int(rows or 0) * _bytes_per_row(identity, streams)
    if needed > identity.memory:
        log.info(
            "identity is resolved by SQL in the warehouse: %d rows would take about %d bytes here, and"
            " identity.memory is %d",
            rows,
            needed,
            identity.memory,
        )
    return needed > identity.memory


def _bytes_per_row(identity: Identity, streams: Sequence[Stream]) -> int:
    columns = len(history.slots_of(history.types(identity, streams), streams))
    return _BYTES_PER_ROW + _BYTES_PER_COLUMN * columns


class Given(NamedTuple):
    """What the process has to know, beside the rows, to decide some components.

    :param barred: type, value, ``hub`` or ``broken``, and since which identity run.
    :param rules: those set by hand, but for pairs of other components.
    :param freed: profiles whose rows are gone through again.
    :param last_node: new nodes are numbered from here on, provisionally.
    :param run_ids: identity run -> the DAG run that did it.
    """

    barred: Sequence[tuple[str, str, str, int]]
    rules: Sequence[Rule]
    freed: NDArray[np.int64]
    last_node: int
    run_ids: Mapping[int, str]


class Decider(Protocol):
    """Decides some components in the process."""

    def __call__(self, rows: History, plan: Plan, given: Given) -> tuple[Record, Outcome, Changes]:
        """Everything by the rows' own numbers, new nodes from `given.last_node` on."""


class PushedDown:
    """One run's decisions, in temporary tables of its session.

    Use the session outside a transaction, and the same one to write what :meth:`decide` returns.
    """

    def __init__(
        self,
        session: Session,
        plan: Plan,
        identity: Identity,
        streams: Sequence[Stream],
        types: Mapping[str, Identifier],
        run_id: str,
    ) -> None:
        self._session, self._plan, self._identity, self._streams = session, plan, identity, streams
        self._bench = Bench(session, plan, identity, streams, types)
        self._kinds = list(types)
        self._types = types
        self._identifiers = session.warehouse.table("identifiers")
        self._run_ids = defaultdict(lambda: run_id, store.recorded_runs(session))
        self._last_node = self._bench.count(f"select max(node_id) from {self._identifiers}")
        self._freed: NDArray[np.int64] = np.empty(0, np.int64)
        self._again: frozenset[Load] = frozenset()
        self._joins = self._rows_refused = 0

    def decide(self, decider: Decider) -> tuple[Stored, Made]:
        """All of it.

        :param decider: called for the components that have to be taken row by row.
        """
        self._rows = Rows(self._bench, self._plan.loads)
        self._find_sets()
        if self._identity.over_limit == "break" and not self._plan.replay and self._in_danger():
            only, self._again = wanted(self._bench, self._put_freed())
            self._rows = Rows(self._bench, self._plan.loads, self._again, only)
            self._find_sets()
        self._decide_exceptional(decider)
        record = PushedRecord(
            self._bench,
            Decided(
                rows=self._rows,
                known=self._known,
                sets=self._sets,
                labels=self._labels,
                exceptional=self._exceptional,
                parts=self._results,
                freed=self._put_freed(),
                old_from=self._plan.seq if len(self._freed) else 0,
                last_node=self._last_node,
                run_ids=self._run_ids,
                joins=self._joins,
                rows_refused=self._rows_refused,
            ),
        )
        return record.changes(), record.made()

    # Components

    def _find_sets(self) -> None:
        self._rows.build()
        self._put_known()
        rows, make = self._rows, self._bench.make
        links = [
            f"select 2 * r.strongest as na, 2 * r.s{slot} as nb from {rows.rows} r"
            f" where r.s{slot} is not null"
            for slot in range(len(rows.slots))
        ]
        links.append(
            f"select 2 * k.identifier as na, 2 * k.profile_id + 1 as nb from {self._known} k"
            " where k.profile_id is not null"
        )
        links.append(f"select 2 * p.a as na, 2 * p.b as nb from {rows.pairs} p")
        edges = make("edges", " union ".join(links))
        found = components_sql(TempTables(self._session), edges).table
        self._session.execute(f"drop table {edges}")
        #: per identifier of a set, its component ``r``.
        self._sets = make(
            "sets",
            f"select v.identifier as identifier, v.kind as kind, l.r as r from {rows.values} v"
            f" join {found} l on l.v = 2 * v.identifier",
        )
        self._labels = make(
            "labels",
            f"select p.profile_id as profile_id, l.r as r from (select distinct k.profile_id from"
            f" {self._known} k where k.profile_id is not null) p join {found} l"
            " on l.v = 2 * p.profile_id + 1",
        )
        self._session.execute(f"drop table {found}")
        self._crowded = make("crowded", self._crowded_sql())
        self._exceptional = make(
            "exceptional",
            f"select c.r as r from {self._crowded} c union {self._meet_sql()}"
            f" union select s.r from {rows.pairs} p join {self._sets} s on s.identifier = p.a",
        )

    def _put_known(self) -> None:
        """What stands in the warehouse of the identifiers: ``identifier``, ``node_id``, ``profile_id`` (null
        for one whose rows are gone through again), ``published_seq``."""
        rows = self._rows
        nodes = (
            f"select v.identifier as identifier, i.node_id as node_id, i.profile_id as profile_id,"
            f" i.published_seq as published_seq from {rows.values} v join {rows.kinds} k on k.kind = v.kind"
            f" join {self._identifiers} i on {self._session.warehouse.same_text('v.value', 'i.value')}"
            " and i.type = k.type"
        )
        whole = self._bench.type("integer")
        if self._plan.replay:
            select = (
                "select f.identifier as identifier, f.node_id as node_id,"
                f" cast(null as {whole}) as profile_id, i.published_seq as published_seq"
                f" from (select a.identifier, min(a.node_id) as node_id from ({nodes}) a"
                f" group by a.identifier) f join {self._identifiers} i on i.node_id = f.node_id"
            )
        else:
            freed = self._put_freed()
            select = (
                "select a.identifier as identifier, a.node_id as node_id,"
                " case when f.profile_id is null then a.profile_id end as profile_id,"
                f" a.published_seq as published_seq from ({nodes} where i.evicted_seq is null) a"
                f" left join {freed} f on f.profile_id = a.profile_id"
            )
        self._known = self._bench.make("known", select)

    def _put_freed(self) -> str:
        return self._bench.put("freed", {"profile_id": self._freed.tolist()}, {"profile_id": pa.int64()})

    def _crowded_sql(self) -> str:
        """Components that hold more of a type, all in all, than one profile may."""
        fresh = (
            f"select s.r as r, s.kind as kind, count(*) as held from {self._sets} s"
            f" left join {self._known} k on k.identifier = s.identifier where k.profile_id is null"
            " group by s.r, s.kind"
        )
        held = (
            f"select l.r as r, k.kind as kind, count(*) as held from {self._labels} l"
            f" join {self._identifiers} i on i.profile_id = l.profile_id and i.evicted_seq is null"
            f" join {self._rows.kinds} k on k.type = i.type group by l.r, k.kind"
        )
        return (
            f"select distinct c.r as r from (select h.r, k.most from ({fresh} union all {held}) h"
            f" join {self._rows.kinds} k on k.kind = h.kind"
            " group by h.r, h.kind, k.most having sum(h.held) > k.most) c"
        )

    def _meet_sql(self) -> str:
        """Components in which published profiles meet, or one meets an older identifier."""
        fresh = (
            "select s.r as r, k.node_id as node_id, k.published_seq as published_seq"
            f" from {self._known} k join {self._sets} s on s.identifier = k.identifier"
            " where k.profile_id is null"
        )
        return (
            f"select m.r from (select f.r from ({fresh}) f where f.published_seq is not null"
            f" union all select l.r from {self._labels} l) m group by m.r having count(*) > 1"
            f" union select f.r from ({fresh}) f group by f.r having min(f.node_id) <"
            " max(case when f.published_seq is not null then f.node_id end)"
        )

    def _in_danger(self) -> bool:
        """Look for known profiles that may come above a limit: their rows are gone through again."""
        found = self._session.arrow(
            f"select l.profile_id as profile_id from {self._labels} l join {self._crowded} c on c.r = l.r"
        )
        self._freed = found["profile_id"].to_numpy()
        return len(self._freed) > 0

    # What goes through the process

    def _decide_exceptional(self, decider: Decider) -> None:
        self._put_results()
        rows = self._rows
        # The other half is for an engine that works in this process too.
        most = max(self._identity.memory // 2 // _bytes_per_row(self._identity, self._streams), 1)
        sizes = (
            f"select s.r as r, count(*) as held from {rows.rows} w join {self._sets} s"
            f" on s.identifier = w.strongest join {self._exceptional} e on e.r = s.r group by s.r"
        )
        parts = self._bench.make(
            "parts",
            f"select p.r as r, cast(floor((p.upto - p.held) / {most}) as"
            f" {self._bench.type('integer')}) as part"
            f" from (select z.r, z.held, sum(z.held) over (order by z.r rows unbounded preceding) as upto"
            f" from ({sizes}) z) p",
        )
        self._taken = self._bench.make(
            "taken",
            "select w.n as n, t.stream as stream, w.load_id as load_id, w.position as position,"
            " p.part as part"
            f" from {rows.rows} w join {self._sets} s on s.identifier = w.strongest"
            f" join {parts} p on p.r = s.r join {rows.sources} t on t.source = w.source",
        )
        barred = [] if self._plan.replay else store.barred(self._session)
        barred += self._hubs()
        pairs = dict(
            self._session.fetch(
                f"select q.rule, p.part from {rows.pairs} q join {self._sets} s on s.identifier = q.a"
                f" join {parts} p on p.r = s.r"
            )
        )
        last = self._last_node
        for (part,) in self._session.fetch(f"select distinct part from {parts} order by 1"):
            rules = [
                rule
                for place, rule in enumerate(self._identity.rules)
                if not isinstance(rule, Allow | Deny) or pairs.get(place) == part
            ]
            given = Given(barred, rules, self._freed, last, self._run_ids)
            last = self._decide_part(part, given, decider)

    def _hubs(self) -> list[tuple[str, str, str, int]]:
        rows = self._rows
        if not rows.hubs:
            return []
        return self._session.fetch(
            f"select k.type, v.value, 'hub', h.since from {rows.hubs} h join {rows.values} v"
            f" on v.identifier = h.identifier join {rows.kinds} k on k.kind = v.kind"
        )

    def _decide_part(self, part: int, given: Given, decider: Decider) -> int:
        """Take some components through the process; returns the last provisional node."""
        only = self._bench.make(
            "only",
            "select t.n as n, t.stream as stream, t.load_id as load_id, t.position as position"
            f" from {self._taken} t where t.part = {part}",
        )
        order = self._session.arrow(
            f"select o.n as n, o.load_id as load_id, o.position as position from {only} o order by o.n"
        )
        loads = self._plan.loads | self._again
        raw = history.read(self._session, loads, self._streams, self._identity, only)
        identity = self._identity.model_copy(update={"rules": tuple(given.rules)})
        rows = history.arrange(raw, loads, self._plan.seq, identity, self._streams)
        del raw
        _check_order(rows, order)
        record, outcome, changes = decider(rows, self._plan, given)
        self._keep(record, outcome, changes, order["n"].to_numpy())
        return max(int(changes.added["node_id"].to_numpy().max(initial=0)), given.last_node)

    def _put_results(self) -> None:
        """Empty tables for what the process finds out."""
        types = self._session.warehouse.types
        line = TABLES["identifiers"]
        specs = {
            **{name: dict(TABLES[name]) for name in (*_FINAL, "row_links", "merges")},
            "added": {**line, "n": "integer"},
            "moved": {"loser": "integer", "winner": "integer"},
            "gone": {name: line[name] for name in ("node_id", "profile_id", "evicted_seq")},
            "current": {name: line[name] for name in ("node_id", "profile_id", "first_seen", "resolved_seq")},
        }
        self._results = {
            name: self._session.create_temp(
                f"cdp_pd_part_{name}", {column: types[kind.rstrip("!")] for column, kind in spec.items()}
            )
            for name, spec in specs.items()
        }

    def _keep(self, record: Record, outcome: Outcome, changes: Changes, n: NDArray[np.int64]) -> None:
        """Put what the process found out beside what it found out before.

        :param n: per row of the process, its number among all rows.
        """
        rows, known = record.history, record.known
        added = changes.added.append_column("n", pa.array(n[_births(outcome, known.last_node)]))
        current = np.flatnonzero(
            (outcome.nodes > 0) & (outcome.nodes <= known.last_node) & (outcome.profiles > 0)
        )
        accepted = outcome.accepted_rows[current]
        came = accepted >= 0
        found = {
            **{name: getattr(changes, name) for name in (*_FINAL, "row_links", "merges", "moved")},
            "added": added,
            "gone": changes.changed,
            "current": pa.table(
                {
                    "node_id": outcome.nodes[current[came]],
                    "profile_id": outcome.profiles[current[came]],
                    "first_seen": history.moments(rows.times[accepted[came]]),
                    "resolved_seq": rows.seqs(accepted[came]),
                }
            ),
        }
        for name, lines in found.items():
            self._session.load(self._results[name], lines)
        self._joins += outcome.unions
        self._rows_refused += len({refusal.row for refusal in outcome.refusals})


def _births(outcome: Outcome, last_node: int) -> NDArray[np.int64]:
    """The rows that made the new nodes, in the order in which a record lists them."""
    current = outcome.accepted_rows[outcome.nodes > last_node]
    gone = [eviction.accepted_row for eviction, _ in outcome.evicted if eviction.node > last_node]
    return np.append(current, np.array(gone, np.int64))


def _check_order(rows: History, order: pa.Table) -> None:
    """Row numbers of engine and process have to speak of the same rows."""
    load_ids = np.array([load.load_id for load in rows.batches], np.int64)[rows.batch]
    same = len(rows) == len(order) and (
        np.array_equal(load_ids, order["load_id"].to_numpy())
        and np.array_equal(rows.positions, order["position"].to_numpy())
    )
    if not same:
        msg = (
            "the warehouse sorts the rows of a stream otherwise than this process does, so the work can't be"
            " divided between them; raise identity.memory, so that all of it is done in the process"
        )
        raise ConfigurationError(msg)
