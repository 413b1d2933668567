# SPDX-License-Identifier: Apache-2.0
"""Make the next item while the one before it is being used."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Generator

T = TypeVar("T")

_END = object()


class Ahead(Generic[T]):
    """The items of a generator, made by a thread that is one ahead of whoever iterates.

    What the generator raises is raised here. :meth:`close` ends both.
    """

    def __init__(self, items: Generator[T, None, None]) -> None:
        self._items = items
        self._made: queue.Queue[object] = queue.Queue(maxsize=1)
        self._stopped = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="cdp-ahead", daemon=True)
        self._thread.start()

    def __iter__(self) -> Ahead[T]:
        return self

    def __next__(self) -> T:
        item = self._made.get()
        if item is not _END:
            return item  # type: ignore[return-value]
        self._made.put(_END)
        if self._error:
            raise self._error
        raise StopIteration

    def close(self) -> None:
        """Stop making items, and wait until that is so."""
        self._stopped.set()
        self._thread.join()

    def _work(self) -> None:
        try:
            for item in self._items:
                if not self._offer(item):
                    return
        except BaseException as error:  # noqa: BLE001 - it is raised where the items are used
            self._error = error
        finally:
            self._items.close()
            self._offer(_END)

    def _offer(self, item: object) -> bool:
        while not self._stopped.is_set():
            try:
                self._made.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False
