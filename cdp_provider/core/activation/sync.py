# SPDX-License-Identifier: Apache-2.0
"""Keeps one destination in step with one segment."""

from __future__ import annotations

import itertools
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cdp_provider.core import tables
from cdp_provider.core.activation import circuit, diff, ledger
from cdp_provider.core.activation.delivery import Patience, deliver
from cdp_provider.core.activation.destinations import DESTINATIONS
from cdp_provider.core.activation.destinations.fit import reading_problems
from cdp_provider.core.activation.limiter import Limiter
from cdp_provider.core.activation.limits import limits_of
from cdp_provider.core.activation.shape import Shape
from cdp_provider.core.exceptions import ConfigurationError, DeliveryError
from cdp_provider.core.project.activation import Consent
from cdp_provider.core.project.problems import did_you_mean
from cdp_provider.core.runs import advance, reported, superseded

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    from cdp_provider.core.activation.destinations import DestinationKind
    from cdp_provider.core.activation.destinations.base import Record, Result
    from cdp_provider.core.activation.limits import LimitStore
    from cdp_provider.core.activation.outbox import Outbox
    from cdp_provider.core.project.activation import Destination, Sync
    from cdp_provider.core.project.profiles import Profiles
    from cdp_provider.core.run import Run
    from cdp_provider.core.runs import Report
    from cdp_provider.core.warehouse import Session, Warehouse

#: So often are records sent again in one go of which a destination's answers say nothing.
_ROUNDS = 3

#: Records in memory at a time, twice: those on their way and those that come next.
_CHUNK = 10_000

#: Bytes that an engine inside this process may take to write down answers.
_WRITER_MEMORY = 128_000_000


def sync(
    warehouse: Warehouse,
    sync: Sync,
    destination: Destination,
    target: Any,
    run: Run,
    *,
    profiles: Profiles,
    consent: Consent | None = None,
    limits: LimitStore | None = None,
    patience: Patience | None = None,
    resync: bool = False,
    approved: bool = False,
    stop: threading.Event | None = None,
) -> Report:
    """Send what differs between the sync's profiles and what the destination has acknowledged.

    The ledger advances with every acknowledged batch, so a task that is killed or fails continues where it
    was; at most the batches in flight and those whose answers are being written are sent again, each under
    the same idempotency key. Rejected records are data: they are counted and kept in the ledger, and do not
    fail the task.

    :param target: what the destination's connection became; see
        :class:`~cdp_provider.core.activation.destinations.base.Line`.
    :param limits: where the workers of the destination's account meet; by default
        :func:`~cdp_provider.core.activation.limits.limits_of` the warehouse.
    :param resync: send everything anew, once per run.
    :param approved: removals above the sync's ``approve_above`` may travel.
    :param stop: set when the task shall end; what is on its way comes to its end.
    :returns: rows in: profiles that the sync speaks of; out: records acknowledged in this window; refused:
        records that could not be sent, were rejected or got no answer.
    :raises RateLimitedError: the account is busy for longer than ``patience.max_wait``; carries the seconds.
    :raises UnavailableError: the destination gave no usable answer.
    :raises ConfigurationError: the sync, its destination or the connection are wrong.
    :raises DeliveryError: records were rejected, and the destination has never accepted a single one.
    :raises StoppedError: `stop` was set.
    """
    patience = patience or Patience()
    with reported(warehouse, run, "sync", sync.name) as report:
        kind = kind_of(sync, destination, profiles)
        report.detail["requests"] = 0
        consent = consent or Consent()
        for rounds_left in reversed(range(_ROUNDS)):
            with warehouse.session() as session:
                planned = _plan(session, kind, report, consent, resync=resync, approved=approved)
                if planned is None or (not planned.total and _finished(session, kind, planned, report)):
                    break
            store = limits if limits is not None else limits_of(warehouse)
            _deliver(warehouse, kind, target, planned, store, patience, stop, report)
            with warehouse.session() as session:
                if _finished(session, kind, planned, report, rounds_left):
                    break
    return report


def kind_of(sync: Sync, destination: Destination, profiles: Profiles) -> DestinationKind:
    """The destination's kind, for a sync that names what there is.

    :raises ConfigurationError: it does not; or the sync asks for what the destination cannot do.
    """
    known = [*profiles.fields, *profiles.traits]
    for name in (sync.key, *sync.sources):
        if name not in known:
            msg = (
                f"sync {sync.name} maps {name!r}, which is neither a field nor a trait of the profile;"
                f" {did_you_mean(name, known)}"
            )
            raise ConfigurationError(msg)
    if destination.type not in DESTINATIONS:
        msg = (
            f"destination {destination.name} has the type {destination.type!r};"
            f" {did_you_mean(destination.type, DESTINATIONS)}"
        )
        raise ConfigurationError(msg)
    problems = [problem.message for problem in destination.options.sync_problems(sync)]
    if not problems:
        kind = DESTINATIONS[destination.type](destination, sync)
        problems = [problem.message for problem in reading_problems(kind)]
    if problems:
        msg = f"sync {sync.name} does not fit destination {destination.name}: {'; '.join(problems)}"
        raise ConfigurationError(msg)
    return kind


def resync_of(run: Run) -> str:
    """Names a full resync: the same for every try of the run, so that a killed one goes on where it was."""
    return f"{run.run_id} {run.window.key}"


def _plan(
    session: Session,
    kind: DestinationKind,
    report: Report,
    consent: Consent,
    *,
    resync: bool,
    approved: bool,
) -> diff.Plan | None:
    """What has to travel; None when a newer window's result already stands."""
    run = report.run
    claim = uuid.uuid4().hex
    token = resync_of(run) if resync else None
    tables.ensure(session)
    with _alone(session, kind.sync):
        if superseded(session, report):
            return None
        with session.transaction():
            # What a killed task still had to say.
            ledger.fold(session, kind.sync)
            shape = Shape.of(session, kind, consent)
            return diff.plan(session, shape, run, resync=token, claim=claim, approved=approved)


def _deliver(
    warehouse: Warehouse,
    kind: DestinationKind,
    target: Any,
    planned: diff.Plan,
    store: LimitStore,
    patience: Patience,
    stop: threading.Event | None,
    report: Report,
) -> None:
    answers = itertools.count(1)

    def write(results: Sequence[Result]) -> None:
        with warehouse.session() as session:
            with session.bounded(_WRITER_MEMORY), _alone(session, kind.sync), session.transaction():
                ledger.record(session, kind, report.run, results, next(answers), datetime.now(UTC))
            # After that: what was answered is true, whoever sends the rest.
            planned.outbox.check(session)

    with warehouse.session() as session:
        probe = circuit.is_open(session, kind)
    try:
        report.detail["requests"] += deliver(
            kind,
            target,
            _chunks(warehouse, planned.outbox),
            write=write,
            patience=patience,
            limiter=Limiter.of(kind, store, patience.max_wait),
            proven=planned.proven,
            probe=probe,
            stop=stop,
        )
    except Exception as error:
        report.detail["requests"] += getattr(error, "requests", 0)
        with warehouse.session() as session, _alone(session, kind.sync), session.transaction():
            ledger.fold(session, kind.sync)
            circuit.failed(session, kind, report.run, error)
        raise
    with warehouse.session() as session, _alone(session, kind.sync), session.transaction():
        ledger.fold(session, kind.sync)
        circuit.succeeded(session, kind)


def _alone(session: Session, sync: Sync) -> AbstractContextManager[None]:
    """Nobody else writes answers of this sync or takes them in: what came in between would be lost."""
    return session.lock(f"sync {sync.name}")


def _chunks(warehouse: Warehouse, outbox: Outbox) -> Iterator[list[Record]]:
    after = 0
    while records := outbox.read(warehouse, after, _CHUNK):
        yield records
        after += len(records)


def _finished(
    session: Session, kind: DestinationKind, planned: diff.Plan, report: Report, rounds_left: int = 0
) -> bool:
    """Sum up the window, unless the destination left records without an answer and may be asked again.

    The counts are the ledger's, so that a task that continues another's work says the same as one that did it
    all.
    """
    sync = kind.sync
    counts = ledger.standing(session, sync, report.run)
    if counts.retryable and rounds_left:
        return False
    if counts.rejected and not counts.ever:
        msg = (
            f"destination {sync.destination} rejected all {counts.rejected} records of sync {sync.name}"
            " and has never accepted one; see the reasons in sync_ledger, correct the sync's key and"
            " fields or the destination's settings"
        )
        raise DeliveryError(msg)
    report.rows_in = planned.desired
    report.rows_out = counts.accepted + counts.removed
    report.rows_refused = planned.invalid + counts.rejected
    report.detail |= {
        "accepted": counts.accepted,
        "removed": counts.removed,
        "rejected": counts.rejected,
        "invalid": planned.invalid,
        "withheld": planned.withheld,
        "ambiguous": counts.ambiguous,
        "dead": counts.dead,
        "unchanged": max(0, planned.desired - planned.invalid - counts.accepted - counts.rejected),
        "removals_waiting": planned.withheld_removals,
    }
    with session.transaction():
        ledger.prune(session, sync, report.run)
        report.write(session)
        advance(session, report)
    return True
