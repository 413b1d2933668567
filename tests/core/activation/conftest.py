# SPDX-License-Identifier: Apache-2.0
"""A vendor without a rate limit, and a scene on each engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import duckdb
import pytest

from cdp_provider.core import tables
from cdp_provider.core.activation.limiter import SqliteLimits
from cdp_provider.core.warehouse import DuckDBWarehouse
from cdp_provider.testing.vendor import VendorServer
from tests.conftest import ENGINES
from tests.core.activation.desk import Desk
from tests.core.activation.scene import Scene

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cdp_provider.core.warehouse import Warehouse


@pytest.fixture
def vendor() -> Iterator[VendorServer]:
    with VendorServer(mail_rate=None, crm_rate=None) as server:
        yield server


@pytest.fixture
def scene(warehouse: Warehouse, vendor: VendorServer, tmp_path: Path) -> Iterator[Scene]:
    limits = SqliteLimits(tmp_path / "limits.sqlite")
    yield Scene(warehouse, vendor.url, limits)
    limits.close()


@pytest.fixture(params=ENGINES)
def desk(request: pytest.FixtureRequest, make_warehouse: Callable[[str], Warehouse]) -> Iterator[Desk]:
    """A desk on each engine; DuckDB's is in memory, for there are many sessions."""
    if request.param != "duckdb":
        yield Desk(make_warehouse(request.param))
        return
    with duckdb.connect() as memory:
        warehouse = DuckDBWarehouse(memory.cursor)
        with warehouse.session() as session:
            tables.ensure(session)
        yield Desk(warehouse)
