# SPDX-License-Identifier: Apache-2.0
"""What Airflow's UI says about a DAG and its tasks, written from the project as Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from cdp_provider.core.project.activation import Sync
    from cdp_provider.core.project.model import Project
    from cdp_provider.core.project.streams import Stream
    from cdp_provider.factory.translator import Node


_WHERE = (
    "Everything is kept in the schema `{}` of the connection `{}`; the table `runs` says what each run did."
)


def of_dag(project: Project) -> str:
    """The project on one page."""
    parts = [
        f"# {project.project}",
        project.description,
        _WHERE.format(project.warehouse.schema_name, project.warehouse.connection),
        "## Sources",
        _table(
            ("stream", "from", "primary key", "identifiers"),
            (
                (
                    stream.ref,
                    f"{source.type}, {source.connection or 'no connection'}",
                    ", ".join(stream.primary_key),
                    ", ".join(stream.identifiers) or "-",
                )
                for source in project.sources.values()
                for stream in source.streams.values()
            ),
        ),
    ]
    if project.identity.identifiers:
        rules = project.identity.identifiers
        parts += [
            "## Identity",
            "Strongest identifier first; a profile holds at most so many of each.",
            _table(
                ("identifier", "at most", "normalised as"),
                ((name, str(rules[name].limit), rules[name].normalize) for name in project.identity.ranked()),
            ),
        ]
    if project.segments:
        parts += [
            "## Segments",
            _table(("segment", "who"), ((s.name, s.description or "-") for s in project.segments.values())),
        ]
    if project.syncs:
        parts += ["## Syncs", _table(("sync", "whom", "to", "mode"), map(_sync_row, project.syncs.values()))]
    return "\n\n".join(part for part in parts if part)


def of_task(project: Project, node: Node) -> str:
    """What the step does, in the project's own words."""
    return _TASKS[node.stage](project, node.name)


def _land(project: Project, name: str) -> str:
    stream = _stream(project, name)
    source = project.sources[stream.source]
    return (
        f"Fetches what `{name}` gained since the last window ({source.type}, connection"
        f" `{source.connection or 'none'}`) and appends it to `{stream.raw_table}`. Malformed rows go to"
        " `quarantine`, with the reason."
    )


def _check(project: Project, name: str) -> str:
    stream = _stream(project, name)
    limits = [f"more than {stream.quarantine.max_share:.0%} of its rows malformed"]
    if stream.quarantine.max_rows is not None:
        limits.append(f"more than {stream.quarantine.max_rows} rows malformed")
    if stream.contract.min_rows:
        limits.append(f"fewer than {stream.contract.min_rows} rows")
    if stream.contract.freshness is not None:
        limits.append(f"newest row older than {stream.contract.freshness}")
    after = "goes on without it" if stream.optional else "stops"
    return (
        f"Holds the batch of `{name}` against its contract before anybody reads it. It fails at:"
        f" {', '.join(limits)}. The road then {after}."
    )


def _gate(project: Project, _: str) -> str:
    needed = [f"`{stream.ref}`" for stream in project.streams() if not stream.optional]
    return f"Lets the road go on when these have passed their check: {', '.join(needed) or 'none'}."


def _resolve(project: Project, _: str) -> str:
    ranked = ", ".join(f"`{name}`" for name in project.identity.ranked())
    return f"Finds out which rows speak of the same person, by {ranked or 'no identifier'}."


def _profiles(project: Project, _: str) -> str:
    return (
        "Writes the table `profiles`.\n\n"
        f"Fields: {_names(project.profiles.fields)}.\n\nTraits: {_names(project.profiles.traits)}."
    )


def _segments(project: Project, _: str) -> str:
    return f"Notes in `memberships` who entered and left: {_names(project.segments)}."


def _sync(project: Project, name: str) -> str:
    sync = project.syncs[name]
    _, whom, destination, mode = _sync_row(sync)
    rate = project.destinations[sync.destination].rate
    fields = ", ".join(f"`{there}` from `{here}`" for there, here in sync.fields.items())
    return (
        f"Keeps {destination} in step with {whom} ({mode}), keyed by `{sync.key}`; sends"
        f" {fields or 'the key'}. At most {rate.requests} requests per"
        f" {rate.per.total_seconds():g} s. Only what changed since the last acknowledgement"
        " travels; `sync_ledger` says what was accepted and what was refused."
    )


def _report(_: Project, __: str) -> str:
    return "Logs one table of what every stage of this run did, and fails when one of them failed."


_TASKS: dict[str, Callable[[Project, str], str]] = {
    "land": _land,
    "check": _check,
    "gate": _gate,
    "resolve": _resolve,
    "profiles": _profiles,
    "segments": _segments,
    "sync": _sync,
    "report": _report,
}


def _stream(project: Project, ref: str) -> Stream:
    source, _, name = ref.partition(".")
    return project.sources[source].streams[name]


def _sync_row(sync: Sync) -> tuple[str, str, str, str]:
    whom = f"segment {sync.segment}" if sync.segment else "all profiles"
    return sync.name, whom, sync.destination, sync.mode


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "none"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
