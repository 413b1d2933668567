# SPDX-License-Identifier: Apache-2.0
"""Look at a segment without writing anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cdp_provider.core.exceptions import ConfigurationError
from cdp_provider.core.segments.compile import segments_query
from cdp_provider.core.segments.membership import require_profiles
from cdp_provider.core.segments.reach import asking, reach, standing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from cdp_provider.core.profiles.params import Query
    from cdp_provider.core.project.model import Segment, Segmentation
    from cdp_provider.core.project.profiles import Profiles
    from cdp_provider.core.project.streams import Stream
    from cdp_provider.core.warehouse import Warehouse


@dataclass(frozen=True)
class Preview:
    """Who would be in a segment.

    :param profiles: how many there are in all.
    :param size: number of members.
    :param sample: the lowest of their profile ids.
    :param as_of: the moment that it speaks of.
    :param query: the statement, and what it binds, that finds the members of this segment and of those that
        decide it. What it binds may be personal data, so only the statement is told.
    """

    segment: str
    profiles: int
    size: int
    sample: tuple[int, ...]
    as_of: datetime
    query: Query

    def sentences(self) -> Iterator[str]:
        """Readable lines."""
        share = f" ({self.size / self.profiles:.1%})" if self.profiles else ""
        yield (
            f"{self.size} of {self.profiles} profiles{share} are in the segment {self.segment} as of"
            f" {self.as_of.isoformat()}."
        )
        if self.sample:
            yield f"Among them: {', '.join(map(str, self.sample))}"
        yield self.query.sql

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "segment": self.segment,
            "profiles": self.profiles,
            "size": self.size,
            "sample": list(self.sample),
            "as_of": self.as_of.isoformat(),
            "sql": self.query.sql,
        }


def preview(
    warehouse: Warehouse,
    segment: Segment,
    segmentation: Segmentation,
    profiles: Profiles,
    streams: Sequence[Stream],
    now: datetime | None = None,
    *,
    limit: int = 20,
) -> Preview:
    """Members of a segment, by the profiles as they stand.

    :param segment: need not belong to a project yet.
    :param segmentation: where the segments that it refers to are looked up, and what narrows it.
    :param now: the moment that profiles speak of when None.
    :param limit: how many profile ids to show; at least 1.
    :raises ConfigurationError: a condition names what is not there or does not suit its type.
    :raises NotFoundError: the profiles, or a stream that is not optional, are not there yet.
    """
    if limit < 1:
        msg = f"limit is {limit}; ask for at least 1 profile id"
        raise ConfigurationError(msg)
    needed = reach(segment, segmentation)
    with warehouse.session() as session:
        require_profiles(session, needed, profiles)
        moment = now or standing(session)
        facts = asking(session, profiles, streams, moment)
        query = segments_query(warehouse, needed, profiles, facts)
        rows = session.fetch(
            f"select profile_id, count(*) over () from ({query.sql}) members"
            " where segment = :segment order by profile_id limit :limit",
            {**query.params, "segment": segment.name, "limit": limit},
        )
        everybody = int(session.scalar(f"select count(*) from {warehouse.table('profiles')}"))
    size = rows[0][1] if rows else 0
    return Preview(segment.name, everybody, size, tuple(row[0] for row in rows), moment, query)
