# SPDX-License-Identifier: Apache-2.0
"""Whether a batch is as large, and as new, as its contract wants."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdp_provider.core.ingest.results import Result, of_batch
from cdp_provider.core.project.contract import RowsRule

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from cdp_provider.core.ingest.results import Load
    from cdp_provider.core.project.contract import Change
    from cdp_provider.core.project.streams import Stream
    from cdp_provider.core.run import Run
    from cdp_provider.core.warehouse import Session


def volume_results(session: Session, stream: Stream, run: Run, load: Load, rows: int) -> Iterator[Result]:
    """The results of the contract's bounds of rows and of its freshness.

    :param rows: that the batch brought, without deletions.
    """
    contract = stream.contract
    if contract.min_rows:
        yield of_batch("min_rows", "min_rows", "fail", rows, _too_few(rows, contract.min_rows, "min_rows"))
    if contract.max_rows is not None:
        yield of_batch("max_rows", "max_rows", "fail", rows, _too_many(rows, contract.max_rows, "max_rows"))
    for rule in contract.rules:
        if isinstance(rule, RowsRule):
            few, many = rule.rows.min, rule.rows.max
            fault = _too_few(rows, few, "the rule's min") if few is not None else None
            if fault is None and many is not None:
                fault = _too_many(rows, many, "the rule's max")
            yield of_batch(rule.name, "rows", rule.severity, rows, fault)
    if contract.max_change is not None:
        yield _change_result(session, stream, run, load, contract.max_change)
    if contract.freshness is not None:
        fault = _stale(session, stream, run, load)
        columns = (stream.time,) if stream.time else ()
        yield of_batch("freshness", "freshness", contract.freshness_severity, rows, fault, columns)


def _too_few(rows: int, least: int, what: str) -> str | None:
    if rows >= least:
        return None
    return f"{rows} rows landed, fewer than {what} {least}; look for missing input at the source, or lower it"


def _too_many(rows: int, most: int, what: str) -> str | None:
    if rows <= most:
        return None
    return f"{rows} rows landed, more than {what} {most}; see whether the source repeats itself, or raise it"


def _change_result(session: Session, stream: Stream, run: Run, load: Load, change: Change) -> Result:
    """Compares all landed rows, deletions too: of earlier batches nothing else is kept."""
    rows, fault = load.rows_landed, None
    mean, batches = session.one(
        "select avg(rows_landed), count(*) from (select rows_landed"
        f" from {session.warehouse.table('loads')} where stream = :stream and pipeline = :pipeline"
        " and state = 'passed' and window_end < :end order by window_end desc, load_id desc limit :windows)"
        " earlier",
        {
            "stream": stream.ref,
            "pipeline": run.pipeline,
            "end": run.window.end,
            "windows": change.windows,
        },
    ) or (None, 0)
    if batches == change.windows and abs(rows - float(mean)) > change.share * float(mean):
        fault = (
            f"{rows} rows landed, more than {change.share:.0%} away from {float(mean):.0f}, the mean of the"
            f" last {change.windows} batches; look at the source, or widen max_change"
        )
    return of_batch("max_change", "max_change", change.severity, rows, fault)


def _stale(session: Session, stream: Stream, run: Run, load: Load) -> str | None:
    within = stream.contract.freshness
    newest = load.watermark or newest_passed(session, stream)
    if within is None or (newest is not None and newest >= run.window.end - within):
        return None
    time = newest.isoformat() if newest else "no time at all"
    return (
        f"the newest row is of {time}, more than {within} before"
        f" {run.window.end.isoformat()}; see why the source stands still, or widen contract.freshness"
    )


def newest_passed(session: Session, stream: Stream) -> datetime | None:
    """Time of the newest row of any batch that passed."""
    newest: datetime | None = session.scalar(
        f"select max(watermark) from {session.warehouse.table('loads')}"
        " where stream = :stream and state = 'passed'",
        {"stream": stream.ref},
    )
    return newest
