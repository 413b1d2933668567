# SPDX-License-Identifier: Apache-2.0
"""The gate between ingestion and everything that looks at all streams together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdp_provider.core import tables
from cdp_provider.core.exceptions import DataError
from cdp_provider.core.runs import Report, reported

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from cdp_provider.core.project.streams import Stream
    from cdp_provider.core.run import Run
    from cdp_provider.core.warehouse import Session, Warehouse


def gate(warehouse: Warehouse, streams: Sequence[Stream], run: Run) -> Report:
    """Let the run go on if every stream that is not optional has a batch of this window that passed, and no
    earlier window of the pipeline has one whose rows are still missing.

    :returns: ``detail``: ``passed``, the names of streams; ``left_out``, optional streams and why.
    :raises DataError: one line for each stream that is missing.
    """
    with reported(warehouse, run, "gate") as report, warehouse.session() as session:
        tables.ensure(session)
        rows = session.fetch(
            "select stream, state, rows_landed, watermark"
            f" from {warehouse.table('loads')} where pipeline = :pipeline and window_end = :end"
            " and window_start is not distinct from cast(:start as timestamp with time zone)",
            {"pipeline": run.pipeline, "start": run.window.start, "end": run.window.end},
        )
        states: dict[str, set[str]] = {}
        for stream, state, landed, watermark in rows:
            states.setdefault(stream, set()).add(state)
            if state == "passed":
                report.rows_in += landed
                report.watermark = max(filter(None, (report.watermark, watermark)), default=None)
        report.rows_out = report.rows_in
        faults = _faults(session, streams, run, states)
        optional = {stream.ref for stream in streams if stream.optional}
        report.detail = {
            "passed": [stream.ref for stream in streams if stream.ref not in faults],
            "left_out": {ref: fault for ref, fault in faults.items() if ref in optional},
        }
        if required := {ref: fault for ref, fault in faults.items() if ref not in optional}:
            lines = (f"\n- {ref}: {fault}" for ref, fault in required.items())
            msg = (
                f"{len(required)} of {len(streams)} streams have no batch that passed in window"
                f" {run.window.key}, or miss rows of an earlier one; mend and clear their tasks, or mark them"
                f" `optional`:{''.join(lines)}"
            )
            raise DataError(msg)
        with session.transaction():
            report.write(session)
    return report


def _faults(
    session: Session, streams: Sequence[Stream], run: Run, states: dict[str, set[str]]
) -> dict[str, str]:
    """Streams that nothing downstream may read, and why, in one line each.

    :param states: stream -> states of its batches of this window; a mapped one has several.
    """
    missing, faults = _missing(session, run), {}
    for stream in streams:
        if states.get(stream.ref) != {"passed"}:
            faults[stream.ref] = _why(session, stream, run, states.get(stream.ref))
        elif stream.ref in missing:
            faults[stream.ref] = (
                f"its batch of the window that ended {missing[stream.ref].isoformat()} failed its check, and"
                " no later batch has brought these rows; clear land and check of that window"
            )
    return faults


def _missing(session: Session, run: Run) -> dict[str, datetime]:
    """Streams with a failed batch in an earlier window, of which nothing passed since: the window's end.

    A later batch that began where the failed one did has read the same stretch of the source anew. One
    without rows has not brought it back, unless there was nothing to bring.
    """
    loads = session.warehouse.table("loads")
    rows = session.fetch(
        f"select f.stream, min(f.window_end) from {loads} f where f.pipeline = :pipeline"
        " and f.state = 'failed' and f.window_end < :end"
        f" and not exists (select 1 from {loads} l where l.pipeline = f.pipeline and l.stream = f.stream"
        " and l.state = 'passed' and l.load_id > f.load_id"
        " and l.cursor_before is not distinct from f.cursor_before"
        " and (l.rows_read > 0 or f.rows_read = 0)) group by f.stream",
        {"pipeline": run.pipeline, "end": run.window.end},
    )
    return dict(rows)


def _why(session: Session, stream: Stream, run: Run, states: set[str] | None) -> str:
    """What the run ledger says of the stream, in one line."""
    row = session.one(
        f"select stage, error from {session.warehouse.table('runs')}"
        " where pipeline = :pipeline and run_id = :run_id and node = :node and state = 'failed'"
        " and stage in ('land', 'check') order by stage desc limit 1",
        {"pipeline": run.pipeline, "run_id": run.run_id, "node": stream.ref},
    )
    if row:
        return f"{row[0]} failed: {' '.join((row[1] or 'no reason recorded').split())}"
    if states is None:
        return "nothing was landed"
    return "its check failed" if "failed" in states else "landed, but not checked"
