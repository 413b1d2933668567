# SPDX-License-Identifier: Apache-2.0
"""Random small worlds, traits, fields and comparisons, crowded around the boundaries."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from cdp_provider.core.profiles.filters import OPERATORS_BY_TYPE
from cdp_provider.core.project.conditions import OPERATORS, Comparison
from cdp_provider.core.project.profiles import ProfileField, Profiles, Trait
from tests.core.profiles.world import NOW, STREAMS, Row

TICK = timedelta(microseconds=1)
DURATIONS = [timedelta(hours=36), timedelta(days=1), timedelta(days=2), timedelta(days=400)]
MOMENTS = [
    NOW,
    NOW - TICK,
    NOW + timedelta(hours=1),
    *(NOW - duration for duration in DURATIONS),
    NOW - timedelta(days=1) - TICK,
    NOW - timedelta(days=2) + TICK,
    datetime(2024, 2, 29, tzinfo=UTC),
    datetime(2026, 2, 28, 23, 59, 59, 999999, tzinfo=UTC),
]
VALUES: dict[str, list[Any]] = {
    "string": ["", "a", "A", "b", "ab", "aB c", "é", "z", "a'b", '%";--', ":p0 \\ %s", "0"],
    "integer": [-1, 0, 1, 2, 3, 2**53 + 1, -(2**40)],
    "number": [-1.5, 0.0, 0.5, 1.0, 2.0, 1e9],
    "decimal": [
        Decimal("-0.5"),
        Decimal(0),
        Decimal("0.000001"),
        Decimal("1.25"),
        Decimal(2),
        Decimal(10) ** 12,
    ],
    "boolean": [True, False],
    "date": [date(2026, 3, 1), date(2026, 2, 28), date(2024, 2, 29), date(2026, 2, 27)],
    "timestamp": MOMENTS,
    "json": ["{}", '{"a": 1}', "[1, 2]"],
}
CONSTANTS = VALUES | {
    "integer": [*VALUES["integer"], 0.5, Decimal("1.5")],
    "decimal": [*VALUES["decimal"], 1, 0.5],
    "number": [*VALUES["number"], 1, Decimal("0.5")],
    "date": [*VALUES["date"], *MOMENTS],
    "timestamp": [*MOMENTS, *VALUES["date"], datetime(2026, 2, 28, 12)],  # noqa: DTZ001 - a project may say so
}


def operands(operator: str, kind: str) -> st.SearchStrategy[Any]:
    constant = st.sampled_from(CONSTANTS[kind])
    match operator:
        case "exists":
            return st.booleans()
        case "any_of" | "none_of":
            return st.lists(constant, max_size=3).map(tuple)
        case "between":
            return st.tuples(constant, constant)
        case "within_last":
            return st.sampled_from(DURATIONS)
    return constant


@st.composite
def operators(draw: st.DrawFn, kind: str) -> dict[str, Any]:
    """One or two operators with constants, as keyword arguments of a comparison."""
    names = draw(
        st.lists(st.sampled_from(sorted(OPERATORS_BY_TYPE[kind])), min_size=1, max_size=2, unique=True)
    )
    return {OPERATORS[name]: draw(operands(name, kind)) for name in names}


@st.composite
def filters(draw: st.DrawFn, columns: dict[str, str]) -> dict[str, Comparison]:
    names = draw(st.lists(st.sampled_from(sorted(columns)), max_size=2, unique=True))
    return {name: Comparison(**draw(operators(columns[name]))) for name in names}


def columns_of(ref: str) -> dict[str, str]:
    stream = next(stream for stream in STREAMS if stream.ref == ref)
    return {name: column.type for name, column in stream.columns.items() if name != "id"}


LOADS = st.sampled_from([(1, 2), (2, 1), (3, 2)])


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[Row], dict[int, int]]:
    """Rows of all streams, and the profile of each of five identifiers."""
    rows: list[Row] = []
    for stream in STREAMS:
        columns = {name: column.type for name, column in stream.columns.items()}
        value = {name: st.none() | st.sampled_from(VALUES[kind]) for name, kind in columns.items()}
        for number in range(draw(st.integers(0, 12))):
            load_id, load_seq = draw(LOADS)
            node = draw(st.none() | st.integers(1, 5))
            values = {**draw(st.fixed_dictionaries(value)), "id": str(number)}
            rows.append(Row(stream.ref, node, values, load_id, load_seq, number + 1))
    return rows, draw(
        st.sampled_from(
            [{1: 1, 2: 1, 3: 3, 4: 4, 5: 3}, {n: 1 for n in range(1, 6)}, {1: 1, 2: 2, 3: 3, 4: 4, 5: 5}]
        )
    )


ROW_TRAITS = ["count", "exists", "days_since_last"]
TRAITS_BY_TYPE = {
    "string": ["min", "max", "distinct_count", "first", "last"],
    "integer": ["sum", "average", "min", "max", "distinct_count", "first", "last"],
    "boolean": ["min", "max", "distinct_count", "first", "last"],
    "json": [],
}
TRAITS_BY_TYPE |= {"number": TRAITS_BY_TYPE["integer"], "decimal": TRAITS_BY_TYPE["integer"]}
TRAITS_BY_TYPE |= {"date": TRAITS_BY_TYPE["string"], "timestamp": TRAITS_BY_TYPE["string"]}


@st.composite
def traits(draw: st.DrawFn) -> Trait:
    stream = draw(st.sampled_from(STREAMS))
    columns = columns_of(stream.ref)
    where = draw(filters(columns))
    last = draw(st.none() | st.sampled_from(DURATIONS)) if stream.time else None
    choices = [(kind, None) for kind in ROW_TRAITS if stream.time or kind != "days_since_last"]
    choices += [(kind, name) for name, column in columns.items() for kind in TRAITS_BY_TYPE[column]]
    kind, column = draw(st.sampled_from(choices))
    return Trait(type=kind, stream=stream.ref, column=column, where=where, within_last=last)


SOURCES = {
    "s": ["web.events.s", "crm.people.s", "old.list.s", "web.events.name"],
    "i": ["web.events.i", "crm.people.i", "old.list.i"],
    "b": ["web.events.b", "crm.people.b"],
}


@st.composite
def fields(draw: st.DrawFn) -> ProfileField:
    sources = draw(
        st.sampled_from(sorted(SOURCES)).flatmap(
            lambda k: st.lists(st.sampled_from(SOURCES[k]), min_size=1, unique=True)
        )
    )
    keep = draw(st.sampled_from(["most_recent", "first", "source_priority", "most_frequent"]))
    return ProfileField(sources=sources, keep=keep)


@st.composite
def definitions(draw: st.DrawFn) -> Profiles:
    drawn_traits = draw(st.lists(traits(), max_size=6))
    drawn_fields = draw(st.lists(fields(), max_size=4))
    return Profiles(
        traits={f"trait_{number}": trait for number, trait in enumerate(drawn_traits)},
        fields={f"field_{number}": field for number, field in enumerate(drawn_fields)},
    )
