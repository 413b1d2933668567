# SPDX-License-Identifier: Apache-2.0
"""Polls a folder until files have arrived; as a watcher, again and again."""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from cdp_provider.core.exceptions import CdpError, ConfigurationError, RetryableError
from cdp_provider.core.ingest.arrivals import waiting
from cdp_provider.core.ingest.batches import taken_files
from cdp_provider.core.ingest.folder import Entry, Folder
from cdp_provider.hooks.source import SourceHook
from cdp_provider.hooks.warehouse import WarehouseHook
from cdp_provider.triggers.freshness import LOCK_TIMEOUT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

#: Files that an event names; it counts them all.
NAMED = 100
#: Least seconds between an event and the note that it was sent: by then Airflow has stored the event itself.
_HANDED_OVER = 5.0


@dataclass(frozen=True)
class Awaited:
    """The files that are waited for.

    :param path: pattern below the folder, such as ``orders/*.csv``.
    :param source_conn_id: connection that names the folder; or
    :param root: a folder on this machine.
    :param stream: with `warehouse_conn_id`, only files count that no batch of this stream has landed.
    :param schema: schema of the warehouse.
    """

    path: str
    source_conn_id: str | None = None
    root: str | None = None
    stream: str | None = None
    warehouse_conn_id: str | None = None
    schema: str = "cdp"

    def look(self) -> list[Entry]:
        """The files that are there and wait.

        :raises ConfigurationError: the folder is not there, or a stream goes without a warehouse.
        :raises RetryableError: the storage or the warehouse does not answer right now.
        """
        if (self.stream is None) != (self.warehouse_conn_id is None):
            msg = (
                f"files of the stream {self.stream!r} are awaited with the warehouse"
                f" {self.warehouse_conn_id!r}; give both, or neither"
            )
            raise ConfigurationError(msg)
        listed = Folder(SourceHook(self.source_conn_id, root=self.root).folder).find(self.path)
        if self.stream is None or self.warehouse_conn_id is None:
            return listed
        hook = WarehouseHook(self.warehouse_conn_id, schema=self.schema, lock_timeout=LOCK_TIMEOUT)
        with hook.warehouse.session() as session:
            return waiting(listed, taken_files(session, self.stream))


def payload_of(files: Sequence[Entry]) -> dict[str, Any]:
    """``count``, ``bytes`` and the first ``files``, each with ``name`` and ``size``."""
    return {
        "count": len(files),
        "bytes": sum(file.size for file in files),
        "files": [{"name": file.name, "size": file.size} for file in files[:NAMED]],
    }


class FilesTrigger(BaseEventTrigger):
    """Fires when files have arrived: once for a task that waits, and for each arrival as an asset's watcher.

    It holds ids of connections, never their secrets, and only reads. As a watcher it notes in the asset's
    state store what it has fired for. So a restart of the triggerer loses no arrival, and repeats one only
    where the triggerer ended within seconds of firing. A file fires again when its size or time changes.

    :param at_least: so many files must be there that were not fired for.
    :param settle: a file counts once two looks in a row found it the same, for storages where half a file can
        be seen.
    :param poll_interval: seconds between two looks.
    """

    def __init__(
        self,
        path: str,
        *,
        source_conn_id: str | None = None,
        root: str | None = None,
        stream: str | None = None,
        warehouse_conn_id: str | None = None,
        schema: str = "cdp",
        at_least: int = 1,
        settle: bool = False,
        poll_interval: float = 60.0,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.awaited = Awaited(path, source_conn_id, root, stream, warehouse_conn_id, schema)
        self.at_least = at_least
        self.settle = settle
        self.poll_interval = poll_interval

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                **asdict(self.awaited),
                "at_least": self.at_least,
                "settle": self.settle,
                "poll_interval": self.poll_interval,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        fired, before = await self._fired(), frozenset[str]()
        while True:
            files = await self._look()
            if files is not None:
                now = frozenset(map(_mark, files))
                new = [file for file in files if _mark(file) not in fired]
                steady = [file for file in new if _mark(file) in before] if self.settle else new
                before = now
                if len(steady) >= max(self.at_least, 1):
                    yield TriggerEvent(payload_of(steady))  # type: ignore[no-untyped-call]
                    if self.asset_state_store is None:
                        return
                    fired = (fired & now) | frozenset(map(_mark, steady))
                    await asyncio.sleep(max(self.poll_interval, _HANDED_OVER))
                    await self._note(fired)
                    continue
            await asyncio.sleep(self.poll_interval)

    async def _look(self) -> list[Entry] | None:
        """The waiting files; None where nobody can tell right now."""
        try:
            # File systems and drivers block, and so would every other trigger of this triggerer.
            return await asyncio.to_thread(self.awaited.look)
        except RetryableError as error:
            self.log.info("%s; looking again in %s s", error, self.poll_interval)
        except CdpError as error:
            # Nobody would start a watcher again once the folder is back.
            if self.asset_state_store is None:
                raise
            self.log.warning("%s; looking again in %s s", error, self.poll_interval)
        return None

    @property
    def _key(self) -> str:
        """Of the note: an asset may have several watchers, and each has its own."""
        return "files_" + hashlib.sha256(json.dumps(asdict(self.awaited)).encode()).hexdigest()[:16]

    async def _fired(self) -> frozenset[str]:
        if self.asset_state_store is None:
            return frozenset()
        try:
            noted: Any = await self.asset_state_store.aget(self._key, [])
        except ValueError as error:
            msg = (
                f"several assets watch {self.awaited.path!r} in the same way, and Airflow gives them one"
                " trigger; let their DAGs share one asset"
            )
            raise ConfigurationError(msg) from error
        return frozenset(noted)

    async def _note(self, fired: frozenset[str]) -> None:
        if self.asset_state_store is not None:
            marks: list[Any] = sorted(fired)
            await self.asset_state_store.aset(self._key, marks)


def _mark(file: Entry) -> str:
    """Short enough that thousands of them fit into the state store."""
    return hashlib.sha256(json.dumps(file.state).encode()).hexdigest()[:12]
