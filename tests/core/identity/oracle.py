# SPDX-License-Identifier: Apache-2.0
"""Identity resolution once more: slow, without state that could go stale, obviously right.

Every answer goes through the whole history again under the rules of that moment, and looks up profiles by
searching all of them. From run to run it keeps what cannot be recomputed: the number of each identifier, the
profile ids that somebody may remember, and who was where when the last run ended.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from cdp_provider.core.project.identity import Allow, Deny, Exclude, ExcludedRow
from tests.core.identity.landed import SEGMENT, filled, stream_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from cdp_provider.core.project.identity import Identifier, Identity
    from cdp_provider.core.project.streams import Stream


class Value(NamedTuple):
    """What a row carries."""

    kind: str
    text: str


class Member(NamedTuple):
    """What a profile holds. Each eviction ends a life of the value; the next one has a node of its own."""

    kind: str
    text: str
    life: int


class Row(NamedTuple):
    """A recorded row; rows sort in the order in which they count."""

    seq: int
    load_seq: int
    timed: bool
    at: Any
    source: int
    key: str
    position: int
    load_id: int
    values: dict[str, Any]

    @property
    def place(self) -> tuple[int, int, int]:
        return self.seq, self.load_id, self.position

    @property
    def time(self) -> datetime | None:
        return self.at if self.timed else None


class Taken(NamedTuple):
    """A row that was gone through: its identifiers, strongest first, and the allowed pairs it completed."""

    row: Row
    members: list[Member]
    allowed: list[list[Member]]


@dataclass
class Oracle:
    """Rules and streams may be exchanged between runs.

    After :meth:`resolve` it holds what the tables must show. A `place` is (identity run, batch, position).

    :ivar links: (batch, position, node) of rows that belong to a profile.
    :ivar merges: (place, loser, winner, evidence).
    :ivar refused: (place, type, value, rule).
    :ivar barred: (type, value, identity run, rule).
    :ivar splits: (old, new) of the last run.
    """

    identity: Identity
    streams: Sequence[Stream]
    loads: dict[int, dict[str, Any]] = field(default_factory=dict)
    nodes: dict[Member, int] = field(default_factory=dict)
    profiles: list[set[Member]] = field(default_factory=list)
    published: dict[int, int] = field(default_factory=dict)
    seq: int = 0

    def land(self, load_id: int, source: int, rows: list[dict[str, Any]], state: str) -> None:
        load = self.loads.setdefault(load_id, {"source": source, "seq": None})
        load.update(rows=rows, state=state)

    def resolve(self) -> None:
        pending = [load for load in self.loads.values() if load["state"] == "passed" and load["seq"] is None]
        if pending:
            self.seq += 1
        for load in pending:
            load["seq"] = self.seq
        before = self.where()
        self._read_rules()
        self._find_hubs()
        self._go_through()
        self.splits = self._split(before)
        for profile in self.where().values():
            self.published.setdefault(profile, self.seq)

    # What came of it

    def where(self) -> dict[int, int]:
        """Node -> profile, for every identifier that ever was one; those that no row carries stand alone."""
        names = {m: min(self.nodes[other] for other in p) for p in self.profiles for m in p}
        return {node: names.get(m, node) for m, node in self.nodes.items() if m in names or not m.life}

    def identifiers(self) -> set[tuple[Any, ...]]:
        """(node, type, value, profile, identity run that evicted it or None)."""
        where = self.where()
        return {
            (node, m.kind, m.text, where[node], self.evicted.get(m))
            for m, node in self.nodes.items()
            if node in where
        }

    def redirects(self) -> dict[int, int]:
        where = self.where()
        return {old: where[old] for old in self.published if where.get(old, old) != old}

    def _split(self, before: Mapping[int, int]) -> set[tuple[int, int]]:
        now = self.where()
        left = {self.nodes[member] for member in self.evicted}
        moved = {(before[node], now[node]) for node in before.keys() & now.keys() - left}
        return {(old, new) for old, new in moved if old != new and now.get(old) != new}

    # Rules

    def _read_rules(self) -> None:
        rules = self.identity.identifiers
        self.kinds = sorted(rules, key=lambda kind: (rules[kind].priority or float("inf"), kind))
        self.deny: list[tuple[Value, Value]] = []
        self.allow: list[tuple[Value, Value]] = []
        self._excluded: set[Value] = set()
        self._excluded_rows: set[tuple[str, str]] = set()
        for rule in self.identity.rules:
            match rule:
                case Deny(deny=(one, other)):
                    self.deny.append((_value(one), _value(other)))
                case Allow(allow=(one, other)):
                    self.allow.append((_value(one), _value(other)))
                case Exclude(exclude=ExcludedRow(stream=stream, key=(key,))):
                    self._excluded_rows.add((stream, key))
                case Exclude(exclude=dict() as value):
                    self._excluded.add(_value(value))

    def _rule(self, kind: str) -> Identifier:
        return self.identity.identifiers[kind]

    # Value filters

    def rows(self) -> list[Row]:
        rows = [
            Row(
                load["seq"], load_id, row["at"] is not None, row["at"] or 0, load["source"], row["key"],
                position, load_id, row,
            )
            for load_id, load in self.loads.items()
            if load["state"] == "passed"
            for position, row in enumerate(load["rows"], 1)
        ]  # fmt: skip
        return sorted(rows, key=lambda row: row[:-1])

    def carried(self, row: Row) -> list[Value]:
        """Strongest first, none twice; without what is blocked or excluded by hand."""
        columns = self.streams[row.source].identifiers
        found = [
            Value(kind, row.values[column])
            for kind in self.kinds
            for column in columns.get(kind, ())
            if row.values.get(column) and row.values[column] not in self._rule(kind).block
        ]
        return [value for value in dict.fromkeys(found) if value not in self._excluded]

    def left(self, row: Row) -> list[Value]:
        """Without hubs; of a row that is excluded by hand, the strongest."""
        found = [value for value in self.carried(row) if self.hubs.get(value, row.seq + 1) > row.seq]
        return found[:1] if (self.streams[row.source].ref, row.key) in self._excluded_rows else found

    def _find_hubs(self) -> None:
        """Run by run: a hub of an earlier run counts no more, one that is found in this run still does."""
        self.hubs: dict[Value, int] = {}
        for seq in sorted({row.seq for row in self.rows()}):
            for value, others in self._company(seq).items():
                limit = self._rule(value.kind).hub
                if limit is not None and len(others) > limit:
                    self.hubs.setdefault(value, seq)

    def _company(self, until: int) -> dict[Value, set[Value]]:
        company: dict[Value, set[Value]] = {}
        for row in self.rows():
            if row.seq <= until:
                present = [v for v in self.carried(row) if self.hubs.get(v, row.seq) >= row.seq]
                for value in present:
                    company.setdefault(value, set()).update(other for other in present if other != value)
        return company

    # Row by row

    def _go_through(self) -> None:
        self.profiles = []
        self.times: dict[Member, datetime | None] = {}
        self.evicted: dict[Member, int] = {}
        self.broken: dict[Value, int] = {}
        self.merges: list[tuple[Any, ...]] = []
        self.refused: list[tuple[Any, ...]] = []
        self._lives: Counter[Value] = Counter()
        self._taken: list[Taken] = []
        for row in self.rows():
            self._take(row, self.left(row))
        self.merges = self._on_record()

    def _on_record(self) -> list[tuple[Any, ...]]:
        """Merges of profiles that an earlier run had published. One that was published later, because the
        rules or the rows were others then, and is gone again, has its last merge on record."""
        timely = [merge for merge in self.merges if self.published[merge[3]] < merge[0]]
        told, standing = {merge[3] for merge in timely}, set(self.where().values())
        late = {merge[3]: merge for merge in self.merges if merge[3] not in told | standing}
        return [*timely, *late.values()]

    @property
    def links(self) -> list[tuple[int, int, int]]:
        hung = [(row, [m for m in members if not self._is_broken(m)]) for row, members, _ in self._taken]
        return [(row.load_id, row.position, self.nodes[members[0]]) for row, members in hung if members]

    @property
    def barred(self) -> set[tuple[str, str, int]]:
        return {(*value, seq) for barred in (self.hubs, self.broken) for value, seq in barred.items()}

    def _take(self, row: Row, values: list[Value]) -> None:
        known = set(self.times)
        members = [self._member(value) for value in values if value not in self.broken]
        if self.identity.over_limit == "demote":
            self._demote(row, members.copy())
        else:
            self._link_all(row, members)
        pairs = [[self._member(one), self._member(other)] for one, other in self.allow]
        due = [pair for pair in pairs if self.times.keys() >= set(pair) and not known >= set(pair)]
        for pair in due:
            self._allowed(row, pair)
        self._taken.append(Taken(row, members, due))

    def _member(self, value: Value) -> Member:
        return Member(*value, self._lives[value])

    def _demote(self, row: Row, members: list[Member]) -> None:
        while (kind := self._over(members, row)) or self._deny_rule(members):
            rule = self._name(kind) if kind else "deny"
            self.refused.append((*row.place, *members.pop()[:2], rule))
        for member in members:
            self._accept(member, row)
        if members:
            self._join(members, row, members)

    def _link_all(self, row: Row, members: list[Member]) -> None:
        """The strongest with each of the others; from the start again where one of them breaks."""
        for member in members:
            self._accept(member, row)
        merges, refused = len(self.merges), len(self.refused)
        for member in members[1:]:
            if broken := self._link(row, members[0], member, members):
                del self.merges[merges:], self.refused[refused:]
                self._break(row, *broken)
                self._link_all(row, [member for member in members if not self._is_broken(member)])
                return

    def _link(
        self, row: Row, strongest: Member, weaker: Member, members: list[Member]
    ) -> tuple[Member, str] | None:
        """:returns: under ``break``, the identifier that breaks, and the rule."""
        pair, policy = [strongest, weaker], self.identity.over_limit
        kind = self._over(pair, row)
        if kind and policy == "break":
            # Of two ends that are both of the limited type, or neither, the weaker one.
            return ([member for member in pair if member.kind != kind] or pair)[-1], self._name(kind)
        rule = self._deny_rule(pair)
        if kind and policy == "refuse":
            rule = self._name(kind)
        if rule:
            self.refused.append((*row.place, *weaker[:2], rule))
            return None
        leaving = self._leaving(pair, row, members)
        self._join(pair, row, pair)
        for member in leaving:
            self.evicted[member] = row.seq
            self._lives[Value(*member[:2])] += 1
        return None

    def _break(self, row: Row, member: Member, rule: str) -> None:
        """Without its links, what the rows so far had linked falls apart."""
        self.broken[Value(*member[:2])] = row.seq
        self.refused.append((*row.place, *member[:2], rule))
        self.profiles = [{other} for other in self.times]
        for _, members, allowed in self._taken:
            left = [other for other in members if not self._is_broken(other)]
            for pair in [*([left[0], other] for other in left[1:]), *allowed]:
                if not self._deny_rule(pair) and not any(map(self._is_broken, pair)):
                    self._join(pair)

    def _is_broken(self, member: Member) -> bool:
        return Value(*member[:2]) in self.broken

    def _leaving(self, pair: list[Member], row: Row, row_members: list[Member]) -> list[Member]:
        """Oldest first, until every limit holds or nothing is left that the row does not carry."""
        leaving: list[Member] = []
        joint = set().union(*self._parts(pair)) - self.evicted.keys() - set(row_members)
        for kind in self.kinds:
            held = sorted((m for m in joint if m.kind == kind), key=self.nodes.__getitem__)
            while held and self._is_over(kind, pair, row, leaving):
                leaving.append(held.pop(0))
        return leaving

    def _allowed(self, row: Row, pair: list[Member]) -> None:
        if not any(map(self._is_broken, pair)) and not self._deny_rule(pair):
            self._join(pair, row, sorted(pair, key=lambda member: self.kinds.index(member.kind)))

    # Profiles

    def _accept(self, member: Member, row: Row) -> None:
        if member not in self.times:
            self.times[member] = row.time
            self.nodes.setdefault(member, len(self.nodes) + 1)
            self.profiles.append({member})

    def _parts(self, members: list[Member]) -> list[set[Member]]:
        """The profiles of these identifiers, each once; of one that is new, itself."""
        parts: list[set[Member]] = []
        for member in members:
            part = next((profile for profile in self.profiles if member in profile), {member})
            if part not in parts:
                parts.append(part)
        return parts

    def _over(self, members: list[Member], row: Row) -> str | None:
        """The strongest type of which these would gather too many."""
        return next((kind for kind in self.kinds if self._is_over(kind, members, row)), None)

    def _is_over(self, kind: str, members: list[Member], row: Row, leaving: Sequence[Member] = ()) -> bool:
        """Too many, and more than any of their profiles has already."""
        held = [
            {m for m in part if m.kind == kind and m not in self.evicted} for part in self._parts(members)
        ]
        joint = set().union(*held)
        if len(joint) <= max((len(part) for part in held), default=0):
            return False
        return self._too_many(kind, [self.times.get(m, row.time) for m in joint - set(leaving)])

    def _name(self, kind: str) -> str:
        return f"limit {kind} {self._rule(kind).limit}"

    def _too_many(self, kind: str, times: list[datetime | None]) -> bool:
        limit, within = self._rule(kind).limit, self._rule(kind).within
        if len(times) <= limit or within is None:
            return len(times) > limit
        timed = sorted(time for time in times if time is not None)
        room = limit - (len(times) - len(timed))
        if room < 0:
            return True
        return any(late - early < within for early, late in zip(timed, timed[room:], strict=False))

    def _deny_rule(self, members: list[Member]) -> str | None:
        joint = set().union(*self._parts(members)) - self.evicted.keys()
        values = {Value(*member[:2]) for member in joint}
        return "deny" if any(one in values and other in values for one, other in self.deny) else None

    def _join(self, members: list[Member], row: Row | None = None, met: Sequence[Member] = ()) -> None:
        """:param row: the row that does it and is on record for that, with the identifiers that `met`."""
        parts = self._parts(members)
        names = [min(self.nodes[member] for member in part) for part in parts]
        for name in names:
            if row and name != min(names) and name in self.published:
                evidence = ", ".join(member.kind for member in met)
                self.merges.append((*row.place, name, min(names), evidence))
        self.profiles = [profile for profile in self.profiles if profile not in parts] + [set().union(*parts)]


def _value(side: Mapping[str, str]) -> Value:
    ((kind, text),) = side.items()
    return Value(kind, text)


@dataclass
class Recomputed:
    """The oracle behind the face of ``landed.History``, so that one example is told to both."""

    identity: Identity = SEGMENT
    streams: tuple[Stream, ...] = field(default_factory=lambda: (stream_of("web"), stream_of("crm")))

    def __post_init__(self) -> None:
        self.oracle = Oracle(self.identity, self.streams)

    def land(
        self, *rows: Mapping[str, Any], stream: int = 0, load_id: int | None = None, state: str = "passed"
    ) -> int:
        load_id = load_id or len(self.oracle.loads) + 1
        self.oracle.land(load_id, stream, filled(rows), state)
        return load_id

    def resolve(self) -> None:
        self.oracle.identity, self.oracle.streams = self.identity, self.streams
        self.oracle.resolve()

    rebuild = resolve

    def partition(self) -> dict[str, int]:
        return {
            f"{kind}:{text}": profile
            for _, kind, text, profile, evicted in self.oracle.identifiers()
            if evicted is None
        }

    def links(self) -> dict[tuple[int, int], int]:
        where = self.oracle.where()
        return {(load, position): where[node] for load, position, node in self.oracle.links}

    def refused(self) -> list[tuple[int, int, str, str]]:
        return sorted(
            (load, position, f"{kind}:{text}", rule)
            for _, load, position, kind, text, rule in self.oracle.refused
        )

    def barred(self) -> set[str]:
        return {f"{kind}:{text}" for kind, text, *_ in self.oracle.barred}

    def splits(self) -> set[tuple[int, int]]:
        return self.oracle.splits

    def redirect(self) -> dict[int, int]:
        return self.oracle.redirects()
