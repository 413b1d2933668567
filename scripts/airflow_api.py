# SPDX-License-Identifier: Apache-2.0
"""The few calls of Airflow's REST API that a demo needs."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import httpx

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from types import TracebackType

#: States in which nothing more happens to a task or a run.
TASK_ENDED = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})
RUN_ENDED = frozenset({"success", "failed"})


@dataclass(frozen=True)
class TaskState:
    """One task of a run; `seconds` is the last try's duration, None before it has ended."""

    task_id: str
    state: str | None
    seconds: float | None
    tries: int


class ApiError(Exception):
    """Airflow refused a call, and the message quotes its answer; or it did not answer at all."""


class AirflowApi:
    """A client of Airflow's stable REST API (``/api/v2``) at `address`, without a login."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._client = httpx.Client(base_url=address, timeout=60, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def reachable(self, path: str = "/api/v2/version") -> bool:
        """Whether the server answers with success."""
        try:
            return self._client.get(path).is_success
        except httpx.TransportError:
            return False

    def health(self) -> dict[str, str | None]:
        """Component -> ``healthy``, ``unhealthy``, or None when it has never run."""
        answer = self._call("GET", "/monitor/health")
        return {name: part["status"] for name, part in answer.items()}

    def parsed_at(self, dag_id: str, file: str) -> str | None:
        """When the DAG's file was last parsed (ISO 8601); None as long as Airflow does not know the DAG.

        :param file: the DAG's file, as a path below the DAGs folder.
        :raises ApiError: Airflow does not know the DAG because it cannot import that file.
        """
        # Asked for by pattern, for an unknown DAG is no error here.
        for dag in self._call("GET", "/dags", params={"dag_id_pattern": dag_id})["dags"]:
            if dag["dag_id"] == dag_id:
                parsed: str | None = dag["last_parsed_time"]
                return parsed
        for error in self._call("GET", "/importErrors")["import_errors"]:
            if error["filename"] == file:
                msg = f"Airflow cannot import {file}:\n{error['stack_trace']}"
                raise ApiError(msg)
        return None

    def unfinished(self, dag_id: str) -> list[str]:
        """Ids of the runs that are queued or running."""
        answer = self._call("GET", f"/dags/{dag_id}/dagRuns", params={"state": ["queued", "running"]})
        return [run["dag_run_id"] for run in answer["dag_runs"]]

    def mark_failed(self, dag_id: str, run_id: str) -> None:
        """End a run, and its tasks with it."""
        self._call("PATCH", f"/dags/{dag_id}/dagRuns/{run_id}", json={"state": "failed"})

    def trigger(self, dag_id: str, run_after: datetime) -> str:
        """Start a run without a logical date, whose window ends at `run_after`; returns its id."""
        # Airflow's own ids clash when a window is run once more.
        run_id = f"demo__{run_after:%Y-%m-%dT%H:%M}__{secrets.token_hex(3)}"
        body = {"dag_run_id": run_id, "logical_date": None, "run_after": run_after.isoformat()}
        self._call("POST", f"/dags/{dag_id}/dagRuns", json=body)
        return run_id

    def run_state(self, dag_id: str, run_id: str) -> str:
        """``queued``, ``running``, ``success`` or ``failed``."""
        state: str = self._call("GET", f"/dags/{dag_id}/dagRuns/{run_id}")["state"]
        return state

    def tasks(self, dag_id: str, run_id: str) -> list[TaskState]:
        """All tasks of a run, in the order in which they ended; those that run or wait come last."""
        answer = self._call("GET", f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances", params={"limit": 1000})
        found = sorted(answer["task_instances"], key=lambda task: (task["end_date"] or "~", task["task_id"]))
        return [
            TaskState(task["task_id"], task["state"], task["duration"], task["try_number"]) for task in found
        ]

    def log(self, dag_id: str, run_id: str, task: TaskState) -> list[str]:
        """What the last try of a task logged, line by line; without Airflow's headings."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task.task_id}/logs/{max(task.tries, 1)}"
        answer = self._call("GET", path, params={"full_content": True})
        lines: list[str] = []
        for entry in answer["content"]:
            lines += log_lines(entry)
        return lines

    def _call(self, method: str, path: str, **arguments: Any) -> Any:
        try:
            answer = self._client.request(method, f"/api/v2{path}", **arguments)
        except httpx.TransportError as error:
            msg = f"Airflow did not answer {method} {path}: {error}"
            raise ApiError(msg) from error
        if not answer.is_success:
            msg = f"Airflow answered {answer.status_code} to {method} {path}: {answer.text[:500]}"
            raise ApiError(msg)
        return answer.json()


def log_lines(entry: Mapping[str, Any]) -> list[str]:
    """One structured log entry as text: level, event and, of an error, its last frames and its message."""
    event = str(entry.get("event", ""))
    if "timestamp" not in entry or event.startswith(("::group::", "::endgroup::")):
        return []
    indent = " " * 8
    lines = [f"{(entry.get('level') or '').upper():<8}{event}"]
    for error in entry.get("error_detail") or ():
        frames = error.get("frames") or ()
        lines += [
            f"{indent}{frame['filename']}:{frame['lineno']} in {frame['name']}" for frame in frames[-5:]
        ]
        lines.append(f"{indent}{error.get('exc_type')}: {error.get('exc_value')}")
    return [part for line in lines for part in line.splitlines()]
