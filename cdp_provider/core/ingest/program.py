# SPDX-License-Identifier: Apache-2.0
"""Programs of others, run in environments of their own: what they print, without what must stay secret."""

from __future__ import annotations

import base64
import json
import logging
import os
import re
import selectors
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from cdp_provider.core.exceptions import ConfigurationError, NotFoundError, UnavailableError
from cdp_provider.core.project.base import Duration, Options

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence

_log = logging.getLogger(__name__)
_GUARD = Path(__file__).with_name("guard.py")

Field = Literal["host", "port", "schema", "login", "password"]

#: What of our environment a program gets. The rest may hold the secrets of Airflow.
_PASSED = re.compile(
    r"PATH|HOME|USER|LANG|LC_\w+|TZ|TMPDIR|SSL_CERT_\w+|REQUESTS_CA_BUNDLE|\w+_proxy", re.IGNORECASE
)
#: Seconds to end by itself, for a program that is asked to.
_GRACE = 10.0
_CHUNK = 1 << 20
#: Shorter texts stand in every second line, and hide nothing.
_SECRET = 4
#: Lines of a program that reach the log, and characters of one.
_LINES, _WIDTH = 1_000, 500
#: Lines of a program that an error quotes.
_QUOTED = 10


@dataclass(frozen=True)
class Settings:
    """What a connection of any type holds, and where the project lies.

    :param fields: ``host``, ``port``, ``schema``, ``login`` and ``password``, as far as they are filled in.
    :param folder: below which relative paths are looked for.
    """

    fields: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None

    def given(self, plain: Mapping[str, Any], credentials: Mapping[str, str]) -> dict[str, Any]:
        """A program's configuration: what the project says, then the extra, then fields by name.

        :raises ConfigurationError: a field is empty.
        """
        found = {}
        for name, place in credentials.items():
            if not self.fields.get(place):
                msg = f"{name} is to be the {place} of the source's connection, which has none; fill it in"
                raise ConfigurationError(msg)
            found[name] = self.fields[place]
        return {**plain, **self.extra, **found}

    def secrets(self) -> list[str]:
        """Every text in the connection that must not be seen."""
        return [*_texts(self.extra), *_texts(self.fields.get("password"))]

    def path(self, named: str) -> Path:
        """A file or folder of the project.

        :raises NotFoundError: it does not exist.
        """
        path = Path(self.folder or "/", named)
        if not path.exists():
            msg = (
                f"there is no {named!r} on this worker; a relative path is looked for in the project's folder"
            )
            raise NotFoundError(msg)
        return path


class ProgramOptions(Options):
    """What streams say that a program reads.

    :param credentials: name of the program's setting -> field of the connection that it is.
    :param max_wait: so long without a sign of life, the program counts as stuck.
    :param max_time: it may run so long altogether.
    """

    credentials: dict[str, Field] = {}
    max_wait: Duration = timedelta(minutes=30)
    max_time: Duration = timedelta(days=1)


@dataclass(frozen=True)
class Program:
    """A program to be run.

    :param command: what it is called with; the first is a path or a name on the PATH.
    :param what: it is, for messages: ``the tap of forms.answers``.
    :param private: its folder of configuration; it goes away when the program ends, whatever happens to us.
    :param home: its working directory.
    """

    command: Sequence[str]
    what: str
    private: Path
    home: Path
    secrets: Sequence[str] = ()
    max_wait: timedelta = timedelta(minutes=30)
    max_time: timedelta = timedelta(days=1)

    def output(self) -> Generator[bytes, None, None]:
        """What it prints, in pieces of any size. Close it, if you leave it early: that ends the program.

        :raises NotFoundError: there is no such program.
        :raises UnavailableError: it failed, or got stuck.
        """
        command = [self._found(), *self.command[1:]]
        guarded = [sys.executable, "-I", "-S", str(_GUARD), str(self.private)]
        process = subprocess.Popen(  # noqa: S603 - the project says which
            [*guarded, str(_GRACE), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.home,
            env={name: value for name, value in os.environ.items() if _PASSED.fullmatch(name)},
            # Whoever ends our process group must not end what cleans up behind us.
            start_new_session=True,
        )
        with _Running(self, process) as running:
            yield from running.pieces()
            running.check()

    def _found(self) -> str:
        named = self.command[0]
        path = str(self.home / named) if "/" in named else named
        found = shutil.which(path)
        if found is None:
            msg = (
                f"{self.what} is {named!r}, and there is no such program on this worker; install it there, in"
                " an environment of its own, and give its whole path"
            )
            raise NotFoundError(msg)
        return found


class _Running:
    """A program that runs, and is over when the context ends."""

    def __init__(self, program: Program, process: subprocess.Popen[bytes]) -> None:
        self._program, self._process = program, process
        self._said: deque[str] = deque(maxlen=_QUOTED)
        self._lines = 0
        self._alive = time.monotonic()
        self._deadline = self._alive + program.max_time.total_seconds()
        self._hidden = _pattern(program.secrets)
        self._listener = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> _Running:
        self._listener.start()
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()
        self._process.wait()
        self._listener.join()
        if self._process.stderr:
            self._process.stderr.close()

    def pieces(self) -> Iterator[bytes]:
        out = self._process.stdout
        if out is None:
            return
        with selectors.DefaultSelector() as selector:
            selector.register(out, selectors.EVENT_READ)
            while True:
                ready = selector.select(min(self._left(), 1))
                if not ready:
                    continue
                piece = os.read(out.fileno(), _CHUNK)
                if not piece:
                    return
                self._alive = time.monotonic()
                yield piece

    def check(self) -> None:
        """Refuse a program that did not end well."""
        code = self._process.wait()
        self._listener.join()
        if code:
            how = f"with the exit code {code}" if code < 128 else f"by the signal {code - 128}"
            msg = f"{self._program.what} ended {how}; nothing of it was taken in{self._quoted()}"
            raise UnavailableError(msg)

    def _left(self) -> float:
        """Seconds until it is too late."""
        now, program = time.monotonic(), self._program
        silent = self._alive + program.max_wait.total_seconds() - now
        if silent <= 0:
            msg = f"{program.what} has printed nothing for {program.max_wait} (`max_wait`){self._quoted()}"
            raise UnavailableError(msg)
        if now >= self._deadline:
            msg = f"{program.what} was not done after {program.max_time} (`max_time`){self._quoted()}"
            raise UnavailableError(msg)
        return min(silent, self._deadline - now)

    def _quoted(self) -> str:
        """Where to look. The words themselves may hold rows, and an error goes into the run ledger."""
        if not self._said:
            return ", and it said nothing on stderr"
        if self._lines > _LINES:
            for text in self._said:
                _log.info("%s: %s", self._program.what, text)
        return "; what it said on stderr stands in the task's log"

    def _listen(self) -> None:
        """Take what it says to the log; beyond so many lines, only if it fails."""
        lines = self._process.stderr
        # One that never ends a line must not fill the memory.
        while lines and (line := lines.readline(_CHUNK)):
            self._alive = time.monotonic()
            text = self._hidden.sub("***", line.decode(errors="replace")).rstrip()[:_WIDTH]
            self._said.append(text)
            self._lines += 1
            if self._lines <= _LINES:
                _log.info("%s: %s", self._program.what, text)
        if self._lines > _LINES:
            _log.info("%s: %d more lines", self._program.what, self._lines - _LINES)


@contextmanager
def private_folder() -> Iterator[Path]:
    """A new folder that only we can read; see :func:`write_private`."""
    folder = Path(tempfile.mkdtemp(prefix="cdp_private_"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_private(path: Path, content: Any) -> Path:
    """Write JSON into a new file that only we can read."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(content, file)
    return path


def _texts(value: Any) -> Iterator[str]:
    """The texts and numbers in a value, at any depth."""
    if isinstance(value, dict):
        for member in value.values():
            yield from _texts(member)
    elif isinstance(value, list | tuple):
        for member in value:
            yield from _texts(member)
    elif value is not None and not isinstance(value, bool):
        yield str(value)


def _pattern(secrets: Sequence[str]) -> re.Pattern[str]:
    """Finds secrets as they are, and as they look in JSON, in an address and in a header."""
    forms = set()
    for secret in secrets:
        # A key of several lines is printed line by line.
        for text in (secret, *secret.splitlines()):
            coded = base64.b64encode(text.encode()).decode()
            forms |= {
                text,
                json.dumps(text)[1:-1],
                repr(text)[1:-1],
                quote(text),
                quote(text, safe=""),
                coded,
            }
    told = sorted((form for form in forms if len(form) >= _SECRET), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, told)) or r"(?!)")
