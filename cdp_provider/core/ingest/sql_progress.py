# SPDX-License-Identifier: Apache-2.0
"""How far a table has been read, told row by row."""

from __future__ import annotations

import hashlib
import math
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from cdp_provider.core.ingest.sql_reading import MOST_SEEN

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cdp_provider.core.ingest.base import Cursor
    from cdp_provider.core.ingest.sql_reading import Changes


class SqlProgress:
    """Sees the rows that a database sends; turns away those of later windows and those landed already.

    A row whose value is null or unreadable is let through: it may be new at any time.
    """

    def __init__(self, changes: Changes) -> None:
        self._changes = changes
        self._last = self._highest = key_of(changes.kind, changes.last)
        self._before = frozenset(changes.before.get("seen", ()))
        self._recent: dict[str, Any] = {}
        self._left = self._without = self._known = 0

    def news(self, values: Iterable[Any], lines: Iterable[bytes]) -> Iterator[bytes]:
        """The lines that belong to this window and are news.

        :param values: of the cursor's column, one for each line.
        """
        for value, line in zip(values, lines, strict=True):
            if self._admit(value, line):
                yield line

    def cursor(self) -> Cursor | None:
        """Where the next batch goes on; None as long as nothing was seen."""
        self._forget()
        value = self._highest.isoformat() if isinstance(self._highest, date) else self._highest
        return self._changes.cursor(value, list(self._recent))

    def counts(self) -> dict[str, int]:
        """What was not written and why, and how many rows will come again with every batch."""
        return {
            "left_for_later": self._left,
            "without_cursor": self._without,
            "already_landed": self._known,
        }

    def _admit(self, value: Any, line: bytes) -> bool:
        key = key_of(self._changes.kind, value)
        if key is None:
            self._without += 1
            return True
        if self._beyond(key):
            self._left += 1
            return False
        if self._highest is None or key > self._highest:
            self._highest = key
        known = self._last is not None and key <= self._last
        if not known and key < self._asked_again():
            return True
        digest = hashlib.blake2b(line, digest_size=8).hexdigest()
        self._recent[digest] = key
        if len(self._recent) % (2 * MOST_SEEN) == 0:
            self._forget()
        if known and digest in self._before:
            self._known += 1
            return False
        return True

    def _beyond(self, key: Any) -> bool:
        """Whether a value belongs to a later batch."""
        changes = self._changes
        if changes.kind == "integer":
            return changes.until is not None and bool(key > changes.until)
        if changes.kind == "date":
            key = datetime.combine(key, datetime.min.time(), UTC)
        return bool(key >= changes.end)

    def _asked_again(self) -> Any:
        """The lowest value that the next batch will meet again."""
        overlap = self._changes.overlap
        return self._highest - overlap if overlap and self._highest is not None else self._highest

    def _forget(self) -> None:
        lowest = self._asked_again()
        self._recent = {digest: key for digest, key in self._recent.items() if key >= lowest}


def key_of(kind: str, value: Any) -> Any:
    """A value in its order, or None where it has none; a time without a zone is UTC."""
    try:
        if kind == "integer":
            if isinstance(value, float | Decimal):
                return math.floor(value)
            return None if isinstance(value, bool) else int(value)
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        if kind == "date":
            return value.date() if isinstance(value, datetime) else date(value.year, value.month, value.day)
        if not isinstance(value, datetime):
            value = datetime(value.year, value.month, value.day, tzinfo=UTC)
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except (AttributeError, TypeError, ValueError, OverflowError):
        return None
