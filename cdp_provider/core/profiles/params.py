# SPDX-License-Identifier: Apache-2.0
"""The values that a statement binds, collected while its text is written."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple
from zoneinfo import ZoneInfo

from cdp_provider.core.profiles.days import EARLIEST, LATEST

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from cdp_provider.core.warehouse import Warehouse


class Query(NamedTuple):
    """A statement, and the values that it binds by name."""

    sql: str
    params: Mapping[str, Any]


_NOW = "now"


@dataclass
class Watch:
    """Whether what was written meanwhile depends on now."""

    relative: bool = False


class Params:
    """The values of one statement, collected while its text is written.

    Equal values share one name, so equal conditions become equal text. A value that follows from now has a
    name of its own, though a constant may be equal to it by chance.

    :param now: the end of the window; every relative date counts from it.
    :param zone: name of the time zone in which dates are days.
    """

    def __init__(self, warehouse: Warehouse, now: datetime, zone: str = "UTC") -> None:
        self.warehouse = warehouse
        self.now = now
        self.zone = ZoneInfo(zone)
        self._values: dict[str, Any] = {}
        self._meanings: dict[str, str] = {}
        self._names: dict[tuple[str, Any], str] = {}
        self._watches: list[Watch] = []

    def bind(self, value: Any, kind: str) -> str:
        """SQL for `value` as the project's column type `kind`."""
        # repr tells apart what Python holds equal: 1 and 1.0, 0.0 and -0.0.
        return self._bound(value, kind, repr(value))

    def relative(self, value: Any, kind: str, meaning: str) -> str:
        """As :meth:`bind`, for a value that follows from now; `meaning` says how."""
        for watch in self._watches:
            watch.relative = True
        return self._bound(value, kind, f"{_NOW}: {meaning}")

    def moment(self, ago: timedelta = timedelta()) -> str:
        """SQL for now, or for so long before it."""
        return self.relative(self.at(ago), "timestamp", str(ago))

    def at(self, ago: timedelta) -> datetime:
        """So long before now, or as long as can be said."""
        try:
            return self.now - ago
        except OverflowError:
            return EARLIEST if ago > timedelta() else LATEST

    @contextmanager
    def watched(self) -> Iterator[Watch]:
        """Tells whether what is written within depends on now."""
        watch = Watch()
        self._watches.append(watch)
        try:
            yield watch
        finally:
            self._watches.pop()

    def meaning(self, name: str) -> str:
        """What a name stands for, in words that stay the same from run to run."""
        return self._meanings[name]

    def is_relative(self, name: str) -> bool:
        """Whether what a name stands for follows from now."""
        return f"{_NOW}: " in self._meanings[name]

    def query(self, sql: str) -> Query:
        """The finished statement."""
        return Query(sql, dict(self._values))

    def _bound(self, value: Any, kind: str, meaning: str) -> str:
        name = self._names.setdefault((kind, meaning), f"p{len(self._names)}")
        self._values[name] = value
        self._meanings[name] = f"{kind} {meaning}"
        return f"cast(:{name} as {self.warehouse.types[kind]})"
