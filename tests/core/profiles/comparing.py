# SPDX-License-Identifier: Apache-2.0
"""What comparisons mean, in plain Python, one value at a time."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from zoneinfo import ZoneInfo

    from cdp_provider.core.project.conditions import Comparison

_MISSING_TOO = {"is_not", "none_of"}
_CASELESS = {"contains", "contains_any", "starts_with", "ends_with"}


def fulfils(value: Any, comparison: Comparison, now: datetime, zone: ZoneInfo) -> bool:
    held = Held(value, now, zone, ignore_case=comparison.ignore_case)
    return all(held.holds(name, given) for name, given in comparison.operators().items())


def is_date(value: Any) -> bool:
    return isinstance(value, date) and not isinstance(value, datetime)


def first_moment(day: date, zone: ZoneInfo) -> datetime:
    """The first microsecond that the zone's calendar counts to the day, or to a later one."""
    low = datetime.combine(day, time(), UTC) - timedelta(hours=36)
    high = low + timedelta(hours=72)
    while high - low > timedelta(microseconds=1):
        middle = low + (high - low) / 2
        low, high = (low, middle) if middle.astimezone(zone).date() >= day else (middle, high)
    return high


def aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


class Held:
    """A value held against constants."""

    def __init__(self, value: Any, now: datetime, zone: ZoneInfo, *, ignore_case: bool | None) -> None:
        self.value = aware(value) if isinstance(value, datetime) else value
        self.now, self.zone, self.ignore_case = now, zone, ignore_case

    def holds(self, name: str, given: Any) -> bool:
        if name == "exists":
            return (self.value is not None) == given
        if name == "today":
            return self._is_today() == given
        if self.value is None:
            return name in _MISSING_TOO
        if name in _SINCE_NOW:
            return _SINCE_NOW[name](self._instant(), self.now, given)
        if isinstance(self.value, list):
            members = given if name == "contains_any" else (given,)
            return any(type(m) is type(c) and m == c for m in self.value for c in members)
        if name in _ORDER:
            return _ORDER[name](self, given)
        fold = name in _CASELESS if self.ignore_case is None else self.ignore_case
        lower = str.lower if fold else str
        constants = [lower(c) for c in (given if isinstance(given, tuple) else (given,))]
        return any(_TEXT[name](lower(self.value), constant) for constant in constants)

    def _is_today(self) -> bool:
        return self.value is not None and self.order(self.now.astimezone(self.zone).date()) == 0

    def _instant(self) -> datetime:
        return first_moment(self.value, self.zone) if is_date(self.value) else self.value

    def order(self, constant: Any) -> int:
        """Below 0, 0 or above 0: how the value lies to the constant. A date is the whole of its day."""
        value: Any = self.value
        if isinstance(value, datetime):
            if is_date(constant):
                value = value.astimezone(self.zone).date()
            else:
                constant = aware(constant)
        elif isinstance(value, float):
            constant = float(constant)
        elif isinstance(value, int | Decimal) and isinstance(constant, float):
            constant = Decimal(repr(constant))
        elif isinstance(value, str) and self.ignore_case:
            value, constant = value.lower(), constant.lower()
        return int(value > constant) - int(value < constant)


_ORDER: dict[str, Callable[[Held, Any], bool]] = {
    "is": lambda held, given: held.order(given) == 0,
    "is_not": lambda held, given: held.order(given) != 0,
    "any_of": lambda held, given: any(held.order(constant) == 0 for constant in given),
    "none_of": lambda held, given: all(held.order(constant) != 0 for constant in given),
    "at_least": lambda held, given: held.order(given) >= 0,
    "after": lambda held, given: held.order(given) >= 0,
    "at_most": lambda held, given: held.order(given) <= 0,
    "more_than": lambda held, given: held.order(given) > 0,
    "less_than": lambda held, given: held.order(given) < 0,
    "before": lambda held, given: held.order(given) < 0,
    "between": lambda held, given: held.order(given[0]) >= 0 and held.order(given[1]) <= 0,
}
_SINCE_NOW: dict[str, Callable[[datetime, datetime, Any], bool]] = {
    "within_last": lambda at, now, given: now - given <= at < now,
    "before_last": lambda at, now, given: at < now - given,
    "between_ago": lambda at, now, given: now - max(given) <= at <= now - min(given),
    "within_next": lambda at, now, given: now <= at < now + given,
    "after_next": lambda at, now, given: at >= now + given,
}
_TEXT: dict[str, Callable[[str, str], bool]] = {
    "contains": lambda text, part: part in text,
    "contains_any": lambda text, part: part in text,
    "starts_with": str.startswith,
    "ends_with": str.endswith,
    "like": lambda text, pattern: _whole(_like(pattern), text),
    "matches": lambda text, pattern: _whole(pattern, text),
}


def _whole(pattern: str, text: str) -> bool:
    return re.fullmatch(pattern, text, re.ASCII | re.DOTALL) is not None


def _like(pattern: str) -> str:
    return "".join({"*": ".*", "?": "."}.get(sign, re.escape(sign)) for sign in pattern)
