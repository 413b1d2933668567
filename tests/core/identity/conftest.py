# SPDX-License-Identifier: Apache-2.0
"""A history to resolve, on every engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.core.identity.landed import History

if TYPE_CHECKING:
    from cdp_provider.core.warehouse import Warehouse


@pytest.fixture
def history(warehouse: Warehouse) -> History:
    return History(warehouse)
