# SPDX-License-Identifier: Apache-2.0
"""What Airflow discovers is what is there."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from airflow.sdk.module_loading import import_string

from cdp_provider.provider_info import get_provider_info

PACKAGE = Path(__file__).parent.parent / "cdp_provider"
#: Modules of a kind's folder that hold none of the kind.
SHARED = {
    "cdp_provider.operators.base",
    "cdp_provider.operators.lineage",
    *(
        f"cdp_provider.hooks.{name}"
        for name in ("connections", "databases", "folders", "google", "kafka", "limits", "settings")
    ),
}


@pytest.mark.parametrize("kind", ["hooks", "operators", "sensors", "triggers"])
def test_modules_named_are_modules_on_disk(kind: str) -> None:
    named = {module for entry in get_provider_info()[kind] for module in entry["python-modules"]}
    on_disk = {f"cdp_provider.{kind}.{p.stem}" for p in (PACKAGE / kind).glob("*.py")}
    assert named == on_disk - SHARED - {f"cdp_provider.{kind}.__init__"}
    assert all(find_spec(module) for module in named)


def test_connection_types_name_their_hooks() -> None:
    for entry in get_provider_info()["connection-types"]:
        hook = import_string(entry["hook-class-name"])
        assert hook.conn_type == entry["connection-type"]
        assert hook.hook_name == entry["hook-name"]


def test_it_imports_nothing_heavy() -> None:
    program = (
        "import sys; from cdp_provider.provider_info import get_provider_info; get_provider_info();"
        "heavy = {'airflow', 'duckdb', 'pyarrow', 'pydantic', 'psycopg'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=PACKAGE.parent)
