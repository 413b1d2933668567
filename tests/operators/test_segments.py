# SPDX-License-Identifier: Apache-2.0
"""What the assets of segments tell, whom they wake up, and why somebody is in one."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import DAG, Asset

from cdp_provider.core.exceptions import ConfigurationError
from cdp_provider.core.profiles.build import build_profiles
from cdp_provider.core.project.model import Segment, Segmentation
from cdp_provider.core.project.profiles import ProfileField, Profiles
from cdp_provider.core.runs import Report
from cdp_provider.operators import segments
from cdp_provider.operators.base import run_of
from cdp_provider.operators.segments import BuildSegmentsOperator, ExplainSegmentOperator
from tests.airflow_env import context_of
from tests.core.profiles.world import STREAMS, event, numbered, put
from tests.core.profiles.world import run as world_run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cdp_provider.core.warehouse import Warehouse

#: Airflow's server inside ``dag.test()`` warns of what its own dependencies deprecate.
pytestmark = pytest.mark.filterwarnings("default")

NOW = datetime(2026, 7, 2, tzinfo=UTC)
VIP = Asset("s/vip", "cdp://s/vip", extra={"segment": "vip"})
ENTERED = Asset("s/vip/entered", "cdp://s/vip/entered", extra={"segment": "vip", "change": "entered"})
LEFT = Asset("s/vip/left", "cdp://s/vip/left", extra={"segment": "vip", "change": "left"})
OTHER = Asset("s/other/entered", "cdp://s/other/entered", extra={"segment": "other", "change": "entered"})
USUAL = {"size": 9, "usual_low": 2.0, "usual_high": 4.0}


def operator() -> BuildSegmentsOperator:
    return BuildSegmentsOperator(
        task_id="segments",
        warehouse_conn_id="wh",
        segmentation=None,
        profiles=None,
        streams=(),
        outlets=[VIP, ENTERED, LEFT, OTHER],
    )


def published(detail: Mapping[str, Any], state: str = "ok") -> dict[str, dict[str, Any]]:
    """Name of each asset that gets an event -> what it says."""
    task, context = operator(), context_of(NOW, interval=(NOW - timedelta(days=1), NOW))
    task.publish(context, Report(run_of(context), "segments", "-", state=state, detail=dict(detail)))
    return {asset.name: context["outlet_events"][asset].extra for asset in task.outlets}


def test_changes_are_told_only_where_there_were_any() -> None:
    found = published({"sizes": {"vip": 3}, "entered": {"vip": 2, "other": 0}, "left": {"vip": 0}})
    assert found.keys() == {"s/vip", "s/vip/entered"}
    assert found["s/vip/entered"] == {
        "segment": "vip",
        "count": 2,
        "window_start": "2026-07-01T00:00:00+00:00",
        "window_end": "2026-07-02T00:00:00+00:00",
    }
    assert (found["s/vip"]["size"], found["s/vip"]["unusual"]) == (3, False)


def test_a_window_that_came_too_late_changed_nothing() -> None:
    assert published({"standing_window_end": NOW.isoformat()}, "superseded").keys() == {"s/vip"}


def test_an_unusual_size_is_in_the_event_and_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    found = published({"sizes": {"vip": 9}, "entered": {}, "left": {"vip": 1}, "unusual": {"vip": USUAL}})
    assert found.keys() == {"s/vip", "s/vip/left"}
    assert found["s/vip"]["unusual"] is True
    assert (
        "The segment vip has 9 members; from its history 2 to 4 were to be expected"
        in capsys.readouterr().out
    )


@pytest.fixture
def woken(run_dag: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., set[str]]:
    """Returns a function: runs a DAG with the operator inside Airflow, in which so many entered and left the
    segment; returns which of the DAGs that wait for its assets would run."""
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
    from airflow.models.asset import AssetDagRunQueue
    from airflow.utils.session import create_session
    from sqlalchemy import delete, select

    bag = DagBag("/dev/null", collect_dags=False)
    with DAG("makes_segments", schedule=None, start_date=NOW) as maker:
        operator()
    waiting = [
        DAG(f"waits_{number}", schedule=[asset], start_date=NOW, is_paused_upon_creation=False)
        for number, asset in enumerate((VIP, ENTERED, LEFT, OTHER))
    ]
    for dag in (maker, *waiting):
        bag.bag_dag(dag)
    sync_bag_to_db(bag, "dags-folder", None)
    minutes = iter(range(1, 100))

    def run(entered: int, left: int) -> set[str]:
        def build(warehouse: Any, segmentation: Any, profiles: Any, streams: Any, run: Any) -> Report:
            detail = {"sizes": {"vip": 5}, "entered": {"vip": entered}, "left": {"vip": left}}
            return Report(run, "segments", "-", detail=detail)

        monkeypatch.setattr(segments, "build_segments", build)
        monkeypatch.setattr(BuildSegmentsOperator, "warehouse", None)
        with create_session() as session:
            session.execute(delete(AssetDagRunQueue))
        finished = maker.test(run_after=NOW + timedelta(minutes=next(minutes)), logical_date=None)
        assert finished.state == "success"
        names = {f"waits_{n}": asset.name for n, asset in enumerate((VIP, ENTERED, LEFT, OTHER))}
        with create_session() as session:
            return {names[name] for name in session.scalars(select(AssetDagRunQueue.target_dag_id))}

    return run


def test_a_dag_that_waits_for_entries_runs_only_when_somebody_entered(woken: Callable[..., set[str]]) -> None:
    assert woken(entered=2, left=0) == {"s/vip", "s/vip/entered"}
    assert woken(entered=0, left=0) == {"s/vip"}
    assert woken(entered=0, left=1) == {"s/vip", "s/vip/left"}
    assert woken(entered=1, left=1) == {"s/vip", "s/vip/entered", "s/vip/left"}


@pytest.fixture
def explaining(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> ExplainSegmentOperator:
    monkeypatch.setattr(ExplainSegmentOperator, "warehouse", warehouse)
    profiles = Profiles(fields={"s": ProfileField.model_validate({"from": ["web.events.s"]})})
    put(warehouse, numbered([event(1, s="jo@example.com"), event(2, s="x")]), {1: 1, 2: 2})
    build_profiles(warehouse, profiles, STREAMS, world_run())
    return ExplainSegmentOperator(
        task_id="t",
        warehouse_conn_id="wh",
        segment=Segment(name="mail", where={"trait": "s", "contains": "@"}),
        segmentation=Segmentation(),
        profiles=profiles,
        streams=STREAMS,
        profile_id="{{ params.who }}",
    )


def test_why_somebody_is_in_a_segment(
    explaining: ExplainSegmentOperator, capsys: pytest.CaptureFixture[str]
) -> None:
    explaining.render_template_fields({"params": {"who": 1}})
    answer = explaining.execute(context_of(NOW))
    assert json.loads(json.dumps(answer)) == answer
    assert (answer["member"], answer["where"]["holds"]) == (True, True)
    assert "jo@" not in json.dumps(answer)
    explaining.values = True
    assert explaining.execute(context_of(NOW))["where"]["values"] == {"s": "jo@example.com"}
    logged = capsys.readouterr().out
    assert "A member of the segment mail" in logged
    assert "jo@" not in logged


def test_why_somebody_is_not(explaining: ExplainSegmentOperator) -> None:
    explaining.render_template_fields({"params": {"who": 2}})
    assert explaining.execute(context_of(NOW))["member"] is False
    explaining.profile_id = "jo"
    with pytest.raises(ConfigurationError, match="no whole number"):
        explaining.execute(context_of(NOW))
