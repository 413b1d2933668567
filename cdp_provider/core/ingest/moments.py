# SPDX-License-Identifier: Apache-2.0
"""Moments as sources write them, and back."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

#: How a moment is written: ISO 8601 in UTC, seconds or milliseconds since 1970, a day.
Form: TypeAlias = Literal["iso", "unix", "unix_ms", "date"]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: The smallest step that a form can tell; ISO texts tell microseconds.
_GRAIN = {"unix": timedelta(seconds=1), "unix_ms": timedelta(milliseconds=1), "date": timedelta(days=1)}


def write(moment: datetime, form: Form) -> str | int:
    """The moment in a form; what the form cannot tell is cut off.

    :param moment: in UTC.
    """
    if form == "iso":
        return moment.isoformat().replace("+00:00", "Z")
    if form == "date":
        return moment.date().isoformat()
    return (moment - EPOCH) // _GRAIN[form]


def floor(moment: datetime, form: Form) -> datetime:
    """The moment that :func:`write` tells."""
    grain = _GRAIN.get(form)
    return moment if grain is None else moment - (moment - EPOCH) % grain


def ceil(moment: datetime, form: Form) -> datetime:
    """The first moment from this one on that the form can tell."""
    below = floor(moment, form)
    return moment if below == moment else below + _GRAIN[form]


def reader(form: Literal["unix", "unix_ms"] | None) -> Callable[[Any], datetime | None]:
    """A function that reads a timestamp, in UTC; None for what is none.

    :param form: of timestamps that are numbers; None: ISO 8601, where no zone means UTC.
    """
    if form is None:
        return _moment
    scale = 1 if form == "unix" else 1000
    return lambda value: _since_1970(value, scale)


def read_day(value: Any) -> datetime | None:
    """The first moment of a day written as ``2026-07-01``; None for what is none."""
    try:
        return datetime.combine(date.fromisoformat(value), datetime.min.time(), UTC)
    except (TypeError, ValueError):
        return None


def _moment(value: Any) -> datetime | None:
    try:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is UTC:
            return moment
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        return None


def _since_1970(value: Any, scale: int) -> datetime | None:
    if isinstance(value, bool):
        return None
    try:
        whole = int(value) if isinstance(value, int | str) else float(value)
    except (TypeError, ValueError):
        try:
            whole = float(value)
        except (TypeError, ValueError):
            return None
    try:
        return EPOCH + timedelta(seconds=whole) if scale == 1 else EPOCH + timedelta(milliseconds=whole)
    except (ValueError, OverflowError):
        return None
