# SPDX-License-Identifier: Apache-2.0
"""Random traits and fields over random worlds: the tables equal a row-by-row calculation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import HealthCheck, given, settings

from cdp_provider.core.profiles.build import build_profiles
from tests.core.profiles import oracle
from tests.core.profiles.strategies import definitions, worlds
from tests.core.profiles.world import NOW, STREAMS, profile_rows, put, run

if TYPE_CHECKING:
    from cdp_provider.core.project.profiles import Profiles
    from cdp_provider.core.warehouse import Warehouse


@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(world=worlds(), profiles=definitions())
def test_profiles_equal_a_calculation_row_by_row(warehouse: Warehouse, world, profiles: Profiles) -> None:
    rows, people = world
    put(warehouse, rows, people)
    report = build_profiles(warehouse, profiles, STREAMS, run())
    expected = {
        profile: {
            "profile_id": profile,
            **{name: oracle.survivor(f, rows, people, profile, NOW) for name, f in profiles.fields.items()},
            **{name: oracle.trait(t, rows, people, profile, NOW) for name, t in profiles.traits.items()},
            "_as_of": NOW,
        }
        for profile in set(people.values())
    }
    assert profile_rows(warehouse) == expected
    used = {t.stream for t in profiles.traits.values()}
    used |= {source.stream for f in profiles.fields.values() for source in f.sources}
    read = [
        row
        for ref in used
        for profile in expected
        for row in oracle.rows_of(rows, people, profile, ref, NOW, {}, None)
    ]
    assert report.rows_in == len(read)
    assert report.watermark == max((t for row in read if (t := oracle.time_of(row))), default=None)
