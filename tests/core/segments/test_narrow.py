# SPDX-License-Identifier: Apache-2.0
"""What narrows segments: suppression, except, exclusive, limit, in that order."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from cdp_provider.core.exceptions import ConfigurationError
from cdp_provider.core.project.conditions import InSegment
from cdp_provider.core.project.model import Limit, Segment, Segmentation
from cdp_provider.core.segments.tree import ordered, preceding, suppressing
from tests.core.segments.ground import Ground

if TYPE_CHECKING:
    from collections.abc import Mapping

#: How often random examples are drawn, as a multiple.
DEPTH = int(os.environ.get("CDP_TEST_DEPTH", "1"))

PEOPLE = {
    1: {"whole": 5, "country": "de", "text": "b"},
    2: {"whole": 5, "country": "de", "text": "B"},
    3: {"whole": 5, "country": "at", "text": "é"},
    4: {"whole": 9, "country": "at"},
    5: {"whole": 1, "country": None, "text": ""},
    6: {"whole": None, "country": "de", "text": "z"},
    7: {"whole": 4, "country": "de", "text": "a"},
}
ALL = {"trait": "whole", "is_not": 99}


def whole(*values):
    return {"trait": "whole", "any_of": list(values)}


LIMITS = [
    ({"count": 2, "by": "whole"}, {4, 1}),
    ({"count": 3, "by": "whole"}, {4, 1, 2}),
    ({"count": 2, "by": "whole", "ties": "include"}, {4, 1, 2, 3}),
    ({"count": 1, "by": "whole", "ties": "include"}, {4}),
    ({"count": 3, "by": "whole", "ties": "exclude"}, {4}),
    ({"count": 4, "by": "whole", "ties": "exclude"}, {4, 1, 2, 3}),
    ({"count": 2, "by": "whole", "order": "ascending"}, {5, 7}),
    ({"count": 1, "by": "whole", "per": "country"}, {4, 1}),
    ({"count": 1, "by": "whole", "per": "country", "ties": "include"}, {4, 1, 2}),
    ({"count": 1, "by": "whole", "per": "country", "ties": "exclude"}, {4}),
    ({"count": 2, "by": "whole", "per": "country"}, {4, 3, 1, 2}),
    ({"count": 99, "by": "whole"}, {1, 2, 3, 4, 5, 7}),
    ({"count": 3, "by": "text", "order": "ascending"}, {5, 2, 7}),  # by code point: "", "B", "a"
    ({"count": 1, "by": "text"}, {3}),
]


@pytest.mark.parametrize(("limit", "expected"), LIMITS)
def test_a_limit_takes_the_first(warehouse, limit, expected):
    ground = Ground(PEOPLE)
    ground.put(warehouse)
    found = ground.members(warehouse, Segmentation(segments=(Segment(name="a", where=ALL, limit=limit),)))
    assert found == {"a": expected}


def test_suppressed_profiles_belong_to_suppressing_segments_only(warehouse):
    ground = Ground(PEOPLE)
    ground.put(warehouse)
    segments = (
        Segment(name="a", where=ALL),
        Segment(name="staff", where=whole(9)),
        Segment(name="gone", where=whole(9, 1)),
        Segment(name="b", where={"none": [{"segment": "staff"}]}),
    )
    found = ground.members(warehouse, Segmentation(segments=segments, suppression=("staff", "gone")))
    assert found == {"a": {1, 2, 3, 6, 7}, "staff": {4}, "gone": {4, 5}, "b": {1, 2, 3, 6, 7}}


def test_an_exclusive_list_is_decided_before_limits(warehouse):
    ground = Ground(PEOPLE)
    ground.put(warehouse)
    segments = (
        Segment(name="last", where=ALL),
        Segment(name="second", where=whole(5, 4, 1), but_not=["other"]),
        Segment(name="first", where=whole(5), limit={"count": 1, "by": "whole"}),
        Segment(name="other", where=whole(1)),
    )
    exclusive = {"one": ("first", "second", "last")}
    found = ground.members(warehouse, Segmentation(segments=segments, exclusive=exclusive))
    # 2 and 3 would belong to the first one, whose limit has no room for them.
    assert found == {"first": {1}, "second": {7}, "last": {4, 5, 6}, "other": {5}}


def test_a_reference_is_to_who_belongs_in_the_end(warehouse):
    ground = Ground(PEOPLE)
    ground.put(warehouse)
    segments = (
        Segment(name="top", where=ALL, limit={"count": 2, "by": "whole"}),
        Segment(name="rest", where=ALL, but_not=["top"]),
        Segment(name="both", where={"any": [{"segment": "top"}, {"segment": "rest"}]}),
        Segment(name="top_rest", where={"segment": "rest"}, limit={"count": 1, "by": "whole"}),
    )
    found = ground.members(warehouse, Segmentation(segments=segments))
    assert found["top"] == {4, 1}
    assert found["rest"] == {2, 3, 5, 6, 7}
    assert found["both"] == set(PEOPLE)
    assert found["top_rest"] == {2}


def test_without_segments_nobody_belongs_anywhere(warehouse):
    Ground(PEOPLE).put(warehouse)
    assert Ground(PEOPLE).members(warehouse, Segmentation()) == {}


def narrowed(segmentation: Segmentation, people: Mapping[int, Mapping[str, Any]]) -> dict[str, set[int]]:
    """Who belongs where, segment by segment, in plain Python."""
    final: dict[str, set[int]] = {}
    would: dict[str, set[int]] = {}
    for segment in ordered(segmentation):
        where = segment.where
        if isinstance(where, InSegment):
            found = set(final[where.segment])
        else:
            found = {p for p, traits in people.items() if traits["whole"] in where.any_of}
        for name in (*suppressing(segment.name, segmentation), *segment.but_not):
            found -= final[name]
        would[segment.name] = set(found)
        for name in preceding(segment.name, segmentation):
            found -= would[name]
        final[segment.name] = limited(segment.limit, found, people) if segment.limit else found
    return final


def limited(limit: Limit, members: set[int], people: Mapping[int, Mapping[str, Any]]) -> set[int]:
    per: dict[Any, list[int]] = {}
    for p in sorted(members):
        key = people[p][limit.per] if limit.per else 0
        if key is not None and people[p][limit.by] is not None:
            per.setdefault(key, []).append(p)
    found: set[int] = set()
    for group in per.values():
        group.sort(key=lambda p: people[p][limit.by], reverse=limit.order == "descending")  # stable
        admitted = group[: limit.count]
        last = people[admitted[-1]][limit.by]
        level = [p for p in group if people[p][limit.by] == last]
        if limit.ties == "include":
            admitted = list(dict.fromkeys([*admitted, *level]))
        elif limit.ties == "exclude" and not set(level) <= set(admitted):
            admitted = [p for p in admitted if p not in level]
        found.update(admitted)
    return found


NAMES = ["a", "b", "c", "d", "e"]


@st.composite
def segmentations(draw: st.DrawFn) -> Segmentation:
    segments = []
    for name in NAMES:
        others = [other for other in NAMES if other != name]
        where: Any = {"trait": "whole", "any_of": draw(st.lists(st.integers(0, 4), min_size=1, max_size=5))}
        if draw(st.integers(0, 3)) == 0:
            where = {"segment": draw(st.sampled_from(others))}
        limit = st.builds(
            Limit,
            count=st.integers(1, 4),
            by=st.sampled_from(["whole", "number"]),
            order=st.sampled_from(["ascending", "descending"]),
            per=st.sampled_from([None, "country"]),
            ties=st.sampled_from(["id", "include", "exclude"]),
        )
        segments.append(
            Segment(
                name=name,
                where=where,
                but_not=draw(st.lists(st.sampled_from(others), max_size=1)),
                limit=draw(st.none() | limit),
            )
        )
    listed = draw(st.permutations(NAMES))[: draw(st.integers(0, 3))]
    found = Segmentation(
        segments=tuple(segments),
        exclusive={"one": tuple(listed)} if len(listed) > 1 else {},
        suppression=tuple(draw(st.lists(st.sampled_from(NAMES), max_size=1))),
    )
    try:
        ordered(found)
    except ConfigurationError:
        assume(False)
    return found


@st.composite
def crowds(draw: st.DrawFn) -> dict[int, dict[str, Any]]:
    one = st.fixed_dictionaries(
        {
            "whole": st.none() | st.integers(0, 4),
            "number": st.none() | st.sampled_from([0.5, 1.5]),
            "country": st.sampled_from(["de", "at", None]),
        }
    )
    return dict(enumerate(draw(st.lists(one, min_size=3, max_size=12)), 1))


@settings(
    max_examples=8 * DEPTH,
    deadline=None,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.filter_too_much,
    ],
)
@given(segmentation=segmentations(), people=crowds())
def test_narrowing_equals_a_walk_through_the_segments(warehouse, segmentation, people):
    ground = Ground(people)
    ground.put(warehouse)
    assert ground.members(warehouse, segmentation) == narrowed(segmentation, people)
