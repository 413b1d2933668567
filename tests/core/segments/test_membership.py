# SPDX-License-Identifier: Apache-2.0
"""Memberships over several windows: entering, leaving, trying again, changing one's mind."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from cdp_provider.core.exceptions import ConfigurationError, NotFoundError
from cdp_provider.core.profiles.build import build_profiles
from cdp_provider.core.project.model import Segment, Segmentation
from cdp_provider.core.project.profiles import ProfileField, Profiles, Trait
from cdp_provider.core.segments.compile import segments_query
from cdp_provider.core.segments.membership import build_segments
from cdp_provider.core.segments.reach import asking
from tests.core.profiles.world import NOW, STREAMS, event, numbered, put, run

DAY = timedelta(days=1)
PROFILES = Profiles(
    fields={"s": ProfileField(sources=["web.events.s"])},
    traits={"events": Trait(type="count", stream="web.events")},
)
ACTIVE = Segment(name="active", where={"trait": "events", "at_least": 1})
IDLE = Segment(name="idle", where={"none": [{"segment": "active"}]})
RECENT = Segment(name="recent", where={"stream": "web.events", "within_last": "2 days"})


def of(*segments: Segment, **more: Any) -> Segmentation:
    return Segmentation(segments=segments, **more)


def stays(warehouse):
    with warehouse.session() as session:
        return session.fetch(
            "select segment, profile_id, entered_at, entered_run, left_at, left_run"
            f" from {warehouse.table('memberships')} order by 1, 2, 3"
        )


def go(warehouse, rows, people, segments, at=NOW, run_id="run"):
    put(warehouse, numbered(rows), people)
    with warehouse.session() as session:
        # `put` changes rows of old batches, and whom they hang on, and no run of identity tells of that.
        session.execute(f"update {warehouse.table('linked')} set fingerprint = ''")
    build_profiles(warehouse, PROFILES, STREAMS, run(at, run_id))
    return build_segments(warehouse, of(*segments), PROFILES, STREAMS, run(at, run_id))


def test_profiles_enter_stay_and_leave(warehouse):
    rows, people = [event(1), event(2, at=NOW - 3 * DAY)], {1: 1, 2: 2, 3: 3}
    report = go(warehouse, rows, people, [RECENT, ACTIVE, IDLE], NOW - 2 * DAY, "1")
    assert report.detail == {
        "sizes": {"recent": 1, "active": 1, "idle": 2},
        "entered": {"recent": 1, "active": 1, "idle": 2},
        "left": {"recent": 0, "active": 0, "idle": 0},
        "unusual": {},
    }
    assert (report.rows_in, report.rows_out) == (3, 4)
    report = go(warehouse, rows, people, [RECENT, ACTIVE, IDLE], NOW, "2")
    assert report.detail["entered"] == {"recent": 1, "active": 1, "idle": 0}
    assert report.detail["left"] == {"recent": 1, "active": 0, "idle": 1}
    before = NOW - 2 * DAY
    assert stays(warehouse) == [
        ("active", 1, NOW, "2", None, None),
        ("active", 2, before, "1", None, None),
        ("idle", 1, before, "1", NOW, "2"),
        ("idle", 3, before, "1", None, None),
        ("recent", 1, NOW, "2", None, None),
        ("recent", 2, before, "1", NOW, "2"),
    ]


def test_a_second_stay_is_another_row(warehouse):
    on, off = {1: 1}, {1: 1}
    go(warehouse, [event(1, at=NOW - 9 * DAY)], on, [RECENT], NOW - 8 * DAY, "1")
    go(warehouse, [event(1, at=NOW - 9 * DAY)], off, [RECENT], NOW - 4 * DAY, "2")
    go(warehouse, [event(1)], on, [RECENT], NOW, "3")
    assert [stay[2:5:2] for stay in stays(warehouse)] == [(NOW - 8 * DAY, NOW - 4 * DAY), (NOW, None)]


def test_trying_a_window_again_changes_nothing(warehouse):
    rows, people = [event(1), event(2, at=NOW - 3 * DAY)], {1: 1, 2: 2}
    go(warehouse, rows, people, [RECENT, ACTIVE], NOW - 2 * DAY, "1")
    first = go(warehouse, rows, people, [RECENT, ACTIVE], NOW, "2")
    standing = stays(warehouse)
    again = go(warehouse, rows, people, [RECENT, ACTIVE], NOW, "3")
    assert stays(warehouse) == standing
    assert again.detail == first.detail


def test_a_window_that_changes_its_mind_leaves_no_trace_of_its_first_answer(warehouse):
    people = {1: 1, 2: 2}
    old, new = event(1, at=NOW - 3 * DAY), event(2)
    go(warehouse, [old], people, [RECENT], NOW - 2 * DAY, "1")
    standing = stays(warehouse)
    go(warehouse, [old, new], people, [RECENT], NOW, "2")  # 1 leaves, 2 enters
    report = go(warehouse, [event(1)], people, [RECENT], NOW, "2")  # no: 1 stays, 2 never came
    assert stays(warehouse) == standing
    none = {"recent": 0}
    assert report.detail == {"sizes": {"recent": 1}, "entered": none, "left": none, "unusual": {}}
    go(warehouse, [old, new], people, [RECENT], NOW, "2")  # yes after all
    assert [stay[1:] for stay in stays(warehouse)] == [
        (1, NOW - 2 * DAY, "1", NOW, "2"),
        (2, NOW, "2", None, None),
    ]


def test_an_older_window_is_superseded(warehouse):
    go(warehouse, [event(1)], {1: 1}, [ACTIVE])
    standing = stays(warehouse)
    report = build_segments(warehouse, of(ACTIVE), PROFILES, STREAMS, run(NOW - 9 * DAY, "late"))
    assert report.state == "superseded"
    assert stays(warehouse) == standing


def test_after_a_merge_the_loser_leaves_and_the_winner_stays_or_enters(warehouse):
    rows = [event(1), event(2), event(3)]
    go(warehouse, rows, {1: 1, 2: 2, 3: 3, 4: 4}, [ACTIVE], NOW, "1")
    go(warehouse, rows, {1: 1, 2: 1, 3: 4, 4: 4}, [ACTIVE], NOW + DAY, "2")
    assert [(stay[1], stay[3], stay[5]) for stay in stays(warehouse)] == [
        (1, "1", None),
        (2, "1", "2"),
        (3, "1", "2"),
        (4, "2", None),
    ]


def test_members_of_a_removed_segment_leave_it(warehouse):
    go(warehouse, [event(1)], {1: 1}, [ACTIVE], NOW, "1")
    report = go(warehouse, [event(1)], {1: 1}, [], NOW + DAY, "2")
    assert stays(warehouse) == [("active", 1, NOW, "1", NOW + DAY, "2")]
    assert report.detail == {"sizes": {}, "entered": {}, "left": {"active": 1}, "unusual": {}}
    report = go(warehouse, [event(1)], {1: 1}, [], NOW + 2 * DAY, "3")
    assert report.detail["left"] == {}


def test_a_person_without_any_identifier_row_is_judged_too(warehouse):
    never = Segment(name="never", where={"event": "Bought", "stream": "web.events", "exactly": 0})
    rarely = Segment(name="rarely", where={"stream": "web.events", "at_most": 1})
    go(warehouse, [event(1, name="Bought"), event(1, name="Seen")], {1: 1, 2: 2}, [never, rarely])
    assert [stay[:2] for stay in stays(warehouse)] == [("never", 2), ("rarely", 2)]


def test_missing_profiles_are_said_to_be_missing(warehouse):
    put(warehouse, [], {})
    with pytest.raises(NotFoundError, match="run build_profiles first"):
        build_segments(warehouse, of(ACTIVE), PROFILES, STREAMS, run())
    build_profiles(warehouse, Profiles(), STREAMS, run())
    with pytest.raises(NotFoundError, match="has no events, which segments compare"):
        build_segments(warehouse, of(ACTIVE), PROFILES, STREAMS, run())


@pytest.mark.parametrize(
    ("segments", "message"),
    [
        ([Segment(name="a", where={"segment": "b"})], "the segment a refers to b, which is no segment here"),
        (
            [
                Segment(name="a", where={"all": [{"segment": "b"}, {"trait": "events", "exists": True}]}),
                Segment(name="b", where={"none": [{"segment": "c"}]}),
                Segment(name="c", where={"segment": "a"}),
            ],
            r"in a circle: (a -> b -> c -> a|b -> c -> a -> b|c -> a -> b -> c);",
        ),
        ([Segment(name="a", where={"segment": "a"})], "circle: a -> a"),
        ([Segment(name="a", where={"stream": "old.list", "event": "x"})], "declares no `event:` column"),
        ([Segment(name="a", where={"stream": "web.page"})], "no stream 'web.page'"),
        (
            [Segment(name="a", where={"trait": "events", "is": "three"})],
            "trait events is compared with 'three'",
        ),
    ],
)
def test_what_cannot_be_compiled_is_refused(make_warehouse, segments, message):
    with pytest.raises(ConfigurationError, match=message):
        go(make_warehouse("duckdb"), [event(1)], {1: 1}, segments)


def test_an_unknown_trait_is_refused(make_warehouse):
    wrong = Segment(name="a", where={"trait": "event", "exists": True})
    with pytest.raises(ConfigurationError, match="has no event, which segments compare"):
        go(make_warehouse("duckdb"), [event(1)], {1: 1}, [wrong])


def test_all_segments_read_each_stream_once_and_equal_counts_are_computed_once(make_warehouse):
    warehouse = make_warehouse("duckdb")
    put(warehouse, [], {})
    bought = {"stream": "web.events", "event": "Bought", "within_last": "7 days"}
    segments = [
        Segment(name=f"s{n}", where={"any": [{**bought, "at_least": n + 1}, {"stream": "crm.people"}]})
        for n in range(50)
    ]
    with warehouse.session() as session:
        facts = asking(session, PROFILES, STREAMS, NOW)
        query = segments_query(warehouse, of(*segments), PROFILES, facts)
    assert query.sql.count(warehouse.table("raw_web__events")) == 1
    assert query.sql.count("count(*)") == 2  # of purchases, and of people


def test_a_shared_segment_is_not_written_out_again_for_each_reference(warehouse):
    put(warehouse, [], {1: 1})
    build_profiles(warehouse, PROFILES, STREAMS, run())
    chain = [ACTIVE.model_copy(update={"name": "s0"})]
    for n in range(1, 25):
        both = {"any": [{"segment": f"s{n - 1}"}, {"none": [{"segment": f"s{n - 1}"}]}]}
        chain.append(Segment(name=f"s{n}", where=both))
    report = build_segments(warehouse, of(*chain), PROFILES, STREAMS, run())
    assert report.detail["sizes"]["s24"] == 1


NASTY = 'it\'s "quoted"; drop table memberships; -- :p0 %s %% $1 /* \\ é'


def test_strings_of_segments_stay_values(warehouse):
    tree = {
        "all": [
            {"trait": "s", "is": NASTY, "contains": NASTY, "ends_with": NASTY},
            {"stream": "web.events", "event": NASTY, "where": {"s": {"starts_with": NASTY}}},
        ]
    }
    odd = Segment.model_construct(name=NASTY, where=Segment(name="x", where=tree).where)
    go(warehouse, [event(1, s=NASTY, name=NASTY), event(2, s="x", name=NASTY)], {1: 1, 2: 2}, [odd, ACTIVE])
    assert [stay[:2] for stay in stays(warehouse)] == sorted([(NASTY, 1), ("active", 1), ("active", 2)])


def of_table(warehouse, columns, table):
    with warehouse.session() as session:
        return session.fetch(f"select {columns} from {warehouse.table(table)} order by 1, 2")


def test_sizes_and_overlap_follow_the_memberships(warehouse):
    rows, people = [event(1), event(2, at=NOW - 3 * DAY)], {1: 1, 2: 2, 3: 3}
    go(warehouse, rows, people, [RECENT, ACTIVE, IDLE], NOW - 2 * DAY, "1")
    assert of_table(warehouse, "segment, other, profiles", "segment_overlap") == [("active", "recent", 1)]
    for _ in range(2):  # a window that is tried again gets no second line
        go(warehouse, rows, people, [RECENT, ACTIVE, IDLE], NOW, "2")
    assert of_table(warehouse, 'segment, window_end, size, entered, "left"', "segment_sizes") == [
        ("active", NOW - 2 * DAY, 1, 1, 0),
        ("active", NOW, 2, 1, 0),
        ("idle", NOW - 2 * DAY, 2, 2, 0),
        ("idle", NOW, 1, 0, 1),
        ("recent", NOW - 2 * DAY, 1, 1, 0),
        ("recent", NOW, 1, 1, 1),
    ]
    assert of_table(warehouse, "segment, other, profiles", "segment_overlap") == [("active", "recent", 1)]
    go(warehouse, rows, people, [IDLE, ACTIVE], NOW + DAY, "3")
    assert of_table(warehouse, "segment, other, profiles", "segment_overlap") == []


def test_what_narrows_a_segment_is_in_the_memberships(warehouse):
    both = Segment(
        name="both", where={"any": [{"segment": "active"}, {"segment": "idle"}]}, **{"except": ["idle"]}
    )
    put(warehouse, numbered([event(1), event(2)]), {1: 1, 2: 2, 3: 3})
    build_profiles(warehouse, PROFILES, STREAMS, run())
    build_segments(warehouse, of(ACTIVE, IDLE, both), PROFILES, STREAMS, run())
    assert [stay[:2] for stay in stays(warehouse) if stay[0] == "both"] == [("both", 1), ("both", 2)]
    first = of(ACTIVE, IDLE, both, exclusive={"one": ("active", "both")})
    build_segments(warehouse, first, PROFILES, STREAMS, run())
    assert not [stay for stay in stays(warehouse) if stay[0] == "both"]


def test_a_size_that_its_history_does_not_explain_is_reported(warehouse):
    people = {n: n for n in range(1, 11)}
    for window in range(7):
        go(warehouse, [event(1)], people, [ACTIVE], NOW + window * DAY, str(window))
    report = go(warehouse, [event(n) for n in people], people, [ACTIVE], NOW + 7 * DAY, "7")
    assert report.detail["unusual"] == {"active": {"size": 10, "usual_low": 0.95, "usual_high": 1.05}}
    assert report.summary()["unusual"].keys() == {"active"}
