# SPDX-License-Identifier: Apache-2.0
"""Texts of a project file and of the data are values and nothing else, whatever stands in them.

A project with hostile texts in every place that takes a text runs over data that is made of the same texts, and
once more with plain words instead of them that are in the same order. Apart from the words, everything comes
out alike.

What is guaranteed of somebody's own statements (``sql``): they stand as a subquery within one of ours, so they
cannot end it, begin another one, or change rows or tables. They may call whatever functions the warehouse's user
may call, and read what that user may read.
"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

from cdp_provider.core import tables
from cdp_provider.core.identity.resolve import resolve
from cdp_provider.core.ingest.contracts import check
from cdp_provider.core.ingest.files import FilesConnector
from cdp_provider.core.ingest.landing import land
from cdp_provider.core.profiles.build import build_profiles, snapshot
from cdp_provider.core.profiles.provenance import provenance
from cdp_provider.core.run import Run, Window
from cdp_provider.core.segments.membership import build_segments
from cdp_provider.core.segments.preview import preview
from cdp_provider.core.segments.why import why
from cdp_provider.core.warehouse import DuckDBWarehouse
from tests.core.hostile import (
    NASTY,
    NOW,
    PLAIN,
    Words,
    filled,
    hostile,
    load,
    with_all_conditions,
    write,
)
from tests.core.profiles.world import fetch

if TYPE_CHECKING:
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
            lines = [words.plainly(parsed(table, row)) for row in fetch(warehouse, f"select * from {warehouse.table(table)}")]
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
