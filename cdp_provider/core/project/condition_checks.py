# SPDX-License-Identifier: Apache-2.0
"""Problems of the conditions of a segment."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

from cdp_provider.core.project.comparison_checks import comparison_problems
from cdp_provider.core.project.conditions import (
    AccountIs,
    AccountMembers,
    AllOf,
    AnyOf,
    ConsentIs,
    EventCount,
    Funnel,
    InSegment,
    InSplit,
    Near,
    NoneOf,
    Related,
    Sql,
    TraitIs,
)
from cdp_provider.core.project.conjunctions import conjunction_problems
from cdp_provider.core.project.possible import Possible
from cdp_provider.core.project.problems import Path, Problem, did_you_mean
from cdp_provider.core.project.row_checks import (
    event_problems,
    funnel_problems,
    related_problems,
    sql_problems,
)
from cdp_provider.core.project.typing import NUMERIC

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cdp_provider.core.project.base import Model
    from cdp_provider.core.project.world import World

#: Half of the way around a sphere of 6,371.0088 km radius.
_FARTHEST = 20_016


def condition_problems(world: World, condition: Any, path: Path) -> Iterator[Problem]:
    """What is wrong with a condition and all that it holds; paths begin with `path`."""
    yield from _Checks(world).all_of(condition, path)


class _Checks:
    """Walks a tree of conditions."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._kinds: dict[type[Model], Callable[[Any, Path], Iterator[Problem]]] = {
            AllOf: self._all,
            AnyOf: self._any,
            NoneOf: self._none,
            TraitIs: self._trait,
            AccountIs: self._account,
            AccountMembers: self._members,
            InSegment: self._segment,
            InSplit: self._split,
            ConsentIs: self._consent,
            Near: self._near,
            Sql: self._sql,
            EventCount: partial(event_problems, world),
            Funnel: partial(funnel_problems, world),
            Related: partial(related_problems, world),
        }

    def all_of(self, condition: Any, path: Path) -> Iterator[Problem]:
        """Problems of a condition that stands by itself, and of what it holds against each other."""
        found = [*self.one(condition, path)]
        yield from found or conjunction_problems(self._world, condition, path)

    def one(self, condition: Any, path: Path) -> Iterator[Problem]:
        """Problems of a condition, but for those between it and others that must hold as well."""
        yield from self._kinds[type(condition)](condition, path)

    def _all(self, condition: AllOf, path: Path) -> Iterator[Problem]:
        for i, part in enumerate(condition.all):
            yield from self.one(part, (*path, "all", i))

    def _any(self, condition: AnyOf, path: Path) -> Iterator[Problem]:
        for i, part in enumerate(condition.any):
            yield from self.all_of(part, (*path, "any", i))

    def _none(self, condition: NoneOf, path: Path) -> Iterator[Problem]:
        for i, part in enumerate(condition.none):
            yield from self.all_of(part, (*path, "none", i))

    def _trait(self, condition: TraitIs, path: Path) -> Iterator[Problem]:
        world, name = self._world, condition.trait
        yield from world.value_problems(name, (*path, "trait"))
        if (kind := world.types.get(name)) is not None:
            found = comparison_problems(condition, kind, name, world.zone, world.universe(name))
            yield from (problem.below(path) for problem in found)

    def _account(self, condition: AccountIs, path: Path) -> Iterator[Problem]:
        world, name = self._world, condition.account
        yield from self._no_accounts((*path, "account"))
        known = world.account_types
        if world.project.profiles.accounts and name not in known and world.complete(*_ACCOUNT_TRAITS):
            message = f"accounts have no trait {name!r} in profiles.accounts.traits"
            yield Problem((*path, "account"), message, did_you_mean(name, known))
        if (kind := known.get(name)) is not None:
            found = comparison_problems(condition, kind, name, world.zone, Possible())
            yield from (problem.below(path) for problem in found)

    def _members(self, condition: AccountMembers, path: Path) -> Iterator[Problem]:
        yield from self._no_accounts((*path, "members"))
        yield from self.all_of(condition.where, (*path, "where"))

    def _no_accounts(self, path: Path) -> Iterator[Problem]:
        if self._world.project.profiles.accounts is None and self._world.complete("profiles", "accounts"):
            yield Problem(path, "profiles belong to no accounts", "add 'accounts: {key: ...}' to profiles")

    def _segment(self, condition: InSegment, path: Path) -> Iterator[Problem]:
        yield from self._world.segment_problems(condition.segment, (*path, "segment"))

    def _split(self, condition: InSplit, path: Path) -> Iterator[Problem]:
        world, name = self._world, condition.split
        splits = world.project.splits
        if name not in splits:
            if world.complete("splits"):
                yield Problem((*path, "split"), f"there is no split {name!r}", did_you_mean(name, splits))
        elif not world.is_broken("splits", name) and condition.group not in splits[name].groups:
            message = f"the split {name!r} has no group {condition.group!r}"
            yield Problem((*path, "group"), message, did_you_mean(condition.group, splits[name].groups))

    def _consent(self, condition: ConsentIs, path: Path) -> Iterator[Problem]:
        purposes = self._world.project.consent.purposes
        if condition.consent not in purposes and self._world.complete("consent", "purposes"):
            message = f"consent.purposes maps {condition.consent!r} to no field, so nobody has agreed to it"
            yield Problem((*path, "consent"), message, did_you_mean(condition.consent, purposes))

    def _near(self, condition: Near, path: Path) -> Iterator[Problem]:
        for key in ("latitude", "longitude"):
            name = getattr(condition, key)
            yield from self._world.value_problems(name, (*path, key))
            kind = self._world.types.get(name)
            if kind is not None and kind not in NUMERIC:
                yield Problem((*path, key), f"{name!r} is {kind}, and a {key} is a number of degrees")
        if condition.latitude == condition.longitude:
            message = f"{condition.latitude!r} cannot be both the latitude and the longitude"
            yield Problem((*path, "longitude"), message, "name two fields")
        yield from _near_numbers(condition, path)

    def _sql(self, condition: Sql, path: Path) -> Iterator[Problem]:
        yield from sql_problems(self._world, condition.sql, (*path, "sql"), profiles=True)


_ACCOUNT_TRAITS = ("profiles", "accounts", "traits")


def _near_numbers(condition: Near, path: Path) -> Iterator[Problem]:
    for i, (name, most) in enumerate((("latitude", 90), ("longitude", 180))):
        given = condition.near[i]
        if not (math.isfinite(given) and -most <= given <= most):
            message = f"{given} is no {name}: one lies between -{most} and {most} degrees"
            yield Problem((*path, "near", i), message, "write [latitude, longitude]")
    if not (math.isfinite(condition.kilometres) and 0 <= condition.kilometres <= _FARTHEST):
        message = f"{condition.kilometres} is no distance: no place on earth is farther than {_FARTHEST:,} km"
        yield Problem((*path, "kilometres"), message, "give kilometres, at least 0")
