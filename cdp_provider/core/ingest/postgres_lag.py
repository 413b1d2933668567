# SPDX-License-Identifier: Apache-2.0
"""How much of its log a PostgreSQL keeps for slots whose reader lags behind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cdp_provider.core.exceptions import ConfigurationError, NotFoundError
from cdp_provider.core.ingest.postgres_table import session
from cdp_provider.core.ingest.sql_faults import told

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cdp_provider.core.ingest.sql import Database

#: Of slots that are about to lose their log too: what they need is still counted.
_SLOTS = (
    "select slot_name::text, coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::bigint,"
    " coalesce(wal_status = 'lost', false) from pg_replication_slots"
    " where slot_type = 'logical' and database = current_database() order by slot_name"
)


@dataclass(frozen=True)
class Lag:
    """A slot of the database.

    :param retained: bytes of the log that are kept for it.
    :param lost: what it needs is gone.
    """

    slot: str
    retained: int
    lost: bool


def lags(database: Database, slots: Sequence[str] = ()) -> list[Lag]:
    """The database's logical replication slots.

    :param slots: only these; all when empty.
    :raises ConfigurationError: it is no PostgreSQL.
    :raises NotFoundError: there is no slot of one of the names.
    """
    if database.dialect != "postgresql":
        msg = (
            f"replication slots are PostgreSQL's, and this connection leads to {database.dialect}; name"
            " another"
        )
        raise ConfigurationError(msg)
    found = {lag.slot: lag for lag in _all(database.connect)}
    missing = [name for name in slots if name not in found]
    if missing:
        msg = (
            f"the database has no logical replication slot {missing[0]!r}; it has"
            f" {', '.join(found) or 'none'}."
            " A stream of type postgres_cdc makes its slot with its first batch"
        )
        raise NotFoundError(msg)
    return [lag for lag in found.values() if not slots or lag.slot in slots]


def _all(connect: Callable[[], Any]) -> list[Lag]:
    with told("view pg_replication_slots"), session(connect) as connection:
        return [Lag(*row) for row in connection.execute(_SLOTS)]


def excess(found: Sequence[Lag], limit: int) -> str | None:
    """What is wrong with slots that are lost, or for which more than `limit` bytes are kept; None if nothing
    is."""
    faults = []
    for lag in found:
        if lag.lost:
            faults.append(
                f"the slot {lag.slot!r} has lost its log (max_slot_wal_keep_size was exceeded), so its"
                " stream's next"
                " batch will be a snapshot of the whole table"
            )
        elif lag.retained > limit:
            faults.append(
                f"the server keeps {lag.retained} bytes of its log for the slot {lag.slot!r}, more than"
                " the limit of"
                f" {limit}: see why the stream that reads it does not land, or, if nobody reads it any"
                " more, run"
                f" select pg_drop_replication_slot('{lag.slot}')"
            )
    return "; ".join(faults) or None
