# SPDX-License-Identifier: Apache-2.0
"""Comparisons that do not suit what they are held against, or that no value can fulfil."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any

from cdp_provider.core.project.constants import LISTS, convert_all
from cdp_provider.core.project.patterns import pattern_fault, portable_fault
from cdp_provider.core.project.possible import Possible, left_by
from cdp_provider.core.project.problems import Problem
from cdp_provider.core.project.typing import NUMERIC, TEMPORAL, is_list

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from zoneinfo import ZoneInfo

    from cdp_provider.core.project.conditions import Comparison

_EQUAL = ("is", "is_not", "any_of", "none_of")
_ORDER = ("at_least", "at_most", "more_than", "less_than", "between")
_TEXT = ("contains", "contains_any", "starts_with", "ends_with", "like", "matches")
_TIME = (
    *("before", "after", "today", "within_last", "before_last", "between_ago", "within_next", "after_next"),
)

#: Column type -> operators that apply to it; ``list`` stands for lists of any type.
ALLOWED: Mapping[str, tuple[str, ...]] = {
    "json": ("exists",),
    "list": ("contains", "contains_any", "exists"),
    "boolean": (*_EQUAL, "exists"),
    "string": (*_EQUAL, *_ORDER, *_TEXT, "exists"),
    **dict.fromkeys(NUMERIC, (*_EQUAL, *_ORDER, "exists")),
    **dict.fromkeys(TEMPORAL, (*_EQUAL, *_ORDER, *_TIME, "exists")),
}

_NEVER = "no profile could ever fulfil this"
_TURN = "turn it round"


def comparison_problems(
    comparison: Comparison, kind: str, name: str, zone: ZoneInfo, universe: Possible | None = None
) -> Iterator[Problem]:
    """What is wrong between a comparison and the column, field or trait `name` of type `kind`.

    Paths are relative to the comparison.

    :param zone: in which dates are days.
    :param universe: what the value can be at all, where that is known.
    """
    given, problems = comparison.operators(), []
    allowed = ALLOWED["list" if is_list(kind) else kind]
    for operator, value in given.items():
        if operator not in allowed:
            hint = f"{kind} takes {', '.join(allowed)}"
            problems.append(
                Problem((operator,), f"{name!r} is {kind}, which {operator!r} does not apply to", hint)
            )
        elif operator in LISTS and not value:
            problems.append(Problem((operator,), f"{operator!r} lists nothing", "give at least one value"))
        elif operator == "matches" and (fault := _pattern_problem(value)):
            problems.append(fault)
    if comparison.ignore_case is not None and not _has_case(given, kind):
        message = f"'ignore_case' is for texts, and nothing here is compared with one: {name!r} is {kind}"
        problems.append(Problem(("ignore_case",), message, "remove it", at_key=True))
    converted, faults = convert_all({key: given[key] for key in given if key in allowed}, kind)
    problems += [Problem((key,), f"{name!r} is {kind}, and {fault}") for key, fault in faults.items()]
    problems = problems or [*_turned(converted)]
    yield from problems or _contradictions(converted, kind, name, zone, comparison.ignore_case, universe)


def _has_case(given: Mapping[str, Any], kind: str) -> bool:
    return kind in ("string", "list of string") and bool(given.keys() - {"exists"})


def _pattern_problem(pattern: str) -> Problem | None:
    if fault := pattern_fault(pattern):
        message = f"{pattern!r} is no regular expression that RE2 takes: {fault}"
        return Problem(("matches",), message, "correct it, or use 'like' with * and ?")
    if fault := portable_fault(pattern):
        return Problem(("matches",), f"{pattern!r} cannot be used: {fault}", "write it otherwise")
    return None


def _turned(given: Mapping[str, Any]) -> Iterator[Problem]:
    """Spans that end before they begin."""
    if (between := given.get("between")) and between_turned(between):
        low, high = map(shown, between)
        yield Problem(("between",), f"'between' ends at {high}, before it begins at {low}", _TURN)
    if (ago := given.get("between_ago")) and ago[0] < ago[1]:
        message = f"'between_ago' begins {shown(ago[0])} ago, after it ends {shown(ago[1])} ago"
        yield Problem(("between_ago",), message, _TURN)


def between_turned(between: tuple[Any, Any]) -> bool:
    """Whether the first value is larger than the second; a date and a moment only when days apart."""
    low, high = between
    if isinstance(low, date) and type(low) is not type(high):
        low, high = date(low.year, low.month, low.day), date(high.year, high.month, high.day)
        return bool((low - high).days > 1)
    return bool(low > high)


def _contradictions(
    given: Mapping[str, Any],
    kind: str,
    name: str,
    zone: ZoneInfo,
    ignore_case: bool | None,
    universe: Possible | None,
) -> Iterator[Problem]:
    """Operators that no value can fulfil together, or that none can fulfil at all."""
    left = left_by(given, kind, zone, ignore_case=ignore_case)
    if not left.impossible():
        if universe is not None and (left & universe).impossible():
            operator = next(iter(given))
            missing = given.get("exists") is False
            message = f"{name!r} is never missing" if missing else f"{name!r} never has such a value"
            yield Problem((operator,), message, _NEVER)
        return
    if given.get("exists") is False:
        named = ", ".join(sorted(given.keys() - {"exists", "is_not", "none_of"}))
        message = f"nothing is missing and fulfils {named} at the same time"
        yield Problem(("exists",), message, "remove one of them")
        return
    for operator in ("is", "any_of"):
        if operator in given:
            wanted = given[operator] if operator == "any_of" else (given[operator],)
            message = f"another operator rules out {', '.join(map(shown, wanted))}"
            yield Problem((operator,), message, _NEVER)
            return
    first, last = _pair(given, kind, zone, ignore_case)
    message = f"nothing is {_named(first, given)} and {_named(last, given)} at the same time"
    yield Problem((last,), message, _NEVER)


def _pair(given: Mapping[str, Any], kind: str, zone: ZoneInfo, ignore_case: bool | None) -> tuple[str, str]:
    """Two operators that rule each other out; the first and the last one when it takes more than two."""
    keys = list(given)
    for i, last in enumerate(keys):
        for first in keys[:i]:
            two = {first: given[first], last: given[last]}
            if left_by(two, kind, zone, ignore_case=ignore_case).impossible():
                return first, last
    return keys[0], keys[-1]


def _named(operator: str, given: Mapping[str, Any]) -> str:
    value = given[operator]
    values = value if isinstance(value, tuple) else (value,)
    return f"{operator} {', '.join(map(shown, values))}"


def shown(value: Any) -> str:
    """A constant as a project file has it."""
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value)[:60] if isinstance(value, str) else str(value)
