# SPDX-License-Identifier: Apache-2.0
"""``python -m cdp_provider validate cdp.yaml``, and likewise ``schema``, ``explain``, ``rebuild``,
``preview``, ``snapshot``, ``release`` and ``replay``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from cdp_provider.core.exceptions import CdpError, ConfigurationError
from cdp_provider.core.project.faults import ProjectError
from cdp_provider.core.project.problems import did_you_mean
from cdp_provider.core.project.schema import json_schema
from cdp_provider.core.registry import KINDS, load_project

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from cdp_provider.core.project.model import Project
    from cdp_provider.core.warehouse import Warehouse

T = TypeVar("T")


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
    if fault := _misuse(options):
        options.usage(fault)
    return _tell(options)


def _misuse(options: argparse.Namespace) -> str | None:
    """What is wrong with arguments that are right one by one."""
    if options.command == "preview" and (options.sync is None) == (options.segment is None):
        return "give a SYNC, or --segment NAME"
    if options.command != "explain":
        return None
    if len(options.identifiers) != (2 if options.profile is None else 0):
        return "give two identifiers TYPE=VALUE, or --profile ID"
    if options.profile is None and (options.segment or options.field):
        return "--segment and --field ask about a profile; give --profile ID too"
    if options.segment and options.field:
        return "give --segment or --field, one at a time"
    return "--values goes with --segment" if options.values and not options.segment else None


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
        "explain",
        _answer,
        "say why two identifiers are one person or not, what became of a profile, why it is in a segment or"
        " not, or where the value of a field comes from",
    )
    explain.add_argument(
        "identifiers", nargs="*", type=_identifier, metavar="TYPE=VALUE", help="two identifiers"
    )
    explain.add_argument("--profile", type=int, metavar="ID", help="any id that the profile ever had")
    explain.add_argument("--segment", metavar="NAME", help="why the profile is in that segment, or not")
    explain.add_argument("--field", metavar="NAME", help="where the profile's value of that field comes from")
    explain.add_argument("--values", action="store_true", help="with --segment: show what is compared")
    rebuild = question(
        "rebuild",
        _differences,
        "say what identity resolution would decide differently in another order of rows",
    )
    rebuild.add_argument("--by", choices=["event-time"], required=True, help="the order to compare with")
    rebuild.add_argument(
        "--dry-run", action="store_true", required=True, help="write nothing; the recorded order stays"
    )
    preview = question(
        "preview", _preview, "say what a sync would send, or who would be in a segment; nothing is sent"
    )
    preview.add_argument("--segment", metavar="NAME", help="the segment's name in the project")
    preview.add_argument("sync", nargs="?", metavar="SYNC", help="the sync's name in the project")
    snapshot = question("snapshot", _snapshot, "put all profiles as of a moment into a table")
    snapshot.add_argument(
        "--as-of", required=True, metavar="MOMENT", help="2026-01-31 (the end of that day), or a moment"
    )
    snapshot.add_argument("--into", required=True, metavar="TABLE", help="a table of the project's schema")
    replay = question("replay", _replay, "land quarantined rows that fulfil the contract by now")
    replay.add_argument("stream", metavar="STREAM", help="the stream, such as crm.customers")
    replay.add_argument(
        "--batch",
        type=int,
        action="append",
        default=[],
        help="load_id of a batch to look at; all unless said",
    )
    release = question("release", _release, "let the next run of a sync send its dead letters again")
    release.add_argument("sync", metavar="SYNC", help="the sync's name in the project")
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
    if options.segment:
        return _why(options, project, warehouse)
    if options.field:
        return _provenance(options, project, warehouse)
    if options.profile is not None:
        return history_of(warehouse, options.profile)
    one, other = options.identifiers
    return explain(warehouse, project.identity, list(project.streams()), one, other)


def _why(options: argparse.Namespace, project: Project, warehouse: Warehouse) -> Answer:
    from cdp_provider.core.segments.why import why

    segment = _named(project, "segment", project.segments, options.segment)
    asked = (segment, options.profile, project.segmentation(), project.profiles, list(project.streams()))
    return why(warehouse, *asked, values=options.values)


def _provenance(options: argparse.Namespace, project: Project, warehouse: Warehouse) -> Answer:
    from cdp_provider.core.profiles.provenance import provenance

    _named(project, "field", project.profiles.fields, options.field)
    return provenance(warehouse, project.profiles, list(project.streams()), options.profile, options.field)


def _preview(options: argparse.Namespace) -> Answer:
    return _preview_segment(options) if options.segment else _preview_sync(options)


def _preview_segment(options: argparse.Namespace) -> Answer:
    from cdp_provider.core.segments.preview import preview

    project, warehouse = _project(options.path)
    segment = _named(project, "segment", project.segments, options.segment)
    return preview(warehouse, segment, project.segmentation(), project.profiles, list(project.streams()))


def _preview_sync(options: argparse.Namespace) -> Answer:
    from datetime import UTC, datetime

    from cdp_provider.core.activation.preview import preview
    from cdp_provider.core.run import Run, Window

    project, warehouse = _project(options.path)
    sync = _named(project, "sync", project.syncs, options.sync)
    return preview(
        warehouse,
        sync,
        project.destinations[sync.destination],
        Run(project.project, "preview", Window(None, datetime.now(UTC))),
        profiles=project.profiles,
        consent=project.consent,
    )


@dataclass(frozen=True)
class Snapshot:
    """All profiles of a moment lie in a table."""

    table: str
    as_of: str
    profiles: int

    def sentences(self) -> Iterable[str]:
        """One line."""
        yield f"{self.table} holds {self.profiles} profiles as of {self.as_of}."

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def _snapshot(options: argparse.Namespace) -> Answer:
    from cdp_provider.core.profiles.build import snapshot
    from cdp_provider.core.profiles.moments import moment_of

    project, warehouse = _project(options.path)
    as_of = moment_of(options.as_of, project.profiles.timezone)
    rows = snapshot(warehouse, project.profiles, list(project.streams()), as_of, options.into)
    return Snapshot(warehouse.table(options.into), as_of.isoformat(), rows)


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
    sync = _named(project, "sync", project.syncs, options.sync)
    with warehouse.session() as session:
        tables.ensure(session)
        with session.transaction():
            return Released(sync.name, release(session, sync.name, options.keys))


@dataclass(frozen=True)
class Replayed:
    """So many quarantined rows of a stream were landed."""

    stream: str
    looked_at: int
    released: int

    def sentences(self) -> Iterable[str]:
        """One line."""
        yield (
            f"Of {self.looked_at} quarantined rows of {self.stream}, {self.released} fulfil its contract now"
            " and were landed; the next run takes them in."
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def _replay(options: argparse.Namespace) -> Answer:
    from datetime import UTC, datetime

    from cdp_provider.core.ingest.replay import replay
    from cdp_provider.core.run import Run, Window

    project, warehouse = _project(options.path)
    stream = _named(project, "stream", {stream.ref: stream for stream in project.streams()}, options.stream)
    now = datetime.now(UTC)
    run = Run(project.project, f"replay {now.isoformat()}", Window(None, now))
    report = replay(warehouse, stream, run, load_ids=options.batch)
    return Replayed(stream.ref, report.rows_in, report.rows_out)


def _named(project: Project, kind: str, known: Mapping[str, T], name: str) -> T:
    try:
        return known[name]
    except KeyError:
        msg = f"the project {project.project} has no {kind} {name!r}; {did_you_mean(name, known)}"
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
