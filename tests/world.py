# SPDX-License-Identifier: Apache-2.0
"""A small shop and the whole road over it, without Airflow: for tests that compare whole outcomes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import psycopg

from cdp_provider.core.activation.limiter import SqliteLimits
from cdp_provider.core.activation.sync import sync
from cdp_provider.core.http import Endpoint
from cdp_provider.core.identity.resolve import resolve
from cdp_provider.core.ingest import CONNECTORS
from cdp_provider.core.ingest.contracts import check
from cdp_provider.core.ingest.files import FilesConnector
from cdp_provider.core.ingest.gate import gate
from cdp_provider.core.ingest.landing import land
from cdp_provider.core.profiles.build import build_profiles
from cdp_provider.core.registry import load_project
from cdp_provider.core.segments.membership import build_segments
from cdp_provider.core.warehouse import DuckDBWarehouse, PostgresWarehouse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cdp_provider.core.run import Run
    from cdp_provider.core.runs import Report
    from cdp_provider.core.warehouse import Warehouse

PROJECT = Path(__file__).parent.parent / "dags" / "shop" / "cdp.yaml"

#: What every run of the road must leave alike, and the columns that may differ between two clean runs.
COMPARED = {
    "loads": {"run_id", "cursor_before", "bytes"},
    "files": {"modified"},
    "quarantine": {"run_id"},
    "identifiers": set(),
    "row_links": set(),
    "merges": {"run_id"},
    "refused_links": {"run_id"},
    "profiles": set(),
    "profile_history": set(),
    "memberships": {"entered_run", "left_run"},
    "segment_sizes": {"run_id"},
    "segment_overlap": set(),
    "sync_ledger": {"run_id"},
    "progress": {"run_id"},
    "runs": {"run_id", "seconds", "bytes", "detail"},
}


@dataclass(frozen=True)
class World:
    """Where a road runs; plain values, so that a child process can be told of it."""

    engine: str
    place: str
    schema: str
    vendor_url: str
    data: str

    @property
    def warehouse(self) -> Warehouse:
        if self.engine == "duckdb":
            return DuckDBWarehouse(lambda: duckdb.connect(self.place), schema=self.schema, lock_timeout=30)
        return PostgresWarehouse(lambda: psycopg.connect(self.place), schema=self.schema, lock_timeout=30)

    def steps(self) -> list[tuple[str, str]]:
        """Stage and node of every step, in an order that the DAG allows."""
        project = load_project(PROJECT)
        streams = [stream.ref for stream in project.streams()]
        return [
            *(("land", ref) for ref in streams),
            *(("check", ref) for ref in streams),
            *((stage, "-") for stage in ("gate", "resolve", "profiles", "segments")),
            *(("sync", name) for name in project.syncs),
        ]

    def step(self, stage: str, node: str, run: Run) -> Report:
        """Do one step."""
        project = load_project(PROJECT)
        streams = list(project.streams())
        stream = next((s for s in streams if s.ref == node), None)
        warehouse = self.warehouse
        if stage == "land":
            kind = CONNECTORS[project.sources[stream.source].type]
            token = "shop-crm-token"  # noqa: S105 - the stand-in's, which is in its documentation
            connector = FilesConnector(self.data) if kind is FilesConnector else kind(self.endpoint(token))
            return land(warehouse, stream, connector, run)
        if stage == "check":
            return check(warehouse, stream, run)
        if stage == "gate":
            return gate(warehouse, streams, run)
        if stage == "resolve":
            return resolve(warehouse, project.identity, streams, run)
        if stage == "profiles":
            return build_profiles(warehouse, project.profiles, streams, run)
        if stage == "segments":
            return build_segments(warehouse, project.segmentation(), project.profiles, streams, run)
        declared = project.syncs[node]
        destination = project.destinations[declared.destination]
        token = "shop-mail-token" if destination.name == "mail" else "shop-crm-token"  # noqa: S105
        limits = SqliteLimits(Path(self.data) / f"limits-{self.schema}.sqlite")
        return sync(
            warehouse,
            declared,
            destination,
            self.endpoint(token),
            run,
            profiles=project.profiles,
            limits=limits,
        )

    def endpoint(self, token: str) -> Endpoint:
        return Endpoint(self.vendor_url, headers={"Authorization": f"Bearer {token}"})

    def snapshot(self) -> dict[str, list[tuple[Any, ...]]]:
        """All tables that must be equal, as sorted rows."""
        return dict(self._tables())

    def _tables(self) -> Iterator[tuple[str, list[tuple[Any, ...]]]]:
        warehouse = self.warehouse
        raw = [stream.raw_table for stream in load_project(PROJECT).streams()]
        with warehouse.session() as session:
            for table, ignored in {**COMPARED, **dict.fromkeys(raw, set())}.items():
                names = [name for name in session.columns(table) if name not in ignored]
                columns = ", ".join(warehouse.quote(name) for name in names)
                rows = session.fetch(f"select {columns} from {warehouse.table(table)}")
                yield table, sorted(rows, key=repr)
