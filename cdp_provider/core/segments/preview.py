# SPDX-License-Identifier: Apache-2.0
"""Look at a segment without writing anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cdp_provider.core.exceptions import ConfigurationError
from cdp_provider.core.segments.compile import referred, segments_query
from cdp_provider.core.segments.membership import require_profiles

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from cdp_provider.core.profiles.filters import Query
    from cdp_provider.core.project.model import Segment
    from cdp_provider.core.project.profiles import Profiles
    from cdp_provider.core.project.streams import Stream
    from cdp_provider.core.warehouse import Warehouse


@dataclass(frozen=True)
class Preview:
    """What a segment would hold.

    :param size: number of members.
    :param sample: the lowest of their profile ids.
    :param query: the statement, and what it binds, that finds the members of this segment and of those that
        it refers to.
    """

    size: int
    sample: tuple[int, ...]
    query: Query


def preview(
    warehouse: Warehouse,
    segment: Segment,
    profiles: Profiles,
    streams: Sequence[Stream],
    now: datetime,
    *,
    segments: Sequence[Segment] = (),
    limit: int = 20,
) -> Preview:
    """Members of a segment as of `now`, by the profiles as they stand.

    :param segment: need not belong to a project yet.
    :param segments: where the segments that it refers to are looked up.
    :param limit: how many profile ids to show; at least 1.
    :raises ConfigurationError: a condition names what is not there or does not suit its type.
    :raises NotFoundError: the profiles, or a stream that is not optional, are not there yet.
    """
    if limit < 1:
        msg = f"limit is {limit}; ask for at least 1 profile id"
        raise ConfigurationError(msg)
    needed = _with_referred(segment, segments)
    with warehouse.session() as session:
        require_profiles(session, needed)
        query = segments_query(warehouse, needed, profiles, streams, now, session.columns)
        rows = session.fetch(
            f"select profile_id, count(*) over () from ({query.sql}) members"
            " where segment = :segment order by profile_id limit :limit",
            {**query.params, "segment": segment.name, "limit": limit},
        )
    return Preview(rows[0][1] if rows else 0, tuple(row[0] for row in rows), query)


def _with_referred(segment: Segment, segments: Sequence[Segment]) -> list[Segment]:
    """The segment and all that it refers to, directly or not."""
    known = {other.name: other for other in segments} | {segment.name: segment}
    needed = {segment.name: segment}
    waiting = [segment]
    while waiting:
        for name in referred(waiting.pop().where):
            if name in known and name not in needed:
                needed[name] = known[name]
                waiting.append(known[name])
    return list(needed.values())
