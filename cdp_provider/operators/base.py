# SPDX-License-Identifier: Apache-2.0
"""What all operators share: the run's window, the warehouse, and telling Airflow what came out."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, BaseOperator

from cdp_provider.core.exceptions import ConfigurationError
from cdp_provider.core.run import Run, Window
from cdp_provider.hooks.warehouse import WarehouseHook
from cdp_provider.retries import CdpRetryPolicy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context, RetryPolicy

    from cdp_provider.core.runs import Report
    from cdp_provider.core.warehouse import Warehouse

CDP_RETRY_POLICY = CdpRetryPolicy()


def run_of(context: Context) -> Run:
    """The run and its window.

    The window is the run's data interval where it has one of some length. Every other run (by hand, by an
    asset, by a timetable whose intervals are points, which Airflow's are unless
    ``create_cron_data_intervals`` is set) ends at its ``run_after`` and begins where the last one ended.
    So does a partitioned run: its key says which partition, not how long that lasts.
    """
    dag_run = context["dag_run"]
    start, end = dag_run.data_interval_start, dag_run.data_interval_end
    if start is not None and end is not None and start < end:
        window = Window(start, end)
    else:
        window = Window(None, dag_run.run_after)
    map_index = getattr(context.get("ti"), "map_index", None)
    return Run(dag_run.dag_id, dag_run.run_id, window, -1 if map_index is None else map_index)


def is_true(value: bool | str, name: str) -> bool:
    """Yes or no, as templates write it.

    :raises ConfigurationError: it is neither.
    """
    word = str(value).strip().lower()
    if word not in ("true", "false"):
        msg = f"{name} is {value!r}; give true or false, or a template that renders to one of them"
        raise ConfigurationError(msg)
    return word == "true"


class CdpOperator(BaseOperator):
    """One step of the road.

    :param warehouse_conn_id: connection of type ``duckdb`` or ``postgres``.
    :param schema: schema that holds everything of the product.
    :param retry_policy: fails at once what needs a human; see :class:`CdpRetryPolicy`.
    """

    template_fields: Sequence[str] = ("warehouse_conn_id", "schema")
    ui_color = "#e8f1fb"

    def __init__(
        self,
        *,
        warehouse_conn_id: str,
        schema: str = "cdp",
        retry_policy: RetryPolicy | None = CDP_RETRY_POLICY,
        **kwargs: Any,
    ) -> None:
        super().__init__(retry_policy=retry_policy, **kwargs)
        self.warehouse_conn_id = warehouse_conn_id
        self.schema = schema

    @cached_property
    def hook(self) -> WarehouseHook:
        """The hook of the warehouse; made after templates are rendered."""
        return WarehouseHook(self.warehouse_conn_id, schema=self.schema)

    @property
    def warehouse(self) -> Warehouse:
        """The warehouse, not yet connected."""
        return self.hook.warehouse

    def publish(self, context: Context, report: Report) -> dict[str, Any]:
        """Log what came out and put it into the events of the task's assets.

        :returns: the report as plain JSON values, the task's XCom.
        """
        self.log.info(report.sentence())
        for outlet in self.outlets:
            if isinstance(outlet, Asset):
                context["outlet_events"][outlet].extra.update(self.event(outlet, report))
        return report.summary()

    def event(self, asset: Asset, report: Report) -> dict[str, Any]:
        """What the event of that asset says."""
        return report.summary()

    def on_kill(self) -> None:
        """End the running statement at the server, rather than let it work for nobody."""
        if "hook" in self.__dict__:
            self.hook.cancel()
