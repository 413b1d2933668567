# SPDX-License-Identifier: Apache-2.0
"""``python -m cdp_provider validate cdp.yaml``, and likewise ``schema``, ``explain``, ``rebuild``,
``preview`` and ``release``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from cdp_provider.core.exceptions import CdpError, ConfigurationError
from cdp_provider.core.project.faults import ProjectError
from cdp_provider.core.project.problems import did_you_mean
from cdp_provider.core.project.schema import json_schema
from cdp_provider.core.registry import KINDS, load_project

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from cdp_provider.core.project.activation import Sync
    from cdp_provider.core.project.model import Project
    from cdp_provider.core.warehouse import Warehouse


class Answer(Protocol):
    """What a command has to tell."""

    def sentences(self) -> Iterable[str]:
        """Readable lines."""

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 0 when all is well, 1 when a project has faults or a question has no answer. Wrong usage
    exits with 2."""
    options = _parser().parse_args(arguments)
    if options.command == "validate":
        return max(_validate(path) for path in options.paths)
    if options.command == "schema":
        print(json.dumps(json_schema(KINDS), indent=2))
        return 0
    if options.command == "explain" and len(options.identifiers) != (2 if options.profile is None else 0):
        options.usage("give two identifiers TYPE=VALUE, or --profile ID")
    return _tell(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m cdp_provider", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    validate = commands.add_parser(
        "validate", help="say what is wrong with project files, or that nothing is"
    )
    validate.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="a project file")
    commands.add_parser("schema", help="print the JSON Schema of project files, for editors")

    def question(name: str, ask: Callable[[argparse.Namespace], Answer], purpose: str) -> Any:
        command = commands.add_parser(name, help=purpose)
        command.add_argument("path", type=Path, metavar="PATH", help="the project file")
        command.add_argument("--json", action="store_true", help="print JSON")
        command.set_defaults(ask=ask, usage=command.error)
        return command

    explain = question(
        "explain", _answer, "say why two identifiers are one person or not, or what became of a profile"
    )
    explain.add_argument(
        "identifiers", nargs="*", type=_identifier, metavar="TYPE=VALUE", help="two identifiers"
    )
    explain.add_argument("--profile", type=int, metavar="ID", help="any id that the profile ever had")
    rebuild = question(
        "rebuild",
        _differences,
        "say what identity resolution would decide differently in another order of rows",
    )
    rebuild.add_argument("--by", choices=["event-time"], required=True, help="the order to compare with")
    rebuild.add_argument(
        "--dry-run", action="store_true", required=True, help="write nothing; the recorded order stays"
    )
    preview = question("preview", _preview, "say what a sync would send; nothing is sent")
    release = question("release", _release, "let the next run of a sync send its dead letters again")
    for command in (preview, release):
        command.add_argument("sync", metavar="SYNC", help="the sync's name in the project")
    release.add_argument(
        "--key", action="append", dest="keys", help="key of one record, as in sync_ledger; may be repeated"
    )
    return parser


def _identifier(text: str) -> tuple[str, str]:
    kind, sign, value = text.partition("=")
    if not (kind and sign):
        msg = f"{text!r} is no identifier; write it as TYPE=VALUE"
        raise argparse.ArgumentTypeError(msg)
    return kind, value


def _tell(options: argparse.Namespace) -> int:
    """Print what a question to the warehouse gave."""
    try:
        with redirect_stdout(sys.stderr):  # Airflow logs to standard output, which is for the answer
            answer: Answer = options.ask(options)
    except ProjectError as error:
        for fault in error.faults:
            print(fault)
        return 1
    except CdpError as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps(answer.as_dict(), indent=2) if options.json else "\n".join(answer.sentences()))
    return 0


def _project(path: Path) -> tuple[Project, Warehouse]:
    project = load_project(path)
    # Airflow takes some seconds to import, which the other commands do without. Outside of a task it looks
    # connections up in its database only where it is told so, as its own command line does.
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
    from cdp_provider.hooks.warehouse import WarehouseHook

    return project, WarehouseHook(
        project.warehouse.connection, schema=project.warehouse.schema_name
    ).warehouse


def _differences(options: argparse.Namespace) -> Answer:
    from cdp_provider.core.identity.reorder import by_event_time

    project, warehouse = _project(options.path)
    return by_event_time(warehouse, project.identity, list(project.streams()))


def _answer(options: argparse.Namespace) -> Answer:
    from cdp_provider.core.identity.explain import explain
    from cdp_provider.core.identity.lineage import history_of

    project, warehouse = _project(options.path)
    if options.profile is not None:
        return history_of(warehouse, options.profile)
    one, other = options.identifiers
    return explain(warehouse, project.identity, list(project.streams()), one, other)


def _preview(options: argparse.Namespace) -> Answer:
    from datetime import UTC, datetime

    from cdp_provider.core.activation.preview import preview
    from cdp_provider.core.run import Run, Window

    project, warehouse = _project(options.path)
    sync = _sync(project, options.sync)
    return preview(
        warehouse,
        sync,
        project.destinations[sync.destination],
        Run(project.project, "preview", Window(None, datetime.now(UTC))),
        profiles=project.profiles,
        consent=project.consent,
    )


@dataclass(frozen=True)
class Released:
    """So many records of a sync are sent again."""

    sync: str
    released: int

    def sentences(self) -> Iterable[str]:
        """One line."""
        records = "1 record" if self.released == 1 else f"{self.released} records"
        yield f"Released {records} of {self.sync}; its next run sends what is released."

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def _release(options: argparse.Namespace) -> Answer:
    from cdp_provider.core import tables
    from cdp_provider.core.activation.ledger import release

    project, warehouse = _project(options.path)
    sync = _sync(project, options.sync)
    with warehouse.session() as session:
        tables.ensure(session)
        with session.transaction():
            return Released(sync.name, release(session, sync.name, options.keys))


def _sync(project: Project, name: str) -> Sync:
    try:
        return project.syncs[name]
    except KeyError:
        msg = f"the project {project.project} has no sync {name!r}; {did_you_mean(name, project.syncs)}"
        raise ConfigurationError(msg) from None


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
