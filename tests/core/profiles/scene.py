# SPDX-License-Identifier: Apache-2.0
"""A warehouse over several windows: batches arrive, profiles merge and fall apart, history is replayed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from cdp_provider.core.identity.policies import POLICIES
from cdp_provider.core.identity.resolve import resolve
from cdp_provider.core.project.identity import Identifier, Identity
from tests.core.profiles import world
from tests.core.profiles.strategies import VALUES, WITH_IDENTIFIERS
from tests.core.profiles.world import NAMES, NOW, STREAMS, Row

if TYPE_CHECKING:
    from datetime import datetime

    from cdp_provider.core.project.streams import Stream
    from cdp_provider.core.warehouse import Session, Warehouse

HOUR = timedelta(hours=1)
#: Profiles of whom hardly anything changes, so that those of whom something does are few.
CROWD = range(101, 131)


@dataclass
class Scene:
    """What lies in the warehouse, also as Python objects.

    :ivar rows: all raw rows, with the identifier that each hangs on.
    :ivar people: node -> profile.
    :ivar now: the end of the last window.
    """

    warehouse: Warehouse
    rows: list[Row] = field(default_factory=list)
    people: dict[int, int] = field(default_factory=dict)
    now: datetime = NOW
    seq: int = 0
    windows: int = 0

    def open(self) -> None:
        """Everything empty but for a row of everybody in each stream, long ago."""
        world.clear(self.warehouse)
        said = {"at": NOW - 20 * timedelta(days=1), "s": "a"}
        everybody = [
            [
                Row(s.ref, n, {**said, "id": f"first{n}", "uid": f"u{n}", "i": n})
                for n in (*range(1, 6), *CROWD)
            ]
            for s in WITH_IDENTIFIERS
        ]
        self.window({"hours": 0, "batches": everybody, "changes": [], "again": []})

    def window(self, step: dict[str, Any]) -> None:
        """One window: rows land, and the identity run that takes them in does what else it does.

        :param step: as :func:`windows` draws it.
        """
        self.now += step["hours"] * HOUR
        self.windows += 1
        with self.warehouse.session() as session, session.transaction():
            changes = step["changes"]
            if not step["batches"]:  # without new rows, profiles change by a replay only
                changes = [change for change in changes if change[0] == "replay"]
            if not (step["batches"] or changes):
                return
            self.seq += 1
            fresh = self._land(session, step["batches"])
            for change in changes:
                self._change(session, *change, fresh)
            kinds = {kind for kind, *_ in changes}
            world.add_run(
                session, self.seq, replayed="replay" in kinds, relinked="split" in kinds, end=self.now
            )

    def _land(self, session: Session, batches: list[list[Row]]) -> list[Row]:
        found = []
        last = max((row.load_id for row in self.rows), default=0)
        for number, batch in enumerate(filter(None, batches), 1):
            found += [
                replace(row, load_id=last + number, load_seq=self.windows, position=n)
                for n, row in enumerate(batch, 1)
            ]
        world.add_rows(session, found, self.seq, self.now)
        new = {row.node: row.node for row in found if row.node and row.node not in self.people}
        world.add_identifiers(session, new, self.seq)
        self.people |= new
        self.rows += found
        return found

    def _change(self, session: Session, kind: str, one: int, other: int, fresh: list[Row]) -> None:
        if one not in self.people or other not in self.people:
            return
        if kind == "merge":
            self._merge(session, self.people[one], self.people[other], fresh)
        elif kind == "split":
            self._split(session, self.people[one], other)
        else:
            self._replay(session, one, other)

    def _merge(self, session: Session, one: int, other: int, fresh: list[Row]) -> None:
        winner, loser = min(one, other), max(one, other)
        if winner == loser:
            return
        place = (fresh or self.rows)[-1]
        evidence = {"stream": place.stream, "load_id": place.load_id, "position": place.position}
        line = {
            "resolved_seq": self.seq,
            "run_id": "run",
            "loser": loser,
            "winner": winner,
            "evidence": "user_id",
        }
        world.fill(session, "merges", [line | evidence])
        self._assign(session, {n: winner for n, p in self.people.items() if p == loser})

    def _split(self, session: Session, profile: int, salt: int) -> None:
        """A profile falls apart, and its rows go to any of its identifiers."""
        nodes = sorted(node for node, p in self.people.items() if p == profile)
        left, gone = nodes[:1], nodes[1:]
        if not gone:
            return
        together = min(gone) if salt % 2 else None
        self._assign(session, {node: together or node for node in gone})
        self._relink(session, {n: nodes[(n + salt) % len(nodes)] for n in nodes})
        lines = [
            {
                **{"resolved_seq": self.seq, "run_id": "run", "profile_id": left[0], "new_profile_id": new},
                **{"identifiers": 1, "rule": "limit user_id 1"},
            }
            for new in sorted({self.people[node] for node in gone})
        ]
        world.fill(session, "splits", lines)

    def _replay(self, session: Session, one: int, other: int) -> None:
        """A batch is landed again with other rows, and all links may be others."""
        load = self.rows[(one * 7 + other) % len(self.rows)].load_id
        kept = [row for row in self.rows if row.load_id == load and row.position % 2]
        again = [replace(row, values=row.values | {"i": one, "s": "b"}) for row in kept]
        (ref,) = {row.stream for row in self.rows if row.load_id == load}
        stream = next(stream for stream in STREAMS if stream.ref == ref)
        for table, column in ((stream.raw_table, "_load_id"), ("loads", "load_id"), ("row_links", "load_id")):
            session.execute(f"delete from {self.warehouse.table(table)} where {column} = :id", {"id": load})
        resolved = next(row.load_seq for row in kept) if kept else self.seq
        world.add_rows(session, again, resolved, self.now)
        self.rows = [row for row in self.rows if row.load_id != load] + again
        self._relink(session, {one: other, other: one})

    def _assign(self, session: Session, profiles: dict[int, int]) -> None:
        identifiers = self.warehouse.table("identifiers")
        for node, profile in profiles.items():
            session.execute(
                f"update {identifiers} set profile_id = :profile,"
                " published_seq = case when node_id = :profile then coalesce(published_seq, :seq)"
                " else published_seq end where node_id = :node",
                {"node": node, "profile": profile, "seq": self.seq},
            )
        self.people |= profiles

    def _relink(self, session: Session, nodes: dict[int, int]) -> None:
        """Rows of identifiers hang on others."""
        moved = [row for row in self.rows if row.node in nodes]
        links = self.warehouse.table("row_links")
        session.execute(f"delete from {links} where node_id in ({', '.join(map(str, nodes))})")
        again = [replace(row, node=nodes[row.node]) for row in moved]
        world.add_links(session, again)
        self.rows = [row for row in self.rows if row.node not in nodes] + again


@dataclass
class Resolved(Scene):
    """The same where identity resolution itself decides who is who."""

    identity: Identity = field(default_factory=Identity)

    def window(self, step: dict[str, Any]) -> None:
        """:param step: as :func:`carried` draws it."""
        self.now += step["hours"] * HOUR
        self.windows += 1
        with self.warehouse.session() as session, session.transaction():
            last = max((row.load_id for row in self.rows), default=0)
            for number, batch in enumerate(filter(None, step["batches"]), 1):
                self._write(session, batch, last + number, self.windows)
            for number, batch, passed in step["again"]:
                self._land_again(session, number, [replace(row, passed=passed) for row in batch])
        resolve(self.warehouse, self.identity, STREAMS, world.run(self.now, f"identity_{self.windows}"))
        self._read()

    def _land_again(self, session: Session, number: int, batch: list[Row]) -> None:
        """A batch of the past has other rows than it had, and may fail its check this time."""
        loads = sorted({row.load_id for row in self.rows if row.stream == batch[0].stream})
        if not loads:
            return
        load = loads[number % len(loads)]
        old = [row for row in self.rows if row.load_id == load]
        table = self.warehouse.table
        raw = next(stream.raw_table for stream in STREAMS if stream.ref == batch[0].stream)
        known = session.one(
            f"select resolved_seq, resolved_hash from {table('loads')} where load_id = {load}"
        )
        session.execute(f"delete from {table(raw)} where _load_id = {load}")
        session.execute(f"delete from {table('loads')} where load_id = {load}")
        self.rows = [row for row in self.rows if row.load_id != load]
        self._write(session, batch, load, old[0].load_seq)
        session.execute(
            f"update {table('loads')} set resolved_seq = :seq, resolved_hash = :hash where load_id = {load}",
            dict(zip(("seq", "hash"), known, strict=True)),
        )

    def _write(self, session: Session, batch: list[Row], load: int, seq: int) -> None:
        rows = [
            replace(row, node=None, load_id=load, load_seq=seq, position=n) for n, row in enumerate(batch, 1)
        ]
        world.add_rows(session, rows, None, self.now)
        self.rows += rows

    def _read(self) -> None:
        """What identity made of it."""
        table = self.warehouse.table
        with self.warehouse.session() as session:
            links = session.fetch(f"select load_id, position, node_id from {table('row_links')}")
            self.people = dict(session.fetch(f"select node_id, profile_id from {table('identifiers')}"))
        nodes = {(load, position): node for load, position, node in links}
        self.rows = [replace(row, node=nodes.get((row.load_id, row.position))) for row in self.rows]


_VALUES = {kind: [*values[:3], None] for kind, values in VALUES.items() if kind != "timestamp"} | {
    "timestamp": [None, NOW, NOW + 13 * HOUR, NOW - 30 * HOUR]
}
#: From long ago to long after, so that rows come late, early, and cross the edges of windows in between.
TIMES = [None, *(NOW + hours * HOUR for hours in (-9600, -60, -48, -36, -12, 0, 3, 6, 12, 24, 36, 48, 60))]


@st.composite
def batches(draw: st.DrawFn) -> list[Row]:
    stream: Stream = draw(st.sampled_from(STREAMS))
    pools = {n: _VALUES[c.type] for n, c in stream.columns.items() if n not in NAMES}
    value = {name: st.sampled_from(pool) for name, pool in pools.items()}
    if stream.time:
        value[stream.time] = st.sampled_from(TIMES)
    return [
        Row(
            stream.ref,
            draw(st.sampled_from([None, 1, 2, 3, 4, 5])) if stream.identifiers else None,
            {**draw(st.fixed_dictionaries(value)), "id": draw(st.sampled_from("abcdefgh"))},
        )
        for _ in range(draw(st.integers(1, 5)))
    ]


_changes = st.tuples(
    st.sampled_from(["merge", "merge", "merge", "split", "replay"]), st.integers(1, 5), st.integers(1, 5)
)


def windows(*, changing: bool = True) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Windows, one after the other; in some nothing happens but that time goes on.

    :param changing: whether identity does more than to take rows in.
    """
    return st.lists(
        st.fixed_dictionaries(
            {
                "hours": st.sampled_from([1, 12, 24, 36]),
                "batches": st.lists(batches(), max_size=3),
                "changes": st.just([]) | st.lists(_changes, max_size=2) if changing else st.just([]),
            }
        ),
        min_size=2,
        max_size=5,
    )


@st.composite
def _carrying(draw: st.DrawFn) -> list[Row]:
    """Rows that carry identifiers."""
    name = st.sampled_from([None, *"abcde"])
    return [
        replace(row, values={**row.values, "uid": draw(name), "cookie": draw(name)})
        for row in draw(batches())
    ]


def carried() -> st.SearchStrategy[list[dict[str, Any]]]:
    """Windows for :class:`Resolved`."""
    again = st.tuples(st.integers(0, 9), _carrying(), st.booleans())
    return st.lists(
        st.fixed_dictionaries(
            {
                "hours": st.sampled_from([1, 12, 24, 36]),
                "batches": st.lists(_carrying(), max_size=3),
                "again": st.just([]) | st.lists(again, max_size=1),
            }
        ),
        min_size=2,
        max_size=5,
    )


def identities() -> st.SearchStrategy[Identity]:
    """Rules under which profiles merge, stay apart and fall apart."""
    return st.builds(
        lambda policy, limit, hub: Identity(
            identifiers={
                "user_id": Identifier(priority=1, limit=limit),
                "cookie": Identifier(priority=2, limit=3, hub=hub),
            },
            over_limit=policy,
        ),
        st.sampled_from(sorted(POLICIES)),
        st.integers(1, 2),
        st.sampled_from([None, 2]),
    )
