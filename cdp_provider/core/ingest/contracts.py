# SPDX-License-Identifier: Apache-2.0
"""The check: nothing downstream reads a batch before it has passed its contract."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cdp_provider.core import tables
from cdp_provider.core.exceptions import ConfigurationError, DataError
from cdp_provider.core.runs import Report, reported

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from cdp_provider.core.project.streams import Stream
    from cdp_provider.core.run import Run
    from cdp_provider.core.warehouse import Session, Warehouse

#: A quoted value inside a quarantine reason: a report says what is wrong, not whose value it was.
_VALUE = r': "([^"\\]|\\.)*" is'
_REASONS = 3


@dataclass(frozen=True)
class _Load:
    load_id: int
    rows_read: int
    rows_landed: int
    rows_quarantined: int
    bytes: int
    watermark: datetime | None


def check(warehouse: Warehouse, stream: Stream, run: Run) -> Report:
    """Pass or fail the batch that was landed in this window.

    :raises DataError: it breaks the contract (its state is then ``failed``), or nothing was landed.
    :raises ConfigurationError: the contract asks for what the stream cannot tell.
    """
    if stream.contract.freshness is not None and stream.time is None:
        msg = f"{stream.ref} declares contract.freshness but no time column; name one, or drop the freshness"
        raise ConfigurationError(msg)
    with reported(warehouse, run, "check", stream.ref) as report, warehouse.session() as session:
        tables.ensure(session)
        load = _load(session, stream, run)
        report.rows_in, report.rows_out = load.rows_read, load.rows_landed
        report.rows_refused, report.bytes = load.rows_quarantined, load.bytes
        report.watermark = load.watermark
        report.detail = {"batch": run.batch_id(stream.ref)}
        broken = list(_broken(session, stream, run, load))
        with session.transaction():
            session.execute(
                f"update {warehouse.table('loads')} set state = :state where load_id = :load_id",
                {"state": "failed" if broken else "passed", "load_id": load.load_id},
            )
            if not broken:
                report.write(session)
        if broken:
            msg = f"{stream.ref}, window {run.window.key}: {'; '.join(broken)}"
            raise DataError(msg)
    return report


def _load(session: Session, stream: Stream, run: Run) -> _Load:
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
    return _Load(*row)


def _broken(session: Session, stream: Stream, run: Run, load: _Load) -> Iterator[str]:
    """What the batch breaks, each with the numbers and what to do."""
    limits, contract = stream.quarantine, stream.contract
    share = load.rows_quarantined / load.rows_read if load.rows_read else 0.0
    if share > limits.max_share:
        yield (
            f"{load.rows_quarantined} of {load.rows_read} rows ({share:.1%}) are in quarantine, more than the"
            f" allowed {limits.max_share:.1%}{_why(session, load)}"
        )
    elif limits.max_rows is not None and load.rows_quarantined > limits.max_rows:
        yield (
            f"{load.rows_quarantined} rows are in quarantine, more than the allowed"
            f" {limits.max_rows}{_why(session, load)}"
        )
    if load.rows_landed < contract.min_rows:
        yield (
            f"{load.rows_landed} rows landed, fewer than min_rows {contract.min_rows}; look for missing input"
            " at the source, or lower contract.min_rows"
        )
    if contract.freshness is not None:
        newest = load.watermark or _newest_passed(session, stream)
        if newest is None or newest < run.window.end - contract.freshness:
            yield (
                f"the newest row is of {newest.isoformat() if newest else 'no time at all'}, more than"
                f" {contract.freshness} before {run.window.end.isoformat()}; see why the source stands still,"
                " or widen contract.freshness"
            )
    if nulls := _null_keys(session, stream, load):
        key = ", ".join(stream.primary_key)
        yield f"{nulls} landed rows have no primary key ({key}); land the batch again"


def _why(session: Session, load: _Load) -> str:
    """The most common reasons of the quarantine, without the values that they quote."""
    values: dict[str, Any] = {"load_id": load.load_id, "value": _VALUE, "mask": ": … is", "top": _REASONS}
    rows = session.fetch(
        "select reason, count(*) as n from (select regexp_replace(reason, cast(:value as varchar),"
        f" cast(:mask as varchar), 'g') as reason from {session.warehouse.table('quarantine')}"
        " where load_id = :load_id) masked group by reason order by n desc, reason limit :top",
        values,
    )
    listed = ", ".join(f"{reason} ({n})" for reason, n in rows)
    return (
        f" - most often: {listed}. Correct the source or the contract and land the batch again; the rows are"
        f" in the table quarantine, load_id {load.load_id}"
    )


def _newest_passed(session: Session, stream: Stream) -> datetime | None:
    newest: datetime | None = session.scalar(
        f"select max(watermark) from {session.warehouse.table('loads')}"
        " where stream = :stream and state = 'passed'",
        {"stream": stream.ref},
    )
    return newest


def _null_keys(session: Session, stream: Stream, load: _Load) -> int:
    missing = " or ".join(f"{session.warehouse.quote(name)} is null" for name in stream.primary_key)
    return int(
        session.scalar(
            f"select count(*) from {session.warehouse.table(stream.raw_table)}"
            f" where _load_id = :load_id and ({missing})",
            {"load_id": load.load_id},
        )
    )
