# SPDX-License-Identifier: Apache-2.0
"""A project as one DAG."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.sdk import DAG, Param, TaskGroup, TriggerRule
from airflow.sdk.exceptions import DuplicateTaskIdFound

from cdp_provider.core.exceptions import ConfigurationError
from cdp_provider.core.project.contract_checks import looked_into
from cdp_provider.core.project.model import Project
from cdp_provider.core.registry import load_project
from cdp_provider.factory.docs import of_dag, of_task
from cdp_provider.factory.translator import Node, Translator
from cdp_provider.operators.base import CDP_RETRY_POLICY
from cdp_provider.operators.check_contract import CheckContractOperator
from cdp_provider.operators.gate import GateOperator
from cdp_provider.operators.identity import ResolveIdentityOperator
from cdp_provider.operators.ingest import IngestOperator
from cdp_provider.operators.profiles import BuildProfilesOperator
from cdp_provider.operators.report import RunReportOperator
from cdp_provider.operators.segments import BuildSegmentsOperator
from cdp_provider.operators.sync import SyncAudienceOperator

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator

    from cdp_provider.core.project.activation import Sync
    from cdp_provider.core.project.streams import Source, Stream
    from cdp_provider.operators.base import CdpOperator

T = TypeVar("T", bound="BaseOperator")

#: A crash of all of Airflow costs a try, so one retry is not enough.
_TASK_DEFAULTS: dict[str, Any] = {
    "retries": 3,
    "retry_delay": timedelta(seconds=10),
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": timedelta(minutes=10),
    "retry_policy": CDP_RETRY_POLICY,
}


class CdpDag(DAG):
    """The whole road of a project: land and check each stream, resolve, profiles, segments, syncs, report.

    Parsing opens no connection and reads no Variable; the project alone decides what the DAG looks like.

    :param project: absolute path of a ``cdp.yaml``, or a loaded project.
    :param dag_id: the project's name when None. It names the pipeline in all ledgers: a DAG that is renamed
        starts its streams anew.
    :param translator: decides task ids, groups, assets and owners.
    :param dag_kwargs: as of Airflow's ``DAG``; they win over the project's schedule, owner and tags.
    :raises ProjectError: the file has faults; the message lists all of them.
    :raises ConfigurationError: the path is relative, or two steps would get one id.
    """

    def __init__(
        self,
        project: str | Path | Project,
        *,
        dag_id: str | None = None,
        translator: Translator | None = None,
        **dag_kwargs: Any,
    ) -> None:
        path = None if isinstance(project, Project) else _absolute(Path(project))
        declared = project if isinstance(project, Project) else load_project(Path(project))
        settings = {
            "description": declared.description or None,
            "schedule": declared.schedule,
            "start_date": datetime(2024, 1, 1, tzinfo=UTC),
            "catchup": False,
            "max_active_runs": 1,
            "max_active_tasks": 8,
            "tags": list(declared.tags),
            "doc_md": of_dag(declared),
            **dag_kwargs,
        }
        settings["params"] = {**_params(declared), **(dag_kwargs.get("params") or {})}
        settings["default_args"] = {
            **_TASK_DEFAULTS,
            "owner": declared.owner,
            **dag_kwargs.get("default_args", {}),
        }
        super().__init__(dag_id or declared.project, **settings)
        with self:
            _Builder(declared, translator or Translator(), str(path.parent) if path else None).build()


def _params(project: Project) -> dict[str, Param]:
    """What a run can be asked for when it is started by hand."""
    if not project.syncs:
        return {}
    names = list(project.syncs)
    return {
        "dry_run": Param(
            False,
            type="boolean",
            title="Dry run",
            description="Syncs say what they would send, and send nothing. All other steps run as ever.",
        ),
        "full_resync": Param(
            [],
            type="array",
            items={"type": "string", "enum": names},
            examples=names,  # the form offers these
            title="Full resync",
            description="Syncs that send everything anew, changed or not.",
        ),
    }


_DRY_RUN = "{{ params.dry_run }}"
_FULL_RESYNC = "{{ %r in params.full_resync }}"


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        msg = (
            f"the project's path {str(path)!r} is relative, and Airflow parses DAG files in a folder of its"
            f" own; write CdpDag(project=Path(__file__).parent / {str(path)!r})"
        )
        raise ConfigurationError(msg)
    return path


class _Builder:
    """Adds a project's tasks to the DAG whose context it is in."""

    def __init__(self, project: Project, translator: Translator, root: str | None) -> None:
        self.project = project
        self.translator = translator
        self.root = root
        self.streams = tuple(project.streams())
        self.known = {stream.ref: stream for stream in self.streams}
        self.groups: dict[str, TaskGroup] = {}

    def build(self) -> None:
        gate, resolve, profiles, segments, report = self._trunk()
        gate >> resolve >> profiles >> segments >> report
        self._read(gate)
        for sync in self.project.syncs.values():
            first, last = self._sync(sync)
            segments >> first
            last >> report

    def _read(self, gate: CdpOperator) -> None:
        """Land and check each stream, after those that it is made of have passed."""
        lands: dict[str, CdpOperator] = {}
        checks: dict[str, CdpOperator] = {}
        for source in self.project.sources.values():
            for stream in source.streams.values():
                lands[stream.ref], checks[stream.ref] = self._land(source, stream), self._check(stream)
                lands[stream.ref] >> checks[stream.ref] >> gate
        for stream in self.streams:
            for ref in stream.options.after():
                checks[ref] >> lands[stream.ref]
            for ref in looked_into(stream):
                checks[ref] >> checks[stream.ref]

    def _trunk(self) -> tuple[CdpOperator, ...]:
        """The steps that a project has once."""
        project, streams = self.project, self.streams
        profiles = {"profiles": project.profiles, "streams": streams}
        all_done = {"trigger_rule": TriggerRule.ALL_DONE}
        return (
            self._task(GateOperator, Node("gate"), streams=streams, **all_done),
            self._task(ResolveIdentityOperator, Node("resolve"), identity=project.identity, streams=streams),
            self._task(BuildProfilesOperator, Node("profiles"), **profiles),
            self._task(
                BuildSegmentsOperator, Node("segments"), segmentation=project.segmentation(), **profiles
            ),
            self._task(RunReportOperator, Node("report"), retries=0, **all_done),
        )

    def _land(self, source: Source, stream: Stream) -> CdpOperator:
        return self._task(
            IngestOperator,
            Node("land", stream.ref),
            stream=stream.model_copy(update={"options": stream.options.beside(self.known)}),
            source_conn_id=source.connection,
            root=self.root,
        )

    def _check(self, stream: Stream) -> CdpOperator:
        # Whatever became of the streams that it refers to, it holds its own batch against what is there.
        rule = TriggerRule.ALL_DONE if looked_into(stream) else TriggerRule.ALL_SUCCESS
        return self._task(CheckContractOperator, Node("check", stream.ref), stream=stream, trigger_rule=rule)

    def _sync(self, sync: Sync) -> tuple[BaseOperator, BaseOperator]:
        """The first and the last step of a sync, which are one where no removal needs an approval."""
        shared = {
            "sync": sync,
            "destination": self.project.destinations[sync.destination],
            "profiles": self.project.profiles,
            "consent": self.project.consent,
            "only_preview": _DRY_RUN,
        }
        send = partial(
            self._task,
            SyncAudienceOperator,
            Node("sync", sync.name),
            full_resync=_FULL_RESYNC % sync.name,
            **shared,
        )
        if sync.approve_above is None:
            return (task := send()), task
        from cdp_provider.operators.approve import ApproveRemovalsOperator, AskRemovalsOperator

        ask = self._task(AskRemovalsOperator, Node("ask", sync.name), **shared)
        approve = self._place(ApproveRemovalsOperator, Node("approve", sync.name), proposed=ask.output)
        return ask, send(approval=approve.output, trigger_rule=TriggerRule.NONE_FAILED)

    def _task(self, operator: type[CdpOperator], node: Node, **arguments: Any) -> CdpOperator:
        """A step in the warehouse."""
        return self._place(
            operator,
            node,
            warehouse_conn_id=self.project.warehouse.connection,
            schema=self.project.warehouse.schema_name,
            **arguments,
        )

    def _place(self, operator: type[T], node: Node, **arguments: Any) -> T:
        """A task as the translator wants it."""
        try:
            return operator(
                task_id=self.translator.task_id(node),
                task_group=self._group(node),
                owner=self.translator.owner(self.project, node),
                doc_md=of_task(self.project, node),
                outlets=self.translator.assets(self.project, node),
                **arguments,
            )
        except DuplicateTaskIdFound as error:
            msg = (
                f"two steps of the project {self.project.project!r} would have the same id in the DAG:"
                f" {error} A source must not be called as a step is, nor as the group of syncs; rename it,"
                " or give CdpDag a translator that tells them apart"
            )
            raise ConfigurationError(msg) from error

    def _group(self, node: Node) -> TaskGroup | None:
        name = self.translator.group_id(node)
        if name is None:
            return None
        if name not in self.groups:
            self.groups[name] = TaskGroup(name)
        return self.groups[name]
