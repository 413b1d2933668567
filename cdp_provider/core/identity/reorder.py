# SPDX-License-Identifier: Apache-2.0
"""What another order of rows would decide differently: a limit makes the outcome depend on order."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cdp_provider.core import tables
from cdp_provider.core.identity import history
from cdp_provider.core.identity.components import components
from cdp_provider.core.identity.resolve import Resolution

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from cdp_provider.core.identity.decide import Outcome
    from cdp_provider.core.identity.history import History
    from cdp_provider.core.project.identity import Identity
    from cdp_provider.core.project.streams import Stream
    from cdp_provider.core.warehouse import Warehouse


@dataclass(frozen=True)
class Member:
    """An identifier in a difference."""

    type: str
    value: str


@dataclass(frozen=True)
class Difference:
    """Identifiers that the two orders put together differently.

    :param recorded: profile id -> its identifiers, in the recorded order of arrival.
    :param by_event_time: the profiles that the order of event times makes of the same identifiers.
    """

    recorded: dict[int, tuple[Member, ...]]
    by_event_time: tuple[tuple[Member, ...], ...]

    def sentences(self) -> Iterator[str]:
        """Readable lines; they hold personal data."""
        for profile, members in self.recorded.items():
            yield f"profile {profile} holds {_listed(members)}"
        for members in self.by_event_time:
            yield f"  by event time, one profile: {_listed(members)}"

    def as_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "recorded": {
                str(profile): [vars(m) for m in members] for profile, members in self.recorded.items()
            },
            "by_event_time": [[vars(m) for m in members] for members in self.by_event_time],
        }


@dataclass(frozen=True)
class Comparison:
    """All differences between the two orders."""

    differences: tuple[Difference, ...]

    def sentences(self) -> Iterator[str]:
        """Readable lines; they hold personal data."""
        if not self.differences:
            yield "The order of event times would decide nothing differently."
        for difference in self.differences:
            yield from difference.sentences()

    def as_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {"differences": [difference.as_dict() for difference in self.differences]}


def _listed(members: Sequence[Member]) -> str:
    return ", ".join(f"{member.type}={member.value}" for member in members)


def by_event_time(warehouse: Warehouse, identity: Identity, streams: Sequence[Stream]) -> Comparison:
    """Replay all recorded history twice, in recorded order and by event time, and write nothing.

    Both replays start from nothing and follow today's rules. Rows of the same time keep the order of the
    streams, then of their keys.
    """
    resolution = Resolution(warehouse, identity, streams)
    with warehouse.session() as session:
        tables.ensure(session)
        plan = resolution.plan(session, replay=True)
        raw = history.read(session, plan.loads, resolution.streams, identity)
    orders = (False, True)
    rows = [
        history.arrange(
            [replace(one) for one in raw],
            plan.loads,
            plan.seq,
            identity,
            resolution.streams,
            by_event_time=by_time,
        )
        for by_time in orders
    ]
    del raw
    recorded, other = (resolution.replayed(each, plan) for each in rows)
    return Comparison(tuple(_differences(rows[0], recorded, other, resolution.kinds)))


def _differences(rows: History, recorded: Outcome, other: Outcome, kinds: Sequence[str]) -> list[Difference]:
    """The identifiers are numbered alike in both orders: by the columns that carry them."""
    ours, theirs = _parts(recorded), _parts(other)
    count = len(ours)
    first, second = np.unique(ours, return_inverse=True)[1], np.unique(theirs, return_inverse=True)[1]
    # Profiles of either order that share an identifier hang together; where there are but two, they are one.
    groups = components(
        first, second + first.max(initial=-1) + 1, int(first.max(initial=-1) + second.max(initial=-1) + 2)
    )
    group = groups[first] if count else np.empty(0, np.int64)
    pairs = (
        np.unique(np.stack([group, first, second], axis=1), axis=0) if count else np.empty((0, 3), np.int64)
    )
    sizes = np.bincount(pairs[:, 0], minlength=1)
    return [
        _difference(np.flatnonzero(group == differing), recorded, ours, theirs, rows, kinds)
        for differing in np.flatnonzero(sizes > 1).tolist()
    ]


def _parts(outcome: Outcome) -> NDArray[np.int64]:
    """Profile per identifier; one that belongs to nobody is a part of its own."""
    alone = -1 - np.arange(len(outcome.profiles))
    return np.where(outcome.profiles > 0, outcome.profiles, alone)


def _difference(
    members: NDArray[np.int64],
    recorded: Outcome,
    ours: NDArray[np.int64],
    theirs: NDArray[np.int64],
    rows: History,
    kinds: Sequence[str],
) -> Difference:
    def named(some: NDArray[np.int64]) -> tuple[Member, ...]:
        return tuple(Member(kinds[rows.kinds[i]], rows.values[i].as_py()) for i in some.tolist())

    return Difference(
        {
            int(profile): named(members[ours[members] == profile])
            for profile in np.unique(ours[members]).tolist()
            if profile > 0
        },
        tuple(named(members[theirs[members] == part]) for part in np.unique(theirs[members]).tolist()),
    )
