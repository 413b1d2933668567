# SPDX-License-Identifier: Apache-2.0
"""Data sets beside the repository, and the road from a project file's text to its tables."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cdp_provider.core.identity.resolve import resolve
from cdp_provider.core.ingest.contracts import check
from cdp_provider.core.ingest.files import FilesConnector
from cdp_provider.core.ingest.landing import land
from cdp_provider.core.profiles.build import build_profiles
from cdp_provider.core.registry import load_project
from cdp_provider.core.run import Run, Window
from cdp_provider.core.segments.membership import build_segments

if TYPE_CHECKING:
    from cdp_provider.core.project.model import Project
    from cdp_provider.core.warehouse import Warehouse

DATASETS = Path(__file__).parents[4] / "shared" / "datasets"


def dataset(name: str) -> Path:
    """The folder of a data set; the test is skipped where it is missing, as in a public clone."""
    folder = DATASETS / name
    if not folder.is_dir():
        pytest.skip(f"a public clone has no data set {name}")
    return folder


@dataclass(frozen=True)
class Road:
    """A project, and what its tables hold after one run over all files.

    :param now: end of the run's window.
    """

    warehouse: Warehouse
    project: Project
    now: datetime

    def profiles(self) -> list[dict[str, Any]]:
        """All profiles; JSON as the driver gives it, moments in UTC."""
        with self.warehouse.session() as session:
            return session.arrow(f"select * from {self.warehouse.table('profiles')}").to_pylist()

    def members(self, segment: str) -> set[int]:
        memberships = self.warehouse.table("memberships")
        with self.warehouse.session() as session:
            found = session.fetch(
                f"select profile_id from {memberships} where segment = :segment and left_at is null",
                {"segment": segment},
            )
        return {profile for (profile,) in found}


def travel(
    warehouse: Warehouse,
    text: str,
    folder: Path,
    root: Path,
    now: datetime = datetime(2022, 1, 1, tzinfo=UTC),
) -> Road:
    """Land, check, resolve, build profiles and segments of a project file.

    :param folder: where to write it.
    :param root: the folder that its sources read.
    """
    file = folder / "cdp.yaml"
    file.write_text(text)
    project, run = load_project(file), Run("road", "run", Window(None, now))
    streams = list(project.streams())
    for stream in streams:
        assert land(warehouse, stream, FilesConnector(root), run).rows_refused == 0
        assert check(warehouse, stream, run).state == "ok"
    resolve(warehouse, project.identity, streams, run)
    build_profiles(warehouse, project.profiles, streams, run)
    build_segments(warehouse, project.segmentation(), project.profiles, streams, run)
    return Road(warehouse, project, now)
