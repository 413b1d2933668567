# SPDX-License-Identifier: Apache-2.0
"""Python environments for programs that can't share ours: made once, kept below ``build``."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_HOME = Path(__file__).parents[3] / "build" / "environments"


def python_with(*requirements: str) -> Path:
    """The Python of an environment with these packages; the test is skipped where they can't be had."""
    _HOME.mkdir(parents=True, exist_ok=True)
    text = "\n".join((sys.version, *requirements))
    home = _HOME / hashlib.sha256(text.encode()).hexdigest()[:12]
    with (_HOME / f"{home.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # workers of one test run want the same one
        if not (home / "complete").exists():
            shutil.rmtree(home, ignore_errors=True)
            _make(home, requirements)
            (home / "complete").touch()
    return home / "bin" / "python"


def _make(home: Path, requirements: tuple[str, ...]) -> None:
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    if uv:
        commands = [[uv, "venv", "--python", sys.executable, home], [uv, "pip", "install", "--python", home]]
    else:
        pip = [home / "bin" / "python", "-m", "pip", "install"]
        commands = [[sys.executable, "-m", "venv", home], pip]
    commands[1] += requirements
    for command in commands:
        ended = subprocess.run(command, capture_output=True, text=True)
        if ended.returncode:
            pytest.skip(f"no environment with {', '.join(requirements)}: {ended.stderr[-300:]}")
