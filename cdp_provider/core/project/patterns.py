# SPDX-License-Identifier: Apache-2.0
"""Regular expressions in the syntax of RE2, which columns of millions are held against."""

from __future__ import annotations

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
