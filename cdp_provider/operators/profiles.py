# SPDX-License-Identifier: Apache-2.0
"""Compute what each profile holds, now or at a moment of the past."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cdp_provider.core.profiles.build import build_profiles, snapshot
from cdp_provider.core.profiles.moments import moment_of
from cdp_provider.operators.base import CdpOperator, run_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from airflow.sdk import Context

    from cdp_provider.core.project.profiles import Profiles
    from cdp_provider.core.project.streams import Stream


class BuildProfilesOperator(CdpOperator):
    """Writes the table ``profiles``: one row per profile, one column per field and trait.

    :param profiles: fields and traits.
    :param streams: the streams that those name.
    """

    def __init__(self, *, profiles: Profiles, streams: Sequence[Stream], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.profiles = profiles
        self.streams = streams

    def execute(self, context: Context) -> dict[str, Any]:
        report = build_profiles(self.warehouse, self.profiles, self.streams, run_of(context))
        return self.publish(context, report)


class SnapshotProfilesOperator(CdpOperator):
    """Puts all profiles as they were at a moment into a table of its own, in place of what that held.

    :param profiles: fields and traits.
    :param streams: the streams that those name.
    :param as_of: a moment, or a date, which is the end of that day in the profiles' time zone.
    :param table: its name in the schema.
    """

    template_fields: Sequence[str] = (*CdpOperator.template_fields, "as_of", "table")

    def __init__(
        self,
        *,
        profiles: Profiles,
        streams: Sequence[Stream],
        as_of: str | datetime,
        table: str,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.profiles = profiles
        self.streams = streams
        self.as_of = as_of
        self.table = table

    def execute(self, context: Context) -> dict[str, Any]:  # noqa: ARG002 - it speaks of `as_of`
        moment = moment_of(self.as_of, self.profiles.timezone)
        rows = snapshot(self.warehouse, self.profiles, self.streams, moment, self.table)
        self.log.info("%s holds %d profiles as of %s", self.table, rows, moment.isoformat())
        return {"table": self.table, "as_of": moment.isoformat(), "profiles": rows}
