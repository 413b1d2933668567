# SPDX-License-Identifier: Apache-2.0
"""Sizes over several windows, which of them are unusual, and how much segments overlap."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from itertools import combinations
from statistics import median
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cdp_provider.core.runs import Report
from cdp_provider.core.segments.flags import bits
from cdp_provider.core.segments.sizes import note_overlap, note_sizes, usual
from tests.core.profiles.world import NOW, run

if TYPE_CHECKING:
    from cdp_provider.core.warehouse import Warehouse

DAY = timedelta(days=1)


def note(warehouse: Warehouse, day: int, sizes: dict[str, int], **changes: dict[str, int]) -> Report:
    report = Report(run(NOW + day * DAY, f"run-{day}"), "segments", "-")
    report.detail = {"sizes": sizes, "entered": {}, "left": {}, **changes}
    with warehouse.session() as session, session.transaction():
        note_sizes(session, report)
    return report


def lines(warehouse: Warehouse) -> list[tuple]:
    with warehouse.session() as session:
        return session.fetch(
            'select segment, window_end, run_id, size, entered, "left", usual_low, usual_high, unusual'
            f" from {warehouse.table('segment_sizes')} order by segment, window_end"
        )


def test_a_line_per_segment_and_window_and_none_more_for_another_try(warehouse):
    note(warehouse, 0, {"vip": 3, "new": 0}, entered={"vip": 3}, left={})
    report = note(warehouse, 1, {"vip": 9})
    assert report.detail["unusual"] == {}
    note(warehouse, 1, {"vip": 2}, left={"vip": 1})
    assert lines(warehouse) == [
        ("new", NOW, "run-0", 0, 0, 0, None, None, False),
        ("vip", NOW, "run-0", 3, 3, 0, None, None, False),
        ("vip", NOW + DAY, "run-1", 2, 0, 1, None, None, False),
    ]


def test_nothing_is_unusual_before_the_eighth_window(warehouse):
    for day in range(6):
        note(warehouse, day, {"vip": 100})
    assert note(warehouse, 6, {"vip": 1_000}).detail["unusual"] == {}
    note(warehouse, 6, {"vip": 100})  # another try of the seventh, with another answer
    found = note(warehouse, 7, {"vip": 1_000, "young": 5})
    assert found.detail["unusual"] == {"vip": {"size": 1_000, "usual_low": 95.0, "usual_high": 105.0}}
    assert note(warehouse, 7, {"vip": 104}).detail["unusual"] == {}


def test_a_later_window_does_not_count(warehouse):
    for day in range(7, 14):
        note(warehouse, day, {"vip": 100})
    assert note(warehouse, 3, {"vip": 1_000}).detail["unusual"] == {}


@pytest.mark.parametrize(
    ("earlier", "low", "high", "within", "beyond"),
    [
        # no change ever: five per cent of the last size, excluded
        ([100] * 7, 95.0, 105.0, (96, 100, 104), (95, 105)),
        # it grows by 10 each time: 160 is to be expected, and 5 % of the last size either way
        ([100, 110, 120, 130, 140, 150, 160], 162.0, 178.0, (163, 177), (162, 178, 160)),
        # changes of 0, 2, 4, 6, 8, 10: median 5, deviations 5, 3, 1, 1, 3, 5, median 3; six of them, included
        ([10, 10, 12, 16, 22, 30, 40], 27.0, 63.0, (27, 63), (26, 64)),
        # nobody was ever in it: the first one is news
        ([0] * 7, 0.0, 0.0, (0,), (1,)),
        # a size is never below nothing
        ([9, 1, 9, 1, 9, 1, 9], 0.0, 57.0, (0, 57), (58,)),
    ],
)
def test_what_is_usual(earlier, low, high, within, beyond):
    found = usual(earlier)
    assert (found.low, found.high) == (low, high)
    assert all(found.holds(size) for size in within)
    assert not any(found.holds(size) for size in beyond)


def test_too_short_and_too_long_histories():
    assert usual([5] * 6) is None
    # what lies 31 changes back is forgotten
    assert usual([10_000] + [100] * 31) == usual([100] * 31)


@given(st.lists(st.integers(0, 1000), min_size=7, max_size=50), st.integers(0, 2000))
def test_unusual_is_what_the_page_says(earlier, size):
    changes = [after - before for before, after in zip(earlier, earlier[1:], strict=False)][-30:]
    middle = median(changes)
    deviation = median(abs(change - middle) for change in changes)
    away = abs(size - earlier[-1] - middle)
    unusual = away > 6 * deviation and 20 * away >= earlier[-1]
    found = usual(earlier)
    assert found.holds(size) is not unusual
    if found.low < size < found.high:
        assert found.holds(size)


def overlap(warehouse: Warehouse, stays: list[tuple[str, int, bool]]) -> dict[tuple[str, str], int]:
    names = sorted({segment for segment, _, _ in stays}, reverse=True)
    places = {bit.segment: bit for bit in bits(names)}
    held: dict[int, list[int]] = {}
    for segment, profile, is_open in stays:
        words = held.setdefault(profile, [0] * 3)
        words[places[segment].word] |= places[segment].value * is_open
    flags = warehouse.table("membership_flags")
    with warehouse.session() as session, session.transaction():
        session.execute(f"drop table if exists {flags}")
        session.execute(f"create table {flags} (profile_id bigint, w0 bigint, w1 bigint, w2 bigint)")
        for profile, words in held.items():
            session.execute(f"insert into {flags} values ({profile}, {', '.join(map(str, words))})")
        note_overlap(session, names)
        rows = session.fetch(f"select segment, other, profiles from {warehouse.table('segment_overlap')}")
    assert len({row[:2] for row in rows}) == len(rows)
    return {row[:2]: row[2] for row in rows}


def test_only_pairs_that_share_somebody_now(warehouse):
    stays = [("b", 1, True), ("a", 1, True), ("a", 2, True), ("b", 2, True), ("c", 2, True), ("d", 3, True)]
    assert overlap(warehouse, [*stays, ("d", 1, False)]) == {("a", "b"): 2, ("a", "c"): 1, ("b", "c"): 1}
    assert overlap(warehouse, [("a", 1, True), ("b", 1, False)]) == {}
    assert overlap(warehouse, []) == {}


def test_more_segments_than_a_number_has_bits(warehouse):
    names = [f"s{number:03}" for number in range(130)]
    stays = [(name, profile, True) for name in (names[0], names[63], names[129]) for profile in (1, 2)]
    stays += [(name, 9, True) for name in names]
    found = overlap(warehouse, stays)
    assert len(found) == 130 * 129 // 2
    assert {pair for pair, profiles in found.items() if profiles == 3} == {
        ("s000", "s063"),
        ("s000", "s129"),
        ("s063", "s129"),
    }
    assert set(found.values()) == {1, 3}


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(st.tuples(st.sampled_from(["x", "B", "a_1", "zz"]), st.integers(1, 6)), max_size=24))
def test_overlap_equals_counting_pairs(warehouse, stays):
    expected: Counter[tuple[str, str]] = Counter()
    for profile in range(1, 7):
        expected.update(combinations(sorted(name for name, member in stays if member == profile), 2))
    assert overlap(warehouse, [(*stay, True) for stay in stays]) == expected
