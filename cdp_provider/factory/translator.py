# SPDX-License-Identifier: Apache-2.0
"""How the steps of a project are called in Airflow; subclass :class:`Translator` to call them otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from airflow.sdk import Asset

if TYPE_CHECKING:
    from cdp_provider.core.project.model import Project

Stage = Literal[
    "land", "check", "gate", "resolve", "profiles", "segments", "ask", "approve", "sync", "report"
]

_TASK_IDS = {
    "gate": "gate",
    "resolve": "resolve_identity",
    "profiles": "build_profiles",
    "segments": "build_segments",
    "report": "run_report",
}

#: The steps of one sync -> what stands before its name in their ids.
_OF_A_SYNC = {"ask": "ask_", "approve": "approve_", "sync": ""}


@dataclass(frozen=True)
class Node:
    """One step of a project.

    :param name: the stream (``crm.customers``) of land and check, the sync of ask, approve and sync; else
        ``-``.
    """

    stage: Stage
    name: str = "-"


class Translator:
    """Maps a node to its task id, group, assets and owner.

    Task ids depend on names alone, so a task keeps its history when the project is rearranged. Give
    ``CdpDag`` an object of a subclass to change any of it.
    """

    def task_id(self, node: Node) -> str:
        """The task's id within its group."""
        if node.stage in ("land", "check"):
            return f"{node.stage}_{node.name.rpartition('.')[2]}"
        if node.stage in _OF_A_SYNC:
            return f"{_OF_A_SYNC[node.stage]}{node.name}"
        return _TASK_IDS[node.stage]

    def group_id(self, node: Node) -> str | None:
        """The task group that holds the node; None for the top level."""
        if node.stage in ("land", "check"):
            return node.name.partition(".")[0]
        return "syncs" if node.stage in _OF_A_SYNC else None

    def assets(self, project: Project, node: Node) -> list[Asset]:
        """What the node produces. A stream exists for others once its batch has passed its check."""
        if node.stage == "check":
            return [self.asset(project, f"streams/{node.name}")]
        if node.stage == "resolve":
            return [self.asset(project, "identity")]
        if node.stage == "profiles":
            return [self.asset(project, "profiles")]
        if node.stage == "segments":
            return [asset for name in project.segments for asset in self.segment_assets(project, name)]
        if node.stage == "sync":
            return [self.asset(project, f"syncs/{node.name}")]
        return []

    def segment_assets(self, project: Project, name: str) -> list[Asset]:
        """The asset of a segment, which has an event each run, and those that have one only when somebody
        entered, or left. What their extra names is what their events say."""
        path = f"segments/{name}"
        changes = [
            self.asset(project, f"{path}/{change}", segment=name, change=change)
            for change in ("entered", "left")
        ]
        return [self.asset(project, path, segment=name), *changes]

    def asset(self, project: Project, path: str, **extra: str) -> Asset:
        """The asset at `path` below the project: ``shop/segments/vip``, ``cdp://shop/segments/vip``."""
        name = f"{project.project}/{path}"
        return Asset(name=name, uri=f"cdp://{name}", group="cdp", extra=dict(extra))

    def owner(self, project: Project, node: Node) -> str:
        """Whom Airflow shows as the task's owner."""
        return project.owner
