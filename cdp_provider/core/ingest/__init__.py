# SPDX-License-Identifier: Apache-2.0
"""Raw rows into the warehouse: connectors, parsing, landing, contracts.

:data:`CONNECTORS` maps a source's ``type`` to its connector: one kind, one file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdp_provider.core.ingest.base import Connector, Fetched, RawFile
from cdp_provider.core.ingest.files import FilesConnector
from cdp_provider.core.ingest.http import HttpConnector

if TYPE_CHECKING:
    from collections.abc import Mapping

CONNECTORS: Mapping[str, type[Connector]] = {"http": HttpConnector, "files": FilesConnector}

__all__ = ["CONNECTORS", "Connector", "Fetched", "FilesConnector", "HttpConnector", "RawFile"]
