# SPDX-License-Identifier: Apache-2.0
"""Questions about one segment: what decides it, and as of when."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdp_provider.core.exceptions import NotFoundError
from cdp_provider.core.profiles.facts import Facts
from cdp_provider.core.profiles.params import Params
from cdp_provider.core.profiles.sources import StandingRows
from cdp_provider.core.segments.tree import references, splits_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from cdp_provider.core.project.model import Segment, Segmentation
    from cdp_provider.core.project.profiles import Profiles
    from cdp_provider.core.project.streams import Stream
    from cdp_provider.core.warehouse import Session


def reach(segment: Segment, segmentation: Segmentation) -> Segmentation:
    """Only what it takes to decide one segment, which need not be of the segmentation yet."""
    known = {other.name: other for other in segmentation.segments} | {segment.name: segment}
    needed, used, waiting = {segment.name: segment}, set[str](), [segment]
    while waiting:
        found = waiting.pop()
        used.update(splits_of(found.where))
        # A name that is unknown is for the compiler to refuse.
        fresh = {name: known[name] for name in references(found, segmentation) if name in known}
        waiting += [other for name, other in fresh.items() if name not in needed]
        needed |= fresh
    return segmentation.model_copy(
        update={
            "segments": tuple(needed.values()),
            "splits": tuple(split for split in segmentation.splits if split.name in used),
            "exclusive": {
                name: kept
                for name, names in segmentation.exclusive.items()
                if len(kept := tuple(other for other in names if other in needed)) > 1
            },
            "suppression": tuple(name for name in segmentation.suppression if name in needed),
        }
    )


def standing(session: Session) -> datetime:
    """The moment that the table ``profiles`` speaks of.

    :raises NotFoundError: it was never built.
    """
    progress = session.warehouse.table("progress")
    moment = session.scalar(f"select window_end from {progress} where stage = 'profiles' and node = '-'")
    if moment is None:
        msg = f"the table {session.warehouse.table('profiles')} was never built; run build_profiles first"
        raise NotFoundError(msg)
    found: datetime = moment
    return found


def asking(session: Session, profiles: Profiles, streams: Sequence[Stream], now: datetime) -> Facts:
    """Facts for one question, as of any moment; nothing is written."""
    params = Params(session.warehouse, now, profiles.timezone)
    return Facts(params, {stream.ref: stream for stream in streams}, StandingRows(session, params))
