# SPDX-License-Identifier: Apache-2.0
"""Compute what each profile holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cdp_provider.core.profiles.build import build_profiles
from cdp_provider.operators.base import CdpOperator, run_of

if TYPE_CHECKING:
    from collections.abc import Sequence

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
