# SPDX-License-Identifier: Apache-2.0
"""Let the road go on when every stream that it needs has arrived."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cdp_provider.core.ingest.gate import gate
from cdp_provider.operators.base import CdpOperator, run_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

    from cdp_provider.core.project.streams import Stream


class GateOperator(CdpOperator):
    """Fails unless each of the streams has a checked batch in this window; optional ones may be missing.

    Give it ``trigger_rule="all_done"``: it reads the tables, not the states of tasks.

    :param streams: all streams of the road.
    """

    def __init__(self, *, streams: Sequence[Stream], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.streams = streams

    def execute(self, context: Context) -> dict[str, Any]:
        return self.publish(context, gate(self.warehouse, self.streams, run_of(context)))
