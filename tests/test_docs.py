# SPDX-License-Identifier: Apache-2.0
"""Every snippet of the README and the docs runs; every page and table they should have is there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
import yaml

from cdp_provider.core import tables
from cdp_provider.core.activation.destinations import DESTINATIONS
from cdp_provider.core.ingest import CONNECTORS
from cdp_provider.core.ingest.odcs import read_contract
from cdp_provider.core.registry import load_project
from cdp_provider.core.run import Run, Window
from cdp_provider.hooks.warehouse import WarehouseHook
from cdp_provider.testing import shop
from cdp_provider.testing.vendor import VendorServer
from tests.airflow_env import connection_json
from tests.conftest import ENGINES
from tests.world import PROJECT, World

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import RunDag

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PART = "# part of a project: "
#: Shown, not run: requests as they go over the wire, the README's file of rows (which its project reads), and
#: the metadata of a package (which tests/testing/test_conformance.py installs).
SHOWN = {"http", "csv", "toml"}


class Snippet(NamedTuple):
    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def snippets() -> Iterator[Snippet]:
    for page in PAGES:
        text = page.read_text()
        for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            line = text.count("\n", 0, match.start()) + 2
            yield Snippet(str(page.relative_to(ROOT)), line, match.group(1), match.group(2))


def of(language: str) -> pytest.MarkDecorator:
    found = [snippet for snippet in snippets() if snippet.language == language]
    return pytest.mark.parametrize("snippet", found, ids=str)


def test_every_snippet_is_of_a_language_that_is_tested():
    assert {snippet.language for snippet in snippets()} == {"yaml", "python", "sql", "bash"} | SHOWN


def added(whole: dict, part: dict, depth: int = 0) -> dict:
    """A project with more parts, or with others of the same name; fields and traits lie a level deeper."""
    return whole | {
        key: added(whole[key], value, depth + 1)
        if isinstance(value, dict) and key in whole and (depth == 0 or key in ("fields", "traits"))
        else value
        for key, value in part.items()
    }


@of("yaml")
def test_yaml_is_a_project_or_a_part_of_one(snippet, tmp_path):
    text = snippet.text
    # A snippet that begins with its file's name is a contract, which another one of the page names.
    contracts = {
        name[1]: other
        for other in snippets()
        if other.page == snippet.page and (name := re.match(r"# (\S+\.odcs\.yaml)\n", other.text))
    }
    for name, other in contracts.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(other.text)
        if other == snippet:
            found = read_contract(tmp_path / name, {"contract": {}}, "till")
            assert found.columns and not found.faults  # noqa: PT018 - one thing: it can be read
            return
    if text.startswith(PART):
        text = yaml.safe_dump(added(yaml.safe_load(PROJECT.read_text()), yaml.safe_load(text)))
    path = tmp_path / "cdp.yaml"
    path.write_text(text)
    load_project(path)


@of("python")
@pytest.mark.usefixtures("readme_project")
def test_python_runs(snippet, tmp_path, monkeypatch):
    # A snippet that begins with its file's name can be imported by those below it.
    for other in snippets():
        if other.page == snippet.page and (name := re.match(r"# (\w+\.py)\n", other.text)):
            (tmp_path / name[1]).write_text(other.text)
    monkeypatch.syspath_prepend(tmp_path)
    code = snippet.text.replace("/opt/airflow/dags/shop/cdp.yaml", str(PROJECT))
    exec(  # noqa: S102 - the docs are ours
        compile(code, str(snippet), "exec"),
        {"__file__": str(tmp_path / "newsletter.py"), "__name__": "snippet"},
    )  # noqa: S102


@of("bash")
def test_commands_exist(snippet):
    makefile = (ROOT / "Makefile").read_text()
    for line in snippet.text.replace("\\\n", " ").splitlines():
        program, *arguments = shlex.split(line.split(" > ")[0])
        if program == "make":
            assert re.search(rf"^{arguments[0]}:", makefile, re.MULTILINE), line
        elif program == "python":
            assert arguments[0] == "-m", line
            helped = subprocess.run(
                [sys.executable, "-m", arguments[1], "--help"], cwd=ROOT, capture_output=True
            )
            assert helped.returncode == 0, line
        elif program == "sh":
            assert (ROOT / arguments[0]).is_file(), line
        elif program == "airflow":
            from airflow.cli.cli_parser import get_parser

            assert get_parser().parse_args(arguments).conn_id, line
        elif program == "pip":
            assert (ROOT / arguments[arguments.index("-c") + 1]).is_file(), line
        else:
            assert (program, arguments[0]) == ("docker", "compose"), line


@pytest.fixture(scope="module", params=ENGINES)
def world(request, tmp_path_factory) -> Iterator[World]:
    """A small shop after one run."""
    folder = tmp_path_factory.mktemp("docs")
    shop.generate(folder, customers=100, events=1000, orders=500)
    place, schema = str(folder / "shop.duckdb"), "docs"
    if request.param == "postgres":
        place = request.getfixturevalue("postgres_url")
    with VendorServer(data=folder, throttle_every=None, fail_every=None) as vendor:
        world = World(request.param, place, schema, vendor.url, str(folder))
        for stage, node in world.steps():
            world.step(stage, node, Run("shop", "run", Window(None, shop.ANCHOR)))
        yield world
        with world.warehouse.session() as session:
            session.execute(f"drop schema {schema} cascade")


@of("sql")
def test_sql_answers(snippet, world):
    with world.warehouse.session() as session:
        for statement in snippet.text.split(";"):
            if statement.strip() and not (snippet.page == "README.md" and "p.signups" in statement):
                session.fetch(re.sub(r"\bcdp\.", f"{world.schema}.", statement))


@pytest.fixture
def readme_project(tmp_path) -> Path:
    """The project of "your own project, in five minutes", as files."""
    parts = {s.language: s.text for s in reversed(list(snippets())) if s.page == "README.md"}
    (tmp_path / "newsletter" / "data").mkdir(parents=True)
    (tmp_path / "newsletter" / "cdp.yaml").write_text(parts["yaml"])
    (tmp_path / "newsletter" / "data" / "people.csv").write_text(parts["csv"])
    (tmp_path / "newsletter.py").write_text(parts["python"])
    return tmp_path


@pytest.mark.filterwarnings("default")  # Airflow's server inside dag.test() warns of its own dependencies
def test_five_minutes(readme_project: Path, run_dag: RunDag, monkeypatch: pytest.MonkeyPatch):
    warehouse = str(readme_project / "newsletter.duckdb")
    monkeypatch.setenv("AIRFLOW_CONN_CDP_WAREHOUSE", connection_json("duckdb", warehouse))
    file, project = readme_project / "newsletter.py", readme_project / "newsletter" / "cdp.yaml"
    _, states = run_dag(file)
    assert states["signups.check_people"] == "failed"
    assert states["resolve_identity"] == "upstream_failed"
    assert states[""] == "failed"

    project.write_text(
        project.read_text().replace(
            "        columns:", "        quarantine: {max_share: 0.5}\n        columns:"
        )
    )
    _, states = run_dag(file)
    assert set(states.values()) == {"success"}
    (last,) = [s.text for s in snippets() if s.page == "README.md" and s.language == "sql"]
    with WarehouseHook("cdp_warehouse").warehouse.session() as session:
        runs, quarantine, profiles, members = [session.fetch(sql) for sql in last.split(";") if sql.strip()]
    assert len(runs) > 6
    # its line in the file, once per run that read it
    assert [line for _, line, _ in quarantine] == [5, 5]
    assert len(profiles) == 1
    assert profiles[0][2] == 3, "rows 1 to 3 are one person"
    assert [segment for segment, *_ in members] == ["reachable_germans"]


def test_tables_are_all_described():
    described = (ROOT / "docs" / "tables.md").read_text()
    assert [name for name in (*tables.TABLES, "product", "profiles") if f"`{name}`" not in described] == []


def test_every_connector_and_destination_has_its_page():
    pages = {p.stem for p in (ROOT / "docs" / "connectors").glob("*.md")}
    assert pages - {"presets", "events", "airbyte"} == set(CONNECTORS)
    assert {p.stem for p in (ROOT / "docs" / "destinations").glob("*.md")} == set(DESTINATIONS)


def test_links_and_pictures_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} points to {target}"
