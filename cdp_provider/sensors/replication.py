# SPDX-License-Identifier: Apache-2.0
"""Watch how far the readers of a PostgreSQL's log lag behind, before its disk is full."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator

from cdp_provider.core.exceptions import ConfigurationError, RetryableError
from cdp_provider.core.ingest.postgres_lag import excess
from cdp_provider.core.project.base import parse_size
from cdp_provider.operators.base import CDP_RETRY_POLICY
from cdp_provider.triggers.replication import ReplicationLagTrigger, Slots

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context, RetryPolicy


class ReplicationLagSensor(BaseSensorOperator):
    """Fails when a server keeps too much of its log for a replication slot, and says which and what to do.

    :param source_conn_id: connection of type ``postgres``: that of the streams of type ``postgres_cdc``.
    :param limit: bytes, or a size such as ``10 GB``.
    :param slots: names; all logical slots of the database when left out.
    :param wait: rather than fail, wait until the readers have caught up.
    :param deferrable: False keeps the worker slot while it waits.
    """

    template_fields: Sequence[str] = ("source_conn_id", "limit", "slots")

    def __init__(
        self,
        *,
        source_conn_id: str,
        limit: int | str,
        slots: Sequence[str] = (),
        wait: bool = False,
        deferrable: bool = True,
        retry_policy: RetryPolicy | None = CDP_RETRY_POLICY,
        **kwargs: Any,
    ) -> None:
        super().__init__(retry_policy=retry_policy, **kwargs)
        self.source_conn_id = source_conn_id
        self.limit = limit
        self.slots = slots
        self.wait = wait
        self.deferrable = deferrable

    def poke(self, context: Context) -> bool:
        """Whether all slots are within the limit right now.

        :raises RetryableError: one is not, and it is not to be waited for.
        """
        found = self._watched().lags()
        for lag in found:
            self.log.info("%s bytes of the log are kept for the slot %s", lag.retained, lag.slot)
        fault = excess(found, self._limit())
        if fault and not self.wait:
            raise RetryableError(fault)
        if fault:
            self.log.info("%s", fault)
        return fault is None

    def execute(self, context: Context) -> None:
        if not self.deferrable:
            super().execute(context)
        elif not self.poke(context):
            self.defer(
                trigger=ReplicationLagTrigger(asdict(self._watched()), self._limit(), self.poke_interval),
                method_name=self.caught_up.__name__,
                timeout=timedelta(seconds=self.timeout),
            )

    def caught_up(self, context: Context, event: dict[str, int]) -> None:
        """The trigger saw all slots within the limit."""
        self.log.info("at most %s bytes of the log are kept for a slot", event["retained"])

    def _watched(self) -> Slots:
        return Slots(self.source_conn_id, tuple(self.slots))

    def _limit(self) -> int:
        text = self.limit
        try:
            limit = parse_size(int(text) if isinstance(text, str) and text.strip().isdigit() else text)
        except ValueError as error:
            msg = f"task {self.task_id}: limit: {error}"
            raise ConfigurationError(msg) from error
        return int(limit)
