# SPDX-License-Identifier: Apache-2.0
"""How far an incremental source has been read."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from cdp_provider.core.exceptions import ConfigurationError
from cdp_provider.core.ingest.paging import dig

if TYPE_CHECKING:
    from cdp_provider.core.ingest.base import Cursor

_KINDS = ("timestamp", "date", "integer", "string")


class Progress:
    """Sees every record go by; remembers the highest cursor value and turns away what lies in the future.

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
        self._text: Any = before["value"] if before and before.get("column") == column else None
        self._highest = self._key(self._text)
        #: Records turned away.
        self.left = 0

    def since(self) -> Any:
        """Value of the query parameter, or None when everything is wanted."""
        if self._overlap and isinstance(self._highest, datetime):
            return (self._highest - self._overlap).isoformat().replace("+00:00", "Z")
        return self._text

    def admit(self, record: Any) -> bool:
        """Whether the record belongs to this window or an earlier one."""
        text = dig(record, self._path)
        key = self._key(text)
        if key is None:
            return True
        if isinstance(key, datetime) and key >= self._end:
            self.left += 1
            return False
        if self._highest is None or key > self._highest:
            self._text, self._highest = text, key
        return True

    def cursor(self) -> Cursor | None:
        """Where the next batch goes on; None as long as nothing was seen."""
        return None if self._text is None else {"column": self._column, "value": self._text}

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
