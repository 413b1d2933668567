# SPDX-License-Identifier: Apache-2.0
"""Identifiers of persons, by the examples that Google and Meta publish."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdp_provider.core.activation import hashing

# https://developers.google.com/data-manager/api/devguides/concepts/formatting
# https://github.com/googleads/data-manager-python/blob/main/tests/formatter_test.py
GOOGLE_EMAILS = {
    "QuinnY@EXAMPLE.com": "quinny@example.com",
    "Jefferson.Loves.hiking@gmail.com": "jeffersonloveshiking@gmail.com",
    "Jefferson.LOVES.Hiking@googlemail.com": "jeffersonloveshiking@googlemail.com",
    "cloudy.sanfrancisco+shopping@gmail.com": "cloudysanfrancisco@gmail.com",
    "user.name+NYC@Example.com": "user.name+nyc@example.com",
    " a b@x.org ": "ab@x.org",
    "quinn": None,
    " @googlemail.com": None,
    " ...@gmail.com": None,
    "a@b@c.org": None,
    "": None,
}
GOOGLE_PHONES = {
    ("1 800 555 0100", "US"): "+18005550100",
    ("(800)555-0100", "US"): "+18005550100",
    ("18005550100", "US"): "+18005550100",
    ("+1 800-555-0100", None): "+18005550100",
    ("441134960987", "GB"): "+441134960987",
    ("+44-113-496-0987", None): "+441134960987",
    ("0171 1234567", "DE"): "+491711234567",
    ("0171 1234567", None): None,
    (" +A BCD EFG ", "US"): None,
    ("", "US"): None,
    ("12", "US"): None,
}
# https://developers.facebook.com/docs/marketing-api/conversions-api/parameters/customer-information-parameters
META = {
    ("email", " John_Smith@gmail.com "): "62a14e44f765419d10fea99367361a727c12365e2520f32218d505ed9aa0f62f",
    ("name", "Mary"): "6915771be1c5aa0c886870b6951b03d7eafc121fea0e80a5ea83beb7c449f4ec",
    ("name", "정"): "8fa8cd9c440be61d0151429310034083132b35975c4bea67fdd74158eb51db14",
    ("name", "Valéry"): "08e1996b5dd49e62a4b4c010d44e4345592a863bb9f8e3976219bac29417149c",
}
META_TEXTS = {
    ("postcode", "94035"): "94035",
    ("postcode", "94035-1234"): "94035",
    ("postcode", "M1 1AE"): "m11ae",
    ("postcode", "1987"): "1987",
    ("postcode", " - "): None,
    ("name", "O'Brien-Smith Jr."): "obriensmithjr",
    ("name", "देवी"): "देवी",
    ("name", "!?"): None,
    ("gender", " Female"): "f",
    ("gender", "M"): "m",
    ("gender", "x"): None,
    ("country", " us "): "US",
    ("country", "United States"): None,
    ("plain_name", " O'Brien "): "o'brien",
    ("plain_name", " "): None,
}


@pytest.mark.parametrize(("text", "expected"), GOOGLE_EMAILS.items())
def test_emails_as_google_wants_them(text, expected):
    assert hashing.email(text, gmail=True) == expected


@pytest.mark.parametrize(("given", "expected"), GOOGLE_PHONES.items())
def test_phones(given, expected):
    assert hashing.phone(*given) == expected


@pytest.mark.parametrize(("given", "expected"), META.items())
def test_hashes_that_meta_publishes(given, expected):
    function, text = given
    assert hashing.sha256(getattr(hashing, function)(text)) == expected


@pytest.mark.parametrize(("given", "expected"), META_TEXTS.items())
def test_texts(given, expected):
    function, text = given
    assert getattr(hashing, function)(text) == expected


def test_gmail_addresses_are_left_alone_for_others():
    assert hashing.email("Cloudy.San+x@gmail.com") == "cloudy.san+x@gmail.com"


FUNCTIONS = [
    hashing.email,
    hashing.name,
    hashing.plain_name,
    hashing.postcode,
    hashing.country,
    hashing.gender,
]


@pytest.mark.parametrize("function", FUNCTIONS)
@given(text=st.text())
def test_no_text_breaks_a_rule(function, text):
    normal = function(text)
    assert normal is None or normal
