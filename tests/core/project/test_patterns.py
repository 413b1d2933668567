# SPDX-License-Identifier: Apache-2.0
"""A pattern that is called portable means the same to every warehouse; what differs is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from cdp_provider.core.project.patterns import pattern_fault, portable_fault, whole
from cdp_provider.core.warehouse.patterns import PatternError, translated

if TYPE_CHECKING:
    from cdp_provider.core.warehouse import Warehouse

SIGNS = (
    *"aab1.-]^$|()é ",
    "[", "[^", "[]", "]", "a-b", "*", "+", "?", "{1}", "{0,2}", "{2,}", "{256}", "{", "}", "(?:",
    *(rf"\{sign}" for sign in ".[-]nbdDwWsSpxQEAz1é_\\"), "[:alpha:]", "[:^digit:]", "[.a", "61", "0", "&&",
    "(?i)", "(?<n>",
)  # fmt: skip
PATTERNS = st.lists(st.sampled_from(SIGNS), max_size=9).map("".join)
TEXTS = [
    "",
    "a",
    "b",
    "ab",
    "aab",
    "1",
    "-",
    "]",
    "[",
    "^",
    "é",
    "a\nb",
    "\n",
    ".",
    "A",
    "{",
    "a{1}",
    "$",
    " a",
    "&",
]


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(pattern=PATTERNS)
def test_portable_patterns_match_alike(warehouse: Warehouse, pattern: str):
    assume(pattern_fault(pattern) is None and portable_fault(pattern) is None)
    # The dot is any character, which Arrow has to be told.
    expected = pc.match_substring_regex(pa.array(TEXTS), f"(?s){whole([pattern])}").to_pylist()
    texts = ", ".join(f"({i}, cast(:t{i} as {warehouse.types['string']}))" for i in range(len(TEXTS)))
    matched, sent = (
        ("regexp_full_match(t, cast(:pattern as varchar), 's')", pattern)
        if warehouse.engine == "duckdb"
        else ("t ~ cast(:pattern as text)", translated(pattern))
    )
    params = {"pattern": sent, **{f"t{i}": text for i, text in enumerate(TEXTS)}}
    with warehouse.session() as session:
        found = session.fetch(f"select {matched} from (values {texts}) v (i, t) order by i", params)
    assert [row[0] for row in found] == expected


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(pattern=PATTERNS)
def test_the_check_and_the_translation_refuse_the_same(pattern: str):
    assume(pattern_fault(pattern) is None)
    try:
        translated(pattern)
    except PatternError:
        assert portable_fault(pattern) is not None
    else:
        assert portable_fault(pattern) is None


@pytest.mark.parametrize(
    "pattern",
    [
        "", "gold.*", "[A-Z]{2}[0-9]+", "a|b|", "(a|b)+?", "(?:a{1,255})?", r"\d+\.\d{2}", "[^]a-]", "[-a]",
        r"\\", r"\$\{\}", "}", "a{", "a$", "^*a", r"\D\W\S", "(^a|b$)c", "[|*+?(){}.^$]", "é+", "()", "[]a]",
        r"[\d\w.-]+@[^\s@]+", r"\x41", r"[\x{e9}]", r"\Agold\z", r"\Qa.b\E", "[[:alpha:]]", "(?P<x>a)",
        "[a[]",
    ],
)  # fmt: skip
def test_what_all_take_alike_is_taken(pattern: str):
    assert pattern_fault(pattern) is None
    assert portable_fault(pattern) is None


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        (r"\bgold\b", r"\b does not mean the same"),
        (r"\pL+", r"\p does not mean"),
        ("(?i)gold", "(?i) sets flags"),
        (r"[^\D]", r"\D in brackets"),
        (r"[]\S]", r"\S in brackets"),
        (r"[\pL]", r"\p in brackets"),
        ("[[:^alpha:]]", "[:^ in brackets"),
        ("a{256}", "more often than 255 times"),
        ("a{1,300}", "more often than 255 times"),
        ("a\0", "NUL"),
    ],
)
def test_what_differs_is_refused(pattern: str, words: str):
    assert words in (portable_fault(pattern) or "")
