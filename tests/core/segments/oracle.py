# SPDX-License-Identifier: Apache-2.0
"""What conditions and whole segmentations mean, profile by profile, in plain Python."""

from __future__ import annotations

import math
from itertools import product
from typing import TYPE_CHECKING, Any

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
from tests.core.profiles.oracle import Oracle, aggregate, time_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime

    from cdp_provider.core.project.conditions import Condition, Step
    from cdp_provider.core.project.model import Limit, Segmentation
    from tests.core.profiles.world import Row

EARTH = 6371.0088


class World:
    """Who belongs to which segment.

    :param oracle: the profiles, and the rows they are made of.
    :param splits: (split, group) -> whom chance puts there, whether the split divides them or not.
    :param own_sql: the text of a statement -> whom it returns: a function of `oracle`.
    """

    def __init__(
        self,
        oracle: Oracle,
        segmentation: Segmentation,
        splits: Mapping[tuple[str, str], set[int]],
        own_sql: Mapping[str, Callable[[Oracle], set[int]]] | None = None,
    ) -> None:
        self.oracle, self.segmentation = oracle, segmentation
        self.splits, self.own_sql = splits, own_sql or {}
        self.segments = {segment.name: segment for segment in segmentation.segments}
        self._fulfilling: dict[str, set[int]] = {}
        self._final: dict[str, set[int]] = {}

    def members(self) -> set[tuple[str, int]]:
        return {(name, profile) for name in self.segments for profile in self.final(name)}

    # What narrows

    def final(self, name: str) -> set[int]:
        """Who belongs to a segment in the end."""
        if name not in self._final:
            found = self._would(name)
            for names in self.segmentation.exclusive.values():
                if name in names:
                    for earlier in names[: names.index(name)]:
                        found = found - self._would(earlier)
            limit = self.segments[name].limit
            self._final[name] = self._limited(found, limit) if limit else found
        return self._final[name]

    def _would(self, name: str) -> set[int]:
        """Before lists of exclusive segments and limits."""
        if name not in self._fulfilling:
            segment = self.segments[name]
            found = {profile for profile in self.oracle.ids if self.holds(segment.where, profile)}
            suppression = self.segmentation.suppression
            for other in (*segment.but_not, *(suppression if name not in suppression else ())):
                found = found - self.final(other)
            self._fulfilling[name] = found
        return self._fulfilling[name]

    def _limited(self, found: set[int], limit: Limit) -> set[int]:
        parts: dict[Any, list[tuple[Any, int]]] = {}
        for profile in found:
            values = self.oracle.values[profile]
            part = values[limit.per] if limit.per else 0
            if values[limit.by] is not None and part is not None:
                parts.setdefault(part, []).append((values[limit.by], profile))
        return set().union(*(_first(part, limit) for part in parts.values()))

    # Conditions

    def holds(self, condition: Condition, profile: int) -> bool:
        return _HOLDS[type(condition)](self, condition, profile)

    def _trait(self, condition: TraitIs, profile: int) -> bool:
        return self.oracle.fulfils(self.oracle.values[profile][condition.trait], condition)

    def _segment(self, condition: InSegment, profile: int) -> bool:
        return profile in self.final(condition.segment)

    def _split(self, condition: InSplit, profile: int) -> bool:
        (split,) = (split for split in self.segmentation.splits if split.name == condition.split)
        if split.segment and profile not in self.final(split.segment):
            return False
        return profile in self.splits[condition.split, condition.group]

    def _account_of(self, profile: int) -> Any:
        return self.oracle.values[profile][self.oracle.profiles.accounts.key]

    def _account(self, condition: AccountIs, profile: int) -> bool:
        account = self._account_of(profile)
        if account is None:
            return False
        return self.oracle.fulfils(self.oracle.accounts[account][condition.account], condition)

    def _members(self, condition: AccountMembers, profile: int) -> bool:
        account = self._account_of(profile)
        if account is None:
            return False
        fulfil = [self.holds(condition.where, p) for p in self.oracle.ids if self._account_of(p) == account]
        return {"any": any(fulfil), "all": all(fulfil), "none": not any(fulfil)}[condition.members]

    def _consent(self, condition: ConsentIs, profile: int) -> bool:
        name = self.segmentation.consent.purposes[condition.consent]
        return (self.oracle.values[profile][name] is True) == condition.given

    def _near(self, condition: Near, profile: int) -> bool:
        values = self.oracle.values[profile]
        here = (values[condition.latitude], values[condition.longitude])
        return None not in here and kilometres(here, condition.near) <= float(condition.kilometres)

    def _sql(self, condition: Sql, profile: int) -> bool:
        return profile in self.own_sql[condition.sql](self.oracle)

    def _events(self, condition: EventCount, profile: int) -> bool:
        rows = self.oracle.rows(profile, condition.stream)
        found = self.oracle.passing(rows, condition.where, condition.event, condition)
        measure = condition.measure()
        value: Any = len(found)
        if measure:
            kind, column = measure
            values = [v for row in found if (v := row.values.get(column)) is not None]
            value = aggregate(kind, values)
        elif not any(getattr(condition, name) is not None for name in _BOUNDS):
            return value >= 1
        return value is not None and all(
            meets(value, getattr(condition, name))
            for name, meets in _BOUNDS.items()
            if getattr(condition, name) is not None
        )

    # Funnels

    def _funnel(self, funnel: Funnel, profile: int) -> bool:
        """Whether some choice of a row for each step fulfils all that is said of it."""
        rows = [self._step_rows(step, funnel, profile) for step in funnel.funnel]
        steps = range(len(rows))
        present = [n for n in steps if not funnel.funnel[n].absent]
        return any(
            self._is_chain(funnel, rows, dict(zip(present, chain, strict=True)))
            for chain in product(*(rows[n] for n in present))
        )

    def _step_rows(self, step: Step, funnel: Funnel, profile: int) -> list[tuple[datetime, tuple[Any, ...]]]:
        """Time and values of `same` of the rows that may stand for a step."""
        rows = self.oracle.rows(profile, step.stream)
        found = [
            (time_of(row), tuple(row.values.get(step.columns.get(name, name)) for name in funnel.same))
            for row in self.oracle.passing(rows, step.where, step.event, funnel)
        ]
        return [(time, same) for time, same in found if time is not None and None not in same]

    def _is_chain(self, funnel: Funnel, rows: list[list[Any]], chosen: Mapping[int, Any]) -> bool:
        """:param chosen: step -> its row."""
        if len({same for _, same in chosen.values()}) > 1:
            return False
        (_, same) = chosen[0]
        for n, step in enumerate(funnel.funnel[1:], 1):
            before, _ = chosen[max(m for m in chosen if m < n)]
            after = min((m for m in chosen if m > n), default=None)
            if not step.absent:
                time, _ = chosen[n]
                if time <= before or (step.within and time > before + step.within):
                    return False
                continue
            others = [time for time, its in rows[n] if its == same and time > before]
            if after is not None:
                others = [time for time in others if time < chosen[after][0]]
            elif step.within:
                if self.oracle.now <= before + step.within:
                    return False
                others = [time for time in others if time <= before + step.within]
            if others:
                return False
        return True

    # Related objects

    def _related(self, related: Related, profile: int) -> bool:
        if not related.on:
            return self._count_holds(related, self.oracle.rows(profile, related.related))
        return self._count_holds(related, self._reached(related, self.oracle.values[profile]))

    def _reached(self, related: Related, around: Mapping[str, Any]) -> list[Row]:
        """The objects whose columns equal those of what is around them."""
        return [
            row
            for row in self.oracle.objects(related.related)
            if all(
                around.get(theirs) is not None and row.values.get(ours) == around[theirs]
                for ours, theirs in related.on.items()
            )
        ]

    def _count_holds(self, related: Related, objects: Iterable[Row]) -> bool:
        looked_at = self.oracle.passing(objects, {}, None, related)
        fulfil = [row for row in looked_at if self._object_fulfils(related, row)]
        if related.at_least is related.at_most is related.exactly is None:
            return {
                "any": bool(fulfil),
                "all": bool(fulfil) and len(fulfil) == len(looked_at),
                "none": not fulfil,
            }[related.which or "any"]
        return (
            (related.at_least is None or len(fulfil) >= related.at_least)
            and (related.at_most is None or len(fulfil) <= related.at_most)
            and (related.exactly is None or len(fulfil) == related.exactly)
        )

    def _object_fulfils(self, related: Related, row: Row) -> bool:
        return bool(self.oracle.passing([row], related.where, None, _ALWAYS)) and all(
            self._count_holds(inner, self._reached(inner, row.values)) for inner in related.having
        )


class _Always:
    within_last = between = None


_ALWAYS = _Always()
_BOUNDS: dict[str, Callable[[Any, Any], bool]] = {
    "at_least": lambda value, bound: value >= bound,
    "at_most": lambda value, bound: value <= bound,
    "more_than": lambda value, bound: value > bound,
    "less_than": lambda value, bound: value < bound,
    "exactly": lambda value, bound: value == bound,
}
_HOLDS: dict[type, Callable[[World, Any, int], bool]] = {
    AllOf: lambda world, c, profile: all(world.holds(part, profile) for part in c.all),
    AnyOf: lambda world, c, profile: any(world.holds(part, profile) for part in c.any),
    NoneOf: lambda world, c, profile: not any(world.holds(part, profile) for part in c.none),
    TraitIs: World._trait,
    InSegment: World._segment,
    InSplit: World._split,
    AccountIs: World._account,
    AccountMembers: World._members,
    ConsentIs: World._consent,
    Near: World._near,
    Sql: World._sql,
    EventCount: World._events,
    Funnel: World._funnel,
    Related: World._related,
}


def _first(part: Sequence[tuple[Any, int]], limit: Limit) -> set[int]:
    """Of pairs of value and profile, the profiles that a limit admits."""
    values = sorted((value for value, _ in part), reverse=limit.order == "descending")
    if len(values) <= limit.count:
        return {profile for _, profile in part}
    last = values[limit.count - 1]
    better = {profile for value, profile in part if values.index(value) < values.index(last)}
    level = sorted(profile for value, profile in part if value == last)
    room = limit.count - len(better)
    admitted = {"id": level[:room], "include": level, "exclude": level if len(level) <= room else []}
    return better | set(admitted[limit.ties])


def kilometres(one: Sequence[Any], other: Sequence[Any]) -> float:
    """Along the surface of the sphere, by the haversine formula."""
    (lat1, lon1), (lat2, lon2) = (
        [math.radians(float(degrees)) for degrees in place] for place in (one, other)
    )
    half = math.sin((lat2 - lat1) / 2) ** 2
    half += math.cos(lat1) * math.cos(lat2) * math.sin((lon2 - lon1) / 2) ** 2
    return 2 * EARTH * math.asin(math.sqrt(min(1.0, half)))
