# SPDX-License-Identifier: Apache-2.0
"""The contract of limit stores: one text per account, and one clock for everybody who shares it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

T = TypeVar("T")

#: The account's state (None: there is none yet) and the store's time in seconds since the epoch -> the new
#: state (None: as it was) and an answer. May be called again when somebody else was faster.
Change = Callable[[str | None, float], tuple[str | None, T]]


class LimitStore(Protocol):
    """Keeps a short text per account. Connects when it is first used; one thread at a time may use it."""

    def transact(self, account: str, change: Change[T]) -> T:
        """Apply `change` to the account's state; nobody else changes it meanwhile.

        :raises UnavailableError: the store cannot be reached, or is held by others for too long.
        """

    def read(self, account: str) -> tuple[str | None, float]:
        """The account's state and the store's time, without waiting for anybody.

        :raises UnavailableError: the store cannot be reached.
        """

    def close(self) -> None:
        """Give back what is open; the store can be used again."""
