# SPDX-License-Identifier: Apache-2.0
"""localstripe, a stand-in for Stripe that remembers: run as a program of its own and asked over HTTP only."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, Self

import httpx
import pytest

if TYPE_CHECKING:
    from pathlib import Path

KEY = "sk_test_12345"
_PATIENCE = 20.0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class LocalStripe:
    """Runs inside a ``with`` statement; the test is skipped where it is not installed.

    :param folder: for its log.
    """

    def __init__(self, folder: Path) -> None:
        if importlib.util.find_spec("localstripe") is None:
            pytest.skip("localstripe is not installed; it comes with the extra 'test'")
        self._folder, port = folder, _free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._command = [sys.executable, "-m", "localstripe", "--from-scratch", "--port", str(port)]
        self._client = httpx.Client(base_url=self.url, auth=(KEY, ""), timeout=10)

    def post(self, path: str, **form: Any) -> dict[str, Any]:
        """Create or change something."""
        response = self._client.post(path, data={key: str(value) for key, value in form.items()})
        response.raise_for_status()
        answer: dict[str, Any] = response.json()
        return answer

    def all(self, path: str) -> list[dict[str, Any]]:
        """Everything in a list."""
        answer = self._client.get(path, params={"limit": 10_000}).raise_for_status().json()
        assert not answer["has_more"]
        found: list[dict[str, Any]] = answer["data"]
        return found

    def __enter__(self) -> Self:
        log = (self._folder / "localstripe.log").open("wb")
        self._process = subprocess.Popen(
            self._command, cwd=self._folder, stdout=log, stderr=subprocess.STDOUT
        )
        log.close()
        deadline = time.monotonic() + _PATIENCE
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                raise AssertionError((self._folder / "localstripe.log").read_text())
            time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()
        self._process.terminate()
        self._process.wait()

    def _answers(self) -> bool:
        try:
            return self._client.get("/v1/customers").status_code == 200
        except httpx.TransportError:
            return False
