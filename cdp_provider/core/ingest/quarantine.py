# SPDX-License-Identifier: Apache-2.0
"""Whether too many rows of a batch were set aside, and by which rules."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cdp_provider.core.ingest.results import Result, of_rows
from cdp_provider.core.ingest.rules import MASK, row_checks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cdp_provider.core.ingest.results import Load
    from cdp_provider.core.project.streams import Quarantine, Stream
    from cdp_provider.core.warehouse import Session

#: A quoted value inside a quarantine reason: a report says what is wrong, not whose value it was.
_VALUE = r': "([^"\\]|\\.)*" is'
_REASONS = 3


def quarantine_results(session: Session, stream: Stream, load: Load) -> Iterator[Result]:
    """The result of the stream's ``quarantine`` as a whole, and of each rule that sets rows aside."""
    fault = _fault(stream.quarantine, load)
    whole = Result("quarantine", "quarantine", "fail", load.rows_read, load.rows_quarantined, "passed")
    yield replace(whole, outcome="failed", detail=f"{fault}{_why(session, load)}") if fault else whole
    checks = [check for check in row_checks(stream) if check.severity == "quarantine"]
    counts = _counts(session, load, [check.told() for check in checks])
    for check, failed in zip(checks, counts, strict=True):
        columns = (check.column,) if check.column else ()
        found = (load.rows_read, failed)
        yield of_rows(check.name, check.kind, check.severity, found, check.limits, columns)


def _fault(limits: Quarantine, load: Load) -> str | None:
    share = load.rows_quarantined / load.rows_read if load.rows_read else 0.0
    if share > limits.max_share:
        return (
            f"{load.rows_quarantined} of {load.rows_read} rows ({share:.1%}) are in quarantine, more than the"
            f" allowed {limits.max_share:.1%}"
        )
    if limits.max_rows is not None and load.rows_quarantined > limits.max_rows:
        return f"{load.rows_quarantined} rows are in quarantine, more than the allowed {limits.max_rows}"
    return None


def _why(session: Session, load: Load) -> str:
    """The most common reasons of the quarantine, without the values that they quote."""
    rows = session.fetch(
        f"select reason, count(*) as n from ({_masked(session)}) masked"
        " group by reason order by n desc, reason limit :top",
        {**_values(load), "top": _REASONS},
    )
    listed = ", ".join(f"{reason} ({n})" for reason, n in rows)
    return (
        f" - most often: {listed}. Correct the source or the contract and land the batch again; the rows are"
        f" in the table quarantine, load_id {load.load_id}"
    )


def _counts(session: Session, load: Load, told: list[str]) -> list[int]:
    """How many of the rows that were set aside were told each of these, possibly among other things."""
    if not told or not load.rows_quarantined:
        return [0] * len(told)
    asked = ", ".join(
        f"count(*) filter (where position(cast(:told_{i} as varchar) in '; ' || reason || '; ') > 0)"
        for i in range(len(told))
    )
    wanted = {f"told_{i}": f"; {text}; " for i, text in enumerate(told)}
    row = session.one(f"select {asked} from ({_masked(session)}) masked", {**_values(load), **wanted})
    return [int(count) for count in row or ()]


def _masked(session: Session) -> str:
    return (
        "select regexp_replace(reason, cast(:value as varchar), cast(:mask as varchar), 'g') as reason"
        f" from {session.warehouse.table('quarantine')} where load_id = :load_id"
    )


def _values(load: Load) -> dict[str, Any]:
    return {"load_id": load.load_id, "value": _VALUE, "mask": f": {MASK} is"}
