# SPDX-License-Identifier: Apache-2.0
"""Moments as people write them."""

from __future__ import annotations

from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

from cdp_provider.core.exceptions import ConfigurationError
from cdp_provider.core.profiles.days import LATEST, next_day
from cdp_provider.core.project.conditions import parse_moment


def moment_of(given: str | date | datetime, zone: str) -> datetime:
    """A moment in UTC; a date is the end of that day in the time zone, so that the day itself is in.

    :param given: a date or a moment, also as ISO 8601 text; a moment without a zone is UTC.
    :raises ConfigurationError: it is neither.
    """
    try:
        moment = parse_moment(given)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None
    if not isinstance(moment, datetime):
        moment = next_day(moment, ZoneInfo(zone)) or LATEST
    return moment.astimezone(UTC)
