# SPDX-License-Identifier: Apache-2.0
"""How far an incremental source has been read."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from cdp_provider.core.ingest.dotted import dig
from cdp_provider.core.ingest.moments import floor, read_day, reader

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cdp_provider.core.ingest.base import Cursor
    from cdp_provider.core.ingest.moments import Form
    from cdp_provider.core.project.streams import Column

#: So many records are remembered, the newest; any before them are landed again as long as they come again.
_MOST_SEEN = 10_000


class Progress:
    """Sees every record go by; remembers the highest cursor value and turns away what lies in the future.

    A source is asked from the highest value on, that value (and the overlap before it) included, as a record
    may have been late. Those that an earlier batch has seen just so are told by their content and left out.

    A record without a readable value is let through: parsing judges it, and it moves nothing.

    :param name: of the cursor's column, which is of type timestamp, date, integer or string.
    :param end: of the window.
    :param before: cursor of the batch before; one of another column counts as none.
    :param until: where this very batch ended when it was landed before; bounds values that are no time.
    :param form: how the source is asked; a coarse one makes it give more again than the overlap.
    :param stop: the source gives the newest first, so what lies below `before` is known.
    """

    def __init__(
        self,
        name: str,
        column: Column,
        end: datetime,
        before: Cursor | None,
        *,
        until: Cursor | None = None,
        overlap: timedelta = timedelta(0),
        form: Form | None = None,
        stop: bool = False,
    ) -> None:
        self._name, self._path, self._overlap, self._form = name, column.path or name, overlap, form
        self._key = _key(column)
        standing = before if before and before.get("column") == name else {}
        #: The highest value, as the source wrote it, and in its order; None: nothing was seen.
        self.text: Any = standing.get("value")
        self.highest = self._start = self._key(self.text)
        #: The lowest value that the source is asked for; None for all.
        self.floor = self._asked_again()
        self._known_below = self.floor if stop else None
        self._before = frozenset(standing.get("seen", ()))
        self._inside = self._bound(column, end, until)
        self._recent: list[tuple[Any, str]] = []
        #: The lowest value that is worth remembering, once there were too many.
        self._remembered: Any = None
        self._span: tuple[Any, Any] | None = None
        #: Records turned away.
        self.left = 0
        #: Records that an earlier batch holds.
        self.known = 0

    def admit(self, records: Sequence[Any], lines: Sequence[bytes]) -> list[bytes]:
        """The lines of a page's records that belong to this window or an earlier one, and are news.

        :param lines: the records as they are written; the same for the same record.
        """
        path = self._path
        if "." in path:
            values = [dig(record, path) for record in records]
        else:
            values = [record.get(path) if type(record) is dict else None for record in records]
        keys = list(map(self._key, values))
        self._move(keys, values)
        lowest, inside, start, floor = self._asked_again(), self._inside, self._start, self.floor
        if self._remembered is not None:
            lowest = max(lowest, self._remembered)
        if len(self._recent) > 8 * _MOST_SEEN:
            self._forget()
        kept = []
        for key, line in zip(keys, lines, strict=True):
            if key is None:
                kept.append(line)
            elif inside is not None and not inside(key):
                self.left += 1
            elif (key < lowest and (start is None or not floor <= key <= start)) or self._is_news(key, line):
                # Most records lie neither where the next batch will look again nor where this one does.
                if self._known_below is not None and key < self._known_below:
                    self.known += 1
                else:
                    kept.append(line)
        return kept

    def take_span(self) -> tuple[Any, Any] | None:
        """The lowest and the highest value that came since the last call; None when none did."""
        span, self._span = self._span, None
        return span

    def cursor(self) -> Cursor | None:
        """Where the next batch goes on; None as long as nothing was seen."""
        if self.text is None:
            return None
        self._forget()
        seen = {digest for _, digest in self._recent}
        if self.highest == self._start:
            seen.update(sorted(self._before - seen)[: _MOST_SEEN - len(seen)])
        kept = {"seen": sorted(seen)} if seen else {}
        return {"column": self._name, "value": self.text, **kept}

    def counts(self) -> dict[str, int]:
        """How many records were not written, and why."""
        return {"left_for_later": self.left, "already_landed": self.known}

    def _bound(self, column: Column, end: datetime, until: Cursor | None) -> Callable[[Any], bool] | None:
        """Tells whether a value belongs to the window; None: all do."""
        if column.type in ("timestamp", "date"):
            return end.__gt__
        last = self._key(until.get("value")) if until and until.get("column") == self._name else None
        return None if last is None else lambda key: bool(key <= last)

    def _move(self, keys: list[Any], values: list[Any]) -> None:
        """Take the highest value of a page."""
        readable = [key for key in keys if key is not None]
        if not readable:
            return
        low, high = min(readable), max(readable)
        self._span = (
            (low, high) if self._span is None else (min(low, self._span[0]), max(high, self._span[1]))
        )
        if self._inside is not None and not self._inside(high):
            high = max(filter(self._inside, readable), default=None)
        if high is not None and (self.highest is None or high > self.highest):
            self.highest, self.text = high, values[keys.index(high)]

    def _is_news(self, key: Any, line: bytes) -> bool:
        digest = hashlib.blake2b(line, digest_size=8).hexdigest()
        self._recent.append((key, digest))
        if digest in self._before:
            self.known += 1
            return False
        return True

    def _asked_again(self) -> Any:
        """The lowest value that the next batch will see again."""
        if not isinstance(self.highest, datetime):
            return self.highest
        try:
            lowest = self.highest - self._overlap
        except OverflowError:
            return self.highest
        return lowest if self._form is None else floor(lowest, self._form)

    def _forget(self) -> None:
        lowest = self._asked_again()
        self._recent = sorted(pair for pair in self._recent if pair[0] >= lowest)
        if len(self._recent) > _MOST_SEEN:
            self._recent = self._recent[-_MOST_SEEN:]
            self._remembered = self._recent[0][0]


def _key(column: Column) -> Callable[[Any], Any]:
    """Value -> the value in its order, or None where it has none."""
    if column.type == "timestamp":
        return reader(column.format)
    return {"date": read_day, "integer": _whole}.get(column.type, _text)


def _whole(value: Any) -> int | None:
    try:
        return None if isinstance(value, bool) else int(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
