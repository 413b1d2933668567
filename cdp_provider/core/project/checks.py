# SPDX-License-Identifier: Apache-2.0
"""What no single model sees: names that lead nowhere, types that do not meet, conditions never fulfilled."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from cdp_provider.core.project.activation_checks import Fit, activation_problems, no_problems
from cdp_provider.core.project.contract_checks import circle_problems, contract_problems
from cdp_provider.core.project.identity_checks import identity_problems
from cdp_provider.core.project.problems import Path, Problem, did_you_mean
from cdp_provider.core.project.profile_checks import profile_problems
from cdp_provider.core.project.segment_checks import segments_problems
from cdp_provider.core.project.world import World

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from cdp_provider.core.project.model import Project
    from cdp_provider.core.project.streams import Stream

_PRESETS = ("@hourly", "@daily", "@weekly", "@monthly", "@quarterly", "@yearly", "@once", "@continuous")


def check(project: Project, broken: Collection[Path] = (), fit: Fit = no_problems) -> Iterator[Problem]:
    """All problems between the parts of a project; none for a project that can run.

    :param broken: places whose model is only a stand-in; nothing is said about them or what refers to them.
    :param fit: as of :class:`~cdp_provider.core.project.loader.Kinds`.
    """
    world = World(project, frozenset(broken))
    if problem := schedule_problem(project.schedule):
        yield problem
    yield from _table_problems(world)
    for ref, stream in world.streams.items():
        source, name = ref.split(".")
        base: Path = ("sources", source, "streams", name)
        yield from (problem.below(base) for problem in _stream_problems(world, stream))
    yield from circle_problems(world)
    yield from identity_problems(world)
    yield from profile_problems(world)
    yield from segments_problems(world)
    yield from activation_problems(world, fit)


def schedule_problem(schedule: object) -> Problem | None:
    """A cron expression or preset that Airflow would refuse; croniter is what Airflow itself asks."""
    if not isinstance(schedule, str):
        return None
    from croniter import croniter  # type: ignore[import-untyped]

    if schedule.startswith("@"):
        if schedule in _PRESETS:
            return None
        return Problem(
            ("schedule",), f"{schedule!r} is none of Airflow's presets", did_you_mean(schedule, _PRESETS)
        )
    if len(schedule.split()) == 5 and croniter.is_valid(schedule):
        return None
    hint = "write five fields such as '0 6 * * *', or a preset such as '@daily'"
    return Problem(("schedule",), f"{schedule!r} is no cron expression", hint)


def _table_problems(world: World) -> Iterator[Problem]:
    """Streams that would share a table: the view of one is called like the raw table of another."""
    raw_tables = {stream.raw_table: ref for ref, stream in world.streams.items()}
    for ref, stream in world.streams.items():
        if (other := raw_tables.get(stream.view)) is not None:
            path = ("sources", stream.source)
            message = (
                f"the table of {ref} would have the name {stream.view!r}, as the raw table of {other} has"
            )
            yield Problem(path, message, "name the source without 'raw_'", at_key=True)


def _stream_problems(world: World, stream: Stream) -> Iterator[Problem]:
    folded: set[str] = set()
    for name in stream.columns:
        if name.casefold() == "profile_id":
            yield Problem(("columns", name), f"the column name {name!r} is reserved", _RENAME, at_key=True)
        if name.casefold() in folded:
            message = f"{name!r} differs only in case from another column, and some warehouses fold case"
            yield Problem(("columns", name), message, _RENAME, at_key=True)
        folded.add(name.casefold())
    yield from _repeated(stream.primary_key, ("primary_key",))
    if world.complete("identity", "identifiers"):
        declared = world.project.identity.identifiers
        for kind in stream.identifiers:
            if kind not in declared:
                message = f"there is no identifier {kind!r} in identity.identifiers"
                yield Problem(("identifiers", kind), message, did_you_mean(kind, declared), at_key=True)
    for kind, columns in stream.identifiers.items():
        yield from _repeated(columns, ("identifiers", kind))
    yield from contract_problems(world, stream)
    yield from stream.options.stream_problems(stream)
    yield from stream.options.project_problems(stream, world.stream)


def _repeated(columns: tuple[str, ...], path: Path) -> Iterator[Problem]:
    for name, count in Counter(columns).items():
        if count > 1:
            yield Problem(path, f"{name!r} is listed twice", "remove one of them")


_RENAME = "give the column another name, and the name in the source as its path"
