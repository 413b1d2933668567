# SPDX-License-Identifier: Apache-2.0
"""Funnels as SQL: rows that follow each other, found in one pass over the rows of all steps.

The rows of all steps are put together by profile, values of ``same`` and time, in that order. A row is
*reachable* for a step if it ends a chain that fulfils all steps up to it. Which chain it was does not matter
for what follows, only at what time it ended: ``within`` wants the row before to be near, and the stretch in
which no absent step may lie is the shorter the later the row before is. So of all rows that are reachable for
the step before and earlier, the latest serves if any does, and a running maximum finds it. The time that a
funnel takes grows with the number of rows and not with that of their chains.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cdp_provider.core.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    from cdp_provider.core.profiles.facts import Facts
    from cdp_provider.core.project.conditions import Funnel, Step


@dataclass
class _Plan:
    """The steps, by their part in the funnel.

    :param chain: the steps that need a row.
    :param gaps: for each of them, the absent steps before it.
    :param tail: the absent steps at the end.
    """

    chain: list[Step] = field(default_factory=list)
    gaps: list[list[Step]] = field(default_factory=list)
    tail: list[Step] = field(default_factory=list)


def funnel_sql(funnel: Funnel, facts: Facts) -> str:
    """SQL that is true or false for every profile, where :meth:`Facts.joins` are joined.

    :raises ConfigurationError: a stream lacks what the funnel asks, or its steps make no funnel.
    """
    plan = _plan(funnel)
    rows, moving = _rows(funnel, plan, facts)
    windows: dict[str, set[timedelta]] = {step.stream: set() for step in funnel.funnel}
    if funnel.within_last is not None:
        for durations in windows.values():
            durations.add(funnel.within_last)
    # Time alone makes a row the last one, once no absent step can follow it any more.
    windows[plan.chain[-1].stream] |= {step.within for step in plan.tail if step.within is not None}
    found = _chained(plan, rows, len(funnel.same), facts)
    relation = facts.relation(found, list(windows), windows=windows, always=moving)
    return f'{relation}."_profile_id" is not null'


def _plan(funnel: Funnel) -> _Plan:
    plan = _Plan()
    waiting: list[Step] = []
    for step in funnel.funnel:
        if step.absent:
            waiting.append(step)
        else:
            plan.gaps.append(waiting)
            plan.chain.append(step)
            waiting = []
    plan.tail = waiting
    if not plan.chain or plan.gaps[0]:
        msg = "the first step of a funnel is absent; begin with a step that needs a row"
        raise ConfigurationError(msg)
    if any(step.within is not None for steps in plan.gaps for step in steps):
        msg = "an absent step in the middle of a funnel has `within`; write it at the step behind it"
        raise ConfigurationError(msg)
    return plan


def _rows(funnel: Funnel, plan: _Plan, facts: Facts) -> tuple[str, bool]:
    """A select of one line per profile, values of ``same`` and time, that tells which steps lie there.

    Its columns are ``_profile_id``, ``_k0`` and so on for ``same``, ``_time``, and a boolean ``_f0`` and so
    on for each of :func:`_marks`.

    :returns: it, and whether conditions on columns depend on now.
    """
    marks = _marks(plan)
    streams: dict[tuple[str, ...], list[list[str]]] = {}
    moving = False
    for number, steps in enumerate(marks):
        for step in steps:
            columns = (step.stream, *(step.columns.get(name, name) for name in funnel.same))
            with facts.params.watched() as seen:
                conditions = facts.conditions(step.stream, step.where, event=step.event)
            moving = moving or seen.relative
            flags = streams.setdefault(columns, [[] for _ in marks])
            flags[number].append(f"({' and '.join(conditions)})" if conditions else "true")
    parts = [_part(funnel, facts, key, flags) for key, flags in streams.items()]
    keys = _keys(len(funnel.same))
    flagged = ", ".join(f'bool_or("_f{number}") as "_f{number}"' for number in range(len(marks)))
    found = f'select {keys}, "_time", {flagged} from ({" union all ".join(parts)}) steps'
    return f'{found} group by {keys}, "_time"', moving


def _part(funnel: Funnel, facts: Facts, key: Sequence[str], flags: Sequence[Sequence[str]]) -> str:
    """The rows of one stream that lie on a step."""
    ref, names = key[0], [facts.column(key[0], name) for name in key[1:]]
    chosen = ['"_profile_id"', *(f'{name} as "_k{number}"' for number, name in enumerate(names)), '"_time"']
    chosen += [f'{" or ".join(found) or "false"} as "_f{number}"' for number, found in enumerate(flags)]
    some = " or ".join(test for found in flags for test in found)
    wanted = ['"_time" is not null', *(f"{name} is not null" for name in names)]
    wanted += facts.conditions(ref, {}, window=funnel)
    return f"select {', '.join(chosen)} from {facts.rows(ref)} where {' and '.join(wanted)} and ({some})"


def _marks(plan: _Plan) -> list[list[Step]]:
    """What a line is told apart by: each step of the chain, each gap, each absent step at the end."""
    return [*([step] for step in plan.chain), *plan.gaps[1:], *([step] for step in plan.tail)]


def _chained(plan: _Plan, rows: str, same: int, facts: Facts) -> str:
    """The profiles of which a row is reachable for the last step and not followed by an absent one.

    Each level of the select adds ``_p1`` and so on, the latest earlier time that is reachable for the step
    before, and ``_a1`` and so on, the latest earlier time of the gap's absent steps.
    """
    length = len(plan.chain)
    earlier = (
        f'over (partition by {_keys(same)} order by "_time" rows between unbounded preceding and 1 preceding)'
    )
    reachable, sql = '"_f0"', rows
    for number in range(1, length):
        added = [f'max(case when {reachable} then "_time" end) {earlier} as "_p{number}"']
        tests = [f'"_f{number}"', f'"_p{number}" is not null']
        if (within := plan.chain[number].within) is not None:
            tests.append(f'"_p{number}" >= "_time" - {_interval(within)}')
        if plan.gaps[number]:
            absent = f'"_f{length + number - 1}"'
            added.append(f'max(case when {absent} then "_time" end) {earlier} as "_a{number}"')
            tests.append(f'("_a{number}" is null or "_a{number}" <= "_p{number}")')
        sql = f"select *, {', '.join(added)} from ({sql}) step_{number}"
        reachable = f"({' and '.join(tests)})"
    tests = [reachable]
    first = 2 * length - 1
    # From the end: a frame that only grows is computed once, one that shrinks anew for each row.
    later = earlier.replace('order by "_time"', 'order by "_time" desc')
    added = []
    for number, step in enumerate(plan.tail):
        added.append(f'min(case when "_f{first + number}" then "_time" end) {later} as "_n{number}"')
        if step.within is None:
            tests.append(f'"_n{number}" is null')
        else:
            tests.append(f'("_n{number}" is null or "_n{number}" > "_time" + {_interval(step.within)})')
            tests.append(f'"_time" < {facts.params.moment(step.within)}')
    if added:
        sql = f"select *, {', '.join(added)} from ({sql}) chain"
    return f'select distinct "_profile_id" from ({sql}) found where {" and ".join(tests)}'


def _keys(same: int) -> str:
    return ", ".join(['"_profile_id"', *(f'"_k{number}"' for number in range(same))])


def _interval(duration: timedelta) -> str:
    return f"interval '{int(duration.total_seconds())} seconds'"
