# SPDX-License-Identifier: Apache-2.0
"""Why somebody is in a segment: true or false at each condition, and what narrowed it."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from cdp_provider.core.exceptions import NotFoundError
from cdp_provider.core.profiles.build import build_profiles
from cdp_provider.core.project.model import Segment, Segmentation
from cdp_provider.core.project.profiles import ProfileField, Profiles, Trait
from cdp_provider.core.segments.membership import build_segments
from cdp_provider.core.segments.why import why
from tests.core.profiles.world import NOW, STREAMS, event, numbered, put, run

PROFILES = Profiles(
    fields={"s": ProfileField(sources=["web.events.s"]), "b": ProfileField(sources=["web.events.b"])},
    traits={"events": Trait(type="count", stream="web.events")},
)
EVERYBODY = {"trait": "events", "at_least": 0}


@pytest.fixture
def built(warehouse):
    """Profile n of four has n events; identifiers 1 to 5, of which 5 became part of profile 1."""
    rows = [event(n, s=f"secret_{n}", b=n == 2) for n in range(1, 5) for _ in range(n)]
    put(warehouse, numbered(rows), {1: 1, 2: 2, 3: 3, 4: 4, 5: 1})
    build_profiles(warehouse, PROFILES, STREAMS, run())
    return warehouse


def ask(warehouse, segment, profile_id, segmentation=None, **more):
    return why(warehouse, segment, profile_id, segmentation or Segmentation(), PROFILES, STREAMS, **more)


TREE = Segment(
    name="tree",
    where={
        "all": [
            {"trait": "events", "at_least": 2},
            {"any": [{"trait": "s", "is": "nobody"}, {"stream": "web.events", "within_last": "36 hours"}]},
            {"none": [{"trait": "b", "is": True}, {"stream": "web.events", "exactly": 0, "event": "Bought"}]},
        ]
    },
)


def test_true_or_false_at_each_condition(built):
    found = ask(built, TREE, 2)
    assert list(found.sentences()) == [
        f"Profile 2 is not in the segment tree as of {NOW.isoformat()}.",
        "no   all of",
        "  yes  {trait: events, at_least: 2}",
        "  yes  any of",
        "    no   {trait: s, is: nobody}",
        "    yes  {stream: web.events, within_last: 36 hours}",
        "  no   none of",
        "    yes  {trait: b, is: true}",
        "    yes  {stream: web.events, event: Bought, exactly: 0}",
    ]
    assert found.narrowed is None
    answer = found.as_dict()
    assert json.loads(json.dumps(answer)) == answer
    assert answer["where"]["parts"][0] == {"condition": "{trait: events, at_least: 2}", "holds": True}
    assert [part["holds"] for part in answer["where"]["parts"]] == [True, True, False]


def test_values_only_when_asked_for(built):
    assert "secret" not in json.dumps(ask(built, TREE, 3).as_dict())
    found = ask(built, TREE, 3, values=True)
    told = list(found.sentences())
    assert "    no   {trait: s, is: nobody}; the profile has {s: secret_3}" in told
    assert "  yes  {trait: events, at_least: 2}; the profile has {events: 3}" in told
    assert found.as_dict()["where"]["parts"][1]["parts"][0]["values"] == {"s": "secret_3"}
    assert "values" not in found.as_dict()["where"]["parts"][1]["parts"][1]


def test_the_answer_is_that_of_the_memberships(built):
    first = Segment(name="first", where={"trait": "events", "at_most": 2})
    best = Segment(name="best", where=EVERYBODY, limit={"count": 2, "by": "events"})
    rest = Segment(name="rest", where={"none": [{"segment": "best"}]}, **{"except": ["first"]})
    out = Segment(name="out", where={"trait": "events", "is": 3})
    tree = TREE.model_copy(update={"but_not": ("rest",)})
    whole = Segmentation(
        segments=(first, best, rest, tree, out), exclusive={"one": ("first", "tree")}, suppression=("out",)
    )
    build_segments(built, whole, PROFILES, STREAMS, run())
    with built.session() as session:
        members = set(session.fetch(f"select segment, profile_id from {built.table('memberships')}"))
    assert members
    for segment in whole.segments:
        for profile_id in range(1, 5):
            found = ask(built, segment, profile_id, whole)
            assert found.member is ((segment.name, profile_id) in members)
            assert (found.narrowed is not None) is (found.where.holds and not found.member)


def narrowed(built, segment, profile_id, **more):
    found = ask(built, segment, profile_id, Segmentation.model_validate(more))
    assert found.where.holds
    assert list(found.sentences())[-1].startswith("The condition holds") is not found.member
    return found.narrowed


def test_what_narrowed_it(built):
    few = Segment(name="few", where={"trait": "events", "at_most": 2})
    plain = Segment(name="plain", where=EVERYBODY)
    by_suppression = {"segments": (few, plain), "suppression": ("few",)}
    assert narrowed(built, plain, 1, **by_suppression) == "suppression keeps members of few out"
    assert narrowed(built, plain, 3, **by_suppression) is None
    assert narrowed(built, few, 1, **by_suppression) is None

    butnot = Segment(name="but", where=EVERYBODY, **{"except": ["few"]})
    assert narrowed(built, butnot, 2, segments=(few, butnot)) == "except keeps members of few out"
    assert narrowed(built, butnot, 3, segments=(few, butnot)) is None

    exclusive = {"segments": (few, plain), "exclusive": {"one": ("few", "plain")}}
    told = "it would belong to few too, which comes before in a list of exclusive segments"
    assert narrowed(built, plain, 2, **exclusive) == told
    assert narrowed(built, few, 2, **exclusive) is None

    best = Segment(name="best", where=EVERYBODY, limit={"count": 2, "by": "events", "order": "ascending"})
    assert narrowed(built, best, 3) == "limit admits {count: 2, by: events, order: ascending} only"
    assert narrowed(built, best, 2) is None


def test_who_lost_an_exclusive_segment_to_its_limit_is_still_kept_out(built):
    few = Segment(name="few", where=EVERYBODY, limit={"count": 1, "by": "events"})
    plain = Segment(name="plain", where=EVERYBODY)
    exclusive = {"segments": (few, plain), "exclusive": {"one": ("few", "plain")}}
    assert narrowed(built, few, 1, **exclusive) == "limit admits {count: 1, by: events} only"
    assert "which comes before" in narrowed(built, plain, 1, **exclusive)


def test_an_id_of_the_past_is_the_profile_of_today(built):
    assert ask(built, TREE, 5).profile_id == 1


def test_another_moment(built):
    recent = Segment(name="recent", where={"stream": "web.events", "within_last": "2 days"})
    assert ask(built, recent, 1).member
    assert not ask(built, recent, 1, now=NOW + timedelta(days=9)).member


def test_nobody_of_that_name(built):
    with pytest.raises(NotFoundError, match="no profile was ever called 77"):
        ask(built, TREE, 77)
    put(built, numbered([event(9)]), {9: 9})
    with pytest.raises(NotFoundError, match="does not have profile 9 yet"):
        ask(built, TREE, 9)
