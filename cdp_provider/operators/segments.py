# SPDX-License-Identifier: Apache-2.0
"""Decide who is in which segment, and say why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset

from cdp_provider.core.segments.membership import build_segments
from cdp_provider.operators.base import CdpOperator, run_of
from cdp_provider.operators.explain import whole

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

    from cdp_provider.core.project.model import Segment, Segmentation
    from cdp_provider.core.project.profiles import Profiles
    from cdp_provider.core.project.streams import Stream
    from cdp_provider.core.runs import Report

_PER_SEGMENT = {"sizes": "size", "entered": "entered", "left": "left"}


class BuildSegmentsOperator(CdpOperator):
    """Brings the table ``memberships`` up to this window: who entered, who left.

    What the ``extra`` of an outlet asset names decides what its events say, and when there is one:

    - ``{"segment": "vip"}``: each run, that segment's size, entries and exits.
    - ``{"segment": "vip", "change": "entered"}``: only when somebody entered, how many; likewise ``left``.

    :param segmentation: all segments of the project, and what narrows them.
    :param profiles: fields and traits that they compare.
    :param streams: the streams whose events they count.
    """

    def __init__(
        self, *, segmentation: Segmentation, profiles: Profiles, streams: Sequence[Stream], **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.segmentation = segmentation
        self.profiles = profiles
        self.streams = streams

    def execute(self, context: Context) -> dict[str, Any]:
        report = build_segments(
            self.warehouse, self.segmentation, self.profiles, self.streams, run_of(context)
        )
        return self.publish(context, report)

    def publish(self, context: Context, report: Report) -> dict[str, Any]:
        for segment, found in report.detail.get("unusual", {}).items():
            self.log.warning(
                "The segment %s has %d members; from its history %.0f to %.0f were to be expected",
                *(segment, found["size"], found["usual_low"], found["usual_high"]),
            )
        # Airflow makes an event for every outlet of a task that succeeds, whatever the task says of it.
        self.outlets = [outlet for outlet in self.outlets if _happened(outlet, report)]
        return super().publish(context, report)

    def event(self, asset: Asset, report: Report) -> dict[str, Any]:
        summary = report.summary()
        segment, change = asset.extra.get("segment"), asset.extra.get("change")
        if segment is None:
            return summary
        if change is not None:
            window = {name: summary[name] for name in ("window_start", "window_end")}
            return {"segment": segment, "count": _count(report, change, segment), **window}
        own = {name: summary.pop(key, {}).get(segment, 0) for key, name in _PER_SEGMENT.items()}
        own["unusual"] = segment in summary.pop("unusual", {})
        return {**summary, "segment": segment, **own}


def _happened(outlet: Any, report: Report) -> bool:
    """Whether there is something to tell through that outlet."""
    if not isinstance(outlet, Asset) or "change" not in outlet.extra:
        return True
    return _count(report, outlet.extra["change"], outlet.extra.get("segment")) > 0


def _count(report: Report, change: Any, segment: Any) -> int:
    return int(report.detail.get(change, {}).get(segment, 0))


class ExplainSegmentOperator(CdpOperator):
    """Says why a profile is in a segment, or is not, as its XCom; the log holds no more than yes or no.

    :param segment: as the project has it; it need not be one of `segmentation`.
    :param segmentation: where the segments that it refers to are looked up, and what narrows it.
    :param profiles: fields and traits that it compares.
    :param streams: the streams whose events it counts.
    :param profile_id: whom to ask about.
    :param values: also tell what the profile has in the fields and traits that are compared. That is
        personal data, and Airflow keeps it with the XCom.
    """

    template_fields: Sequence[str] = (*CdpOperator.template_fields, "profile_id")

    def __init__(
        self,
        *,
        segment: Segment,
        segmentation: Segmentation,
        profiles: Profiles,
        streams: Sequence[Stream],
        profile_id: int | str,
        values: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.segment = segment
        self.segmentation = segmentation
        self.profiles = profiles
        self.streams = streams
        self.profile_id = profile_id
        self.values = values

    def execute(self, context: Context) -> dict[str, Any]:
        from cdp_provider.core.segments.why import why

        found = why(
            self.warehouse,
            self.segment,
            whole(self.profile_id),
            self.segmentation,
            self.profiles,
            self.streams,
            run_of(context).window.end,
            values=self.values,
        )
        self.log.info("%s of the segment %s", "A member" if found.member else "No member", self.segment.name)
        return found.as_dict()
