# SPDX-License-Identifier: Apache-2.0
"""What can be wrong inside a project, told apart from where it stands in a file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Keys and list positions that lead from the project to one of its values.
Path = tuple[str | int, ...]

_LISTED = 12


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    :param path: where, relative to whoever reports it.
    :param message: what was given and why it is wrong, in a sentence without a capital.
    :param hint: what to do, where that is known.
    :param at_key: points at the key, not at its value.
    :param missing: the key that should stand under `path`.
    :param meant: the key that an unknown one at the end of `path` is probably meant to be.
    """

    path: Path
    message: str
    hint: str = ""
    at_key: bool = False
    missing: str | None = None
    meant: str | None = None

    def below(self, base: Path) -> Problem:
        """The same problem, told from further up."""
        return replace(self, path=base + self.path)


class Problems(ValueError):  # noqa: N818 - it carries problems; pydantic wants a ValueError from a validator
    """Raised by a model that finds something wrong among its own values; says where."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(problem.message for problem in self.problems))


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """A hint for a name that is not known: the closest known one, or all of them if they are few."""
    names = list(dict.fromkeys(known))
    if close := closest(given, names):
        return f"did you mean {close!r}?"
    if not names:
        return ""
    listed = ", ".join(names[:_LISTED])
    return f"known: {listed}, ..." if len(names) > _LISTED else f"known: {listed}"


def closest(given: str, known: Iterable[str]) -> str | None:
    """The known name that is most like the given one; None when none is."""
    folded = {name.casefold(): name for name in known}
    matches = get_close_matches(given.casefold(), folded, n=1, cutoff=0.6)
    return folded[matches[0]] if matches else None


def path_text(path: Path) -> str:
    """``sources.crm.streams.customers.columns``, ``segments.vip.where.all[0].trait``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
