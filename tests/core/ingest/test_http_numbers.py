# SPDX-License-Identifier: Apache-2.0
"""The quick look for long numbers overlooks none that the careful one would quote."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdp_provider.core.http import Response
from cdp_provider.core.ingest.conversion import quote_long_numbers
from cdp_provider.core.ingest.http_answers import _may_hold_long_numbers, dump, load

DIGITS = st.text("0123456789", min_size=1, max_size=24)
NUMBERS = st.builds(
    lambda sign, whole, fraction, power: sign + whole + fraction + power,
    st.sampled_from(["", "-"]),
    DIGITS.map(lambda text: text.lstrip("0") or "0"),
    st.one_of(st.just(""), DIGITS.map(lambda text: "." + text)),
    st.one_of(st.just(""), st.integers(-30, 30).map(lambda power: f"e{power}"), st.just("E+2")),
)
TEXTS = st.one_of(
    st.text(max_size=30),
    DIGITS,
    st.builds(lambda text: f"a: {text}.5e7, b", DIGITS),
    st.uuids().map(str),
).map(json.dumps)
VALUES = st.recursive(
    st.one_of(NUMBERS, TEXTS, st.sampled_from(["null", "true"])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(lambda items: "[" + ", ".join(items) + "]"),
        st.dictionaries(TEXTS, inner, max_size=4).map(
            lambda items: "{" + ",".join(f"{key}:{value}" for key, value in items.items()) + "}"
        ),
    ),
    max_leaves=12,
)


def answer(body: bytes) -> Response:
    return Response("GET", "/x", 200, {}, body)


@given(VALUES)
@settings(max_examples=400, deadline=None)
def test_nothing_is_overlooked(text):
    body = text.encode()
    if quote_long_numbers(body) != body:
        assert _may_hold_long_numbers(body)
    assert load(answer(body)) == json.loads(quote_long_numbers(body))


@pytest.mark.parametrize(
    ("text", "held"),
    [
        ('{"id":1234567890123456789}', True),
        ('{"id": -1234567890123456789}', True),
        ("[98765432109.5]", True),
        ("[12345.678901234567e3]", True),
        ('{"id":"1234567890123456789","phone":"+4917012345678","x":"12345678901.5"}', False),
        ('{"uuid":"12345678e-0000-4000-8000-123456789012","n":1782820800500}', False),
        ('{"n":1782820800.25,"m":0.1234567890123456789}', True),
        ('{"n":12345678.5,"text":"00000000e"}', False),
    ],
)
def test_texts_full_of_digits_are_not_suspected(text, held):
    assert _may_hold_long_numbers(text.encode()) is held


def test_what_has_no_short_form_is_written_all_the_same():
    records = load(answer(b'[{"a":1},{"id":"\\ud800"},{"n":NaN}]'))
    assert [json.loads(line) for line in dump(records)] == [{"a": 1}, {"id": "\ud800"}, {"n": "NaN"}]
