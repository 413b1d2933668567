# SPDX-License-Identifier: Apache-2.0
"""Profiles that have no record at the destination: invalid and withheld ones, told once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cdp_provider.core.activation.shape import NOTE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cdp_provider.core.activation.shape import Shape
    from cdp_provider.core.warehouse import Session

#: Rows of the ledger that ``sync_diff`` met.
_MET = f"record_key in (select l_record_key from sync_diff where starts_with(l_record_key, '{NOTE}'))"
_OWN = f"sync = :sync and starts_with(record_key, '{NOTE}')"


def _find(session: Session) -> int:
    """Fill ``sync_notes`` from the difference; returns how many."""
    session.execute("drop table if exists sync_notes")
    session.execute(
        f"create temporary table sync_notes as select '{NOTE}' || cast(profile_id as varchar) as record_key,"
        " profile_id, max(case when withheld then 'withheld' else 'invalid' end) as state,"
        " min(reason) as reason from sync_diff where profile_id is not null and reason is not null"
        " group by profile_id"
    )
    return int(session.scalar("select count(*) from sync_notes"))


def keep(session: Session, shape: Shape, values: Mapping[str, Any]) -> None:
    """Bring the ledger's notes in line with the difference; only news is logged."""
    ledger, log = session.warehouse.table("sync_ledger"), session.warehouse.table("delivery_log")
    found = _find(session)
    if session.scalar(f"select count(*) from sync_diff where starts_with(l_record_key, '{NOTE}')"):
        session.execute(
            f"delete from {ledger} where {_OWN} and {_MET}"
            " and record_key not in (select record_key from sync_notes)",
            values,
        )
    if not found:
        return
    told = f"sync_notes n left join (select * from {ledger} where {_OWN}) l on l.record_key = n.record_key"
    session.execute(
        f"insert into {log} (sync, run_id, window_end, record_key, profile_id, operation, outcome, reason,"
        " attempt, idempotency_key) select :sync, :run_id, :window_end, n.record_key, n.profile_id,"
        f" '{shape.sends}', n.state, n.reason, 0, '' from {told}"
        " where l.record_key is null or l.state <> n.state or l.reason is distinct from n.reason",
        values,
    )
    session.execute(
        f"update {ledger} l set state = n.state, reason = n.reason, run_id = :run_id,"
        " window_end = :window_end from sync_notes n where l.sync = :sync and l.record_key = n.record_key"
        " and (l.state <> n.state or l.reason is distinct from n.reason)",
        values,
    )
    session.execute(
        f"insert into {ledger} (sync, record_key, profile_id, state, reason, attempts, window_end, run_id)"
        f" select :sync, n.record_key, n.profile_id, n.state, n.reason, 0, :window_end, :run_id from {told}"
        " where l.record_key is null",
        values,
    )


def reasons(session: Session, values: Mapping[str, Any]) -> list[tuple[str, str, int]]:
    """State, reason and number of profiles, as :func:`keep` would leave them. Changes nothing."""
    _find(session)
    return session.fetch(
        "select state, reason, count(*) from (select state, reason from sync_notes union all"
        f" select state, reason from {session.warehouse.table('sync_ledger')}"
        f" where {_OWN} and not ({_MET}) and record_key not in (select record_key from sync_notes)) told"
        " group by state, reason order by state, reason",
        values,
    )
