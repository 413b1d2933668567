# SPDX-License-Identifier: Apache-2.0
"""Release quarantined rows that fulfil the contract by now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cdp_provider.core.ingest.replay import replay
from cdp_provider.operators.base import CdpOperator, run_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

    from cdp_provider.core.project.streams import Stream


class ReplayQuarantineOperator(CdpOperator):
    """Reads a stream's quarantined rows again, after its contract was mended; what fulfils it is landed.

    :param stream: the stream, as it is declared now.
    :param load_ids: batches whose rows are looked at; all unless given.
    """

    template_fields: Sequence[str] = (*CdpOperator.template_fields, "load_ids")

    def __init__(self, *, stream: Stream, load_ids: Sequence[int] = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stream = stream
        self.load_ids = load_ids

    def execute(self, context: Context) -> dict[str, Any]:
        load_ids = [int(load_id) for load_id in self.load_ids]
        report = replay(self.warehouse, self.stream, run_of(context), load_ids=load_ids)
        return self.publish(context, report)
