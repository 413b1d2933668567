# SPDX-License-Identifier: Apache-2.0
"""Constants of comparisons, in the Python type of what they are held against."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, date, datetime
from decimal import Decimal
from math import isfinite
from typing import TYPE_CHECKING, Any

from cdp_provider.core.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_MAX_INTEGER = 2**63
_MAX_DECIMAL = Decimal(10) ** 22
_SMALLEST = Decimal("0.000001")


def read(given: Any, kind: str, label: str) -> Any:
    """A constant as a value of a column type; an integer may be held against a Decimal.

    :param label: what to call the left side in an error.
    :raises ConfigurationError: the constant is of another kind.
    """
    return _READERS[kind](given, label)


def _text(given: Any, label: str) -> str:
    if not isinstance(given, str):
        raise _mismatch(given, label, "a text; put it in quotes")
    if "\x00" in given:
        raise _mismatch(given, label, "a text without NUL characters")
    return given


def _exact(given: Any, label: str) -> int | Decimal:
    """A whole number as int, any other as Decimal."""
    _number(given, label)
    exact = Decimal(repr(given)) if isinstance(given, float) else Decimal(given)
    if exact == exact.to_integral_value() and abs(exact) < _MAX_INTEGER:
        return int(exact)
    if abs(exact) >= _MAX_DECIMAL or exact != exact.quantize(_SMALLEST):
        raise _mismatch(given, label, "a number with at most 22 digits before and 6 behind the point")
    return exact


def _decimal(given: Any, label: str) -> Decimal:
    return Decimal(_exact(given, label))


def _number(given: Any, label: str) -> float:
    if not isinstance(given, bool) and isinstance(given, int | float | Decimal):
        with suppress(OverflowError):
            if isfinite(number := float(given)):
                return number
    raise _mismatch(given, label, "a finite number, without quotes")


def _boolean(given: Any, label: str) -> bool:
    if not isinstance(given, bool):
        raise _mismatch(given, label, "true or false")
    return given


def _date(given: Any, label: str) -> date:
    """A day; a moment is none."""
    if isinstance(given, str):
        with suppress(ValueError):
            return date.fromisoformat(given)
    if isinstance(given, datetime) or not isinstance(given, date):
        raise _mismatch(given, label, "a date, such as 2026-01-31")
    return given


def _moment(given: Any, label: str) -> date | datetime:
    """A whole day, or a moment in UTC, which one without a time zone is in already."""
    if isinstance(given, str):
        try:
            short = len(given) <= len("2026-01-31")
            given = date.fromisoformat(given) if short else datetime.fromisoformat(given)
        except ValueError:
            raise _mismatch(given, label, "a date or a moment, such as 2026-01-31T12:00:00Z") from None
    if isinstance(given, datetime):
        return given.replace(tzinfo=UTC) if given.tzinfo is None else given.astimezone(UTC)
    if isinstance(given, date):
        return given
    raise _mismatch(given, label, "a date or a moment, such as 2026-01-31T12:00:00Z")


def _mismatch(given: Any, label: str, wanted: str) -> ConfigurationError:
    return ConfigurationError(f"{label} is compared with {given!r}; it wants {wanted}")


_READERS: Mapping[str, Callable[[Any, str], Any]] = {
    "string": _text,
    "integer": _exact,
    "number": _number,
    "decimal": _decimal,
    "boolean": _boolean,
    "date": _date,
    "timestamp": _moment,
}
