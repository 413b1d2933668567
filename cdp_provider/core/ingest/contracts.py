# SPDX-License-Identifier: Apache-2.0
"""The check: nothing downstream reads a batch before it has passed its contract."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cdp_provider.core import tables
from cdp_provider.core.exceptions import ConfigurationError, DataError
from cdp_provider.core.ingest.drift import frozen_results
from cdp_provider.core.ingest.quarantine import quarantine_results
from cdp_provider.core.ingest.results import Load, summary, write
from cdp_provider.core.ingest.scan import Scan
from cdp_provider.core.ingest.volume import volume_results
from cdp_provider.core.runs import Report, reported

if TYPE_CHECKING:
    from cdp_provider.core.ingest.results import Result
    from cdp_provider.core.project.streams import Stream
    from cdp_provider.core.run import Run
    from cdp_provider.core.warehouse import Session, Warehouse


@dataclass
class Judgement:
    """What came out of a check, also of one that failed; without any value of a row.

    :param rows: that the batch brought, without deletions.
    :param metrics: column -> ``nullCount`` and ``distinctCount``, where a rule had them counted.
    """

    rows: int = 0
    bytes: int = 0
    results: tuple[Result, ...] = ()
    metrics: dict[str, dict[str, int]] | None = None


def check(warehouse: Warehouse, stream: Stream, run: Run, judgement: Judgement | None = None) -> Report:
    """Pass or fail the batch that was landed in this window.

    :param judgement: filled in, also when the batch fails.
    :returns: ``detail``: the batch, how many ``rules`` passed, warned and failed, and the names of those that
        ``warned`` and are ``broken``.
    :raises DataError: it breaks the contract (its state is then ``failed``), or nothing was landed.
    :raises ConfigurationError: the contract asks for what the stream cannot tell, or brings SQL that cannot
        be computed; the state is then as it was.
    """
    if stream.contract.freshness is not None and stream.time is None:
        msg = f"{stream.ref} declares contract.freshness but no time column; name one, or drop the freshness"
        raise ConfigurationError(msg)
    judgement = judgement if judgement is not None else Judgement()
    with reported(warehouse, run, "check", stream.ref) as report, warehouse.session() as session:
        tables.ensure(session)
        load = _load(session, stream, run)
        report.rows_in, report.rows_out = load.rows_read, load.rows_landed
        report.rows_refused, report.bytes = load.rows_quarantined, load.bytes
        report.watermark = load.watermark
        report.detail = {"batch": run.batch_id(stream.ref), **_owner(stream)}
        with session.transaction():
            _settle(session, load, "passed")
            _judge(session, stream, run, load, judgement)
            write(session, stream, run, load.load_id, judgement.results)
            report.detail |= summary(judgement.results)
            broken = [result for result in judgement.results if result.outcome == "failed"]
            if broken:
                _settle(session, load, "failed")
            else:
                report.write(session)
        if broken:
            listed = "; ".join(f"{result.rule}: {result.detail}" for result in broken)
            msg = f"{stream.ref}, window {run.window.key}: {listed}"
            raise DataError(msg)
    return report


def _owner(stream: Stream) -> dict[str, Any]:
    return {"owner": stream.contract.owner} if stream.contract.owner else {}


def _load(session: Session, stream: Stream, run: Run) -> Load:
    row = session.one(
        "select load_id, rows_read, rows_landed, rows_quarantined, bytes, watermark"
        f" from {session.warehouse.table('loads')} where batch_id = :batch_id",
        {"batch_id": run.batch_id(stream.ref)},
    )
    if row is None:
        msg = (
            f"{stream.ref}, window {run.window.key}: no batch has been landed, so there is nothing to check;"
            " run the landing of this window first"
        )
        raise DataError(msg)
    return Load(*row)


def _settle(session: Session, load: Load, state: str) -> None:
    session.execute(
        f"update {session.warehouse.table('loads')} set state = :state where load_id = :load_id",
        {"state": state, "load_id": load.load_id},
    )


def _judge(session: Session, stream: Stream, run: Run, load: Load, judgement: Judgement) -> None:
    """Hold the batch against every rule. It stands as passed meanwhile, which nobody else can see."""
    scan = Scan(session, stream, run, load.load_id)
    of_rows = scan.results()
    judgement.rows, judgement.bytes, judgement.metrics = scan.rows, load.bytes, scan.metrics
    judgement.results = (
        *quarantine_results(session, stream, load),
        *frozen_results(session, stream, load),
        *volume_results(session, stream, run, load, scan.rows),
        *of_rows,
    )
