# SPDX-License-Identifier: Apache-2.0
"""Limits in the warehouse's own table: for workers anywhere."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg

from cdp_provider.core.exceptions import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cdp_provider.core.activation.limits.base import Change, T

_NOW = "select cast(extract(epoch from clock_timestamp()) as double precision)"
#: A reservation never waits for the disk: after a crash of the server it is over anyway. And a worker that
#: stands still with a row locked does not stop the others for long.
_SETTINGS = (
    "set synchronous_commit = off",
    "set lock_timeout = '15s'",
    "set idle_in_transaction_session_timeout = '5s'",
)


class PostgresLimits:
    """One row per account, locked for two round trips. The clock is the server's.

    It has a connection of its own, so that a reservation never waits for a transaction of the warehouse's.

    :param connect: opens a psycopg connection.
    :param table: quoted name of the table, with the columns ``account`` and ``state``.
    """

    def __init__(self, connect: Callable[[], Any], table: str) -> None:
        self._connect = connect
        self._lock = f"select state from {table} where account = %s for update"
        self._look = f"select state from {table} where account = %s"
        self._add = f"insert into {table} (account, state) values (%s, '') on conflict do nothing"
        self._write = f"update {table} set state = %s where account = %s"
        self._connection: psycopg.Connection[Any] | None = None

    def transact(self, account: str, change: Change[T]) -> T:
        with self._open() as connection:
            found, now = self._fetch(connection, self._lock, account, begin=True)
            if found is None:
                connection.execute(self._add, (account,))
                found, now = self._fetch(connection, self._lock, account)
            old = found or None
            try:
                new, answer = change(old, now)
            except BaseException:
                connection.execute("rollback")
                raise
            with connection.pipeline():
                if new is not None and new != old:
                    connection.execute(self._write, (new, account))
                connection.execute("commit")
        return answer

    def read(self, account: str) -> tuple[str | None, float]:
        with self._open() as connection:
            state, now = self._fetch(connection, self._look, account)
        return state or None, now

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @staticmethod
    def _fetch(
        connection: psycopg.Connection[Any], select: str, account: str, *, begin: bool = False
    ) -> tuple[str | None, float]:
        """A row's state and the time, which is asked for once the row is locked; in one round trip."""
        with connection.pipeline():
            if begin:
                connection.execute("begin")
            row = connection.execute(select, (account,))
            clock = connection.execute(_NOW)
        found, time = row.fetchone(), clock.fetchone()
        assert time is not None  # noqa: S101 - a select of one expression has one row
        return found and found[0], time[0]

    @contextmanager
    def _open(self) -> Iterator[psycopg.Connection[Any]]:
        try:
            if self._connection is None:
                self._connection = self._connect()
                self._connection.autocommit = True
                for setting in _SETTINGS:
                    self._connection.execute(setting)
            yield self._connection
        except psycopg.OperationalError as error:
            self.close()
            msg = (
                "the table of the accounts' limits in the warehouse cannot be used"
                f" ({type(error).__name__}, {error.sqlstate or 'no connection'}); it is tried again with the"
                " task"
            )
            raise UnavailableError(msg) from error
