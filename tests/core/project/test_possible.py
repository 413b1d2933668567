# SPDX-License-Identifier: Apache-2.0
"""What can be true is never refused; what cannot is, where values can be counted through."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdp_provider.core.project.circles import circles
from cdp_provider.core.project.possible import Possible, left_by
from cdp_provider.core.project.spans import both, only_points, outside, points

ZONE = ZoneInfo("Europe/Berlin")
NUMBERS = st.integers(0, 6)
TEXTS = st.sampled_from(["a", "A", "ab", "B", "b", "é", "abc", ""])
NOW = datetime(2026, 3, 29, 12, tzinfo=UTC)
DAYS = st.integers(1, 4).map(lambda days: timedelta(days=days))

_BOUNDS = ("at_least", "at_most", "more_than", "less_than")


def operators(values: st.SearchStrategy[Any], *more: st.SearchStrategy[tuple[str, Any]]):
    """One or a few operators with constants."""
    several = st.lists(values, min_size=1, max_size=3).map(tuple)
    one = st.one_of(
        st.tuples(st.sampled_from(("is", "is_not", *_BOUNDS)), values),
        st.tuples(st.sampled_from(("any_of", "none_of")), several),
        st.tuples(st.just("between"), st.tuples(values, values)),
        st.tuples(st.just("exists"), st.booleans()),
        *more,
    )
    return st.lists(one, min_size=1, max_size=4).map(dict)


def holds(value: Any, operator: str, constant: Any, *, fold: bool = False) -> bool:
    """One operator, in plain Python."""
    if operator == "exists":
        return (value is not None) is constant
    if value is None:
        return operator in ("is_not", "none_of")
    if isinstance(value, str) and (fold or operator in ("contains", "starts_with", "ends_with")):
        value = value.lower()
        constant = (
            tuple(part.lower() for part in constant) if isinstance(constant, tuple) else constant.lower()
        )
    return {
        "is": lambda: value == constant,
        "is_not": lambda: value != constant,
        "any_of": lambda: value in constant,
        "none_of": lambda: value not in constant,
        "at_least": lambda: value >= constant,
        "at_most": lambda: value <= constant,
        "more_than": lambda: value > constant,
        "less_than": lambda: value < constant,
        "between": lambda: constant[0] <= value <= constant[1],
        "contains": lambda: constant in value,
        "starts_with": lambda: value.startswith(constant),
        "ends_with": lambda: value.endswith(constant),
        "like": lambda: like(value, constant),
    }[operator]()


def like(value: str, pattern: str) -> bool:
    """``*`` and ``?``, by trying all."""
    if not pattern:
        return not value
    if pattern[0] == "*":
        return any(like(value[i:], pattern[1:]) for i in range(len(value) + 1))
    return bool(value) and pattern[0] in ("?", value[0]) and like(value[1:], pattern[1:])


@settings(max_examples=300, deadline=None)
@given(one=operators(NUMBERS), other=operators(NUMBERS), negated=st.booleans())
def test_whole_numbers_are_counted_through(one: dict[str, Any], other: dict[str, Any], negated: bool):
    left = left_by(one, "integer", ZONE)
    right = left_by(other, "integer", ZONE)
    if negated:
        right = right.opposite(Possible()) or pytest.fail("whole numbers are always exact")
    able = any(
        all(holds(value, *item) for item in one.items())
        and all(holds(value, *item) for item in other.items()) is not negated
        for value in (None, *range(-2, 9))
    )
    assert (left & right).impossible() is not able


@settings(max_examples=300, deadline=None)
@given(
    given=operators(
        TEXTS,
        st.tuples(st.sampled_from(("contains", "starts_with", "ends_with")), TEXTS),
        st.tuples(st.just("like"), st.text("ab*?", max_size=3)),
    ),
    fold=st.booleans(),
)
def test_no_text_is_refused_that_can_be(given: dict[str, Any], fold: bool):
    left = left_by(given, "string", ZONE, ignore_case=fold or None)
    values = (None, "", "a", "A", "b", "B", "ab", "AB", "aB", "abc", "ABC", "é", "É", "aa", "abcd", "z")
    if any(all(holds(value, *item, fold=fold) for item in given.items()) for value in values):
        assert not left.impossible()
    elif not fold and given.keys() & {"is", "any_of"}:
        # A few values are named, none of which fulfils the rest: that is always seen.
        assert left.impossible() or any("é" in value for value in map(str, given.values()))


@settings(max_examples=200, deadline=None)
@given(
    given=st.lists(
        st.one_of(
            st.tuples(st.sampled_from(("within_last", "before_last", "within_next", "after_next")), DAYS),
            st.tuples(st.just("between_ago"), st.tuples(DAYS, DAYS).map(lambda ago: (max(ago), min(ago)))),
            st.tuples(st.just("today"), st.booleans()),
        ),
        min_size=1,
        max_size=3,
    ).map(dict)
)
def test_no_moment_is_refused_that_can_be(given: dict[str, Any]):
    def fits(moment: datetime, operator: str, constant: Any) -> bool:
        if operator == "today":
            return (moment.astimezone(ZONE).date() == NOW.astimezone(ZONE).date()) is constant
        if operator == "between_ago":
            return NOW - constant[0] <= moment <= NOW - constant[1]
        return {
            "within_last": NOW - constant <= moment < NOW,
            "before_last": moment < NOW - constant,
            "within_next": NOW <= moment < NOW + constant,
            "after_next": moment >= NOW + constant,
        }[operator]

    able = any(
        all(fits(NOW + timedelta(hours=6 * n), *item) for item in given.items()) for n in range(-20, 21)
    )
    if able:
        assert not left_by(given, "timestamp", ZONE).impossible()
    elif "today" not in given:
        assert left_by(given, "timestamp", ZONE).impossible()


def test_a_date_held_against_moments_is_a_day_of_the_zone():
    day = date(2026, 3, 29)
    last = datetime(2026, 3, 29, 21, 59, 59, 999999, tzinfo=UTC)
    for constants, able in (
        ({"is": day, "at_least": last}, True),
        ({"is": day, "more_than": last}, True),
        ({"is": day, "at_least": last + timedelta(microseconds=1)}, False),
        ({"more_than": day, "at_most": last + timedelta(microseconds=1)}, True),
        ({"more_than": day, "at_most": last}, False),
        ({"at_most": day, "after": datetime(2026, 3, 29, tzinfo=UTC)}, True),
        ({"before": day, "after": datetime(2026, 3, 28, 23, tzinfo=UTC)}, False),
        ({"is_not": day, "between": (day, day)}, False),
        ({"is": date.max, "more_than": date.max}, False),
    ):
        assert left_by(constants, "timestamp", ZONE).impossible() is not able


@given(values=st.frozensets(NUMBERS), others=st.frozensets(NUMBERS))
def test_spans_are_sets(values: frozenset[int], others: frozenset[int]):
    assert only_points(both(points(values), points(others))) in (sorted(values & others), None)
    assert both(points(values), outside(points(others))) == points(values - others)
    assert outside(outside(points(values))) == points(values)


def test_circles_are_named_once():
    assert [*circles({"a": ["b"], "b": ["c", "a"], "c": ["c"], "d": ["a", "x"]})] == [
        ["c", "c"],
        ["a", "b", "a"],
    ]
    assert [*circles({str(i): [str(i + 1)] for i in range(5000)})] == []
