# SPDX-License-Identifier: Apache-2.0
"""Ask a person before a sync takes many away from a destination."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.hitl import ApprovalOperator

from cdp_provider.core.activation.preview import preview
from cdp_provider.core.project.activation import Consent
from cdp_provider.operators.base import CdpOperator, is_true, run_of
from cdp_provider.operators.review import ReviewOperator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

    from cdp_provider.core.activation.preview import Preview
    from cdp_provider.core.project.activation import Destination, Sync
    from cdp_provider.core.project.profiles import Profiles

_ASK = """\
The sync `{sync}` would {verb} {removals:,} of the {acknowledged:,} records that the destination \
`{destination}` has acknowledged ({share:.1%}). More than {allowed:.1%} need an approval.

Approve: they go. Reject, or no answer in time: they stay until a later run asks again. All else is sent.
"""


class AskRemovalsOperator(CdpOperator):
    """Asks whether a sync would take away more than may pass by itself; it sends and writes nothing.

    Its XCom is the preview and ``review``: Markdown for the reviewer, empty when nothing needs an approval.

    :param sync: with ``approve_above``.
    :param destination: as :class:`~cdp_provider.operators.sync.SyncAudienceOperator` has it; likewise
        `profiles` and `consent`.
    :param only_preview: as the sync has it; nobody is asked then.
    """

    template_fields: Sequence[str] = (*CdpOperator.template_fields, "only_preview")

    def __init__(
        self,
        *,
        sync: Sync,
        destination: Destination,
        profiles: Profiles,
        consent: Consent | None = None,
        only_preview: bool | str = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.sync = sync
        self.destination = destination
        self.profiles = profiles
        self.consent = consent
        self.only_preview = only_preview

    def execute(self, context: Context) -> dict[str, Any]:
        if is_true(self.only_preview, "only_preview"):
            return {"review": ""}
        found = preview(
            self.warehouse,
            self.sync,
            self.destination,
            run_of(context),
            profiles=self.profiles,
            consent=self.consent or Consent(),
        )
        self.log.info("\n".join(found.sentences()))
        return {**found.as_dict(), "review": self._question(found) if found.needs_approval else ""}

    def _question(self, found: Preview) -> str:
        verb = {"archive": "archive", "mirror": self.sync.removal}[self.sync.mode]
        return _ASK.format(
            sync=self.sync.name,
            destination=self.destination.name,
            verb=verb,
            removals=found.removals,
            acknowledged=found.acknowledged,
            share=found.removals / found.acknowledged,
            allowed=self.sync.approve_above,
        )


class ApproveRemovalsOperator(ReviewOperator):
    """Asks a person whether a sync may take away as many as it would.

    Give the sync that follows ``trigger_rule="none_failed"``: mostly there is nothing to ask.

    :param proposed: the XCom of :class:`AskRemovalsOperator`.
    :param response_timeout: no answer by then means no.
    """

    def __init__(
        self,
        *,
        subject: str = "May these records be taken away?",
        defaults: str | list[str] | None = ApprovalOperator.REJECT,
        response_timeout: timedelta | None = timedelta(hours=8),
        **kwargs: Any,
    ) -> None:
        super().__init__(subject=subject, defaults=defaults, response_timeout=response_timeout, **kwargs)
