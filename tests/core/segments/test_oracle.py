# SPDX-License-Identifier: Apache-2.0
"""Random segmentations over random worlds: memberships equal a calculation profile by profile."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from cdp_provider.core.profiles.build import build_profiles
from cdp_provider.core.project.conditions import InSplit
from cdp_provider.core.project.model import Segment, Segmentation, Split
from cdp_provider.core.project.profiles import ProfileField, Profiles
from cdp_provider.core.segments.membership import build_segments
from tests.core.profiles.checking import DEPTH, settings_of
from tests.core.profiles.oracle import Oracle
from tests.core.profiles.scene import HOUR
from tests.core.profiles.strategies import ZONES, worlds
from tests.core.profiles.world import NOW, STREAMS, Row, clear, landed, put, run
from tests.core.segments.oracle import World
from tests.core.segments.strategies import (
    CONSENT,
    DIVIDED,
    OWN_SQL,
    PROFILES,
    broad,
    funnels,
    leaves,
    related,
    segmentations,
)

if TYPE_CHECKING:
    from cdp_provider.core.warehouse import Warehouse


def members(warehouse: Warehouse, segmentation: Segmentation, profiles: Profiles) -> set[tuple[str, int]]:
    """Who belongs where, as if nobody ever had; nothing of the build stays."""
    with warehouse.session() as session:
        for table in ("memberships", "segment_sizes", "progress"):
            session.execute(f"delete from {warehouse.table(table)}")
    report = build_segments(warehouse, segmentation, profiles, STREAMS, run())
    with warehouse.session() as session:
        stays = session.fetch(
            f"select segment, profile_id, entered_at, left_at from {warehouse.table('memberships')}"
        )
    assert {stay[2:] for stay in stays} <= {(NOW, None)}
    assert report.rows_out == len(stays) == len({stay[:2] for stay in stays})
    return {stay[:2] for stay in stays}


def chance(
    warehouse: Warehouse, divided: Segmentation, profiles: Profiles
) -> dict[tuple[str, str], set[int]]:
    """Whom each split puts into each of its groups."""
    found = members(warehouse, divided, profiles)
    return {
        (segment.where.split, segment.where.group): {p for name, p in found if name == segment.name}
        for segment in divided.segments
    }


def one_by_one(warehouse: Warehouse, world: Any, conditions: list[Any], profiles: Profiles) -> None:
    """Each condition as a segment of its own."""
    rows, people = world
    clear(warehouse)
    put(warehouse, rows, people)
    build_profiles(warehouse, profiles, STREAMS, run())
    segments = tuple(Segment(name=f"segment_{n}", where=c) for n, c in enumerate(conditions))
    segmentation = Segmentation(segments=segments, consent=CONSENT)
    expected = World(Oracle(rows, people, profiles, NOW), segmentation, {}, OWN_SQL).members()
    found = members(warehouse, segmentation, profiles)
    wrong = {name for name, _ in found ^ expected}
    assert {s.name: s.where for s in segments if s.name in wrong} == {}


@settings_of(6)
@given(
    world=worlds(), conditions=st.lists(leaves([], []), min_size=20, max_size=20), zone=st.sampled_from(ZONES)
)
def test_conditions_equal_a_calculation_profile_by_profile(engine, world, conditions, zone):
    one_by_one(engine, world, conditions, PROFILES.model_copy(update={"timezone": zone}))


@settings_of(6)
@given(world=worlds(crowded=True), conditions=st.lists(funnels() | related(), min_size=30, max_size=30))
def test_funnels_and_objects_equal_a_search_of_all_of_them(engine, world, conditions):
    one_by_one(engine, world, conditions, PROFILES)


def belong(warehouse: Warehouse, rows: list[Row], people: dict[int, int], segmentation: Segmentation) -> None:
    """A whole segmentation over a world."""
    clear(warehouse)
    put(warehouse, rows, people)
    build_profiles(warehouse, PROFILES, STREAMS, run())
    splits = chance(warehouse, DIVIDED, PROFILES)
    expected = World(Oracle(rows, people, PROFILES, NOW), segmentation, splits, OWN_SQL).members()
    assert members(warehouse, segmentation, PROFILES) == expected


@settings_of(6)
@given(world=worlds(), segmentation=segmentations())
def test_memberships_equal_a_calculation_profile_by_profile(engine, world, segmentation):
    belong(engine, *world, segmentation)


#: A few values, each said in every column, so that many are level.
_NUMBERS = {
    n: {"i": n, "n": float(n), "d": Decimal(n), "s": f"{n}", "day": date(2026, 1, 1 + n), "t": NOW + n * HOUR}
    for n in range(3)
} | {None: {}}
_value = st.sampled_from([None, 0, 1, 1, 2])


@settings_of(10)
@given(
    said=st.lists(st.tuples(_value, st.sampled_from([None, True, False])), min_size=12, max_size=12),
    segmentation=segmentations(broad),
)
def test_segments_are_narrowed_as_by_hand(engine, said, segmentation):
    rows = [
        Row("web.events", n, {**_NUMBERS[i], "b": b, "at": NOW - HOUR}, position=n)
        for n, (i, b) in enumerate(said, 1)
    ]
    belong(engine, landed(rows), {n: n for n in range(1, 13)}, segmentation)


MANY = 20_000 if DEPTH > 1 else 5_000
BY_COUNTRY = Profiles(fields={"country": ProfileField(sources=["old.list.s"])})


def divided(**groups: str) -> Segmentation:
    """By chance, and with exact shares within countries."""
    splits = (
        Split(name="free", groups=groups, salt="spring"),
        Split(name="exact", groups=groups, stratify=("country",)),
    )
    segments = tuple(
        Segment(name=f"{split.name}_{group}", where=InSplit(split=split.name, group=group))
        for split in splits
        for group in groups
    )
    return Segmentation(segments=segments, splits=splits)


def country_of(profile: int) -> str | None:
    return ("DE", "AT", "CH", None)[profile % 7 % 4]


def settle(warehouse: Warehouse, many: int) -> list[int]:
    """So many profiles with their countries."""
    clear(warehouse)
    ids = list(range(1, many + 1))
    rows = [Row("old.list", n, {"s": country_of(n)}, 1, 1, n) for n in ids]
    put(warehouse, rows, {n: n for n in ids})
    build_profiles(warehouse, BY_COUNTRY, STREAMS, run())
    return ids


def test_every_engine_divides_alike(make_warehouse):
    drawn = []
    for name in ("duckdb", "postgres"):
        warehouse = make_warehouse(name)
        settle(warehouse, 2000)
        drawn.append(chance(warehouse, divided(mail="33.3 %", letter="45 %", holdout="5 %"), BY_COUNTRY))
    assert drawn[0] == drawn[1]


def test_shares_are_as_large_as_they_say_and_few_move_when_they_change(engine):
    ids = settle(engine, MANY)
    before = chance(engine, divided(mail="45 %", letter="45 %", holdout="5 %"), BY_COUNTRY)
    for split in ("free", "exact"):
        drawn = [before[split, group] for group in ("mail", "letter", "holdout")]
        assert sum(map(len, drawn)) == len(set().union(*drawn))
    for group, share in (("mail", 0.45), ("letter", 0.45), ("holdout", 0.05)):
        # 5 standard deviations of as many throws of a coin of that share
        assert abs(len(before["free", group]) - share * MANY) < 5 * (MANY * share * (1 - share)) ** 0.5
        for country in set(map(country_of, ids)):
            stratum = {n for n in ids if country_of(n) == country}
            assert abs(len(before["exact", group] & stratum) - share * len(stratum)) <= 1

    # Nobody comes to the share that shrinks, nobody leaves nobody's part, no one moves between the others.
    after = chance(engine, divided(mail="25 %", letter="45 %", holdout="5 %"), BY_COUNTRY)
    was, now = free(before), free(after)
    moves = {(was.get(n), now.get(n)) for n in ids if was.get(n) != now.get(n)}
    to_all = {("mail", group) for group in ("letter", "holdout", None)}
    assert moves == to_all | {("letter", None), ("holdout", None)}


def free(drawn: dict[tuple[str, str], set[int]]) -> dict[int, str]:
    """Profile -> its group in the split that knows no strata."""
    return {profile: group for (split, group), ids in drawn.items() if split == "free" for profile in ids}
