# SPDX-License-Identifier: Apache-2.0
"""How tables are held against the oracle, and how often."""

from __future__ import annotations

import json
import math
import os
from datetime import date
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, Phase, settings

from tests.core.profiles.world import profile_rows, table_rows

if TYPE_CHECKING:
    from cdp_provider.core.warehouse import Warehouse
    from tests.core.profiles.oracle import Oracle

#: How many times as many examples as usual; the nightly run asks for more.
DEPTH = int(os.environ.get("CDP_TEST_DEPTH", "1"))
#: Finding the smallest example takes minutes where each goes through several windows.
SHRINK = os.environ.get("CDP_TEST_SHRINK", "1") == "1"


def settings_of(examples: int) -> settings:
    return settings(
        max_examples=examples * DEPTH,
        deadline=None,
        derandomize=DEPTH == 1,
        database=None,
        phases=(Phase.generate, Phase.shrink) if SHRINK else (Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )


def plain(value: Any) -> Any:
    """An expected value as JSON would hold it."""
    if isinstance(value, list):
        return [plain(part) for part in value]
    return value.isoformat() if isinstance(value, date) else value


def agrees(found: Any, expected: Any) -> bool:
    """Whether a cell holds what it should. Averages may differ in their last binary digits."""
    if isinstance(expected, list):
        return (json.loads(found) if isinstance(found, str) else found) == plain(expected)
    if isinstance(found, dict | list) or (isinstance(found, str) and isinstance(expected, str)):
        return _json(found) == _json(expected)
    if isinstance(expected, float) and found is not None:
        return math.isclose(found, expected, rel_tol=1e-12, abs_tol=1e-12)
    return found == expected and type(found) is not bool or found is expected


def _json(value: Any) -> Any:
    """JSON columns come parsed from one engine and as text, spaced as it likes, from the other."""
    try:
        return json.loads(value) if isinstance(value, str) and value[:1] in ("{", "[") else value
    except ValueError:
        return value


def differences(found: dict[Any, dict[str, Any]], expected: dict[Any, dict[str, Any]]) -> list[str]:
    """What a failed comparison shows."""
    assert found.keys() == expected.keys()
    return [
        f"{key} {name}: found {found[key][name]!r}, expected {value!r}"
        for key, values in expected.items()
        for name, value in values.items()
        if not agrees(found[key][name], value)
    ]


def compare(warehouse: Warehouse, world: Oracle) -> None:
    """The tables ``profiles`` and ``accounts`` against the oracle."""
    expected = {profile: {"profile_id": profile, **values} for profile, values in world.values.items()}
    found = profile_rows(warehouse)
    assert differences(found, expected) == []
    if world.profiles.accounts:
        lines = {line["account"]: line for line in table_rows(warehouse, "accounts")}
        assert differences(lines, world.accounts) == []
