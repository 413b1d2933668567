# SPDX-License-Identifier: Apache-2.0
"""The replication slot for which a PostgreSQL keeps its log."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import psycopg

from cdp_provider.core.exceptions import AccessError, ConfigurationError, RetryableError
from cdp_provider.core.ingest.postgres_table import row_of

#: Seconds to wait for a slot that a killed task's session still holds, or for transactions to end.
PATIENCE = 20.0
_PAUSE = 0.1


@dataclass(frozen=True)
class Slot:
    """A replication slot, as it is now.

    :param lost: the server has thrown away the log that the slot needs.
    :param confirmed: place in the log from which on it tells transactions.
    :param retained: bytes of the log that the server keeps for it.
    """

    name: str
    lost: bool
    confirmed: int
    retained: int


def lsn(text: str) -> int:
    """A place in the log, as a number."""
    high, _, low = text.partition("/")
    return (int(high, 16) << 32) | int(low, 16)


def lsn_text(place: int) -> str:
    """A place in the log, as PostgreSQL writes it."""
    return f"{place >> 32:X}/{place & 0xFFFFFFFF:X}"


def find_slot(connection: psycopg.Connection[Any], name: str) -> Slot | None:
    """The slot, once no other session uses it.

    :raises ConfigurationError: it is somebody else's.
    :raises RetryableError: another session uses it, and did not end.
    """
    tries = int(PATIENCE / _PAUSE)
    for _ in range(tries):
        found = connection.execute(
            "select plugin = 'pgoutput' and database = current_database(), active, coalesce(wal_status ="
            " 'lost', false),"
            " confirmed_flush_lsn, pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)"
            " from pg_replication_slots where slot_name = %s",
            (name,),
        ).fetchone()
        if found is None:
            return None
        ours, active, lost, confirmed, retained = found
        if not ours:
            msg = f"the replication slot {name!r} is of another database or plugin; name another slot"
            raise ConfigurationError(msg)
        if not active:
            return Slot(name, lost, lsn(confirmed or "0/0"), int(retained or 0))
        time.sleep(_PAUSE)
    raise in_use(name)


def in_use(name: str) -> RetryableError:
    """Another session reads the slot."""
    msg = (
        f"the replication slot {name!r} is in use; it is tried again later. A slot has one reader: give every"
        " stream and every deployment a slot of its own"
    )
    return RetryableError(msg, retry_after=60)


def make_slot(connection: psycopg.Connection[Any], name: str, *, instead: bool) -> Slot:
    """A new slot, once the transactions that are under way have ended.

    :param instead: of the one of that name.
    :raises AccessError: the user may not.
    :raises ConfigurationError: the server has no room for it.
    """
    try:
        if instead:
            connection.execute("select pg_drop_replication_slot(%s)", (name,))
        _, confirmed = row_of(
            connection, "select * from pg_create_logical_replication_slot(%s, 'pgoutput')", name
        )
    except psycopg.errors.InsufficientPrivilege:
        msg = (
            "the connection's user may not make replication slots; have the administrator run: alter role"
            " ... replication"
        )
        raise AccessError(msg) from None
    except psycopg.errors.ConfigurationLimitExceeded:
        msg = (
            "the server's replication slots are all in use; raise max_replication_slots, or drop what"
            " nobody reads"
        )
        raise ConfigurationError(msg) from None
    return Slot(name, False, lsn(confirmed), 0)


def settle(connection: psycopg.Connection[Any]) -> None:
    """Wait for transactions under way: one whose commit is in the log already may not be visible yet, and
    would be missing in a snapshot as well as among the changes that follow the slot's beginning. One that
    takes longer has not come to its commit."""
    (begun,) = row_of(connection, "select pg_snapshot_xmax(pg_current_snapshot())::text")
    for _ in range(int(PATIENCE / _PAUSE)):
        over = "select pg_snapshot_xmin(pg_current_snapshot())::text::numeric >= %s"
        if row_of(connection, over, int(begun))[0]:
            return
        time.sleep(_PAUSE)


def advance(connection: psycopg.Connection[Any], name: str, place: int) -> None:
    """Let the server forget what lies before that place; a slot that is gone or further on stays as it is.

    :raises RetryableError: another session reads it.
    """
    slot = find_slot(connection, name)
    if slot is None or slot.lost or slot.confirmed >= place:
        return
    try:
        connection.execute("select pg_replication_slot_advance(%s, %s::pg_lsn)", (name, lsn_text(place)))
    except psycopg.errors.ObjectInUse:
        raise in_use(name) from None
