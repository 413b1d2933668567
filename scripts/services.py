# SPDX-License-Identifier: Apache-2.0
"""Background processes that never outlive their purpose, not even when their starter is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

#: Seconds between SIGINT, a second SIGINT (at which Airflow's processes leave at once) and SIGKILL.
PATIENCE = (3.0, 3.0)
TAIL_LINES = 25


class ServiceError(Exception):
    """A process ended badly or took too long; the message ends with the tail of its log."""


@dataclass(frozen=True)
class Service:
    """One process, leader of a session of its own, whose output goes to a file."""

    name: str
    process: psutil.Popen
    log: Path

    def tail(self) -> str:
        """The last lines that the process wrote."""
        lines = self.log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
        return "\n".join(f"    {line}" for line in lines) or "    (it wrote nothing)"

    def check(self) -> None:
        """:raises ServiceError: the process has ended although it should run."""
        if (code := self.process.poll()) is not None:
            msg = f"{self.name} ended with exit code {code}; {self.log} ends with:\n{self.tail()}"
            raise ServiceError(msg)

    def finish(self, timeout: float) -> None:
        """Wait until the process has done its work.

        :raises ServiceError: it failed, or did not finish within `timeout` seconds.
        """
        try:
            code = self.process.wait(timeout)
        except (subprocess.TimeoutExpired, psutil.TimeoutExpired):
            msg = f"{self.name} did not finish within {timeout:.0f} s; {self.log} ends with:\n{self.tail()}"
            raise ServiceError(msg) from None
        if code != 0:
            self.check()


@dataclass
class Services:
    """The processes of one checkout, written down in `record` so that anybody can end them later.

    As a context manager it ends all of them on leaving, whatever the reason. A starter that wants them to
    live on does not use it as one.

    :param purpose: what they are for, "demo" or "ui"; told to whoever finds them running.
    """

    record: Path
    logs: Path
    purpose: str
    address: str | None = None
    started: list[Service] = field(default_factory=list)

    def start(self, name: str, command: Sequence[str], *, env: Mapping[str, str], cwd: Path) -> Service:
        """Start a process, detached from the terminal, and note it down."""
        self.logs.mkdir(parents=True, exist_ok=True)
        log = self.logs / f"{name}.log"
        with log.open("wb") as output:
            process = psutil.Popen(
                list(command),
                env=dict(env),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        service = Service(name, process, log)
        self.started.append(service)
        self.note()
        return service

    def note(self) -> None:
        """Write the record anew."""
        noted = {
            "purpose": self.purpose,
            "address": self.address,
            "owner": _identity(psutil.Process()),
            "services": [
                _identity(service.process) for service in self.started if service.process.is_running()
            ],
        }
        written = self.record.with_suffix(".new")
        written.write_text(json.dumps(noted))
        written.replace(self.record)

    def running(self) -> list[Service]:
        """Those that have not ended yet."""
        return [service for service in self.started if service.process.poll() is None]

    def stop(self) -> None:
        """End every process and all their descendants; a Ctrl-C meanwhile does not stop the stopping."""
        end([service.process for service in self.started])
        self.record.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


@dataclass(frozen=True)
class Found:
    """What a record says is running right now.

    :param orphaned: the starter has gone without ending them, and nobody meant them to live on.
    """

    purpose: str
    address: str | None
    processes: list[psutil.Process]
    orphaned: bool


def find(record: Path) -> Found | None:
    """What still runs of the processes in the record; None if nothing does."""
    try:
        noted = json.loads(record.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    processes = [process for entry in noted["services"] if (process := _alive(entry))]
    owner = _alive(noted["owner"])
    if not processes and (owner is None or noted["purpose"] == "ui"):
        record.unlink(missing_ok=True)
        return None
    orphaned = owner is None and noted["purpose"] != "ui"
    return Found(noted["purpose"], noted["address"], processes, orphaned)


def end(processes: Sequence[psutil.Process], patience: Sequence[float] = PATIENCE) -> int:
    """End processes and all their descendants; returns how many had to be killed.

    Each gets SIGINT, after `patience` a second one, then the whole family SIGKILL.
    """
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        family = _family(processes)
        leaders = list(processes)
        for seconds in patience:
            for process in leaders:
                _send(process, signal.SIGINT)
            _, leaders = psutil.wait_procs(leaders, timeout=seconds)
            if not leaders:
                break
        # A task's process may have been forked after the first look, or may have outlived its parent.
        left = [process for process in {*family, *_family(leaders)} if process.is_running()]
        _, left = psutil.wait_procs(left, timeout=0.5)
        for process in left:
            _send(process, signal.SIGKILL)
        psutil.wait_procs(left, timeout=5)
        return len(left)
    finally:
        signal.signal(signal.SIGINT, before)


def wait_until(
    done: Callable[[], Any], services: Sequence[Service], timeout: float, what: str, *, pause: float = 0.1
) -> Any:
    """Call `done` every `pause` seconds until it returns something true, and return that.

    :raises ServiceError: a service ended meanwhile, or `timeout` seconds went by.
    """
    deadline = time.perf_counter() + timeout
    while not (result := done()):
        for service in services:
            service.check()
        if time.perf_counter() > deadline:
            tails = "\n".join(f"  {service.log} ends with:\n{service.tail()}" for service in services)
            msg = f"{what} took more than {timeout:.0f} s.\n{tails}"
            raise ServiceError(msg)
        time.sleep(pause)
    return result


def clean_environment() -> dict[str, str]:
    """This process's environment without what would steer an Airflow elsewhere.

    Bytecode is written even where the environment forbids it: without, each of Airflow's processes compiles
    all of Airflow again.
    """
    unwanted = ("AIRFLOW", "_AIRFLOW", "PYTHONDONTWRITEBYTECODE", "PYTHONHOME")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
    loopback = "127.0.0.1,localhost"
    proxies = {
        name: f"{kept[name]},{loopback}" if kept.get(name) else loopback for name in ("NO_PROXY", "no_proxy")
    }
    return {**kept, **proxies}


def _identity(process: psutil.Process) -> dict[str, Any]:
    return {"pid": process.pid, "created": process.create_time()}


def _alive(entry: Mapping[str, Any]) -> psutil.Process | None:
    """The process, unless it has ended and another one has inherited its number."""
    try:
        process = psutil.Process(entry["pid"])
        same = abs(process.create_time() - entry["created"]) < 2
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None


def _family(processes: Sequence[psutil.Process]) -> list[psutil.Process]:
    family = list(processes)
    for process in processes:
        try:
            family += process.children(recursive=True)
        except psutil.NoSuchProcess:
            continue
    return family


def _send(process: psutil.Process, number: int) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return
