# SPDX-License-Identifier: Apache-2.0
"""Conditions that must hold together and never do."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from cdp_provider.core.project.conditions import (
    AccountIs,
    AllOf,
    AnyOf,
    ConsentIs,
    EventCount,
    InSegment,
    InSplit,
    NoneOf,
    TraitIs,
)
from cdp_provider.core.project.constants import convert_all
from cdp_provider.core.project.possible import NEVER_MISSING, VALUE, Possible, among, either, left_by
from cdp_provider.core.project.problems import Path, Problem, path_text
from cdp_provider.core.project.spans import HIGHEST, LOWEST, after, before, both, points, span

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Mapping

    from cdp_provider.core.project.spans import Cut, Spans
    from cdp_provider.core.project.world import World


class Part(NamedTuple):
    """A condition that must hold, or must not, where others must as well."""

    path: Path
    condition: Any
    holds: bool


def parts(condition: Any, path: Path, *, holds: bool = True) -> Iterator[Part]:
    """The conditions that must all hold, or not hold, for a condition to hold."""
    if isinstance(condition, AllOf):
        children, together = [((*path, "all", i), part) for i, part in enumerate(condition.all)], holds
    elif isinstance(condition, AnyOf):
        children, together = [((*path, "any", i), part) for i, part in enumerate(condition.any)], not holds
    elif isinstance(condition, NoneOf):
        children, together = [((*path, "none", i), part) for i, part in enumerate(condition.none)], holds
        holds = not holds
    else:
        yield Part(path, condition, holds)
        return
    if together or len(children) == 1:
        for place, child in children:
            yield from parts(child, place, holds=holds)
    else:
        yield Part(path, condition, holds if not isinstance(condition, NoneOf) else not holds)


def conjunction_problems(world: World, condition: Any, path: Path) -> Iterator[Problem]:
    """Conditions below one that rule each other out; each of them is right by itself."""
    found = [*parts(condition, path)]
    asked: dict[Hashable, list[Part]] = {}
    for part in found if len(found) > 1 else ():
        asked.setdefault(_about(part.condition), []).append(part)
    for about, same in asked.items():
        if len(same) < 2:
            continue
        answers = [(part, None if about is None else _left(world, part)) for part in same]
        yield from _excluded([(part.path, left) for part, left in answers if left is not None])
        yield from _negated(same, [part for part, left in answers if left is None])


def _excluded(answers: list[tuple[Path, Possible]]) -> Iterator[Problem]:
    """The first condition that leaves nothing of what those before it left."""
    left = Possible()
    for i, (path, answer) in enumerate(answers):
        left &= answer
        if i and left.impossible():
            others = [other for other, before_it in answers[:i] if (before_it & answer).impossible()][:1]
            yield _never(path, others or [other for other, _ in answers[:i]])
            return


def _negated(found: list[Part], unclear: list[Part]) -> Iterator[Problem]:
    """Conditions that must hold and must not."""
    if all(part.holds for part in unclear):
        return
    wanted = {repr(part.condition): part.path for part in reversed(found) if part.holds}
    for part in unclear:
        if not part.holds and (other := wanted.get(repr(part.condition))) is not None:
            yield _never(part.path, [other])


def _never(path: Path, others: list[Path]) -> Problem:
    named = " and ".join(map(path_text, others))
    return Problem(path, f"this never holds together with {named}", "no profile could ever fulfil both")


def _about(condition: Any) -> Hashable:
    """Equal for conditions on the same thing; None where only an equal condition is known to be."""
    if isinstance(condition, EventCount):
        where = tuple((name, repr(part)) for name, part in condition.where.items())
        rows = (condition.stream, condition.event, condition.within_last, condition.between)
        return ("rows", *rows, where, condition.measure())
    if isinstance(condition, TraitIs):
        return ("trait", condition.trait)
    if isinstance(condition, AccountIs):
        return ("account", condition.account)
    if isinstance(condition, InSegment):
        return ("segment", condition.segment)
    if isinstance(condition, ConsentIs):
        return ("consent", condition.consent)
    return ("split", condition.split) if isinstance(condition, InSplit) else None


def _left(world: World, part: Part) -> Possible | None:
    """What a condition leaves of what it is about; None when that is not known."""
    left, universe = _leaf(world, part.condition)
    return left & universe if part.holds else left.opposite(universe)


def _leaf(world: World, condition: Any) -> tuple[Possible, Possible]:
    """What a condition leaves, and what there can be at all."""
    if isinstance(condition, TraitIs):
        left = _compared(world, condition, world.types.get(condition.trait))
        return left, world.universe(condition.trait)
    if isinstance(condition, AccountIs):
        return _compared(world, condition, world.account_types.get(condition.account)), Possible()
    if isinstance(condition, EventCount):
        return events_left(condition)
    if isinstance(condition, InSplit):
        return Possible(missing=False, scales={VALUE: points((condition.group,))}), Possible()
    yes = condition.given if isinstance(condition, ConsentIs) else True
    return among(points((yes,)), nullable=False), either(nullable=False)


def _compared(world: World, condition: TraitIs | AccountIs, kind: str | None) -> Possible:
    if kind is None:
        return Possible(exact=False)
    converted, _ = convert_all(condition.operators(), kind)
    return left_by(converted, kind, world.zone, ignore_case=condition.ignore_case)


_BOUNDS: Mapping[str, tuple[Callable[[Any], Cut] | None, Callable[[Any], Cut] | None]] = {
    "at_least": (before, None),
    "more_than": (after, None),
    "at_most": (None, after),
    "less_than": (None, before),
    "exactly": (before, after),
}


def events_left(condition: EventCount) -> tuple[Possible, Possible]:
    """What a condition on rows leaves of their number or measure, and what there can be at all.

    Its bounds must be finite.
    """
    measure = condition.measure()
    counted = measure is None or measure[0] == "distinct_count"
    left: Spans = ((LOWEST, HIGHEST),)
    bounds = {key: value for key in _BOUNDS if (value := getattr(condition, key)) is not None}
    for key, given in (bounds or {"at_least": 1}).items():
        value = int(given) if counted else Decimal(str(given))
        low, high = _BOUNDS[key]
        left = both(left, span(low(value) if low else LOWEST, high(value) if high else HIGHEST))
    universe = NEVER_MISSING & among(span(before(0), HIGHEST), nullable=True) if counted else Possible()
    return Possible(missing=False, scales={VALUE: left}), universe
