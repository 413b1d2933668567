# SPDX-License-Identifier: Apache-2.0
"""Wait until data is fresh enough."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import BaseSensorOperator
from airflow.sdk.exceptions import AirflowSensorTimeout

from cdp_provider.core.exceptions import ConfigurationError, WarehouseBusyError
from cdp_provider.operators.base import CDP_RETRY_POLICY, run_of
from cdp_provider.triggers.freshness import FreshnessTrigger, Watched, as_moment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Asset, Context, RetryPolicy


class FreshnessSensor(BaseSensorOperator):
    """Waits until the newest row is no more than `max_age` older than the end of the run's window.

    Give exactly one of `table` (with `time_column`), `stream` and `asset`. While it waits it is deferred and
    holds no worker slot. A table that does not exist yet is waited for, too.

    :param max_age: how much older than the window's end the newest row may be.
    :param warehouse_conn_id: connection of type ``duckdb`` or ``postgres``; not needed for an asset.
    :param schema: schema of the table.
    :param table: any table of that schema.
    :param time_column: its column of moments or dates.
    :param stream: a stream of a project, ``crm.customers``: its checked batches are looked at.
    :param asset: an asset whose events carry ``extra["watermark"]``, as all of this product do; its newest
        event counts.
    :param deferrable: False keeps the worker slot and pokes.
    """

    template_fields: Sequence[str] = ("warehouse_conn_id", "schema", "table", "time_column", "stream")

    def __init__(
        self,
        *,
        max_age: timedelta,
        warehouse_conn_id: str | None = None,
        schema: str = "cdp",
        table: str | None = None,
        time_column: str | None = None,
        stream: str | None = None,
        asset: Asset | None = None,
        deferrable: bool = True,
        retry_policy: RetryPolicy | None = CDP_RETRY_POLICY,
        inlets: Sequence[Any] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(
            retry_policy=retry_policy, inlets=[*inlets, *([] if asset is None else [asset])], **kwargs
        )
        self.max_age = max_age
        self.warehouse_conn_id = warehouse_conn_id
        self.schema = schema
        self.table = table
        self.time_column = time_column
        self.stream = stream
        self.asset = asset
        self.deferrable = deferrable

    def poke(self, context: Context) -> bool:
        """Whether it is fresh enough right now."""
        at_least = self._at_least(context)
        watched = self._watched()
        try:
            newest = watched.newest() if watched else self._newest_event(context)
        except WarehouseBusyError as error:
            self.log.info("%s; looking again later", error)
            return False
        self.log.info("newest is %s, needed is %s", newest, at_least)
        return newest is not None and newest >= at_least

    def execute(self, context: Context) -> None:
        if not self.deferrable:
            super().execute(context)
        elif not self.poke(context):
            self._wait(context, waited=0.0)

    def look_again(self, context: Context, waited: float, event: Any = None) -> None:
        """After a pause, look for a newer event of the asset."""
        if not self.poke(context):
            self._wait(context, waited)

    def found(self, context: Context, event: dict[str, str]) -> None:
        """The trigger saw fresh rows."""
        self.log.info("newest is %s: fresh enough", event["newest"])

    def _wait(self, context: Context, waited: float) -> None:
        watched = self._watched()
        if watched:
            trigger = FreshnessTrigger(
                asdict(watched), self._at_least(context).isoformat(), self.poke_interval
            )
            limit = timedelta(seconds=self.timeout)
            self.defer(trigger=trigger, method_name=self.found.__name__, timeout=limit)
        # Only a worker may ask for asset events, so the triggerer does no more than count the seconds.
        if waited >= self.timeout:
            msg = f"no fresh enough event of {self.asset!r} within {self.timeout:.0f} s"
            raise AirflowSensorTimeout(msg)
        self.defer(
            trigger=TimeDeltaTrigger(timedelta(seconds=self.poke_interval)),
            method_name=self.look_again.__name__,
            kwargs={"waited": waited + self.poke_interval},
        )

    def _at_least(self, context: Context) -> datetime:
        return run_of(context).window.end - self.max_age

    def _watched(self) -> Watched | None:
        """The table to look at; None when an asset is watched."""
        if [self.table, self.stream, self.asset].count(None) != 2 or (self.table and not self.time_column):
            msg = (
                f"task {self.task_id} watches table={self.table!r} (time_column={self.time_column!r}),"
                f" stream={self.stream!r}, asset={self.asset!r}; give exactly one of a table with its"
                " time_column, a stream and an asset"
            )
            raise ConfigurationError(msg)
        if self.asset is not None:
            return None
        if self.warehouse_conn_id is None:
            msg = f"task {self.task_id} watches a table and names no warehouse_conn_id; name one"
            raise ConfigurationError(msg)
        return Watched(self.warehouse_conn_id, self.schema, self.table, self.time_column, self.stream)

    def _newest_event(self, context: Context) -> datetime | None:
        """Of the asset's newest event, the moment that its ``extra`` names."""
        if self.asset is None:
            return None
        events = context["inlet_events"][self.asset].ascending(False).limit(1)
        watermark = (events[0].extra or {}).get("watermark") if len(events) else None
        return as_moment(datetime.fromisoformat(watermark)) if isinstance(watermark, str) else None
