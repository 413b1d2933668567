# SPDX-License-Identifier: Apache-2.0
"""The last task of a run: one table of what happened, and the run's colour."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowFailException

from cdp_provider.operators.base import CdpOperator, run_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import Context

    from cdp_provider.core.run import Run

_COLUMNS = ("stage", "node", "state", "rows_in", "rows_out", "rows_refused", "seconds", "error")
_BAD = ("failed", "upstream_failed")


class RunReportOperator(CdpOperator):
    """Logs the run ledger of this run; fails when a stage or an upstream task failed.

    Airflow colours a run by its leaves alone, so without this task a run whose optional stream or one of
    whose syncs failed would be green. Give it ``trigger_rule="all_done"`` and put it last.
    """

    def execute(self, context: Context) -> dict[str, Any]:
        run = run_of(context)
        rows = self._ledger(run)
        self.log.info("Run %s, window %s\n%s", run.run_id, run.window.key, as_table(rows))
        faults = [f"{row['stage']} {row['node']}: {row['error']}" for row in rows if row["state"] == "failed"]
        faults += [f"task {name}: {state}" for name, state in self._bad_tasks(context).items()]
        if faults:
            msg = (
                f"run {run.run_id} is not complete: {'; '.join(faults)}. See the logs of those tasks, mend"
                " the cause, and clear them with all that follows"
            )
            raise AirflowFailException(msg)
        return {"stages": len(rows), "rows_refused": sum(row["rows_refused"] for row in rows)}

    def _ledger(self, run: Run) -> list[dict[str, Any]]:
        warehouse = self.warehouse
        with warehouse.session() as session:
            if not session.exists("runs"):
                return []
            rows = session.fetch(
                f"select {', '.join(_COLUMNS)} from {warehouse.table('runs')}"  # noqa: S608 - quoted
                " where pipeline = :pipeline and run_id = :run_id order by stage, node",
                {"pipeline": run.pipeline, "run_id": run.run_id},
            )
        return [dict(zip(_COLUMNS, row, strict=True)) for row in rows]

    def _bad_tasks(self, context: Context) -> dict[str, str]:
        upstream = self.get_flat_relative_ids(upstream=True) if self.upstream_task_ids else set()
        if not upstream:
            return {}
        run_id = context["run_id"]
        states: Mapping[str, str | None] = (
            context["ti"].get_task_states(self.dag_id, run_ids=[run_id]).get(run_id, {})
        )
        return {
            name: state
            for name, state in sorted(states.items())
            # a mapped task's key ends with its index
            if state in _BAD and (name in upstream or re.sub(r"_\d+$", "", name) in upstream)
        }


def as_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows of the run ledger as aligned text; errors are left to the message of the failure."""
    if not rows:
        return "no stage has written to the run ledger"
    names = [name for name in _COLUMNS if name != "error"]
    cells = [names, *([_cell(row[name]) for name in names] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(names))]
    return "\n".join(
        "  ".join(
            text.rjust(width) if i >= names.index("rows_in") else text.ljust(width)
            for i, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in cells
    )


def _cell(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)
