# SPDX-License-Identifier: Apache-2.0
"""The gate between ingestion and everything that looks at all streams together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdp_provider.core import tables
from cdp_provider.core.exceptions import DataError
from cdp_provider.core.runs import Report, reported

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cdp_provider.core.project.streams import Stream
    from cdp_provider.core.run import Run
    from cdp_provider.core.warehouse import Session, Warehouse


def gate(warehouse: Warehouse, streams: Sequence[Stream], run: Run) -> Report:
    """Let the run go on if every stream that is not optional has a batch of this window that passed.

    :returns: ``detail``: ``passed`` and ``left_out`` (optional streams without such a batch), by name.
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
        # A mapped stream has several batches in a window; all of them must have passed.
        passed = [stream.ref for stream in streams if states.get(stream.ref) == {"passed"}]
        missing = [stream for stream in streams if stream.ref not in passed]
        required = [stream for stream in missing if not stream.optional]
        report.rows_out = report.rows_in
        report.detail = {"passed": passed, "left_out": [s.ref for s in missing if s.optional]}
        if required:
            lines = (f"\n- {s.ref}: {_why(session, s, run, states.get(s.ref))}" for s in required)
            msg = (
                f"{len(required)} of {len(streams)} streams have no batch that passed in window"
                f" {run.window.key}; mend and clear their tasks, or mark them `optional`:{''.join(lines)}"
            )
            raise DataError(msg)
        with session.transaction():
            report.write(session)
    return report


def _why(session: Session, stream: Stream, run: Run, states: set[str] | None) -> str:
    """What the run ledger says of the stream, in one line."""
    row = session.one(
        f"select stage, error from {session.warehouse.table('runs')}"
        " where pipeline = :pipeline and run_id = :run_id and node = :node and state = 'failed'"
        " and stage in ('land', 'check') order by stage limit 1",
        {"pipeline": run.pipeline, "run_id": run.run_id, "node": stream.ref},
    )
    if row:
        return f"{row[0]} failed: {' '.join((row[1] or 'no reason recorded').split())}"
    if states is None:
        return "nothing was landed"
    return "its check failed" if "failed" in states else "landed, but not checked"
