# SPDX-License-Identifier: Apache-2.0
"""What destinations answered, record by record."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from cdp_provider.core.activation.destinations.base import Result
    from cdp_provider.core.run import Run
    from cdp_provider.core.warehouse import Session, Warehouse

#: Outcomes that are an answer about the record; after any other it stays pending.
_ANSWERED = ("accepted", "removed", "rejected", "retryable")


def record(session: Session, sync: str, run: Run, results: Sequence[Result]) -> None:
    """Keep the results of a batch: each in the log, each answer for :func:`fold`. Call it inside a
    transaction. It only appends, so its cost does not grow with the ledger."""
    count = len(results)
    told = pa.table(
        {
            "sync": [sync] * count,
            "run_id": [run.run_id] * count,
            "window_end": pa.array([run.window.end] * count, pa.timestamp("us", tz="UTC")),
            "record_key": [r.record.record_key for r in results],
            "outcome": [r.outcome.state for r in results],
            "reason": pa.array([r.outcome.reason for r in results], pa.string()),
            "attempt": [r.record.attempts + 1 for r in results],
        }
    )
    log = told.append_column("operation", pa.array([r.record.operation for r in results])).append_column(
        "idempotency_key", pa.array([r.idempotency_key for r in results])
    )
    session.load(session.warehouse.table("delivery_log"), log)
    answers = told.append_column("payload_hash", pa.array([r.record.payload_hash for r in results]))
    answered = pa.array([r.outcome.state in _ANSWERED for r in results])
    session.load(session.warehouse.table("sync_answers"), answers.filter(answered))


def fold(session: Session, sync: str) -> None:
    """Bring the answers that were kept into the ledger, all at once. Call it inside a transaction.

    An answer to a payload that is no longer the one on its way changes nothing: a newer run has taken over.
    """
    answers = session.warehouse.table("sync_answers")
    ledger = session.warehouse.table("sync_ledger")
    values = {"sync": sync}
    for table in (answers, ledger):
        session.analyze(table)
    session.execute(
        f"update {ledger} l"  # noqa: S608 - quoted by the dialect
        " set state = a.outcome, reason = a.reason, attempts = a.attempt,"
        " payload_hash = case a.outcome when 'accepted' then a.payload_hash"
        " when 'removed' then null else l.payload_hash end,"
        " attempted_hash = case when a.outcome in ('accepted', 'removed') then null"
        " else l.attempted_hash end,"
        " window_end = a.window_end, run_id = a.run_id"
        f" from {answers} a where a.sync = :sync and l.sync = a.sync and l.record_key = a.record_key"
        " and l.state = 'pending' and l.attempted_hash = a.payload_hash",
        values,
    )
    session.execute(f"delete from {answers} where sync = :sync", values)  # noqa: S608 - quoted


class Checkpoints:
    """Writes the results of a batch while the next is on its way: in order, each in its own transaction.

    Leaving the ``with`` block, also by an error, waits for the last one, raises whatever kept it from being
    written, and folds all of them into the ledger.
    """

    def __init__(self, warehouse: Warehouse, sync: str, run: Run) -> None:
        self._warehouse = warehouse
        self._sync = sync
        self._run = run
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="sync-ledger")
        self._last: Future[None] | None = None

    def write(self, results: Sequence[Result]) -> None:
        """Have `results` written, once those before them are."""
        self._settle()
        if not results:
            return
        self._last = self._writer.submit(self._write, results)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.shutdown()
        self._settle()
        with self._warehouse.session() as session, session.transaction():
            fold(session, self._sync)

    def _write(self, results: Sequence[Result]) -> None:
        with self._warehouse.session() as session, session.transaction():
            record(session, self._sync, self._run, results)

    def _settle(self) -> None:
        last, self._last = self._last, None
        if last is not None:
            last.result()


@dataclass(frozen=True)
class Standing:
    """What a sync's ledger says.

    :param accepted: upserts acknowledged in this window.
    :param removed: removals acknowledged in this window.
    :param rejected: records rejected, or left without an answer, in this window.
    :param exhausted: records rejected so often that they are not sent again until they change.
    :param ever: records that the destination has ever acknowledged.
    """

    accepted: int
    removed: int
    rejected: int
    exhausted: int
    ever: int


def standing(session: Session, sync: str, run: Run, max_attempts: int) -> Standing:
    """Count the ledger's rows of a sync."""
    counts = session.one(
        "select count(case when state = 'accepted' and window_end = :window_end then 1 end),"
        " count(case when state = 'removed' and window_end = :window_end then 1 end),"
        " count(case when state in ('rejected', 'retryable') and window_end = :window_end then 1 end),"
        " count(case when state = 'rejected' and attempts >= :max_attempts then 1 end),"
        " count(case when state in ('accepted', 'removed') or payload_hash is not null then 1 end)"
        f" from {session.warehouse.table('sync_ledger')} where sync = :sync",  # noqa: S608 - quoted
        {"sync": sync, "window_end": run.window.end, "max_attempts": max_attempts},
    )
    return Standing(*counts) if counts else Standing(0, 0, 0, 0, 0)
