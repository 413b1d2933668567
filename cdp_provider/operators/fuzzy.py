# SPDX-License-Identifier: Apache-2.0
"""Let people decide which profiles that look alike are one person."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.hitl import ApprovalOperator

from cdp_provider.core.identity import fuzzy
from cdp_provider.operators.base import CdpOperator, run_of
from cdp_provider.operators.review import ReviewOperator

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import Context

    from cdp_provider.core.project.identity import Identity


class ProposeLinksOperator(CdpOperator):
    """Writes the pairs of profiles that look like one person into ``fuzzy_links``.

    Its XCom is the report and ``review``: Markdown for the reviewer, empty when nothing needs a review.

    :param identity: the rules, with ``fuzzy``.
    """

    def __init__(self, *, identity: Identity, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.identity = identity

    def execute(self, context: Context) -> dict[str, Any]:
        run = run_of(context)
        report = fuzzy.propose(self.warehouse, self.identity, run)
        return {**self.publish(context, report), "review": fuzzy.review(self.warehouse, run)}


class ReviewLinksOperator(ReviewOperator):
    """Asks a person to approve or reject the proposals; skipped when there are none.

    What follows runs after a rejection too: that is recorded.

    :param proposed: the XCom of :class:`ProposeLinksOperator`.
    """

    def __init__(self, *, subject: str = "Are these profiles one person each?", **kwargs: Any) -> None:
        super().__init__(subject=subject, **kwargs)


class AcceptLinksOperator(CdpOperator):
    """Records the reviewer's answer and lands the accepted pairs, for identity resolution to take in.

    Give it ``trigger_rule="none_failed"``: pairs that are accepted by their score come without a review.

    :param identity: the rules, as :class:`ProposeLinksOperator` has them.
    :param answer: the XCom of :class:`ReviewLinksOperator` or of an ``ApprovalOperator``; None when that was
        skipped.
    """

    template_fields: Sequence[str] = (*CdpOperator.template_fields, "answer")

    def __init__(self, *, identity: Identity, answer: Mapping[str, Any] | Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.identity = identity
        self.answer = answer

    def execute(self, context: Context) -> dict[str, Any]:
        answer = self.answer
        approved = None if answer is None else answer["chosen_options"] == [ApprovalOperator.APPROVE]
        user = (answer or {}).get("responded_by_user")
        by = user["name"] if user else "nobody in time"
        report = fuzzy.decide(self.warehouse, self.identity, run_of(context), approved=approved, by=by)
        return self.publish(context, report)
