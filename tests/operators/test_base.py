# SPDX-License-Identifier: Apache-2.0
"""What every operator does: template fields, the run's window, events of its assets."""

from __future__ import annotations

import importlib
import inspect
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import Asset, BaseOperator

from cdp_provider.core.run import Window
from cdp_provider.core.runs import Report
from cdp_provider.operators.base import CdpOperator, run_of
from cdp_provider.operators.segments import BuildSegmentsOperator
from cdp_provider.provider_info import get_provider_info
from cdp_provider.retries import CdpRetryPolicy
from tests.airflow_env import context_of

if TYPE_CHECKING:
    from collections.abc import Iterator

NOW = datetime(2026, 7, 2, tzinfo=UTC)
DAY = timedelta(days=1)


def operators() -> Iterator[type[BaseOperator]]:
    info = get_provider_info()
    for entry in (*info["operators"], *info["sensors"]):
        for name in entry["python-modules"]:
            for _, kind in inspect.getmembers(importlib.import_module(name), inspect.isclass):
                if kind.__module__ == name and issubclass(kind, BaseOperator):
                    yield kind


ALL = list(operators())
#: Those that are not one of Airflow's own with a few lines added.
OURS = [kind for kind in ALL if not issubclass(kind, HITLOperator)]


def build(kind: type[BaseOperator]) -> BaseOperator:
    """Each of its own arguments is a text that names it."""
    own = {
        name: name
        for cls in kind.__mro__
        if cls.__module__.startswith("cdp_provider")
        for name, parameter in inspect.signature(cls.__init__).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
        and name not in ("retry_policy", "inlets", "asset", "deferrable")
    }
    return kind(task_id="t", **own)


def test_there_is_an_operator_in_every_module() -> None:
    info = get_provider_info()
    named = [name for entry in (*info["operators"], *info["sensors"]) for name in entry["python-modules"]]
    assert {kind.__module__ for kind in ALL} == set(named)


@pytest.mark.parametrize("kind", OURS, ids=lambda kind: kind.__name__)
def test_init_only_assigns_and_template_fields_exist(kind: type[BaseOperator]) -> None:
    operator = build(kind)
    for field in kind.template_fields:
        assert getattr(operator, field) == field
    for name in inspect.signature(kind.__init__).parameters:
        if name not in ("self", "kwargs", "retry_policy", "inlets", "asset", "deferrable"):
            assert getattr(operator, name) == name
    assert operator.retry_policy == CdpRetryPolicy()


@pytest.mark.parametrize("kind", OURS, ids=lambda kind: kind.__name__)
def test_arguments_have_names(kind: type[BaseOperator]) -> None:
    with pytest.raises(TypeError, match="keyword"):
        kind("t")


def test_templates_are_rendered() -> None:
    operator = CdpOperator(task_id="t", warehouse_conn_id="wh_{{ params.tenant }}")
    operator.render_template_fields({"params": {"tenant": "acme"}})
    assert operator.hook.warehouse_conn_id == "wh_acme"


@pytest.mark.parametrize(
    ("interval", "window"),
    [
        ((NOW - DAY, NOW), Window(NOW - DAY, NOW)),
        ((NOW, NOW), Window(None, NOW + DAY)),
        ((None, None), Window(None, NOW + DAY)),
    ],
)
def test_window(interval: tuple[Any, Any], window: Window) -> None:
    run = run_of(context_of(NOW + DAY, interval=interval, map_index=3))
    assert (run.pipeline, run.run_id, run.window, run.map_index) == ("shop", "run-1", window, 3)


def test_a_report_becomes_the_event_of_the_assets() -> None:
    asset = Asset("shop/profiles", "cdp://shop/profiles")
    operator = CdpOperator(task_id="t", warehouse_conn_id="wh", outlets=[asset])
    context = context_of(NOW)
    report = Report(run_of(context), "profiles", "-", rows_in=5, rows_out=3, watermark=NOW)
    assert operator.publish(context, report) == report.summary()
    extra = context["outlet_events"][asset].extra
    assert (extra["rows_in"], extra["rows_out"], extra["watermark"]) == (5, 3, NOW.isoformat())
    assert extra["window_end"] == NOW.isoformat()


def test_each_segment_has_an_event_of_its_own() -> None:
    assets = [Asset(f"s/{n}", f"cdp://s/{n}", extra={"segment": n}) for n in ("vip", "lapsed")]
    operator = BuildSegmentsOperator(
        task_id="t", warehouse_conn_id="wh", segmentation=None, profiles=None, streams=(), outlets=assets
    )
    context = context_of(NOW)
    detail = {"sizes": {"vip": 3, "lapsed": 0}, "entered": {"vip": 1}, "left": {"vip": 2}}
    operator.publish(context, Report(run_of(context), "segments", "-", detail=detail))
    vip, lapsed = (context["outlet_events"][asset].extra for asset in assets)
    assert (vip["segment"], vip["size"], vip["entered"], vip["left"]) == ("vip", 3, 1, 2)
    assert (lapsed["segment"], lapsed["size"], lapsed["entered"]) == ("lapsed", 0, 0)
    assert "sizes" not in vip
