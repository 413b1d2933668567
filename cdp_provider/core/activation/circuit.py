# SPDX-License-Identifier: Apache-2.0
"""A sync whose destination keeps failing tries a single batch first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdp_provider.core.exceptions import DeliveryError, UnavailableError

if TYPE_CHECKING:
    from cdp_provider.core.activation.destinations import DestinationKind
    from cdp_provider.core.run import Run
    from cdp_provider.core.warehouse import Session


def is_open(session: Session, kind: DestinationKind) -> bool:
    """Whether the sync has failed so often in a row that one batch goes ahead alone."""
    table = session.warehouse.table("sync_state")
    failures = session.scalar(f"select failures from {table} where sync = :sync", {"sync": kind.sync.name})
    return (failures or 0) >= kind.destination.circuit


def failed(session: Session, kind: DestinationKind, run: Run, error: Exception) -> None:
    """Count a failure of the destination, once per run however often its task is tried."""
    if not isinstance(error, (UnavailableError, DeliveryError)):
        return
    session.execute(
        f"update {session.warehouse.table('sync_state')} set failures = failures + 1, failed_run = :run_id"
        " where sync = :sync and failed_run is distinct from :run_id",
        {"sync": kind.sync.name, "run_id": run.run_id},
    )


def succeeded(session: Session, kind: DestinationKind) -> None:
    """The destination took what it was sent."""
    session.execute(
        f"update {session.warehouse.table('sync_state')} set failures = 0, failed_run = null"
        " where sync = :sync and failures > 0",
        {"sync": kind.sync.name},
    )
