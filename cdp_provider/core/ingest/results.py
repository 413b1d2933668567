# SPDX-License-Identifier: Apache-2.0
"""What a contract's rules said of a batch: one result per rule, kept with the batch's state."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from cdp_provider.core.project.contract import Severity, Tolerance
    from cdp_provider.core.project.streams import Stream
    from cdp_provider.core.run import Run
    from cdp_provider.core.warehouse import Session

Outcome = Literal["passed", "warned", "failed"]

_SCHEMA = pa.schema(
    {
        "pipeline": pa.string(),
        "run_id": pa.string(),
        "window_start": pa.timestamp("us", tz="UTC"),
        "window_end": pa.timestamp("us", tz="UTC"),
        "stream": pa.string(),
        "load_id": pa.int64(),
        "rule": pa.string(),
        "kind": pa.string(),
        "severity": pa.string(),
        "checked": pa.int64(),
        "failed": pa.int64(),
        "share": pa.float64(),
        "outcome": pa.string(),
        "detail": pa.string(),
    }
)


@dataclass(frozen=True)
class Load:
    """A landed batch, as ``loads`` has it."""

    load_id: int
    rows_read: int
    rows_landed: int
    rows_quarantined: int
    bytes: int
    watermark: datetime | None


@dataclass(frozen=True)
class Result:
    """What one rule said of a batch.

    :param rule: its name within the stream.
    :param checked: rows that it looked at, or values of them.
    :param failed: those of them that break it; 1 where the batch as a whole does.
    :param detail: what is wrong and what to do, without any value of a row; empty where nothing is.
    :param columns: that it speaks of.
    """

    rule: str
    kind: str
    severity: Severity
    checked: int
    failed: int
    outcome: Outcome
    detail: str = ""
    columns: tuple[str, ...] = ()

    @property
    def share(self) -> float:
        """Of what was looked at, from 0 to 1; 1 where the rule is broken and nothing was."""
        return min(1.0, self.failed / self.checked) if self.checked else float(self.failed > 0)


def of_rows(
    rule: str,
    kind: str,
    severity: Severity,
    counts: tuple[int, int],
    limits: Tolerance,
    columns: tuple[str, ...] = (),
    detail: str = "",
) -> Result:
    """The result of a rule that so many rows may break.

    :param counts: rows looked at, and those that break it.
    :param detail: of a rule that is broken, further to the counts.
    """
    checked, failed = counts
    exceeded = _exceeded(checked, failed, severity, limits)
    if exceeded is None:
        return Result(rule, kind, severity, checked, failed, "passed", columns=columns)
    share = f" ({failed / checked:.1%})" if checked else ""
    told = f"{failed} of {checked} rows{share} break it, more than the allowed {exceeded}{detail}"
    return Result(rule, kind, severity, checked, failed, broken(severity), told, columns)


def of_batch(
    rule: str, kind: str, severity: Severity, checked: int, fault: str | None, columns: tuple[str, ...] = ()
) -> Result:
    """The result of a rule that a batch keeps or breaks as a whole.

    :param fault: what is wrong; None when nothing is.
    """
    if fault is None:
        return Result(rule, kind, severity, checked, 0, "passed", columns=columns)
    return Result(rule, kind, severity, checked, 1, broken(severity), fault, columns)


def broken(severity: Severity) -> Outcome:
    """The outcome of a rule that is broken. Too many rows set aside fail the batch, too."""
    return "warned" if severity == "warn" else "failed"


def _exceeded(checked: int, failed: int, severity: Severity, limits: Tolerance) -> str | None:
    """The limit that is crossed, in words; None when none is."""
    if limits.max_rows is None and limits.max_share is None:
        return "0" if failed and severity != "quarantine" else None
    if limits.max_share is not None and failed > limits.max_share * checked:
        return f"{limits.max_share:.1%}"
    if limits.max_rows is not None and failed > limits.max_rows:
        return str(limits.max_rows)
    return None


def summary(results: Sequence[Result]) -> dict[str, Any]:
    """Counts per outcome, and the names of what is broken: for reports and events of assets."""
    counts = Counter(result.outcome for result in results)
    return {
        "rules": {outcome: counts[outcome] for outcome in ("passed", "warned", "failed")},
        "warned": [result.rule for result in results if result.outcome == "warned"],
        "broken": [result.rule for result in results if result.outcome == "failed"],
    }


def write(session: Session, stream: Stream, run: Run, load_id: int, results: Sequence[Result]) -> None:
    """Put the results of a batch in place of those of an earlier check, in the caller's transaction."""
    table = session.warehouse.table("contract_results")
    session.execute(f"delete from {table} where load_id = :load_id", {"load_id": load_id})
    batch = {
        "pipeline": run.pipeline,
        "run_id": run.run_id,
        "window_start": run.window.start,
        "window_end": run.window.end,
        "stream": stream.ref,
        "load_id": load_id,
    }
    own = ("rule", "kind", "severity", "checked", "failed", "share", "outcome")
    rows = [
        {**batch, **{name: getattr(result, name) for name in own}, "detail": result.detail or None}
        for result in results
    ]
    session.load(table, pa.Table.from_pylist(rows, schema=_SCHEMA))
