# SPDX-License-Identifier: Apache-2.0
"""Normalising and blocking."""

from __future__ import annotations

from decimal import Decimal

import pyarrow as pa
import pytest

from cdp_provider.core.exceptions import ConfigurationError
from cdp_provider.core.identity.identifiers import BLOCKED, INVALID, Dictionary, Normalizer
from cdp_provider.core.project.identity import Identifier


def normalized(text: str, row_region: str | None = None, **rule) -> tuple[str | None, str | None]:
    return Normalizer("it", Identifier(**rule))(text, row_region)


@pytest.mark.parametrize(
    ("normalize", "written", "value"),
    [
        ("trim", "  aB \t\n", "aB"),
        ("trim", "\u00a0x\u3000", "x"),
        ("lower", " ÄB ", "äb"),
        ("lower", "ΑΣ", "ας"),
        ("email", " Jane.Doe+news@Example.COM ", "jane.doe+news@example.com"),
        ("email", "jane@mail.münchen.de", "jane@mail.münchen.de"),
        ("digits", " DE-12 34/5 ", "12345"),
        ("digits", "١٢٣", "123"),
        ("trim", "💶" * 2500, "💶" * 2500),
    ],
)
def test_what_was_written_becomes_comparable(normalize, written, value):
    assert normalized(written, normalize=normalize) == (value, None)


@pytest.mark.parametrize(
    "address",
    ["jane",
     "jane@", "@x.de", "a@b@x.de", "jane@localhost", "jane@x.", "jane@.de", "jane@x..de", "ja ne@x.de",
     "jane@x .de", "a" * 65 + "@x.de", "a@" + "b" * 250 + ".de"],
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
    with pytest.raises(ConfigurationError, match=r"'it'.*'\(\['.*unterminated"):
        Normalizer("it", Identifier(block_patterns=("([",)))


def test_a_column_becomes_numbers_and_counts():
    dictionary = Dictionary("email", Identifier(normalize="email", block=("no@x.de",)))
    column = pa.chunked_array(
        [["A@x.de", None, "a@x.de "], [], ["no@x.de", "NO@x.de", "b@x.de", "nope", ""]], pa.string()
    )
    assert dictionary.encode(column).tolist() == [0, -1, 0, -1, -1, 1, -1, -1]
    assert dictionary.values == ["a@x.de", "b@x.de"]
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
        (pa.array([None, None], pa.null()), []),
        (pa.array([], pa.string()), []),
    ],
)
def test_numbers_are_written_alike_whatever_column_they_come_from(column, values):
    dictionary = Dictionary("id", Identifier())
    dictionary.encode(pa.chunked_array([column]))
    assert dictionary.values == values
