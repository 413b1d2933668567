# SPDX-License-Identifier: Apache-2.0
"""Who is in which segment, since when, and until when."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdp_provider.core import tables
from cdp_provider.core.exceptions import NotFoundError
from cdp_provider.core.profiles.kept import kept_facts
from cdp_provider.core.profiles.params import Params
from cdp_provider.core.profiles.write import TABLE as PROFILES
from cdp_provider.core.runs import advance, reported, superseded
from cdp_provider.core.segments import flags
from cdp_provider.core.segments.compile import flags_query
from cdp_provider.core.segments.sizes import note_overlap, note_sizes
from cdp_provider.core.segments.tree import compared

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cdp_provider.core.project.model import Segmentation
    from cdp_provider.core.project.profiles import Profiles
    from cdp_provider.core.project.streams import Stream
    from cdp_provider.core.run import Run
    from cdp_provider.core.runs import Report
    from cdp_provider.core.warehouse import Session, Warehouse

_CHANGES = '"segments_changes"'

#: What becomes of a stay in a segment. `stay` is one that is open or that an earlier try of this window
#: ended; `moved` is who belongs there now and did not, or the other way round. What such a try entered is
#: withdrawn, and what it ended is reopened, as if it had never been.
_CHANGE = """
    case when moved.member and stay.segment is null then 'enter'
         when moved.member then 'reopen'
         when stay.entered_at = :now then 'withdraw'
         else 'leave' end
"""


def build_segments(
    warehouse: Warehouse,
    segmentation: Segmentation,
    profiles: Profiles,
    streams: Sequence[Stream],
    run: Run,
) -> Report:
    """Bring ``memberships``, ``segment_sizes`` and ``segment_overlap`` to the end of the run's window.

    Who newly belongs to a segment enters it at the end of the window, who no longer does leaves it then; a
    stay that goes on is not touched. The table after a run depends only on the state before the window and on
    who belongs there now, however often the window is tried.

    A profile that lost its id to a merge leaves with it; the profile that took it in keeps its own stay, or
    enters now. (``profile_redirect`` leads from the one to the other.) Members of a segment that the project
    no longer has leave it. Nothing happens when a newer window's memberships or profiles stand already.

    :param segmentation: all segments of the project, and what narrows them.
    :returns: a report of stage ``segments``: ``rows_in`` counts profiles, ``rows_out`` open stays; ``detail``
        has ``sizes``, ``entered`` and ``left`` by segment, and the ``unusual`` ones of these sizes.
    :raises ConfigurationError: a condition names what is not there, or segments refer to each other in a
        circle.
    :raises NotFoundError: the profiles, or a stream that is not optional, are not there yet.
    """
    with reported(warehouse, run, "segments") as report, warehouse.session() as session:
        tables.ensure(session)
        with session.lock("segments"):
            if superseded(session, report, "profiles"):
                return report
            require_profiles(session, segmentation, profiles)
            with session.lock("linked"), session.transaction():
                params = _compute(session, segmentation, profiles, streams, run)
                _apply(session, run)
                flags.remember(session, names_of(segmentation), params)
                _count(session, segmentation, report)
                if note_sizes(session, report) or session.scalar(f"select count(*) from {_CHANGES}"):
                    note_overlap(session, names_of(segmentation))
                report.write(session)
                advance(session, report)
    return report


def require_profiles(session: Session, segmentation: Segmentation, profiles: Profiles) -> None:
    """Check that the profiles have what the segments compare.

    :raises NotFoundError: the table, or a column of it, is missing.
    """
    present = session.columns(PROFILES)
    if not present:
        msg = f"the table {session.warehouse.table(PROFILES)} does not exist; run build_profiles first"
        raise NotFoundError(msg)
    if missing := sorted(compared(segmentation, profiles) - present.keys()):
        msg = (
            f"the table {session.warehouse.table(PROFILES)} has no {', '.join(missing)}, which segments"
            " compare; declare it as a field or trait and run build_profiles again"
        )
        raise NotFoundError(msg)


def _compute(
    session: Session, segmentation: Segmentation, profiles: Profiles, streams: Sequence[Stream], run: Run
) -> Params:
    """What has to change."""
    params = Params(session.warehouse, run.window.end, profiles.timezone)
    facts = kept_facts(session, "segments", params, streams)
    query = flags_query(segmentation, profiles, facts)
    moved = flags.changes(session, names_of(segmentation), query.sql, params)
    stays = (
        f"select segment, profile_id, entered_at, left_at from {session.warehouse.table('memberships')}"
        " where entered_at <= :now and (left_at is null or left_at = :now)"
    )
    session.execute(f"drop table if exists {_CHANGES}")
    session.execute(
        f"create temporary table {_CHANGES} as"
        f" select moved.segment, moved.profile_id, stay.entered_at, {_CHANGE} as change"
        f" from ({moved}) moved left join ({stays}) stay"
        " on stay.segment = moved.segment and stay.profile_id = moved.profile_id",
        {**params.query(moved).params, "now": run.window.end},
    )
    return params


def names_of(segmentation: Segmentation) -> list[str]:
    """The segments' names, in the order of the project."""
    return [segment.name for segment in segmentation.segments]


def _apply(session: Session, run: Run) -> None:
    memberships = session.warehouse.table("memberships")
    values = {"now": run.window.end, "run_id": run.run_id}
    this_stay = (
        "memberships.segment = c.segment and memberships.profile_id = c.profile_id"
        " and memberships.entered_at = c.entered_at"
    )
    session.execute(
        f"delete from {memberships} using {_CHANGES} c where {this_stay} and c.change = 'withdraw'"
    )
    session.execute(
        f"update {memberships} set left_at = null, left_run = null"
        f" from {_CHANGES} c where {this_stay} and c.change = 'reopen'"
    )
    session.execute(
        f"update {memberships} set left_at = :now, left_run = :run_id"
        f" from {_CHANGES} c where {this_stay} and c.change = 'leave'",
        values,
    )
    session.execute(
        f"insert into {memberships} (segment, profile_id, entered_at, entered_run)"
        f" select segment, profile_id, :now, :run_id from {_CHANGES} where change = 'enter'",
        values,
    )


def _count(session: Session, segmentation: Segmentation, report: Report) -> None:
    counted = session.fetch(
        "select segment, count(*) filter (where left_at is null), count(*) filter (where entered_at = :now),"
        f" count(*) filter (where left_at = :now) from {session.warehouse.table('memberships')}"
        " group by segment order by segment",
        {"now": report.run.window.end},
    )
    names = [segment.name for segment in segmentation.segments]
    for place, kind in enumerate(("sizes", "entered", "left"), start=1):
        # A segment that the project no longer has is worth a word only while somebody leaves it.
        found = {row[0]: row[place] for row in counted if row[0] in names or row[place]}
        report.detail[kind] = {name: found.get(name, 0) for name in [*names, *(found.keys() - set(names))]}
    report.rows_in = session.scalar(f"select count(*) from {session.warehouse.table(PROFILES)}")
    report.rows_out = sum(row[1] for row in counted)
