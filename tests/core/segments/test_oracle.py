# SPDX-License-Identifier: Apache-2.0
"""Random condition trees over random worlds: memberships equal a calculation profile by profile."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cdp_provider.core.profiles.build import build_profiles
from cdp_provider.core.project.conditions import AllOf, AnyOf, EventCount, InSegment, NoneOf, TraitIs
from cdp_provider.core.project.model import Segment
from cdp_provider.core.project.profiles import ProfileField, Profiles, Trait
from cdp_provider.core.segments.membership import build_segments
from tests.core.profiles.strategies import DURATIONS, VALUES, columns_of, filters, operators, worlds
from tests.core.profiles.world import NOW, STREAMS, put, run
from tests.core.segments.oracle import World

LAST = {
    "string": "s",
    "integer": "i",
    "number": "n",
    "decimal": "d",
    "boolean": "b",
    "date": "day",
    "timestamp": "t",
}
PROFILES = Profiles(
    fields={"text": ProfileField(sources=["crm.people.s", "web.events.s"], keep="source_priority")},
    traits={
        f"last_{kind}": Trait(type="last", stream="web.events", column=column)
        for kind, column in LAST.items()
    },
)
TYPES = {"text": "string"} | {f"last_{kind}": kind for kind in LAST}


@st.composite
def comparisons(draw: st.DrawFn) -> TraitIs:
    trait = draw(st.sampled_from(sorted(TYPES)))
    return TraitIs(trait=trait, **draw(operators(TYPES[trait])))


@st.composite
def counts(draw: st.DrawFn) -> EventCount:
    stream = draw(st.sampled_from(STREAMS))
    bounds: dict[str, Any] = draw(
        st.sampled_from(
            [
                {},
                {"exactly": 0},
                {"exactly": 1},
                {"at_least": 2},
                {"at_most": 1},
                {"at_least": 1, "at_most": 2},
            ]
        )
    )
    return EventCount(
        stream=stream.ref,
        event=draw(st.none() | st.sampled_from(VALUES["string"])) if stream.event else None,
        where=draw(filters(columns_of(stream.ref))),
        within_last=draw(st.none() | st.sampled_from(DURATIONS)) if stream.time else None,
        **bounds,
    )


def conditions(others: list[str]) -> st.SearchStrategy[Any]:
    leaves = comparisons() | counts()
    if others:
        leaves |= st.builds(InSegment, segment=st.sampled_from(others))

    def grown(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        parts = st.lists(inner, min_size=1, max_size=3).map(tuple)
        return st.builds(AllOf, all=parts) | st.builds(AnyOf, any=parts) | st.builds(NoneOf, none=parts)

    return st.recursive(leaves, grown, max_leaves=6)


@st.composite
def projects(draw: st.DrawFn) -> list[Segment]:
    """Segments that refer to earlier ones, in any order."""
    names = [f"segment_{number}" for number in range(draw(st.integers(1, 8)))]
    segments = [Segment(name=name, where=draw(conditions(names[:n]))) for n, name in enumerate(names)]
    return draw(st.permutations(segments))


@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
)
@given(world=worlds(), segments=projects())
def test_memberships_equal_a_calculation_profile_by_profile(warehouse, world, segments):
    rows, people = world
    put(warehouse, rows, people)
    build_profiles(warehouse, PROFILES, STREAMS, run())
    report = build_segments(warehouse, segments, PROFILES, STREAMS, run())
    expected = World(rows, people, PROFILES, segments, NOW).members()
    with warehouse.session() as session:
        # Every example is another try of the same window, so nothing but its own answer may be left.
        stays = session.fetch(
            f"select segment, profile_id, entered_at, left_at from {warehouse.table('memberships')}"
        )
    assert {stay[:2] for stay in stays} == expected
    assert len(stays) == len(expected)
    assert {stay[2:] for stay in stays} <= {(NOW, None)}
    assert report.rows_out == len(expected)
