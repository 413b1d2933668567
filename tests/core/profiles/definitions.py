# SPDX-License-Identifier: Apache-2.0
"""Random fields, traits and accounts over the streams of the small worlds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from cdp_provider.core.project.profiles import Accounts, AccountTrait, ProfileField, Profiles, Trait
from tests.core.profiles.strategies import (
    NUMERIC,
    VALUES,
    WITH_IDENTIFIERS,
    ZONES,
    columns_of,
    filters,
    one_of,
    windows,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.core.profiles.oracle import Oracle

ROW_TRAITS = ["count", "exists", "days_since_last", "days_since_first"]
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
        given["limit"] = draw(st.sampled_from([1, 1, 2, 100]))
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
    "string": [*_PICKED, "most_frequent", "min", "max", "list", "list"],
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
    limit = draw(st.sampled_from([1, 1, 2, 100])) if keep == "list" else 100
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
def definitions(draw: st.DrawFn, least: int = 0) -> Profiles:
    """:param least: so many traits of rows at least, and half as many fields."""
    found: dict[str, Trait] = {
        f"trait_{n}": t for n, t in enumerate(draw(st.lists(traits(), min_size=least, max_size=least + 6)))
    }
    named = {
        f"field_{n}": f
        for n, f in enumerate(draw(st.lists(fields(), min_size=least // 2, max_size=least // 2 + 4)))
    }
    if draw(st.booleans()):
        found["trait_sql"], named["field_sql"] = SQL_TRAIT, SQL_FIELD
    known = kinds(Profiles(fields=named, traits=found))
    numbers = sorted(name for name, kind in known.items() if kind in NUMERIC)
    for n in range(draw(st.integers(0, 3)) if numbers else 0):
        trait = found[f"derived_{n}"] = draw(derived(numbers))
        numbers += [f"derived_{n}"] if kind_of_trait(trait) in NUMERIC else []
    profiles = Profiles(timezone=draw(st.sampled_from(ZONES)), fields=named, traits=found)
    return profiles.model_copy(update={"accounts": draw(accounts(kinds(profiles)))})
