# SPDX-License-Identifier: Apache-2.0
"""Random small worlds, comparisons and windows, crowded around the boundaries."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from cdp_provider.core.project.conditions import OPERATORS, Comparison
from tests.core.profiles.world import NAMES, NOW, STREAMS, Row

if TYPE_CHECKING:
    from cdp_provider.core.project.streams import Stream

TICK = timedelta(microseconds=1)
DAY = timedelta(days=1)
DURATIONS = [timedelta(hours=36), DAY, 2 * DAY, 400 * DAY]
ZONES = ["UTC", "Europe/Berlin", "America/Asuncion", "Asia/Beirut", "Pacific/Auckland"]
#: Ordinary ones, a leap day, and days on which clocks change in one of the zones.
DATES = [
    date(2026, 3, 1),
    date(2026, 2, 28),
    date(2026, 2, 27),
    date(2024, 2, 29),
    date(2025, 10, 26),
    date(2025, 3, 30),
    date(2024, 10, 6),
]
MOMENTS = [
    NOW - TICK,
    NOW - DAY,
    NOW - 2 * DAY,
    NOW - timedelta(hours=36),
    NOW - 400 * DAY,
    NOW,
    NOW + timedelta(hours=1),
    NOW + DAY,
    NOW - DAY - TICK,
    NOW - 2 * DAY + TICK,
    datetime(2024, 2, 29, tzinfo=UTC),
    datetime(2026, 2, 28, 23, 59, 59, 999999, tzinfo=UTC),
    datetime(2026, 2, 28, 23, tzinfo=UTC),  # midnight in Berlin
    datetime(2025, 10, 25, 22, tzinfo=UTC),  # there a day of 25 hours begins, and ends
    datetime(2025, 10, 26, 23, tzinfo=UTC) - TICK,
    datetime(2025, 3, 29, 22, tzinfo=UTC),  # in Beirut the day begins at one o'clock
    datetime(2024, 10, 6, 4, tzinfo=UTC),  # in Asuncion
]
CROWDED = [*(NOW - hours * timedelta(hours=12) for hours in range(1, 8)), NOW, NOW - TICK]
VALUES: dict[str, list[Any]] = {
    "string": [
        "a",
        "A",
        "b",
        "",
        "ab",
        "aB c",
        "é",
        "z",
        "a'b",
        '%";--',
        ":p0 \\ %s",
        "0",
        "a\nb",
        "a*_",
        "É",
        "😀",
        "\uffff",
    ],
    "integer": [0, 1, 2, -1, 3, 2**53 + 1, -(2**40)],
    "number": [0.0, 0.5, 1.0, -1.5, 0.1, 0.2, 2.0, 1 / 3, 1e9, 1e12, 123456789012.25],
    "decimal": [
        Decimal("-0.5"),
        Decimal(0),
        Decimal("0.000001"),
        Decimal("1.25"),
        Decimal(2),
        Decimal(10) ** 12,
    ],
    "boolean": [True, False],
    "date": DATES,
    "timestamp": MOMENTS,
    "json": ["{}", '{"a": 1}', "[1, 2]"],
}
CONSTANTS = VALUES | {
    "integer": [*VALUES["integer"], 0.5, Decimal("1.5")],
    "decimal": [*VALUES["decimal"], 1, 0.5],
    "number": [*VALUES["number"], 1, Decimal("0.5")],
    "timestamp": [*MOMENTS, *DATES, datetime(2026, 2, 28, 12)],  # noqa: DTZ001 - a project may say so
}
PATTERNS = [
    "",
    "a",
    ".",
    "a.*",
    "a|ab",
    "(a|b)+",
    "[A-Z]{1,2}",
    r"\d+",
    r"\w*",
    "[^a]*",
    r"a\sb",
    "a'b?",
    "(?:ab)?",
]
LIKES = ["*", "?", "a*", "*b", "a?", "%", "a*_", ":p0 \\*", "", "*'*", "A*"]

#: What the page says that each type understands.
_EQUAL = ["exists", "is", "is_not", "any_of", "none_of"]
_ORDER = [*_EQUAL, "at_least", "at_most", "more_than", "less_than", "between"]
_CASE = ["contains", "contains_any", "starts_with", "ends_with", "like", "matches"]
_DATES = [
    "before",
    "after",
    "today",
    "within_last",
    "before_last",
    "between_ago",
    "within_next",
    "after_next",
]
OPERATORS_OF: dict[str, list[str]] = {
    "string": _ORDER + _CASE,
    **dict.fromkeys(("integer", "number", "decimal"), _ORDER),
    "boolean": _EQUAL,
    **dict.fromkeys(("date", "timestamp"), _ORDER + _DATES),
    "json": ["exists"],
}


def one_of(values: list[Any]) -> st.SearchStrategy[Any]:
    """Every other time one of the first three, so that values meet."""
    return st.sampled_from(values[:3]) | st.sampled_from(values)


def operands(operator: str, kind: str) -> st.SearchStrategy[Any]:
    constant = one_of(CONSTANTS[kind])
    match operator:
        case "exists" | "today":
            return st.booleans()
        case "any_of" | "none_of" | "contains_any":
            return st.lists(constant, min_size=1, max_size=3).map(tuple)
        case "between":
            return st.tuples(constant, constant)
        case "between_ago":
            return st.sampled_from([(DURATIONS[3], DURATIONS[1]), (DURATIONS[2], DURATIONS[0])])
        case "within_last" | "before_last" | "within_next" | "after_next":
            return st.sampled_from([*DURATIONS, timedelta(hours=1)])
        case "like":
            return st.sampled_from(LIKES)
        case "matches":
            return st.sampled_from(PATTERNS)
    return constant


@st.composite
def operators(draw: st.DrawFn, kind: str) -> dict[str, Any]:
    """One or two operators with constants, as keyword arguments of a comparison."""
    element = kind.removeprefix("list of ")
    known = OPERATORS_OF[kind] if element == kind else ["exists", "contains", "contains_any"]
    names = draw(st.lists(st.sampled_from(known), min_size=1, max_size=2, unique=True))
    found = {OPERATORS[name]: draw(operands(name, element)) for name in names}
    if kind == "string" and {*_EQUAL[1:], *_CASE}.issuperset(names):
        found["ignore_case"] = draw(st.none() | st.booleans())
    return found


@st.composite
def filters(draw: st.DrawFn, columns: dict[str, str]) -> dict[str, Comparison]:
    names = draw(st.lists(st.sampled_from(sorted(columns)), max_size=2, unique=True))
    return {name: Comparison(**draw(operators(columns[name]))) for name in names}


def columns_of(ref: str) -> dict[str, str]:
    stream = next(stream for stream in STREAMS if stream.ref == ref)
    return {name: column.type for name, column in stream.columns.items() if name not in NAMES}


NUMERIC = ("integer", "number", "decimal")
WITH_IDENTIFIERS = [stream for stream in STREAMS if stream.identifiers]

#: A batch's number in its stream, and when it arrived.
LOADS = [(1, 2), (2, 1), (3, 2), (4, 3)]
PEOPLE = [{1: 1, 2: 1, 3: 3, 4: 4, 5: 3}, dict.fromkeys(range(1, 6), 1), {n: n for n in range(1, 6)}]


@st.composite
def rows_of(draw: st.DrawFn, stream: Stream, *, crowded: bool) -> list[Row]:
    """Rows of batches, some keys more than once; the fourth batch failed its check.

    :param crowded: few different values, so that rows meet.
    """
    columns = {name: column.type for name, column in stream.columns.items() if name not in NAMES}
    value = {name: st.none() | one_of(VALUES[kind]) for name, kind in columns.items()}
    if crowded:
        value = {name: st.sampled_from([*VALUES[kind][:2], None]) for name, kind in columns.items()}
    if stream.time:  # most have one
        value[stream.time] = st.sampled_from(CROWDED) if crowded else one_of([*MOMENTS, None])
    rows: list[Row] = []
    for number in range(draw(st.integers(8, 14) if crowded else st.integers(0, 12))):
        load, seq = draw(st.sampled_from(LOADS))
        node = draw(st.sampled_from([None, 1, 2, 3, 4, 5])) if stream.identifiers else None
        values = {**draw(st.fixed_dictionaries(value)), "id": str(draw(st.integers(0, 9)))}
        load_id = 10 * STREAMS.index(stream) + load
        rows.append(Row(stream.ref, node, values, load_id, seq, number + 1, passed=load != 4))
    return rows


@st.composite
def worlds(draw: st.DrawFn, *, crowded: bool | None = None) -> tuple[list[Row], dict[int, int]]:
    """Rows of all streams, and the profile of each of five identifiers."""
    crowded = draw(st.booleans()) if crowded is None else crowded
    rows = [row for stream in STREAMS for row in draw(rows_of(stream, crowded=crowded))]
    return rows, draw(st.sampled_from(PEOPLE))


@st.composite
def windows(draw: st.DrawFn, stream: Stream) -> dict[str, Any]:
    """None, one or both keys of a window."""
    if not stream.time:
        return {}
    moment = st.sampled_from([*MOMENTS, *DATES])
    return draw(
        st.fixed_dictionaries(
            {},
            optional={
                "within_last": st.sampled_from(DURATIONS),
                "between": st.tuples(moment, moment).map(lambda ends: tuple(sorted(ends, key=str))),
            },
        )
        if draw(st.booleans())
        else st.just({})
    )
