# SPDX-License-Identifier: Apache-2.0
"""``python -m scripts.demo``: one run of the example shop in a real Airflow, and what it did."""

from __future__ import annotations

import signal
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from scripts.airflow_api import RUN_ENDED, TASK_ENDED, AirflowApi, ApiError, TaskState
from scripts.services import ServiceError, wait_until
from scripts.stage import HOME, services_for, set_up
from scripts.summary import newest_window, nothing_new, read_runs, summary

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from scripts.services import Services

DAG = "shop"
#: The shop's data ends here; each further run is about the minute that follows the last one.
ANCHOR = datetime(2026, 7, 1, tzinfo=UTC)
PARSE_SECONDS = 60
RUN_SECONDS = 600
#: Of how many failed tasks to show how much of the log.
LOGS, LOG_LINES = 3, 15


class Progress:
    """A line per task as it ends; on a terminal also a live line about those that run."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._ended: set[str] = set()
        self._tries: dict[str, int] = {}
        self._live = sys.stdout.isatty()

    def say(self, text: str) -> None:
        """Print a line, in place of the live one."""
        print(f"\r\x1b[K{text}" if self._live else text, flush=True)

    def show(self, tasks: Sequence[TaskState]) -> None:
        """Tell what has changed since the last call."""
        for task in tasks:
            if task.state == "up_for_retry" and self._tries.get(task.task_id) != task.tries:
                self._tries[task.task_id] = task.tries
                self.say(f"  retry    {task.task_id}  (try {task.tries} failed)")
            if task.state in TASK_ENDED and task.task_id not in self._ended:
                self._ended.add(task.task_id)
                tries = f"  after {task.tries} tries" if task.tries > 1 else ""
                self.say(f"  {task.state or '':<8} {task.task_id:<44} {task.seconds or 0:6.1f} s{tries}")
        if self._live:
            running = ", ".join(task.task_id for task in tasks if task.state == "running") or "-"
            line = f"  {time.perf_counter() - self._began:5.1f} s  running: {running}"
            print(f"\r\x1b[K{line[:99]}", end="", flush=True)


def main() -> int:
    """0 when the run succeeded and nothing was delivered twice, 1 otherwise."""
    # Started in the background, a shell leaves it ignored, and so would all of Airflow.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGHUP, _leave)
    began = time.perf_counter()
    try:
        with services_for("demo") as services:
            code, text = _perform(services)
            print("Stopping Airflow.", flush=True)
    except (ServiceError, ApiError, OSError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; everything is stopped.", file=sys.stderr)
        return 130
    print(f"\n{text}\n\n{time.perf_counter() - began:.0f} s in all, nothing left running.")
    return code


def _perform(services: Services) -> tuple[int, str]:
    """Set the stage, run the DAG once; returns the exit code and what to print at the end."""
    progress = Progress()
    shop, airflow = set_up(services, progress.say)
    with AirflowApi(airflow.address) as api:
        _wait_for_dag(api, services)
        for interrupted in api.unfinished(DAG):
            progress.say(
                f"Run {interrupted} was cut off earlier; it is marked failed, this one does its work."
            )
            api.mark_failed(DAG, interrupted)
        newest = newest_window(shop.warehouse, DAG)
        run_id = api.trigger(DAG, newest + timedelta(minutes=1) if newest else ANCHOR)
        progress.say(f"Run {run_id}: {airflow.address}/dags/{DAG}/runs/{run_id}")
        if _follow(api, services, run_id, progress) != "success":
            return 1, _failure(api, run_id)
    doubled = shop.doubled()
    return (1 if doubled else 0), _report(shop.warehouse, run_id, doubled)


def _wait_for_dag(api: AirflowApi, services: Services) -> None:
    """Wait for this Airflow's own parse of the DAG: the database may hold one of an older file."""
    running = services.running()
    began = min(service.process.create_time() for service in running if service.name == "dag-processor")

    def parsed() -> bool:
        at = api.parsed_at(DAG, f"{DAG}.py")
        return at is not None and datetime.fromisoformat(at).timestamp() >= began

    wait_until(parsed, running, PARSE_SECONDS, f"parsing the DAG {DAG}")


def _follow(api: AirflowApi, services: Services, run_id: str, progress: Progress) -> str:
    def ended() -> str | None:
        state = api.run_state(DAG, run_id)
        progress.show(api.tasks(DAG, run_id))
        return state if state in RUN_ENDED else None

    state: str = wait_until(ended, services.running(), RUN_SECONDS, f"the run {run_id}", pause=0.3)
    return state


def _failure(api: AirflowApi, run_id: str) -> str:
    failed = [task for task in api.tasks(DAG, run_id) if task.state == "failed"]
    parts = [f"The run failed in {', '.join(task.task_id for task in failed) or 'no task of its own'}."]
    for task in failed[:LOGS]:  # the first to fail; later ones are mostly consequences
        lines = api.log(DAG, run_id, task)[-LOG_LINES:]
        parts.append("\n".join([f"{task.task_id} logged at the end:", *(f"    {line}" for line in lines)]))
    parts.append(f"Their logs: {HOME / 'logs' / f'dag_id={DAG}' / f'run_id={run_id}'}")
    return "\n\n".join(parts)


def _report(warehouse: Path, run_id: str, doubled: int) -> str:
    rows = read_runs(warehouse, DAG, run_id)
    if doubled:
        return f"{summary(rows)}\nBUT the vendors' own records show {doubled:,} writes that came twice."
    hint = (
        ""
        if nothing_new(rows)
        else "\nRun it again: it takes in only what is new, and delivers only changes."
    )
    return f"{summary(rows)}\nThe vendors' own records agree: no write came twice.{hint}"


def _leave(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
