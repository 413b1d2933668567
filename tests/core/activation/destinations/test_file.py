# SPDX-License-Identifier: Apache-2.0
"""Files in a real folder, brought by the real delivery."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pytest
from airflow.sdk import ObjectStoragePath
from airflow.sdk.io import attach
from fsspec.implementations.memory import MemoryFileSystem
from pydantic import ValidationError

from cdp_provider.core.activation.delivery import Patience, deliver
from cdp_provider.core.activation.destinations.base import Record
from cdp_provider.core.activation.destinations.file import File, FileOptions
from cdp_provider.core.exceptions import AccessError, NotFoundError, UnavailableError
from cdp_provider.core.project.activation import Destination, Sync

START = datetime(2026, 7, 1, 6, 30, tzinfo=UTC)
VALUES = {
    "text": 'Jürgen "x", \u2028\n<&>',
    "empty": "",
    "nothing": None,
    "decimal": Decimal("12.500000"),
    "moment": datetime(2026, 7, 1, 12, tzinfo=UTC),
    "day": date(2026, 7, 1),
    "yes": True,
    "whole": 2**62,
    "number": 0.1,
    "json": orjson.Fragment('{"a": [1]}'),
}


def declared(**changed):
    given = {
        "name": "people",
        "segment": "newsletter",
        "destination": "lake",
        "key": "email",
        "fields": {"name": "first_name"},
    }
    return Sync.model_validate(given | changed)


def kind(*, sync=None, batch=None, **options):
    destination = Destination(
        name="lake",
        type="file",
        connection="lake",
        batch=batch,
        options=FileOptions.model_validate(options),
    )
    return File(destination, declared(**sync or {}))


def person(n, operation="upsert", **fields):
    key = f"person{n:05}@example.com"
    if operation not in ("remove", "archive"):
        fields = fields or {"name": f"Person {n}"}
    return Record(
        record_key=key,
        key=key,
        profile_id=n,
        fields=fields,
        operation=operation,
        payload_hash=str((operation, fields)),
        attempts=0,
        intended=START,
        time=START if operation == "event" else None,
    )


def bring(folder, records, **given):
    """The outcomes' states."""
    told: dict[str, Any] = {}
    deliver(
        kind(**given),
        folder,
        [[replace(record, place=place) for place, record in enumerate(records)]],
        write=lambda results: told.update({r.record.record_key: r.outcome for r in results}),
        patience=Patience(tries=2, pause=0.01),
    )
    return [told[record.record_key].state for record in records]


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file())


def lines(folder):
    return [json.loads(line) for name in files(folder) for line in (folder / name).read_text().splitlines()]


def test_each_batch_is_a_file_and_a_repeat_is_the_same_file(tmp_path):
    for _ in range(2):
        assert bring(tmp_path, [person(n) for n in range(5)], batch=2) == ["accepted"] * 5
        assert len(files(tmp_path)) == 3
    assert all(name.startswith("people/2026-07-01/") and name.endswith(".ndjson") for name in files(tmp_path))
    expected = [
        {"key": f"person{n:05}@example.com", "name": f"Person {n}", "_operation": "upsert"} for n in range(5)
    ]
    assert sorted(lines(tmp_path), key=lambda row: row["key"]) == expected


def test_places_of_the_path(tmp_path):
    options = {"path": "{team}/{sync}-{date}-{time}-{batch}.csv", "format": "csv"}
    assert bring(tmp_path, [person(0)], sync={"parameters": {"team": "growth"}}, **options) == ["accepted"]
    (name,) = files(tmp_path)
    assert name.startswith("growth/people-2026-07-01-20260701T063000Z-")
    assert name.endswith(".csv")
    assert name.count(".csv") == 1


@pytest.mark.parametrize("format_", ["ndjson", "csv", "parquet"])
def test_values_can_be_read_back(tmp_path, format_):
    sync = {"mode": "mirror", "fields": {name: "first_name" for name in VALUES}}
    records = [person(0, "remove"), replace(person(1), fields=VALUES)]
    assert bring(tmp_path, records, sync=sync, format=format_, key="email") == ["accepted"] * 2
    reader = {"ndjson": "read_json", "csv": "read_csv", "parquet": "read_parquet"}[format_]
    paths = [str(tmp_path / name) for name in files(tmp_path)]
    options = ", allow_quoted_nulls = false" if format_ == "csv" else ""
    query = f"select * from {reader}(?, union_by_name = true{options}) order by email"
    duckdb.sql("set timezone = 'UTC'")
    read = duckdb.sql(query, params=[paths])
    removed, row = [dict(zip(read.columns, values, strict=True)) for values in read.fetchall()]
    assert removed == dict.fromkeys(row) | {"email": "person00000@example.com", "_operation": "remove"}
    assert row["text"] == VALUES["text"]
    assert row["empty"] == ""
    assert row.get("nothing") is None
    assert Decimal(str(row["decimal"])) == Decimal("12.5")
    assert str(row["moment"]).startswith("2026-07-01 12:00:00")
    assert str(row["day"])[:10] == "2026-07-01"
    assert (row["yes"], row["whole"], float(row["number"])) == (True, 2**62, 0.1)
    held = row["json"] if isinstance(row["json"], dict) else json.loads(row["json"])
    assert held == {"a": [1]}
    assert row["_operation"] == "upsert"


def test_a_snapshot_says_nothing_of_operations(tmp_path):
    assert bring(tmp_path, [person(0)], content="snapshot") == ["accepted"]
    assert lines(tmp_path) == [{"key": "person00000@example.com", "name": "Person 0"}]
    capabilities = kind(content="snapshot").capabilities
    assert capabilities.snapshot
    assert capabilities.operations == {"upsert"}


@pytest.mark.parametrize("format_", ["ndjson", "csv"])
def test_events_say_what_and_when(tmp_path, format_):
    sync = {"mode": "event", "event": "Became VIP"}
    assert bring(tmp_path, [person(0, "event")], sync=sync, format=format_) == ["accepted"]
    path = tmp_path / files(tmp_path)[0]
    (row,) = duckdb.sql(f"select _operation, _event, _time::varchar from '{path}'").fetchall()
    assert row[:2] == ("event", "Became VIP")
    assert row[2].startswith("2026-07-01")


def test_a_torn_write_leaves_no_file_and_a_repeat_brings_it(tmp_path):
    class Torn:
        """A folder whose disk fills up in the middle of a file."""

        def __init__(self, path):
            self.path = path

        def __truediv__(self, name):
            return Torn(self.path / name)

        def __getattr__(self, name):
            found = getattr(self.path, name)
            return Torn(found) if isinstance(found, Path) else found

        def open(self, mode):
            with self.path.open(mode) as file:
                file.write(b'{"key": "per')
            raise OSError(28, "No space left on device")

    with pytest.raises(UnavailableError, match="No space left") as caught:
        bring(Torn(tmp_path), [person(0)])
    assert "person00000" not in str(caught.value)
    assert [name for name in files(tmp_path) if not name.endswith(".part")] == []
    assert bring(tmp_path, [person(0)]) == ["accepted"]
    (name,) = files(tmp_path)
    assert len(lines(tmp_path)) == 1


def test_a_path_that_is_a_file_is_told(tmp_path):
    (tmp_path / "people").write_text("in the way")
    with pytest.raises(NotFoundError, match="people/2026-07-01"):
        bring(tmp_path, [person(0)])


def test_missing_rights_are_told(tmp_path):
    class Locked(type(tmp_path)):
        def open(self, *args, **kwargs):
            raise PermissionError(13, "Permission denied")

    with pytest.raises(AccessError, match="may not write"):
        bring(Locked(tmp_path), [person(0)])


def test_airflows_paths_are_folders_too(tmp_path):
    assert bring(ObjectStoragePath(f"file://{tmp_path}"), [person(n) for n in range(3)]) == ["accepted"] * 3
    assert len(lines(tmp_path)) == 3
    assert len(files(tmp_path)) == 1


def test_an_object_store_gets_whole_objects():
    attach("memory", fs=MemoryFileSystem())
    store = ObjectStoragePath("memory://lake/cdp")
    for _ in range(2):
        assert bring(store, [person(n) for n in range(3)]) == ["accepted"] * 3
    found = [path for path in (store / "people" / "2026-07-01").iterdir()]
    assert len(found) == 1
    assert len(found[0].read_text().splitlines()) == 3


@pytest.mark.parametrize("path", ["{sync}/{date}", "../{batch}", "/{batch}", ""])
def test_paths_that_would_lose_files_are_refused(path):
    with pytest.raises(ValidationError):
        FileOptions(path=path)


@pytest.mark.parametrize(
    ("options", "sync", "message"),
    [
        ({"path": "{team}/{batch}"}, {}, "needs the parameter 'team'"),
        ({"path": "{team}/{batch}"}, {"parameters": {"team": "../x"}}, "is no name of a file"),
        ({"content": "snapshot"}, {"mode": "mirror"}, "cannot remove them"),
        ({"content": "snapshot"}, {"mode": "event"}, "the mode 'event' needs more"),
        ({}, {"fields": {"key": "email"}}, "is no field"),
        ({}, {"fields": {"_operation": "email"}}, "is no field"),
        ({}, {"mode": "archive"}, None),
        ({"content": "snapshot"}, {}, None),
    ],
)
def test_syncs_that_do_not_fit_are_told(options, sync, message):
    given = FileOptions.model_validate(options)
    problems = [p.message for p in given.sync_problems(declared(**sync))]
    assert len(problems) == (message is not None)
    assert message is None or message in problems[0]
