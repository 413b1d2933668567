# SPDX-License-Identifier: Apache-2.0
"""Decide who is in which segment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cdp_provider.core.segments.membership import build_segments
from cdp_provider.operators.base import CdpOperator, run_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Asset, Context

    from cdp_provider.core.project.model import Segment
    from cdp_provider.core.project.profiles import Profiles
    from cdp_provider.core.project.streams import Stream
    from cdp_provider.core.runs import Report

_PER_SEGMENT = {"sizes": "size", "entered": "entered", "left": "left"}


class BuildSegmentsOperator(CdpOperator):
    """Brings the table ``memberships`` up to this window: who entered, who left.

    An outlet asset whose ``extra`` names a segment (``{"segment": "vip"}``) gets an event with that segment's
    size, entries and exits.

    :param segments: all segments of the project; they may refer to each other.
    :param profiles: fields and traits that they compare.
    :param streams: the streams whose events they count.
    """

    def __init__(
        self, *, segments: Sequence[Segment], profiles: Profiles, streams: Sequence[Stream], **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.segments = segments
        self.profiles = profiles
        self.streams = streams

    def execute(self, context: Context) -> dict[str, Any]:
        report = build_segments(self.warehouse, self.segments, self.profiles, self.streams, run_of(context))
        return self.publish(context, report)

    def event(self, asset: Asset, report: Report) -> dict[str, Any]:
        summary = report.summary()
        segment = asset.extra.get("segment")
        if segment is None:
            return summary
        own = {name: summary.pop(key, {}).get(segment, 0) for key, name in _PER_SEGMENT.items()}
        return {**summary, "segment": segment, **own}
