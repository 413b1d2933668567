# SPDX-License-Identifier: Apache-2.0
"""Problems of segments and filters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cdp_provider.core.project.conditions import AllOf, AnyOf, EventCount, InSegment, NoneOf, TraitIs
from cdp_provider.core.project.constants import comparison_problems
from cdp_provider.core.project.problems import Path, Problem, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cdp_provider.core.project.conditions import Comparison
    from cdp_provider.core.project.streams import Stream
    from cdp_provider.core.project.world import World


def segment_problems(world: World, condition: Any, path: Path) -> Iterator[Problem]:
    """What is wrong with a condition and all that it holds."""
    if isinstance(condition, AllOf | AnyOf | NoneOf):
        (branch,) = type(condition).model_fields
        for i, part in enumerate(getattr(condition, branch)):
            yield from segment_problems(world, part, (*path, branch, i))
    elif isinstance(condition, TraitIs):
        yield from world.value_problems(condition.trait, (*path, "trait"))
        if (kind := world.types.get(condition.trait)) is not None:
            found = comparison_problems(condition, kind, condition.trait)
            yield from (problem.below(path) for problem in found)
    elif isinstance(condition, EventCount):
        yield from _event_problems(world, condition, path)
    elif isinstance(condition, InSegment):
        segments = world.project.segments
        if condition.segment not in segments and world.complete("segments"):
            hint = did_you_mean(condition.segment, segments)
            yield Problem((*path, "segment"), f"there is no segment {condition.segment!r}", hint)


def filter_problems(
    world: World, where: Mapping[str, Comparison], stream: Stream, path: Path
) -> Iterator[Problem]:
    """What is wrong with conditions on columns of a stream."""
    for name, comparison in where.items():
        here = (*path, name)
        if name not in stream.columns:
            yield world.no_column(stream, name, here, at_key=True)
        else:
            found = comparison_problems(comparison, stream.columns[name].type, name)
            yield from (problem.below(here) for problem in found)


def _event_problems(world: World, condition: EventCount, path: Path) -> Iterator[Problem]:
    yield from _count_problems(condition, path)
    stream, problems = world.linked_stream(condition.stream, (*path, "stream"))
    yield from problems
    if stream is None:
        return
    if condition.event is not None and stream.event is None:
        message = f"the stream {stream.ref} has no events, because it names no event column"
        yield Problem((*path, "event"), message, "add 'event: <column>' to the stream, or use 'where'")
    if condition.within_last is not None and stream.time is None:
        yield world.no_time(stream, "within_last", (*path, "within_last"))
    yield from filter_problems(world, condition.where, stream, (*path, "where"))


def _count_problems(condition: EventCount, path: Path) -> Iterator[Problem]:
    low, high, exactly = condition.at_least, condition.at_most, condition.exactly
    if exactly is not None and (low is not None or high is not None):
        message = "'exactly' already says how often; it does not go with 'at_least' or 'at_most'"
        yield Problem((*path, "exactly"), message, "keep one of them", at_key=True)
    elif low is not None and high is not None and low > high:
        message = f"nothing happens at least {low} and at most {high} times"
        yield Problem((*path, "at_most"), message, "no profile could ever fulfil this")


def cycles(world: World) -> Iterator[Problem]:
    """Segments that are defined by themselves, each circle once."""
    used = {name: dict(_used(segment.where, ("where",))) for name, segment in world.intact("segments")}
    done: set[str] = set()
    for name in used:
        yield from _circle(name, [], used, done)


def _circle(
    name: str, trail: list[str], used: Mapping[str, Mapping[str, Path]], done: set[str]
) -> Iterator[Problem]:
    if name in trail:
        circle = [*trail[trail.index(name) :], name]
        message = f"segments refer to each other in a circle: {' -> '.join(circle)}"
        path = ("segments", circle[0], *used[circle[0]][circle[1]])
        yield Problem(path, message, "break it in one place")
    elif name in used and name not in done:
        for other in used[name]:
            yield from _circle(other, [*trail, name], used, done)
        done.add(name)


def _used(condition: Any, path: Path) -> Iterator[tuple[str, Path]]:
    """Segments that a condition refers to, and where."""
    if isinstance(condition, InSegment):
        yield condition.segment, (*path, "segment")
    elif isinstance(condition, AllOf | AnyOf | NoneOf):
        (branch,) = type(condition).model_fields
        for i, part in enumerate(getattr(condition, branch)):
            yield from _used(part, (*path, branch, i))
