# SPDX-License-Identifier: Apache-2.0
"""What conditions mean, profile by profile, in plain Python."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cdp_provider.core.project.conditions import (
    AllOf,
    AnyOf,
    Comparison,
    EventCount,
    InSegment,
    NoneOf,
    TraitIs,
)
from tests.core.profiles import oracle

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from cdp_provider.core.project.conditions import Condition
    from cdp_provider.core.project.model import Segment
    from cdp_provider.core.project.profiles import Profiles
    from tests.core.profiles.world import Row


class World:
    """Rows, who they belong to, and what the project derives from them."""

    def __init__(
        self,
        rows: Sequence[Row],
        people: Mapping[int, int],
        profiles: Profiles,
        segments: Sequence[Segment],
        now: datetime,
    ) -> None:
        self.rows, self.people, self.now = rows, people, now
        self.segments = {segment.name: segment.where for segment in segments}
        self.facts = {
            profile: {
                **{n: oracle.survivor(f, rows, people, profile, now) for n, f in profiles.fields.items()},
                **{n: oracle.trait(t, rows, people, profile, now) for n, t in profiles.traits.items()},
            }
            for profile in set(people.values())
        }

    def members(self) -> set[tuple[str, int]]:
        return {(n, p) for n, where in self.segments.items() for p in self.facts if self.holds(where, p)}

    def holds(self, condition: Condition, profile: int) -> bool:
        match condition:
            case AllOf(all=parts):
                return all(self.holds(part, profile) for part in parts)
            case AnyOf(any=parts):
                return any(self.holds(part, profile) for part in parts)
            case NoneOf(none=parts):
                return not any(self.holds(part, profile) for part in parts)
            case InSegment():
                return self.holds(self.segments[condition.segment], profile)
            case TraitIs():
                return oracle.fulfils(self.facts[profile][condition.trait], condition, self.now)
            case EventCount():
                return self._count_holds(condition, profile)

    def _count_holds(self, condition: EventCount, profile: int) -> bool:
        found = oracle.rows_of(
            self.rows,
            self.people,
            profile,
            condition.stream,
            self.now,
            condition.where,
            condition.within_last,
        )
        column: Any = oracle.STREAM[condition.stream].event
        if condition.event is not None:
            named = Comparison(is_=condition.event)
            found = [row for row in found if oracle.fulfils(row.values.get(column), named, self.now)]
        count = len(found)
        if condition.exactly is None and condition.at_least is None and condition.at_most is None:
            return count >= 1
        return (
            (condition.exactly is None or count == condition.exactly)
            and (condition.at_least is None or count >= condition.at_least)
            and (condition.at_most is None or count <= condition.at_most)
        )
