# SPDX-License-Identifier: Apache-2.0
"""Every record is landed or in quarantine; no value is changed or lost on the way."""

from __future__ import annotations

import csv
import gzip
import io
import json
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cdp_provider.core.exceptions import DataError
from cdp_provider.core.ingest import lines
from cdp_provider.core.ingest.base import RawFile
from cdp_provider.core.ingest.parse import Parsing
from cdp_provider.core.ingest.whole import Broken
from cdp_provider.core.project.base import Options
from cdp_provider.core.project.streams import Stream

if TYPE_CHECKING:
    from pathlib import Path

EVENTS = Stream(
    source="web",
    name="events",
    primary_key=("id",),
    time="at",
    columns={
        "id": "string",
        "i": "integer",
        "n": "number",
        "d": "decimal",
        "b": "boolean",
        "day": "date",
        "at": "timestamp",
        "j": "json",
        "email": {"type": "string", "path": "traits.email"},
        "page": {"type": "string", "path": "context.page.path"},
        "first": {"type": "integer", "path": "list.0"},
    },
    options=Options(),
)
ORDERS = Stream(
    source="till",
    name="orders",
    primary_key=("id",),
    columns={
        "id": "string",
        "total": {"type": "decimal", "required": True},
        "note": "string",
        "gone": "date",
    },
    options=Options(),
)


class Parsed:
    """What one pass over files gave."""

    def __init__(self, path: Path, stream: Stream, files: list[RawFile]) -> None:
        parsing = Parsing(stream, files, path)
        try:
            self.rows = parsing.rows().read_all()
        except Broken:
            parsing = Parsing(stream, files, path, exact=True)
            self.rows = parsing.rows().read_all()
        self.bad = parsing.bad().read_all()
        self.read = parsing.read
        self.unknown = parsing.unknown
        self.duplicates = parsing.duplicates()
        self.content_hash = parsing.content_hash


def parsed(path: Path, stream: Stream, data: bytes | str, form: str, **more: Any) -> Parsed:
    raw = path / "raw"
    raw.write_bytes(data if isinstance(data, bytes) else data.encode())
    return Parsed(path, stream, [RawFile(raw, "in/raw", form, **more)])


def one(path: Path, **record: Any) -> dict[str, Any] | str:
    """The landed row without nulls, or the reason."""
    result = parsed(path, EVENTS, json.dumps({"id": "x", **record}), "ndjson")
    if result.bad.num_rows:
        return str(result.bad["reason"][0].as_py())
    return {
        k: v for k, v in result.rows.to_pylist()[0].items() if v is not None and k not in ("id", "_position")
    }


@pytest.mark.parametrize(
    ("column", "given_value", "landed"),
    [
        ("i", 5, 5),
        ("i", "-7", -7),
        ("i", 42.0, 42),
        ("i", 2**63 - 1, 2**63 - 1),
        ("n", 1, 1.0),
        ("n", "2.5e3", 2500.0),
        ("d", 19.99, Decimal("19.990000")),
        ("d", "0.30000000000000004", Decimal("0.300000")),
        ("d", -0.5, Decimal("-0.500000")),
        ("b", True, True),
        ("b", "No", False),
        ("day", "2024-02-29", date(2024, 2, 29)),
        ("day", "2024-02-29T00:00:00Z", date(2024, 2, 29)),
        ("at", "2026-07-01T12:00:00+02:00", datetime(2026, 7, 1, 10, tzinfo=UTC)),
        ("at", "2026-07-01 12:00", datetime(2026, 7, 1, 12, tzinfo=UTC)),
        ("at", "2026-07-01", datetime(2026, 7, 1, tzinfo=UTC)),
        ("at", "2026-07-01T12:00:00.123456789Z", datetime(2026, 7, 1, 12, 0, 0, 123456, UTC)),
        ("at", "9999-12-31T23:59:59Z", datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
        ("j", {"a": [1, None]}, '{"a":[1,null]}'),
        ("j", "text", '"text"'),
    ],
)
def test_a_value_that_is_of_its_type(tmp_path, column, given_value, landed):
    assert one(tmp_path, **{column: given_value}) == {column: landed}


@pytest.mark.parametrize(
    ("column", "given_value", "shown", "noun"),
    [
        ("i", 4.5, "4.5", "an integer"),
        ("i", "", "", "an integer"),
        ("i", "1_000", "1_000", "an integer"),
        ("i", 2**63, str(2**63), "an integer"),
        ("n", "nan", "nan", "a number"),
        ("n", "1e999", "1e999", "a number"),
        ("d", "12,5O", "12,5O", "a decimal"),
        ("d", "1" * 23, "1" * 23, "a decimal"),
        ("b", "maybe", "maybe", "a boolean"),
        ("b", 2, "2", "a boolean"),
        ("day", "2023-02-29", "2023-02-29", "a date"),
        ("day", "2024-1-1", "2024-1-1", "a date"),
        ("day", "2024-01-01T10:00:00Z", "2024-01-01T10:00:00Z", "a date"),
        ("at", 1751364000, "1751364000", "a timestamp"),
        ("at", "yesterday", "yesterday", "a timestamp"),
        ("at", "2026-07-01T25:00:00Z", "2026-07-01T25:00:00Z", "a timestamp"),
        ("at", "0000-01-01", "0000-01-01", "a timestamp"),
    ],
)
def test_a_value_that_is_not(tmp_path, column, given_value, shown, noun):
    assert one(tmp_path, **{column: given_value}) == f'column "{column}": "{shown}" is not {noun}'


def test_a_long_bad_value_is_shown_in_part(tmp_path):
    assert one(tmp_path, i='"' * 100) == 'column "i": "' + '\\"' * 60 + '…" is not an integer'


def test_all_faults_of_a_row_are_told(tmp_path):
    assert one(tmp_path, id=" ", i="x", b="z") == (
        'primary key column "id" is missing; column "i": "x" is not an integer;'
        ' column "b": "z" is not a boolean'
    )


def test_nested_values_and_what_the_contract_does_not_name(tmp_path):
    landed = one(
        tmp_path,
        traits={"email": "a@b.c", "age": 3},
        context={"page": {"path": "/"}},
        list=[7, 8],
        plan={"x": None},
    )
    assert isinstance(landed, dict)
    extra = json.loads(landed.pop("_extra"))
    assert landed == {"email": "a@b.c", "page": "/", "first": 7}
    assert extra == {"traits": {"age": 3}, "list": [7, 8], "plan": {"x": None}}
    assert one(tmp_path, traits={"email": "a"}, context={"page": {}}) == {"email": "a"}


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"traits": "a@b.c"}, '"traits" is not an object'),
        ({"context": {"page": 1}}, '"context.page" is not an object'),
        ({"traits": {"email": {"work": "a"}}}, 'column "email": "{\\"work\\":\\"a\\"}" is not a string'),
        ({"traits": {"email": ["a"]}}, 'column "email": "[\\"a\\"]" is not a string'),
    ],
)
def test_a_value_in_an_unexpected_shape_does_not_vanish(tmp_path, record, reason):
    assert one(tmp_path, **record) == reason


def test_a_text_that_looks_like_an_object_is_a_text(tmp_path):
    assert one(tmp_path, traits={"email": "{x}"}) == {"email": "{x}"}


def test_long_numbers_keep_their_digits(tmp_path):
    line = '{"id":12345678901234567890123,"d":1234567890123456789.123456,"zip":"12345678901234567890"}'
    row = parsed(tmp_path, EVENTS, line, "ndjson").rows.to_pylist()[0]
    assert row["id"] == "12345678901234567890123"
    assert row["d"] == Decimal("1234567890123456789.123456")
    assert json.loads(row["_extra"]) == {"zip": "12345678901234567890"}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"not json", "malformed JSON"),
        (b'{"id":"1"', "malformed JSON"),
        (b'{"id":"1",}', "malformed JSON"),
        (b'{"id":"1","z":NaN}', "malformed JSON"),
        (b'{"id":"1","z":-Infinity}', "malformed JSON"),
        (b'{"id":"1","z":1e99999}', "malformed JSON"),
        (b'{"id":"\\ud800"}', "malformed JSON"),
        (b'{"id":"a\x00"}', "malformed JSON"),
        (b'{"id":"a\\u0000"}', "holds a NUL character"),
        (b'{"id":"1","z":{"\\u0000":1}}', "holds a NUL character"),
        (b'{"id":"1","z":' + b"[" * 5000 + b"]" * 5000 + b"}", "JSON nested more than 200 deep"),
        (b"[1]", "not a JSON object"),
        (b'"x"', "not a JSON object"),
        (b"null", "not a JSON object"),
        (b'{"id":"\xff"}', "not UTF-8 text"),
        (b"{}", 'primary key column "id" is missing'),
        (b'{"id":null}', 'primary key column "id" is missing'),
    ],
)
def test_a_bad_line_and_its_neighbours(tmp_path, line, reason):
    result = parsed(tmp_path, EVENTS, b'{"id":"before"}\n\n' + line + b'\n{"id":"after"}', "ndjson")
    assert result.read == 3
    assert result.rows["_position"].to_pylist() == [1, 4]
    bad = result.bad.to_pylist()
    assert [(row["source"], row["position"], row["reason"]) for row in bad] == [("in/raw", 3, reason)]
    assert "\x00" not in bad[0]["raw"]
    assert bad[0]["raw"].startswith(line[:4].decode(errors="replace").split("\ufffd")[0])


def test_an_escaped_backslash_is_no_nul(tmp_path):
    assert one(tmp_path, traits={"email": "\\u0000"}) == {"email": "\\u0000"}


CSV = b"""\xef\xbb\xbfid,total,"note",extra\r
1,2.5,hi,\r
2,"3,5",no,\r
3,1,"a ""quoted"", text\r
over two lines",x\r
\r
4,1\r
5,1,"open,\r
6,1,12" pipe,\r
7,1,"",""\r
8,1,a\rb,\r
9,1,\x00,\r
10,1,\xff,\r
11,1,"a"b,\r
12,,x,\r
13,1,"never closed\r
14,2,last,y"""


def test_csv_good_and_bad(tmp_path):
    result = parsed(tmp_path, ORDERS, CSV, "csv")
    assert result.read == 14
    assert [(r["id"], r["note"], r["_position"], r["_extra"]) for r in result.rows.to_pylist()] == [
        ("1", "hi", 2, '{"extra":null}'),
        ("3", 'a "quoted", text\r\nover two lines', 4, '{"extra":"x"}'),
        ("6", '12" pipe', 9, '{"extra":null}'),
        ("7", "", 10, '{"extra":""}'),
        ("14", "last", 17, '{"extra":"y"}'),
    ]
    quote = "a quote is not closed, or text follows a closing one"
    assert [(r["position"], r["reason"]) for r in result.bad.to_pylist()] == [
        (3, 'column "total": "3,5" is not a decimal'),
        (7, "2 fields where the header has 4"),
        (8, quote),
        (11, "a carriage return stands inside a line"),
        (12, "holds a NUL character"),
        (13, "not UTF-8 text"),
        (14, quote),
        (15, 'required column "total" is missing'),
        (16, quote),
    ]
    assert result.bad["raw"].to_pylist()[4] == "9,1,\\x00,"


def test_csv_dialect(tmp_path):
    data = "id;total\nNULL;1\n1;NULL\n'2';1.5\n"
    result = parsed(tmp_path, ORDERS, data, "csv", delimiter=";", null="NULL")
    assert result.rows.select(["id", "total"]).to_pylist() == [{"id": "'2'", "total": Decimal("1.5")}]
    assert result.bad["reason"].to_pylist() == [
        'primary key column "id" is missing',
        'required column "total" is missing',
    ]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"\nid,total\n", "blank line"),
        (b"id,sum,note\n1,2,3\n", r"lacks 'total', which till.orders requires; it reads: id, sum, note"),
        (b"id,total,id\n", "'id' more than once"),
    ],
)
def test_a_header_that_does_not_do(tmp_path, data, message):
    with pytest.raises(DataError, match=message):
        parsed(tmp_path, ORDERS, data, "csv")


def test_gzip(tmp_path):
    packed = gzip.compress(b"id,total\n1,1\n")
    assert parsed(tmp_path, ORDERS, packed, "csv", compression="gzip").rows.num_rows == 1
    for broken in (packed[:-6], b"id,total\n1,1\n", packed[:12] + b"\x00" * 8):
        with pytest.raises(DataError, match="in/raw is not a whole gzip file"):
            parsed(tmp_path, ORDERS, broken, "csv", compression="gzip")


def test_nothing_at_all(tmp_path):
    assert Parsed(tmp_path, ORDERS, []).rows.num_rows == 0
    assert parsed(tmp_path, EVENTS, b"", "ndjson").read == 0
    assert parsed(tmp_path, ORDERS, b"id,total\n", "csv").read == 0


def test_positions_go_on_from_file_to_file_and_duplicates_are_counted(tmp_path):
    files = []
    for number in range(3):
        path = tmp_path / f"{number}"
        path.write_text('{"id":"a"}\nbad\n{"id":"b"}\n')
        files.append(RawFile(path, f"{number}.ndjson", "ndjson"))
    result = Parsed(tmp_path, EVENTS, files)
    assert result.rows["_position"].to_pylist() == [1, 3, 4, 6, 7, 9]
    assert result.bad.select(["source", "position"]).to_pylist() == [
        {"source": f"{n}.ndjson", "position": 3 * n + 2} for n in range(3)
    ]
    assert result.duplicates == 4


def test_reports_name_unknown_keys_but_no_data(tmp_path):
    result = parsed(tmp_path, EVENTS, '{"id":"1","plan":1,"jane@example.com":2,"+49170":3}', "ndjson")
    assert result.unknown == ["plan"]


@pytest.mark.parametrize("block", [7, 64])
def test_blocks_are_a_matter_of_memory_only(tmp_path, monkeypatch, block):
    events = "".join(f'{{"id":"{i}","i":{"null" if i % 3 else i}}}\n' for i in range(50)) + "torn"
    whole = parsed(tmp_path, EVENTS, events, "ndjson"), parsed(tmp_path, ORDERS, CSV, "csv")
    monkeypatch.setattr(lines, "BLOCK", max(block, 30))
    pieces = parsed(tmp_path, EVENTS, events, "ndjson"), parsed(tmp_path, ORDERS, CSV, "csv")
    for a, b in zip(whole, pieces, strict=True):
        assert a.rows.to_pylist() == b.rows.to_pylist()
        assert a.bad.to_pylist() == b.bad.to_pylist()


relaxed = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
records = st.dictionaries(
    st.sampled_from([*EVENTS.columns, "traits", "context", "zz"]), json_values, max_size=6
)
garbage = st.binary(max_size=30).map(lambda b: b.replace(b"\n", b""))
json_lines = st.lists(records.map(lambda r: json.dumps(r).encode()) | garbage, max_size=8)


@relaxed
@given(json_lines)
def test_any_lines_at_all_are_landed_or_in_quarantine(tmp_path, content):
    result = parsed(tmp_path, EVENTS, b"\n".join(content), "ndjson")
    # A byte order mark at the very start is not part of the text.
    content = [line.removeprefix(b"\xef\xbb\xbf") if i == 0 else line for i, line in enumerate(content)]
    # A line of nothing but form feeds or vertical tabs is empty to some readers, and broken JSON to others.
    empty, blank = b" \t\r\n", b" \t\r\n\x0b\x0c"
    assert sum(bool(line.strip(blank)) for line in content) <= result.read
    assert result.read <= sum(bool(line.strip(empty)) for line in content)
    for row in result.rows.to_pylist():
        source = json.loads(content[row["_position"] - 1])
        for name in ("i", "n", "d", "b", "day", "at", "j"):
            assert (row[name] is None) == (source.get(name) is None), name


@relaxed
@given(st.lists(st.lists(st.text(max_size=6), min_size=3, max_size=3), max_size=6), st.booleans())
def test_whatever_a_csv_writer_writes_is_read_back(tmp_path, rows, quoted):
    buffer = io.StringIO()
    buffer.write("id,total,note\n")
    style = csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL
    csv.writer(buffer, quoting=style, lineterminator="\r\n").writerows([f"k{a}", "1", b] for a, _, b in rows)
    data = buffer.getvalue().encode("utf-8", "surrogatepass")
    result = parsed(tmp_path, ORDERS, data, "csv")
    clean = [(f"k{a}", b) for a, _, b in rows if not {"\x00"} & set(a + b)]
    assert result.read == len(rows)
    assert [(r["id"], r["note"] or "") for r in result.rows.to_pylist()] == clean


@relaxed
@given(st.lists(st.text('a1,"\n\r é', max_size=12), max_size=8))
def test_any_csv_at_all_is_accounted_for(tmp_path, content):
    data = "id,total,note\n" + "\n".join(content)
    result = parsed(tmp_path, ORDERS, data, "csv")
    assert result.rows.num_rows + result.bad.num_rows == result.read
    # Every character that is no line break is still somewhere.
    if not result.rows.num_rows:
        kept = "".join(result.bad["raw"].to_pylist())
        assert sorted(kept.replace("\n", "").replace("\r", "").strip()) == sorted(
            "".join(line for line in "\n".join(content).split("\n") if line.strip(" \t\r"))
            .replace("\r", "")
            .strip()
        )
