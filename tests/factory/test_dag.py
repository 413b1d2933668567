# SPDX-License-Identifier: Apache-2.0
"""A project becomes the DAG it describes; parsing touches nothing but the file."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import TriggerRule
from airflow.sdk.exceptions import ParamValidationError
from airflow.serialization.serialized_objects import DagSerialization

from cdp_provider.core.exceptions import ConfigurationError
from cdp_provider.core.project.faults import ProjectError
from cdp_provider.factory import CdpDag, Node, Translator
from cdp_provider.retries import CdpRetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable

    from cdp_provider.core.project.model import Project

ROOT = Path(__file__).parent.parent.parent

EDGES = {
    "crm.land_customers": {"crm.check_customers"},
    "crm.check_customers": {"gate"},
    "crm.land_staff": {"crm.check_staff"},
    "crm.check_staff": {"gate"},
    "web.land_visitors": {"web.check_visitors"},
    "web.check_visitors": {"gate"},
    "gate": {"resolve_identity"},
    "resolve_identity": {"build_profiles"},
    "build_profiles": {"build_segments"},
    "build_segments": {"run_report", "syncs.known_to_mail", "syncs.all_to_mail"},
    "syncs.known_to_mail": {"run_report"},
    "syncs.all_to_mail": {"run_report"},
    "run_report": set(),
}


@pytest.fixture
def dag(project_file: Callable[..., Path]) -> CdpDag:
    return CdpDag(project=project_file())


def test_tasks_and_their_order(dag: CdpDag) -> None:
    assert {task.task_id: task.downstream_task_ids for task in dag.tasks} == EDGES
    assert set(dag.task_group.children) == {
        *("crm", "web", "syncs"),
        *("gate", "resolve_identity", "build_profiles", "build_segments", "run_report"),
    }


def test_the_dag_is_what_the_project_says(dag: CdpDag) -> None:
    assert (dag.dag_id, dag.schedule, dag.tags, dag.description) == (
        "acme",
        "0 5 * * *",
        {"one", "two"},
        "A test.",
    )
    assert (dag.max_active_runs, dag.catchup, dag.owner) == (1, False, "growth")
    for text in ("# acme", "crm.customers", "With an address.", "known_to_mail", "`acme`"):
        assert text in (dag.doc_md or "")


def test_every_task_is_explained_and_retried(dag: CdpDag) -> None:
    for task in dag.tasks:
        assert task.doc_md
        assert task.owner == "growth"
        assert (task.warehouse_conn_id, task.schema) == ("wh", "acme")
        assert task.retry_policy == CdpRetryPolicy()
        assert task.retries >= 3 or task.task_id == "run_report"
        rule = TriggerRule.ALL_DONE if task.task_id in ("gate", "run_report") else TriggerRule.ALL_SUCCESS
        assert task.trigger_rule == rule
    assert "goes on without it" in dag.get_task("crm.check_customers").doc_md
    assert "`crm.customers`" not in dag.get_task("gate").doc_md


def test_assets(dag: CdpDag) -> None:
    outlets = {(asset.name, asset.uri) for task in dag.tasks for asset in task.outlets}
    assert outlets == {
        (f"acme/{path}", f"cdp://acme/{path}")
        for path in (
            *("streams/crm.customers", "streams/crm.staff", "streams/web.visitors"),
            *("identity", "profiles"),
            *(
                f"segments/{name}{change}"
                for name in ("known", "busy")
                for change in ("", "/entered", "/left")
            ),
            *("syncs/known_to_mail", "syncs/all_to_mail"),
        )
    }


def test_assets_of_segments_say_what_their_events_tell(dag: CdpDag) -> None:
    task = dag.get_task("build_segments")
    assert [(asset.name, asset.extra) for asset in task.outlets[:3]] == [
        ("acme/segments/known", {"segment": "known"}),
        ("acme/segments/known/entered", {"segment": "known", "change": "entered"}),
        ("acme/segments/known/left", {"segment": "known", "change": "left"}),
    ]
    assert [segment.name for segment in task.segmentation.segments] == ["known", "busy"]


def test_sources_without_a_connection_lie_next_to_the_project(dag: CdpDag, tmp_path: Path) -> None:
    assert dag.get_task("web.land_visitors").root == str(tmp_path)
    assert dag.get_task("web.land_visitors").source_conn_id is None
    assert dag.get_task("crm.land_staff").source_conn_id == "files"


def test_arguments_win_over_the_project(project_file: Callable[..., Path]) -> None:
    dag = CdpDag(
        project=project_file(),
        dag_id="other",
        schedule=None,
        tags=["mine"],
        default_args={"retries": 5, "execution_timeout": timedelta(hours=1)},
    )
    assert (dag.dag_id, dag.schedule, dag.tags) == ("other", None, {"mine"})
    task = dag.get_task("gate")
    assert (task.retries, task.execution_timeout) == (5, timedelta(hours=1))
    assert task.owner == "growth"


def test_a_translator_names_things_otherwise(project_file: Callable[..., Path]) -> None:
    class Mine(Translator):
        def task_id(self, node: Node) -> str:
            return f"{node.stage}__{node.name.replace('.', '_')}" if node.name != "-" else node.stage

        def group_id(self, node: Node) -> str | None:
            return None

        def owner(self, project: Project, node: Node) -> str:
            return "mail-team" if node.stage == "sync" else project.owner

    dag = CdpDag(project=project_file(), translator=Mine())
    assert "land__crm_customers" in dag.task_ids
    assert dag.get_task("sync__all_to_mail").owner == "mail-team"
    assert "run_report" not in dag.task_ids


def test_task_ids_do_not_depend_on_the_order(project_file: Callable[..., Path]) -> None:
    swapped = CdpDag(
        project=project_file(
            ("  crm:\n", "  zoo:\n"), ("crm.customers", "zoo.customers"), ("  web:\n", "  crm:\n")
        )
    )
    assert {"crm.land_visitors", "zoo.land_customers"} <= set(swapped.task_ids)


SYNCS = ("known_to_mail", "all_to_mail")
UPSERT = "upsert: {method: POST, path: /members, body: members}"
GUARDED = (
    ("{segment: known,", "{segment: known, mode: mirror, approve_above: 0.2,"),
    (UPSERT, f"{UPSERT}\n    remove: {{method: POST, path: /gone, body: members}}"),
)


@pytest.fixture
def guarded(project_file: Callable[..., Path]) -> CdpDag:
    """One of its two syncs may not remove many without an approval."""
    return CdpDag(project=project_file(*GUARDED))


def test_removals_that_need_an_approval_are_two_steps_more(guarded: CdpDag) -> None:
    assert {task.task_id: task.downstream_task_ids for task in guarded.tasks} == {
        **EDGES,
        "build_segments": {"run_report", "syncs.ask_known_to_mail", "syncs.all_to_mail"},
        # an XCom that is read is an edge too
        "syncs.ask_known_to_mail": {"syncs.approve_known_to_mail"},
        "syncs.approve_known_to_mail": {"syncs.known_to_mail"},
    }
    ask, approve, sync = (guarded.get_task(f"syncs.{name}known_to_mail") for name in ("ask_", "approve_", ""))
    assert sync.trigger_rule == TriggerRule.NONE_FAILED
    assert approve.trigger_rule == ask.trigger_rule == TriggerRule.ALL_SUCCESS
    assert (ask.outlets, approve.outlets, len(sync.outlets)) == ([], [], 1)
    assert approve.defaults == ["Reject"]
    assert approve.response_timeout == timedelta(hours=8)
    assert "20%" in ask.doc_md
    assert all(task.owner == "growth" and task.doc_md for task in (ask, approve, sync))
    DagSerialization.to_dict(guarded)


def test_default_args_reach_approvals_and_limits(project_file: Callable[..., Path]) -> None:
    own = {"response_timeout": timedelta(days=2), "limits_conn_id": "my_redis"}
    dag = CdpDag(project=project_file(*GUARDED), default_args=own)
    assert dag.get_task("syncs.approve_known_to_mail").response_timeout == timedelta(days=2)
    assert dag.get_task("syncs.all_to_mail").limits_conn_id == "my_redis"


def test_what_a_run_may_be_asked_for(dag: CdpDag) -> None:
    assert dag.params.dump() == {"dry_run": False, "full_resync": []}
    assert dag.params.get_param("full_resync").schema["examples"] == ["known_to_mail", "all_to_mail"]
    dag.params["full_resync"] = ["all_to_mail"]
    with pytest.raises(ParamValidationError):
        dag.params["full_resync"] = ["al_to_mail"]
    for given, expected in (
        ({"dry_run": False, "full_resync": []}, ("False", "False", "False")),
        ({"dry_run": True, "full_resync": ["known_to_mail"]}, ("True", "True", "False")),
    ):
        one, other = (dag.get_task(f"syncs.{name}").prepare_for_execution() for name in SYNCS)
        for task in (one, other):
            task.render_template_fields({"params": given})
        assert (one.only_preview, one.full_resync, other.full_resync) == expected


def test_params_of_ones_own(project_file: Callable[..., Path]) -> None:
    dag = CdpDag(project=project_file(), params={"dry_run": True, "mine": 1})
    assert dag.params.dump() == {"dry_run": True, "full_resync": [], "mine": 1}


def test_nothing_to_ask_for_without_syncs(project_file: Callable[..., Path]) -> None:
    path = project_file()
    path.write_text(path.read_text().partition("syncs:")[0])
    assert CdpDag(project=path).params.dump() == {}


def test_asking_for_approvals_costs_nothing_where_nobody_does(project_file: Callable[..., Path]) -> None:
    program = (
        "import sys; from cdp_provider.factory import CdpDag; CdpDag(project=sys.argv[1]);"
        "costly = {'airflow.providers.standard.operators.hitl', 'fastapi', 'redis', 'splink'};"
        "assert not costly & set(sys.modules), costly & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program, str(project_file())], check=True, cwd=ROOT)


def test_a_source_called_like_a_step(project_file: Callable[..., Path]) -> None:
    path = project_file(("  web:\n", "  syncs:\n"))
    dag = CdpDag(project=path)  # a group of the same name is shared
    assert "syncs.land_visitors" in dag.task_ids
    with pytest.raises(ConfigurationError, match="would have the same id"):
        CdpDag(project=project_file(("  web:\n", "  gate:\n")))


def test_a_relative_path_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"Path\(__file__\)\.parent / 'shop/cdp\.yaml'"):
        CdpDag(project="shop/cdp.yaml")


def test_a_missing_file() -> None:
    with pytest.raises(ConfigurationError, match=r"gone\.yaml"):
        CdpDag(project="/nowhere/gone.yaml")


def test_serialization_is_small_and_the_same_each_time(project_file: Callable[..., Path]) -> None:
    path = project_file()
    program = (
        "import json, sys; import tests.airflow_env; from cdp_provider.factory import CdpDag;"
        "from airflow.serialization.serialized_objects import DagSerialization;"
        "print(json.dumps(DagSerialization.to_dict(CdpDag(project=sys.argv[1])), sort_keys=True))"
    )
    folder = re.compile(r'"_processor_dags_folder": "[^"]*"')  # of the Airflow that serialized it
    first, second = (
        subprocess.run(
            [sys.executable, "-c", program, str(path)],
            check=True,
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    )
    first, second = (folder.sub("", text.splitlines()[-1]) for text in (first, second))
    assert first == second
    assert "0x" not in re.sub(r"[0-9a-f]{16,}", "", first)  # no repr of an object
    for own in ("identifiers", "primary_key", "answer"):
        assert f'"{own}"' not in first  # the project's models stay out of it


def test_parsing_touches_nothing_but_the_file(
    project_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = project_file()

    def refuse(*_: Any, **__: Any) -> None:
        msg = "parsing must not do this"
        raise AssertionError(msg)

    for target in (
        "airflow.sdk.definitions.connection.Connection.get",
        "airflow.sdk.definitions.variable.Variable.get",
        "airflow.sdk.bases.hook.BaseHook.get_connection",
        "socket.socket.connect",
        "duckdb.connect",
        "psycopg.connect",
        "psycopg.Connection.connect",
    ):
        monkeypatch.setattr(target, refuse)
    DagSerialization.to_dict(CdpDag(project=path))


def test_a_faulty_project_is_an_import_error_of_its_own_dag(
    project_file: Callable[..., Path], tmp_path: Path
) -> None:
    project_file(name="good.yaml")
    project_file(("trait: rows, at_least", "trait: rowz, at_least"), ("owner:", "ownr:"), name="bad.yaml")
    for name in ("good", "bad"):
        (tmp_path / f"{name}.py").write_text(
            "from pathlib import Path\n"
            "from cdp_provider.factory import CdpDag  # for Airflow\n"
            f'dag = CdpDag(Path(__file__).parent / "{name}.yaml", dag_id="{name}")\n'
        )
    bag = DagBag(str(tmp_path), load_op_links=False)
    assert set(bag.dags) == {"good"}
    (faulty,) = bag.import_errors
    assert faulty.endswith("bad.py")
    for text in ("bad.yaml:", "ownr", "rowz"):
        assert text in bag.import_errors[faulty]


def test_the_error_is_one_of_the_project(project_file: Callable[..., Path]) -> None:
    with pytest.raises(ProjectError):
        CdpDag(project=project_file(("owner:", "ownr:")))
