# SPDX-License-Identifier: Apache-2.0
"""Random fields, traits and accounts over random worlds: the tables equal a row-by-row calculation."""

from __future__ import annotations

import json
import math
import os
from datetime import date
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from cdp_provider.core import tables
from cdp_provider.core.profiles.build import build_profiles
from cdp_provider.core.warehouse import DuckDBWarehouse
from tests.core.profiles.oracle import Oracle, chosen_of
from tests.core.profiles.strategies import OWN_SQL, definitions, worlds
from tests.core.profiles.world import NOW, STREAMS, clear, landed, profile_rows, put, run, table_rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from cdp_provider.core.project.profiles import Profiles
    from cdp_provider.core.warehouse import Warehouse

#: How many times as many examples as usual; the nightly run asks for more.
DEPTH = int(os.environ.get("CDP_TEST_DEPTH", "1"))
#: Finding the smallest example takes minutes where each goes through several windows.
SHRINK = os.environ.get("CDP_TEST_SHRINK", "1") == "1"


def settings_of(examples: int) -> settings:
    return settings(
        max_examples=examples * DEPTH,
        deadline=None,
        derandomize=DEPTH == 1,
        database=None,
        phases=(Phase.generate, Phase.shrink) if SHRINK else (Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(params=["duckdb", "postgres"])
def engine(request: pytest.FixtureRequest, make_warehouse: Callable[[str], Warehouse]) -> Warehouse:
    """A warehouse that many examples may use one after the other; DuckDB's lies in memory."""
    if request.param == "postgres":
        return make_warehouse("postgres")
    root = duckdb.connect(":memory:")
    warehouse = DuckDBWarehouse(root.cursor)
    with warehouse.session() as session:
        tables.ensure(session)
    return warehouse


def plain(value: Any) -> Any:
    """An expected value as JSON would hold it."""
    if isinstance(value, list):
        return [plain(part) for part in value]
    return value.isoformat() if isinstance(value, date) else value


def agrees(found: Any, expected: Any) -> bool:
    """Whether a cell holds what it should. Averages may differ in their last binary digits."""
    if isinstance(expected, list):
        return (json.loads(found) if isinstance(found, str) else found) == plain(expected)
    if isinstance(found, dict | list) or (isinstance(found, str) and isinstance(expected, str)):
        return _json(found) == _json(expected)
    if isinstance(expected, float) and found is not None:
        return math.isclose(found, expected, rel_tol=1e-12, abs_tol=1e-12)
    return found == expected and type(found) is not bool or found is expected


def _json(value: Any) -> Any:
    """JSON columns come parsed from one engine and as text, spaced as it likes, from the other."""
    try:
        return json.loads(value) if isinstance(value, str) and value[:1] in ("{", "[") else value
    except ValueError:
        return value


def differences(found: dict[Any, dict[str, Any]], expected: dict[Any, dict[str, Any]]) -> list[str]:
    """What a failed comparison shows."""
    assert found.keys() == expected.keys()
    return [
        f"{key} {name}: found {found[key][name]!r}, expected {value!r}"
        for key, values in expected.items()
        for name, value in values.items()
        if not agrees(found[key][name], value)
    ]


def compare(warehouse: Warehouse, world: Oracle) -> None:
    """The tables ``profiles`` and ``accounts`` against the oracle."""
    expected = {
        profile: {"profile_id": profile, **values, "_as_of": world.now}
        for profile, values in world.values.items()
    }
    found = profile_rows(warehouse)
    assert differences(found, expected) == []
    if world.profiles.accounts:
        lines = {line["account"]: line for line in table_rows(warehouse, "accounts")}
        assert differences(lines, world.accounts) == []


@settings_of(10)
@given(world=worlds(), profiles=definitions())
def test_profiles_equal_a_calculation_row_by_row(engine: Warehouse, world, profiles: Profiles) -> None:
    rows, people = world
    clear(engine)
    put(engine, rows, people)
    report = build_profiles(engine, profiles, STREAMS, run())
    compare(engine, Oracle(rows, people, profiles, NOW, OWN_SQL))
    assert report.rows_out == len(set(people.values()))


@settings_of(10)
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
            if chosen := chosen_of(field, stated):
                place = (chosen.row.stream, chosen.row.load_id, chosen.row.position)
                marked = [
                    (line["stream"], line["load_id"], line["position"]) for line in mine if line["chosen"]
                ]
                assert marked == [place]
