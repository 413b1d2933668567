# SPDX-License-Identifier: Apache-2.0
"""What a destination should hold against what it has acknowledged: the records that have to travel.

One statement joins the profiles with the ledger and keeps what differs; everything after it looks only at the
difference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from cdp_provider.core.activation import notes, outbox
from cdp_provider.core.activation.outbox import Outbox
from cdp_provider.core.activation.shape import NOTE, STAMP_LENGTH, memory_for

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cdp_provider.core.activation.shape import Shape
    from cdp_provider.core.run import Run
    from cdp_provider.core.warehouse import Session

#: Columns of the ledger that the difference needs; there they begin with ``l_``.
_LEDGER = (
    "record_key",
    "profile_id",
    "payload_hash",
    "attempted_hash",
    "state",
    "operation",
    "attempts",
    "refusals",
    "unsure",
    "place",
    "sent",
    "window_end",
)
#: The destination did not take the last payload, and that is certain.
_REFUSED = "l_state in ('rejected', 'dead', 'invalid')"
#: An earlier payload may have arrived all the same.
_UNSURE = "coalesce(l_unsure, false)"
_REMOVALS = "('remove', 'archive', 'clear')"
#: Rejected before, and it may be tried again: by a later window, or because it was released.
_AGAIN = (
    "(l_state = 'rejected' and coalesce(l_refusals, 0) < :max_attempts"
    " and (l_window_end < :window_end or coalesce(l_refusals, 0) = 0))"
)
#: A profile that has a record; one that has none; a record without a profile.
VALID = "(profile_id is not null and reason is null)"
NOTED = "(profile_id is not null and reason is not null)"
_KEYED = f"(profile_id is not null and not starts_with(record_key, '{NOTE}'))"
ALONE = f"(profile_id is null and l_record_key is not null and not starts_with(l_record_key, '{NOTE}'))"


@dataclass(frozen=True)
class Plan:
    """What has to travel.

    :param outbox: where it waits.
    :param desired: profiles (or events) that the sync speaks of.
    :param invalid: profiles without a usable key or payload.
    :param withheld: profiles whose data may not go there.
    :param creates: records that the destination does not hold yet; events too.
    :param updates: records that it holds with another payload.
    :param removals: records that it shall remove, archive or clear.
    :param acknowledged: records that it holds, by what it said.
    :param withheld_removals: removals that wait for an approval; not among `removals`.
    :param proven: it has acknowledged records of this sync before.
    """

    outbox: Outbox
    desired: int
    invalid: int
    withheld: int
    creates: int
    updates: int
    removals: int
    acknowledged: int
    withheld_removals: int
    proven: bool

    @property
    def total(self) -> int:
        """Records that have to travel."""
        return self.creates + self.updates + self.removals


@dataclass(frozen=True)
class Preview:
    """What a run would do; see :class:`Plan`.

    :param invalid: reason -> profiles.
    :param withheld: reason -> profiles.
    :param removals: all of them, whether they need an approval or not.
    :param needs_approval: they do.
    """

    desired: int
    creates: int
    updates: int
    removals: int
    acknowledged: int
    invalid: Mapping[str, int]
    withheld: Mapping[str, int]
    needs_approval: bool


@dataclass(frozen=True)
class _Counts:
    """Of the records that have to travel.

    :param new_removals: removals that no killed task has left.
    :param invalid: records that were, before they changed.
    """

    desired: int
    creates: int
    updates: int
    removals: int
    new_removals: int
    invalid: int

    def above(self, share: float | None, acknowledged: int) -> bool:
        return share is not None and self.removals > share * acknowledged


def plan(session: Session, shape: Shape, run: Run, *, resync: str | None, claim: str, approved: bool) -> Plan:
    """Find what has to travel, put it into the outbox, and note in the ledger that it is on its way. Call it
    inside a transaction, once the answers of earlier tries are folded in.

    A record that has been answered and has not changed since is left alone, within the same window for good
    and in later ones unless it was rejected less than ``max_attempts`` times.

    :param resync: name of a full resync: where it is another one than the last, all travels anew.
    :param claim: name of the task that takes the sync over; the outbox of an older one stops.
    :param approved: removals above the sync's ``approve_above`` may travel.
    """
    values = _values(shape, run, _claim(session, shape.sync.name, claim, resync))
    rows = session.scalar(shape.total_sql(session.warehouse), values)
    with session.bounded(memory_for(rows)):
        return _plan(session, shape, values, claim, approved=approved)


def _plan(session: Session, shape: Shape, values: Mapping[str, Any], claim: str, *, approved: bool) -> Plan:
    sync, warehouse = shape.sync, session.warehouse
    counts = _find(session, shape, values)
    notes.keep(session, shape, values)
    _settle(session, shape, values)
    acknowledged, removed, invalid, withheld, last = _ledger(session, values)
    waits = not approved and counts.above(sync.approve_above, acknowledged)
    if counts.creates + counts.updates + counts.removals:
        start = 0 if last is None else last + 1
        open_rows = f"{open_sql(shape)}{f' where operation not in {_REMOVALS}' if waits else ''}"
        outbox.fill(session, shape, open_rows, values, start, 0 if waits else counts.new_removals)
        _note_pending(session, shape, values)
    else:
        session.execute(f"drop table if exists {warehouse.table(outbox.name(sync.name))}")
    return Plan(
        outbox=Outbox(shape, claim),
        desired=counts.desired,
        invalid=invalid - counts.invalid,
        withheld=withheld,
        creates=counts.creates,
        updates=counts.updates,
        removals=0 if waits else counts.removals,
        acknowledged=acknowledged,
        withheld_removals=counts.removals if waits else 0,
        proven=acknowledged + removed > 0,
    )


def preview(session: Session, shape: Shape, run: Run, *, resync: str | None = None) -> Preview:
    """What :func:`plan` would find. Writes nothing but tables of the session."""
    standing = session.scalar(
        f"select resync from {session.warehouse.table('sync_state')} where sync = :sync",
        {"sync": shape.sync.name},
    )
    values = _values(shape, run, (resync if resync is not None else standing) or "")
    counts = _find(session, shape, values)
    reasons = notes.reasons(session, values)
    acknowledged = _ledger(session, values)[0]
    return Preview(
        desired=counts.desired,
        creates=counts.creates,
        updates=counts.updates,
        removals=counts.removals,
        acknowledged=acknowledged,
        invalid={reason: count for state, reason, count in reasons if state == "invalid"},
        withheld={reason: count for state, reason, count in reasons if state == "withheld"},
        needs_approval=counts.above(shape.sync.approve_above, acknowledged),
    )


def _values(shape: Shape, run: Run, resync: str) -> dict[str, Any]:
    return {
        **shape.reasons,
        "sync": shape.sync.name,
        "segment": shape.sync.segment,
        "seed": shape.seed(run, resync),
        "window_end": run.window.end,
        "run_id": run.run_id,
        "max_attempts": shape.sync.max_attempts,
    }


def _claim(session: Session, sync: str, claim: str, resync: str | None) -> str:
    """Take the sync over; returns the full resync that is in force."""
    table = session.warehouse.table("sync_state")
    values: dict[str, Any] = {"sync": sync, "claim": claim}
    known = session.one(f"select resync from {table} where sync = :sync", values)
    values["resync"] = (known[0] if known else "") if resync is None else resync
    session.execute(
        f"update {table} set claim = :claim, resync = :resync where sync = :sync"
        if known
        else f"insert into {table} (sync, claim, resync, failures) values (:sync, :claim, :resync, 0)",
        values,
    )
    return str(values["resync"])


def _find(session: Session, shape: Shape, values: Mapping[str, Any]) -> _Counts:
    """Fill the session's table ``sync_diff``, and count what is in it."""
    _differ(session, shape, values)
    session.analyze("sync_diff")
    found = session.one(
        f"select count(*), count(case when {_KEYED} and l_profile_id <> profile_id then 1 end),"
        f" count(case when {_KEYED} then 1 end),"
        " count(case when profile_id is null and l_record_key is null then 1 end) from sync_diff"
    )
    differing, contested, keyed, strangers = cast("tuple[int, int, int, int]", found)
    desired = session.scalar(shape.total_sql(session.warehouse), values) - strangers
    if contested:
        _add_holders(session, shape, values)
    if keyed:
        _judge_doubles(session)
    if keyed and shape.sync.mode == "event":
        _drop_told(session, values)
    if not differing:
        return _Counts(desired, 0, 0, 0, 0, 0)
    removal = f"operation in {_REMOVALS}"
    counts = session.one(
        f"select count(case when not {removal} and l_payload_hash is null then 1 end),"
        f" count(case when not {removal} and l_payload_hash is not null then 1 end),"
        f" count(case when {removal} then 1 end), count(case when {removal} and not kept then 1 end),"
        f" count(case when l_state = 'invalid' then 1 end) from ({open_sql(shape)}) o",
        values,
    )
    return _Counts(desired, *cast("tuple[int, int, int, int, int]", counts))


def _differ(session: Session, shape: Shape, values: Mapping[str, Any]) -> None:
    """The difference, in one statement: profiles whose ledger row does not say that all is done, and rows of
    the ledger that have something to lose and no profile."""
    warehouse = session.warehouse
    same = "" if shape.once else " and l.payload_hash = d.payload_hash"
    idle = "l.state = 'removed'" if shape.leaves else "l.state not in ('invalid', 'withheld')"
    ledger = f"(select * from {warehouse.table('sync_ledger')} where sync = :sync) l"
    session.execute("drop table if exists sync_differing")
    # Narrow: a join that carries all columns along costs twice as much, and most rows are the same.
    session.execute(
        "create temporary table sync_differing as select d.*, l.record_key as l_key"
        f" from ({shape.desired_sql(warehouse)}) d full join {ledger}"
        # A planner takes "= 1" for something rare, and counts on few rows and works in parallel.
        " on l.record_key = d.record_key where case when l.record_key is null then 1"
        f" when l.profile_id = d.profile_id and l.state = 'accepted' and d.reason is null{same} then 0"
        f" when l.profile_id = d.profile_id and l.reason = d.reason and starts_with(l.record_key, '{NOTE}')"
        " and l.state = case when d.withheld then 'withheld' else 'invalid' end then 0"
        f" when d.profile_id is null and {idle} then 0 else 1 end = 1",
        values,
    )
    session.analyze("sync_differing")
    some = session.scalar("select count(*) from sync_differing")
    of_ledger = ", ".join(f"l.{name} as l_{name}" for name in _LEDGER)
    session.execute("drop table if exists sync_diff")
    session.execute(
        "create temporary table sync_diff as select d.profile_id, d.record_key, d.payload_hash, d.reason,"
        f" d.withheld, d.event_time, {of_ledger} from sync_differing d"
        f" left join {ledger} on l.record_key = d.l_key{'' if some else ' limit 0'}",
        values,
    )


def _add_holders(session: Session, shape: Shape, values: Mapping[str, Any]) -> None:
    """Profiles that hold a key that another one wants too, and do not differ themselves."""
    ledger = ", ".join(f"l_{name}" for name in _LEDGER)
    session.execute(
        f"insert into sync_diff select d.*, {', '.join(f'c.l_{name}' for name in _LEDGER)}"
        f" from ({shape.desired_sql(session.warehouse)}) d join (select distinct {ledger} from sync_diff"
        f" where {_KEYED} and l_profile_id <> profile_id) c"
        " on c.l_profile_id = d.profile_id and c.l_record_key = d.record_key"
        " where not exists (select 1 from sync_diff s"
        " where s.profile_id = d.profile_id and s.record_key = d.record_key)",
        values,
    )


def _judge_doubles(session: Session) -> None:
    """Of profiles that share a key the oldest has it; whose value cannot be sent keeps it from the others."""
    session.execute(
        "update sync_diff set reason = 'another profile has the same key' from (select record_key as k,"
        f" min(profile_id) as oldest from sync_diff where {_KEYED} group by record_key having count(*) > 1) t"
        f" where record_key = t.k and {_KEYED} and profile_id > t.oldest"
    )


def _drop_told(session: Session, values: Mapping[str, Any]) -> None:
    """Leave out events that were told under a key that the profile had before."""
    session.execute(
        f"delete from sync_diff where {VALID} and l_record_key is null and exists (select 1"
        f" from {session.warehouse.table('sync_ledger')} l where l.sync = :sync"
        " and l.profile_id = sync_diff.profile_id"
        f" and right(l.record_key, {STAMP_LENGTH}) = right(sync_diff.record_key, {STAMP_LENGTH})"
        " and (l.payload_hash is not null or l.state = 'ambiguous'))",
        values,
    )


def open_sql(shape: Shape) -> str:
    """A query over ``sync_diff``: what has to travel, with its ``operation`` and ``hash``; ``tried`` when the
    same was sent before, ``kept`` when a killed task has left it, in its place."""
    unheld = "l_payload_hash is null" if shape.once else "l_payload_hash is distinct from payload_hash"
    valid = (
        f"{VALID} and (l_record_key is null"
        f" or (l_state in ('pending', 'retryable', 'removed'){f' and {unheld}' if shape.once else ''})"
        f" or ({unheld} and l_state = 'accepted')"
        f" or (({unheld}{'' if shape.once else f' or {_UNSURE}'}) and {_REFUSED}"
        f" and (l_attempted_hash is distinct from payload_hash or {_AGAIN})))"
    )
    # Whatever may stand at the destination has to go, acknowledged or not.
    tried_removal = f"l_attempted_hash in {_REMOVALS}"
    gone = (
        f"{ALONE} and (l_state in ('accepted', 'pending', 'retryable')"
        f" or (l_state = 'ambiguous' and not {tried_removal})"
        f" or ({_REFUSED} and l_attempted_hash <> '{shape.leaves}'"
        f" and (l_payload_hash is not null or {_UNSURE}))"
        f" or (l_attempted_hash = '{shape.leaves}' and {_AGAIN}))"
    )
    columns = "coalesce(profile_id, l_profile_id) as profile_id,"
    columns += " coalesce(record_key, l_record_key) as record_key, operation, hash, event_time"
    ledger = ", ".join(f"l_{name}" for name in _LEDGER)
    tried = "l_record_key is not null and l_attempted_hash is not distinct from hash"
    kept = f"{tried} and l_state = 'pending' and l_operation = operation and l_place is not null"
    return (
        f"select * from (select {columns}, {ledger}, {tried} as tried, {kept} as kept from (select *,"
        f" case when profile_id is null then '{shape.leaves}' else '{shape.sends}' end as operation,"
        f" case when profile_id is null then '{shape.leaves}' else payload_hash end as hash"
        f" from sync_diff where ({valid}){f' or ({gone})' if shape.leaves else ''}) differing) o"
    )


def _settle(session: Session, shape: Shape, values: Mapping[str, Any]) -> None:
    """What needs no sending: keys that went to another profile with the same payload, refused payloads that
    nobody wants any more."""
    if not session.scalar(
        f"select count(*) from sync_diff where ({VALID} and l_record_key is not null"
        f" and (l_profile_id is distinct from profile_id or {_REFUSED})) or ({ALONE} and l_state = 'invalid')"
    ):
        return
    ledger = session.warehouse.table("sync_ledger")
    unsure = "coalesce(unsure, false)"
    held = "is not null" if shape.once else "= d.payload_hash and not coalesce(l.unsure, false)"
    done = f"l.payload_hash {held} and l.state in ('rejected', 'dead', 'invalid')"
    session.execute(
        f"update {ledger} l set profile_id = d.profile_id,"
        f" state = case when {done} then 'accepted' else l.state end,"
        f" reason = case when {done} then null else l.reason end,"
        f" attempted_hash = case when {done} then null else l.attempted_hash end"
        f" from (select * from sync_diff where {VALID}) d"
        " where l.sync = :sync and l.record_key = d.l_record_key"
        f" and (l.profile_id is distinct from d.profile_id or ({done}))",
        values,
    )
    alone = (
        "sync = :sync and state = 'invalid'"
        f" and record_key in (select l_record_key from sync_diff where {ALONE})"
    )
    session.execute(f"delete from {ledger} where {alone} and payload_hash is null and not {unsure}", values)
    if not shape.leaves:
        session.execute(
            f"update {ledger} set state = 'accepted', reason = null, attempted_hash = null where {alone}"
            f" and not {unsure}",
            values,
        )


def _ledger(session: Session, values: Mapping[str, Any]) -> tuple[int, int, int, int, int | None]:
    """Records that the destination holds, and removed ones; invalid and withheld profiles; the last place of
    this window that is taken."""
    counts = session.one(
        "select count(payload_hash), count(case when state = 'removed' then 1 end),"
        " count(case when state = 'invalid' then 1 end), count(case when state = 'withheld' then 1 end),"
        " max(case when state = 'pending' and window_end = :window_end then place end)"
        f" from {session.warehouse.table('sync_ledger')} where sync = :sync",
        values,
    )
    return cast("tuple[int, int, int, int, int | None]", counts)


def _note_pending(session: Session, shape: Shape, values: Mapping[str, Any]) -> None:
    """From here on a crash is no loss: the ledger says what may have been sent."""
    ledger = session.warehouse.table("sync_ledger")
    waiting = session.warehouse.table(outbox.name(shape.sync.name))
    session.execute(
        f"update {ledger} l set state = 'pending', reason = null, attempted_hash = o.payload_hash,"
        " operation = o.operation, attempts = o.attempts, place = o.place, window_end = o.intended,"
        " refusals = case when o.attempts > 0 then l.refusals end, run_id = :run_id,"
        " unsure = coalesce(l.unsure, false) or l.state in ('pending', 'retryable', 'ambiguous')"
        f" from {waiting} o where l.sync = :sync and l.record_key = o.record_key and o.known",
        values,
    )
    session.execute(
        f"insert into {ledger} (sync, record_key, profile_id, attempted_hash, state, operation, attempts,"
        " place, window_end, run_id) select :sync, record_key, profile_id, payload_hash, 'pending',"
        f" operation, attempts, place, intended, :run_id from {waiting} where not known",
        values,
    )
