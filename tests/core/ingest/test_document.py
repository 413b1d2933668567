# SPDX-License-Identifier: Apache-2.0
"""A JSON document's records come out byte for byte, or the document is refused."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cdp_provider.core.exceptions import DataError
from cdp_provider.core.ingest.document import write_records

DEPTH = int(os.environ.get("CDP_TEST_DEPTH", "1"))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def lines(tmp_path, text, records=""):
    document, target = tmp_path / "document.json", tmp_path / "lines"
    document.write_bytes(text if isinstance(text, bytes) else text.encode())
    write_records(document, target, source="a.json", records=records)
    return target.read_bytes().split(b"\n")[:-1]


@settings(
    max_examples=100 * DEPTH, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    rows=st.lists(VALUES, max_size=5),
    around=st.dictionaries(st.text(), VALUES, max_size=3),
    names=st.lists(st.text(alphabet=st.characters(exclude_characters="."), min_size=1), max_size=3),
    indent=st.none() | st.integers(0, 3),
    plain=st.booleans(),
    end=st.sampled_from(["", "\n", " \r\n\t"]),
)
def test_every_record_is_a_line(tmp_path, rows, around, names, indent, plain, end):
    document = rows
    for name in reversed(names):
        document = {**around, name: document}
    try:
        text = json.dumps(document, indent=indent, ensure_ascii=plain).encode() + end.encode()
    except UnicodeEncodeError:  # half of a pair of surrogates, which only \\u can write
        text = json.dumps(document, indent=indent).encode() + end.encode()
    found = lines(tmp_path, text, ".".join(names))
    assert list(map(json.loads, found)) == rows
    assert list(map(json.loads, lines(tmp_path, b"\xef\xbb\xbf" + text, ".".join(names)))) == rows


def test_digits_and_spelling_stay(tmp_path):
    record = b'{"n": 123456789012345678901234567890.10, "e": 1E400, "t": "\\u00fc\\/", "n": 0.10}'
    assert (
        lines(tmp_path, b'{"data": {"rows": [' + record + b", " + record + b"]}}", "data.rows")
        == [record] * 2
    )


def test_line_breaks_inside_a_record_become_spaces(tmp_path):
    assert lines(tmp_path, '[\r\n  {"a":\r\n 1}\n,\n 2\n]') == [b'{"a":  1}', b"2"]


def test_records_are_not_judged_here(tmp_path):
    assert lines(tmp_path, '[{"a": nope}, tru, {"a" 1}, [}]') == [b'{"a": nope}', b"tru", b'{"a" 1}', b"[}"]


TEXT = json.dumps({"meta": [1, {"x": "]}"}], "data": [{"a": "b"}, [], 5, "x\\"], "more": {}}, indent=1)


@pytest.mark.parametrize("cut", range(len(TEXT)))
def test_a_document_that_is_cut_short_is_refused(tmp_path, cut):
    with pytest.raises(DataError, match=r"a\.json"):
        lines(tmp_path, TEXT[:cut], "data")


@pytest.mark.parametrize(
    "text",
    [
        "[1] 2",
        "[1 2]",
        "[1,]",
        "[{}, ]",
        "[,1]",
        "[1,,2]",
        '["a\nb"]',
        '["a\tb"]',
        '["a\x00b"]',
        '[{"a": "x\ny"}]',
        "[1}",
        '["a" "b"]',
        "[[1]",
    ],
)
def test_what_is_no_json_around_the_records(tmp_path, text):
    with pytest.raises(DataError, match=r"a.json is no whole JSON document"):
        lines(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "records", "message"),
    [
        ('{"a": 1}', "", "no list of records as the whole document"),
        ('{"a": {"b": {}}}', "a.b", r"no list of records at 'a\.b'"),
        ('{"a": {"b": []}}', "a.c", r"no 'c' on the way to 'a\.c'"),
        ('{"a": [1]}', "a.b", "no 'b' on the way"),
        ("[]", "a", "no 'a' on the way"),
        ('{"a" 1}', "a", "no whole JSON"),
        ("{1: 1}", "a", "no whole JSON"),
        ("7", "", "no list of records"),
        ("  ", "", "no list of records"),
    ],
)
def test_where_no_list_is(tmp_path, text, records, message):
    with pytest.raises(DataError, match=message):
        lines(tmp_path, text, records)


def test_an_empty_file_is_no_document(tmp_path):
    with pytest.raises(DataError, match=r"a.json is empty"):
        lines(tmp_path, "")


def test_names_are_compared_as_json_means_them(tmp_path):
    assert lines(tmp_path, '{"\\u0064ata": [1], "x": [2]}', "data") == [b"1"]


def test_a_flat_record_of_megabytes_costs_no_stack(tmp_path):
    record = json.dumps({f"key {n}": "x" * 10 for n in range(100_000)}).encode()
    assert lines(tmp_path, b"[" + record + b"]") == [record]
    deep = b"[" * 100_000 + b"]" * 100_000
    assert lines(tmp_path, b"[" + deep + b"]") == [deep]
