# SPDX-License-Identifier: Apache-2.0
"""The batch ledger: where a batch starts to read, and its place in the order of arrival.

A batch starts where it started before, if it was landed before. Else where the newest batch that did not fail
ended, unless an earlier one failed its check and no later one has read its stretch again: then where that one
started. So the rows of a failed batch come back with the next window; so do its files. A source that can't be
read again always goes on where the newest batch ended: the rows of a failed one wait in the raw table until
its check passes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from cdp_provider.core.ingest.base import FileKey

if TYPE_CHECKING:
    from cdp_provider.core.ingest.base import Cursor
    from cdp_provider.core.project.streams import Stream
    from cdp_provider.core.run import Run
    from cdp_provider.core.runs import Report
    from cdp_provider.core.warehouse import Session


@dataclass(frozen=True)
class Start:
    """What a batch begins with, as the ledgers tell.

    :param taken: files that other batches have landed.
    :param landed: it was landed before.
    :param until: where it ended then.
    """

    cursor: Cursor | None = None
    taken: frozenset[FileKey] = frozenset()
    landed: bool = False
    until: Cursor | None = None


class Place(NamedTuple):
    """A batch's id, its window's place in the order of arrival, and what identity knows of it."""

    load_id: int
    load_seq: int
    resolved_seq: int | None = None
    resolved_hash: str | None = None


def begin(session: Session, stream: Stream, run: Run, *, rereadable: bool) -> Start:
    """Where the stream's batch of this window begins."""
    loads = session.warehouse.table("loads")
    names = {"stream": stream.ref, "batch_id": run.batch_id(stream.ref)}
    own = session.one(f"select cursor_before, cursor_after from {loads} where batch_id = :batch_id", names)
    if rereadable:
        first = own or _uncovered(session, names) or _newest(session, names, "state <> 'failed'")
    else:
        first = own or _newest(session, names, "true")
    return Start(
        _cursor(first[0]) if first else None,
        taken_files(session, stream.ref, but=names["batch_id"]),
        own is not None,
        _cursor(own[1]) if own else None,
    )


def taken_files(session: Session, stream: str, *, but: str = "") -> frozenset[FileKey]:
    """The files that batches of a stream have landed, failed ones aside. Empty before the first batch.

    :param stream: reference such as ``till.orders``.
    :param but: id of a batch that does not count.
    """
    loads, files = session.warehouse.table("loads"), session.warehouse.table("files")
    columns = session.columns("files")
    if not columns:
        return frozenset()
    # The product's tables are brought up to date by the next landing, not by those who only look.
    modified = "f.modified" if "modified" in columns else "null"
    rows = session.fetch(
        f"select f.path, f.size, f.checksum, {modified} from {files} f"
        f" join {loads} l on l.load_id = f.load_id"
        " where f.stream = :stream and l.batch_id <> :but and l.state <> 'failed'",
        {"stream": stream, "but": but},
    )
    return frozenset(FileKey(*row) for row in rows)


def place_of(session: Session, stream: Stream, run: Run, batch_id: str) -> Place:
    """The batch's place: the one that it has, or the next. The caller holds the lock "landing"."""
    loads = session.warehouse.table("loads")
    row = session.one(
        f"select load_id, load_seq, resolved_seq, resolved_hash from {loads} where batch_id = :batch_id",
        {"batch_id": batch_id},
    )
    if row:
        return Place(*row)
    load_seq = session.scalar(
        f"select load_seq from {loads} where pipeline = :pipeline and window_end = :end"
        " and window_start is not distinct from cast(:start as timestamp with time zone) limit 1",
        {"pipeline": run.pipeline, "start": run.window.start, "end": run.window.end},
    )
    newest = session.one(f"select coalesce(max(load_id), 0), coalesce(max(load_seq), 0) from {loads}")
    last_id, last_seq = newest or (0, 0)
    return Place(last_id + 1, load_seq or last_seq + 1)


def standing(session: Session, report: Report, batch_id: str) -> None:
    """Fill the report of a batch that stays as it was landed before."""
    row = session.one(
        "select rows_read, rows_landed, rows_quarantined, bytes, watermark"
        f" from {session.warehouse.table('loads')} where batch_id = :batch_id",
        {"batch_id": batch_id},
    )
    if row:
        report.rows_in, report.rows_out, report.rows_refused, report.bytes, report.watermark = row
    report.detail = {"batch": batch_id, "stands": True}


def cursor_text(cursor: Cursor | None) -> str | None:
    """A cursor as the ledger holds it."""
    return None if cursor is None else json.dumps(cursor, sort_keys=True)


def _cursor(text: str | None) -> Cursor | None:
    return json.loads(text) if text else None


def _uncovered(session: Session, names: dict[str, Any]) -> tuple[Any, ...] | None:
    """Where the oldest failed batch started whose stretch no later batch has read."""
    loads = session.warehouse.table("loads")
    return session.one(
        f"select f.cursor_before from {loads} f where f.stream = :stream and f.state = 'failed'"
        f" and not exists (select 1 from {loads} l where l.stream = f.stream and l.state <> 'failed'"
        " and l.load_id > f.load_id and l.cursor_before is not distinct from f.cursor_before)"
        " order by f.load_id limit 1",
        names,
    )


def _newest(session: Session, names: dict[str, Any], condition: str) -> tuple[Any, ...] | None:
    return session.one(
        f"select cursor_after from {session.warehouse.table('loads')}"
        f" where stream = :stream and {condition} order by load_id desc limit 1",
        names,
    )
