# SPDX-License-Identifier: Apache-2.0
"""The run ledger: every stage says what it did, in the transaction that did it."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cdp_provider.core import tables
from cdp_provider.core.exceptions import CdpError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from cdp_provider.core.run import Run
    from cdp_provider.core.warehouse import Session, Warehouse

_FIELDS = tuple(tables.TABLES["runs"])


@dataclass
class Report:
    """What one stage did for one node in one run.

    :param stage: ``land``, ``check``, ``resolve``, ``profiles``, ``segments`` or ``sync``.
    :param node: the stream or sync, ``-`` for a stage that a project has once.
    :param state: ``ok``, ``failed``, or ``superseded`` when a newer window's result already stands.
    :param watermark: time of the newest data that the stage has taken in.
    :param detail: counts of its own, JSON-serialisable; no personal data.
    """

    run: Run
    stage: str
    node: str
    state: str = "ok"
    rows_in: int = 0
    rows_out: int = 0
    rows_refused: int = 0
    bytes: int = 0
    watermark: datetime | None = None
    detail: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    started: float = field(default_factory=time.perf_counter)
    seconds: float = 0.0

    def write(self, session: Session) -> None:
        """Put the report into ``runs``, in place of an earlier try's. Call it inside the transaction that it
        speaks of."""
        self.seconds = time.perf_counter() - self.started
        table = session.warehouse.table("runs")
        values = {
            "pipeline": self.run.pipeline,
            "run_id": self.run.run_id,
            "window_start": self.run.window.start,
            "window_end": self.run.window.end,
            "detail": json.dumps(self.detail, sort_keys=True, default=str),
            **{name: getattr(self, name) for name in _FIELDS if hasattr(self, name) and name != "detail"},
        }
        session.execute(
            f"delete from {table}"
            " where pipeline = :pipeline and run_id = :run_id and stage = :stage and node = :node",
            values,
        )
        session.execute(f"insert into {table} values ({', '.join(':' + name for name in _FIELDS)})", values)

    def summary(self) -> dict[str, Any]:
        """The report as plain JSON values: an asset event's ``extra``."""
        return {
            "stage": self.stage,
            "node": self.node,
            "state": self.state,
            "window_start": self.run.window.start.isoformat() if self.run.window.start else None,
            "window_end": self.run.window.end.isoformat(),
            "rows_in": self.rows_in,
            "rows_out": self.rows_out,
            "rows_refused": self.rows_refused,
            "bytes": self.bytes,
            "watermark": self.watermark.isoformat() if self.watermark else None,
            **self.detail,
        }

    def sentence(self) -> str:
        """One line for a log."""
        fresh = f", newest {self.watermark.isoformat()}" if self.watermark else ""
        return (
            f"{self.stage} {self.node}: {self.state}, {self.rows_in} in, {self.rows_out} out,"
            f" {self.rows_refused} refused{fresh}, window {self.run.window.key}"
        )


@contextmanager
def reported(warehouse: Warehouse, run: Run, stage: str, node: str = "-") -> Iterator[Report]:
    """A report whose failure is recorded too.

    The body calls :meth:`Report.write` inside its own transaction; when it raises, a ``failed`` row is
    written in a session of its own and the error goes on.
    """
    report = Report(run, stage, node)
    try:
        yield report
    except Exception as error:
        report.state = "failed"
        # Only our own messages are known to hold no data; of a stranger's error the type has to do.
        report.error = str(error) if isinstance(error, CdpError) else type(error).__name__
        try:
            with warehouse.session() as session:
                tables.ensure(session)
                with session.transaction():
                    report.write(session)
        except Exception as ledger_error:  # noqa: BLE001 - the first error is the one to show
            error.add_note(f"the run ledger could not be written either: {type(ledger_error).__name__}")
        raise


def superseded(session: Session, report: Report, *also: str) -> bool:
    """Whether a newer window's result of this stage already stands in the tables.

    Current tables speak for one moment; clearing an old run must not take them back to it. When it returns
    True, the report has been marked and written, and the stage has nothing left to do.

    :param also: stages whose newer results count too, because this one builds on them.
    """
    stages = {f"stage_{i}": stage for i, stage in enumerate((report.stage, *also))}
    newest = session.scalar(
        f"select max(window_end) from {session.warehouse.table('progress')}"
        f" where stage in ({', '.join(':' + name for name in stages)}) and node = :node",
        {**stages, "node": report.node},
    )
    if newest is None or newest <= report.run.window.end:
        return False
    report.state = "superseded"
    report.detail["standing_window_end"] = newest.isoformat()
    with session.transaction():
        report.write(session)
    return True


def advance(session: Session, report: Report) -> None:
    """Record, inside the stage's transaction, that its result now speaks for this window."""
    table = session.warehouse.table("progress")
    values = {
        "stage": report.stage,
        "node": report.node,
        "window_end": report.run.window.end,
        "run_id": report.run.run_id,
    }
    session.execute(f"delete from {table} where stage = :stage and node = :node", values)
    session.execute(f"insert into {table} values (:stage, :node, :window_end, :run_id)", values)
