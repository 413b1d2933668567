# SPDX-License-Identifier: Apache-2.0
"""An Airflow of the tests' own. Import it before anything imports airflow."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import tempfile
from pathlib import Path

import psycopg

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
