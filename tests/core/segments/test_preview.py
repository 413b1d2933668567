# SPDX-License-Identifier: Apache-2.0
"""A look at a segment shows its size, some members and the statement, and changes nothing."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from cdp_provider.core.exceptions import ConfigurationError, NotFoundError
from cdp_provider.core.profiles.build import build_profiles
from cdp_provider.core.project.model import Segment, Segmentation
from cdp_provider.core.project.profiles import ProfileField, Profiles, Trait
from cdp_provider.core.segments.membership import build_segments
from cdp_provider.core.segments.preview import preview
from cdp_provider.core.segments.reach import reach
from tests.core.profiles.world import NOW, STREAMS, event, numbered, put, run

DAY = timedelta(days=1)
PROFILES = Profiles(
    fields={"s": ProfileField(sources=["web.events.s"])},
    traits={"events": Trait(type="count", stream="web.events")},
)
ACTIVE = Segment(name="active", where={"trait": "events", "at_least": 1})
IDLE = Segment(name="idle", where={"none": [{"segment": "active"}]})
RECENT = Segment(name="recent", where={"stream": "web.events", "within_last": "2 days"})
NEW = Segment(name="new", where={"all": [{"segment": "active"}, {"segment": "recent"}]})


@pytest.fixture
def built(warehouse):
    """Profiles 1, 3 and 5 of five have an event."""
    put(warehouse, numbered([event(n, s="jo@example.com") for n in (1, 3, 5)]), {n: n for n in range(1, 6)})
    build_profiles(warehouse, PROFILES, STREAMS, run())
    return warehouse


def tables_of(warehouse):
    with warehouse.session() as session:
        names = session.fetch(
            "select table_name from information_schema.tables where table_schema = :schema order by 1",
            {"schema": warehouse.schema},
        )
        return {name: session.scalar(f"select count(*) from {warehouse.table(name)}") for (name,) in names}


def test_size_sample_and_statement_and_nothing_written(built):
    before = tables_of(built)
    shown = preview(built, NEW, Segmentation(segments=(ACTIVE, RECENT, IDLE)), PROFILES, STREAMS, limit=2)
    assert (shown.size, shown.sample, shown.profiles, shown.as_of) == (3, (1, 3), 5, NOW)
    assert tables_of(built) == before
    assert "idle" not in shown.query.params.values()


def test_it_says_who_will_be_a_member(built):
    whole = Segmentation(segments=(ACTIVE, RECENT, IDLE, NEW), suppression=("recent",))
    report = build_segments(built, whole, PROFILES, STREAMS, run())
    for segment in whole.segments:
        assert preview(built, segment, whole, PROFILES, STREAMS).size == report.detail["sizes"][segment.name]


def test_what_is_told_holds_no_value(built):
    mine = Segment(name="mine", where={"trait": "s", "is": "jo@example.com"})
    shown = preview(built, mine, Segmentation(), PROFILES, STREAMS)
    assert shown.size == 3
    assert "jo@example.com" in shown.query.params.values()
    told = "\n".join(shown.sentences())
    assert told.startswith(f"3 of 5 profiles (60.0%) are in the segment mine as of {NOW.isoformat()}.\n")
    assert "Among them: 1, 3, 5" in told
    assert shown.query.sql in told
    assert "jo@" not in told
    assert "jo@" not in json.dumps(shown.as_dict())


def test_another_moment(built):
    later = NOW + 5 * DAY
    shown = preview(built, RECENT, Segmentation(), PROFILES, STREAMS, later)
    assert (shown.size, shown.sample, shown.as_of) == (0, (), later)


def test_wrong_questions(warehouse, built):
    with pytest.raises(ConfigurationError, match="at least 1"):
        preview(built, ACTIVE, Segmentation(), PROFILES, STREAMS, limit=0)
    with pytest.raises(ConfigurationError, match="active"):
        preview(built, IDLE, Segmentation(), PROFILES, STREAMS)
    wrong = Segment(name="a", where={"trait": "evnts", "at_least": 1})
    with pytest.raises(NotFoundError, match="has no evnts, which segments compare"):
        preview(built, wrong, Segmentation(), PROFILES, STREAMS)


def test_profiles_that_are_not_there(warehouse):
    with pytest.raises(NotFoundError, match="run build_profiles first"):
        preview(warehouse, ACTIVE, Segmentation(), PROFILES, STREAMS)
    put(warehouse, [], {})
    build_profiles(warehouse, PROFILES, STREAMS, run())
    assert preview(warehouse, ACTIVE, Segmentation(), PROFILES, STREAMS).size == 0


def test_only_what_decides_a_segment_is_asked():
    def named(name, where=None, **more):
        return Segment(name=name, where=where or {"trait": "events", "exists": True}, **more)

    whole = Segmentation.model_validate(
        {
            "segments": (
                named("a", {"all": [{"split": "halves", "group": "one"}, {"segment": "b"}]}),
                named("b", **{"except": ["c"]}),
                named("c"),
                named("d"),
                named("e"),
                named("f"),
                named("g"),
            ),
            "splits": (
                {"name": "halves", "segment": "d", "groups": {"one": 0.5}},
                {"name": "other", "segment": "g", "groups": {"one": 0.5}},
            ),
            "exclusive": {"first": ("e", "c", "g"), "last": ("a", "g")},
            "suppression": ("f",),
        }
    )
    found = reach(whole.segments[0], whole)
    assert {segment.name for segment in found.segments} == set("abcdef")
    assert [split.name for split in found.splits] == ["halves"]
    assert found.exclusive == {"first": ("e", "c")}
    assert found.suppression == ("f",)
    alone = reach(whole.segments[5], whole)
    assert ([segment.name for segment in alone.segments], alone.exclusive) == (["f"], {})
