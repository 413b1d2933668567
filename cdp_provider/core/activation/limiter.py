# SPDX-License-Identifier: Apache-2.0
"""An account's rate limit, shared by every worker that uses the account.

A reservation instead of a bucket: each request takes the next free moment, atomically, and is told how long
to wait for it. Moments lie one interval apart and none is saved up for later, so no window of time, fixed or
sliding, ever sees more than the limit. Workers that merely asked whether there is room would starve each
other or lose moments.

This is the one room of core that reads a clock, and it is the store's own: workers on several hosts share it.
"""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from cdp_provider.core.exceptions import RateLimitedError
from cdp_provider.core.warehouse import DuckDBWarehouse

if TYPE_CHECKING:
    from collections.abc import Callable

    from cdp_provider.core.project.activation import Destination
    from cdp_provider.core.warehouse import Warehouse

_NOW = "cast(extract(epoch from clock_timestamp()) as double precision)"


class LimitStore(Protocol):
    """Keeps, per account, when the next request is free and until when the other side has blocked us."""

    def reserve(self, account: str, interval: float, max_wait: float) -> float:
        """Take the account's next free moment, and `interval` seconds from then on for this request.

        :returns: seconds until that moment. When they are more than `max_wait`, nothing was taken.
        """

    def block(self, account: str, seconds: float) -> None:
        """Give out no moment of the account within `seconds` from now."""

    def close(self) -> None:
        """Give back what is open; the store can be used again."""


class SqliteLimits:
    """A local file: for workers on one host.

    :param path: made when it does not exist; its folder must.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._connection: sqlite3.Connection | None = None

    def reserve(self, account: str, interval: float, max_wait: float) -> float:
        with self._transaction() as connection:
            now = time.time()
            moment = max(*self._read(connection, account), now)
            if moment - now <= max_wait:
                connection.execute(
                    "insert into account_limits values (:account, :next, 0) on conflict (account)"
                    " do update set next_free = :next",
                    {"account": account, "next": moment + interval},
                )
        return moment - now

    def block(self, account: str, seconds: float) -> None:
        with self._transaction() as connection:
            connection.execute(
                "insert into account_limits values (:account, 0, :until) on conflict (account)"
                " do update set blocked_until = max(blocked_until, :until)",
                {"account": account, "until": time.time() + seconds},
            )

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @staticmethod
    def _read(connection: sqlite3.Connection, account: str) -> tuple[float, float]:
        row = connection.execute(
            "select next_free, blocked_until from account_limits where account = ?", (account,)
        ).fetchone()
        return row or (0.0, 0.0)

    def _transaction(self) -> _Immediate:
        if self._connection is None:
            self._connection = sqlite3.connect(self._path, timeout=30, isolation_level=None)
            # A lost tail after a power cut only forgets reservations that are over by then.
            self._connection.execute("pragma journal_mode = wal")
            self._connection.execute("pragma synchronous = normal")
            self._connection.execute(
                "create table if not exists account_limits"
                " (account text primary key, next_free real not null, blocked_until real not null)"
            )
        return _Immediate(self._connection)


class _Immediate:
    """A transaction that holds SQLite's write lock from its first statement on."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> sqlite3.Connection:
        self._connection.execute("begin immediate")
        return self._connection

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._connection.execute("commit" if kind is None else "rollback")


class PostgresLimits:
    """One row of the warehouse's table ``account_limits``: for workers anywhere.

    It has a connection of its own, so that a reservation never waits for a transaction of the warehouse's,
    and does not wait for the disk: after a crash of the server, reservations are over anyway.

    :param connect: opens a psycopg connection.
    :param table: quoted name of the table.
    """

    def __init__(self, connect: Callable[[], Any], table: str) -> None:
        self._connect = connect
        self._table = table
        self._connection: Any = None

    def reserve(self, account: str, interval: float, max_wait: float) -> float:
        values = {"account": account, "interval": interval, "max_wait": max_wait}
        while True:
            taken = self._one(
                f"update {self._table}"  # noqa: S608 - quoted by the dialect
                f" set next_free = greatest(next_free, blocked_until, {_NOW}) + %(interval)s"
                " where account = %(account)s"
                f" and greatest(next_free, blocked_until) - {_NOW} <= %(max_wait)s"
                f" returning next_free - %(interval)s - {_NOW}",
                values,
            )
            if taken is not None:
                return max(0.0, taken)
            wait = self._one(
                f"select greatest(next_free, blocked_until) - {_NOW} from {self._table}"  # noqa: S608
                " where account = %(account)s",
                values,
            )
            if wait is None:
                self._add(account)
            elif wait > max_wait:
                return wait

    def block(self, account: str, seconds: float) -> None:
        self._add(account)
        self._one(
            f"update {self._table} set blocked_until = greatest(blocked_until, {_NOW} + %(seconds)s)"
            " where account = %(account)s returning blocked_until",
            {"account": account, "seconds": seconds},
        )

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _add(self, account: str) -> None:
        self._one(
            f"insert into {self._table} (account, next_free, blocked_until)"  # noqa: S608 - quoted
            " values (%(account)s, 0, 0) on conflict (account) do nothing returning next_free",
            {"account": account},
        )

    def _one(self, sql: str, values: dict[str, Any]) -> float | None:
        if self._connection is None:
            self._connection = self._connect()
            self._connection.autocommit = True
            self._connection.execute("set synchronous_commit = off")
        row = self._connection.execute(sql, values).fetchone()
        return None if row is None else float(row[0])


def limits_of(warehouse: Warehouse) -> LimitStore:
    """Where the workers of this warehouse meet: PostgreSQL's own table, or a file beside a DuckDB file."""
    if not isinstance(warehouse, DuckDBWarehouse):
        return PostgresLimits(warehouse.connect, warehouse.table("account_limits"))
    with warehouse.session() as session:
        path = session.scalar("select path from duckdb_databases() where database_name = current_database()")
    return SqliteLimits(f"{path}.limits" if path else ":memory:")


class Throttle:
    """What one delivery sees of its account's limit.

    :param account: requests with the same text share the limit.
    :param interval: seconds between two requests.
    :param max_wait: a longer wait is not slept through but raised, so that a worker's slot becomes free.
    """

    def __init__(self, store: LimitStore, account: str, interval: float, max_wait: float) -> None:
        self._store = store
        self._account = account
        self._interval = interval
        self._max_wait = max_wait

    @classmethod
    def of(cls, destination: Destination, store: LimitStore, max_wait: float) -> Throttle:
        """The limit that a destination's ``rate`` declares."""
        interval = destination.rate.per.total_seconds() / destination.rate.requests
        return cls(store, f"{destination.connection}/{destination.name}", interval, max_wait)

    def wait(self) -> None:
        """Sleep until this worker may send its next request.

        :raises RateLimitedError: that is more than `max_wait` seconds away; carries the seconds.
        """
        seconds = self._store.reserve(self._account, self._interval, self._max_wait)
        if seconds > self._max_wait:
            msg = (
                f"the account {self._account} is free again in {seconds:.0f} s, more than the"
                f" {self._max_wait:.0f} s that a worker waits; try again then"
            )
            raise RateLimitedError(msg, retry_after=seconds)
        if seconds > 0:
            time.sleep(seconds)

    def block(self, seconds: float) -> None:
        """No worker of the account sends within `seconds` from now."""
        self._store.block(self._account, seconds)
