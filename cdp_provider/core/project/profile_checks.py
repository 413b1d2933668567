# SPDX-License-Identifier: Apache-2.0
"""Problems of fields, traits, accounts and what else profiles hold."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from cdp_provider.core.project.circles import circles
from cdp_provider.core.project.constants import convert
from cdp_provider.core.project.formula import formula_problem, names
from cdp_provider.core.project.problems import Path, Problem
from cdp_provider.core.project.row_checks import rows_problems, sql_problems, window_problems
from cdp_provider.core.project.typing import (
    ACCOUNT_VALUES,
    FIELD_COLUMNS,
    NUMERIC,
    ORDERED,
    TEMPORAL,
    TRAIT_COLUMNS,
    is_list,
)
from cdp_provider.core.project.world import zone_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cdp_provider.core.project.profiles import Accounts, AccountTrait, ProfileField, Profiles, Trait
    from cdp_provider.core.project.world import World

#: Types that the buckets of a quantile can be made of: values with distances, and many of them.
_RANKED = NUMERIC | TEMPORAL
_MOST_RFM = 9


def profile_problems(world: World) -> Iterator[Problem]:
    """All problems of the section ``profiles``."""
    profiles = world.project.profiles
    if zone_of(profiles.timezone) is None:
        message = f"{profiles.timezone!r} is no time zone"
        yield Problem(("profiles", "timezone"), message, "write one such as 'UTC' or 'Europe/Berlin'")
    yield from _name_problems(profiles)
    for name, field in world.intact("profiles", "fields"):
        yield from _field_problems(world, field, ("profiles", "fields", name))
    for name, trait in world.intact("profiles", "traits"):
        yield from _trait_problems(world, name, trait, ("profiles", "traits", name))
    yield from _circle_problems(world)
    if profiles.accounts is not None and not world.is_broken("profiles", "accounts"):
        yield from _account_problems(world, profiles.accounts)
    for i, name in enumerate(profiles.history):
        yield from world.value_problems(name, ("profiles", "history", i))
        if name in profiles.history[:i]:
            yield Problem(("profiles", "history", i), f"{name!r} is listed twice", "remove one of them")


def _name_problems(profiles: Profiles) -> Iterator[Problem]:
    for section, members in (("fields", profiles.fields), ("traits", profiles.traits)):
        for name in members:
            path: Path = ("profiles", section, name)
            if name == "profile_id":
                yield Problem(path, "the name 'profile_id' is reserved", "choose another name", at_key=True)
            if section == "traits" and name in profiles.fields:
                message = f"{name!r} is a field too, and a profile can hold only one value of that name"
                yield Problem(path, message, "rename one of them", at_key=True)


def _field_problems(world: World, field: ProfileField, path: Path) -> Iterator[Problem]:
    if field.sql is not None:
        yield from sql_problems(world, field.sql, (*path, "sql"))
    allowed, wanted = FIELD_COLUMNS.get(field.keep, (None, ""))
    first: tuple[str, str] | None = None
    for i, source in enumerate(field.sources):
        here = (*path, "from", i)
        where = f"{source.stream}.{source.column}"
        stream, problems = world.linked_stream(source.stream, here)
        yield from problems
        if stream is None:
            continue
        if source in field.sources[:i]:
            yield Problem(here, f"{where} is listed twice", "remove one of them")
        if source.column not in stream.columns:
            yield world.no_column(stream, source.column, here)
            continue
        kind = stream.columns[source.column].type
        if first and first[1] != kind:
            message = f"{where} is {kind}, and {first[0]} is {first[1]}"
            yield Problem(here, message, "a field has one type: declare both columns alike")
        elif allowed is not None and kind not in allowed and first is None:
            yield Problem(here, f"'keep: {field.keep}' takes {wanted}, and {where} is {kind}")
        first = first or (where, kind)


def _trait_problems(world: World, name: str, trait: Trait, path: Path) -> Iterator[Problem]:
    if trait.stream is not None:
        yield from _row_problems(world, trait, path)
    for key in ("of", "over", "recency", "frequency", "monetary"):
        if (value := getattr(trait, key)) is not None:
            yield from world.value_problems(value, (*path, key))
            allowed = NUMERIC if trait.type == "ratio" else _RANKED
            kind = world.types.get(value)
            if kind is not None and kind not in allowed:
                wanted = "numbers" if trait.type == "ratio" else "numbers, dates or timestamps"
                message = f"a trait of type {trait.type} takes {wanted}, and {value!r} is {kind}"
                yield Problem((*path, key), message)
    if trait.type == "rfm" and trait.buckets > _MOST_RFM:
        message = f"each of the three is one digit, and {trait.buckets} buckets need more"
        yield Problem((*path, "buckets"), message, f"give at most {_MOST_RFM}")
    if trait.sql is not None:
        yield from sql_problems(world, trait.sql, (*path, "sql"))
    if trait.formula is not None:
        yield from _formula_problems(world, trait.formula, trait.as_ or "number", (*path, "formula"))
    yield from _default_problems(world, name, trait, path)


def _row_problems(world: World, trait: Trait, path: Path) -> Iterator[Problem]:
    """What is wrong with a trait that is computed from rows."""
    stream, problems = world.linked_stream(trait.stream or "", (*path, "stream"))
    yield from problems
    if stream is None:
        return
    if stream.time is None and trait.type in ("days_since_last", "days_since_first"):
        yield world.no_time(stream, f"a trait of type {trait.type}", (*path, "type"))
    yield from window_problems(world, trait, [stream], path)
    if trait.column is not None:
        column = stream.columns.get(trait.column)
        allowed, wanted = TRAIT_COLUMNS.get(trait.type, (None, ""))
        if column is None:
            yield world.no_column(stream, trait.column, (*path, "column"))
        elif allowed is not None and column.type not in allowed:
            message = f"a trait of type {trait.type} takes {wanted}, and {trait.column!r} is {column.type}"
            yield Problem((*path, "column"), message)
        elif trait.nulls == "zero" and column.type not in NUMERIC:
            message = f"'nulls: zero' takes a missing number for 0, and {trait.column!r} is {column.type}"
            yield Problem((*path, "nulls"), message, "leave it out")
    yield from rows_problems(world, trait, stream, path)


def _formula_problems(world: World, formula: str, wanted: str, path: Path) -> Iterator[Problem]:
    unknown = [*chain.from_iterable(world.value_problems(name, path) for name in names(formula))]
    yield from unknown
    kinds = {name: kind for name, kind in world.types.items() if kind is not None}
    if all(name in kinds for name in names(formula)) and (fault := formula_problem(formula, kinds, wanted)):
        yield Problem(path, fault)


def _default_problems(world: World, name: str, trait: Trait, path: Path) -> Iterator[Problem]:
    kind = world.types.get(name)
    if trait.default is None or kind is None:
        return
    here = (*path, "default")
    if kind == "json" or is_list(kind):
        yield Problem(here, f"{name!r} is {kind}, which has no default", "leave 'default' out")
        return
    try:
        value = convert(trait.default, kind)
    except ValueError as error:
        yield Problem(here, f"{name!r} is {kind}, and {error}")
        return
    if kind == "timestamp" and not hasattr(value, "tzinfo"):
        yield Problem(here, f"{value} is a whole day", "write a moment such as 2026-01-31T00:00:00Z")


def _circle_problems(world: World) -> Iterator[Problem]:
    """Traits that are computed from themselves."""
    places: dict[str, dict[str, Path]] = {}
    for name, trait in world.intact("profiles", "traits"):
        keys = ("of", "over", "recency", "frequency", "monetary")
        needed = {value: (key,) for key in keys if (value := getattr(trait, key)) is not None}
        needed |= dict.fromkeys(names(trait.formula) if trait.formula else (), ("formula",))
        places[name] = {other: ("profiles", "traits", name, *key) for other, key in needed.items()}
    for circle in circles(places):
        message = f"traits are computed from each other in a circle: {' -> '.join(circle)}"
        yield Problem(places[circle[0]][circle[1]], message, "break it in one place")


def _account_problems(world: World, accounts: Accounts) -> Iterator[Problem]:
    path: Path = ("profiles", "accounts")
    # Of a section without a key only a stand-in is there, which names nothing.
    if accounts.key:
        yield from world.value_problems(accounts.key, (*path, "key"))
        kind = world.types.get(accounts.key)
        if kind is not None and kind not in ORDERED:
            yield Problem((*path, "key"), f"{accounts.key!r} is {kind}, whose values cannot be told apart")
    for name, trait in world.intact("profiles", "accounts", "traits"):
        here = (*path, "traits", name)
        if name in ("account", "profiles"):
            message = f"the table accounts has a column {name!r} already"
            yield Problem(here, message, "choose another name", at_key=True)
        yield from _account_trait_problems(world, trait, here)


def _account_trait_problems(world: World, trait: AccountTrait, path: Path) -> Iterator[Problem]:
    if trait.of is None:
        return
    yield from world.value_problems(trait.of, (*path, "of"))
    kind = world.types.get(trait.of)
    allowed, wanted = ACCOUNT_VALUES[trait.type]
    if kind is not None and kind not in allowed:
        message = f"an account's {trait.type} takes {wanted}, and {trait.of!r} is {kind}"
        yield Problem((*path, "of"), message)
