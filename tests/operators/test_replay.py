# SPDX-License-Identifier: Apache-2.0
"""Quarantined rows are released by a task, and by a command."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from cdp_provider.__main__ import main
from cdp_provider.core.ingest.files import FilesConnector
from cdp_provider.core.ingest.landing import land
from cdp_provider.core.registry import load_project
from cdp_provider.core.run import Run, Window
from cdp_provider.hooks.warehouse import WarehouseHook
from cdp_provider.operators.replay import ReplayQuarantineOperator
from tests.airflow_env import connection_json, context_of

if TYPE_CHECKING:
    from pathlib import Path

    from cdp_provider.core.project.streams import Stream

NOW = datetime(2026, 7, 1, tzinfo=UTC)
PROJECT = """
project: forms
warehouse: {connection: forms, schema: forms_cdp}
sources:
  web:
    type: files
    streams:
      answers:
        path: answers.csv
        format: csv
        primary_key: key
        quarantine: {max_share: 1}
        columns: {key: string, points: POINTS}
"""


@pytest.fixture
def mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Stream]:
    """A project whose stream was landed with another type, which two of three rows did not fit."""
    place = str(tmp_path / "warehouse.duckdb")
    monkeypatch.setenv("AIRFLOW_CONN_FORMS", connection_json("duckdb", place))
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
    (tmp_path / "answers.csv").write_text("key,points\n1,2\n2,1.5\n3,none\n")
    path = tmp_path / "cdp.yaml"
    path.write_text(PROJECT.replace("POINTS", "integer"))
    (stream,) = load_project(path).streams()
    warehouse = WarehouseHook("forms", schema="forms_cdp").warehouse
    run = Run("forms", "first", Window(None, NOW))
    assert land(warehouse, stream, FilesConnector(tmp_path), run).rows_refused == 2
    path.write_text(PROJECT.replace("points: POINTS", "score: {type: number, path: points}"))
    (stream,) = load_project(path).streams()
    return path, stream


def test_a_task_releases_what_fulfils_the_contract(mended):
    operator = ReplayQuarantineOperator(
        task_id="t", stream=mended[1], warehouse_conn_id="forms", schema="forms_cdp", load_ids=["{{ batch }}"]
    )
    operator.render_template_fields({"batch": 1})
    told = operator.execute(context_of(NOW))
    assert (told["rows_in"], told["rows_out"], told["rows_refused"]) == (2, 1, 1)
    with operator.warehouse.session() as session:
        table = operator.warehouse.table("web__answers")
        assert session.fetch(f"select key, score from {table}") == [("2", 1.5)]


def test_a_command_does(mended, capsys):
    assert main(["replay", str(mended[0]), "web.answers"]) == 0
    assert "Of 2 quarantined rows of web.answers, 1 fulfil" in capsys.readouterr().out
    assert main(["replay", str(mended[0]), "web.answers", "--batch", "7"]) == 1
    assert "nothing to replay" in capsys.readouterr().err
    assert main(["replay", str(mended[0]), "web.nothing"]) == 1
