# SPDX-License-Identifier: Apache-2.0
"""How far an incremental source has been read."""

from __future__ import annotations

import hashlib
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from cdp_provider.core.exceptions import ConfigurationError
from cdp_provider.core.ingest.paging import dig

if TYPE_CHECKING:
    from cdp_provider.core.ingest.base import Cursor

_KINDS = ("timestamp", "date", "integer", "string")
#: So many records are remembered at the most; with more of them, all are read again.
_MOST_SEEN = 10_000


class Progress:
    """Sees every record go by; remembers the highest cursor value and turns away what lies in the future.

    A source is asked from the highest value on, that value (and the overlap before it) included, as a record
    may have been late. Those that an earlier batch has seen just so are told by their content and left out.

    A record without a readable value is let through: parsing judges it, and it moves nothing.

    :param kind: column type of the cursor's column.
    :param path: where the value stands in a record, dotted.
    :param before: cursor of the batch before; one of another column counts as none.
    :raises ConfigurationError: the column's type has no useful order.
    """

    def __init__(
        self, column: str, kind: str, path: str, overlap: timedelta, end: datetime, before: Cursor | None
    ) -> None:
        if kind not in _KINDS:
            msg = f"the cursor column {column!r} is of type {kind}; it must be one of {', '.join(_KINDS)}"
            raise ConfigurationError(msg)
        if overlap and kind != "timestamp":
            msg = f"overlap needs a cursor of type timestamp, but {column!r} is of type {kind}; leave it out"
            raise ConfigurationError(msg)
        self._column, self._kind, self._path, self._overlap, self._end = column, kind, path, overlap, end
        standing = before if before and before.get("column") == column else {}
        self._text: Any = standing.get("value")
        self._highest = self._start = self._key(self._text)
        self._before = frozenset(standing.get("seen", ()))
        self._recent: dict[str, Any] = {}
        #: Records turned away.
        self.left = 0
        #: Records that an earlier batch holds.
        self.known = 0

    def since(self) -> Any:
        """Value of the query parameter, or None when everything is wanted."""
        if self._overlap and isinstance(self._highest, datetime):
            return (self._highest - self._overlap).isoformat().replace("+00:00", "Z")
        return self._text

    def admit(self, record: Any, content: bytes) -> bool:
        """Whether the record belongs to this window or an earlier one, and is news.

        :param content: the record as it is written, the same for the same record.
        """
        text = dig(record, self._path)
        key = self._key(text)
        if key is None:
            return True
        if isinstance(key, datetime) and key >= self._end:
            self.left += 1
            return False
        digest = hashlib.blake2b(content, digest_size=8).hexdigest()
        if self._highest is None or key > self._highest:
            self._text, self._highest = text, key
        if key >= self._asked_again():
            self._recent[digest] = key
            if len(self._recent) % (2 * _MOST_SEEN) == 0:
                self._forget()
        if digest in self._before:
            self.known += 1
            return False
        return True

    def cursor(self) -> Cursor | None:
        """Where the next batch goes on; None as long as nothing was seen."""
        if self._text is None:
            return None
        self._forget()
        seen = {*self._recent, *self._before} if self._highest == self._start else {*self._recent}
        kept = {"seen": sorted(seen)} if 0 < len(seen) <= _MOST_SEEN else {}
        return {"column": self._column, "value": self._text, **kept}

    def counts(self) -> dict[str, int]:
        """How many records were not written, and why."""
        return {"left_for_later": self.left, "already_landed": self.known}

    def _asked_again(self) -> Any:
        """The lowest value that the next batch will see again."""
        return self._highest - self._overlap if isinstance(self._highest, datetime) else self._highest

    def _forget(self) -> None:
        lowest = self._asked_again()
        self._recent = {digest: key for digest, key in self._recent.items() if key >= lowest}

    def _key(self, value: Any) -> Any:
        """The value in its order, or None where it has none."""
        if self._kind == "string":
            return value if isinstance(value, str) and value else None
        try:
            if self._kind == "integer":
                return None if isinstance(value, bool) else int(value)
            if self._kind == "date":
                return datetime.combine(date.fromisoformat(value), datetime.min.time(), UTC)
            moment = datetime.fromisoformat(value)
        except (TypeError, ValueError, OverflowError):
            return None
        try:
            return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        except OverflowError:
            return None
