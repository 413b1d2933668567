# SPDX-License-Identifier: Apache-2.0
"""Problems of segments and splits as a whole: what narrows them, and who needs whom."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from cdp_provider.core.project.circles import circles
from cdp_provider.core.project.condition_checks import condition_problems
from cdp_provider.core.project.conditions import (
    AccountMembers,
    AllOf,
    AnyOf,
    InSegment,
    InSplit,
    NoneOf,
)
from cdp_provider.core.project.conjunctions import parts
from cdp_provider.core.project.problems import Path, Problem
from cdp_provider.core.project.typing import ORDERED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cdp_provider.core.project.model import Limit, Segment, Split
    from cdp_provider.core.project.world import World

#: Segment that is needed -> where, and by which way if that is no condition.
Needs = dict[str, tuple[Path, str]]


def segments_problems(world: World) -> Iterator[Problem]:
    """All problems of segments, splits, and of what narrows segments."""
    for name, segment in world.intact("segments"):
        path: Path = ("segments", name)
        yield from condition_problems(world, segment.where, (*path, "where"))
        if segment.limit is not None:
            yield from _limit_problems(world, segment.limit, (*path, "limit"))
        yield from _list_problems(world, segment.but_not, (*path, "except"))
    for name, split in world.intact("splits"):
        yield from _split_problems(world, split, ("splits", name))
    yield from _list_problems(world, world.project.suppression, ("suppression",))
    yield from _exclusive_problems(world)
    needs = {name: _needs(world, segment) for name, segment in world.intact("segments")}
    found = [*circles(needs)]
    yield from (_circle_problem(circle, needs) for circle in found)
    if not found:
        yield from _empty_problems(world)


def _limit_problems(world: World, limit: Limit, path: Path) -> Iterator[Problem]:
    for key, name, verb in (("by", limit.by, "put in order"), ("per", limit.per, "told apart")):
        if name is None:
            continue
        yield from world.value_problems(name, (*path, key))
        kind = world.types.get(name)
        if kind is not None and kind not in ORDERED:
            yield Problem((*path, key), f"{name!r} is {kind}, whose values cannot be {verb}")


def _list_problems(world: World, names: tuple[str, ...], path: Path) -> Iterator[Problem]:
    """Segments that are listed, and are not there or are listed before."""
    for i, name in enumerate(names):
        yield from world.segment_problems(name, (*path, i))
        if name in names[:i]:
            yield Problem((*path, i), f"{name!r} is listed twice", "remove one of them")


def _exclusive_problems(world: World) -> Iterator[Problem]:
    listed: dict[str, str] = {}
    for key, names in world.project.exclusive.items():
        path: Path = ("exclusive", key)
        yield from _list_problems(world, names, path)
        for i, name in enumerate(names):
            if (other := listed.get(name)) is not None:
                message = f"{name!r} is in the list {other!r} too, and the order of two lists may not agree"
                yield Problem((*path, i), message, "keep it in one list, or make one of both")
        listed |= dict.fromkeys(names, key)


def _split_problems(world: World, split: Split, path: Path) -> Iterator[Problem]:
    if split.segment is not None:
        yield from world.segment_problems(split.segment, (*path, "segment"))
    if (total := sum(split.groups.values(), Decimal())) > 1:
        message = f"the shares make {(total * 100).normalize():f} % together"
        yield Problem((*path, "groups"), message, "leave at most 100 %", at_key=True)
    for i, name in enumerate(split.stratify):
        yield from world.value_problems(name, (*path, "stratify", i))
        kind = world.types.get(name)
        if kind is not None and kind not in ORDERED:
            yield Problem((*path, "stratify", i), f"{name!r} is {kind}, whose values cannot be told apart")
    for name, count in Counter(split.stratify).items():
        if count > 1:
            yield Problem((*path, "stratify"), f"{name!r} is listed twice", "remove one of them")


def _needs(world: World, segment: Segment) -> Needs:
    """All segments that must be known before one is."""
    path: Path = ("segments", segment.name)
    found: Needs = {}
    for name, place in _referred(world, segment.where, (*path, "where")):
        found.setdefault(name, place)
    for i, name in enumerate(segment.but_not):
        found.setdefault(name, ((*path, "except", i), "except"))
    project = world.project
    if segment.name not in project.suppression:
        for i, name in enumerate(project.suppression):
            found.setdefault(name, (("suppression", i), "suppression"))
    for key, names in project.exclusive.items():
        if segment.name in names:
            for i, name in enumerate(names[: names.index(segment.name)]):
                found.setdefault(name, (("exclusive", key, i), "exclusive"))
    return found


def _referred(world: World, condition: Any, path: Path) -> Iterator[tuple[str, tuple[Path, str]]]:
    """Segments that a condition refers to, and where."""
    if isinstance(condition, InSegment):
        yield condition.segment, ((*path, "segment"), "")
    elif isinstance(condition, AllOf | AnyOf | NoneOf):
        (branch,) = type(condition).model_fields
        for i, part in enumerate(getattr(condition, branch)):
            yield from _referred(world, part, (*path, branch, i))
    elif isinstance(condition, AccountMembers):
        yield from _referred(world, condition.where, (*path, "where"))
    elif isinstance(condition, InSplit):
        split = world.project.splits.get(condition.split)
        if split is not None and not world.is_broken("splits", condition.split) and split.segment:
            yield split.segment, ((*path, "split"), f"split {condition.split}")


def _circle_problem(circle: list[str], needs: dict[str, Needs]) -> Problem:
    text = circle[0]
    for one, other in zip(circle, circle[1:], strict=False):
        way = needs[one][other][1]
        text += f" -> {other} ({way})" if way else f" -> {other}"
    # It is best broken at a segment that says so itself, if there is one.
    places = [needs[one][other][0] for one, other in zip(circle, circle[1:], strict=False)]
    path = next((place for place in places if place[0] == "segments"), places[0])
    return Problem(path, f"segments refer to each other in a circle: {text}", "break it in one place")


def _empty_problems(world: World) -> Iterator[Problem]:
    """Segments whose members would have to be in segments that rule each other out."""
    wanted = {
        name: {
            part.condition.segment: part.path
            for part in parts(segment.where, ("segments", name, "where"))
            if part.holds and isinstance(part.condition, InSegment)
        }
        for name, segment in world.intact("segments")
    }
    for name, places in wanted.items():
        pairs = (
            (rival, other, path)
            for i, (other, path) in enumerate(places.items())
            for rival in (name, *list(places)[:i])
        )
        for rival, other, path in pairs:
            if why := _rivalry(world, rival, other):
                message = f"nobody is in {rival!r} and in {other!r}: {why}"
                yield Problem((*path, "segment"), message, "no profile could ever fulfil this")
                break


def _rivalry(world: World, one: str, other: str) -> str | None:
    """Why nobody is in both segments; None when somebody may be."""
    project = world.project
    for name, rival in ((one, other), (other, one)):
        segment = project.segments.get(name)
        if segment is None or world.is_broken("segments", name):
            continue
        if rival in segment.but_not:
            return f"{name!r} has 'except: [{rival}]'"
        if rival in project.suppression and name not in project.suppression:
            return f"members of {rival!r} are suppressed"
    for key, names in project.exclusive.items():
        if one in names and other in names and one != other:
            return f"they exclude each other in exclusive.{key}"
    return None
