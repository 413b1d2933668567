# SPDX-License-Identifier: Apache-2.0
"""All profiles of a moment, as a task."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from cdp_provider.core.exceptions import ConfigurationError
from cdp_provider.core.profiles.moments import moment_of
from cdp_provider.core.project.profiles import Profiles, Trait
from cdp_provider.operators.profiles import SnapshotProfilesOperator
from tests.airflow_env import context_of
from tests.core.profiles.world import NOW, STREAMS, event, numbered, put

if TYPE_CHECKING:
    from cdp_provider.core.warehouse import Warehouse

PROFILES = Profiles(timezone="America/New_York", traits={"events": Trait(type="count", stream="web.events")})
CONTEXT = context_of(NOW)


@pytest.fixture
def operator(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> SnapshotProfilesOperator:
    """Of a person with an event on each of the last three days of February, at noon in London."""
    monkeypatch.setattr(SnapshotProfilesOperator, "warehouse", warehouse)
    put(
        warehouse,
        numbered([event(1, at=datetime(2026, 2, day, 12, tzinfo=UTC)) for day in (26, 27, 28)]),
        {1: 1},
    )
    return SnapshotProfilesOperator(
        task_id="t",
        warehouse_conn_id="wh",
        profiles=PROFILES,
        streams=STREAMS,
        as_of="{{ params.day }}",
        table="profiles_{{ params.day | replace('-', '_') }}",
    )


def snapshot_of(operator: SnapshotProfilesOperator, day: str) -> tuple[dict[str, Any], list[tuple]]:
    operator.render_template_fields({"params": {"day": day}})
    answer = operator.execute(CONTEXT)
    with operator.warehouse.session() as session:
        table = operator.warehouse.table(answer["table"])
        return answer, session.fetch(f"select profile_id, events from {table}")


def test_a_day_is_in_its_own_snapshot(operator: SnapshotProfilesOperator) -> None:
    answer, rows = snapshot_of(operator, "2026-02-27")
    assert answer == {"table": "profiles_2026_02_27", "as_of": "2026-02-28T05:00:00+00:00", "profiles": 1}
    assert rows == [(1, 2)]


def test_another_try_replaces_it(operator: SnapshotProfilesOperator) -> None:
    for _ in range(2):
        _, rows = snapshot_of(operator, "2026-02-26")
        assert rows == [(1, 1)]
        operator.as_of, operator.table = "{{ params.day }}", "again"


def test_no_moment(operator: SnapshotProfilesOperator) -> None:
    with pytest.raises(ConfigurationError, match="'yesterday' is no date"):
        snapshot_of(operator, "yesterday")


@pytest.mark.parametrize(
    ("given", "moment"),
    [
        ("2026-03-28", "2026-03-28T23:00:00+00:00"),
        ("2026-03-29", "2026-03-29T22:00:00+00:00"),  # the clocks went forward that night
        ("2026-03-29T10:00:00", "2026-03-29T10:00:00+00:00"),
        ("2026-03-29T10:00:00+02:00", "2026-03-29T08:00:00+00:00"),
        (datetime(2026, 3, 29, 10, tzinfo=UTC), "2026-03-29T10:00:00+00:00"),
        ("9999-12-31", "9999-12-31T23:59:59.999999+00:00"),
    ],
)
def test_moments(given: str | datetime, moment: str) -> None:
    assert moment_of(given, "Europe/Berlin").isoformat() == moment
