# SPDX-License-Identifier: Apache-2.0
"""Limits in a local file: for workers on one host."""

from __future__ import annotations

import sqlite3
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cdp_provider.core.exceptions import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cdp_provider.core.activation.limits.base import Change, T

#: Others hold the file for less than a millisecond at a time.
_PATIENCE = 30.0


class SqliteLimits:
    """A file that all workers of one host open. Its clock is the host's.

    :param path: made when it does not exist; its folder must.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._connection: sqlite3.Connection | None = None

    def transact(self, account: str, change: Change[T]) -> T:
        with self._open() as connection:
            connection.execute("begin immediate")
            try:
                old = self._state(connection, account)
                new, answer = change(old, time.time())
                if new is not None and new != old:
                    connection.execute("replace into limits (account, state) values (?, ?)", (account, new))
            finally:
                connection.execute("commit")
        return answer

    def read(self, account: str) -> tuple[str | None, float]:
        with self._open() as connection:
            return self._state(connection, account), time.time()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @staticmethod
    def _state(connection: sqlite3.Connection, account: str) -> str | None:
        row = connection.execute("select state from limits where account = ?", (account,)).fetchone()
        return str(row[0]) if row else None

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            if self._connection is None:
                # A limiter works in a thread of its own, and is closed from another.
                self._connection = sqlite3.connect(
                    self._path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False
                )
                # A lost tail after a power cut only forgets reservations that are over by then.
                self._connection.execute("pragma journal_mode = wal")
                self._connection.execute("pragma synchronous = normal")
                self._connection.execute(
                    "create table if not exists limits (account text primary key, state text not null)"
                    " without rowid"
                )
            yield self._connection
        except sqlite3.OperationalError as error:
            self.close()
            msg = (
                f"the file of the accounts' limits, {self._path}, cannot be used ({error}); see that its"
                " folder exists and that workers may write there"
            )
            raise UnavailableError(msg) from error
