# SPDX-License-Identifier: Apache-2.0
"""Broken files of every sort: each record is landed with its values or quarantined as it came."""

from __future__ import annotations

import gzip
import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cdp_provider.core.exceptions import DataError
from cdp_provider.core.ingest.base import Connector, Fetched, RawFile
from cdp_provider.core.ingest.landing import land
from cdp_provider.core.project.base import Options
from cdp_provider.core.project.streams import Stream
from tests.core.ingest.malformed import COLUMNS, Expected, expected_of_csv, expected_of_ndjson, same_json
from tests.core.ingest.malformed import _loads as loads

if TYPE_CHECKING:
    from collections.abc import Callable

    from cdp_provider.core.warehouse import Warehouse

DEPTH = int(os.environ.get("CDP_TEST_DEPTH", "1"))
#: Files of one batch, at the most; about half of it on average.
FILES = 12
STREAM = Stream(
    source="broken",
    name="things",
    primary_key=("id",),
    time="at",
    columns=COLUMNS,
    quarantine={"max_share": 1},
    options=Options(),
)
HEADER = ["id", "i", "n", "d", "b", "day", "at", "j", "s", "other"]
BOM = b"\xef\xbb\xbf"

#: Batches of generated files: a landing costs more than what is in it, PostgreSQL's most of all.
EXAMPLES = {"duckdb": 8, "postgres": 2} if DEPTH == 1 else {"duckdb": 80 * DEPTH, "postgres": 5 * DEPTH}


def each(engine: Warehouse, strategy: st.SearchStrategy[Any], holds: Callable[[Any], None]) -> None:
    """Whatever the strategy makes, it holds, as often as the engine can be asked."""
    thorough = settings(
        max_examples=EXAMPLES[engine.engine],
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    thorough(given(strategy)(holds))()


class Given(Connector):
    """Files that are there already."""

    options = Options
    reaches = "folder"

    def __init__(self, *files: RawFile) -> None:
        self._files = list(files)

    def fetch(self, stream, cursor, window, spool, *, taken=(), until=None):
        return Fetched(self._files)


# What files are made of

numbers = st.one_of(
    st.integers(-100, 100).map(str),
    st.integers().map(str),
    st.sampled_from(
        ["9223372036854775807", "9223372036854775808", "-9223372036854775808", "1e400", "1e22", "1E-7", "-0"]
    ),
    st.decimals(allow_nan=False, allow_infinity=False, places=8).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.integers(10**17, 10**30).map(str),
    st.tuples(st.integers(0, 10**23), st.integers(0, 10**9)).map(lambda p: f"{p[0]}.{p[1]}"),
)
days = st.dates().map(str)
moments = st.one_of(
    st.datetimes().map(lambda m: m.isoformat()),
    st.datetimes().map(lambda m: m.isoformat(" ", "minutes") + "Z"),
    st.tuples(
        st.datetimes(), st.sampled_from(["+02:00", "-0930", "+15:59", "+16:00", "z", "+5", ".5", ",25"])
    ).map(lambda p: p[0].isoformat(timespec="seconds") + p[1]),
)
odd = st.sampled_from(
    [
        "",
        " ",
        "null",
        "NULL",
        "NaN",
        "Infinity",
        "-inf",
        "1_000",
        "1,5",
        "0x10",
        "1e",
        "+",
        ".",
        "1.",
        ".5",
        "+7",
    ]
    + ["4.0", "4.5", "TRUE", "Yes", "2", "2024-02-30", "2024-1-1", "0000-01-01", "2024-13-01", "24:00:00"]
    + [
        "2024-02-29T24:00:00",
        "2024-02-29T23:59:60",
        "2024-02-29T00:00:00Z",
        "1751364000",
        "today",
        "１２",
        "५",
    ]
    + ["{}", "[1", '{"a":', '"x"', "[1,]", "\ufeff", "é", "𝒜", "a\tb", "'", "\\", "\\N", "-", "true ", " 5"]
)
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x0b\x0c"), max_size=8)
words = numbers | days | moments | odd | texts | st.sampled_from(["true", "f", '{"k":[1,null]}'])
keys = st.text("abc1", min_size=1, max_size=3)


def cell(name: str) -> st.SearchStrategy[str]:
    """Mostly what the column is for."""
    fitting = {
        "id": keys,
        "i": st.integers(-(2**63), 2**63 - 1).map(str),
        "n": numbers,
        "d": numbers,
        "b": st.sampled_from(["true", "0", "Y", "no"]),
        "day": days,
        "at": moments,
        "j": st.sampled_from(
            ["{}", '{"a":1.50}', "[1,2]", '"x"', "12345678901234567890123", "null", '{"a":1,"a":2}']
        ),
    }.get(name, texts)
    return st.one_of(fitting, fitting, st.just(""), words)


damage = st.sampled_from(
    [
        b'"',
        b'""',
        b"\x00",
        b"\xff",
        b"\xc3",
        b"\xed\xa0\x80",
        BOM,
        b"\r",
        b"\n",
        b"\r\n",
        b",",
        b"\\",
        b"}",
        b"\t",
    ]
)
wounds = st.lists(st.tuples(st.floats(0, 1), st.none() | damage), max_size=3)


def damaged(data: bytes, hurt: list[tuple[float, bytes | None]], start: int) -> bytes:
    """Bytes inserted, or, for None, everything after the place cut off; nothing before `start`."""
    for where, what in hurt:
        place = start + int(where * (len(data) - start))
        data = data[:place] + (b"" if what is None else what + data[place:])
    return data


@st.composite
def csv_files(draw: st.DrawFn) -> bytes:
    end = draw(st.sampled_from([b"\n", b"\r\n"]))
    rows = []
    for _ in range(draw(st.integers(0, 6))):
        cells = [draw(cell(name)) for name in HEADER[:9]] + [draw(words)]
        cut = draw(st.sampled_from([None] * 8 + [-1, 3, 0]))
        cells = cells if cut is None else cells[:cut]
        rows.append(",".join(map(_csv_cell, cells, draw(st.lists(st.booleans(), min_size=10, max_size=10)))))
    ends = [draw(st.sampled_from([end, end, end, b"\n", b"\r\n", b"\r", b"\n\n"])) for _ in rows]
    body = b"".join(row.encode() + e for row, e in zip(rows, ends, strict=True))
    head = draw(st.sampled_from([b"", BOM])) + ",".join(HEADER).encode() + end
    return damaged(head + body, draw(wounds), len(head))


def _csv_cell(text: str, quoted: bool) -> str:
    if quoted or any(mark in text for mark in ',"\r\n'):
        return '"' + text.replace('"', '""') + '"'
    return text


def _json_object(pairs: list[tuple[str, str]]) -> str:
    return "{" + ",".join(f'"{key}":{value}' for key, value in pairs) + "}"


json_values = st.recursive(
    st.sampled_from(["null", "true", "false", "NaN", "-Infinity", "1e99999", "01", "'x'", "{", "]"])
    | numbers
    | texts.map(lambda text: json.dumps(text, ensure_ascii=False))
    | texts.map(json.dumps)
    | st.sampled_from(['"\\u0000"', '"\\ud800"', '"\\ud83d\\ude00"', '"\t"', '"\\x"', '"a\\u0000b"']),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: "[" + ",".join(items) + "]")
        | st.lists(st.tuples(keys, inner), max_size=3).map(_json_object)
    ),
    max_leaves=4,
)
deep = st.tuples(st.sampled_from([3, 150, 199, 201, 260, 3000]), st.sampled_from(["[]", "{}"])).map(
    lambda p: "[" * p[0] + "]" * p[0] if p[1] == "[]" else '{"a":' * p[0] + "1" + "}" * p[0]
)


def _member(name: str) -> st.SearchStrategy[tuple[str, str]]:
    good = cell(name).map(lambda text: json.dumps(text, ensure_ascii=False))
    if name in ("i", "n", "d"):
        good = numbers
    return st.tuples(st.just(name), st.one_of(good, good, good, st.just("null"), json_values))


@st.composite
def ndjson_files(draw: st.DrawFn) -> bytes:
    rows = []
    for _ in range(draw(st.integers(0, 6))):
        members = [("id", json.dumps(draw(keys)))]
        if draw(st.integers(0, 5)) == 0:
            members = [draw(_member("id"))]
        for name in draw(st.lists(st.sampled_from(HEADER[1:9]), max_size=5, unique=True)):
            members.append(draw(_member(name)))
        if draw(st.integers(0, 3)) == 0:
            members += draw(
                st.lists(
                    st.tuples(keys.map("x_".__add__), json_values | deep),
                    max_size=2,
                    unique_by=lambda m: m[0],
                )
            )
        rows.append(_json_object(draw(st.permutations(members))).encode())
    ends = [draw(st.sampled_from([b"\n", b"\n", b"\n", b"\r\n", b"\r", b"\n \n", b",\n"])) for _ in rows]
    data = draw(st.sampled_from([b"", b"", BOM])) + b"".join(r + e for r, e in zip(rows, ends, strict=True))
    return damaged(data, draw(wounds), 0)


# The test


def landed(warehouse: Warehouse, run: Any, files: list[RawFile]) -> tuple[list[Any], list[Any], Any]:
    """Raw rows, quarantined rows, and the report."""
    report = land(warehouse, STREAM, Given(*files), run)
    names = [*COLUMNS, "_position", "_extra"]
    # A driver would read JSON, and lose digits.
    quoted = ", ".join(
        f"cast({warehouse.quote(name)} as varchar)" if name in ("j", "_extra") else warehouse.quote(name)
        for name in names
    )
    with warehouse.session() as session:
        rows = session.fetch(f"select {quoted} from {warehouse.table(STREAM.raw_table)} order by _position")
        bad = session.fetch(
            "select source, line, position, reason, raw"
            f" from {warehouse.table('quarantine')} order by position"
        )
    return [dict(zip(names, row, strict=True)) for row in rows], bad, report


def agree(files: dict[str, tuple[list[Expected], int]], rows: list[Any], bad: list[Any], report: Any) -> None:
    """Each record is in one place, as it must be."""
    by_place = {row["_position"]: row for row in rows}
    refused = {row[2]: row for row in bad}
    assert len(by_place) == len(rows)
    assert len(refused) == len(bad)
    assert not by_place.keys() & refused.keys()
    base, expected_places = 0, set()
    for source, (records, lines) in files.items():
        for record in records:
            place = base + record.line
            expected_places.add(place)
            if place in by_place:
                row = by_place[place]
                assert record.may_land, (record, row)
                assert record.agrees(row), (record, row)
                _extra_agrees(record, row)
            else:
                assert place in refused, (record, "is lost")
                assert not record.must_land, (record, refused[place])
                assert refused[place][:2] == (source, record.line)
                assert refused[place][3], "without a reason"
                assert refused[place][4] == record.raw
        base += lines
    assert by_place.keys() | refused.keys() == expected_places
    assert (report.rows_in, report.rows_out, report.rows_refused) == (
        len(expected_places),
        len(rows),
        len(bad),
    )


def _extra_agrees(record: Expected, row: dict[str, Any]) -> None:
    extra = row["_extra"]
    found = {} if extra is None else loads(extra)
    assert same_json(found, record.extra), (record, row)


def test_csv(engine, tmp_path, run):
    def holds(files: list[bytes]) -> None:
        given_files, expected = [], {}
        for number, data in enumerate(files):
            path = tmp_path / f"{number}.csv"
            path.write_bytes(data)
            given_files.append(RawFile(path, path.name, "csv"))
            expected[path.name] = expected_of_csv(data, len(HEADER), HEADER)
        agree(expected, *landed(engine, run(), given_files))

    head = ",".join(HEADER).encode() + b"\n"
    full = b",".join([b"1"] * len(HEADER)) + b"\n"
    holds([head, head + b"\n", head + full + b"\r\n", head + b"\n \n" + full + b"\n"])
    each(engine, st.lists(csv_files(), min_size=1, max_size=FILES), holds)


def test_ndjson(engine, tmp_path, run):
    def holds(files: list[bytes]) -> None:
        given_files, expected = [], {}
        for number, data in enumerate(files):
            path = tmp_path / f"{number}.ndjson"
            path.write_bytes(gzip.compress(data) if number % 2 else data)
            given_files.append(RawFile(path, path.name, "ndjson", compression="gzip" if number % 2 else ""))
            expected[path.name] = expected_of_ndjson(data)
        agree(expected, *landed(engine, run(), given_files))

    each(engine, st.lists(ndjson_files(), min_size=1, max_size=FILES), holds)


doubled = st.lists(st.sampled_from(["id", "i", "s", "x", "y"]).flatmap(_member), min_size=1, max_size=6)


def test_members_that_stand_twice(engine, tmp_path, run):
    """JSON does not say which of them counts: the last one, as everywhere, or the record is refused."""
    path = tmp_path / "doubled.ndjson"

    def holds(records: list[list[tuple[str, str]]]) -> None:
        lines = [b'{"id":"before"}', *(_json_object(pairs).encode() for pairs in records), b'{"id":"after"}']
        data = b"\n".join(lines)
        path.write_bytes(data)
        expected = {path.name: expected_of_ndjson(data)}
        agree(expected, *landed(engine, run(), [RawFile(path, path.name, "ndjson")]))

    each(engine, st.lists(doubled, min_size=1, max_size=8), holds)


@pytest.mark.parametrize("form", ["csv", "ndjson"])
def test_a_gzip_that_was_cut_anywhere_is_refused_as_a_whole(engine, tmp_path, run, form):
    text = ("id,s\n" + "1,x\n" * 400) if form == "csv" else '{"id":"1","s":"x"}\n' * 400
    whole = gzip.compress(text.encode())
    path = tmp_path / "cut.gz"
    for cut in [*range(0, len(whole), max(1, len(whole) // (3 * DEPTH))), len(whole) - 1]:
        path.write_bytes(whole[:cut])
        with pytest.raises(DataError, match="gzip"):
            land(engine, STREAM, Given(RawFile(path, "cut.gz", form, compression="gzip")), run())
    path.write_bytes(whole)
    rows, bad, _ = landed(engine, run(), [RawFile(path, "cut.gz", form, compression="gzip")])
    assert (len(rows), len(bad)) == (400, 0)
