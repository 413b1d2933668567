# SPDX-License-Identifier: Apache-2.0
"""Constants of conditions: do they fit the column they are held against, and what are they in its type."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeVar

from cdp_provider.core.project.conditions import (
    OPERATORS,
    AllOf,
    AnyOf,
    Comparison,
    EventCount,
    NoneOf,
    TraitIs,
    parse_moment,
)
from cdp_provider.core.project.problems import Problem
from cdp_provider.core.project.typing import NUMERIC, TEMPORAL, column_type, trait_types

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from cdp_provider.core.project.model import Project
    from cdp_provider.core.project.streams import Stream

C = TypeVar("C", bound=Comparison)

_EQUAL = ("is", "is_not", "any_of", "none_of")
_ORDER = ("at_least", "at_most", "more_than", "less_than", "between")
_TEXT = ("contains", "starts_with", "ends_with")
_TIME = ("before", "after")
_LISTS = ("any_of", "none_of", "between")

#: Operators whose constants take the column's type; those of the others have a type of their own.
_TYPED = (*_EQUAL, *_ORDER, *_TIME)

_ALLOWED: Mapping[str, tuple[str, ...]] = {
    "json": ("exists",),
    "boolean": (*_EQUAL, "exists"),
    "string": (*_EQUAL, *_TEXT, "exists"),
    **dict.fromkeys(NUMERIC, (*_EQUAL, *_ORDER, "exists")),
    **dict.fromkeys(TEMPORAL, (*_EQUAL, *_ORDER, *_TIME, "within_last", "exists")),
}


def convert(value: Any, kind: str) -> Any:
    """A constant in the Python type of a column type.

    :raises ValueError: it is of another kind, so that the comparison would not mean what it says.
    """
    return _CONVERT[kind](value)


def comparison_problems(comparison: Comparison, kind: str, name: str) -> Iterator[Problem]:
    """What is wrong between a comparison and the column, field or trait `name` of type `kind`.

    Paths are relative to the comparison.
    """
    converted: dict[str, Any] = {}
    for operator, value in comparison.operators().items():
        if operator not in _ALLOWED[kind]:
            hint = f"{kind} takes {', '.join(_ALLOWED[kind])}"
            yield Problem((operator,), f"{name!r} is {kind}, which {operator!r} does not apply to", hint)
            continue
        try:
            converted[operator] = _converted(operator, value, kind)
        except ValueError as error:
            yield Problem((operator,), f"{name!r} is {kind}, and {error}")
    if len(converted) == len(comparison.operators()):
        yield from _contradictions(converted)


def typed(project: Project) -> Project:
    """The project with every constant of its conditions in the type of what it is compared with.

    The project must be free of problems.
    """
    streams = {stream.ref: stream for stream in project.streams()}
    types = trait_types(project.profiles, streams)
    traits = {
        name: trait.model_copy(update={"where": _filter(trait.where, trait.stream, streams)})
        if trait.where
        else trait
        for name, trait in project.profiles.traits.items()
    }
    segments = {
        name: segment.model_copy(update={"where": _condition(segment.where, types, streams)})
        for name, segment in project.segments.items()
    }
    profiles = project.profiles.model_copy(update={"traits": traits})
    return project.model_copy(update={"profiles": profiles, "segments": segments})


def _condition(node: Any, types: Mapping[str, str], streams: Mapping[str, Stream]) -> Any:
    if isinstance(node, AllOf | AnyOf | NoneOf):
        (branch,) = type(node).model_fields
        parts = tuple(_condition(part, types, streams) for part in getattr(node, branch))
        return node.model_copy(update={branch: parts})
    if isinstance(node, TraitIs):
        return _comparison(node, types[node.trait])
    if isinstance(node, EventCount) and node.where:
        return node.model_copy(update={"where": _filter(node.where, node.stream, streams)})
    return node


def _filter(
    where: Mapping[str, Comparison], stream: str, streams: Mapping[str, Stream]
) -> dict[str, Comparison]:
    return {
        name: _comparison(part, column_type(stream, name, streams) or "string")
        for name, part in where.items()
    }


def _comparison(comparison: C, kind: str) -> C:
    update = {
        OPERATORS[operator]: _converted(operator, value, kind)
        for operator, value in comparison.operators().items()
    }
    return comparison.model_copy(update=update)


def _converted(operator: str, value: Any, kind: str) -> Any:
    if operator not in _TYPED:
        return value
    if operator in _LISTS:
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
    return Decimal(str(_number(value)))


def _date(value: Any) -> date:
    moment = _moment(value)
    if isinstance(moment, datetime):
        msg = f"{moment.isoformat()} is a moment; give a date such as 2026-01-31"
        raise ValueError(msg)  # noqa: TRY004 - as above
    return moment


def _timestamp(value: Any) -> datetime:
    moment = _moment(value)
    return moment.astimezone(UTC) if isinstance(moment, datetime) else datetime.combine(moment, time(), UTC)


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


def _contradictions(given: Mapping[str, Any]) -> Iterator[Problem]:
    """Operators that no value can fulfil together; constants are in one type."""
    for operator in ("any_of", "none_of"):
        if operator in given and not given[operator]:
            yield Problem((operator,), f"{operator!r} lists nothing", "give at least one value")
            return
    others = given.keys() - {"exists", "is_not", "none_of"}
    if given.get("exists") is False and others:
        named = ", ".join(sorted(others))
        yield Problem(
            ("exists",), f"nothing is missing and fulfils {named} at the same time", "remove one of them"
        )
    if between := given.get("between"):
        if between[0] > between[1]:
            low, high = map(_shown, between)
            yield Problem(
                ("between",), f"'between' ends at {high}, before it begins at {low}", "turn it round"
            )
            return
    lower, upper = _bounds(given)
    if lower and upper and (lower[0] > upper[0] or (lower[0] == upper[0] and not (lower[1] and upper[1]))):
        message = (
            f"nothing is {lower[2]} {_shown(lower[0])} and {upper[2]} {_shown(upper[0])} at the same time"
        )
        yield Problem((upper[2],), message, "no profile could ever fulfil this")
        return
    yield from _impossible_values(given, lower, upper)


_Bound = tuple[Any, bool, str]


def _bounds(given: Mapping[str, Any]) -> tuple[_Bound | None, _Bound | None]:
    """The tightest lower and upper bound: value, whether it is included, and the operator."""
    lower = [(given[key], included, key) for key, included in _LOWER.items() if key in given]
    upper = [(given[key], included, key) for key, included in _UPPER.items() if key in given]
    if between := given.get("between"):
        lower.append((between[0], True, "between"))
        upper.append((between[1], True, "between"))
    tight_lower = max(lower, key=lambda bound: (bound[0], not bound[1]), default=None)
    tight_upper = min(upper, key=lambda bound: (bound[0], bound[1]), default=None)
    return tight_lower, tight_upper


_LOWER = {"at_least": True, "more_than": False, "after": True}
_UPPER = {"at_most": True, "less_than": False, "before": False}


def _impossible_values(
    given: Mapping[str, Any], lower: _Bound | None, upper: _Bound | None
) -> Iterator[Problem]:
    """``is`` and ``any_of`` whose every value is ruled out by another operator."""
    for operator in ("is", "any_of"):
        if operator not in given:
            continue
        wanted = given[operator] if operator == "any_of" else (given[operator],)
        possible = [
            value
            for value in wanted
            if value not in given.get("none_of", ())
            and ("is_not" not in given or value != given["is_not"])
            and (operator == "is" or "is" not in given or value == given["is"])
            and (lower is None or value > lower[0] or (lower[1] and value == lower[0]))
            and (upper is None or value < upper[0] or (upper[1] and value == upper[0]))
        ]
        if not possible:
            shown = ", ".join(map(_shown, wanted))
            yield Problem(
                (operator,),
                f"another operator rules out {shown}",
                "no profile could ever fulfil this",
            )
