# SPDX-License-Identifier: Apache-2.0
"""Decide whether a landed batch may be read downstream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cdp_provider.core.ingest.contracts import Judgement, check
from cdp_provider.operators.base import CdpOperator, run_of

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context

    from cdp_provider.core.project.streams import Stream


class CheckContractOperator(CdpOperator):
    """Holds the batch of this window against the stream's contract; fails when it breaks it.

    Where OpenLineage is set up, each result is told as a data quality assertion, also of a batch that fails.

    :param stream: the stream with its ``quarantine`` and ``contract``.
    """

    #: Filled in by the check, of a batch that fails, too.
    _judgement: Judgement | None = None

    def __init__(self, *, stream: Stream, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stream = stream

    def execute(self, context: Context) -> dict[str, Any]:
        self._judgement = judgement = Judgement()
        report = check(self.warehouse, self.stream, run_of(context), judgement)
        for result in judgement.results:
            if result.outcome == "warned":
                self.log.warning("%s, rule %s: %s", self.stream.ref, result.rule, result.detail)
        return self.publish(context, report)

    def get_openlineage_facets_on_complete(self, _: Any) -> OperatorLineage[Any, Any]:
        """What the OpenLineage provider asks for once the task has ended."""
        from cdp_provider.operators.lineage import quality_lineage

        judgement = self._judgement or Judgement()
        return quality_lineage(self.stream, judgement, self.warehouse_conn_id, self.schema)

    def get_openlineage_facets_on_failure(self, ti: Any) -> OperatorLineage[Any, Any]:
        """The same of a batch that broke its contract."""
        return self.get_openlineage_facets_on_complete(ti)
