# SPDX-License-Identifier: Apache-2.0
"""Regular expressions in the syntax of RE2, which columns of millions are held against."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def whole(patterns: Sequence[str]) -> str:
    """One pattern that matches a text if any of `patterns` matches all of it.

    Each must be free of faults, by :func:`pattern_fault`.
    """
    return f"^(?:{'|'.join(f'(?:{pattern})' for pattern in patterns)})$"


def pattern_fault(pattern: str) -> str | None:
    """Why RE2 refuses a pattern; None when it takes it.

    It must stand by itself and within :func:`whole`: ``a)|(b`` does only the one, ``\\Qa`` only the other.
    """
    # Arrow compiles a pattern when it meets the first value, so there has to be one.
    import pyarrow as pa
    import pyarrow.compute as pc

    for tried in (pattern, whole([pattern])):
        try:
            pc.match_substring_regex(pa.scalar(""), tried)
        except pa.ArrowInvalid as error:
            return str(error).removeprefix("Invalid regular expression: ")[:80]
    return None


#: One part of a pattern as RE2 reads it, beyond single signs.
_PART = re.compile(
    r"""(?P<quoted>\\Q.*?(?:\\E|$))
      | (?P<escape>\\x\{[0-9A-Fa-f]+\}|\\.)
      | (?P<group>\(\?(?!:|P?<[A-Za-z0-9_]+>).{0,2})
      | (?P<repeat>\{(?P<least>\d+)(?:,(?P<most>\d*))?\})
      | \[\^?(?P<members>\]?(?:\[:[^\]]*:\]|\\.|[^\]\\])*)\]""",
    re.VERBOSE | re.DOTALL,
)
_MEMBER = re.compile(r"(?P<named>\[:\^)|(?P<escape>\\.)", re.DOTALL)

#: What an escape may begin with: codes, control characters and signs that stand for themselves; and, but for
#: brackets, what is not within a class and where a text begins and ends.
_CHARACTER = re.compile(r"\\[xaftnrv0-7dws]|\\[^0-9A-Za-z]", re.DOTALL)
_BEYOND_BRACKETS = ("\\D", "\\W", "\\S", "\\A", "\\z")
_MOST_REPEATS = 255


def portable_fault(pattern: str) -> str | None:
    """Why not every warehouse would take a pattern like RE2 does; None when all take it alike.

    It must be free of faults, by :func:`pattern_fault`.
    """
    if "\0" in pattern:
        return "a text never holds a NUL character"
    for part in _PART.finditer(pattern):
        if part["escape"] and not (_CHARACTER.match(part[0]) or part[0] in _BEYOND_BRACKETS):
            return f"{part[0]} does not mean the same in every warehouse"
        if part["group"]:
            return f"{part[0]} sets flags or looks around, which not every warehouse does"
        if part["repeat"] and max(int(part["least"]), int(part["most"] or 0)) > _MOST_REPEATS:
            return f"{part[0]} repeats more often than {_MOST_REPEATS} times, which not every warehouse does"
        for member in _MEMBER.finditer(part["members"] or ""):
            if member["named"] or not _CHARACTER.match(member[0]):
                return f"{member[0]} in brackets is not known in every warehouse"
    return None
