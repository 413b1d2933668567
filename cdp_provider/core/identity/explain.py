# SPDX-License-Identifier: Apache-2.0
"""Why two identifiers are one person, or what kept them apart.

Read from what identity resolution recorded and from the rows of the profiles in question, of no others. An
explanation holds identifiers, which are personal data: it is for whoever asked, never for a log.
"""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from cdp_provider.core.exceptions import ConfigurationError, NotFoundError
from cdp_provider.core.identity import fuzzy, glue, history, provenance
from cdp_provider.core.identity.explanation import Asked, Explanation, Obstacle, Step, Value
from cdp_provider.core.identity.identifiers import BLOCKED, EXCLUDED, INVALID, Normalizer
from cdp_provider.core.identity.provenance import Place
from cdp_provider.core.project.identity import Allow, Deny
from cdp_provider.core.project.problems import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from cdp_provider.core.identity.explanation import Reason
    from cdp_provider.core.identity.glue import Held
    from cdp_provider.core.project.identity import Identity, One
    from cdp_provider.core.project.streams import Stream
    from cdp_provider.core.warehouse import Session, Warehouse

#: As the normaliser and the table ``barred_identifiers`` say it.
_REASONS: Mapping[str, Reason] = {
    BLOCKED: "blocked",
    INVALID: "invalid",
    EXCLUDED: "excluded",
    "hub": "hub",
    "broken": "broken",
}


def explain(
    warehouse: Warehouse,
    identity: Identity,
    streams: Sequence[Stream],
    one: tuple[str, str],
    other: tuple[str, str],
) -> Explanation:
    """Why two identifiers are, or are not, one person.

    The path is a shortest one: of all rows that link, it takes as few as possible. Taking one of its rows
    away need not part the two, there may be others.

    :param streams: all streams of the project, in its order.
    :param one: type and value, as a source writes it.
    :raises ConfigurationError: there is no such type, or the rules or the rows are not those that identity
        resolution has seen.
    :raises NotFoundError: identity was never resolved here.
    """
    with warehouse.session() as session:
        return _Inquiry(session, identity, streams).answer(one, other)


class _Told(NamedTuple):
    """An obstacle, and the first row concerned."""

    obstacle: Obstacle
    place: Place | None = None


class _Side:
    """One of two profiles."""

    def __init__(self, profile_id: int, held: Held, kinds: Sequence[str]) -> None:
        self.profile_id, self.held = profile_id, held
        rows = held.rows
        met = np.unique(np.concatenate([np.empty(0, np.int32), *rows.columns]))
        met = met[met >= 0]
        values = rows.values.take(pa.array(met)).to_pylist()
        places = rows.kinds[met].tolist()
        #: identifiers that the rows carry, whether they link them or not.
        self.carried = {Value(kinds[kind], value) for kind, value in zip(places, values, strict=True)}
        lines = zip(*(held.members[name].to_pylist() for name in ("type", "value")), strict=True)
        left = held.members["evicted_seq"].to_pylist()
        members = [(Value(*line), seq) for line, seq in zip(lines, left, strict=True)]
        self.evicted = {value: seq for value, seq in members if seq is not None}
        self.members = {value for value, seq in members if seq is None}

    def place(self, row: int) -> Place:
        rows = self.held.rows
        load = rows.batches[rows.batch[row]]
        return Place(load.stream, load.load_id, int(rows.positions[row]))


class _Inquiry:
    """One question, asked within one session."""

    def __init__(self, session: Session, identity: Identity, streams: Sequence[Stream]) -> None:
        self._session, self._identity = session, identity
        self._streams = _with_pairs(session, identity, streams)
        self._types = history.types(identity, self._streams)
        self._kinds = list(self._types)
        excluded = history.excluded_values(identity)
        self._normalizers = {
            kind: Normalizer(kind, rule, excluded.get(kind, ())) for kind, rule in self._types.items()
        }
        require_tables(session)
        plan = history.plan(session, self._streams, history.fingerprint(identity, self._streams))
        if plan.replay:
            msg = f"{plan.reason}, and identity resolution has not run since; let it run, and ask then"
            raise ConfigurationError(msg)

    def answer(self, one: tuple[str, str], other: tuple[str, str]) -> Explanation:
        (left, of_left), (right, of_right) = self._find(*one), self._find(*other)
        found = Explanation(left, right)
        if left.node_id is None or right.node_id is None:
            obstacles = of_left + [told for told in of_right if told not in of_left]
            return self._with_rows(found, (), obstacles)
        if left.node_id == right.node_id:
            return found
        if found.together:
            return self._with_rows(found, self._path(left, right), ())
        return self._with_rows(found, (), self._apart(left, right))

    def _find(self, kind: str, text: str) -> tuple[Asked, list[_Told]]:
        """The identifier, and why it belongs to nobody if it doesn't."""
        if kind not in self._types:
            msg = f"there is no identifier type {kind!r}; {did_you_mean(kind, self._kinds)}"
            raise ConfigurationError(msg)
        if not text.strip():
            msg = f"an identifier {kind!r} without a value was asked for; give one, as in {kind}=value"
            raise ConfigurationError(msg)
        comparable, reason = self._normalizers[kind](text)
        if comparable is None:
            value = Value(kind, text.strip())
            return Asked(value), [_Told(Obstacle(_REASONS[reason or ""], value))]
        value = Value(kind, comparable)
        lines = self._of_value("identifiers", "node_id, profile_id, evicted_seq", value, "node_id")
        for node, profile, evicted in lines:
            if evicted is None:
                return Asked(value, node, profile), []
        gone = [_Told(self._evicted(value, profile, seq)) for _, profile, seq in lines]
        return Asked(value), self._unheld(value, gone) or [_Told(Obstacle("unknown", value))]

    def _unheld(self, value: Value, gone: list[_Told]) -> list[_Told]:
        """What is known of an identifier that belongs to nobody."""
        refused = [
            (value, rule, Place(*place))
            for rule, *place in self._of_value(
                "refused_links",
                "rule, stream, load_id, position",
                value,
                "resolved_seq, load_id, position",
            )
        ]
        return [*self._barred({value}), *gone[-1:], *_grouped(refused)]

    def _of_value(self, table: str, columns: str, value: Value, order: str) -> list[tuple[Any, ...]]:
        warehouse = self._session.warehouse
        same = warehouse.same_text(":value", "t.value")
        return self._session.fetch(
            f"select {columns} from {warehouse.table(table)} t"
            f" where t.type = :type and {same} order by {order}",
            asdict(value),
        )

    def _evicted(self, value: Value, profile_id: int, seq: int) -> Obstacle:
        rule = f"limit {value.type} {self._types[value.type].limit}"
        return Obstacle("evicted", value, rule=rule, profile_id=profile_id, resolved_seq=seq)

    def _barred(self, values: Iterable[Value]) -> Iterator[_Told]:
        lines = self._session.fetch(
            "select type, value, rule, resolved_seq, reason, stream, load_id, position"
            f" from {self._session.warehouse.table('barred_identifiers')} order by resolved_seq, type, value"
        )
        values = set(values)
        for kind, text, rule, seq, reason, *place in lines:
            if (value := Value(kind, text)) in values:
                told = Obstacle(_REASONS[reason], value, rule=rule, resolved_seq=seq)
                yield _Told(told, Place(*place) if reason == "broken" else None)

    # One profile

    def _path(self, left: Asked, right: Asked) -> list[tuple[Step, Place | None]]:
        """A shortest path, breadth first over the rows of the profile."""
        side = self._side(left)
        nodes = side.held.members["node_id"].to_pylist()
        start, end = nodes.index(left.node_id), nodes.index(right.node_id)
        kinds, values = (side.held.members[name] for name in ("type", "value"))

        def named(at: int) -> Value:
            return Value(kinds[at].as_py(), values[at].as_py())

        return [
            (Step(named(one), named(other), None), None if row is None else side.place(row))
            for one, other, row in _shortest(side.held, start, end, self._allowed(side.held))
        ]

    def _allowed(self, held: Held) -> dict[int, list[int]]:
        partners: dict[int, list[int]] = {}
        for rule in self._identity.rules:
            if isinstance(rule, Allow):
                one, other = _members_named(held, rule.allow)
                if one >= 0 and other >= 0:
                    partners.setdefault(one, []).append(other)
                    partners.setdefault(other, []).append(one)
        return partners

    # Two profiles

    def _apart(self, left: Asked, right: Asked) -> list[_Told]:
        one, other = self._side(left), self._side(right)
        shared = (one.carried & (other.carried | other.members)) | (other.carried & one.members)
        shared |= (one.evicted.keys() & (other.carried | other.members | {left.value, right.value})) | (
            other.evicted.keys() & (one.carried | one.members | {left.value, right.value})
        )
        return [
            *self._denied(one, other),
            *self._refused(one, other, shared),
            *self._barred(shared | {left.value, right.value}),
            *(
                _Told(self._evicted(value, side.profile_id, seq))
                for side in (one, other)
                for value, seq in side.evicted.items()
                if value in shared
            ),
            *self._alone(one, other, shared),
            *self._both_filtered(one, other),
        ]

    def _side(self, asked: Asked) -> _Side:
        profiles = np.array([asked.profile_id], np.int64)
        held = glue.read(self._session, self._identity, self._streams, profiles)
        return _Side(int(profiles[0]), held, self._kinds)

    def _denied(self, one: _Side, other: _Side) -> Iterator[_Told]:
        for rule in self._identity.rules:
            if isinstance(rule, Deny):
                a, b = (self._comparable(side) for side in rule.deny)
                if (a in one.members and b in other.members) or (b in one.members and a in other.members):
                    yield _Told(Obstacle("deny", a, b, rule="deny"))

    def _comparable(self, side: One) -> Value:
        ((kind, text),) = side.items()
        return Value(kind, self._normalizers[kind](text)[0] or "")

    def _refused(self, one: _Side, other: _Side, shared: set[Value]) -> list[_Told]:
        """What rows of either profile, or rows that carry values of both, did not link."""
        lines = [
            (value, rule, side.place(row))
            for side in (one, other)
            for value, rule, row in _lines(side.held)
            if value in shared
        ]
        return _grouped([*lines, *self._refused_elsewhere(one, other)])

    def _refused_elsewhere(self, one: _Side, other: _Side) -> Iterator[tuple[Value, str, Place]]:
        """The lines of rows of a third profile that linked neither."""
        table = self._session.warehouse.table
        same = self._session.warehouse.same_text("f.value", "i.value")
        lines = self._session.fetch(
            "select f.stream, f.load_id, f.position, f.type, f.value, f.rule, i.profile_id"
            f" from {table('refused_links')} f join {table('identifiers')} i on {same} and i.type = f.type"
            " where i.evicted_seq is null and i.profile_id in (:one, :other)"
            " order by f.resolved_seq, f.load_id, f.position",
            {"one": one.profile_id, "other": other.profile_id},
        )
        met: dict[Place, set[int]] = {}
        for *place, _, _, _, profile in lines:
            met.setdefault(Place(*place), set()).add(profile)
        for *place, kind, value, rule, _ in lines:
            if len(met[Place(*place)]) == 2:
                yield Value(kind, value), rule, Place(*place)

    def _alone(self, one: _Side, other: _Side, shared: set[Value]) -> list[_Told]:
        """Rows excluded by hand that carry values of both."""
        lines = []
        for side in (one, other):
            rows = side.held.rows
            for row in rows.alone.tolist():
                for number in {int(column[row]) for column in rows.columns} - {-1}:
                    value = Value(self._kinds[rows.kinds[number]], rows.values[number].as_py())
                    if value in shared:
                        lines.append((value, "excluded row", side.place(row)))
        return [_Told(replace(o, reason="excluded row", rule=None), at) for o, at in _grouped(lines)]

    def _both_filtered(self, one: _Side, other: _Side) -> Iterator[_Told]:
        """Values that rows of both carry, and that identify nobody."""
        for kind, normalizer in self._normalizers.items():
            both = _nobody(one.held, kind, normalizer) & _nobody(other.held, kind, normalizer)
            for text in sorted(both):
                reason = _REASONS[normalizer(text)[1] or ""]
                # Elsewhere the number may be valid; only the row's country would tell.
                if reason != INVALID or not normalizer.regional:
                    yield _Told(Obstacle(reason, Value(kind, text)))

    # Rows

    def _with_rows(
        self,
        found: Explanation,
        steps: Sequence[tuple[Step, Place | None]],
        obstacles: Sequence[_Told],
    ) -> Explanation:
        places = {place for _, place in (*steps, *obstacles) if place is not None}
        rows = provenance.rows(self._session, self._identity, self._streams, places)
        pairs = provenance.pairs(self._session, rows.values())
        return replace(
            found,
            steps=tuple(
                replace(step, row=rows[place], **pairs.get(rows[place].key, {})) if place else step
                for step, place in steps
            ),
            obstacles=tuple(
                replace(obstacle, row=rows[place]) if place else obstacle for obstacle, place in obstacles
            ),
        )


def require_tables(session: Session) -> None:
    """:raises NotFoundError: identity was never resolved in this schema."""
    if not session.exists("identity_runs"):
        msg = (
            f"the schema {session.warehouse.schema!r} has no table identity_runs, so identity was never"
            " resolved there; name the schema of the project, or let the pipeline run"
        )
        raise NotFoundError(msg)


def _with_pairs(session: Session, identity: Identity, streams: Sequence[Stream]) -> list[Stream]:
    """The streams, and the one of accepted fuzzy pairs where there is one."""
    pairs = fuzzy.stream(identity)
    known = pairs.ref in {stream.ref for stream in streams}
    return list(streams) if known or not session.exists(pairs.raw_table) else [*streams, pairs]


def _grouped(lines: Iterable[tuple[Value, str, Place]]) -> list[_Told]:
    """One obstacle per value and rule, with its first row and how many there are."""
    rows: dict[tuple[Value, str], dict[Place, None]] = {}
    for value, rule, place in lines:
        rows.setdefault((value, rule), {})[place] = None
    return [
        _Told(Obstacle("refused", value, rule=rule, rows=len(places)), next(iter(places)))
        for (value, rule), places in rows.items()
    ]


def _lines(held: Held) -> Iterator[tuple[Value, str, int]]:
    """What the rows did not link: identifier, rule, row; in the order of rows."""
    at = glue.rows_at(held.rows, held.refused).tolist()
    columns = [held.refused[name].to_pylist() for name in ("type", "value", "rule")]
    for kind, value, rule, row in sorted(zip(*columns, at, strict=True), key=lambda line: line[-1]):
        yield Value(kind, value), rule, row


def _nobody(held: Held, kind: str, normalizer: Normalizer) -> set[str]:
    """Values of a type that the rows carry and that identify nobody, in the form they are compared in."""
    texts = [
        column.cast(pa.large_string()).drop_null()
        for raw in held.raw
        for name, column in zip(raw.table.column_names, raw.table.columns, strict=True)
        if name.rpartition("_")[0] == f"id_{kind}"
    ]
    if not texts:
        return set()
    distinct = pa.chunked_array(
        [chunk for text in texts for chunk in text.chunks], pa.large_string()
    ).unique()
    values, codes = normalizer.column(distinct)
    written = zip(values.to_pylist(), distinct.to_pylist(), codes.tolist(), strict=True)
    return {value or text.strip() for value, text, code in written if code < 0 and text.strip()}


def _members_named(held: Held, pair: tuple[One, One]) -> list[int]:
    """The places of a pair's identifiers among the members; -1 for one that is none."""
    numbers = [held.rows.named[item] for side in pair for item in side.items()]
    return [int(held.places[number]) if number >= 0 else -1 for number in numbers]


def _shortest(
    held: Held, start: int, end: int, allowed: Mapping[int, Sequence[int]]
) -> list[tuple[int, int, int | None]]:
    """Breadth first: member, the member it is linked with, and the row that does it or None for a rule.

    Of several rows that would do, the first one in the order of rows is taken.
    """
    columns = [column.tolist() for column in held.columns]
    rows_of: dict[int, list[int]] = {}
    for row in range(len(held.rows)):
        for column in columns:
            if column[row] >= 0:
                rows_of.setdefault(column[row], []).append(row)
    came: dict[int, tuple[int, int | None]] = {start: (start, None)}
    seen: set[int] = set()
    waiting = deque([start])
    while waiting and end not in came:
        at = waiting.popleft()
        reached: list[tuple[int, int | None]] = []
        for row in rows_of.get(at, ()):
            if row not in seen:
                seen.add(row)
                reached += [(column[row], row) for column in columns if column[row] >= 0]
        reached += [(other, None) for other in allowed.get(at, ())]
        for other, by in reached:
            if other not in came:
                came[other] = (at, by)
                waiting.append(other)
    path: list[tuple[int, int, int | None]] = []
    while end != start:
        before, by = came[end]
        path.append((before, end, by))
        end = before
    return path[::-1]
