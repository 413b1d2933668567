# SPDX-License-Identifier: Apache-2.0
"""Keeps one destination in step with one segment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdp_provider.core import tables
from cdp_provider.core.activation import diff, ledger
from cdp_provider.core.activation.delivery import Delivery, Patience
from cdp_provider.core.activation.destinations import DESTINATIONS
from cdp_provider.core.activation.limiter import Throttle, limits_of
from cdp_provider.core.exceptions import ConfigurationError, DeliveryError
from cdp_provider.core.http import HttpClient
from cdp_provider.core.project.problems import did_you_mean
from cdp_provider.core.runs import advance, reported, superseded

if TYPE_CHECKING:
    from cdp_provider.core.activation.destinations import DestinationKind
    from cdp_provider.core.activation.destinations.base import Result
    from cdp_provider.core.activation.limiter import LimitStore
    from cdp_provider.core.http import Endpoint
    from cdp_provider.core.project.activation import Destination, Sync
    from cdp_provider.core.project.profiles import Profiles
    from cdp_provider.core.run import Run
    from cdp_provider.core.runs import Report
    from cdp_provider.core.warehouse import Session, Warehouse


def sync(
    warehouse: Warehouse,
    sync: Sync,
    destination: Destination,
    endpoint: Endpoint,
    run: Run,
    *,
    profiles: Profiles,
    limits: LimitStore | None = None,
    patience: Patience | None = None,
) -> Report:
    """Send what differs between the sync's profiles and what the destination has acknowledged.

    The ledger advances with every acknowledged batch, so a task that is killed or fails continues where it
    was; at most the batch in flight and the one whose answer is being written are sent again, each under the
    same idempotency key. Rejected records are data:
    they are counted and kept in the ledger, and do not fail the task.

    :param limits: where the workers of the destination's account meet; by default
        :func:`~cdp_provider.core.activation.limiter.limits_of` the warehouse.
    :returns: rows in: profiles that the sync speaks of; out: records acknowledged in this window; refused:
        records that could not be sent, were rejected or got no answer.
    :raises RateLimitedError: the account is busy for longer than ``patience.max_wait``; carries the seconds.
    :raises UnavailableError: the destination gave no usable answer.
    :raises ConfigurationError: the sync, its destination or the connection are wrong.
    :raises DeliveryError: records were rejected, and the destination has never accepted a single one.
    """
    patience = patience or Patience()
    with reported(warehouse, run, "sync", sync.name) as report:
        kind = _kind(sync, destination, profiles)
        planned = _plan(warehouse, kind, report)
        if planned is None:
            return report
        if planned.rows.num_rows:
            store = limits if limits is not None else limits_of(warehouse)
            throttle = Throttle.of(destination, store, patience.max_wait)
            try:
                with HttpClient(endpoint) as client:
                    delivery = Delivery(kind, client, throttle, patience, proven=planned.proven)
                    _deliver(warehouse, planned, delivery, report)
            finally:
                store.close()
        with warehouse.session() as session:
            _finish(session, planned, report)
    return report


def _kind(sync: Sync, destination: Destination, profiles: Profiles) -> DestinationKind:
    """The destination's kind, for a sync that names what there is."""
    known = [*profiles.fields, *profiles.traits]
    for name in (sync.key, *sync.fields.values()):
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
    if problems := [problem.message for problem in destination.options.sync_problems(sync)]:
        msg = f"sync {sync.name} does not fit destination {destination.name}: {'; '.join(problems)}"
        raise ConfigurationError(msg)
    return DESTINATIONS[destination.type](destination, sync)


def _plan(warehouse: Warehouse, kind: DestinationKind, report: Report) -> diff.Plan | None:
    """What has to travel; None when a newer window's result already stands."""
    with warehouse.session() as session:
        tables.ensure(session)
        with session.lock(f"sync {kind.sync.name}"):
            if superseded(session, report):
                return None
            with session.transaction():
                # What a killed task still had to say.
                ledger.fold(session, kind.sync.name)
                return diff.plan(session, diff.Shape.of(session, kind), report.run)


def _deliver(warehouse: Warehouse, planned: diff.Plan, delivery: Delivery, report: Report) -> None:
    capabilities, destination = delivery.kind.capabilities, delivery.kind.destination
    size = min(destination.batch, capabilities.max_batch or destination.batch)
    name = planned.shape.sync.name
    with ledger.Checkpoints(warehouse, name, report.run) as checkpoints:
        for batch in planned.batches(size):
            results: list[Result] = []
            try:
                delivery.deliver(batch, results)
            finally:
                report.detail["requests"] = delivery.requests
                checkpoints.write(results)


def _finish(session: Session, planned: diff.Plan, report: Report) -> None:
    """Sum up the window; the counts are the ledger's, so that a task that continues another's work says the
    same as one that did it all."""
    sync = planned.shape.sync
    with session.transaction():
        counts = ledger.standing(session, sync.name, report.run, sync.max_attempts)
        report.rows_in = planned.desired
        report.rows_out = counts.accepted + counts.removed
        report.rows_refused = planned.invalid + counts.rejected
        report.detail |= {
            "accepted": counts.accepted,
            "removed": counts.removed,
            "rejected": counts.rejected,
            "invalid": planned.invalid,
            "exhausted": counts.exhausted,
            "unchanged": max(0, planned.desired - planned.invalid - counts.accepted - counts.rejected),
            "requests": report.detail.get("requests", 0),
        }
        if counts.rejected and not counts.ever:
            msg = (
                f"destination {sync.destination} rejected all {counts.rejected} records of sync {sync.name}"
                " and has never accepted one; see the reasons in sync_ledger, correct the sync's key and"
                " fields or the destination's settings"
            )
            raise DeliveryError(msg)
        report.write(session)
        advance(session, report)
