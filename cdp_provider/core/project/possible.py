# SPDX-License-Identifier: Apache-2.0
"""Which values a comparison leaves possible: enough to see that none is left, never more than is certain."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any, TypeAlias

from cdp_provider.core.project.spans import (
    EVERYTHING,
    HIGHEST,
    LOWEST,
    NOTHING,
    Spans,
    after,
    before,
    both,
    only_points,
    outside,
    points,
    span,
    union,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from zoneinfo import ZoneInfo

    from cdp_provider.core.project.spans import Cut

#: Held against the value itself, the value in lower case, its distance from now, and whether it lies today.
VALUE, FOLDED, NOW, TODAY = "value", "folded", "now", "today"

#: Operators that a missing value fulfils too.
_OF_MISSING = frozenset({"is_not", "none_of"})
_EQUAL = ("is", "is_not", "any_of", "none_of")
_LOWER = {"at_least": before, "after": before, "more_than": after}
_UPPER = {"at_most": after, "less_than": before, "before": before}

#: Now and the first moment of its day are never farther apart, wherever the clocks stand.
_ANY_DAY = timedelta(hours=49)
_ZERO, _DAY = timedelta(), timedelta(days=1)

#: With more of them in a pattern, holding a text against it could take long.
_MOST_STARS = 3

Test: TypeAlias = "Callable[[str], bool]"


@dataclass(frozen=True, slots=True)
class Possible:
    """Values that may still be there.

    :param missing: there may be none at all.
    :param nullable: that is possible to begin with.
    :param scales: scale -> what is left there; a scale that is not named is not restricted.
    :param tests: what a text must fulfil besides; True when that is not certain.
    :param exact: nothing was left out, so that the opposite can be told too.
    """

    missing: bool = True
    nullable: bool = True
    scales: Mapping[str, Spans] = field(default_factory=dict)
    tests: tuple[Test, ...] = ()
    exact: bool = True

    def __and__(self, other: Possible) -> Possible:
        """What both leave."""
        scales = dict(self.scales)
        for scale, spans in other.scales.items():
            scales[scale] = both(scales[scale], spans) if scale in scales else spans
        return Possible(
            self.missing and other.missing,
            self.nullable and other.nullable,
            scales,
            self.tests + other.tests,
            self.exact and other.exact,
        )

    def impossible(self) -> bool:
        """Whether certainly nothing is left."""
        if self.missing:
            return False
        if not all(self.scales.values()):
            return True
        values = only_points(self.scales[VALUE]) if self.tests and VALUE in self.scales else None
        return values is not None and not any(all(test(value) for test in self.tests) for value in values)

    def opposite(self, universe: Possible) -> Possible | None:
        """What is left when this does not hold; None when that cannot be told.

        :param universe: what there can be at all.
        """
        if not self.exact or self.tests or len(self.scales) > 1:
            return None
        scales = {scale: outside(spans) for scale, spans in self.scales.items()} or {VALUE: NOTHING}
        return universe & Possible(not self.missing, scales=scales)


#: What there can be of a value that is never missing.
NEVER_MISSING = Possible(missing=False, nullable=False)
_THERE = Possible(missing=False)


def among(spans: Spans, *, nullable: bool) -> Possible:
    """A value that is one of these, or missing."""
    return Possible(nullable, nullable, {VALUE: spans})


def either(*, nullable: bool) -> Possible:
    """A boolean."""
    return among(points((False, True)), nullable=nullable)


def left_by(
    operators: Mapping[str, Any], kind: str, zone: ZoneInfo, *, ignore_case: bool | None = None
) -> Possible:
    """What a comparison leaves of a value.

    :param operators: YAML key -> constant in the type of the value.
    :param kind: column type of the value.
    :param zone: in which a date is a day, where it is held against moments.
    """
    left = either(nullable=True) if kind == "boolean" else Possible()
    for operator, constant in operators.items():
        left &= _left(operator, constant, zone if kind == "timestamp" else None, ignore_case)
    return left


def _left(operator: str, constant: Any, zone: ZoneInfo | None, ignore_case: bool | None) -> Possible:
    if operator == "exists":
        return _THERE if constant else Possible(scales={VALUE: NOTHING})
    if operator == "today":
        today = {TODAY: points((constant,))}
        return _near_now(today) if constant else Possible(scales=today, exact=False)
    if operator in _EQUAL:
        values = constant if operator in ("any_of", "none_of") else (constant,)
        negated = operator in _OF_MISSING
        if ignore_case and isinstance(constant, str | tuple):
            return _folded(values, negated=negated)
        spans = union(_whole(value, zone) for value in values)
        return Possible(negated, scales={VALUE: outside(spans) if negated else spans})
    if operator in _LOWER or operator in _UPPER or operator == "between":
        if ignore_case:
            return replace(_THERE, exact=False)
        return replace(_THERE, scales={VALUE: _bounded(operator, constant, zone)})
    if (relative := _relative(operator, constant)) is not None:
        return replace(_THERE, scales={NOW: relative})
    return replace(_THERE, tests=_tests(operator, constant, ignore_case), exact=False)


def _near_now(scales: dict[str, Spans]) -> Possible:
    day = span(before(-_ANY_DAY), after(_ANY_DAY))
    return replace(_THERE, scales={**scales, NOW: day}, exact=False)


def _folded(values: tuple[str, ...], *, negated: bool) -> Possible:
    """Texts without regard to case; which letters are a pair is certain in ASCII only."""
    if not all(value.isascii() for value in values):
        return Possible(negated, exact=False)
    folded = frozenset(value.lower() for value in values)
    spans = points(folded)
    tests: tuple[Test, ...] = (lambda text: not text.isascii() or (text.lower() in folded) is not negated,)
    return Possible(negated, scales={FOLDED: outside(spans) if negated else spans}, tests=tests, exact=False)


def _bounded(operator: str, constant: Any, zone: ZoneInfo | None) -> Spans:
    if operator == "between":
        low, high = constant
        return span(_whole(low, zone)[0], _whole(high, zone)[1])
    if operator in _LOWER:
        return span(_whole(constant, zone)[0 if _LOWER[operator] is before else 1], HIGHEST)
    return span(LOWEST, _whole(constant, zone)[0 if _UPPER[operator] is before else 1])


def _whole(value: Any, zone: ZoneInfo | None) -> tuple[Cut, Cut]:
    """Just before and just after a constant; a date held against moments is a day long."""
    if zone is None or isinstance(value, datetime) or not isinstance(value, date):
        return before(value), after(value)
    return before(_moment(value, zone)), before(_moment(value + _DAY, zone)) if value < date.max else HIGHEST


def _moment(day: date, zone: ZoneInfo) -> datetime:
    try:
        return datetime.combine(day, time(), zone).astimezone(UTC)
    except OverflowError:
        return (datetime.min if day.year == 1 else datetime.max).replace(tzinfo=UTC)


def _relative(operator: str, constant: Any) -> Spans | None:
    """Distances from now, the past below zero."""
    if operator == "between_ago":
        return span(before(-constant[0]), after(-constant[1]))
    if not isinstance(constant, timedelta):
        return None
    return {
        "within_last": span(before(-constant), before(_ZERO)),
        "before_last": span(LOWEST, before(-constant)),
        "within_next": span(before(_ZERO), before(constant)),
        "after_next": span(before(constant), HIGHEST),
    }.get(operator, EVERYTHING)


def _tests(operator: str, constant: Any, ignore_case: bool | None) -> tuple[Test, ...]:
    """What a text operator certainly refuses; of other values nothing."""
    parts = constant if isinstance(constant, tuple) else (constant,)
    if operator == "matches" or not all(isinstance(part, str) for part in parts):
        return ()
    if operator == "like" and parts[0].count("*") > _MOST_STARS:
        return ()
    fold = operator != "like" if ignore_case is None else ignore_case
    return (lambda text: _holds(operator, text, parts, fold=fold),)


def _holds(operator: str, text: str, parts: tuple[str, ...], *, fold: bool) -> bool:
    if fold:
        if not all(part.isascii() for part in (text, *parts)):
            return True
        text, parts = text.lower(), tuple(part.lower() for part in parts)
    if operator == "starts_with":
        return text.startswith(parts)
    if operator == "ends_with":
        return text.endswith(parts)
    if operator == "like":
        return re.fullmatch(_wildcards(parts[0]), text, re.DOTALL) is not None
    return any(part in text for part in parts)


def _wildcards(pattern: str) -> str:
    return "".join({"*": ".*", "?": "."}.get(sign, re.escape(sign)) for sign in pattern)
