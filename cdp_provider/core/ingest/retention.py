# SPDX-License-Identifier: Apache-2.0
"""How long raw rows are kept that nothing shows any more.

Beyond a stream's ``retention`` go: rows that a newer one of the same key has replaced, deletions, and rows in
quarantine. The newest row of each key stays, however old it is. What is gone from the raw table can't be
replayed: identity then starts from what is left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from cdp_provider.core.project.streams import Stream
    from cdp_provider.core.warehouse import Session


def expire(session: Session, stream: Stream, now: datetime) -> int:
    """Delete what is older than the stream's retention. Call it inside a transaction.

    :param now: the end of the run's window.
    :returns: how many raw rows went.
    """
    if stream.retention is None:
        return 0
    warehouse, quote = session.warehouse, session.warehouse.quote
    values = {"stream": stream.ref, "before": now - stream.retention}
    loads, table = warehouse.table("loads"), warehouse.table(stream.raw_table)
    old = f"select load_id from {loads} where stream = :stream and window_end <= :before"
    session.execute(
        f"delete from {warehouse.table('quarantine')} where stream = :stream and load_id in ({old})", values
    )
    passed = f"{old} and state = 'passed'"
    same = " and ".join(f"v.{quote(key)} = r.{quote(key)}" for key in stream.primary_key)
    shown = f"v._load_id = r._load_id and v._position = r._position and {same}"
    before = int(session.scalar(f"select count(*) from {table} where _load_id in ({passed})", values))
    if not before:
        return 0
    session.execute(
        f"delete from {table} as r where r._load_id in ({passed})"
        f" and not exists (select 1 from {warehouse.table(stream.view)} v where {shown})",
        values,
    )
    after = int(session.scalar(f"select count(*) from {table} where _load_id in ({passed})", values))
    return before - after
