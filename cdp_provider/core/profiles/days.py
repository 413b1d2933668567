# SPDX-License-Identifier: Apache-2.0
"""Calendar days of a time zone as moments, and back."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

_DAY, _SECOND = timedelta(days=1), timedelta(seconds=1)

#: The ends of what Python can say, and more than any warehouse is asked for.
EARLIEST, LATEST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


def first_moment(day: date, zone: ZoneInfo) -> datetime:
    """The moment, in UTC, at which `day` begins in `zone`; that of the next day if `day` is skipped there."""
    midnight = datetime.combine(day, time(), zone)
    try:
        begins = midnight.astimezone(UTC)
        if begins.astimezone(zone).replace(tzinfo=None) == midnight.replace(tzinfo=None):
            return begins
        # The clocks jump over midnight: the day begins when they do, which lies between these two.
        before = midnight.replace(fold=1).astimezone(UTC) - _SECOND
    except OverflowError:
        return EARLIEST if day.year == 1 else LATEST
    while begins - before > _SECOND:
        middle = before + (begins - before) // _SECOND // 2 * _SECOND
        if middle.astimezone(zone).date() < day:
            before = middle
        else:
            begins = middle
    return begins


def next_day(day: date, zone: ZoneInfo) -> datetime | None:
    """The moment at which `day` is over; None for the last day that there is."""
    return None if day == date.max else first_moment(day + _DAY, zone)


def day_of(moment: datetime, zone: ZoneInfo) -> date:
    """The day that holds the moment: the last one that begins at or before it."""
    try:
        day = moment.astimezone(zone).date()
    except OverflowError:
        return date.min if moment.year == 1 else date.max
    while day < date.max and first_moment(day + _DAY, zone) <= moment:
        day += _DAY
    while day > date.min and first_moment(day, zone) > moment:
        day -= _DAY
    return day


def first_day(moment: datetime, zone: ZoneInfo) -> date:
    """The first day that begins at or after the moment."""
    try:
        day = moment.astimezone(zone).date()
    except OverflowError:
        return date.min if moment.year == 1 else date.max
    while day > date.min and first_moment(day - _DAY, zone) >= moment:
        day -= _DAY
    while day < date.max and first_moment(day, zone) < moment:
        day += _DAY
    return day
