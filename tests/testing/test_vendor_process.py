# SPDX-License-Identifier: Apache-2.0
"""The stand-in vendor as a process: start, kill, stop."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import httpx
import pytest

from cdp_provider.testing.vendor import VendorServer
from cdp_provider.testing.vendor.__main__ import main

if TYPE_CHECKING:
    from pathlib import Path

MAIL = {"Authorization": "Bearer shop-mail-token"}


def launch(state: Path) -> tuple[subprocess.Popen[str], str]:
    command = [sys.executable, "-m", "cdp_provider.testing.vendor", "--port", "0", "--state", str(state)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    found = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
    assert found is not None
    return process, found.group()


def test_keeps_what_it_answered_when_killed_and_stops_on_sigterm(tmp_path: Path) -> None:
    state = tmp_path / "vendor.sqlite"
    process, url = launch(state)
    body = {"members": [{"email": "a@example.org"}]}
    httpx.post(f"{url}/mail/lists/news/members", json=body, headers=MAIL).raise_for_status()
    process.kill()
    process.communicate()

    process, url = launch(state)
    assert list(httpx.get(f"{url}/_/state").json()["contacts"]["news"]) == ["a@example.org"]
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=5)
    assert (process.returncode, errors) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--port", "70000"], "0-65535"),
        (["--port", "0", "--state", "nowhere/vendor.sqlite"], "unable to open"),
        (["--port", "0", "--state", "text"], "not a database"),
        (["--port", "0", "--data", "."], "cdp_provider.testing.shop"),
    ],
)
def test_what_keeps_it_from_starting_is_told(
    arguments: list[str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").write_text("no database, but a text that is long enough to be looked at")
    assert main(arguments) == 2
    assert says in capsys.readouterr().err


def test_a_taken_port_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with VendorServer() as vendor:
        port = vendor.url.rpartition(":")[2]
        assert main(["--port", port]) == 2
    assert f"cannot start with port {port}" in capsys.readouterr().err
