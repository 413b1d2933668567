# SPDX-License-Identifier: Apache-2.0
"""Raw rows into the warehouse: connectors, parsing, landing, contracts.

:data:`CONNECTORS` maps a source's ``type`` to its connector: one kind, one file; other packages bring theirs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdp_provider.core.ingest.base import Connector, Fetched, RawFile
from cdp_provider.core.plugins import KindsByName

if TYPE_CHECKING:
    from collections.abc import Mapping

CONNECTORS: Mapping[str, type[Connector]] = KindsByName(
    "cdp_provider.connectors",
    Connector,  # type: ignore[type-abstract]
    {
        "http": "cdp_provider.core.ingest.http:HttpConnector",
        "files": "cdp_provider.core.ingest.files:FilesConnector",
        "sql": "cdp_provider.core.ingest.sql:SqlConnector",
        "nested": "cdp_provider.core.ingest.nested:NestedConnector",
        "postgres_cdc": "cdp_provider.core.ingest.postgres_cdc:PostgresCdcConnector",
        "kafka": "cdp_provider.core.ingest.kafka:KafkaConnector",
        "inbox": "cdp_provider.core.ingest.inbox:InboxConnector",
        "singer": "cdp_provider.core.ingest.singer:SingerConnector",
        "dlt": "cdp_provider.core.ingest.dlt:DltConnector",
    },
)

__all__ = ["CONNECTORS", "Connector", "Fetched", "RawFile"]
