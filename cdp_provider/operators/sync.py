# SPDX-License-Identifier: Apache-2.0
"""Bring a destination in step with a segment."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger

from cdp_provider.core.activation.sync import sync
from cdp_provider.core.exceptions import RateLimitedError
from cdp_provider.hooks.destination import DestinationHook
from cdp_provider.operators.base import CdpOperator, run_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

    from cdp_provider.core.project.activation import Destination, Sync
    from cdp_provider.core.project.profiles import Profiles


class SyncAudienceOperator(CdpOperator):
    """Sends what changed since the destination last acknowledged; refused records are in the ledger.

    A short wait for the destination's rate limit is slept through. For a long one the task defers, which
    gives the worker slot back; what was acknowledged by then is not sent again.

    :param sync: whom to tell what.
    :param destination: the account, its limits and how it wants to be spoken to.
    :param profiles: fields and traits that `sync` maps.
    :param destination_conn_id: connection of the destination; the one that `destination` names when None.
    :param max_deferrals: after so many long waits in one try the task fails, and its retries decide.
    """

    template_fields: Sequence[str] = (*CdpOperator.template_fields, "destination_conn_id")

    def __init__(
        self,
        *,
        sync: Sync,
        destination: Destination,
        profiles: Profiles,
        destination_conn_id: str | None = None,
        max_deferrals: int = 24,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.sync = sync
        self.destination = destination
        self.profiles = profiles
        self.destination_conn_id = destination_conn_id
        self.max_deferrals = max_deferrals

    def execute(self, context: Context) -> dict[str, Any]:
        return self._deliver(context, deferrals=0)

    def resume(self, context: Context, deferrals: int, event: Any = None) -> dict[str, Any]:
        """Go on after a long wait."""
        return self._deliver(context, deferrals)

    def _deliver(self, context: Context, deferrals: int) -> dict[str, Any]:
        endpoint = DestinationHook(self.destination_conn_id or self.destination.connection).endpoint
        try:
            report = sync(
                self.warehouse, self.sync, self.destination, endpoint, run_of(context), profiles=self.profiles
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
