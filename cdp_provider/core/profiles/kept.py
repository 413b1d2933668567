# SPDX-License-Identifier: Apache-2.0
"""What runs keep of rows, and how the next run goes on from it.

For each set of parts and each select of its own that a stage asks for (:mod:`.facts`) there is a table
``kept_<stage>_<hash>`` with a line per profile. A run adds the parts of new rows and takes back those of rows
that left a window; where that does not do, it computes the lines of the profiles concerned from all of their
rows: those with a new row, a row that left or crossed the edge of a window, a merge or a split. The result is
what computing everything would give.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from cdp_provider.core.profiles import linked
from cdp_provider.core.profiles.facts import Facts

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from datetime import datetime, timedelta

    from cdp_provider.core.profiles.params import Params
    from cdp_provider.core.profiles.relations import Relation, Relations, Totals
    from cdp_provider.core.profiles.values import Values
    from cdp_provider.core.project.streams import Stream
    from cdp_provider.core.warehouse import Session

_DELTA = '"cdp_delta"'
_TOUCHED = '"cdp_touched"'
_NODES = '"cdp_touched_nodes"'
_GONE = '"cdp_gone"'
_MOVED = '"cdp_moved"'
_NEW = '"cdp_new_lines"'
_CHANGED = '"cdp_changed_profiles"'

#: Computing more than this share of all lines one by one costs more than computing all of them together.
_MOST = 0.25


class _State(NamedTuple):
    fingerprint: str
    window_end: datetime
    resolved_seq: int
    linked: dict[str, int]


def kept_facts(session: Session, owner: str, params: Params, streams: Sequence[Stream]) -> Facts:
    """Facts of all rows as of the parameters' now, of which as much as can be is kept from run to run.

    Linked rows and what is kept of them are brought up to now when the facts' relations are first asked for.
    Do that inside a transaction, under the lock ``linked`` and the stage's own.

    :param owner: the stage; nobody else keeps under its name.
    """
    return Facts(params, {stream.ref: stream for stream in streams}, _KeptRows(session, owner))


class _KeptRows:
    """Reads the tables of linked rows."""

    def __init__(self, session: Session, owner: str) -> None:
        self._session, self._owner = session, owner
        self._there: dict[str, bool] | None = None

    def prepare(self, relations: Relations) -> None:
        if self._there is not None:
            return
        session = self._session
        self._there = {
            ref: linked.refresh(session, relations.stream(ref), relations.params.now)
            for ref in relations.used()
        }
        keeper = _Keeper(session, relations, self._owner)
        names = [keeper.totals(totals) for totals in relations.totals.values()]
        names += [keeper.relation(extra) for extra in relations.extra if not extra.always]
        keeper.tidy(names)
        relations.changed = _CHANGED if keeper.known else None

    def table(self, stream: Stream) -> str | None:
        there = (self._there or {})[stream.ref]
        return self._session.warehouse.table(linked.table_of(stream)) if there else None


@dataclass
class _Keeper:
    session: Session
    facts: Relations
    owner: str
    #: Whether all profiles whose lines changed are among the changed ones.
    known: bool = True

    def __post_init__(self) -> None:
        session = self.session
        session.create_temp(_CHANGED.strip('"'), {"_profile_id": session.warehouse.types["integer"]})
        self.table = session.warehouse.table
        self.seqs = linked.seqs(session)
        self.resolved = session.scalar(f"select coalesce(max(resolved_seq), 0) from {self.table('loads')}")
        rows = session.fetch(
            f"select name, fingerprint, window_end, resolved_seq, linked from {self.table('kept')}"
            " where starts_with(name, :prefix)",
            {"prefix": f"kept_{self.owner}_"},
        )
        self.states = {row[0]: _State(row[1], row[2], row[3], json.loads(row[4])) for row in rows}

    def totals(self, totals: Totals) -> str:
        """Bring a stream's parts up to date; returns the unquoted table."""
        name = self._name(totals.key)
        parts = [
            self.facts.fingerprint(
                "|".join((part.function, part.value, part.kind, *part.where, str(part.last)))
            )
            for part in totals.parts.columns
        ]
        everything = totals.parts.of_rows(f"({self.facts.rows_sql(totals.ref)})")
        windows = {totals.ref: frozenset(totals.parts.windows())}
        state = self._usable(name, " ".join(parts), (totals.ref,))
        if state is None:
            self._make(name, everything)
        elif self._anything_new(state, (totals.ref,), windows):
            if totals.continued:
                self._continue(name, totals, state)
            else:
                self._recompute(
                    name,
                    state,
                    windows,
                    everything,
                    lambda rows: totals.parts.of_rows(f"({rows[totals.ref]})"),
                )
        self._remember(name, " ".join(parts), (totals.ref,), totals.relation)
        return name

    def relation(self, extra: Relation | Values) -> str:
        """Bring a select of its own up to date; returns the unquoted table."""
        fingerprint = self.facts.fingerprint(extra.sql)
        name = self._name(fingerprint)

        def with_rows(rows: Mapping[str, str]) -> str:
            named = ", ".join(f"{self.facts.rows(ref)} as ({sql})" for ref, sql in rows.items())
            return f"with {named} {extra.sql}"

        everything = with_rows({ref: self.facts.rows_sql(ref) for ref in extra.refs})
        state = self._usable(name, fingerprint, extra.refs)
        if state is None:
            self._make(name, everything)
        elif self._anything_new(state, extra.refs, extra.windows):
            windows = {ref: extra.windows.get(ref, frozenset()) for ref in extra.refs}
            self._recompute(name, state, windows, everything, with_rows)
        self._remember(name, fingerprint, extra.refs, extra.relation)
        return name

    def tidy(self, names: Collection[str]) -> None:
        """Drop what is asked for no more, and forget what everybody knows."""
        session, kept = self.session, self.table("kept")
        for name in self.states.keys() - set(names):
            session.execute(f"drop table if exists {self.table(name)}")
            session.execute(f"delete from {kept} where name = :name", {"name": name})
        known: dict[str, int] = {}
        for (text,) in session.fetch(f"select linked from {kept}"):
            for ref, seq in json.loads(text).items():
                known[ref] = min(seq, known.get(ref, seq))
        for ref, seq in known.items():
            session.execute(
                f"delete from {self.table('unlinked')} where stream = :ref and linked_seq <= :seq",
                {"ref": ref, "seq": seq},
            )

    def _name(self, key: str) -> str:
        return f"kept_{self.owner}_{hashlib.sha256(key.encode()).hexdigest()[:12]}"

    def _usable(self, name: str, fingerprint: str, refs: Collection[str]) -> _State | None:
        """What the last run left, if one can go on from it."""
        state = self.states.get(name)
        if state is None or state.fingerprint != self._digest(fingerprint) or not self.session.exists(name):
            return None
        if state.window_end > self.facts.params.now or state.linked.keys() != set(refs):
            return None
        for ref in refs:
            _, rebuilt = self.seqs.get(ref, (0, 0))
            if state.linked[ref] < rebuilt:
                return None
        return state

    def _digest(self, text: str) -> str:
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _anything_new(
        self, state: _State, refs: Collection[str], windows: Mapping[str, Collection[timedelta]]
    ) -> bool:
        if not any(ref in self.seqs for ref in refs):
            return False
        if state.resolved_seq != self.resolved:
            return True
        if any(self.seqs.get(ref, (0, 0))[0] != state.linked[ref] for ref in refs):
            return True
        return state.window_end != self.facts.params.now and any(windows.get(ref) for ref in refs)

    def _remember(self, name: str, fingerprint: str, refs: Iterable[str], relation: str) -> None:
        self.session.execute(f"delete from {self.table('kept')} where name = :name", {"name": name})
        self.session.execute(
            f"insert into {self.table('kept')} (name, fingerprint, window_end, resolved_seq, linked)"
            " values (:name, :fingerprint, :window_end, :resolved_seq, :linked)",
            {
                "name": name,
                "fingerprint": self._digest(fingerprint),
                "window_end": self.facts.params.now,
                "resolved_seq": self.resolved,
                "linked": json.dumps({ref: self.seqs.get(ref, (0, 0))[0] for ref in refs}),
            },
        )
        self.facts.kept[relation] = self.table(name)

    def _make(self, name: str, select: str) -> None:
        self.known = False
        self.session.execute(f"drop table if exists {self.table(name)}")
        self._run(f"create table {self.table(name)} as {select}")
        self.session.index(name, "_profile_id")
        self.session.analyze(self.table(name))

    def _run(self, sql: str) -> None:
        self.session.execute(sql, self.facts.params.query(sql).params)

    def _temp(self, name: str, select: str) -> None:
        self.session.execute(f"drop table if exists {name}")
        self._run(f"create temporary table {name} as {select}")
        if name not in (_DELTA, _NEW):  # wide, and only copied
            self.session.analyze(name)

    def _continue(self, name: str, totals: Totals, state: _State) -> None:
        """Add what is new to the lines of its profiles, and take back what left a window."""
        parts = totals.parts
        before = {
            last: self.facts.params.bind(state.window_end - last, "timestamp") for last in parts.windows()
        }
        rows = self._changed(totals.ref, state, frozenset(before))
        self._temp(_DELTA, parts.of_changes(f"({rows})", before))
        self._movements(state, (totals.ref,))
        columns = ", ".join(['"_profile_id"', *parts.columns.values()])
        kept = ", ".join(f"k.{column}" for column in parts.columns.values())
        standing = (
            f'select coalesce(m.winner, k."_profile_id") as "_profile_id", {kept} from {self.table(name)} k'
            f' left join {_MOVED} m on m.loser = k."_profile_id"'
            f' where k."_profile_id" in (select "_profile_id" from {_DELTA} union select loser from {_MOVED}'
            f" union select winner from {_MOVED})"
        )
        both = f"({standing} union all select {columns} from {_DELTA}) b"
        whole = f'"_profile_id" not in (select "_profile_id" from {_TOUCHED})'
        self._temp(
            _NEW,
            f"select * from ({parts.together(both)}) t where {whole}"
            f" union all {parts.of_rows(f'({self._rows_of_touched(totals.ref)})')}",
        )
        self._replace(
            name,
            f'select "_profile_id" from {_DELTA} union select "_profile_id" from {_TOUCHED}'
            f' union select "_profile_id" from {_GONE}',
            columns,
        )

    def _recompute(
        self,
        name: str,
        state: _State,
        windows: Mapping[str, frozenset[timedelta]],
        everything: str,
        select: Callable[[Mapping[str, str]], str],
    ) -> None:
        """Compute the lines of all profiles concerned from their rows."""
        self._movements(state, tuple(windows))
        for ref, durations in windows.items():
            if ref not in self.seqs:
                continue
            rows = self._changed(ref, state, durations)
            self._run(
                f'insert into {_TOUCHED} select distinct "_profile_id" from ({rows}) r'
                f' where "_profile_id" not in (select "_profile_id" from {_TOUCHED})'
            )
        self._run(
            f"insert into {_TOUCHED} select distinct winner from {_MOVED}"
            f' where winner not in (select "_profile_id" from {_TOUCHED})'
        )
        touched = self.session.scalar(f"select count(*) from {_TOUCHED}")
        if touched > _MOST * self.session.scalar(f"select count(*) from {self.table(name)}"):
            self._make(name, everything)
            return
        self._touched_nodes()
        restricted = {ref: self._rows_of_touched(ref) for ref in windows}
        self._temp(_NEW, select(restricted))
        self._replace(
            name,
            f'select "_profile_id" from {_TOUCHED} union select "_profile_id" from {_GONE}',
            "*",
        )

    def _replace(self, name: str, profiles: str, columns: str) -> None:
        table = self.table(name)
        self._run(f"insert into {_CHANGED} {profiles}")
        self._run(f'delete from {table} where "_profile_id" in ({profiles})')
        into = "" if columns == "*" else f" ({columns})"
        self._run(f"insert into {table}{into} select {columns} from {_NEW}")

    def _changed(self, ref: str, state: _State, windows: Collection[timedelta]) -> str:
        """Rows by profile that are new, and those that crossed the edge of a window since the last run."""
        params, stream = self.facts.params, self.facts.stream(ref)
        fresh = f'"_linked" > {state.linked[ref]}'
        wanted = [fresh]
        if stream.time is not None:
            time = params.warehouse.quote(stream.time)
            for last in sorted(windows):
                start = params.bind(state.window_end - last, "timestamp")
                wanted.append(f"({time} >= {start} and {time} < {params.moment(last)})")
        table = self.table(linked.table_of(stream))
        selected = f'(select *, {fresh} as "_fresh" from {table} where {" or ".join(wanted)})'
        return self.facts.rows_sql(ref, selected, ('"_fresh"',))

    def _movements(self, state: _State, refs: Collection[str]) -> None:
        """Profiles that were merged, and those whose rows are not what they were."""
        since = state.resolved_seq
        identifiers = self.table("identifiers")
        self._temp(
            _MOVED,
            "select distinct m.loser, i.profile_id as winner"
            f" from {self.table('merges')} m join {identifiers} i on i.node_id = m.loser"
            f" where m.resolved_seq > {since} and i.profile_id <> m.loser",
        )
        splits = self.table("splits")
        self._temp(
            _GONE,
            f'select loser as "_profile_id" from {_MOVED} union select winner from {_MOVED}'
            f" union select profile_id from {splits} where resolved_seq > {since}"
            f" union select new_profile_id from {splits} where resolved_seq > {since}",
        )
        nodes = [
            f"select profile_id from {splits} where resolved_seq > {since}",
            f"select new_profile_id from {splits} where resolved_seq > {since}",
        ]
        for ref in refs:
            bound = self.facts.params.bind(ref, "string")
            nodes.append(
                f"select node_id from {self.table('unlinked')}"
                f" where stream = {bound} and linked_seq > {state.linked[ref]}"
            )
        self._temp(
            _TOUCHED,
            'select distinct profile_id as "_profile_id"'
            f" from {identifiers} where node_id in ({' union '.join(nodes)})",
        )
        self._touched_nodes()

    def _touched_nodes(self) -> None:
        self._temp(
            _NODES,
            f"select node_id from {self.table('identifiers')}"
            f' where profile_id in (select "_profile_id" from {_TOUCHED})',
        )

    def _rows_of_touched(self, ref: str) -> str:
        if ref not in self.seqs:
            return self.facts.rows_sql(ref)
        table = self.table(linked.table_of(self.facts.stream(ref)))
        return self.facts.rows_sql(
            ref, f'(select * from {table} where "_node_id" in (select node_id from {_NODES}))'
        )
