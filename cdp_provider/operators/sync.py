# SPDX-License-Identifier: Apache-2.0
"""Bring a destination in step with a segment."""

from __future__ import annotations

import threading
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger

from cdp_provider.core.activation.preview import preview
from cdp_provider.core.activation.sync import kind_of, sync
from cdp_provider.core.exceptions import RateLimitedError
from cdp_provider.core.project.activation import Consent
from cdp_provider.hooks.destination import DestinationHook
from cdp_provider.operators.base import CdpOperator, is_true, run_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import Context

    from cdp_provider.core.activation.limits import LimitStore
    from cdp_provider.core.project.activation import Destination, Sync
    from cdp_provider.core.project.profiles import Profiles


class SyncAudienceOperator(CdpOperator):
    """Sends what changed since the destination last acknowledged; refused records are in the ledger.

    A short wait for the destination's rate limit is slept through. For a long one the task defers, which
    gives the worker slot back; what was acknowledged by then is not sent again.

    :param sync: whom to tell what.
    :param destination: the account, its limits and how it wants to be spoken to.
    :param profiles: fields and traits that `sync` maps.
    :param consent: what persons agreed to.
    :param destination_conn_id: connection of the destination; the one that `destination` names when None.
    :param limits_conn_id: connection of type ``redis`` where the workers of an account meet; the warehouse
        when None.
    :param only_preview: say what would be sent, as log and XCom; send and write nothing. No event of the
        task's assets then.
    :param full_resync: send everything anew, changed or not.
    :param approval: the XCom of an :class:`~cdp_provider.operators.approve.ApproveRemovalsOperator` or an
        ``ApprovalOperator``. More removals than ``approve_above`` travel only if it says so.
    :param max_deferrals: after so many long waits in one try the task fails, and its retries decide.
    """

    template_fields: Sequence[str] = (
        *CdpOperator.template_fields,
        "destination_conn_id",
        "limits_conn_id",
        "only_preview",
        "full_resync",
        "approval",
    )

    def __init__(
        self,
        *,
        sync: Sync,
        destination: Destination,
        profiles: Profiles,
        consent: Consent | None = None,
        destination_conn_id: str | None = None,
        limits_conn_id: str | None = None,
        only_preview: bool | str = False,
        full_resync: bool | str = False,
        approval: Mapping[str, Any] | Any = None,
        max_deferrals: int = 24,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.sync = sync
        self.destination = destination
        self.profiles = profiles
        self.consent = consent
        self.destination_conn_id = destination_conn_id
        self.limits_conn_id = limits_conn_id
        self.only_preview = only_preview
        self.full_resync = full_resync
        self.approval = approval
        self.max_deferrals = max_deferrals

    def execute(self, context: Context) -> dict[str, Any]:
        if is_true(self.only_preview, "only_preview"):
            return self._preview(context)
        return self._deliver(context, deferrals=0)

    def resume(self, context: Context, deferrals: int, event: Any = None) -> dict[str, Any]:
        """Go on after a long wait."""
        return self._deliver(context, deferrals)

    @cached_property
    def stop(self) -> threading.Event:
        """Set when the task is to end. Made when first asked for, because Airflow copies operators."""
        return threading.Event()

    def on_kill(self) -> None:
        """Send no more, and let the answers that are on their way be written. Running statements are not
        cancelled: they may be writing these."""
        self.stop.set()

    def _preview(self, context: Context) -> dict[str, Any]:
        found = preview(
            self.warehouse,
            self.sync,
            self.destination,
            run_of(context),
            resync=is_true(self.full_resync, "full_resync"),
            **self._of_profiles(),
        )
        self.log.info("Dry run of sync %s\n%s", self.sync.name, "\n".join(found.sentences()))
        self.outlets = []
        return found.as_dict()

    def _deliver(self, context: Context, deferrals: int) -> dict[str, Any]:
        kind = kind_of(self.sync, self.destination, self.profiles)
        hook = DestinationHook(self.destination_conn_id or self.destination.connection)
        try:
            report = sync(
                self.warehouse,
                self.sync,
                self.destination,
                hook.target(type(kind)),
                run_of(context),
                limits=self._limits(),
                resync=is_true(self.full_resync, "full_resync"),
                approved=is_approved(self.approval),
                stop=self.stop,
                **self._of_profiles(),
            )
        except RateLimitedError as error:
            if error.retry_after is None or deferrals >= self.max_deferrals:
                raise
            self.log.info("%s; deferring for %.0f s", error, error.retry_after)
            self.defer(
                trigger=TimeDeltaTrigger(timedelta(seconds=error.retry_after)),
                method_name=self.resume.__name__,
                kwargs={"deferrals": deferrals + 1},
            )
        return self.publish(context, report)

    def _limits(self) -> LimitStore | None:
        if self.limits_conn_id is None:
            return None
        from cdp_provider.hooks.limits import limits_for

        return limits_for(self.limits_conn_id, self.warehouse)

    def _of_profiles(self) -> dict[str, Any]:
        return {"profiles": self.profiles, "consent": self.consent or Consent()}


def is_approved(answer: Mapping[str, Any] | None) -> bool:
    """Whether a person said yes; nobody did where nobody was asked."""
    if answer is None:
        return False
    # Costly, and few syncs ask anybody.
    from airflow.providers.standard.operators.hitl import ApprovalOperator

    return list(answer["chosen_options"]) == [ApprovalOperator.APPROVE]
