# SPDX-License-Identifier: Apache-2.0
"""What destinations answered, record by record."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from cdp_provider.core.activation import outbox
from cdp_provider.core.activation.destinations.base import InvalidRecord
from cdp_provider.core.activation.encoding import encode
from cdp_provider.core.activation.shape import memory_for
from cdp_provider.core.tables import TABLES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from cdp_provider.core.activation.destinations.base import DestinationKind, Record, Result
    from cdp_provider.core.project.activation import Sync
    from cdp_provider.core.run import Run
    from cdp_provider.core.warehouse import Session

#: Outcomes that end a try; after any other the record stays pending.
_FINAL = frozenset({"accepted", "invalid", "rejected", "retryable"})
_MOMENT = pa.timestamp("us", tz="UTC")
_RESULTS_PER_CALL = 1 << 20


def record(
    session: Session,
    kind: DestinationKind,
    run: Run,
    results: Sequence[Result],
    answer: int,
    answered_at: datetime,
) -> None:
    """Keep results for :func:`fold`. Call it inside a transaction. It only appends, and once, so its cost
    does not grow with the ledger.

    :param answer: larger with each call; of answers to one try the last one counts.
    """
    if not results:
        return
    records, outcomes = [result.record for result in results], [result.outcome for result in results]
    count = len(results)
    first = answer * _RESULTS_PER_CALL
    final = _FINAL if kind.capabilities.repeatable else _FINAL | {"ambiguous"}
    answers = {
        "sync": pa.repeat(kind.sync.name, count),
        "run_id": pa.repeat(run.run_id, count),
        "window_end": pa.repeat(pa.scalar(run.window.end, _MOMENT), count),
        "record_key": pa.array([r.record_key for r in records], pa.string()),
        "profile_id": pa.array([r.profile_id for r in records], pa.int64()),
        "operation": pa.array([r.operation for r in records], pa.string()),
        "fields": pa.array(_names(records), pa.string()),
        "outcome": pa.array([o.state for o in outcomes], pa.string()),
        "status": pa.array([o.status for o in outcomes], pa.int64()),
        "reason": pa.array([o.reason for o in outcomes], pa.string()),
        "attempt": pa.array([r.attempts + 1 for r in records], pa.int64()),
        "answered_at": pa.repeat(pa.scalar(answered_at, _MOMENT), count),
        "idempotency_key": pa.array([result.idempotency_key for result in results], pa.string()),
        "payload_hash": pa.array([r.payload_hash for r in records], pa.string()),
        "sent": pa.array([o.sent for o in outcomes], pa.string()),
        "answer": pa.array(range(first, first + count), pa.int64()),
        "ends_try": pa.array([o.state in final for o in outcomes], pa.bool_()),
    }
    if kind.sync.log_payload:
        answers["payload"] = pa.array([_payload(kind, r) for r in records], pa.string())
    session.load(session.warehouse.table("sync_answers"), pa.table(answers))


def _names(records: Sequence[Record]) -> list[str | None]:
    """Names of the fields that travelled, as JSON."""
    texts: dict[tuple[str, ...], str | None] = {(): None}
    told = []
    for one in records:
        names = tuple(one.fields)
        if names not in texts:
            texts[names] = json.dumps(names)
        told.append(texts[names])
    return told


def _payload(kind: DestinationKind, one: Record) -> str | None:
    """What stood for the record in the request."""
    try:
        return encode(kind.item(kind.asked(one.operation), one)).decode()
    except (InvalidRecord, TypeError):
        return None


def fold(session: Session, sync: Sync) -> None:
    """Bring the answers that were kept into the ledger and the log, all at once, and drop an outbox of which
    nothing is open any more. Call it inside a transaction.

    An answer to a payload that is no longer the one on its way changes nothing: a newer run has taken over.
    """
    answers = session.warehouse.table("sync_answers")
    values = {"sync": sync.name, "max_attempts": sync.max_attempts}
    if kept := session.scalar(f"select count(*) from {answers} where sync = :sync", values):
        with session.bounded(memory_for(kept)):
            _take_in(session, values)
    waiting = outbox.name(sync.name)
    if session.exists(waiting) and not _is_open(session, waiting, values):
        session.execute(f"drop table {session.warehouse.table(waiting)}")


def _take_in(session: Session, values: Mapping[str, Any]) -> None:
    answers, ledger = session.warehouse.table("sync_answers"), session.warehouse.table("sync_ledger")
    for table in (answers, ledger):
        session.analyze(table)
    log = ", ".join(TABLES["delivery_log"])
    session.execute(
        f"insert into {session.warehouse.table('delivery_log')} ({log})"
        f" select {log} from {answers} where sync = :sync order by answer",
        values,
    )
    refused = "a.outcome = 'rejected'"
    refusals = "coalesce(l.refusals, 0) + 1"
    held = "a.operation not in ('remove', 'archive', 'clear')"
    session.execute(
        f"update {ledger} l set state = case"
        f" when {refused} and {refusals} >= :max_attempts then 'dead'"
        f" when a.outcome = 'accepted' and not {held} then 'removed' else a.outcome end,"
        " reason = a.reason, operation = a.operation,"
        " attempts = case when a.outcome = 'ambiguous' then l.attempts else a.attempt end,"
        f" refusals = case when {refused} then {refusals} else l.refusals end,"
        " payload_hash = case when a.outcome <> 'accepted' then l.payload_hash"
        f" when {held} then a.payload_hash end,"
        " attempted_hash = case when a.outcome <> 'accepted' then l.attempted_hash end,"
        " unsure = case when a.outcome <> 'accepted' then l.unsure end,"
        " sent = case when a.outcome <> 'accepted' then l.sent when a.operation = 'remove' then a.sent"
        " else coalesce(a.sent, l.sent) end, window_end = a.window_end, run_id = a.run_id"
        " from (select a.*, row_number() over"
        " (partition by record_key, payload_hash order by answer desc) as place"
        f" from {answers} a where sync = :sync and ends_try) a where a.place = 1 and l.sync = :sync"
        " and l.record_key = a.record_key and l.state in ('pending', 'ambiguous')"
        " and l.attempted_hash = a.payload_hash",
        values,
    )
    session.execute(f"delete from {answers} where sync = :sync", values)


def _is_open(session: Session, waiting: str, values: Mapping[str, Any]) -> bool:
    return bool(
        session.scalar(
            f"select count(*) from (select 1 from {session.warehouse.table(waiting)} o"
            f" join {session.warehouse.table('sync_ledger')} l on l.sync = :sync"
            " and l.record_key = o.record_key and l.state = 'pending'"
            " and l.attempted_hash = o.payload_hash limit 1) waiting",
            values,
        )
    )


def release(session: Session, sync: str, keys: Sequence[str] | None = None) -> int:
    """Let the next run, of the same window too, try dead letters, ambiguous records and those again that
    could not be put into a request. Call it inside a transaction.

    :param keys: record keys, as the ledger has them; None: all.
    :returns: how many records it let go.
    """
    ledger = session.warehouse.table("sync_ledger")
    # A profile that has no record has tried nothing.
    chosen = "sync = :sync and state in ('dead', 'ambiguous', 'invalid') and attempted_hash is not null"
    if keys is not None:
        wanted = session.temp("released_keys", pa.table({"record_key": pa.array(list(keys), pa.string())}))
        chosen += f" and record_key in (select record_key from {wanted})"
    count = session.scalar(f"select count(*) from {ledger} where {chosen}", {"sync": sync})
    session.execute(
        f"update {ledger} set state = 'rejected', refusals = 0,"
        f" unsure = coalesce(unsure, false) or state = 'ambiguous' where {chosen}",
        {"sync": sync},
    )
    return int(count)


def prune(session: Session, sync: Sync, run: Run) -> None:
    """Forget what is older in the log than the sync keeps it."""
    session.execute(
        f"delete from {session.warehouse.table('delivery_log')} where sync = :sync and window_end < :oldest",
        {"sync": sync.name, "oldest": run.window.end - sync.log_retention},
    )


@dataclass(frozen=True)
class Standing:
    """What a sync's ledger says.

    :param accepted: records whose payload was acknowledged in this window.
    :param removed: removals acknowledged in this window.
    :param rejected: records rejected, or left without an answer of their own, in this window.
    :param retryable: of these, those without an answer of their own.
    :param ambiguous: records that may have arrived: sent again by the next run, or by a person's release.
    :param dead: records rejected so often that they are not sent again until they change.
    :param ever: records that the destination has ever acknowledged.
    """

    accepted: int
    removed: int
    rejected: int
    retryable: int
    ambiguous: int
    dead: int
    ever: int


def standing(session: Session, sync: Sync, run: Run) -> Standing:
    """Count the ledger's rows of a sync."""
    here = "window_end = :window_end"
    counts = session.one(
        f"select count(case when state = 'accepted' and {here} then 1 end),"
        f" count(case when state = 'removed' and {here} then 1 end),"
        f" count(case when state in ('rejected', 'retryable', 'dead') and {here} then 1 end),"
        f" count(case when state = 'retryable' and {here} then 1 end),"
        " count(case when state in ('ambiguous', 'pending') then 1 end),"
        " count(case when state = 'dead' then 1 end),"
        " count(case when state = 'removed' or payload_hash is not null then 1 end)"
        f" from {session.warehouse.table('sync_ledger')} where sync = :sync",
        {"sync": sync.name, "window_end": run.window.end},
    )
    return Standing(*counts) if counts else Standing(0, 0, 0, 0, 0, 0, 0)
