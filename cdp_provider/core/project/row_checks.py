# SPDX-License-Identifier: Apache-2.0
"""Problems of conditions on rows: filters, events, funnels, related objects, statements of one's own."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cdp_provider.core.project.comparison_checks import between_turned, comparison_problems, shown
from cdp_provider.core.project.conjunctions import events_left
from cdp_provider.core.project.own_sql import places, sql_fault
from cdp_provider.core.project.problems import Path, Problem, did_you_mean
from cdp_provider.core.project.typing import NUMERIC

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from decimal import Decimal

    from cdp_provider.core.project.conditions import Comparison, EventCount, Funnel, Related, Step
    from cdp_provider.core.project.streams import Stream
    from cdp_provider.core.project.world import World

_ON = "add 'on: {<its column>: <a field or trait>}', or 'identifiers' to the stream"
_NEVER = "no profile could ever fulfil this"
_BOUNDS = ("at_least", "at_most", "more_than", "less_than", "exactly")
_DEEPEST = 6


def filter_problems(
    world: World, where: Mapping[str, Comparison], stream: Stream, path: Path
) -> Iterator[Problem]:
    """What is wrong with conditions on columns of a stream."""
    for name, comparison in where.items():
        here = (*path, name)
        if name not in stream.columns:
            yield world.no_column(stream, name, here, at_key=True)
        else:
            found = comparison_problems(comparison, stream.columns[name].type, name, world.zone)
            yield from (problem.below(here) for problem in found)


def rows_problems(world: World, selection: Any, stream: Stream, path: Path) -> Iterator[Problem]:
    """What is wrong with the choice of a stream's rows by `event` and `where`."""
    if selection.event is not None and stream.event is None:
        message = f"the stream {stream.ref} has no events, because it names no event column"
        yield Problem((*path, "event"), message, "add 'event: <column>' to the stream, or use 'where'")
    yield from filter_problems(world, selection.where, stream, (*path, "where"))


def window_problems(world: World, window: Any, streams: list[Stream], path: Path) -> Iterator[Problem]:
    """What is wrong with `within_last` and `between` of rows."""
    if window.between is not None and between_turned(window.between):
        low, high = map(shown, window.between)
        message = f"'between' ends at {high}, before it begins at {low}"
        yield Problem((*path, "between"), message, "turn it round")
    for key in ("within_last", "between"):
        for stream in streams:
            if getattr(window, key) is not None and stream.time is None:
                yield world.no_time(stream, key, (*path, key))


def event_problems(world: World, condition: EventCount, path: Path) -> Iterator[Problem]:
    """What is wrong with a count or measure of rows."""
    yield from _bound_problems(condition, path)
    stream, problems = world.linked_stream(condition.stream, (*path, "stream"))
    yield from problems
    if stream is None:
        return
    yield from rows_problems(world, condition, stream, path)
    yield from window_problems(world, condition, [stream], path)
    if (measure := condition.measure()) is None:
        return
    function, column = measure
    if column not in stream.columns:
        yield world.no_column(stream, column, (*path, function))
        return
    kind = stream.columns[column].type
    if function == "distinct_count" and kind == "json":
        yield Problem((*path, function), f"{column!r} is json, whose values cannot be told apart")
    elif function != "distinct_count" and kind not in NUMERIC:
        message = f"{function!r} is held against a number, and {column!r} is {kind}"
        yield Problem((*path, function), message, "name a column of numbers")


def _bound_problems(condition: EventCount, path: Path) -> Iterator[Problem]:
    given = {key: value for key in _BOUNDS if (value := getattr(condition, key)) is not None}
    measure = condition.measure()
    if measure is not None and not given:
        message = f"{measure[0]!r} measures, and nothing says how much it has to be"
        yield Problem((*path, measure[0]), message, f"add one of {', '.join(_BOUNDS)}")
    counted = measure is None or measure[0] == "distinct_count"
    faults = [
        Problem((*path, key), fault) for key, value in given.items() if (fault := _fault(value, counted))
    ]
    yield from faults
    if "exactly" in given and len(given) > 1:
        others = " or ".join(repr(key) for key in given if key != "exactly")
        said = "how often" if measure is None else "how much"
        message = f"'exactly' already says {said}; it does not go with {others}"
        yield Problem((*path, "exactly"), message, "keep one of them", at_key=True)
    elif given.keys() & {"at_most", "less_than", "exactly"} and not faults:
        left, universe = events_left(condition)
        if (left & universe).impossible():
            named = " and ".join(f"{key.replace('_', ' ')} {value}" for key, value in given.items())
            message = f"nothing happens {named} times" if measure is None else f"no {measure[0]} is {named}"
            yield Problem((*path, list(given)[-1]), message, _NEVER)


def _fault(value: int | Decimal | float, counted: bool) -> str | None:  # noqa: FBT001
    """What is wrong with a bound by itself."""
    if not math.isfinite(value):
        return f"{value} compares with nothing; give a finite number"
    return f"{value} is no whole number, and this counts" if counted and value != int(value) else None


def funnel_problems(world: World, condition: Funnel, path: Path) -> Iterator[Problem]:
    """What is wrong with rows that are to follow each other."""
    steps = condition.funnel
    last = max((i for i, step in enumerate(steps) if not step.absent), default=-1)
    streams: list[Stream | None] = []
    for i, step in enumerate(steps):
        here = (*path, "funnel", i)
        yield from _place_problems(step, i, last, here)
        stream, problems = world.linked_stream(step.stream, (*here, "stream"))
        yield from problems
        streams.append(stream)
        if stream is None:
            continue
        yield from rows_problems(world, step, stream, here)
        if stream.time is None:
            yield world.no_time(stream, "a funnel", (*here, "stream"))
        for name in step.columns:
            if name not in condition.same:
                message = (
                    f"'columns' says how a column of 'same' is called here, and {name!r} is none of them"
                )
                hint = did_you_mean(name, condition.same)
                yield Problem((*here, "columns", name), message, hint, at_key=True)
    timed = [stream for stream in streams if stream is not None and stream.time is not None]
    yield from window_problems(world, condition, timed, path)
    yield from _same_problems(world, condition, streams, path)


def _place_problems(step: Step, i: int, last: int, path: Path) -> Iterator[Problem]:
    if i == 0 and step.absent:
        yield Problem((*path, "absent"), "the first step is absent, and nothing stands before it", _FIRST)
    elif i == 0 and step.within is not None:
        message = "'within' counts from the step before, and the first step has none"
        yield Problem((*path, "within"), message, "use 'within_last' of the funnel", at_key=True)
    elif step.absent and step.within is not None and i < last:
        message = "'within' means nothing at an absent step in the middle: it lasts until the next step"
        yield Problem(
            (*path, "within"), message, "put 'within' at the next step that is not absent", at_key=True
        )


_FIRST = "begin with a step that is there"


def _same_problems(
    world: World, condition: Funnel, streams: list[Stream | None], path: Path
) -> Iterator[Problem]:
    """Columns that have to be the same in all steps, and are missing or of different types."""
    for place, name in enumerate(condition.same):
        here = (*path, "same", place)
        if name in condition.same[:place]:
            yield Problem(here, f"{name!r} is listed twice", "remove one of them")
            continue
        first: tuple[str, str] | None = None
        for i, (step, stream) in enumerate(zip(condition.funnel, streams, strict=True)):
            if stream is None:
                continue
            column = step.columns.get(name, name)
            mapped = name in step.columns
            if column not in stream.columns:
                at = (*path, "funnel", i, *(("columns", name) if mapped else ("stream",)))
                problem = world.no_column(stream, column, at)
                hint = f"add 'columns: {{{name}: <its name there>}}' to the step"
                yield problem if mapped else replace(problem, hint=hint)
                continue
            kind = stream.columns[column].type
            shown_as = f"{stream.ref}.{column}"
            if kind == "json":
                yield Problem(here, f"{shown_as} is json, whose values cannot be told apart")
            elif first is not None and first[1] != kind:
                message = f"{shown_as} is {kind}, and {first[0]} is {first[1]}: they are never the same"
                yield Problem(here, message, "name columns of one type")
            first = first or (shown_as, kind)


def related_problems(world: World, condition: Related, path: Path) -> Iterator[Problem]:
    """What is wrong with objects of a profile, and with what these must have."""
    look_up = world.stream if condition.on else world.linked_stream
    stream, problems = look_up(condition.related, (*path, "related"))
    for problem in problems:
        yield problem if stream is None else replace(problem, hint=_ON)
    if stream is not None:
        for column, name in condition.on.items():
            yield from world.value_problems(name, (*path, "on", column))
            yield from _equal_problems(world, stream, column, (name, world.types.get(name)), path)
    yield from _object_problems(world, condition, stream, path, 1)


def _object_problems(
    world: World, condition: Related, stream: Stream | None, path: Path, depth: int
) -> Iterator[Problem]:
    """What is wrong with objects, however they belong to what is around them."""
    yield from _which_problems(condition, path)
    if stream is not None:
        yield from filter_problems(world, condition.where, stream, (*path, "where"))
        yield from window_problems(world, condition, [stream], path)
    for i, part in enumerate(condition.having):
        here = (*path, "having", i)
        if depth == _DEEPEST:
            yield Problem(here, f"objects are nested deeper than {_DEEPEST} levels", "leave this one out")
            continue
        inner, problems = world.stream(part.related, (*here, "related"))
        yield from problems
        if not part.on:
            message = f"nothing says which rows of {part.related} belong to an object of {condition.related}"
            hint = f"add 'on: {{<column of {part.related}>: <column of {condition.related}>}}'"
            yield Problem((*here, "related"), message, hint)
        for column, name in part.on.items():
            if stream is not None and name not in stream.columns:
                yield world.no_column(stream, name, (*here, "on", column))
            elif inner is not None:
                kind = stream.columns[name].type if stream is not None else None
                yield from _equal_problems(world, inner, column, (f"{condition.related}.{name}", kind), here)
        yield from _object_problems(world, part, inner, here, depth + 1)


def _equal_problems(
    world: World, stream: Stream, column: str, other: tuple[str, str | None], path: Path
) -> Iterator[Problem]:
    """A column that cannot equal the other side of `on`."""
    here = (*path, "on", column)
    if column not in stream.columns:
        yield world.no_column(stream, column, here, at_key=True)
        return
    kind, (name, wanted) = stream.columns[column].type, other
    if kind == "json":
        yield Problem(here, f"{stream.ref}.{column} is json, which equals nothing", at_key=True)
    elif wanted is not None and wanted != kind:
        message = f"{stream.ref}.{column} is {kind}, and {name} is {wanted}: they are never equal"
        yield Problem(here, message, "name two of one type")


def _which_problems(condition: Related, path: Path) -> Iterator[Problem]:
    low, high, exactly = condition.at_least, condition.at_most, condition.exactly
    counts = [key for key in ("at_least", "at_most", "exactly") if getattr(condition, key) is not None]
    if condition.which is not None and counts:
        message = f"'which: {condition.which}' and {counts[0]!r} both say how many objects are meant"
        yield Problem((*path, "which"), message, "keep one of them", at_key=True)
    if exactly is not None and len(counts) > 1:
        message = f"'exactly' already says how many; it does not go with {counts[0]!r}"
        yield Problem((*path, "exactly"), message, "keep one of them", at_key=True)
    elif low is not None and high is not None and low > high:
        message = f"nothing has at least {low} and at most {high} of them"
        yield Problem((*path, "at_most"), message, _NEVER)


def sql_problems(world: World, sql: str, path: Path, *, profiles: bool = False) -> Iterator[Problem]:
    """What is wrong with a statement of one's own.

    :param profiles: there is a place ``{profiles}``.
    """
    if fault := sql_fault(sql):
        yield Problem(path, f"this statement cannot run: {fault}")
        return
    for place in places(sql):
        if profiles and place == "profiles":
            continue
        _, problems = world.linked_stream(place, path)
        for problem in problems:
            known = [*(["profiles"] if profiles else []), *world.streams]
            hint = problem.hint if place in world.streams else did_you_mean(place, known)
            yield Problem(path, f"in {{{place}}}, {problem.message}", hint)
