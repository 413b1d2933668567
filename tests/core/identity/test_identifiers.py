# SPDX-License-Identifier: Apache-2.0
"""Normalising and blocking."""

from __future__ import annotations

import sys
import unicodedata
from collections import Counter
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdp_provider.core.exceptions import ConfigurationError
from cdp_provider.core.identity.identifiers import BLOCKED, EXCLUDED, INVALID, Dictionary, Normalizer
from cdp_provider.core.project.identity import Identifier


def normalized(text: str, row_region: str | None = None, **rule) -> tuple[str | None, str | None]:
    return Normalizer("it", Identifier(**rule))(text, row_region)


@pytest.mark.parametrize(
    ("normalize", "written", "value"),
    [
        ("trim", "  aB \t\n", "aB"),
        ("trim", "\u00a0x\u3000", "x"),
        ("lower", " ÄB ", "äb"),
        ("lower", "ΑΣ", "ασ"),
        ("lower", "ας", "ασ"),
        ("lower", "İSTANBUL", "istanbul"),
        ("lower", "I\u0307", "i\u0307"),
        ("lower", "ẞ", "ß"),
        ("trim", "\x1cx\x85", "x"),
        ("trim", "\u200bx", "\u200bx"),
        ("email", " Jane.Doe+news@Example.COM ", "jane.doe+news@example.com"),
        ("email", "jane@mail.münchen.de", "jane@mail.münchen.de"),
        ("digits", " DE-12 34/5 ", "12345"),
        ("digits", "١٢٣", "123"),
        ("digits", "１２３-4", "1234"),
        ("digits", "②Ⅳ5", "5"),
        ("trim", "💶" * 2500, "💶" * 2500),
        ("digits", "7" * 10_000, "7" * 10_000),
    ],
)
def test_what_was_written_becomes_comparable(normalize, written, value):
    assert normalized(written, normalize=normalize) == (value, None)


@pytest.mark.parametrize(
    "address",
    ["jane",
     "jane@", "@x.de", "a@b@x.de", "jane@localhost", "jane@x.", "jane@.de", "jane@x..de", "ja ne@x.de",
     "jane@x .de", "a" * 65 + "@x.de", "a@" + "b" * 250 + ".de", "ja\u00a0ne@x.de", "jane@x\u2028.de",
     "a\x1cb@x.de", "a" * 10_000 + "@x.de"],
)  # fmt: skip
def test_what_is_no_address_is_no_identifier(address):
    assert normalized(address, normalize="email") == (None, INVALID)


@pytest.mark.parametrize(
    ("written", "row_region", "value"),
    [
        ("030 901820", None, "+4930901820"),
        ("(030) 90 18-20", " de ", "+4930901820"),
        ("+49 30 901820", "US", "+4930901820"),
        ("0049 30 901820", "GB", "+4930901820"),
        ("020 7946 0958", "GB", "+442079460958"),
        ("030 901820", "Germany", "+4930901820"),
        ("030 901820", "GB", "+4930901820"),
        ("12", None, None),
        ("call me", None, None),
        ("+49 30 901820 901820 901820", None, None),
    ],
)
def test_phone_numbers_become_e164_under_the_rows_region_or_the_rules(written, row_region, value):
    expected = (value, None) if value else (None, INVALID)
    assert normalized(written, row_region, normalize="phone", region="DE") == expected


def test_a_phone_number_without_any_region_needs_its_prefix():
    assert normalized("030 901820", normalize="phone") == (None, INVALID)
    assert normalized("+4930901820", normalize="phone") == ("+4930901820", None)


@pytest.mark.parametrize("value", ["", "   ", "\t\n", "\u2003"])
def test_a_blank_text_is_nothing_at_all(value):
    assert normalized(value) == (None, None)


@pytest.mark.parametrize("value", ["0", "000-000", "---", "-1", "null", "NULL", " None ", "undefined", "N/A"])
def test_the_usual_placeholders_are_blocked(value):
    for normalize in ("trim", "lower", "digits", "email"):
        assert normalized(value, normalize=normalize) == (None, BLOCKED)


@pytest.mark.parametrize("value", ["10", "-12", "nullable", "x-1", "00a", "-1\n-1"])
def test_patterns_match_the_whole_value_only(value):
    assert normalized(value) == (value, None)


def test_blocked_values_are_compared_after_normalising():
    rule = {"normalize": "email", "block": ("Test@Example.com ", "noise")}
    assert normalized("TEST@example.COM", **rule) == (None, BLOCKED)
    assert normalized("noise", **rule) == (None, BLOCKED)
    assert normalized("test@example.org", **rule) == ("test@example.org", None)
    phone = {"normalize": "phone", "region": "DE", "block": ("030 901820",)}
    assert normalized("+49 (30) 901820", **phone) == (None, BLOCKED)


def test_a_pattern_that_is_none_names_the_type_and_the_fault():
    with pytest.raises(ConfigurationError, match=r"'it'.*'\(\['.*missing \]"):
        Normalizer("it", Identifier(block_patterns=("([",)))


@pytest.mark.parametrize("pattern", ["(?=a)", r"(a)\1", "a)|(b", r"\Qa", "a{1001}", "(?P<name"])
def test_only_patterns_of_re2_that_stand_alone_and_together_are_taken(pattern):
    with pytest.raises(ConfigurationError, match=r"RE2"):
        Normalizer("it", Identifier(block_patterns=(pattern,)))


def test_patterns_do_not_reach_into_each_other():
    rule = {"block_patterns": ("(?i)a", "b|c", r"\p{Greek}+", r"\Q.*\E", "^x$", "(?P<n>y)", "(?P<n>z)")}
    for value in ("a", "A", "b", "c", "αβγ", ".*", "x", "y", "z"):
        assert normalized(value, **rule) == (None, BLOCKED)
    for value in ("B", "ab", "bc", "αa", "..", "xx", "x\nx", "0"):
        assert normalized(value, **rule) == (value, None)
    assert normalized("0", block_patterns=()) == ("0", None)


def test_a_column_becomes_numbers_and_counts():
    dictionary = Dictionary("email", Identifier(normalize="email", block=("no@x.de",)))
    column = pa.chunked_array(
        [["A@x.de", None, "a@x.de "], [], ["no@x.de", "NO@x.de", "b@x.de", "nope", ""]], pa.string()
    )
    assert dictionary.encode(column).tolist() == [0, -1, 0, -1, -1, 1, -1, -1]
    assert dictionary.values.to_pylist() == ["a@x.de", "b@x.de"]
    assert dictionary.refused == {BLOCKED: 2, INVALID: 1}
    assert dictionary.encode(pa.chunked_array([["b@x.de"]])).tolist() == [1]


def test_a_column_is_read_with_the_regions_beside_it():
    dictionary = Dictionary("phone", Identifier(normalize="phone", region="DE"))
    column = pa.chunked_array([["030 901820", "020 7946 0958", None, "020 7946 0958", "+4930901820", None]])
    regions = pa.chunked_array([["DE", "GB", "GB", None, "GB", None]])
    assert dictionary.encode(column, regions).tolist() == [0, 1, -1, -1, 0, -1]
    assert dictionary.refused == {INVALID: 1}


@pytest.mark.parametrize(
    ("column", "values"),
    [
        (pa.array([7, 12, None]), ["7", "12"]),
        (pa.array([Decimal("120.000000"), Decimal("0.500000"), Decimal("-3.000000")]), ["120", "0.5", "-3"]),
        (pa.array([Decimal(100), Decimal(20)]), ["100", "20"]),
        (pa.array([7.0, 0.5]), ["7", "0.5"]),
        (pa.array([True, False, None]), ["true", "false"]),
        (pa.array(["b", "a", None, "b"]).dictionary_encode(), ["b", "a"]),
        (pa.DictionaryArray.from_arrays(pa.array([2, 0, 2, None]), ["x", "unused", " x", None]), ["x"]),
        (pa.DictionaryArray.from_arrays(pa.array([1, 0]), pa.array([7, 12])), ["12", "7"]),
        (pa.array(["b", None], pa.string_view()), ["b"]),
        (pa.array(["b", None], pa.large_string()), ["b"]),
        (pa.array([None, None], pa.string()), []),
        (pa.array([None, None], pa.null()), []),
        (pa.array([], pa.string()), []),
    ],
)
def test_numbers_are_written_alike_whatever_column_they_come_from(column, values):
    dictionary = Dictionary("id", Identifier())
    codes = dictionary.encode(pa.chunked_array([column]))
    assert dictionary.values.to_pylist() == values
    assert len(codes) == len(column)
    assert codes.dtype == np.int32


def test_a_column_without_chunks_has_no_rows():
    dictionary = Dictionary("phone", Identifier(normalize="phone"))
    nothing = pa.chunked_array([], pa.string())
    assert dictionary.encode(nothing).tolist() == dictionary.encode(nothing, nothing).tolist() == []
    assert len(dictionary.values) == 0


def test_columns_share_their_numbers():
    dictionary = Dictionary("it", Identifier(normalize="lower"))
    assert dictionary.encode(pa.chunked_array([["b", "A"], ["a", "c"]])).tolist() == [0, 1, 1, 2]
    assert dictionary.encode(pa.chunked_array([["d", "B", None, "D", "a"]])).tolist() == [3, 0, -1, 3, 1]
    assert dictionary.encode(pa.chunked_array([["e", "c"]])).tolist() == [4, 2]
    assert dictionary.values.to_pylist() == ["b", "a", "c", "d", "e"]


@given(
    rule=st.sampled_from(["trim", "lower", "email", "digits", "phone"]),
    columns=st.lists(
        st.lists(
            st.none() | st.text(st.sampled_from(" aAbİΣς@.-0１٢\t"), max_size=6) | st.just("030 901820"),
            max_size=12,
        ),
        max_size=4,
    ),
)
def test_a_column_is_what_its_values_are_one_by_one(rule, columns):
    """The numbering and the counts follow from the single values, in the order of the rows."""
    identifier = Identifier(normalize=rule, region="DE" if rule == "phone" else None, block=("a", "B"))
    one, dictionary = Normalizer("it", identifier, ["ab"]), Dictionary("it", identifier, ["ab"])
    numbers: dict[str, int] = {}
    refused: Counter[str] = Counter()
    for column in columns:
        expected = []
        for text in column:
            value, reason = one(text) if text is not None else (None, None)
            refused.update([reason] if reason else [])
            expected.append(-1 if value is None else numbers.setdefault(value, len(numbers)))
        assert dictionary.encode(pa.chunked_array([pa.array(column, pa.string())])).tolist() == expected
    assert dictionary.values.to_pylist() == list(numbers)
    assert dictionary.refused == refused


def test_values_are_not_put_into_a_normal_form_of_unicode():
    composed, decomposed = "é", unicodedata.normalize("NFD", "é")
    dictionary = Dictionary("it", Identifier(normalize="lower"))
    assert dictionary.encode(pa.chunked_array([[composed, decomposed]])).tolist() == [0, 1]


def test_what_a_rule_excludes_is_no_identifier_and_counted_apart():
    rule = Identifier(normalize="email", block=("b@x.de",))
    dictionary = Dictionary("email", rule, [" Eve@X.de", "B@x.de"])
    column = pa.chunked_array([["eve@x.de", "EVE@x.de", "b@x.de", "eve", "c@x.de"]])
    assert dictionary.encode(column).tolist() == [-1, -1, -1, -1, 0]
    assert dictionary.refused == {EXCLUDED: 2, BLOCKED: 1, INVALID: 1}
    phone = Dictionary("phone", Identifier(normalize="phone", region="DE"), ["030 901820"])
    assert phone.encode(pa.chunked_array([["+49 30 901820", "+49 30 901821"]])).tolist() == [-1, 0]


def own_function(text: str) -> str | None:
    """A function of a project, kept here."""
    own_function.calls.append(text)
    if text == "boom":
        msg = f"cannot read {text}"
        raise ValueError(msg)
    return {"none": None, "empty": "", "number": 5, "surrogate": "\ud800"}.get(text, text.upper()[:3])


own_function.calls = []
NOT_CALLABLE = 5
OWN = f"{__name__}:own_function"


def test_a_function_of_the_projects_own_sees_each_distinct_trimmed_text_once():
    own_function.calls.clear()
    dictionary = Dictionary("it", Identifier(normalize=OWN, block=("no-use",), block_patterns=()), ["Evelyn"])
    column = pa.chunked_array(
        [["abcd", "ABCE", " abcd ", "none", "", " ", None], ["abcd", "eve", "no", "empty"]]
    )
    assert dictionary.encode(column).tolist() == [0, 0, 0, -1, -1, -1, -1, 0, -1, 1, -1]
    assert dictionary.values.to_pylist() == ["ABC", "NO"]
    assert dictionary.refused == {INVALID: 2, EXCLUDED: 1}
    assert sorted(own_function.calls) == sorted(
        ["no-use", "Evelyn", "abcd", "ABCE", "none", "eve", "no", "empty"]
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [("boom", "raised ValueError"), ("number", "returned int"), ("surrogate", "UnicodeEncode")],
)
def test_an_own_function_that_fails_is_named_and_its_value_is_not(text, words):
    with pytest.raises(ConfigurationError, match=words) as caught:
        normalized(text, normalize=OWN)
    assert OWN in str(caught.value)
    assert "'it'" in str(caught.value)
    assert text not in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("no_such_module.here:f", "ModuleNotFoundError: No module named 'no_such_module'"),
        (f"{__name__}:nothing", "has no function 'nothing'"),
        (f"{__name__}:NOT_CALLABLE", "has no function 'NOT_CALLABLE'"),
        ("broken_module:f", "ends with ZeroDivisionError"),
    ],
)
def test_an_own_function_that_cannot_be_had(path, words, tmp_path, monkeypatch):
    (tmp_path / "broken_module.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigurationError, match=words) as caught:
        Normalizer("it", Identifier(normalize=path))
    assert path in str(caught.value)
    sys.modules.pop("broken_module", None)


def test_segments_suggested_blocks_can_be_said():
    rule = {"block_patterns": ("^[0-]*$",), "block": ("-1", "null", "anonymous")}
    for value in ("0", "00-0", "-", "-1", "null", "anonymous"):
        assert normalized(value, **rule) == normalized(value) == (None, BLOCKED)
    assert normalized("NULL", **rule) == ("NULL", None)
