# SPDX-License-Identifier: Apache-2.0
"""Identity resolution: every batch that passed its check is taken into the graph, once and in order.

What is slow (fetching rows, normalising, deciding) happens on copies, outside of any transaction. What is
written goes in one short transaction, under the lock ``identity``, after a look whether the tables are still
those that the decisions were made on; if another run was first, everything starts again.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cdp_provider.core import tables
from cdp_provider.core.exceptions import ConfigurationError, WarehouseBusyError
from cdp_provider.core.identity import filters, fuzzy, history, hubs, pushdown, quality, store
from cdp_provider.core.identity.decide import Facts, Rules, Sets, decide
from cdp_provider.core.identity.glue import Glue, glue
from cdp_provider.core.identity.hubs import Hubs
from cdp_provider.core.identity.limits import Limit, Limits
from cdp_provider.core.identity.pushdown import PushedDown
from cdp_provider.core.identity.quality import Made
from cdp_provider.core.identity.record import Record
from cdp_provider.core.project.identity import Allow, Deny
from cdp_provider.core.runs import advance, reported, superseded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from cdp_provider.core.identity.decide import Known, Outcome
    from cdp_provider.core.identity.history import History, Plan
    from cdp_provider.core.identity.pushdown import Given
    from cdp_provider.core.identity.store import Changes, Standing, Stored
    from cdp_provider.core.project.identity import Identifier, Identity, Rule
    from cdp_provider.core.project.streams import Stream
    from cdp_provider.core.run import Run
    from cdp_provider.core.runs import Report
    from cdp_provider.core.warehouse import Session, Warehouse

log = logging.getLogger(__name__)

_ATTEMPTS = 5

#: With less, the sorts and joins of the way inside the warehouse do not get by, whatever lies on disk.
_LEAST_MEMORY = 512_000_000


def resolve(warehouse: Warehouse, identity: Identity, streams: Sequence[Stream], run: Run) -> Report:
    """Take in the batches that passed their check and no run took in before.

    The result is a function of recorded history. Where a batch that was taken in has been landed again with
    other content, history is not what it was: all of it is replayed, as by :func:`rebuild`. Otherwise the
    cost follows the new rows and the profiles they touch.

    :param streams: all streams of the project, in its order.
    :returns: ``rows_in`` rows looked at, ``rows_out`` rows that belong to a profile, ``rows_refused`` rows of
        which an identifier was dropped because of a limit; more in ``detail``.
    :raises ConfigurationError: a replay is due and would lose the links of a stream that was not given.
    :raises WarehouseBusyError: other runs kept writing.
    """
    return _resolve(warehouse, identity, streams, run, replay=False)


def rebuild(warehouse: Warehouse, identity: Identity, streams: Sequence[Stream], run: Run) -> Report:
    """Decide everything anew from the raw rows, in recorded order, by today's rules.

    With the rules unchanged the result equals what the runs before have built: the same profiles, ids, links,
    merges and refusals. An identifier keeps its node id for ever. One that is not carried in any more stands
    as a profile of its own without rows; a profile that falls apart leaves its id to the part with the
    oldest identifier. Streams that are not given lose their links for good.
    """
    return _resolve(warehouse, identity, streams, run, replay=True)


def _resolve(
    warehouse: Warehouse, identity: Identity, streams: Sequence[Stream], run: Run, *, replay: bool
) -> Report:
    with reported(warehouse, run, "resolve") as report:
        resolution = Resolution(warehouse, identity, streams)
        for _ in range(_ATTEMPTS):
            if resolution.attempt(report, replay=replay):
                return report
        msg = (
            f"identity resolution found the tables changed by other runs {_ATTEMPTS} times in a row; let the"
            " runs that land, check or resolve at the same time finish, and try again"
        )
        raise WarehouseBusyError(msg, retry_after=30)


@dataclass(frozen=True)
class _Work:
    """A run's rows, and what stands in the warehouse of whom they speak."""

    rows: History
    facts: Facts
    known: Known
    hubs: Hubs
    standing: Standing | None


class Resolution:
    """Who is who, by one project's rules."""

    def __init__(self, warehouse: Warehouse, identity: Identity, streams: Sequence[Stream]) -> None:
        self._warehouse, self._identity = warehouse, identity
        self.streams = _with_pairs(identity, streams)
        self._types = history.types(identity, self.streams)
        self.kinds = list(self._types)
        self._limits = Limits([_limit(rule) for rule in self._types.values()])
        self._fingerprint = history.fingerprint(identity, self.streams)

    def attempt(self, report: Report, *, replay: bool) -> bool:
        """False when another run wrote between reading and writing."""
        with self._warehouse.session() as session:
            tables.ensure(session)
            if superseded(session, report):
                return True
            plan = self.plan(session, replay=replay)
            if pushdown.is_due(session, plan, self._identity, self.streams):
                return self._push_down(session, plan, report, replay=replay)
            raw = history.read(session, plan.loads, self.streams, self._identity)
            run_ids = defaultdict(lambda: report.run.run_id, store.recorded_runs(session))
        rows = history.arrange(raw, plan.loads, plan.seq, self._identity, self.streams)
        del raw
        work = self._look_up(rows, plan)
        sets = Sets(work.facts, work.known, self._rules(work.rows))
        danger = sets.in_danger()
        if len(danger) and (again := self._look_closer(work, plan, danger)):
            work = again
            sets = Sets(work.facts, work.known, self._rules(work.rows))
        outcome = decide(work.facts, work.known, self._rules(work.rows), sets)
        nameless = int(np.count_nonzero((sets.strongest < 0) & (work.facts.seqs >= work.known.old_from)))
        record = Record(
            replace(work.rows, columns=[]),
            work.known,
            outcome,
            work.standing,
            plan,
            [stream.ref for stream in self.streams],
            self._types,
            run_ids,
        )
        found = work.hubs
        del rows, work, sets, outcome  # at ten million rows they weigh a gigabyte
        changes = record.changes(found)
        made = _made(record, changes, nameless)
        del record
        pa.default_memory_pool().release_unused()
        with self._warehouse.session() as session, session.lock("identity"):
            if superseded(session, report):
                return True
            with session.transaction():
                if not plan.holds(self.plan(session, replay=replay)):
                    return False
                self._write(session, plan, changes, made, report)
        return True

    def replayed(self, rows: History, plan: Plan) -> Outcome:
        """What a replay would decide on these rows; nothing is written."""
        work = self._look_up(rows, plan)
        rules = self._rules(rows)
        return decide(work.facts, work.known, rules, Sets(work.facts, work.known, rules))

    def _push_down(self, session: Session, plan: Plan, report: Report, *, replay: bool) -> bool:
        """The same by SQL, for rows that do not fit into memory."""
        pushed = PushedDown(session, plan, self._identity, self.streams, self._types, report.run.run_id)
        with session.bounded(max(self._identity.memory // 2, _LEAST_MEMORY)):
            changes, made = pushed.decide(self._part)
            with session.lock("identity"):
                if superseded(session, report):
                    return True
                with session.transaction():
                    if not plan.holds(self.plan(session, replay=replay)):
                        return False
                    self._write(session, plan, changes, made, report, pushed_down=True)
        return True

    def _write(
        self,
        session: Session,
        plan: Plan,
        changes: Changes | Stored,
        made: Made,
        report: Report,
        *,
        pushed_down: bool = False,
    ) -> None:
        store.apply(session, changes, plan)
        report.rows_in, report.rows_out = made.rows_in, made.rows_linked
        report.rows_refused, report.watermark = made.rows_refused, made.newest
        found = quality.measure(session, plan, made, self._fingerprint, partial(self._glue, session))
        quality.write(session, report.run, found)
        report.detail = {
            **found.detail(),
            "joins": made.joins,
            "loads": len(plan.loads),
            "replayed": plan.reason or False,
            "pushed_down": pushed_down,
            **made.unfit,
        }
        advance(session, report)
        report.write(session)

    def _glue(self, session: Session, profiles: Sequence[int]) -> list[Glue]:
        try:
            return glue(session, self._identity, self.streams, profiles)
        except ConfigurationError as error:
            # Of a stream that is gone, or rows landed anew and not checked yet. A later run looks again.
            log.info("what glues the largest profiles is left open: %s", error)
            return []

    def plan(self, session: Session, *, replay: bool) -> Plan:
        """What a run would take in now."""
        return history.plan(session, self.streams, self._fingerprint, replay=replay)

    def _part(self, rows: History, plan: Plan, given: Given) -> tuple[Record, Outcome, Changes]:
        """Decide components of which all rows and no others are given."""
        facts = Facts(filters.carried(rows, self.kinds, given.barred), rows.times, rows.seqs(), rows.kinds)
        with self._warehouse.session() as session:
            read = store.read_nodes if plan.replay else store.read_known
            known = read(session, rows, self.kinds)
        known = replace(
            known,
            profiles=np.where(np.isin(known.profiles, given.freed), 0, known.profiles),
            last_node=given.last_node,
            old_from=plan.seq if len(given.freed) else 0,
        )
        none = np.empty(0, np.int64)
        work = _Work(rows, facts, known, Hubs({}, {}, hubs.Pairs(none, none, none)), None)
        rules = self._rules(rows, given.rules)
        sets = Sets(work.facts, work.known, rules)
        danger = sets.in_danger()
        if self._identity.over_limit != "break" and len(danger):
            work = self._look_closer(work, plan, danger) or work
            sets = Sets(work.facts, work.known, rules)
        outcome = decide(work.facts, work.known, rules, sets)
        refs = [stream.ref for stream in self.streams]
        record = Record(work.rows, work.known, outcome, None, plan, refs, self._types, given.run_ids)
        return record, outcome, record.changes(work.hubs)

    def _rules(self, rows: History, given: Sequence[Rule] | None = None) -> Rules:
        pairs: dict[type, list[tuple[int, int]]] = {Allow: [], Deny: []}
        for rule in self._identity.rules if given is None else given:
            if isinstance(rule, Allow | Deny):
                sides = rule.allow if isinstance(rule, Allow) else rule.deny
                one, other = (rows.named[item] for side in sides for item in side.items())
                if one >= 0 and other >= 0 and one != other:
                    pairs[type(rule)].append((one, other))
        return Rules(self._limits, self._identity.over_limit, pairs[Deny], pairs[Allow])

    def _look_up(self, rows: History, plan: Plan) -> _Work:
        with self._warehouse.session() as session:
            barred = [] if plan.replay else store.barred(session)
            hub = filters.numbered(rows, self.kinds, barred, "hub")
            columns = filters.without(rows, rows.columns, hub)
            found = self._find_hubs(session, rows, columns, replay=plan.replay)
            columns = filters.alone(rows, filters.without(rows, columns, found.since.items()))
            broken = filters.numbered(rows, self.kinds, barred, "broken")
            columns = filters.without(rows, columns, broken)
            facts = Facts(columns, rows.times, rows.seqs(), rows.kinds)
            if plan.replay:
                known, standing = store.read_all(session, rows, self.kinds)
                return _Work(rows, facts, known, found, standing)
            return _Work(rows, facts, store.read_known(session, rows, self.kinds), found, None)

    def _find_hubs(
        self, session: Session, rows: History, columns: Sequence[NDArray[np.int32]], *, replay: bool
    ) -> Hubs:
        limits = {place: rule.hub for place, rule in enumerate(self._types.values()) if rule.hub}
        slots = [int(rows.kinds[column.max()]) if column.max(initial=-1) >= 0 else -1 for column in columns]
        pairs = hubs.pairs_of(columns, slots, limits, rows.seqs())
        most = np.array([limits.get(kind, np.iinfo(np.int64).max) for kind in range(len(self.kinds))])
        met = np.unique(pairs.identifiers)
        earlier = Counter[int]()
        if len(met) and not replay:  # a replay sees all pairs itself
            seen = store.neighbours(session, rows, met, self.kinds)
            earlier.update(seen["identifier"].to_pylist())
            pairs = hubs.unseen(pairs, seen["identifier"].to_numpy(), store.places(rows, seen, self.kinds))
        return hubs.find(pairs, earlier, most[rows.kinds], len(rows.kinds))

    def _look_closer(self, work: _Work, plan: Plan, danger: NDArray[np.int64]) -> _Work | None:
        """What the policy has to know of profiles that may come above a limit; None when that is known."""
        if self._identity.over_limit == "break":
            return self._again(work, plan, danger)
        if self._identity.over_limit == "evict" or any(self._limits.windows):
            with self._warehouse.session() as session:
                found = store.members(session, danger)
            rows, known = store.with_members(work.rows, work.known, found, self.kinds)
            return replace(work, rows=rows, known=known, facts=work.facts._replace(kinds=rows.kinds))
        return None

    def _again(self, work: _Work, plan: Plan, profiles: NDArray[np.int64]) -> _Work:
        """Take up the rows of profiles once more: what they link may have to be cut."""
        with self._warehouse.session() as session:
            wanted = store.rows_of(session, profiles)
            loads = history.loads_of(session, wanted)
            raw = history.read(session, plan.loads, self.streams, self._identity)
            raw += history.read(session, loads, self.streams, self._identity, wanted)
            found = store.members(session, profiles)
        rows = history.arrange(raw, plan.loads | loads, plan.seq, self._identity, self.streams)
        again = self._look_up(rows, plan)
        known = again.known
        freed = np.isin(known.profiles, profiles)
        standing = store.Standing.of(found, rows, self.kinds)
        return replace(
            again,
            known=replace(known, profiles=np.where(freed, 0, known.profiles), old_from=plan.seq),
            hubs=work.hubs.renumbered(store.renumbering(work.rows, rows)),
            standing=standing,
        )


def _made(record: Record, changes: Changes, nameless: int) -> Made:
    """:param nameless: rows without any identifier."""
    rows = record.history
    return Made(
        rows_in=int(np.count_nonzero(rows.seqs() >= record.known.old_from)),
        rows_linked=changes.row_links.num_rows - changes.unlinked.num_rows,
        rows_refused=len({refusal.row for refusal in record.outcome.refusals}),
        rows_without_identifier=nameless,
        newest=rows.newest(),
        joins=record.outcome.unions,
        new_identifiers=changes.added.num_rows,
        new_profiles=record.new_profiles(changes),
        merged=record.merged(changes),
        split=pc.count_distinct(changes.splits["profile_id"]).as_py(),
        refused=dict(Counter(changes.refused_links["rule"].to_pylist())),
        unfit=rows.refused,
        touched=None if record.plan.replay else record.touched(changes),
    )


def _with_pairs(identity: Identity, streams: Sequence[Stream]) -> list[Stream]:
    """The streams, and the one of accepted fuzzy pairs where the project declares it."""
    pairs = [fuzzy.stream(identity)] if identity.fuzzy else []
    return [*streams, *(stream for stream in pairs if stream.ref not in {own.ref for own in streams})]


def _limit(rule: Identifier) -> Limit:
    return Limit(rule.limit, rule.within // history.MICROSECOND if rule.within else None)
