# SPDX-License-Identifier: Apache-2.0
"""What a check tells OpenLineage: the batch's data quality, in counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cdp_provider.hooks.connections import find

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from openlineage.client.generated.base import InputDatasetFacet

    from cdp_provider.core.ingest.contracts import Judgement
    from cdp_provider.core.ingest.results import Result
    from cdp_provider.core.project.streams import Stream

#: Our severities in the words of OpenLineage.
_SEVERITIES = {"warn": "warn", "fail": "error", "quarantine": "error"}


def quality_lineage(
    stream: Stream, judgement: Judgement, conn_id: str, schema: str
) -> OperatorLineage[Any, Any]:
    """The raw table as what was read, with assertions and metrics; the stream's view as what comes of it."""
    from airflow.providers.common.compat.openlineage.facet import InputDataset, OutputDataset
    from airflow.providers.openlineage.extractors import OperatorLineage
    from openlineage.client.facet_v2 import (
        data_quality_assertions_dataset,
        data_quality_metrics_input_dataset,
    )

    namespace, prefix = _place(conn_id, schema)
    metrics = data_quality_metrics_input_dataset.DataQualityMetricsInputDatasetFacet(
        rowCount=judgement.rows,
        bytes=judgement.bytes,
        columnMetrics={
            name: data_quality_metrics_input_dataset.ColumnMetrics(
                nullCount=counts.get("nullCount"), distinctCount=counts.get("distinctCount")
            )
            for name, counts in (judgement.metrics or {}).items()
        },
    )
    assertions = data_quality_assertions_dataset.DataQualityAssertionsDatasetFacet(
        assertions=[
            data_quality_assertions_dataset.Assertion(**_assertion(result)) for result in judgement.results
        ]
    )
    facets: dict[str, InputDatasetFacet] = {
        "dataQualityMetrics": metrics,
        "dataQualityAssertions": assertions,
    }
    return OperatorLineage(
        inputs=[InputDataset(namespace, f"{prefix}.{stream.raw_table}", inputFacets=facets)],
        outputs=[OutputDataset(namespace, f"{prefix}.{stream.view}")],
    )


def _assertion(result: Result) -> dict[str, Any]:
    return {
        "assertion": result.kind,
        "name": result.rule,
        "success": result.outcome == "passed",
        "severity": _SEVERITIES[result.severity],
        "column": result.columns[0] if len(result.columns) == 1 else None,
        "actual": str(result.failed),
        "params": {"checked": result.checked, "share": result.share, "outcome": result.outcome},
    }


def _place(conn_id: str, schema: str) -> tuple[str, str]:
    """Namespace and prefix of the names of tables, as other tools name them."""
    connection = find(conn_id, ("duckdb", "postgres"), "a warehouse")
    if connection.conn_type == "duckdb":
        return f"duckdb://{connection.host}", schema
    from airflow.providers.postgres.hooks.postgres import PostgresHook

    info = PostgresHook(postgres_conn_id=conn_id).get_openlineage_database_info(connection)
    return f"{info.scheme}://{info.authority}", f"{info.database or connection.schema}.{schema}"
