# SPDX-License-Identifier: Apache-2.0
"""An ingestion task that finds nothing new, from the moment that Airflow itself is imported.

``python -m benchmarks.ingest_operator CASE TASK``, started by ``bench_ingest.py``; connections are in its
environment. Nothing of ours is imported before the clock starts.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any

import airflow.sdk  # noqa: F401 - what every task has imported

from benchmarks.ingest_program import main

END = datetime(2026, 7, 1, tzinfo=UTC)


@dataclass
class Task:
    """One task, made and executed.

    :param task: ``first``: the batch before; it brings rows.
    """

    task: dict[str, Any]

    def work(self) -> None:
        from cdp_provider.operators.ingest import IngestOperator

        operator = IngestOperator(
            task_id="ingest",
            stream=self.stream(),
            source_conn_id="bench_source",
            warehouse_conn_id="bench_warehouse",
        )
        end = END + timedelta(days=0 if self.task["first"] else 1)
        run = SimpleNamespace(
            dag_id="bench",
            run_id=f"run_{end:%d}",
            data_interval_start=end - timedelta(days=1),
            data_interval_end=end,
            run_after=end,
        )
        context: Any = {"dag_run": run, "outlet_events": {}}
        self.report = operator.execute(context)

    def stream(self) -> Any:
        """The stream that a factory's DAG would hold."""
        raise NotImplementedError

    def sums(self) -> list[Any]:
        return [self.report["rows_in"]]


def _stream(options: Any) -> Any:
    from cdp_provider.core.project.streams import Stream

    columns: dict[str, Any] = {"order_id": "integer", "email": "string", "updated_at": "timestamp"}
    return Stream(
        source="shop",
        name="orders",
        primary_key=("order_id",),
        time="updated_at",
        columns=columns,
        options=options,
    )


class Http(Task):
    """Asks for what changed, and there is nothing."""

    def stream(self) -> Any:
        from cdp_provider.core.ingest.http import HttpOptions

        options = {
            "path": "/changed",
            "records": "data",
            "paging": {"type": "cursor", "next": "next", "parameter": "after"},
            "cursor": {"column": "updated_at", "parameter": "since"},
        }
        return _stream(HttpOptions.model_validate(options))


class Files(Task):
    """Looks for files, and has them all."""

    def stream(self) -> Any:
        from cdp_provider.core.ingest.files import FileOptions

        return _stream(FileOptions(path="*.csv", format="csv"))


CASES = {"http": Http, "files": Files}

if __name__ == "__main__":
    main({name: partial(case) for name, case in CASES.items()})
