# SPDX-License-Identifier: Apache-2.0
"""How good the graph is: recorded with every run, so that a rule that glues or a source that stops
identifying shows the day it happens."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime

    from numpy.typing import NDArray

    from cdp_provider.core.identity.glue import Glue
    from cdp_provider.core.identity.history import Plan
    from cdp_provider.core.run import Run
    from cdp_provider.core.warehouse import Session

#: So many of the largest profiles are named, and of so many it is said what glues them. Looking for that
#: reads all their rows, so it is not done again until a profile has grown by a tenth.
_LISTED, _EXPLAINED, _GROWN = 10, 3, 1.1


@dataclass(frozen=True)
class Large:
    """A large profile, how many identifiers it holds, and those on which most of them hang.

    :param glue: ``node_id``, ``type`` and ``linked_with``: the number of others it shares a link with; found
        when the profile had `glued` identifiers.
    """

    profile_id: int
    identifiers: int
    glue: tuple[dict[str, Any], ...] = ()
    glued: int = 0


class Touched(NamedTuple):
    """Profiles that a run touched, each once, and how many identifiers they held and hold; 0 where there was
    or is no such profile."""

    profiles: NDArray[np.int64]
    before: NDArray[np.int64]
    after: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        before: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]],
        after: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]],
    ) -> Touched:
        """From profiles, as often as they occur, and numbers of identifiers that add up."""
        profiles = np.concatenate([profiles for profiles, _ in (*before, *after)])
        was = np.concatenate([*(sizes for _, sizes in before), *(np.zeros_like(sizes) for _, sizes in after)])
        now = np.concatenate([*(np.zeros_like(sizes) for _, sizes in before), *(sizes for _, sizes in after)])
        order = np.argsort(profiles)
        profiles = profiles[order]
        first = np.flatnonzero(np.diff(profiles, prepend=-1))
        if not len(first):
            return cls(profiles, was, now)
        return cls(profiles[first], np.add.reduceat(was[order], first), np.add.reduceat(now[order], first))


class Made(NamedTuple):
    """What a run took in and made of it, whichever way it went.

    :param rows_in: rows that no run had taken in before; in a replay, all rows. So are the other counts.
    :param rows_refused: rows of which an identifier was dropped.
    :param newest: time of the newest row, if any has one.
    :param refused: rule -> refused links.
    :param unfit: reason -> type -> rows whose value did not become an identifier.
    :param touched: None: too many to name.
    """

    rows_in: int
    rows_linked: int
    rows_refused: int
    rows_without_identifier: int
    newest: datetime | None
    joins: int
    new_identifiers: int
    new_profiles: int
    merged: int
    split: int
    refused: dict[str, int]
    unfit: Mapping[str, Mapping[str, int]]
    touched: Touched | None = None


@dataclass(frozen=True)
class Quality:
    """One line of ``identity_runs``.

    :param refused: rule -> refused links.
    :param sizes: number of identifiers -> number of profiles that hold so many.
    """

    resolved_seq: int
    replayed: bool
    rules: str
    rows_in: int
    rows_without_identifier: int
    identifiers: int
    new_identifiers: int
    profiles: int
    new_profiles: int
    merged: int
    split: int
    refused: dict[str, int]
    sizes: dict[int, int]
    largest: list[Large]

    def detail(self) -> dict[str, Any]:
        """Counts for the run's report."""
        return {
            "profiles": self.profiles,
            "new_profiles": self.new_profiles,
            "identifiers": self.identifiers,
            "new_identifiers": self.new_identifiers,
            "merges": self.merged,
            "splits": self.split,
            "refused_links": sum(self.refused.values()),
            "rows_without_identifier": self.rows_without_identifier,
            "identifiers_p99": percentile(self.sizes, 0.99),
            "identifiers_max": max(self.sizes, default=0),
        }


def measure(
    session: Session,
    plan: Plan,
    made: Made,
    fingerprint: str,
    find_glue: Callable[[Sequence[int]], Iterable[Glue]],
) -> Quality:
    """How good the graph is now. Call it once the run has written, inside its transaction.

    :param find_glue: gives the identifiers that hold profiles together.
    """
    sizes, largest = _sizes(session, plan, made.touched)
    largest = _with_glue(largest, find_glue)
    return Quality(
        resolved_seq=plan.stands,
        replayed=plan.replay,
        rules=fingerprint,
        rows_in=made.rows_in,
        rows_without_identifier=made.rows_without_identifier,
        identifiers=sum(size * count for size, count in sizes.items()),
        new_identifiers=made.new_identifiers,
        profiles=sum(sizes.values()),
        new_profiles=made.new_profiles,
        merged=made.merged,
        split=made.split,
        refused=dict(sorted(made.refused.items())),
        sizes=sizes,
        largest=largest,
    )


def _sizes(session: Session, plan: Plan, touched: Touched | None) -> tuple[dict[int, int], list[Large]]:
    """Number of identifiers -> number of profiles that hold so many; and the largest profiles.

    What the last run recorded is brought up to date by the profiles that this one touched; only where that
    does not do are all identifiers counted.
    """
    last = _last(session) if plan.last_seq else ({}, [])
    if touched is None or last is None:
        sizes = _count(session)
        return sizes, _find_largest(session, sizes)
    counted = Counter({int(size): count for size, count in last[0].items()})
    for size, count in enumerate(np.bincount(touched.before).tolist()):
        counted[size] -= count
    for size, count in enumerate(np.bincount(touched.after).tolist()):
        counted[size] += count
    sizes = {size: count for size, count in sorted(counted.items()) if size and count}
    standing = [Large(**{**large, "glue": tuple(large["glue"])}) for large in last[1]]
    # A profile that was not listed and not touched is no larger than the smallest one listed.
    least = max(standing[-1].identifiers if len(standing) == _LISTED else 1, 1)
    large = np.flatnonzero(touched.after >= least)
    large = large[np.argsort(-touched.after[large], kind="stable")][:_LISTED]
    gone = set(touched.profiles[touched.before > 0].tolist()) if standing else set()
    before = {one.profile_id: one for one in standing}
    now = zip(touched.profiles[large].tolist(), touched.after[large].tolist(), strict=True)
    listed = sorted(
        [
            *(one for one in standing if one.profile_id not in gone),
            *(replace(before.get(profile, Large(profile, size)), identifiers=size) for profile, size in now),
        ],
        key=lambda one: (-one.identifiers, one.profile_id),
    )[:_LISTED]
    return sizes, listed if len(listed) == _LISTED or least == 1 else _find_largest(session, sizes)


def _with_glue(largest: Sequence[Large], find_glue: Callable[[Sequence[int]], Iterable[Glue]]) -> list[Large]:
    due = {
        one.profile_id: one
        for one in largest[:_EXPLAINED]
        if one.identifiers > 1 and one.identifiers > _GROWN * one.glued
    }
    found: dict[int, list[dict[str, Any]]] = {profile: [] for profile in due}
    for glue in find_glue(sorted(due)) if due else ():
        found[glue.profile_id].append(
            {"node_id": glue.node_id, "type": glue.type, "linked_with": glue.linked_with}
        )
    return [
        replace(one, glue=tuple(found[one.profile_id]), glued=one.identifiers)
        if one.profile_id in due
        else one
        for one in largest
    ]


def _last(session: Session) -> tuple[dict[str, int], list[dict[str, Any]]] | None:
    """What the newest run recorded: its distribution of sizes and its largest profiles."""
    row = session.one(
        f"select sizes, largest from {session.warehouse.table('identity_runs')}"
        " order by resolved_seq desc, window_end desc limit 1"
    )
    return (json.loads(row[0]), json.loads(row[1])) if row else None


def _count(session: Session) -> dict[int, int]:
    identifiers = session.warehouse.table("identifiers")
    return dict(
        session.fetch(
            "select size, count(*) from (select count(*) as size"
            f" from {identifiers} where evicted_seq is null group by profile_id) p"
            " group by size order by size"
        )
    )


def _find_largest(session: Session, sizes: dict[int, int]) -> list[Large]:
    enough, least = 0, 1
    for least in sorted(sizes, reverse=True):
        enough += sizes[least]
        if enough >= _LISTED:
            break
    found = session.fetch(
        f"select profile_id, count(*) from {session.warehouse.table('identifiers')}"
        " where evicted_seq is null group by profile_id having count(*) >= :least"
        f" order by 2 desc, 1 limit {_LISTED}",
        {"least": least},
    )
    return [Large(*row) for row in found]


def percentile(sizes: dict[int, int], share: float) -> int:
    """The size that this share of profiles does not exceed; 0 without profiles."""
    ordered = sorted(sizes)
    reached = np.cumsum([sizes[size] for size in ordered])
    return ordered[int(np.searchsorted(reached, share * reached[-1]))] if ordered else 0


def write(session: Session, run: Run, found: Quality) -> None:
    """Put the line into ``identity_runs``, instead of one that the same run wrote before."""
    table = session.warehouse.table("identity_runs")
    values = {"pipeline": run.pipeline, "run_id": run.run_id, "window_end": run.window.end}
    values |= {
        name: json.dumps(value, default=asdict) if isinstance(value, dict | list) else value
        for name, value in vars(found).items()
    }
    session.execute(f"delete from {table} where pipeline = :pipeline and run_id = :run_id", values)
    names = ", ".join(values)
    session.execute(
        f"insert into {table} ({names}) values ({', '.join(':' + name for name in values)})", values
    )
