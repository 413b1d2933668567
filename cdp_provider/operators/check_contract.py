# SPDX-License-Identifier: Apache-2.0
"""Decide whether a landed batch may be read downstream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cdp_provider.core.ingest.contracts import check
from cdp_provider.operators.base import CdpOperator, run_of

if TYPE_CHECKING:
    from airflow.sdk import Context

    from cdp_provider.core.project.streams import Stream


class CheckContractOperator(CdpOperator):
    """Holds the batch of this window against the stream's contract; fails when it breaks it.

    :param stream: the stream with its ``quarantine`` and ``contract``.
    """

    def __init__(self, *, stream: Stream, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stream = stream

    def execute(self, context: Context) -> dict[str, Any]:
        return self.publish(context, check(self.warehouse, self.stream, run_of(context)))
