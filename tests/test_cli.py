# SPDX-License-Identifier: Apache-2.0
"""``python -m cdp_provider`` as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cdp_provider.__main__ import main
from cdp_provider.core.project.activation import Destination
from cdp_provider.core.project.streams import Stream
from cdp_provider.core.registry import KINDS, load_project
from cdp_provider.hooks.warehouse import WarehouseHook
from tests.airflow_env import connection_json
from tests.conftest import ENGINES
from tests.core.identity.landed import History

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cdp_provider.core.project.base import Model

SHOP = Path(__file__).parent.parent / "dags" / "shop" / "cdp.yaml"
PEOPLE = """
project: people
warehouse: {connection: people, schema: people}
sources:
  app:
    type: files
    connection: people_files
    streams:
      web:
        path: web.csv
        format: csv
        primary_key: key
        time: at
        columns:
          key: {type: string, required: true}
          at: timestamp
          user_id: string
          email: string
          anonymous_id: string
        identifiers: {user_id: user_id, email: email, anonymous_id: anonymous_id}
identity:
  identifiers:
    user_id: {priority: 1}
    email: {priority: 2, normalize: email}
    anonymous_id: {priority: 3}
"""


def test_the_example_project_is_good(capsys: pytest.CaptureFixture[str]):
    assert main(["validate", str(SHOP)]) == 0
    assert capsys.readouterr().out == f"{SHOP}: ok, 3 streams, 4 segments, 3 syncs\n"


def test_faults_are_printed_and_fail(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    bad = tmp_path / "cdp.yaml"
    bad.write_text(SHOP.read_text().replace("trait: lifetime_value", "trait: lifetime_valu"))
    assert main(["validate", str(SHOP), str(bad), str(tmp_path / "none.yaml")]) == 1
    out = capsys.readouterr().out
    assert f"{SHOP}: ok" in out
    assert "segments.vip.where.trait: there is no field or trait 'lifetime_valu'" in out
    assert "did you mean 'lifetime_value'?" in out
    assert "none.yaml: there is no such file" in out


def test_the_schema_is_printed(capsys: pytest.CaptureFixture[str]):
    assert main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert {f"{kind.title()}Stream" for kind in KINDS.sources} <= schema["$defs"].keys()


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["validate"],
        ["check", "x"],
        ["explain"],
        ["explain", "cdp.yaml"],
        ["explain", "cdp.yaml", "email=jo@example.com"],
        ["explain", "cdp.yaml", "email", "user_id=17"],
        ["explain", "cdp.yaml", "--profile", "seven"],
        ["explain", "cdp.yaml", "--profile", "7", "email=jo@example.com", "user_id=17"],
        ["rebuild", "cdp.yaml"],
        ["rebuild", "cdp.yaml", "--by", "event-time"],
        ["rebuild", "cdp.yaml", "--by", "name", "--dry-run"],
    ],
)
def test_wrong_usage_exits_with_two(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_it_runs_as_a_module_and_never_imports_airflow():
    script = (
        "import runpy, sys\n"
        f"sys.argv = ['cdp_provider', 'validate', {str(SHOP)!r}]\n"
        "try:\n    runpy.run_module('cdp_provider', run_name='__main__')\n"
        "finally:\n    assert not [name for name in sys.modules if name.split('.')[0] == 'airflow']\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "ok, 3 streams" in done.stdout


@pytest.fixture(params=ENGINES)
def resolved(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A project whose warehouse has resolved two persons."""
    duck = request.param == "duckdb"
    place = str(tmp_path / "warehouse.duckdb") if duck else request.getfixturevalue("postgres_url")
    monkeypatch.setenv("AIRFLOW_CONN_PEOPLE", connection_json(request.param, place))
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
    path = tmp_path / "cdp.yaml"
    path.write_text(PEOPLE)
    project = load_project(path)
    warehouse = WarehouseHook("people", schema="people").warehouse
    history = History(warehouse, project.identity, streams=tuple(project.streams()))
    history.land({"email": "jo@example.com", "user_id": "17"}, {"user_id": "17", "anonymous_id": "a"})
    history.land({"user_id": "18"})
    history.resolve()
    yield path
    with warehouse.session() as session:
        session.execute("drop schema people cascade")


def test_why_two_identifiers_are_one_person(resolved: Path, capsys: pytest.CaptureFixture[str]):
    asked = ["explain", str(resolved), "email=JO@example.com", "anonymous_id=a"]
    assert main(asked) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "email=jo@example.com and anonymous_id=a belong to profile 1:"
    assert lines[1].startswith("1. email=jo@example.com and user_id=17 are both in row k00000 in app.web (")
    assert len(lines) == 3
    assert main([*asked, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["together"] is True
    assert [step["row"]["position"] for step in answer["steps"]] == [1, 2]


def test_an_answer_in_json_stands_alone_on_standard_output(resolved: Path):
    command = [sys.executable, "-m", "cdp_provider", "explain", str(resolved), "--profile", "1", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["today"] == 1


def test_why_two_identifiers_are_not(resolved: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["explain", str(resolved), "email=jo@example.com", "user_id=18"]) == 0
    assert "No row that was taken in carries identifiers of both." in capsys.readouterr().out


def test_what_became_of_a_profile(resolved: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["explain", str(resolved), "--profile", "1"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "Profile 1 is still called so.",
        "Identity run 1, run run_1: profile 1 was first published, named after user_id=17.",
    ]


def test_what_another_order_would_decide(resolved: Path, capsys: pytest.CaptureFixture[str]):
    asked = ["rebuild", str(resolved), "--by", "event-time", "--dry-run"]
    assert main(asked) == 0
    assert capsys.readouterr().out == "The order of event times would decide nothing differently.\n"
    assert main([*asked, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"differences": []}


def test_questions_without_an_answer(
    resolved: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    assert main(["explain", str(resolved), "--profile", "7"]) == 1
    assert "no profile was ever called 7" in capsys.readouterr().err
    assert main(["explain", str(resolved), "emial=x", "user_id=17"]) == 1
    assert "did you mean 'email'?" in capsys.readouterr().err
    assert main(["explain", str(resolved.parent / "none.yaml"), "--profile", "7"]) == 1
    assert "there is no such file" in capsys.readouterr().out
    monkeypatch.delenv("AIRFLOW_CONN_PEOPLE")
    assert main(["explain", str(resolved), "--profile", "1"]) == 1
    assert "there is no Airflow connection 'people'" in capsys.readouterr().err


@pytest.mark.parametrize(("model", "kinds"), [(Stream, KINDS.sources), (Destination, KINDS.destinations)])
def test_options_share_no_key_with_the_model_they_stand_next_to(
    model: type[Model], kinds: dict[str, type[Model]]
):
    for kind, options in kinds.items():
        assert not options.model_fields.keys() & model.model_fields.keys(), kind
