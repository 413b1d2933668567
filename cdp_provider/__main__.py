# SPDX-License-Identifier: Apache-2.0
"""``python -m cdp_provider validate cdp.yaml`` and ``python -m cdp_provider schema``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cdp_provider.core.project.faults import ProjectError
from cdp_provider.core.project.schema import json_schema
from cdp_provider.core.registry import KINDS, load_project

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cdp_provider.core.project.model import Project


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 0 when all is well, 1 when a project has faults. Wrong usage exits with 2."""
    parser = argparse.ArgumentParser(prog="python -m cdp_provider", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    validate = commands.add_parser(
        "validate", help="say what is wrong with project files, or that nothing is"
    )
    validate.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="a project file")
    commands.add_parser("schema", help="print the JSON Schema of project files, for editors")
    options = parser.parse_args(arguments)
    if options.command == "schema":
        print(json.dumps(json_schema(KINDS), indent=2))
        return 0
    return max(_validate(path) for path in options.paths)


def _validate(path: Path) -> int:
    try:
        project = load_project(path)
    except ProjectError as error:
        for fault in error.faults:
            print(fault)
        return 1
    print(f"{path}: ok, {_summary(project)}")
    return 0


def _summary(project: Project) -> str:
    counts = {
        "stream": sum(1 for _ in project.streams()),
        "segment": len(project.segments),
        "sync": len(project.syncs),
    }
    return ", ".join(f"{count} {name if count == 1 else name + 's'}" for name, count in counts.items())


if __name__ == "__main__":
    sys.exit(main())
