# SPDX-License-Identifier: Apache-2.0
"""Parsing a large project into a DAG, against the same graph written by hand with Airflow's own operators.

``make bench-parse``. The project has 100 streams, 100 segments and 20 syncs.
"""

from __future__ import annotations

import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.table import Measured, side_by_side

if TYPE_CHECKING:
    from airflow.sdk import DAG

STREAMS, SEGMENTS, SYNCS = 100, 100, 20


def project() -> dict[str, Any]:
    """The project file's content."""
    stream = {
        "path": "data/*.csv",
        "format": "csv",
        "primary_key": "id",
        "time": "at",
        "columns": {"id": "string", "email": "string", "amount": "decimal", "at": "timestamp"},
        "identifiers": {"email": "email"},
    }
    call = {"path": "/people", "body": "people"}
    return {
        "project": "large",
        "warehouse": {"connection": "cdp_warehouse"},
        "sources": {
            f"source_{s}": {"type": "files", "streams": {f"stream_{n}": stream for n in range(10)}}
            for s in range(STREAMS // 10)
        },
        "identity": {"identifiers": {"email": {"normalize": "email"}}},
        "profiles": {
            "fields": {"email": {"from": ["source_0.stream_0.email"]}},
            "traits": {"spent": {"type": "sum", "stream": "source_0.stream_0", "column": "amount"}},
        },
        "segments": {f"segment_{n}": {"where": {"trait": "spent", "at_least": n}} for n in range(SEGMENTS)},
        "destinations": {
            "mail": {
                "type": "http",
                "connection": "mail",
                "rate": {"requests": 10, "per": "1 second"},
                "upsert": call,
                "key": "email",
            }
        },
        "syncs": {
            f"sync_{n}": {"segment": f"segment_{n}", "destination": "mail", "key": "email"}
            for n in range(SYNCS)
        },
    }


def by_hand() -> DAG:
    """As many tasks, dependencies and assets as the project makes, with operators that do nothing."""
    from airflow.providers.standard.operators.empty import EmptyOperator
    from airflow.sdk import DAG, Asset

    with DAG("by_hand", schedule=None, start_date=datetime(2024, 1, 1, tzinfo=UTC)) as dag:
        trunk = [EmptyOperator(task_id=f"trunk_{n}") for n in range(5)]
        for before, after in zip(trunk, trunk[1:], strict=False):
            before >> after
        for n in range(STREAMS):
            check = EmptyOperator(task_id=f"check_{n}", outlets=[Asset(f"stream_{n}")])
            EmptyOperator(task_id=f"land_{n}") >> check >> trunk[0]
        for n in range(SYNCS):
            trunk[3] >> EmptyOperator(task_id=f"sync_{n}", outlets=[Asset(f"sync_{n}")]) >> trunk[4]
    return dag


def run() -> list[Measured]:
    """Seconds, median of seven rounds; imports are done before."""
    from cdp_provider.core.registry import load_project
    from cdp_provider.factory import CdpDag

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cdp.yaml"
        path.write_text(json.dumps(project(), indent=1))  # JSON is YAML; no aliases
        taken = side_by_side(
            7,
            ours=lambda: CdpDag(project=path),
            load=lambda: load_project(path),
            floor=by_hand,
        )
    note = f"of which reading and checking cdp.yaml {taken['load']:.2f} s; goal: seconds"
    what = f"{STREAMS} streams, {SEGMENTS} segments, {SYNCS} syncs to a DAG, seconds"
    return [Measured(what, taken["ours"], None, taken["floor"], None, 1.0, note)]
