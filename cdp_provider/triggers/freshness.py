# SPDX-License-Identifier: Apache-2.0
"""Polls a table's newest moment until it is fresh enough."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from cdp_provider.core.exceptions import ConfigurationError, NotFoundError, WarehouseBusyError
from cdp_provider.hooks.warehouse import WarehouseHook

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from cdp_provider.core.warehouse import Warehouse

#: Seconds that one look at a DuckDB file may wait for another process; then the next look follows.
LOCK_TIMEOUT = 5.0


@dataclass(frozen=True)
class Watched:
    """What is looked at: a table's time column, or a stream's checked batches.

    :param table: table of `schema`, with `time_column`; or
    :param stream: reference such as ``crm.customers``.
    """

    warehouse_conn_id: str
    schema: str
    table: str | None = None
    time_column: str | None = None
    stream: str | None = None

    def newest(self) -> datetime | None:
        """Opens the warehouse, reads the newest moment and closes it; None while there is no row.

        :raises NotFoundError: the table lacks the column.
        :raises WarehouseBusyError: another process holds the warehouse.
        """
        hook = WarehouseHook(self.warehouse_conn_id, schema=self.schema, lock_timeout=LOCK_TIMEOUT)
        return self.read(hook.warehouse)

    def read(self, warehouse: Warehouse) -> datetime | None:
        """As :meth:`newest`, of a given warehouse."""
        table, column = self.table or "loads", self.time_column or "watermark"
        where = " where stream = :stream and state = 'passed'" if self.stream else ""
        with warehouse.session() as session:
            columns = session.columns(table)
            if not columns:
                return None
            if column not in columns:
                msg = (
                    f"the table {self.schema}.{table} has no column {column!r}; it has {', '.join(columns)};"
                    " correct time_column"
                )
                raise NotFoundError(msg)
            newest = session.scalar(
                f"select max({warehouse.quote(column)}) from {warehouse.table(table)}{where}",  # noqa: S608 - quoted
                {"stream": self.stream},
            )
        return as_moment(newest)


def as_moment(value: Any) -> datetime | None:
    """A date is its first moment; a moment without a time zone is UTC."""
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    if value is None:
        return None
    msg = f"the column holds values of type {type(value).__name__}; freshness needs a timestamp or a date"
    raise ConfigurationError(msg)


class FreshnessTrigger(BaseTrigger):
    """Fires ``{"newest": ISO 8601}`` once the newest moment is at least `at_least`.

    It holds a connection's id, never its secrets, and only reads.

    :param watched: the fields of :class:`Watched`.
    :param at_least: ISO 8601.
    :param poll_interval: seconds between two looks.
    """

    def __init__(self, watched: dict[str, Any], at_least: str, poll_interval: float = 60.0) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.watched = Watched(**watched)
        self.at_least = at_least
        self.poll_interval = poll_interval

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "watched": asdict(self.watched),
                "at_least": self.at_least,
                "poll_interval": self.poll_interval,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        at_least = datetime.fromisoformat(self.at_least)
        while True:
            try:
                # Drivers block, and so would every other trigger of this triggerer.
                newest = await asyncio.to_thread(self.watched.newest)
            except WarehouseBusyError:
                self.log.info("the warehouse is busy; looking again in %s s", self.poll_interval)
            else:
                if newest is not None and newest >= at_least:
                    yield TriggerEvent({"newest": newest.isoformat()})  # type: ignore[no-untyped-call]
                    return
                self.log.info("newest is %s, needed is %s", newest, self.at_least)
            await asyncio.sleep(self.poll_interval)
