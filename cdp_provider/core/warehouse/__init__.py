# SPDX-License-Identifier: Apache-2.0
"""One engine, one file; :data:`ENGINES` maps an Airflow connection type to its class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdp_provider.core.warehouse.base import Session, Warehouse
from cdp_provider.core.warehouse.duckdb import DuckDBWarehouse
from cdp_provider.core.warehouse.postgres import PostgresWarehouse

if TYPE_CHECKING:
    from collections.abc import Mapping

ENGINES: Mapping[str, type[Warehouse]] = {
    engine.engine: engine for engine in (DuckDBWarehouse, PostgresWarehouse)
}

__all__ = ["ENGINES", "DuckDBWarehouse", "PostgresWarehouse", "Session", "Warehouse"]
