# SPDX-License-Identifier: Apache-2.0
"""A fault of a project file, with its place and how it is shown; and the error that carries them all."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cdp_provider.core.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

_WIDTH = 100

#: Secrets belong into Airflow connections; one that stands in the file all the same is not repeated.
_SECRET = re.compile(
    r"(?i)((?:password|passwd|secret|token|api_?key|authorization)[\w-]*[\"']?\s*:\s*)(\S.*)"
)


def is_secret(key: object) -> bool:
    """Whether a key of that name probably holds a secret."""
    return isinstance(key, str) and _SECRET.match(f"{key[-60:]}: x") is not None


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong in a project file, and where.

    :param file: the file as it was named.
    :param line: from 1; 0 when the fault is the whole file's.
    :param column: from 1; 0 when the fault is the whole file's.
    :param path: the value's place in the project, such as ``segments.vip.where.trait``.
    :param excerpt: the source line, without secrets.
    """

    file: str
    line: int
    column: int
    path: str
    message: str
    hint: str = ""
    excerpt: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        lines = [f"{place} {self.path}: {self.message}" if self.path else f"{place}: {self.message}"]
        if self.excerpt:
            gutter = f"{self.line:>6} | "
            text, caret = _cut(self.excerpt, self.column)
            lines += [
                f"{gutter}{text}",
                f"{' ' * (len(gutter) - 2)}| {' ' * (caret - 1)}^ {self.hint}".rstrip(),
            ]
        elif self.hint:
            lines.append(f"         {self.hint}")
        return "\n".join(lines)


class ProjectError(ConfigurationError):
    """The project file has faults.

    :param faults: all of them, in the order of the file.
    """

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__(faults)
        self.faults = tuple(faults)

    def __str__(self) -> str:
        count = "1 fault" if len(self.faults) == 1 else f"{len(self.faults)} faults"
        return "\n".join([f"{count} in the project file", *map(str, self.faults)])


def excerpt(line: str) -> str:
    """A line of the file as it may be shown."""
    return _SECRET.sub(r"\1***", "".join(c if c.isprintable() else " " for c in line)).rstrip()


def _cut(text: str, column: int) -> tuple[str, int]:
    """The part of a long line around a column, and the column within it."""
    if len(text) <= _WIDTH:
        return text, column
    start = max(0, min(column - 1 - _WIDTH // 2, len(text) - _WIDTH))
    return text[start : start + _WIDTH], column - start
