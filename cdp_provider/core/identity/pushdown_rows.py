# SPDX-License-Identifier: Apache-2.0
"""Recorded history as temporary tables: its rows in the order in which they count, identifiers as numbers.

What ``history.py`` does in the process, done by SQL. Only distinct values come into the
process, a page at a time, because one place alone says how a value is normalised.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from cdp_provider.core.identity import history
from cdp_provider.core.identity.components import TempTables
from cdp_provider.core.identity.identifiers import _REASONS, Normalizer
from cdp_provider.core.identity.pushdown_hubs import PushedHubs
from cdp_provider.core.project.identity import Allow, Deny

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from cdp_provider.core.identity.history import Load, Plan
    from cdp_provider.core.project.identity import Identifier, Identity
    from cdp_provider.core.project.streams import Stream
    from cdp_provider.core.warehouse import Session

_TEXT = pa.large_string()
#: A page of distinct values takes about so many bytes each, and is never smaller than so many values.
_BYTES_PER_VALUE, _LEAST_PAGE = 500, 10_000


class _Column(NamedTuple):
    """One identifier column of one stream.

    :param slot: its place among the identifier columns of all streams.
    :param kind: the place of its type among the types.
    :param region: the column with the country of its phone numbers.
    """

    source: int
    slot: int
    kind: int
    name: str
    region: str | None


@dataclass(frozen=True)
class Bench:
    """A session's temporary tables, and what the project says."""

    session: Session
    plan: Plan
    identity: Identity
    streams: Sequence[Stream]
    types: Mapping[str, Identifier]

    def make(self, name: str, select: str) -> str:
        """A temporary table of the query's result; returns its name."""
        return TempTables(self.session).create(f"cdp_pd_{name}", select)

    def put(self, name: str, columns: Mapping[str, Sequence[Any]], types: Mapping[str, pa.DataType]) -> str:
        """A temporary table of small data; returns its name."""
        rows = pa.table({column: pa.array(columns[column], types[column]) for column in types})
        return self.session.temp(f"cdp_pd_{name}", rows)

    def type(self, name: str) -> str:
        """The engine's type for a column type of projects."""
        return self.session.warehouse.types[name]

    def count(self, select: str) -> int:
        """The one number that the query returns."""
        return int(self.session.scalar(select) or 0)


class Rows:
    """The rows of batches, and their identifiers.

    After :meth:`build` there are the tables

    * `rows`: ``n``, ``seq``, ``source``, ``load_id``, ``position``, ``at``, ``strongest``, ``s0``, ...
    * `values`: ``identifier`` from 1, ``kind``, ``value``; `kinds`: ``kind``, ``type``, ``most``, ``hub``
    * `pairs`, denied or allowed by hand: ``rule``, its place, and the identifiers ``a``, ``b``
    * `sources`: ``source``, ``stream``
    * if a type has a hub limit, `hubs`: ``identifier``, ``since``, ``seen_with``; and `neighbours`:
      ``identifier``, ``other``, ``seq``. Else these two are "".

    :param loads: batches that are read whole.
    :param again: further batches, of which only the rows in the table `only` are read (``stream``,
        ``load_id``, ``position``).
    """

    def __init__(
        self, bench: Bench, loads: Iterable[Load], again: Iterable[Load] = (), only: str | None = None
    ) -> None:
        self._bench, self._only = bench, only
        self._session = bench.session
        self._loads, self._again = list(loads), list(again)
        self._kinds = list(bench.types)
        self.slots = history.slots_of(bench.types, bench.streams)
        self.slot_kinds = [self._kinds.index(kind) for kind, _ in self.slots]
        self.rows = self.values = self.pairs = self.sources = self.kinds = self.hubs = self.neighbours = ""
        self._batches = ""
        self._spent: list[str] = []
        #: reason -> type -> rows of this run whose value did not become an identifier.
        self.unfit: dict[str, dict[str, int]] = {}

    def build(self) -> None:
        """Make the tables."""
        self._put_settings()
        columns = self._columns()
        codes = self._put_values(columns)
        sights = self._put_sights(columns, codes)
        rows = self._known_only(sights)
        if not self._bench.plan.replay:
            rows = self._without(rows, self._barred("hub", "b.resolved_seq"), "unbarred")
        rows = self._alone(self._without_hubs(rows))
        if not self._bench.plan.replay:
            rows = self._without(rows, self._barred("broken", "0"), "unbroken")
        self._keep(rows)

    # Settings and columns

    def _put_settings(self) -> None:
        bench, integer, text = self._bench, pa.int64(), pa.string()
        rules = list(bench.types.values())
        self.kinds = bench.put(
            "kinds",
            {
                "kind": range(len(rules)),
                "type": self._kinds,
                "most": [rule.limit for rule in rules],
                "hub": [rule.hub for rule in rules],
            },
            {"kind": integer, "type": text, "most": integer, "hub": integer},
        )
        refs = [stream.ref for stream in bench.streams]
        self.sources = bench.put(
            "sources", {"source": range(len(refs)), "stream": refs}, {"source": integer, "stream": text}
        )
        loads = [*self._loads, *self._again]
        self._batches = bench.put(
            "loads",
            {
                "load_id": [load.load_id for load in loads],
                "seq": [load.resolved_seq or bench.plan.seq for load in loads],
                "load_seq": [load.load_seq for load in loads],
                "whole": [True] * len(self._loads) + [False] * len(self._again),
            },
            {"load_id": integer, "seq": integer, "load_seq": integer, "whole": pa.bool_()},
        )

    def _columns(self) -> list[_Column]:
        used = {load.stream for load in (*self._loads, *self._again)}
        found = []
        for source, stream in enumerate(self._bench.streams):
            if stream.ref not in used:
                continue
            there = self._session.columns(stream.raw_table)
            for slot, (kind, place) in enumerate(self.slots):
                names = stream.identifiers.get(kind, ())
                if place < len(names) and names[place] in there:
                    region = self._region(kind, there)
                    found.append(_Column(source, slot, self.slot_kinds[slot], names[place], region))
        return found

    def _region(self, kind: str, there: Mapping[str, str]) -> str | None:
        rule = self._bench.types[kind]
        return rule.region_column if rule.normalize == "phone" and rule.region_column in there else None

    def _is_text(self, engine_type: str) -> bool:
        return engine_type.lower() == self._bench.type("string")

    def _from(self, source: int) -> str:
        raw = self._session.warehouse.table(self._bench.streams[source].raw_table)
        of = f"{raw} r join {self._batches} l on l.load_id = r._load_id"
        if self._only:
            of += f" left join {self._only} o on o.load_id = r._load_id and o.position = r._position"
        return of

    def _where(self) -> str:
        return "(l.whole or o.load_id is not null)" if self._only else "l.whole"

    def _as_text(self, column: str) -> str:
        return f"cast(r.{self._session.warehouse.quote(column)} as {self._bench.type('string')})"

    # Values

    def _put_values(self, columns: Sequence[_Column]) -> str:
        """The distinct identifiers; returns a table of how each is written: ``kind``, ``written``,
        ``region``, ``code``, the identifier or a negative number that says why it is none."""
        text, integer = self._bench.type("string"), self._bench.type("integer")
        spec = {"kind": integer, "written": text, "region": text, "value": text, "code": integer}
        written = self._session.create_temp("cdp_pd_written", spec)
        excluded = history.excluded_values(self._bench.identity)
        normalizers = {
            kind: Normalizer(name, rule, excluded.get(name, ()))
            for kind, (name, rule) in enumerate(self._bench.types.items())
        }
        for kind, normalizer in normalizers.items():
            if own := [column for column in columns if column.kind == kind]:
                self._write(written, own, normalizer)
        self._session.analyze(written)
        named = self._named(normalizers)
        self.values = self._bench.make(
            "values",
            "select row_number() over () as identifier, v.kind as kind, v.value as value from"
            f" (select w.kind, w.value from {written} w where w.value is not null"
            f" union select n.kind, n.value from {named} n) v",
        )
        self.pairs = self._bench.make(
            "pairs",
            f"select n.rule as rule, min(v.identifier) as a, max(v.identifier) as b from {named} n"
            f" join {self.values} v on v.kind = n.kind and v.value = n.value"
            " group by n.rule having min(v.identifier) < max(v.identifier)",
        )
        codes = self._bench.make(
            "codes",
            "select w.kind as kind, w.written as written, w.region as region,"
            f" coalesce(v.identifier, w.code) as code from {written} w"
            f" left join {self.values} v on v.kind = w.kind and v.value = w.value",
        )
        self._session.execute(f"drop table {written}")
        return codes

    def _write(self, written: str, columns: Sequence[_Column], normalizer: Normalizer) -> None:
        """Normalise the distinct values of columns of one type."""
        texts = self._bench.make(
            "texts",
            "select row_number() over () as place, t.* from ("
            + " union ".join(self._texts(column) for column in columns)
            + ") t",
        )
        page = max(self._bench.identity.memory // _BYTES_PER_VALUE, _LEAST_PAGE)
        for start in range(0, self._bench.count(f"select count(*) from {texts}"), page):
            found = self._session.arrow(
                f"select {columns[0].kind} as kind, written, region from {texts}"
                f" where place > {start} and place <= {start + page}"
            )
            raw, regions = (found[name].cast(_TEXT).combine_chunks() for name in ("written", "region"))
            values, codes = normalizer.column(raw, regions if normalizer.regional else None)
            fits = pa.array(codes == 0)
            found = found.append_column("value", pc.if_else(fits, values, pa.scalar(None, _TEXT)))
            self._session.load(written, found.append_column("code", pa.array(codes)))
        self._session.execute(f"drop table {texts}")

    def _texts(self, column: _Column) -> str:
        return (
            f"select distinct {self._as_text(column.name)} as written, {self._country(column)} as region"
            f" from {self._from(column.source)}"
            f" where r.{self._session.warehouse.quote(column.name)} is not null and {self._where()}"
        )

    def _country(self, column: _Column) -> str:
        return f"coalesce({self._as_text(column.region)}, '')" if column.region else "''"

    def _named(self, normalizers: Mapping[int, Normalizer]) -> str:
        """The identifiers of pairs that are denied or allowed by hand: ``rule``, ``kind``, ``value``."""
        found = []
        for place, rule in enumerate(self._bench.identity.rules):
            sides = rule.deny if isinstance(rule, Deny) else rule.allow if isinstance(rule, Allow) else ()
            for side in sides:
                for name, text in side.items():
                    kind = self._kinds.index(name)
                    value, _ = normalizers[kind](text)
                    if value is not None:
                        found.append((place, kind, value))
        columns = dict(zip(("rule", "kind", "value"), zip(*found, strict=True), strict=True)) if found else {}
        types = {"rule": pa.int64(), "kind": pa.int64(), "value": pa.string()}
        return self._bench.put("named", {name: columns.get(name, ()) for name in types}, types)

    # Rows

    def _put_sights(self, columns: Sequence[_Column], codes: str) -> str:
        """All rows in order. Where a value is no identifier, its slot holds a negative number: why."""
        used = {load.stream for load in (*self._loads, *self._again)}
        parts = [
            self._sights(source, [column for column in columns if column.source == source], codes)
            for source, stream in enumerate(self._bench.streams)
            if stream.ref in used
        ] or [self._no_sights()]
        slots = "".join(f", s.s{slot} as s{slot}" for slot in range(len(self.slots)))
        sights = self._bench.make(
            "sights",
            "select row_number() over (order by s.seq, s.load_seq, s.at nulls first, s.source, s.place) as n,"
            " s.seq as seq, s.source as source, s.load_id as load_id, s.position as position,"
            f" s.at as at{slots} from ({' union all '.join(parts)}) s",
        )
        for table in (codes, *self._spent):
            self._session.execute(f"drop table {table}")
        return sights

    def _no_sights(self) -> str:
        whole = self._bench.type("integer")
        slots = "".join(f", cast(null as {whole}) as s{slot}" for slot in range(len(self.slots)))
        return (
            "select l.seq as seq, l.load_seq as load_seq, l.seq as source, l.load_id as load_id,"
            f" l.load_id as position, cast(null as {self._bench.type('timestamp')}) as at, l.load_id as place"
            f"{slots} from {self._batches} l where 1 = 0"
        )

    def _sights(self, source: int, columns: Sequence[_Column], codes: str) -> str:
        """A query for the rows of one stream.

        One column after the other is replaced by its identifiers: of several joins in one statement, DuckDB
        keeps all tables in memory at once.
        """
        rows = self._written(source, columns)
        for place, column in enumerate(columns):
            done = "".join(f", r.s{c.slot} as s{c.slot}" for c in columns[:place])
            left = "".join(
                f", r.t{c.slot} as t{c.slot}, r.c{c.slot} as c{c.slot}" for c in columns[place + 1 :]
            )
            coded = self._bench.make(
                f"coded_{source}_{place % 2}",
                "select r.seq as seq, r.load_seq as load_seq, r.load_id as load_id, r.position as position,"
                f" r.at as at, r.place as place{done}, c.code as s{column.slot}{left} from {rows} r"
                f" left join {codes} c on c.kind = {column.kind} and c.written = r.t{column.slot}"
                f" and c.region = r.c{column.slot}",
            )
            self._session.execute(f"drop table {rows}")
            rows = coded
        self._spent.append(rows)
        found = {column.slot for column in columns}
        none = f"cast(null as {self._bench.type('integer')})"
        slots = "".join(
            f", {f'r.s{slot}' if slot in found else none} as s{slot}" for slot in range(len(self.slots))
        )
        return (
            f"select r.seq as seq, r.load_seq as load_seq, {source} as source, r.load_id as load_id,"
            f" r.position as position, r.at as at, r.place as place{slots} from {rows} r"
        )

    def _written(self, source: int, columns: Sequence[_Column]) -> str:
        """The rows of one stream with what stands in its identifier columns: ``t<slot>``, and its country
        ``c<slot>``. Of rows of one moment, ``place`` says which comes first."""
        stream, quote = self._bench.streams[source], self._session.warehouse.quote
        there, moment = self._session.columns(stream.raw_table), self._bench.type("timestamp")
        at = "null"
        if stream.time and there.get(stream.time, "").lower() == moment:
            at = f"r.{quote(stream.time)}"
        keys = [self._ordered(name, there[name]) for name in stream.primary_key if name in there]
        texts = "".join(
            f", {self._as_text(c.name)} as t{c.slot}, {self._country(c)} as c{c.slot}" for c in columns
        )
        return self._bench.make(
            f"written_{source}",
            "select l.seq as seq, l.load_seq as load_seq, r._load_id as load_id, r._position as position,"
            f" cast({at} as {moment}) as at,"
            f" row_number() over (order by {', '.join([*keys, 'r._load_id', 'r._position'])}) as place{texts}"
            f" from {self._from(source)} where {self._where()}",
        )

    def _ordered(self, column: str, engine_type: str) -> str:
        """A part of the primary key, so that it sorts as Arrow sorts it."""
        if self._is_text(engine_type):
            return f"{self._session.warehouse.byte_order(self._as_text(column))} nulls last"
        return f"r.{self._session.warehouse.quote(column)} nulls last"

    def _known_only(self, sights: str) -> str:
        """Count the values that are no identifiers, and leave them out."""
        for slot, kind in enumerate(self.slot_kinds):
            counts = self._session.fetch(
                f"select s.s{slot}, count(*) from {sights} s where s.s{slot} < 0"
                f" and s.seq >= {self._bench.plan.seq if self._again else 0} group by s.s{slot}"
            )
            for code, count in counts:
                if reason := _REASONS.get(code):
                    of_reason = self.unfit.setdefault(reason, {})
                    of_reason[self._kinds[kind]] = of_reason.get(self._kinds[kind], 0) + count
        return self._changed(sights, "", lambda slot: f"case when r.s{slot} > 0 then r.s{slot} end", "fit")

    def _changed(self, rows: str, joins: str, slot: Callable[[int], str], name: str) -> str:
        """The rows with other slots, instead of the table they were in."""
        slots = "".join(f", {slot(n)} as s{n}" for n in range(len(self.slots)))
        made = self._bench.make(
            name,
            "select r.n as n, r.seq as seq, r.source as source, r.load_id as load_id, r.position as position,"
            f" r.at as at{slots} from {rows} r{joins}",
        )
        self._session.execute(f"drop table {rows}")
        return made

    def _without(self, rows: str, gone: str, name: str) -> str:
        """The rows without the identifiers of `gone` (``identifier``, ``since``) from that run on."""
        if not self._bench.count(f"select count(*) from {gone}"):
            return rows
        joins = "".join(
            f" left join {gone} g{slot} on g{slot}.identifier = r.s{slot}" for slot in range(len(self.slots))
        )
        return self._changed(
            rows, joins, lambda slot: f"case when g{slot}.since <= r.seq then null else r.s{slot} end", name
        )

    def _barred(self, reason: str, since: str) -> str:
        """Identifiers that earlier runs barred for that reason: ``identifier``, ``since``."""
        barred = self._session.warehouse.table("barred_identifiers")
        return self._bench.make(
            "barred",
            f"select v.identifier as identifier, min({since}) as since from {barred} b"
            f" join {self.kinds} k on k.type = b.type"
            f" join {self.values} v on v.kind = k.kind and v.value = b.value"
            f" where b.reason = '{reason}' group by v.identifier",
        )

    def _alone(self, rows: str) -> str:
        """The rows, but of those excluded by hand only the strongest identifier."""
        found = [
            self._excluded(source)
            for source, stream in enumerate(self._bench.streams)
            if history.excluded_rows(self._bench.identity, stream)
            and stream.ref in {load.stream for load in (*self._loads, *self._again)}
        ]
        if not self.slots or not sum(map(len, found)):
            return rows
        alone = self._session.temp("cdp_pd_alone", pa.concat_tables(found, promote_options="permissive"))
        strongest = self._strongest()
        return self._changed(
            rows,
            f" left join {alone} a on a.load_id = r.load_id and a.position = r.position",
            lambda slot: f"case when a.load_id is null or r.s{slot} = {strongest} then r.s{slot} end",
            "linking",
        )

    def _excluded(self, source: int) -> pa.Table:
        """Where the rows of a stream that are excluded by hand lie."""
        stream, quote = self._bench.streams[source], self._session.warehouse.quote
        there = self._session.columns(stream.raw_table)
        excluded = history.excluded_rows(self._bench.identity, stream)
        params: dict[str, str] = {}
        choices = []
        for place, key in enumerate(excluded):
            parts = ["1 = 1"]
            for n, (column, text) in enumerate(zip(stream.primary_key, key, strict=False)):
                if self._reads_alike(there.get(column, "")):
                    params[f"key_{place}_{n}"] = text
                    parts.append(f"{self._as_text(column)} = :key_{place}_{n}")
            choices.append(f"({' and '.join(parts)})")
        keys = ", ".join(
            f"{f'r.{quote(c)}' if c in there else 'null'} as key_{n}"
            for n, c in enumerate(stream.primary_key)
        )
        found = self._session.arrow(
            f"select r._load_id as load_id, r._position as position, {keys} from {self._from(source)}"
            f" where {self._where()} and ({' or '.join(choices)})",
            params,
        )
        hit = history.has_key(found, len(stream.primary_key), excluded)
        return found.select(["load_id", "position"]).filter(pa.array(hit))

    def _reads_alike(self, engine_type: str) -> bool:
        """Whether the engine writes values of the type as Arrow does."""
        return self._is_text(engine_type) or engine_type.lower() in {
            self._bench.type("integer"),
            self._bench.type("boolean"),
            self._bench.type("date"),
        }

    def _strongest(self) -> str:
        slots = [f"r.s{slot}" for slot in range(len(self.slots))]
        return f"coalesce({', '.join(slots)})" if slots else f"cast(null as {self._bench.type('integer')})"

    def _keep(self, rows: str) -> None:
        self.rows = self._bench.make("rows", f"select r.*, {self._strongest()} as strongest from {rows} r")
        self._session.execute(f"drop table {rows}")

    def _without_hubs(self, rows: str) -> str:
        """The rows without what became a hub in them."""
        found = PushedHubs(self._bench.make, self._session, self.values, self.kinds)
        limits = [rule.hub for rule in self._bench.types.values()]
        limited = [limits[kind] is not None for kind in self.slot_kinds]
        if not any(limited) or len(self.slots) == 1:
            return rows
        since = found.find(rows, limited, replay=self._bench.plan.replay)
        self.hubs, self.neighbours = found.hubs, found.neighbours
        return self._without(rows, since, "unhubbed")


def wanted(bench: Bench, profiles: str) -> tuple[str, frozenset[Load]]:
    """The rows that belong to profiles (``profile_id``) now, as a table, and their batches."""
    table = bench.session.warehouse.table
    rows = bench.make(
        "wanted",
        "select l.stream as stream, l.load_id as load_id, l.position as position"
        f" from {table('row_links')} l join {table('identifiers')} i on i.node_id = l.node_id"
        f" join {profiles} w on w.profile_id = i.profile_id",
    )
    return rows, history.loads_of(bench.session, rows)
