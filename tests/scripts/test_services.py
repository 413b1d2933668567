# SPDX-License-Identifier: Apache-2.0
"""Whatever happens to the starter, nothing is left running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from scripts.services import ServiceError, Services, clean_environment, end, find, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[2]
#: Ignores SIGINT and has a child in a session of its own that ignores it too.
STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
again = [sys.executable, "-c", "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); "
         "print('up', flush=True); time.sleep(600)"]
child = subprocess.Popen(again, start_new_session=True, stdout=subprocess.PIPE)
child.stdout.readline()
print("up", flush=True)
time.sleep(600)
"""


def services(folder: Path, purpose: str = "demo") -> Services:
    return Services(folder / "running.json", folder / "logs", purpose)


def start(found: Services, code: str, name: str = "worker"):
    return found.start(name, [sys.executable, "-c", code], env=clean_environment(), cwd=ROOT)


def eventually(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_leaving_ends_a_whole_stubborn_family(tmp_path):
    found = services(tmp_path)
    service = start(found, STUBBORN)
    eventually(lambda: "up" in service.log.read_text())
    family = [service.process, *service.process.children(recursive=True)]
    assert len(family) == 2
    assert end([service.process], patience=(0.1, 0.1)) == 2
    assert all(gone(process) for process in family)
    found.stop()
    assert find(found.record) is None


def test_an_exception_ends_them_too(tmp_path):
    found = services(tmp_path)

    def interrupted() -> None:
        with found:
            start(found, "import time; time.sleep(600)")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert gone(found.started[0].process)
    assert not found.record.exists()


def test_a_killed_starter_is_found_out_and_cleaned_up_after(tmp_path):
    code = """
import sys, time
from pathlib import Path
from scripts.services import Services, clean_environment
folder = Path(sys.argv[1])
services = Services(folder / "running.json", folder / "logs", "demo")
sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
services.start("w", sleeper, env=clean_environment(), cwd=folder)
print("up", flush=True)
time.sleep(600)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], cwd=ROOT, stdout=subprocess.PIPE
    ) as starter:
        assert starter.stdout.readline() == b"up\n"
        found = find(tmp_path / "running.json")
        assert (len(found.processes), found.orphaned) == (1, False)
        starter.kill()
    found = find(tmp_path / "running.json")
    assert found.orphaned
    end(found.processes, patience=(1,))
    assert find(tmp_path / "running.json") is None


def test_what_is_meant_to_live_on_is_no_orphan_and_can_be_ended_by_others(tmp_path):
    found = services(tmp_path, "ui")
    found.address = "http://127.0.0.1:8080"
    service = start(found, "import time; time.sleep(600)")
    later = find(found.record)
    assert (later.purpose, later.address, later.orphaned) == ("ui", "http://127.0.0.1:8080", False)
    end(later.processes)
    assert gone(service.process)
    assert found.running() == []


def test_a_recycled_process_id_is_not_taken_for_ours(tmp_path):
    found = services(tmp_path, "ui")
    start(found, "pass").process.wait(10)
    text = found.record.read_text().replace(str(found.started[0].process.pid), str(os.getpid()))
    found.record.write_text(text)
    noted = psutil.Process().create_time()
    assert str(noted) not in text.split('"services"')[1]
    assert find(found.record) is None


def test_a_failed_process_says_what_it_wrote(tmp_path):
    with services(tmp_path) as found:
        service = start(found, "print('the last words'); raise SystemExit(3)")
        with pytest.raises(ServiceError, match=r"(?s)worker ended with exit code 3; .*the last words"):
            service.finish(10)


def test_waiting_ends_when_a_service_dies_or_time_is_up(tmp_path):
    with services(tmp_path) as found:
        dying = start(found, "import sys; sys.exit('no port')", "server")
        with pytest.raises(ServiceError, match=r"(?s)server ended with exit code 1; .*no port"):
            wait_until(lambda: False, [dying], 10, "the server's start")
        living = start(found, "import time; print('booting', flush=True); time.sleep(600)", "slow")
        eventually(lambda: "booting" in living.log.read_text())
        with pytest.raises(ServiceError, match=r"(?s)the start took more than 0 s.*booting"):
            wait_until(lambda: False, [living], 0.2, "the start")
        with pytest.raises(ServiceError, match="slow did not finish within 0 s"):
            living.finish(0.1)


def test_ctrl_c_while_stopping_does_not_stop_the_stopping(tmp_path):
    before = signal.getsignal(signal.SIGINT)
    found = services(tmp_path)
    service = start(found, STUBBORN)
    eventually(lambda: "up" in service.log.read_text())
    with subprocess.Popen(
        [sys.executable, "-c", f"import os, time; time.sleep(0.3); os.kill({os.getpid()}, 2)"]
    ):
        end([service.process], patience=(0.5, 0.5))
    assert gone(service.process)
    assert signal.getsignal(signal.SIGINT) is before


def test_the_environment_is_rid_of_a_foreign_airflow(monkeypatch):
    monkeypatch.setenv("AIRFLOW_HOME", "/elsewhere")
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", "theirs")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("NO_PROXY", "example.com")
    env = clean_environment()
    assert not [name for name in env if name.startswith(("AIRFLOW", "PYTHONDONTWRITE"))]
    assert env["NO_PROXY"] == "example.com,127.0.0.1,localhost"
