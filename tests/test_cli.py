# SPDX-License-Identifier: Apache-2.0
"""``python -m cdp_provider`` as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cdp_provider.__main__ import main
from cdp_provider.core import tables
from cdp_provider.core.profiles.build import build_profiles
from cdp_provider.core.project.activation import Destination
from cdp_provider.core.project.streams import Stream
from cdp_provider.core.registry import KINDS, load_project
from cdp_provider.core.run import Run, Window
from cdp_provider.hooks.warehouse import WarehouseHook
from tests.airflow_env import connection_json
from tests.conftest import ENGINES
from tests.core.activation.scene import START, person, put_profiles
from tests.core.identity.landed import History

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cdp_provider.core.project.base import Model
    from cdp_provider.core.warehouse import Warehouse

MOMENT = datetime(2030, 1, 1, tzinfo=UTC)
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
profiles:
  timezone: Europe/Berlin
  fields: {email: {from: [app.web.email]}}
  traits: {rows: {type: count, stream: app.web}}
segments:
  known: {where: {trait: email, exists: true}}
  busy: {where: {all: [{segment: known}, {stream: app.web, at_least: 2}]}}
"""


def test_the_example_project_is_good(capsys: pytest.CaptureFixture[str]):
    assert main(["validate", str(SHOP)]) == 0
    assert capsys.readouterr().out == f"{SHOP}: ok, 3 streams, 7 segments, 3 syncs\n"


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
    assert {f"{kind.title().replace('_', '')}Stream" for kind in KINDS.sources} <= schema["$defs"].keys()


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
        ["explain", "cdp.yaml", "email=jo@example.com", "user_id=17", "--segment", "vip"],
        ["explain", "cdp.yaml", "email=jo@example.com", "user_id=17", "--field", "email"],
        ["explain", "cdp.yaml", "--profile", "7", "--field", "email", "--segment", "vip"],
        ["explain", "cdp.yaml", "--profile", "7", "--values"],
        ["preview", "cdp.yaml"],
        ["preview", "cdp.yaml", "mail", "--segment", "vip"],
        ["snapshot", "cdp.yaml", "--into", "january"],
        ["snapshot", "cdp.yaml", "--as-of", "2026-01-31"],
        ["release", "cdp.yaml"],
        ["release", "cdp.yaml", "mail", "--key"],
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
    history.land({"user_id": "18", "key": "another"})
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


@pytest.fixture
def built(resolved: Path) -> Path:
    """The same, with their profiles built: of profile 1 with an address and two rows, and of another."""
    project, warehouse = load_project(resolved), WarehouseHook("people", schema="people").warehouse
    run = Run("people", "run", Window(None, MOMENT))
    build_profiles(warehouse, project.profiles, list(project.streams()), run)
    return resolved


def test_who_would_be_in_a_segment(built: Path, capsys: pytest.CaptureFixture[str]):
    asked = ["preview", str(built), "--segment", "busy"]
    assert main(asked) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        "1 of 2 profiles (50.0%) are in the segment busy as of 2030-01-01T00:00:00+00:00.",
        "Among them: 1",
    ]
    assert "select" in lines[2]
    assert main([*asked, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["size"], found["sample"]) == (1, [1])
    assert main(["preview", str(built), "--segment", "bussy"]) == 1
    assert "no segment 'bussy'; did you mean 'busy'?" in capsys.readouterr().err


def test_why_a_profile_is_in_a_segment(built: Path, capsys: pytest.CaptureFixture[str]):
    asked = ["explain", str(built), "--profile", "1", "--segment", "busy"]
    assert main(asked) == 0
    assert capsys.readouterr().out.splitlines() == [
        "Profile 1 is in the segment busy as of 2030-01-01T00:00:00+00:00.",
        "yes  all of",
        "  yes  {segment: known}",
        "  yes  {stream: app.web, at_least: 2}",
    ]
    known = ["explain", str(built), "--profile", "1", "--segment", "known"]
    assert main(known) == 0
    assert "jo@" not in capsys.readouterr().out
    assert main([*known, "--values"]) == 0
    assert "the profile has {email: jo@example.com}" in capsys.readouterr().out
    assert main([*asked, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["member"] is True
    assert main(["explain", str(built), "--profile", "1", "--segment", "bussy"]) == 1
    assert "did you mean 'busy'?" in capsys.readouterr().err


def test_where_a_value_comes_from(built: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["explain", str(built), "--profile", "1", "--field", "email"]) == 0
    out = capsys.readouterr().out
    assert "app.web" in out
    assert "jo@" not in out
    assert main(["explain", str(built), "--profile", "1", "--field", "emial"]) == 1
    assert "no field 'emial'; did you mean 'email'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("as_of", "moment"),
    [("2026-01-31", "2026-01-31T23:00:00+00:00"), ("2026-01-31T10:00:00+02:00", "2026-01-31T08:00:00+00:00")],
)
def test_all_profiles_of_a_moment(built: Path, as_of: str, moment: str, capsys: pytest.CaptureFixture[str]):
    assert main(["snapshot", str(built), "--as-of", as_of, "--into", "january"]) == 0
    assert capsys.readouterr().out == f'"people"."january" holds 2 profiles as of {moment}.\n'
    warehouse = WarehouseHook("people", schema="people").warehouse
    with warehouse.session() as session:
        assert session.scalar(f"select count(*) from {warehouse.table('january')}") == 2


def test_a_snapshot_of_no_moment(built: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["snapshot", str(built), "--as-of", "January", "--into", "january"]) == 1
    assert "'January' is no date; write 2026-01-31" in capsys.readouterr().err
    assert main(["snapshot", str(built), "--as-of", "2026-01-31", "--into", "memberships"]) == 1
    assert "give the snapshot another name" in capsys.readouterr().err


MAILING = """
project: people
warehouse: {connection: people, schema: mailing}
sources:
  crm:
    type: files
    connection: people_files
    streams:
      customers:
        path: customers.csv
        format: csv
        primary_key: id
        columns: {id: string, email: string, first_name: string}
        identifiers: {email: email}
identity:
  identifiers: {email: {normalize: email}}
profiles:
  fields: {email: {from: [crm.customers.email]}, first_name: {from: [crm.customers.first_name]}}
segments:
  newsletter: {where: {trait: email, exists: true}}
destinations:
  mail:
    type: http
    connection: nowhere
    rate: {requests: 1, per: 1 second}
    batch: 2
    upsert: {path: /members}
    key: email
syncs:
  news_to_mail: {segment: newsletter, destination: mail, key: email, fields: {NAME: first_name}}
"""


@pytest.fixture(params=ENGINES)
def mailing(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, Warehouse]]:
    """A project with four members in its segment, one of them without an address, and two dead letters."""
    duck = request.param == "duckdb"
    place = str(tmp_path / "warehouse.duckdb") if duck else request.getfixturevalue("postgres_url")
    monkeypatch.setenv("AIRFLOW_CONN_PEOPLE", connection_json(request.param, place))
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
    path = tmp_path / "cdp.yaml"
    path.write_text(MAILING)
    warehouse = WarehouseHook("people", schema="mailing").warehouse
    with warehouse.session() as session:
        tables.ensure(session)
        for key in ("a@example.com", "b@example.com"):
            session.execute(
                f"insert into {warehouse.table('sync_ledger')}"
                " (sync, record_key, attempted_hash, state, operation, attempts, refusals,"
                " window_end, run_id)"
                " values ('news_to_mail', :key, 'h', 'dead', 'upsert', 5, 5, :window_end, 'r')",
                {"key": key, "window_end": START},
            )
    put_profiles(warehouse, [*(person(number) for number in (1, 2, 3)), person(4, email=None)])
    yield str(path), warehouse
    with warehouse.session() as session:
        session.execute("drop schema mailing cascade")


def test_what_a_sync_would_send(mailing: tuple[str, Warehouse], capsys: pytest.CaptureFixture[str]):
    path, warehouse = mailing
    assert main(["preview", path, "news_to_mail"]) == 0
    said = capsys.readouterr().out
    assert "3" in said
    assert "@" not in said
    assert main(["preview", path, "news_to_mail", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["creates"], found["updates"], found["removals"]) == (3, 0, 0)
    assert sum(found["invalid"].values()) == 1
    assert found["requests"] == 2
    with warehouse.session() as session:
        assert session.scalar(f"select count(*) from {warehouse.table('sync_ledger')}") == 2


def test_dead_letters_are_released(mailing: tuple[str, Warehouse], capsys: pytest.CaptureFixture[str]):
    path, warehouse = mailing
    command = ["release", path, "news_to_mail"]
    assert main([*command, "--key", "b@example.com", "--key", "nobody@example.com"]) == 0
    assert (
        capsys.readouterr().out == "Released 1 record of news_to_mail; its next run sends what is released.\n"
    )
    with warehouse.session() as session:
        states = session.fetch(
            f"select record_key, state from {warehouse.table('sync_ledger')} order by record_key"
        )
    assert [state for _, state in states] == ["dead", "rejected"]
    assert main([*command, "--json"]) == 0
    # In one process Airflow's log may keep to the standard output of an earlier command.
    assert capsys.readouterr().out.endswith('{\n  "sync": "news_to_mail",\n  "released": 1\n}\n')
    assert main(command) == 0
    assert "Released 0 records" in capsys.readouterr().out


def test_a_field_that_is_written_where_empty_needs_a_destination_that_can_be_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "cdp.yaml"
    hubspot = "type: hubspot\n    connection: nowhere\n    batch: 2\n"
    slow = "type: mailchimp\n    connection: nowhere\n    batch: 2\n    list: l\n"
    text = MAILING.replace("NAME: first_name", "NAME: {from: first_name, write: if_empty}")
    start, end = text.index("type: http"), text.index("syncs:")
    for kind, status in ((hubspot, 0), (slow, 1)):
        path.write_text(f"{text[:start]}{kind}{text[end:]}")
        assert main(["validate", str(path)]) == status, capsys.readouterr().out
    said = capsys.readouterr().out
    assert "syncs.news_to_mail.fields.NAME.write: destination mail cannot be asked what it holds" in said


def test_a_sync_that_is_not_there(mailing: tuple[str, Warehouse], capsys: pytest.CaptureFixture[str]):
    for command in ("preview", "release"):
        assert main([command, mailing[0], "news_to_mial"]) == 1
        assert "no sync 'news_to_mial'; did you mean 'news_to_mail'?" in capsys.readouterr().err


@pytest.mark.parametrize(("model", "kinds"), [(Stream, KINDS.sources), (Destination, KINDS.destinations)])
def test_options_share_no_key_with_the_model_they_stand_next_to(
    model: type[Model], kinds: dict[str, type[Model]]
):
    for kind, options in kinds.items():
        assert not options.model_fields.keys() & model.model_fields.keys(), kind
