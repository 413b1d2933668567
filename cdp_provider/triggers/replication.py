# SPDX-License-Identifier: Apache-2.0
"""Polls replication slots until none of them lags too far behind."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from cdp_provider.core.exceptions import RetryableError
from cdp_provider.core.ingest.postgres_lag import excess, lags
from cdp_provider.hooks.source import SourceHook

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from cdp_provider.core.ingest.postgres_lag import Lag


@dataclass(frozen=True)
class Slots:
    """Which slots are looked at.

    :param source_conn_id: connection of type ``postgres``.
    :param names: all logical ones of the database when empty.
    """

    source_conn_id: str
    names: tuple[str, ...] = ()

    def lags(self) -> list[Lag]:
        """Opens the connection, looks and closes it."""
        return lags(SourceHook(self.source_conn_id).database, self.names)


class ReplicationLagTrigger(BaseTrigger):
    """Fires ``{"retained": bytes}`` once for no slot more than `limit` bytes are kept.

    It holds a connection's id, never its secrets, and only reads.

    :param slots: the fields of :class:`Slots`.
    :param limit: bytes.
    :param poll_interval: seconds between two looks.
    """

    def __init__(self, slots: dict[str, Any], limit: int, poll_interval: float = 60.0) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.slots = Slots(slots["source_conn_id"], tuple(slots["names"]))
        self.limit = limit
        self.poll_interval = poll_interval

    def serialize(self) -> tuple[str, dict[str, Any]]:
        slots = asdict(self.slots) | {"names": list(self.slots.names)}
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {"slots": slots, "limit": self.limit, "poll_interval": self.poll_interval},
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        while True:
            try:
                # Drivers block, and so would every other trigger of this triggerer.
                found = await asyncio.to_thread(self.slots.lags)
            except RetryableError as error:
                self.log.info("%s; looking again in %s s", error, self.poll_interval)
            else:
                fault = excess(found, self.limit)
                if fault is None:
                    retained = max((lag.retained for lag in found), default=0)
                    yield TriggerEvent({"retained": retained})  # type: ignore[no-untyped-call]
                    return
                self.log.info("%s", fault)
            await asyncio.sleep(self.poll_interval)
