# SPDX-License-Identifier: Apache-2.0
"""What accounts allow, and where the workers that share an account meet; one store, one file.

``redis`` is imported from its own module, since the package of that name is an extra.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdp_provider.core.activation.limits.base import LimitStore
from cdp_provider.core.activation.limits.postgres import PostgresLimits
from cdp_provider.core.activation.limits.sqlite import SqliteLimits
from cdp_provider.core.warehouse import DuckDBWarehouse

if TYPE_CHECKING:
    from cdp_provider.core.warehouse import Warehouse

__all__ = ["LimitStore", "PostgresLimits", "SqliteLimits", "limits_of"]


def limits_of(warehouse: Warehouse) -> LimitStore:
    """Where the workers of this warehouse meet: PostgreSQL's own table, or a file beside a DuckDB file."""
    if not isinstance(warehouse, DuckDBWarehouse):
        return PostgresLimits(warehouse.connect, warehouse.table("account_limits"))
    with warehouse.session() as session:
        path = session.scalar("select path from duckdb_databases() where database_name = current_database()")
    return SqliteLimits(f"{path}.limits" if path else ":memory:")
