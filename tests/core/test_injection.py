# SPDX-License-Identifier: Apache-2.0
"""Texts of a project file and of the data are values and nothing else, whatever stands in them.

A project with hostile texts in every place that takes a text runs over data that is made of the same texts,
and once more with plain words instead of them. Apart from the words, everything comes out alike.

What is guaranteed of somebody's own statements (``sql``): they stand as a subquery within one of ours, so
that they cannot end it, begin another one, or change rows or tables. They may call whatever functions the
user of the warehouse may call, and read whatever that user may read.
"""

from __future__ import annotations

import json
from datetime import timedelta
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import duckdb
import psycopg
import pytest

from cdp_provider.core import tables
from cdp_provider.core.exceptions import ConfigurationError
from cdp_provider.core.identity.resolve import resolve
from cdp_provider.core.ingest.contracts import check
from cdp_provider.core.ingest.files import FilesConnector
from cdp_provider.core.ingest.landing import land
from cdp_provider.core.profiles.build import build_profiles, snapshot
from cdp_provider.core.profiles.provenance import provenance
from cdp_provider.core.project.faults import ProjectError
from cdp_provider.core.project.problems import path_text
from cdp_provider.core.project.profiles import Profiles, Trait
from cdp_provider.core.run import Run, Window
from cdp_provider.core.segments.membership import build_segments
from cdp_provider.core.segments.preview import preview
from cdp_provider.core.segments.why import why
from cdp_provider.core.warehouse import DuckDBWarehouse
from tests.core.hostile import (
    NASTY,
    NOW,
    PLAIN,
    Place,
    Words,
    filled,
    hostile,
    load,
    replaced,
    strings,
    whole_project,
    with_all_conditions,
)
from tests.core.hostile_data import write
from tests.core.profiles.world import STREAMS, event, fetch, put, run

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from cdp_provider.core.warehouse import Warehouse

ROTATIONS = range(3)
_LISTS = {"cities", "statuses", "viewed"}
_JSON = {"profiles": _LISTS, "profiles_then": _LISTS, "profile_history": {"value"}}
_COMPARED = ("profiles", "accounts", "field_provenance", "profile_history", "memberships", "identifiers")


def outcome(warehouse: Warehouse, folder: Path, words: Words) -> dict[str, Any]:
    """All that comes of the hostile projects, one after the other, in plain words."""
    with warehouse.session() as session:
        tables.ensure(session)
        session.execute(f"create table {warehouse.table('canary')} as select 1 as alive")
    first = load(with_all_conditions(filled(hostile(0), words)))
    streams = list(first.streams())
    landing = Run("shop", "run", Window(None, NOW))
    for stream in streams:
        write(folder, stream, words)
        landed = land(warehouse, stream, FilesConnector(folder), landing)
        assert (landed.rows_refused, landed.rows_out > 0) == (0, True)
        assert check(warehouse, stream, landing).state == "ok"
    resolve(warehouse, first.identity, streams, landing)
    found = {}
    for rotation in ROTATIONS:
        project = load(with_all_conditions(filled(hostile(rotation), words)))
        profiles, segmentation = project.profiles, project.segmentation()
        now = Run("shop", f"run {words[rotation]}", Window(None, NOW + timedelta(hours=rotation)))
        build_profiles(warehouse, profiles, streams, now)
        build_segments(warehouse, segmentation, profiles, streams, now)
        snapshot(warehouse, profiles, streams, NOW, "profiles_then")
        for table in (*_COMPARED, "profiles_then"):
            lines = [
                words.plainly(parsed(table, row))
                for row in fetch(warehouse, f"select * from {warehouse.table(table)}")
            ]
            found[f"{table} {rotation}"] = sorted(lines, key=repr)
        segment = project.segments["every_condition"]
        shown = preview(warehouse, segment, segmentation, profiles, streams)
        found[f"preview {rotation}"] = (shown.size, shown.sample)
        held = why(warehouse, segment, shown.sample[0], segmentation, profiles, streams, values=True)
        found[f"why {rotation}"] = (held.member, [part.holds for part in held.where.parts])
        stated = provenance(warehouse, profiles, streams, shown.sample[0], "cities")
        found[f"provenance {rotation}"] = words.plainly(stated.as_dict())
    with warehouse.session() as session:
        assert session.fetch(f"select alive from {warehouse.table('canary')}") == [(1,)]
    return found


def parsed(table: str, row: dict[str, Any]) -> dict[str, Any]:
    """A row whose JSON is read."""
    return {
        name: json.loads(value) if name in _JSON.get(table, ()) and isinstance(value, str) else value
        for name, value in row.items()
    }


@pytest.fixture(scope="module")
def harmless(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What comes of plain words, on DuckDB."""
    folder = tmp_path_factory.mktemp("plain")
    return outcome(DuckDBWarehouse(lambda: duckdb.connect(str(folder / "w.duckdb"))), folder, Words(PLAIN))


def test_hostile_texts_are_values(warehouse, tmp_path, harmless):
    found = outcome(warehouse, tmp_path, Words(NASTY))
    assert found.keys() == harmless.keys()
    for name, rows in harmless.items():
        assert found[name] == rows, name
    customers = {f"{plain}u": PLAIN[(n + 1) % len(PLAIN)] for n, plain in enumerate(PLAIN)}
    assert {row["user_id"]: row["city"] for row in found["profiles 0"]} == customers
    met = {row["segment"] for number in ROTATIONS for row in found[f"memberships {number}"]}
    conditions = {name for name in whole_project()["segments"] if name.startswith("c_")}
    assert conditions - met == {"c_near"}


def is_named(error: ProjectError, path: Place, text: str, *, key: bool) -> bool:
    """Whether a fault has the place of a text; of a key also where it is missing now."""
    faults = {fault.path for fault in error.faults}
    if not key:
        return path_text(path) in faults
    return not faults.isdisjoint({path_text((*path[:-1], text)), path_text(path[:-1])})


def taken(places: Sequence[tuple[Place, bool, str]]) -> list[tuple[Place, bool, str]]:
    """Those of the hostile texts that no fault names when all of them are in the project."""
    project = whole_project()
    for path, key, text in places:
        project = replaced(project, path, text, key=key)
    try:
        load(project)
    except ProjectError as error:
        return [place for place in places if not is_named(error, place[0], place[2], key=place[1])]
    return list(places)


def batches() -> Iterator[list[tuple[Place, bool, str]]]:
    """Every place once, with a hostile text: one at a time of each thing that is validated by itself, but for
    names of such things, which others refer to."""
    things: dict[Place, list[tuple[Place, bool, str]]] = {}
    for number, (path, key) in enumerate(strings(whole_project())):
        thing = path[: {"sources": 4, "profiles": 3, "identity": 3}.get(str(path[0]), 2)]
        text = NASTY[number % len(NASTY)]
        if key and path == thing[: len(path)]:
            yield [(path, key, text)]
        else:
            things.setdefault(thing, []).append((path, key, text))
    for together in zip_longest(*things.values()):
        yield [place for place in together if place]


def test_every_text_of_a_project_is_taken_for_a_value_or_refused_by_its_place():
    run = {path for rotation in ROTATIONS for path, _ in hostile(rotation)}
    rest = [place for batch in batches() for place in taken(batch) if place[1] or place[0] not in run]
    found = [(path, key) for place in rest for path, key, _ in taken([place])]
    # Names of files are no values. What a destination calls its fields is its own affair.
    files = [path for path, key in found if not key]
    assert len(files) == 3
    assert all(path[0] == "sources" and path[4:] == ("path",) for path in files)
    assert {(path[0], path[2]) for path, key in found if key} == {("syncs", "fields")}


#: Statements that somebody might put in place of a select; ``{canary}`` is a table with one row.
_REFUSED = (
    "select :now$a$'$a$; drop table {canary}; --'",
    "select 1$a$'$a$; drop table {canary}; --'",
    "with x as (with y as (select 1) update {canary} set alive = 2 returning 1) select 1, 'x' as value",
    "with x as (with y as (select 1) delete from {canary} returning 1) select 1 as profile_id, 'x' as value",
    "with x as (select 1) delete from {canary}",
    "drop table {canary}",
    "(copy {canary} to '/dev/null')",
    "select 1 as profile_id, 'x' as value; drop table {canary}",
    "select 1, 'x'); drop table {canary}; --",
    "select 1, 'x') as own; drop table {canary}; select (1",
    "select 1, '/*'; drop table {canary} -- */",
    "select 1, 'x' /* ' */; drop table {canary} -- '",
    "select 1, 'x' /* /* */ ; drop table {canary} -- */",
    "select 1, '\\'; drop table {canary} --'",
    "select 1, e'\\''; drop table {canary} --'",
    "select 1, E'\\'' ; drop table {canary} --'",
    "select 1, $$'$$; drop table {canary} --'",
    "select 1$$'$$; drop table {canary}; --'",
    "select 1, $a$'$a$; drop table {canary} --'",
    "select 1, \u2018x\u2019; drop table {canary}",
    "select 1, :p0",
    "select 1, 'x' from {{profiles}}",
    "select 1 as profile_id, 'x' as value into stolen from {canary}",
    "with x as (delete from {canary} returning 1) select 1 as profile_id, 'x' as value from x",
    "with x as (/* */ update {canary} set alive = 2 returning 1) select 1 as profile_id, 'x' as value from x",
    "with x as (select 1) insert into {canary} values (2)",
    "with x as (insert into {canary} values (2) returning 1) select 1 as profile_id, 'x' as value from x",
)
#: Those that only the warehouse recognizes, by their place within our statement.
_HELD = (
    "select 1e'\\''; drop table {canary}; --'",
    "select 1 --\r; drop table {canary}",
)


@pytest.mark.parametrize(
    ("statements", "error"), [(_REFUSED, ConfigurationError), (_HELD, (duckdb.Error, psycopg.Error))]
)
def test_own_statements_change_nothing(warehouse, statements, error):
    put(warehouse, [event(1, s="x")], {1: 1})
    canary = warehouse.table("canary")
    with warehouse.session() as session:
        session.execute(f"create table {canary} as select 1 as alive")
    for statement in statements:
        own = Trait(type="sql", as_="string", sql=statement.format(canary=canary))
        with pytest.raises(error):
            build_profiles(warehouse, Profiles(traits={"own": own}), STREAMS, run())
        with warehouse.session() as session:
            assert session.fetch(f"select alive from {canary}") == [(1,)], statement
            assert not session.exists("stolen")
