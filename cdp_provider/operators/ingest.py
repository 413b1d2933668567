# SPDX-License-Identifier: Apache-2.0
"""Fetch a stream's new rows and land them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cdp_provider.core.ingest.landing import land
from cdp_provider.hooks.source import SourceHook
from cdp_provider.operators.base import CdpOperator, run_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

    from cdp_provider.core.project.streams import Stream


class IngestOperator(CdpOperator):
    """Lands the rows that a stream gained since the last window; malformed ones go to quarantine.

    :param stream: what to read and what its rows look like.
    :param source_conn_id: connection of the source; None for files below `root`.
    :param root: folder for a source of files without a connection.
    """

    template_fields: Sequence[str] = (*CdpOperator.template_fields, "source_conn_id")

    def __init__(
        self, *, stream: Stream, source_conn_id: str | None = None, root: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.stream = stream
        self.source_conn_id = source_conn_id
        self.root = root

    def execute(self, context: Context) -> dict[str, Any]:
        hook = SourceHook(self.source_conn_id, root=self.root, home=self.warehouse)
        connector = hook.connector(self.stream)
        return self.publish(context, land(self.warehouse, self.stream, connector, run_of(context)))
