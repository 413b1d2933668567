# SPDX-License-Identifier: Apache-2.0
"""Raw rows into the warehouse: connectors, parsing, landing, contracts.

:data:`CONNECTORS` maps a source's ``type`` to its connector: one kind, one file; other packages bring theirs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdp_provider.core.ingest.base import Connector, Fetched, RawFile
from cdp_provider.core.ingest.dlt import DltConnector
from cdp_provider.core.ingest.files import FilesConnector
from cdp_provider.core.ingest.http import HttpConnector
from cdp_provider.core.ingest.inbox import InboxConnector
from cdp_provider.core.ingest.kafka import KafkaConnector
from cdp_provider.core.ingest.nested import NestedConnector
from cdp_provider.core.ingest.postgres_cdc import PostgresCdcConnector
from cdp_provider.core.ingest.singer import SingerConnector
from cdp_provider.core.ingest.sql import SqlConnector
from cdp_provider.core.plugins import KindsByName

if TYPE_CHECKING:
    from collections.abc import Mapping

CONNECTORS: Mapping[str, type[Connector]] = KindsByName(
    "cdp_provider.connectors",
    Connector,  # type: ignore[type-abstract]
    {
        "http": HttpConnector,
        "files": FilesConnector,
        "sql": SqlConnector,
        "nested": NestedConnector,
        "postgres_cdc": PostgresCdcConnector,
        "kafka": KafkaConnector,
        "inbox": InboxConnector,
        "singer": SingerConnector,
        "dlt": DltConnector,
    },
)

__all__ = ["CONNECTORS", "Connector", "Fetched", "FilesConnector", "HttpConnector", "RawFile"]
