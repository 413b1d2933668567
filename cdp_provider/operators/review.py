# SPDX-License-Identifier: Apache-2.0
"""Ask a person what to think of something that a task proposes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.hitl import ApprovalOperator, HITLOperator
from airflow.sdk.exceptions import AirflowSkipException

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import Context


class ReviewOperator(ApprovalOperator):
    """Asks a person to approve or reject what an earlier task proposes; skipped when it proposes nothing.

    Unlike the operator it is made from it lets what follows run after a rejection too.

    :param proposed: the XCom of that task, a mapping whose ``review`` is Markdown.
    """

    template_fields: Sequence[str] = (*ApprovalOperator.template_fields, "proposed")

    def __init__(self, *, proposed: Mapping[str, Any] | Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.proposed = proposed

    def execute(self, context: Context) -> Any:
        self.body = self.proposed["review"]
        if not self.body:
            msg = "nothing needs a review"
            raise AirflowSkipException(msg)
        return super().execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        return HITLOperator.execute_complete(self, context, event)
