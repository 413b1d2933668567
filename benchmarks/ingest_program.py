# SPDX-License-Identifier: Apache-2.0
"""A contender is a program: it does one thing in a process of its own and says how long that took.

What it imports at its top is imported before the clock starts, for all contenders alike. Imported by peers
too, whose Python has nothing of ours.
"""

from __future__ import annotations

import cProfile
import json
import os
import pstats
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_ROOT = Path(__file__).parent.parent
_MAXRSS = 1 if sys.platform == "darwin" else 1024
#: What a profile shows.
_LINES = 35
#: Characters of what a failed contender said last.
_SAID = 4000
#: A contender that takes longer than this hangs.
_PATIENCE = 3600


class Work(Protocol):
    """What one contender does.

    `work` is on the clock. `sums` is not: it tells what came out, equal for all contenders of a case.
    """

    def work(self) -> None: ...
    def sums(self) -> list[Any]: ...


@dataclass(frozen=True)
class Answer:
    """How one contender fared.

    :param cpu: seconds of its process, on all cores; those of a server are not among them.
    :param peak: of its process, in bytes.
    :param sums: as texts.
    :param told: what else it had to say.
    """

    seconds: float
    cpu: float
    peak: int
    sums: list[str] = field(default_factory=list)
    told: dict[str, float] = field(default_factory=dict)


def apart(
    program: str, case: str, task: Mapping[str, Any], *, python: str | Path = sys.executable, **settings: str
) -> Answer:
    """Let a contender do a case.

    :param program: module of this package.
    :param settings: environment variables beside those of this process.
    :raises RuntimeError: it failed; what it said is part of the message.
    """
    with tempfile.TemporaryDirectory(prefix="cdp-bench-") as folder:
        answer = Path(folder) / "answer.json"
        given = json.dumps({**task, "folder": folder, "answer": str(answer)})
        command = [str(python), "-m", f"benchmarks.{program}", case, given]
        environment = {**os.environ, **settings}
        # Where it is set, every process would compile what it imports.
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        done = subprocess.run(  # noqa: S603 - our own program
            command,
            cwd=_ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=None if task.get("profile") else subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
        if done.returncode:
            msg = f"{program} {case} failed:\n{(done.stdout or '')[-_SAID:]}"
            raise RuntimeError(msg)
        return Answer(**json.loads(answer.read_text()))


def main(cases: Mapping[str, Callable[[dict[str, Any]], Work]]) -> None:
    """The body of a contender's program."""
    task = json.loads(sys.argv[2])
    contender = cases[sys.argv[1]](task)
    profile = cProfile.Profile() if task.get("profile") else None
    started, cpu = time.perf_counter(), time.process_time()
    if profile:
        profile.runcall(contender.work)
    else:
        contender.work()
    seconds, cpu, highest = time.perf_counter() - started, time.process_time() - cpu, peak()
    if profile:
        pstats.Stats(profile).sort_stats("tottime").print_stats(_LINES)
    answer = {
        "seconds": seconds,
        "cpu": cpu,
        "peak": highest,
        "sums": [str(value) for value in contender.sums()],
        "told": getattr(contender, "told", {}),
    }
    Path(task["answer"]).write_text(json.dumps(answer))


def peak() -> int:
    """The most memory that this process has had, in bytes."""
    try:
        # Linux starts the other number, which a program takes along, at that of the one that started it.
        status = Path("/proc/self/status").read_text()
    except FileNotFoundError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024
