# SPDX-License-Identifier: Apache-2.0
"""Segments as SQL: all of a project in one statement that reads the profiles and each stream once."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

from cdp_provider.core.exceptions import ConfigurationError
from cdp_provider.core.profiles.build import TABLE as PROFILES
from cdp_provider.core.profiles.filters import Params, compile_comparison
from cdp_provider.core.profiles.scan import Scans, filtered
from cdp_provider.core.project.conditions import (
    AllOf,
    AnyOf,
    Comparison,
    EventCount,
    InSegment,
    NoneOf,
    TraitIs,
)
from cdp_provider.core.project.typing import trait_types

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from datetime import datetime

    from cdp_provider.core.profiles.filters import Query
    from cdp_provider.core.project.conditions import Condition
    from cdp_provider.core.project.model import Segment
    from cdp_provider.core.project.profiles import Profiles
    from cdp_provider.core.project.streams import Stream
    from cdp_provider.core.warehouse import Warehouse


def segments_query(
    warehouse: Warehouse,
    segments: Sequence[Segment],
    profiles: Profiles,
    streams: Sequence[Stream],
    now: datetime,
    present: Callable[[str], Collection[str]],
) -> Query:
    """The statement whose result is one row ``(segment, profile_id)`` per member of each segment.

    :param segments: with all those that they refer to, in any order.
    :param now: the end of the window; only rows of streams before it, or without a time, count.
    :param present: gives the columns of a stream's view, none where it does not exist.
    :raises ConfigurationError: a condition names what is not there or does not suit its type, or segments
        refer to each other in a circle.
    """
    params = Params(warehouse, now)
    if not segments:
        nobody = {"segment": "string", "profile_id": "integer"}
        columns = ", ".join(
            f"cast(null as {warehouse.types[kind]}) as {name}" for name, kind in nobody.items()
        )
        return params.query(f"select {columns} where 1 = 0")
    by_ref = {stream.ref: stream for stream in streams}
    compiler = _Compiler(Scans(params, by_ref, present), trait_types(profiles, by_ref))
    levels = [
        [(compiler.flag(segment.name), compiler.condition(segment.where)) for segment in level]
        for level in _levels(segments)
    ]
    relations = [*compiler.relations()]
    below = '"_facts"'
    for number, level in enumerate(levels):
        flags = ", ".join(f"{condition} as {flag}" for flag, condition in level)
        # Without a barrier a planner may write a shared segment's condition out wherever it is referred to.
        barrier = "materialized " if number < len(levels) - 1 else ""
        relations.append(f'"_level_{number}" as {barrier}(select *, {flags} from {below})')
        below = f'"_level_{number}"'
    names = ", ".join(
        f"case when {compiler.flag(segment.name)} then {params.bind(segment.name, 'string')} end"
        for segment in segments
    )
    return params.query(
        f"with {', '.join(relations)} select segment, profile_id"
        f" from (select profile_id, unnest(array[{names}]) as segment from {below}) pairs"
        " where segment is not null"
    )


def referred(condition: Condition) -> Iterator[str]:
    """Names of the segments that a condition refers to."""
    match condition:
        case InSegment():
            yield condition.segment
        case AllOf(all=parts) | AnyOf(any=parts) | NoneOf(none=parts):
            for part in parts:
                yield from referred(part)


def traits_of(condition: Condition) -> Iterator[str]:
    """Names of the traits and fields that a condition compares."""
    match condition:
        case TraitIs():
            yield condition.trait
        case AllOf(all=parts) | AnyOf(any=parts) | NoneOf(none=parts):
            for part in parts:
                yield from traits_of(part)


def _levels(segments: Sequence[Segment]) -> list[list[Segment]]:
    """Segments that refer to none, then those that refer only to these, and so on."""
    by_name = {segment.name: segment for segment in segments}
    graph = {segment.name: set(referred(segment.where)) for segment in segments}
    for name, others in graph.items():
        if unknown := sorted(others - by_name.keys()):
            msg = (
                f"the segment {name} refers to {', '.join(unknown)}, which is no segment here;"
                f" it may be one of {', '.join(by_name)}"
            )
            raise ConfigurationError(msg)
    sorter = TopologicalSorter(graph)
    try:
        sorter.prepare()
    except CycleError as error:
        # The sorter names each node before the one that depends on it.
        path = " -> ".join(reversed(error.args[1]))
        msg = f"segments refer to each other in a circle: {path}; take one of these references out"
        raise ConfigurationError(msg) from None
    levels = []
    while sorter.is_active():
        ready = sorter.get_ready()
        levels.append([by_name[name] for name in ready])
        sorter.done(*ready)
    return levels


class _Compiler:
    """Turns conditions into SQL over the relation ``_facts``: one row per profile, all they ask for."""

    def __init__(self, scans: Scans, types: Mapping[str, str]) -> None:
        self._scans = scans
        self._types = types
        self._traits: dict[str, None] = {}
        self._counts: dict[str, str] = {}
        self._flags: dict[str, str] = {}

    def flag(self, segment: str) -> str:
        """The column that says who is in a segment. Names of projects never begin with an underscore."""
        return self._flags.setdefault(segment, f'"_s{len(self._flags)}"')

    def condition(self, condition: Condition) -> str:
        """SQL that is true or false for every profile, never NULL."""
        match condition:
            case AllOf():
                return f"({' and '.join(map(self.condition, condition.all))})"
            case AnyOf():
                return f"({' or '.join(map(self.condition, condition.any))})"
            case NoneOf():
                return f"not ({' or '.join(map(self.condition, condition.none))})"
            case InSegment():
                return self.flag(condition.segment)
            case TraitIs():
                return self._trait(condition)
            case EventCount():
                return self._event_count(condition)

    def relations(self) -> list[str]:
        """Common table expressions up to ``_facts``; ask for them when all conditions are compiled."""
        warehouse = self._scans.params.warehouse
        chosen = ["p.profile_id", *(f"p.{warehouse.quote(name)}" for name in self._traits)]
        chosen += [f"coalesce({sql}, 0) as {name}" for sql, name in self._counts.items()]
        source = f"{warehouse.table(PROFILES)} p{self._scans.joins('p.profile_id')}"
        return [*self._scans.relations(), f'"_facts" as (select {", ".join(chosen)} from {source})']

    def _trait(self, condition: TraitIs) -> str:
        name = condition.trait
        if name not in self._types:
            msg = f"a condition names the trait {name!r}; the profile has {', '.join(self._types) or 'none'}"
            raise ConfigurationError(msg)
        self._traits[name] = None
        params = self._scans.params
        column = params.warehouse.quote(name)
        return compile_comparison(column, self._types[name], condition, params, f"trait {name}")

    def _event_count(self, condition: EventCount) -> str:
        scan, params = self._scans.of(condition.stream), self._scans.params
        conditions = scan.conditions(condition.where, condition.within_last)
        if condition.event is not None:
            if scan.stream.event is None:
                msg = (
                    f"a condition counts the event {condition.event!r} of {condition.stream}, a stream that"
                    " declares no `event:` column; declare it, or use `where` on a column"
                )
                raise ConfigurationError(msg)
            named = {scan.stream.event: Comparison(is_=condition.event)}
            conditions += scan.conditions(named, None)
        total = scan.aggregate("count(*)" + filtered(conditions))
        count = self._counts.setdefault(total, f'"_n{len(self._counts)}"')
        bounds = (("=", condition.exactly), (">=", condition.at_least), ("<=", condition.at_most))
        held = [
            f"{count} {sign} {params.bind(bound, 'integer')}" for sign, bound in bounds if bound is not None
        ]
        return f"({' and '.join(held)})" if held else f"{count} > 0"
