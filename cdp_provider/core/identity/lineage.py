# SPDX-License-Identifier: Apache-2.0
"""What became of a profile: every merge, split, eviction and refused link on record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from cdp_provider.core.exceptions import NotFoundError
from cdp_provider.core.identity import store
from cdp_provider.core.identity.explain import require_tables
from cdp_provider.core.identity.explanation import Value, plain
from cdp_provider.core.tables import TABLES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cdp_provider.core.warehouse import Session, Warehouse

_Kind = Literal["published", "merged", "split", "refused", "barred", "evicted"]

_TOLD: Mapping[_Kind, str] = {
    "published": "profile {profile_id} was first published, named after {value}",
    "merged": "profile {profile_id} became part of {other_id}, where {evidence} met in a row of {stream}"
    " (batch {load_id}, position {position})",
    "split": "profile {profile_id} lost {count} identifiers to {other_id} ({rule})",
    "refused": "{value} was not linked by {count} rows ({rule})",
    "barred": "{value} was barred ({rule})",
    "evicted": "{value} left profile {profile_id}",
}
#: What is told first of one identity run.
_ORDER = tuple(_TOLD)


@dataclass(frozen=True)
class Event:
    """Something that happened to a profile.

    :param resolved_seq: the identity run; `run_id` the DAG run that did it, where it is on record.
    :param profile_id: whom it happened to: the one that was merged, split or left.
    :param other_id: the profile it became part of, or lost identifiers to.
    :param rule: limit, hub, ``deny``, or why profiles were split.
    :param evidence: types of the identifiers that met in the row that merged.
    :param count: rows refused, or identifiers that went over.
    """

    kind: _Kind
    resolved_seq: int
    run_id: str | None
    profile_id: int | None = None
    other_id: int | None = None
    value: Value | None = None
    rule: str | None = None
    evidence: str | None = None
    stream: str | None = None
    load_id: int | None = None
    position: int | None = None
    count: int | None = None

    def __str__(self) -> str:
        run = f", run {self.run_id}" if self.run_id else ""
        return f"Identity run {self.resolved_seq}{run}: {_TOLD[self.kind].format_map(vars(self))}."


@dataclass(frozen=True)
class Lineage:
    """A profile's past.

    :param profile_id: the id that was asked for.
    :param today: what the profile is called now.
    :param events: in the order of identity runs.
    """

    profile_id: int
    today: int
    events: tuple[Event, ...]

    def sentences(self) -> list[str]:
        """For people to read, one line each."""
        same = self.profile_id == self.today
        called = "still called so" if same else f"called {self.today} today"
        return [f"Profile {self.profile_id} is {called}.", *map(str, self.events)]

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return plain(self)


def history_of(warehouse: Warehouse, profile_id: int) -> Lineage:
    """What became of a profile, whatever it is called today.

    Merges and splits are those of the id asked for, of all ids that became part of it, and of those that it
    became part of. Refused links, barred identifiers and evictions are those of the profile as it is today.

    :raises NotFoundError: no profile was ever called so, or identity was never resolved here.
    """
    with warehouse.session() as session:
        require_tables(session)
        identifiers = warehouse.table("identifiers")
        line = session.one(
            f"select published_seq, profile_id from {identifiers} where node_id = :node", {"node": profile_id}
        )
        if line is None or line[0] is None:
            msg = (
                f"no profile was ever called {profile_id}; look a current one up by an identifier, and ids of"
                " the past in the view profile_redirect"
            )
            raise NotFoundError(msg)
        merges = _merges(session, profile_id)
        family = {profile_id, *(each for merge in merges for each in (merge.profile_id, merge.other_id))}
        events = [
            *merges,
            *_splits(session, {each for each in family if each is not None}),
            *_of_profile(session, line[1], profile_id),
        ]
    events.sort(key=lambda event: (event.resolved_seq, _ORDER.index(event.kind)))
    return Lineage(profile_id, line[1], tuple(events))


def _merges(session: Session, profile_id: int) -> list[Event]:
    """Into the profile, into those that became part of it, and of the profile into older ones."""
    found: dict[Event, None] = {}
    for column, end in (("winner", "profile_id"), ("loser", "other_id")):
        level, seen = {profile_id}, set[int]()
        while level:
            seen |= level
            merges = [
                Event(
                    "merged",
                    seq,
                    run_id,
                    loser,
                    winner,
                    evidence=evidence,
                    stream=stream,
                    load_id=load_id,
                    position=position,
                )
                for seq, run_id, loser, winner, stream, load_id, position, evidence in _lines(
                    session, "merges", column, level
                )
            ]
            found.update(dict.fromkeys(merges))
            level = {getattr(merge, end) for merge in merges} - seen
    return list(found)


def _splits(session: Session, family: set[int]) -> list[Event]:
    lines = {
        line for side in ("profile_id", "new_profile_id") for line in _lines(session, "splits", side, family)
    }
    return [
        Event("split", seq, run_id, old, new, rule=rule, count=count)
        for seq, run_id, old, new, count, rule in sorted(lines)
    ]


def _lines(session: Session, table: str, column: str, ids: set[int]) -> list[tuple[Any, ...]]:
    wanted = session.temp("cdp_wanted_profiles", pa.table({"profile_id": pa.array(sorted(ids), pa.int64())}))
    columns = ", ".join(f"t.{name}" for name in TABLES[table])
    return session.fetch(
        f"select {columns} from {session.warehouse.table(table)} t"
        f" join {wanted} w on w.profile_id = t.{column} order by t.resolved_seq"
    )


def _of_profile(session: Session, today: int, asked: int) -> Iterator[Event]:
    """What happened to identifiers of the profile, and when it was first published."""
    runs = store.recorded_runs(session)
    identifiers = session.warehouse.table("identifiers")
    lines = session.fetch(
        "select node_id, type, value, published_seq, evicted_seq, profile_id"
        f" from {identifiers} where node_id = :asked or (profile_id = :today and evicted_seq is not null)"
        " order by node_id",
        {"asked": asked, "today": today},
    )
    for node, kind, text, published, evicted, profile in lines:
        value = Value(kind, text)
        if node == asked:
            yield Event("published", published, runs.get(published), asked, value=value)
        if evicted is not None and profile == today:
            yield Event("evicted", evicted, runs.get(evicted), today, value=value)
    yield from _refused(session, today)
    yield from _barred(session, today)


def _refused(session: Session, profile_id: int) -> Iterator[Event]:
    """Links that rows of the profile did not make, and links to its identifiers that others did not make."""
    table = session.warehouse.table
    same = session.warehouse.same_text("f.value", "i.value")
    columns = "f.resolved_seq, f.run_id, f.stream, f.load_id, f.position, f.type, f.value, f.rule"
    lines = session.fetch(
        f"with lines as (select {columns} from {table('refused_links')} f"
        f" join {table('identifiers')} i on {same} and i.type = f.type"
        " where i.profile_id = :profile and i.evicted_seq is null"
        f" union select {columns} from {table('refused_links')} f"
        f" join {table('row_links')} l on l.stream = f.stream and l.load_id = f.load_id"
        f" and l.position = f.position join {table('identifiers')} i on i.node_id = l.node_id"
        " where i.profile_id = :profile)"
        " select f.resolved_seq, f.run_id, f.type, f.value, f.rule, count(*) from lines f"
        " group by f.resolved_seq, f.run_id, f.type, f.value, f.rule order by 1, 3, 4, 5",
        {"profile": profile_id},
    )
    for seq, run_id, kind, text, rule, count in lines:
        yield Event("refused", seq, run_id, value=Value(kind, text), rule=rule, count=count)


def _barred(session: Session, profile_id: int) -> Iterator[Event]:
    table = session.warehouse.table
    same = session.warehouse.same_text("b.value", "i.value")
    lines = session.fetch(
        "select distinct b.resolved_seq, b.run_id, b.type, b.value, b.rule"
        f" from {table('barred_identifiers')} b join {table('identifiers')} i on {same} and i.type = b.type"
        " where i.profile_id = :profile order by 1, 3, 4",
        {"profile": profile_id},
    )
    for seq, run_id, kind, text, rule in lines:
        yield Event("barred", seq, run_id, value=Value(kind, text), rule=rule)
