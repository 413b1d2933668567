# SPDX-License-Identifier: Apache-2.0
"""What `make demo` prints while a run goes on; the run itself is in `.ci/run`."""

from __future__ import annotations

from scripts.airflow_api import TaskState, log_lines
from scripts.demo import Progress


def test_a_task_is_told_once_when_it_has_ended_and_each_retry_once(capsys):
    progress = Progress()
    progress.show([TaskState("land", "running", None, 1), TaskState("sync", None, None, 0)])
    assert capsys.readouterr().out == ""
    progress.show([TaskState("land", "up_for_retry", 0.5, 1), TaskState("sync", None, None, 0)])
    progress.show([TaskState("land", "up_for_retry", 0.5, 1), TaskState("sync", None, None, 0)])
    progress.show([TaskState("land", "success", 1.25, 2), TaskState("sync", "upstream_failed", None, 0)])
    progress.show([TaskState("land", "success", 1.25, 2), TaskState("sync", "upstream_failed", None, 0)])
    assert [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()] == [
        "retry land (try 1 failed)",
        "success land 1.2 s after 2 tries",
        "upstream_failed sync 0.0 s",
    ]


def test_a_log_entry_keeps_the_message_and_the_error_and_loses_the_headings():
    assert log_lines({"event": "::group::Pre Execute", "timestamp": "t", "level": "info"}) == []
    assert log_lines({"event": "/a/file.log"}) == []
    frames = [{"filename": f"{n}.py", "lineno": n, "name": "f"} for n in range(9)]
    entry = {
        "event": "Task failed",
        "timestamp": "t",
        "level": "error",
        "error_detail": [{"exc_type": "ValueError", "exc_value": "bad\nworse", "frames": frames}],
    }
    assert log_lines(entry) == [
        "ERROR   Task failed",
        *(f"        {n}.py:{n} in f" for n in range(4, 9)),
        "        ValueError: bad",
        "worse",
    ]
