# SPDX-License-Identifier: Apache-2.0
"""What Airflow's UI says about a DAG and its tasks, written from the project as Markdown."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from cdp_provider.core.ingest.rules import failing
from cdp_provider.core.project.identity import RULES, rule_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import timedelta
    from decimal import Decimal

    from cdp_provider.core.project.activation import Consent, Rate, Sync
    from cdp_provider.core.project.identity import Identifier, Identity
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
        parts += _identity(project.identity)
    if project.segments:
        parts += _groups(project)
    if project.syncs:
        parts += ["## Syncs", _table(("sync", "whom", "to", "mode"), map(_sync_row, project.syncs.values()))]
    if project.consent.purposes or project.consent.suppressed:
        parts += _consent(project.consent)
    return "\n\n".join(part for part in parts if part)


def _groups(project: Project) -> list[str]:
    """Segments, what narrows them, and splits."""
    segments = project.segments.values()
    parts = ["## Segments", _table(("segment", "who"), ((s.name, s.description or "-") for s in segments))]
    if project.suppression:
        parts.append(f"Members of these belong to no other segment: {_names(project.suppression)}.")
    parts += [
        f"Who would belong to several of these belongs to the first of them only: {_names(names)}."
        for names in project.exclusive.values()
    ]
    if project.splits:
        shares = (
            (
                split.name,
                split.segment or "all profiles",
                ", ".join(f"{n} {_share(s)}" for n, s in split.groups.items()),
            )
            for split in project.splits.values()
        )
        parts += ["Divided by chance:", _table(("split", "whom", "groups"), shares)]
    return parts


def _share(share: Decimal) -> str:
    return f"{(share * 100).normalize():f} %"


def _consent(consent: Consent) -> list[str]:
    return [
        "## Consent",
        _table(("purpose", "agreed to in"), consent.purposes.items()),
        f"Nobody leaves of whom one of these is true: {_names(consent.suppressed)}.",
    ]


def _identity(identity: Identity) -> list[str]:
    """How it is decided who is who; of rules set by hand only their number, for they name people."""
    rules = identity.identifiers
    counts = Counter(rule_key(rule) for rule in identity.rules)
    by_hand = ", ".join(f"{counts[key]} {key}" for key in RULES if counts[key])
    return [
        "## Identity",
        f"{_STRONGEST} {_OVER_LIMIT[identity.over_limit]}",
        _table(
            ("identifier", "at most", "links nothing above", "normalised as"),
            (
                (name, _limit(rules[name]), _hub(rules[name]), rules[name].normalize)
                for name in identity.ranked()
            ),
        ),
        f"Rules set by hand: {by_hand}." if by_hand else "",
    ]


_STRONGEST = "Strongest identifier first; a profile holds at most so many of each."
_OVER_LIMIT = {
    "demote": "Where a row would give it more, the row's weakest identifiers are dropped until it fits.",
    "refuse": "A link that would give it more is not made.",
    "break": "An identifier through which it would get more is cut off from all others.",
    "evict": "Where a row would give it more, its oldest ones leave it.",
}


def _limit(rule: Identifier) -> str:
    return str(rule.limit) if rule.within is None else f"{rule.limit} in {_span(rule.within)}"


def _hub(rule: Identifier) -> str:
    return "-" if rule.hub is None else f"{rule.hub} others"


def _span(duration: timedelta) -> str:
    days, rest = divmod(duration.total_seconds(), 86_400)
    return f"{duration.total_seconds():g} s" if rest else "1 day" if days == 1 else f"{days:g} days"


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
    if rules := failing(stream):
        limits.append(f"a broken rule: {', '.join(f'`{name}`' for name in rules)}")
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
    profiles = project.profiles
    parts = [
        "Writes the table `profiles`; `field_provenance` says where each value comes from.",
        f"Fields: {_names(profiles.fields)}.",
        f"Traits: {_names(profiles.traits)}.",
    ]
    if profiles.accounts:
        parts.append(f"Accounts, by `{profiles.accounts.key}`: {_names(profiles.accounts.traits)}.")
    if profiles.history:
        parts.append(f"Past values are kept of: {_names(profiles.history)}.")
    return "\n\n".join(parts)


def _segments(project: Project, _: str) -> str:
    return (
        f"Notes in `memberships` who entered and left: {_names(project.segments)}.\n\n"
        "Sizes, and which of them are unusual, stand in `segment_sizes`, what segments share in"
        " `segment_overlap`."
    )


def _sync(project: Project, name: str) -> str:
    sync = project.syncs[name]
    _, whom, destination, mode = _sync_row(sync)
    rates = project.destinations[sync.destination].rate
    allowed = "as many requests as the vendor documents" if rates is None else " and ".join(map(_rate, rates))
    fields = ", ".join(f"`{there}` from `{field.source}`" for there, field in sync.fields.items())
    return (
        f"Keeps {destination} in step with {whom} ({mode}), keyed by `{sync.key}`; sends"
        f" {fields or 'the key'}. At most {allowed}. Only what changed since the last acknowledgement"
        " travels; `sync_ledger` says what was accepted and what was refused."
    )


def _rate(rate: Rate) -> str:
    what = "requests" if rate.requests is not None else "records"
    until = f" (a day in {rate.resets})" if rate.resets else ""
    return f"{rate.amount} {what} per {rate.per.total_seconds():g} s{until}"


def _ask(project: Project, name: str) -> str:
    sync = project.syncs[name]
    return (
        f"Counts whom `{name}` would take away from {sync.destination}, and sends nothing. More than"
        f" {sync.approve_above:.0%} of those that {sync.destination} has acknowledged need an approval."
    )


def _approve(_: Project, name: str) -> str:
    return (
        f"Waits for a person where `{name}` would take many away; skipped where it would not. After a"
        " rejection, or without an answer in time, removals wait and all else is sent."
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
    "ask": _ask,
    "approve": _approve,
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
