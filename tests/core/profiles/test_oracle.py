# SPDX-License-Identifier: Apache-2.0
"""Random fields, traits and accounts over random worlds: the tables equal a row-by-row calculation."""

from __future__ import annotations

from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given

from cdp_provider.core.profiles.build import build_profiles
from cdp_provider.core.project.profiles import Profiles, Trait
from tests.core.profiles.checking import compare, settings_of
from tests.core.profiles.comparing import first_moment
from tests.core.profiles.definitions import OWN_SQL, definitions
from tests.core.profiles.oracle import Oracle, Statement, chosen_of, survivor
from tests.core.profiles.strategies import DATES, DAY, MOMENTS, TICK, ZONES, worlds
from tests.core.profiles.world import NOW, STREAMS, clear, event, landed, numbered, put, run, table_rows

if TYPE_CHECKING:
    from cdp_provider.core.project.profiles import ProfileField
    from cdp_provider.core.warehouse import Warehouse


@settings_of(10)
@given(world=worlds(), profiles=definitions(16))
def test_profiles_equal_a_calculation_row_by_row(engine: Warehouse, world, profiles: Profiles) -> None:
    rows, people = world
    clear(engine)
    put(engine, rows, people)
    report = build_profiles(engine, profiles, STREAMS, run())
    compare(engine, Oracle(rows, people, profiles, NOW, OWN_SQL))
    assert report.rows_out == len(set(people.values()))


@pytest.mark.parametrize("zone", ZONES)
def test_a_date_is_a_day_of_the_zone(engine: Warehouse, zone: str) -> None:
    ends = [first_moment(day + more * DAY, ZoneInfo(zone)) for day in DATES for more in (0, 1)]
    moments = sorted({*MOMENTS, *ends, *(end - TICK for end in ends)})
    rows = landed(numbered([event(n, at=moment, t=moment) for n, moment in enumerate(moments, 1)]))
    people = {n: n for n in range(1, len(moments) + 1)}
    traits = {"today": Trait(type="exists", stream="web.events", where={"t": {"today": True}})}
    for n, day in enumerate(DATES):
        held = {name: {name: day} for name in ("is", "before", "at_least", "at_most", "more_than")}
        held["between"] = {"between": (day, day)}
        traits |= {
            f"{name}_{n}": Trait(type="exists", stream="web.events", where={"t": given})
            for name, given in held.items()
        }
        traits[f"days_{n}"] = Trait(type="count", stream="web.events", between=(day, day))
    profiles = Profiles(timezone=zone, traits=traits)
    clear(engine)
    put(engine, rows, people)
    build_profiles(engine, profiles, STREAMS, run())
    compare(engine, Oracle(rows, people, profiles, NOW))


@settings_of(6)
@given(world=worlds(), profiles=definitions())
def test_provenance_names_the_row_that_a_field_comes_from(
    engine: Warehouse, world, profiles: Profiles
) -> None:
    rows, people = world
    clear(engine)
    put(engine, rows, people)
    build_profiles(engine, profiles, STREAMS, run())
    oracle = Oracle(landed(rows), people, profiles, NOW, OWN_SQL)
    lines = table_rows(engine, "field_provenance")
    for name, field in profiles.fields.items():
        for profile in oracle.ids if field.keep != "sql" else ():
            stated = oracle.statements(field, profile)
            mine = [line for line in lines if (line["profile_id"], line["field"]) == (profile, name)]
            sources = {field.sources[statement.source].stream for statement in stated}
            assert {line["stream"] for line in mine} == sources
            marked = [(line["stream"], line["load_id"], line["position"]) for line in mine if line["chosen"]]
            wanted = [_place(statement) for statement in responsible(field, stated)]
            if field.keep in ("sum", "average", "any", "all", "list"):  # others may have a part in it
                marked = [place for place in marked if place in wanted]
            assert marked == wanted


def responsible(field: ProfileField, stated: list[Statement]) -> list[Statement]:
    """The statement that a field is said to come from, or none."""
    newest_first = sorted(stated, key=lambda statement: statement.newest, reverse=True)
    if chosen := chosen_of(field, stated):
        return [chosen]
    if field.keep in ("min", "max", "most_frequent"):
        newest_first = [s for s in newest_first if s.value == survivor(field, stated)]
    return newest_first[:1]


def _place(statement: Statement) -> tuple[str, int, int]:
    return (statement.row.stream, statement.row.load_id, statement.row.position)
