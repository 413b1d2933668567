# SPDX-License-Identifier: Apache-2.0
"""Constants of conditions, in the type of what they are held against."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeVar

from cdp_provider.core.project.conditions import OPERATORS, parse_moment
from cdp_provider.core.project.typing import element, is_list

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cdp_provider.core.project.conditions import Comparison

C = TypeVar("C", bound="Comparison")

#: Operators that take several constants; of those, `between` two.
LISTS = ("any_of", "none_of", "contains_any", "between")

#: Operators whose constants take the type of the value; those of the others have a type of their own.
_TYPED = frozenset(
    {
        *("is", "is_not", "any_of", "none_of", "at_least", "at_most", "more_than", "less_than", "between"),
        *("before", "after", "contains", "contains_any"),
    }
)

#: What a column of type decimal holds.
_MOST_DECIMAL, _LEAST_DECIMAL = Decimal(10) ** 22, Decimal("0.000001")


def convert(value: Any, kind: str) -> Any:
    """A constant in the Python type of a column type.

    Held against timestamps, a date stays one: it means the whole day. Held against a list, it is a member.

    :raises ValueError: it is of another kind, so that the comparison would not mean what it says.
    """
    return _CONVERT[element(kind) if is_list(kind) else kind](value)


def convert_all(operators: Mapping[str, Any], kind: str) -> tuple[dict[str, Any], dict[str, str]]:
    """The constants of a comparison in the type of what they are held against, and what is wrong with others.

    :param operators: YAML key -> constant.
    """
    converted: dict[str, Any] = {}
    faults: dict[str, str] = {}
    for operator, value in operators.items():
        try:
            converted[operator] = _converted(operator, value, kind)
        except ValueError as error:
            faults[operator] = str(error)
    return converted, faults


def typed_comparison(comparison: C, kind: str) -> C:
    """The comparison with its constants in the type of what it is held against.

    :raises ValueError: one does not fit.
    """
    update = {
        OPERATORS[operator]: _converted(operator, value, kind)
        for operator, value in comparison.operators().items()
        if operator in _TYPED
    }
    return comparison.model_copy(update=update) if update else comparison


def _converted(operator: str, value: Any, kind: str) -> Any:
    if operator not in _TYPED:
        return value
    if operator in LISTS:
        return tuple(convert(item, kind) for item in value)
    return convert(value, kind)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    msg = f"{_shown(value)} is not; put it in quotes if it is meant as text"
    raise ValueError(msg)


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    msg = f"{_shown(value)} is neither true nor false"
    raise ValueError(msg)


def _number(value: Any) -> int | float | Decimal:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        msg = f"{_shown(value)} is no number"
        raise ValueError(msg)  # noqa: TRY004 - pydantic and the callers take a ValueError
    if not math.isfinite(value):
        msg = f"{value} compares with nothing; give a finite number"
        raise ValueError(msg)
    return value


def _integer(value: Any) -> int:
    number = _number(value)
    whole = int(number)
    if number != whole:
        msg = f"{number} is no whole number"
        raise ValueError(msg)
    if not -(2**63) <= whole < 2**63:
        msg = f"{number} does not fit into 64 bits"
        raise ValueError(msg)
    return whole


def _decimal(value: Any) -> Decimal:
    number = Decimal(str(_number(value)))
    if abs(number) >= _MOST_DECIMAL or number != number.quantize(_LEAST_DECIMAL):
        msg = f"{value} has more than 22 digits before or 6 behind the point"
        raise ValueError(msg)
    return number


def _date(value: Any) -> date:
    moment = _moment(value)
    if isinstance(moment, datetime):
        msg = f"{moment.isoformat()} is a moment; give a date such as 2026-01-31"
        raise ValueError(msg)  # noqa: TRY004 - as above
    return moment


def _timestamp(value: Any) -> date | datetime:
    moment = _moment(value)
    return moment.astimezone(UTC) if isinstance(moment, datetime) else moment


def _moment(value: Any) -> date | datetime:
    try:
        return parse_moment(value)
    except ValueError:
        msg = f"{_shown(value)} is no date; write 2026-01-31 or 2026-01-31T10:00:00Z"
        raise ValueError(msg) from None


def _json(value: Any) -> Any:
    msg = f"{_shown(value)} cannot be compared with it"
    raise ValueError(msg)


_CONVERT: Mapping[str, Callable[[Any], Any]] = {
    "string": _text,
    "boolean": _boolean,
    "integer": _integer,
    "number": lambda value: float(_number(value)),
    "decimal": _decimal,
    "date": _date,
    "timestamp": _timestamp,
    "json": _json,
}


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, date | Decimal) else repr(value)[:60]
