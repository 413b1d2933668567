# SPDX-License-Identifier: Apache-2.0
"""Runs over many windows: after each the tables equal a calculation, in the end one run over everything."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from cdp_provider.core.profiles.build import build_profiles, snapshot
from cdp_provider.core.project.model import Segment, Segmentation
from cdp_provider.core.project.profiles import Trait
from cdp_provider.core.segments.membership import build_segments
from tests.core.profiles.checking import agrees, compare, differences, settings_of
from tests.core.profiles.definitions import OWN_SQL, definitions
from tests.core.profiles.oracle import Oracle
from tests.core.profiles.scene import HOUR, Resolved, Scene, carried, identities, windows
from tests.core.profiles.world import NOW, STREAMS, profile_rows, run, table_rows
from tests.core.segments import strategies
from tests.core.segments.oracle import World
from tests.core.segments.strategies import CONSENT, PROFILES, leaves

if TYPE_CHECKING:
    from datetime import datetime

    from cdp_provider.core.project.profiles import Profiles
    from cdp_provider.core.warehouse import Warehouse


_RECENT = {"stream": "web.events", "within_last": 36 * HOUR}
#: What changes though nothing lands, in each of the ways in which values are computed.
EDGES = {
    "recent": Trait(type="count", **_RECENT),
    "recent_sum": Trait(type="sum", column="d", **_RECENT),
    "recent_last": Trait(type="last", column="s", **_RECENT),
    "recent_list": Trait(type="list", column="i", **_RECENT),
    "recent_most": Trait(type="most_frequent", column="s", stream="crm.people", within_last=48 * HOUR),
    "ago": Trait(type="days_since_last", stream="crm.people"),
    "filtered": Trait(type="count", stream="web.events", where={"t": {"within_last": "36 hours"}}),
}


def together(drawn: Profiles) -> Profiles:
    """What was drawn, with what conditions compare."""
    return drawn.model_copy(
        update={
            "fields": {**PROFILES.fields, **drawn.fields},
            "traits": {**PROFILES.traits, **EDGES, **drawn.traits},
            "accounts": PROFILES.accounts,
        }
    )


def open_stays(warehouse: Warehouse) -> set[tuple[str, int]]:
    with warehouse.session() as session:
        table = warehouse.table("memberships")
        return set(session.fetch(f"select segment, profile_id from {table} where left_at is null"))


def forget(warehouse: Warehouse) -> None:
    """Drop all that runs keep for the next one."""
    with warehouse.session() as session:
        for stream in STREAMS:
            session.execute(f"drop table if exists {warehouse.table(f'linked_{stream.view}')} cascade")
        for table in ("linked", "unlinked", "kept"):
            session.execute(f"delete from {warehouse.table(table)}")


EIGHT = st.lists(leaves([], []), min_size=8, max_size=8)


def play(scene: Scene, steps: list[Any], drawn: Profiles, conditions: list[Any], skipped: set[int]) -> None:
    """:param skipped: windows whose run never came to build anything."""
    profiles, warehouse = together(drawn), scene.warehouse
    segmentation = Segmentation(
        segments=tuple(Segment(name=f"segment_{n}", where=c) for n, c in enumerate(conditions)),
        consent=CONSENT,
    )
    scene.open()
    for number, step in enumerate([None, *steps]):
        if step:
            scene.window(step)
        if number - 1 in skipped and number < len(steps):
            continue
        build(scene, profiles, segmentation, f"run_{number}")
        oracle = Oracle(scene.rows, scene.people, profiles, scene.now, OWN_SQL)
        compare(warehouse, oracle)
        expected = World(oracle, segmentation, {}, strategies.OWN_SQL).members()
        wrong = {name for name, _ in open_stays(warehouse) ^ expected}
        assert {s.name: s.where for s in segmentation.segments if s.name in wrong} == {}
    standing, members = profile_rows(warehouse), open_stays(warehouse)
    forget(warehouse)
    build(scene, profiles, segmentation, "whole")
    assert profile_rows(warehouse) == standing
    assert open_stays(warehouse) == members


def build(scene: Scene, profiles: Profiles, segmentation: Segmentation, name: str) -> None:
    build_profiles(scene.warehouse, profiles, STREAMS, run(scene.now, name))
    build_segments(scene.warehouse, segmentation, profiles, STREAMS, run(scene.now, name))


@settings_of(3)
@given(steps=windows(), drawn=definitions(), conditions=EIGHT, skipped=st.sets(st.integers(0, 4)))
def test_many_runs_equal_one(engine, steps, drawn, conditions, skipped):
    play(Scene(engine), steps, drawn, conditions, skipped)


@settings_of(2)
@given(
    identity=identities(),
    steps=carried(),
    drawn=definitions(),
    conditions=EIGHT,
    skipped=st.sets(st.integers(0, 4)),
)
def test_many_runs_after_identity_equal_one(engine, identity, steps, drawn, conditions, skipped):
    play(Resolved(engine, identity=identity), steps, drawn, conditions, skipped)


#: What JSON writes in one way only.
REMEMBERED = ("text", "texts", "agreed", "last_integer", "last_boolean", "last_string", "last_date", "rows")


def remembered(warehouse: Warehouse, as_of: datetime) -> dict[tuple[int, str], Any]:
    """Profile and name -> value that ``profile_history`` has for a moment."""
    found: dict[tuple[int, str], Any] = {}
    for line in sorted(table_rows(warehouse, "profile_history"), key=lambda line: line["as_of"]):
        if line["as_of"] <= as_of:
            value = line["value"]
            value = json.loads(value) if warehouse.engine == "duckdb" and value is not None else value
            found[line["profile_id"], line["name"]] = value
    return {key: value for key, value in found.items() if value is not None}


@settings_of(3)
@given(steps=windows(changing=False), order=st.lists(st.integers(0, 4), min_size=1, max_size=6))
def test_histories_hold_what_was_true_whatever_came_first(engine, steps, order):
    profiles = PROFILES.model_copy(update={"history": REMEMBERED})
    scene = Scene(engine)
    scene.open()
    for step in steps:
        scene.window(step)
    moments = {number: NOW + number * 16 * HOUR for number in order}
    for number in order:
        build_profiles(engine, profiles, STREAMS, run(moments[number], f"run_{number}"))
    for moment in moments.values():
        oracle = Oracle(scene.rows, scene.people, profiles, moment)
        found = remembered(engine, moment)
        expected = {
            (profile, name): value
            for profile, values in oracle.values.items()
            for name, value in values.items()
            if name in REMEMBERED and value is not None
        }
        snapshot(engine, profiles, STREAMS, moment, "past")
        assert differences(profile_rows(engine, "past"), oracle.values) == []
        assert found.keys() == expected.keys()
        wrong = {
            key: (found[key], value) for key, value in expected.items() if not _written(found[key], value)
        }
        assert wrong == {}


def _written(found: Any, expected: Any) -> bool:
    return agrees(json.dumps(found) if isinstance(expected, list) else found, _plain(expected))


def _plain(value: Any) -> Any:
    return value.isoformat() if hasattr(value, "isoformat") else value
