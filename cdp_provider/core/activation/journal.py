# SPDX-License-Identifier: Apache-2.0
"""Results on their way to the ledger."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cdp_provider.core.activation.destinations.base import Result


class Journal:
    """Whatever came up while one write was under way makes the next.

    So each answer is kept as soon as the warehouse is ready for it, and a slow one is not asked once per
    request.

    :param write: keeps results; called from another thread, one call at a time.
    """

    def __init__(self, write: Callable[[Sequence[Result]], None]) -> None:
        self._write = write
        self._waiting: list[tuple[Sequence[Result], asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None

    async def write(self, results: Sequence[Result]) -> None:
        """Return when `results` are kept."""
        if not results:
            return
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((results, done))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._run())
        await done

    async def close(self) -> None:
        """Wait for the last write."""
        if self._writer is not None:
            await self._writer

    async def _run(self) -> None:
        while self._waiting:
            waiting, self._waiting = self._waiting, []
            everything = [result for results, _ in waiting for result in results]
            try:
                await asyncio.to_thread(self._write, everything)
            except BaseException as error:  # noqa: BLE001 - raised in each task that waits
                for _, done in waiting:
                    done.set_exception(error)
            else:
                for _, done in waiting:
                    done.set_result(None)
