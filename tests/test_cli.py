# SPDX-License-Identifier: Apache-2.0
"""``python -m cdp_provider`` as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cdp_provider.__main__ import main
from cdp_provider.core.project.activation import Destination
from cdp_provider.core.project.streams import Stream
from cdp_provider.core.registry import KINDS

if TYPE_CHECKING:
    from cdp_provider.core.project.base import Model

SHOP = Path(__file__).parent.parent / "dags" / "shop" / "cdp.yaml"


def test_the_example_project_is_good(capsys: pytest.CaptureFixture[str]):
    assert main(["validate", str(SHOP)]) == 0
    assert capsys.readouterr().out == f"{SHOP}: ok, 3 streams, 4 segments, 3 syncs\n"


def test_faults_are_printed_and_fail(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    bad = tmp_path / "cdp.yaml"
    bad.write_text(SHOP.read_text().replace("trait: lifetime_value", "trait: lifetime_valu"))
    assert main(["validate", str(SHOP), str(bad), str(tmp_path / "none.yaml")]) == 1
    out = capsys.readouterr().out
    assert f"{SHOP}: ok" in out
    assert "segments.vip.where.trait: there is no field or trait 'lifetime_valu'" in out
    assert "did you mean 'lifetime_value'?" in out
    assert "none.yaml: there is no such file" in out


def test_the_schema_is_printed(capsys: pytest.CaptureFixture[str]):
    assert main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert {f"{kind.title()}Stream" for kind in KINDS.sources} <= schema["$defs"].keys()


@pytest.mark.parametrize("arguments", [[], ["validate"], ["check", "x"]])
def test_wrong_usage_exits_with_two(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_it_runs_as_a_module_and_never_imports_airflow():
    script = (
        "import runpy, sys\n"
        f"sys.argv = ['cdp_provider', 'validate', {str(SHOP)!r}]\n"
        "try:\n    runpy.run_module('cdp_provider', run_name='__main__')\n"
        "finally:\n    assert not [name for name in sys.modules if name.split('.')[0] == 'airflow']\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "ok, 3 streams" in done.stdout


@pytest.mark.parametrize(("model", "kinds"), [(Stream, KINDS.sources), (Destination, KINDS.destinations)])
def test_options_share_no_key_with_the_model_they_stand_next_to(
    model: type[Model], kinds: dict[str, type[Model]]
):
    for kind, options in kinds.items():
        assert not options.model_fields.keys() & model.model_fields.keys(), kind
