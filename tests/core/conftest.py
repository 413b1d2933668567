# SPDX-License-Identifier: Apache-2.0
"""A warehouse for generated examples."""

from __future__ import annotations

from typing import TYPE_CHECKING

import duckdb
import pytest

from cdp_provider.core import tables
from cdp_provider.core.warehouse import DuckDBWarehouse
from tests.conftest import ENGINES

if TYPE_CHECKING:
    from collections.abc import Callable

    from cdp_provider.core.warehouse import Warehouse


@pytest.fixture
def kept_open(request: pytest.FixtureRequest) -> bool:
    """Opening a file takes longer than most statements, and what is tested here opens it for each of them."""
    return not request.node.get_closest_marker("other_process")


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, make_warehouse: Callable[[str], Warehouse]) -> Warehouse:
    """A warehouse that many examples may use one after the other; DuckDB's lies in memory."""
    if request.param == "postgres":
        return make_warehouse("postgres")
    root = duckdb.connect(":memory:")
    warehouse = DuckDBWarehouse(root.cursor)
    with warehouse.session() as session:
        tables.ensure(session)
    return warehouse
