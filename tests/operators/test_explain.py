# SPDX-License-Identifier: Apache-2.0
"""What the operator answers, and what it keeps out of the log."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from cdp_provider.core.exceptions import ConfigurationError
from cdp_provider.operators.explain import ExplainIdentityOperator
from tests.airflow_env import context_of
from tests.core.identity.landed import History

if TYPE_CHECKING:
    from cdp_provider.core.warehouse import Warehouse

CONTEXT = context_of(datetime(2026, 7, 2, tzinfo=UTC))


@pytest.fixture
def history(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> History:
    monkeypatch.setattr(ExplainIdentityOperator, "warehouse", warehouse)
    history = History(warehouse)
    history.land({"user_id": "17", "email": "jo@example.com"}, {"user_id": "18"})
    history.resolve()
    return history


def operator(history: History, **asked: Any) -> ExplainIdentityOperator:
    return ExplainIdentityOperator(
        task_id="t", warehouse_conn_id="wh", identity=history.identity, streams=history.streams, **asked
    )


def test_two_identifiers(history: History, capsys: pytest.CaptureFixture[str]) -> None:
    answer = operator(history, one={"email": "jo@example.com"}, other={"user_id": 17}).execute(CONTEXT)
    assert json.loads(json.dumps(answer)) == answer
    assert answer["together"] is True
    assert answer["steps"][0]["row"]["stream"] == "app.web"
    logged = capsys.readouterr().out
    assert "One profile: 1 steps, 0 obstacles" in logged
    assert "jo@" not in logged


def test_templates_are_rendered(history: History) -> None:
    task = operator(history, one={"email": "{{ params.email }}"}, other={"user_id": "{{ params.user }}"})
    task.render_template_fields({"params": {"email": "jo@example.com", "user": 18}})
    assert task.execute(CONTEXT)["together"] is False


def test_a_profile(history: History) -> None:
    task = operator(history, profile_id="{{ params.profile }}")
    task.render_template_fields({"params": {"profile": 1}})
    answer = task.execute(CONTEXT)
    assert json.loads(json.dumps(answer)) == answer
    assert answer["today"] == 1
    assert [event["kind"] for event in answer["events"]] == ["published"]


@pytest.mark.parametrize(
    ("asked", "fault"),
    [
        ({}, "either the two identifiers"),
        ({"one": {"email": "jo@example.com"}}, "either the two identifiers"),
        ({"one": {"email": "jo@example.com"}, "other": {"user_id": "17"}, "profile_id": 1}, "either the two"),
        ({"one": {"email": "jo@example.com", "user_id": "17"}, "other": {"user_id": "18"}}, "2 were given"),
        ({"profile_id": "seven"}, "no whole number"),
    ],
)
def test_wrong_questions(history: History, asked: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigurationError, match=fault) as raised:
        operator(history, **asked).execute(CONTEXT)
    assert "jo@" not in str(raised.value)
