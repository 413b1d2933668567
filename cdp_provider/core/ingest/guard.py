# SPDX-License-Identifier: Apache-2.0
"""Runs a program for no longer than whoever started it lives.

A script of the standard library alone, started by :mod:`~cdp_provider.core.ingest.program`. Its standard
input is a pipe that its parent never writes to and holds open while it lives; so the pipe ends however the
parent ends, by SIGKILL too. The program has a process group of its own, of which nothing is left when this
ends.

Arguments: a folder that is removed in the end, seconds between SIGTERM and SIGKILL, the program's command.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time


def main() -> int:
    """Run the program.

    :returns: its exit code; that of a program which a signal has ended is 128 and the signal's number.
    """
    folder, grace, *command = sys.argv[1:]
    try:
        return _run(command, float(grace))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(command: list[str], grace: float) -> int:
    program = subprocess.Popen(  # noqa: S603 - the project says which
        command, stdin=subprocess.DEVNULL, start_new_session=True
    )
    threading.Thread(target=_end_with_parent, args=(program.pid, grace), daemon=True).start()
    # While it has not been waited for, nobody else gets its number.
    os.waitid(os.P_PID, program.pid, os.WEXITED | os.WNOWAIT)
    _signal(program.pid, signal.SIGKILL)
    code = program.wait()
    return 128 - code if code < 0 else code


def _end_with_parent(group: int, grace: float) -> None:
    while os.read(0, 1024):
        pass
    _signal(group, signal.SIGTERM)
    time.sleep(grace)
    _signal(group, signal.SIGKILL)


def _signal(group: int, number: signal.Signals) -> None:
    # macOS says "not permitted" where only the dead are left.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


if __name__ == "__main__":
    sys.exit(main())
