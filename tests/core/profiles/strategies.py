# SPDX-License-Identifier: Apache-2.0
"""Random small worlds and definitions of profiles, crowded around the boundaries."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from cdp_provider.core.project.conditions import OPERATORS, Comparison
from cdp_provider.core.project.profiles import Accounts, AccountTrait, ProfileField, Profiles, Trait
from tests.core.profiles.world import NAMES, NOW, STREAMS, Row

if TYPE_CHECKING:
    from collections.abc import Callable

    from cdp_provider.core.project.streams import Stream
    from tests.core.profiles.oracle import Oracle

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
    "string": ["a", "A", "b", "", "ab", "aB c", "é", "z", "a'b", '%";--', ":p0 \\ %s", "0", "a\nb", "a*_"],
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
    for number in range(draw(st.integers(0, 12))):
        load, seq = draw(st.sampled_from(LOADS))
        node = draw(st.none() | st.integers(1, 5)) if stream.identifiers else None
        values = {**draw(st.fixed_dictionaries(value)), "id": str(draw(st.integers(0, 9)))}
        load_id = 10 * STREAMS.index(stream) + load
        rows.append(Row(stream.ref, node, values, load_id, seq, number + 1, passed=load != 4))
    return rows


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[Row], dict[int, int]]:
    """Rows of all streams, and the profile of each of five identifiers."""
    crowded = draw(st.booleans())
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


ROW_TRAITS = ["count", "exists", "days_since_last", "days_since_first"]
NUMERIC = ("integer", "number", "decimal")
_ANY_COLUMN = ["min", "max", "distinct_count", "first", "last", "most_frequent", "list"]
_NUMBERS = [*_ANY_COLUMN[:-1], "sum", "average"]
TRAITS_BY_TYPE = {
    **dict.fromkeys(("string", "date"), _ANY_COLUMN),
    "boolean": _ANY_COLUMN[2:],
    "timestamp": _ANY_COLUMN[:-1],
    "integer": [*_NUMBERS, "list"],
    **dict.fromkeys(("number", "decimal"), _NUMBERS),
    "json": ["first", "last"],
}
WITH_IDENTIFIERS = [stream for stream in STREAMS if stream.identifiers]


@st.composite
def traits(draw: st.DrawFn) -> Trait:
    """Computed from rows."""
    stream = draw(st.sampled_from(WITH_IDENTIFIERS))
    columns = columns_of(stream.ref)
    choices = [(kind, None) for kind in ROW_TRAITS if stream.time or "days" not in kind]
    choices += [(kind, name) for name, column in columns.items() for kind in TRAITS_BY_TYPE[column]]
    kind, column = draw(st.sampled_from(choices))
    given: dict[str, Any] = {"type": kind, "stream": stream.ref, "where": draw(filters(columns))}
    given |= draw(windows(stream))
    if stream.event:
        given["event"] = draw(st.none() | one_of(VALUES["string"]))
    if column:
        given |= {"column": column} | draw(_of_column(kind, columns[column]))
    return Trait(**given)


@st.composite
def _of_column(draw: st.DrawFn, kind: str, column: str) -> dict[str, Any]:
    given: dict[str, Any] = {}
    if kind in ("sum", "average") or (kind in ("min", "max") and column in NUMERIC):
        given["nulls"] = draw(st.sampled_from(["ignore", "zero"]))
    elif kind not in ("min", "max"):
        given["nulls"] = draw(st.sampled_from(["ignore", "keep"]))
    if column in (*NUMERIC, "string") and kind not in ("list", "distinct_count"):
        given["default"] = draw(st.none() | st.just("nothing" if column == "string" else 7))
    if kind == "list":
        given["limit"] = draw(st.sampled_from([1, 2, 100]))
    return given


def kind_of_trait(trait: Trait) -> str:
    column = columns_of(trait.stream)[trait.column] if trait.column else ""
    fixed = {
        **dict.fromkeys(
            ("count", "distinct_count", "days_since_last", "days_since_first", "quantile"), "integer"
        ),
        **dict.fromkeys(("average", "ratio", "formula"), "number"),
        "exists": "boolean",
        "rfm": "string",
        "list": f"list of {column}",
        "sql": trait.as_ or "",
    }
    return fixed.get(trait.type, column)


def kind_of_field(field: ProfileField) -> str:
    if field.keep == "sql":
        return field.type or ""
    column = columns_of(field.sources[0].stream)[field.sources[0].column]
    return {"average": "number", "list": f"list of {column}"}.get(field.keep, column)


def kinds(profiles: Profiles) -> dict[str, str]:
    return {n: kind_of_field(f) for n, f in profiles.fields.items()} | {
        n: kind_of_trait(t) for n, t in profiles.traits.items()
    }


FORMULAS = [
    "{0} + {1} * 2 - 1",
    "{0} / {1}",
    "round({0} / 3, 2) if {0} > {1} else -1",
    "1 if {0} is none or not {1} >= 1 else 0",
    "coalesce({0}, {1}, 0) + least({0}, {1})",
    "greatest({0}, abs({1}))",
]


@st.composite
def derived(draw: st.DrawFn, numbers: list[str]) -> Trait:
    """Computed from other traits."""
    one, two, three = (draw(st.sampled_from(numbers)) for _ in range(3))
    buckets = draw(st.sampled_from([2, 5, 9]))
    order = draw(st.sampled_from(["ascending", "descending"]))
    return draw(
        st.sampled_from(
            [
                Trait(type="quantile", of=one, buckets=buckets, order=order),
                Trait(type="rfm", recency=one, frequency=two, monetary=three, buckets=buckets),
                Trait(type="ratio", of=one, over=two),
                Trait(type="ratio", of=one, over=two, default=-1),
                *(Trait(type="formula", formula=formula.format(one, two)) for formula in FORMULAS),
            ]
        )
    )


SOURCES = {
    "string": ["web.events.s", "crm.people.s", "old.list.s", "web.events.name"],
    "integer": ["web.events.i", "crm.people.i", "old.list.i"],
    "boolean": ["web.events.b", "crm.people.b"],
    "number": ["web.events.n"],
    "decimal": ["web.events.d"],
    "date": ["web.events.day"],
}
_PICKED = ["most_recent", "first", "source_priority"]
KEEP = {
    "string": [*_PICKED, "most_frequent", "min", "max", "list"],
    "boolean": [*_PICKED, "most_frequent", "min", "max", "list", "any", "all"],
    "date": [*_PICKED, "most_frequent", "min", "max", "list"],
    **dict.fromkeys(NUMERIC, [*_PICKED, "most_frequent", "min", "max", "sum", "average"]),
}


@st.composite
def fields(draw: st.DrawFn) -> ProfileField:
    kind = draw(st.sampled_from(sorted(SOURCES)))
    sources = draw(st.lists(st.sampled_from(SOURCES[kind]), min_size=1, unique=True))
    keep = draw(st.sampled_from(KEEP[kind]))
    empty = draw(st.sampled_from(["ignore", "keep"])) if keep in _PICKED else "ignore"
    limit = draw(st.sampled_from([1, 2, 100])) if keep == "list" else 100
    return ProfileField(sources=sources, keep=keep, empty=empty, limit=limit)


_LARGEST = "select profile_id, max(i) as value from {web.events} where b group by profile_id"
_LATE = (
    'with rows as (select profile_id from {crm.people} where "at" < :now and i > 0)'
    " select profile_id, count(*) > 1 as value from rows group by profile_id"
)


def _largest(world: Oracle, profile: int) -> int | None:
    rows = [row.values for row in world.rows(profile, "web.events")]
    return max((v["i"] for v in rows if v.get("b") and v.get("i") is not None), default=None)


def _late(world: Oracle, profile: int) -> bool | None:
    rows = [row.values for row in world.rows(profile, "crm.people")]
    found = [v for v in rows if v.get("at") is not None and (v.get("i") or 0) > 0]
    return len(found) > 1 if found else None


#: Statements that a project may hold, and what they give.
OWN_SQL: dict[str, Callable[[Oracle, int], Any]] = {_LARGEST: _largest, _LATE: _late}
SQL_FIELD = ProfileField(keep="sql", type="integer", sql=_LARGEST)
SQL_TRAIT = Trait.model_validate({"type": "sql", "as": "boolean", "sql": _LATE})


@st.composite
def accounts(draw: st.DrawFn, known: dict[str, str]) -> Accounts | None:
    keys = sorted(name for name, kind in known.items() if kind in ("string", "integer", "boolean"))
    if not keys:
        return None
    choices = [AccountTrait(type="count")]
    for name, kind in known.items():
        choices += [AccountTrait(type=t, of=name) for t in ("any", "all") if kind == "boolean"]
        choices += [AccountTrait(type=t, of=name) for t in ("sum", "average") if kind in NUMERIC]
        if kind != "json" and not kind.startswith("list"):
            choices.append(AccountTrait(type="distinct_count", of=name))
            choices += [AccountTrait(type=t, of=name) for t in ("min", "max") if kind != "boolean"]
    drawn = draw(st.lists(st.sampled_from(choices), max_size=3))
    return Accounts(
        key=draw(st.sampled_from(keys)), traits={f"sum_{n}": trait for n, trait in enumerate(drawn)}
    )


@st.composite
def definitions(draw: st.DrawFn) -> Profiles:
    found: dict[str, Trait] = {f"trait_{n}": t for n, t in enumerate(draw(st.lists(traits(), max_size=6)))}
    named = {f"field_{n}": f for n, f in enumerate(draw(st.lists(fields(), max_size=4)))}
    if draw(st.booleans()):
        found["trait_sql"], named["field_sql"] = SQL_TRAIT, SQL_FIELD
    known = kinds(Profiles(fields=named, traits=found))
    numbers = sorted(name for name, kind in known.items() if kind in NUMERIC)
    for n in range(draw(st.integers(0, 3)) if numbers else 0):
        trait = found[f"derived_{n}"] = draw(derived(numbers))
        numbers += [f"derived_{n}"] if kind_of_trait(trait) in NUMERIC else []
    profiles = Profiles(timezone=draw(st.sampled_from(ZONES)), fields=named, traits=found)
    return profiles.model_copy(update={"accounts": draw(accounts(kinds(profiles)))})


def at_load(rows: list[Row], load_id: int, seq: int) -> list[Row]:
    """The rows as one batch."""
    return [replace(row, load_id=load_id, load_seq=seq, position=n) for n, row in enumerate(rows, 1)]
