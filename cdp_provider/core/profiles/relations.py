# SPDX-License-Identifier: Apache-2.0
"""The relations that answer what a statement asks about profiles' rows, collected while it is written."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from cdp_provider.core.exceptions import ConfigurationError
from cdp_provider.core.profiles.filters import compile_comparison, compile_filter
from cdp_provider.core.profiles.parts import Parts
from cdp_provider.core.profiles.values import Values
from cdp_provider.core.profiles.versions import rows_sql, time_of
from cdp_provider.core.project.conditions import Comparison, Window

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import timedelta

    from cdp_provider.core.profiles.params import Params
    from cdp_provider.core.profiles.values import Stated
    from cdp_provider.core.project.conditions import Filter
    from cdp_provider.core.project.streams import Stream

_NAMES = re.compile(r":(p[0-9]+)\b")


class Source(Protocol):
    """Where rows of streams are read."""

    def prepare(self, relations: Relations) -> None:
        """Everything has been asked: make it ready to be read."""

    def table(self, stream: Stream) -> str | None:
        """A quoted table, or a select in parentheses, of a stream's linked rows as of now; None without."""


@dataclass
class Totals:
    """The parts asked of one stream that are computed alike.

    :param relation: quoted name of the relation that holds them, one line per profile.
    :param continued: they can be continued from run to run.
    """

    ref: str
    relation: str
    parts: Parts
    continued: bool

    @property
    def key(self) -> str:
        """Tells one set of parts of an owner from the others."""
        return f"{self.ref}:{'continued' if self.continued else 'computed'}"


@dataclass
class Relation:
    """A select of its own over rows of streams, one line per profile.

    :param relation: quoted name; `refs` the streams whose rows it reads.
    :param windows: stream -> durations after which a row changes what it says.
    :param always: nothing of it can be kept.
    """

    relation: str
    sql: str
    refs: tuple[str, ...]
    windows: Mapping[str, frozenset[timedelta]] = field(default_factory=dict)
    always: bool = False


class Relations:
    """What has to be computed of rows, and where the answers are joined.

    :param streams: by :attr:`Stream.ref`.
    """

    def __init__(self, params: Params, streams: Mapping[str, Stream], source: Source) -> None:
        self.params = params
        self.streams = streams
        self._source = source
        self._rows: dict[str, str] = {}
        self._objects: dict[str, str] = {}
        self._columns: dict[str, dict[str, None]] = {}
        self.totals: dict[str, Totals] = {}
        self._selects: dict[str, Relation] = {}
        self._values: dict[tuple[Stated, ...], Values] = {}
        #: Quoted table of the profiles (``_profile_id``) for which something kept has changed since the last
        #: run; None where that is not known.
        self.changed: str | None = None
        #: Relations that stand in the warehouse already: quoted name -> quoted table.
        self.kept: dict[str, str] = {}

    def stream(self, ref: str) -> Stream:
        """A stream of the project.

        :raises ConfigurationError: there is none of that name.
        """
        if ref not in self.streams:
            msg = f"the project has no stream {ref!r}; it has {', '.join(self.streams) or 'none'}"
            raise ConfigurationError(msg)
        return self.streams[ref]

    def column(self, ref: str, name: str) -> str:
        """The quoted name of a column of a stream, in :meth:`rows` and :meth:`objects`.

        :raises ConfigurationError: the stream has no such column.
        """
        stream = self.stream(ref)
        if name not in stream.columns:
            msg = f"the stream {ref} has no column {name!r}; it has {', '.join(stream.columns)}"
            raise ConfigurationError(msg)
        self._columns.setdefault(ref, {})[name] = None
        return self.params.warehouse.quote(name)

    def conditions(
        self, ref: str, where: Filter, *, event: str | None = None, window: Window | None = None
    ) -> list[str]:
        """SQL conditions on the rows or objects of a stream; each is true or false for every row.

        :raises ConfigurationError: the stream lacks what they need, or a comparison does not suit a column.
        """
        stream = self.stream(ref)
        found = compile_filter(where, stream, self.params)
        for name in where:
            self.column(ref, name)
        if event is not None:
            if stream.event is None:
                msg = (
                    f"the event {event!r} is looked for in {ref}, a stream that declares no `event:` column;"
                    " declare it, or use `where` on a column"
                )
                raise ConfigurationError(msg)
            self.column(ref, stream.event)
            found += compile_filter({stream.event: Comparison(is_=event)}, stream, self.params)
        return found + self._windowed(stream, window)

    def rows(self, ref: str) -> str:
        """The relation of a stream's rows by profile: ``_profile_id``, ``_time``, ``_order``, its columns."""
        self.stream(ref)
        return self._rows.setdefault(ref, f'"_rows_{len(self._rows)}"')

    def objects(self, ref: str) -> str:
        """The relation of all rows of a stream, of a profile or not: ``_time`` and its columns."""
        self.stream(ref)
        return self._objects.setdefault(ref, f'"_objects_{len(self._objects)}"')

    def relation(
        self,
        sql: str,
        refs: Collection[str],
        *,
        windows: Mapping[str, Collection[timedelta]] | None = None,
        always: bool = False,
    ) -> str:
        """Add a select of ``_profile_id`` (unique) and further columns; returns its quoted name.

        :param refs: the streams of which it reads :meth:`rows`.
        :param windows: stream -> durations after which a row changes what the select says of its profile.
        :param always: it depends on more than these rows and windows.
        """
        if sql not in self._selects:
            frozen = {ref: frozenset(durations) for ref, durations in (windows or {}).items()}
            self._selects[sql] = Relation(self._named(), sql, tuple(dict.fromkeys(refs)), frozen, always)
        return self._selects[sql].relation

    def _named(self) -> str:
        return f'"_relation_{len(self.extra)}"'

    def values(
        self,
        stated: Sequence[Stated],
        kind: str,
        *,
        last: timedelta | None = None,
        always: bool = False,
    ) -> Values:
        """The different values that rows of some streams state.

        :param kind: their column type.
        :param last: the length of a window in the conditions; `always`: they move with now in another way.
        """
        key = tuple(stated)
        if key not in self._values:
            windows = {one.ref: frozenset([last] if last else []) for one in stated}
            rows = {one.ref: self.rows(one.ref) for one in stated}
            self._values[key] = Values(self.params, rows, key, kind, self._named(), windows, always)
        return self._values[key]

    def totals_of(self, ref: str, *, continued: bool) -> Totals:
        """The set of parts of a stream that a part belongs to."""
        key = f"{ref}:{continued}"
        if key not in self.totals:
            self.rows(ref)
            name = f'"_totals_{len(self.totals)}"'
            self.totals[key] = Totals(ref, name, Parts(self.params), continued)
        return self.totals[key]

    def rows_sql(self, ref: str, table: str | None = None, extra: Sequence[str] = ()) -> str:
        """The select behind :meth:`rows`, with the columns asked for so far.

        :param table: of other linked rows than all; `extra` further columns of it, quoted.
        """
        stream = self.stream(ref)
        table = table or self._source.table(stream)
        columns = [self.params.warehouse.quote(name) for name in self._columns.get(ref, {})]
        if table is None:
            return self._nothing(stream)
        return rows_sql(self.params.warehouse, stream, table, [*columns, *extra])

    @property
    def extra(self) -> list[Relation | Values]:
        """What is computed by selects of its own."""
        return [*self._selects.values(), *self._values.values()]

    def used(self) -> list[str]:
        """References of all streams that were asked about."""
        return list(dict.fromkeys((*self._rows, *self._objects)))

    def relations(self) -> list[str]:
        """Common table expressions, each after those that it reads; ask when everything has been asked."""
        self._source.prepare(self)
        found = {name: self.rows_sql(ref) for ref, name in self._rows.items()}
        found |= {name: self._objects_sql(ref) for ref, name in self._objects.items()}
        found |= {
            totals.relation: totals.parts.of_rows(self._rows[totals.ref])
            for totals in self.totals.values()
            if totals.relation not in self.kept
        }
        found |= {extra.relation: extra.sql for extra in self.extra if extra.relation not in self.kept}
        used = " ".join(found.values()) if self.kept else None
        return [
            f"{name} as ({sql})"
            for name, sql in found.items()
            if used is None or not name.startswith('"_rows_') or name in used
        ]

    def joins(self, profile_id: str, needed: str | None = None) -> str:
        """Left joins of everything to the relation that has the profile ids.

        :param needed: SQL; only of what is named in it.
        """
        return "".join(
            f' left join {self.kept.get(name, name)} {name} on {name}."_profile_id" = {profile_id}'
            for name in self.names()
            if needed is None or name in needed
        )

    def names(self) -> list[str]:
        """Quoted names of all relations that are joined."""
        return [totals.relation for totals in self.totals.values()] + [extra.relation for extra in self.extra]

    def fingerprint(self, sql: str) -> str:
        """A hash of a statement and of what it binds, equal from run to run: "a day ago" is no moment."""

        def stable(match: re.Match[str]) -> str:
            return self.params.meaning(match.group(1))

        return hashlib.sha256(_NAMES.sub(stable, sql).encode()).hexdigest()[:16]

    def time(self, ref: str) -> str:
        """The column of a rows relation that holds the rows' time.

        :raises ConfigurationError: the stream declares none.
        """
        if self.stream(ref).time is None:
            msg = (
                f"a window or time needs to know when a row of {ref} happened; declare its time column with"
                " `time:`"
            )
            raise ConfigurationError(msg)
        return '"_time"'

    def _windowed(self, stream: Stream, window: Window | None) -> list[str]:
        if window is None or (window.within_last is None and window.between is None):
            return []
        self.time(stream.ref)
        given = {"within_last": window.within_last, "between": window.between}
        comparison = Comparison(**{key: value for key, value in given.items() if value is not None})
        return [
            compile_comparison('"_time"', "timestamp", comparison, self.params, f"the time of {stream.ref}")
        ]

    def _objects_sql(self, ref: str) -> str:
        stream = self.stream(ref)
        warehouse = self.params.warehouse
        table = self._source.table(stream)
        if table is None:
            return self._nothing(stream)
        columns = map(warehouse.quote, self._columns.get(ref, {}))
        chosen = [f'{time_of(warehouse, stream, "t")} as "_time"', *columns]
        return f"select {', '.join(chosen)} from {table} t"

    def _nothing(self, stream: Stream) -> str:
        warehouse = self.params.warehouse
        columns = self._columns.get(stream.ref, {})
        order = warehouse.order_key(f"cast(null as {warehouse.types['timestamp']})", "0", "0", "0")
        chosen = [
            f'cast(null as {warehouse.types["integer"]}) as "_profile_id"',
            f'cast(null as {warehouse.types["timestamp"]}) as "_time"',
            f'{order} as "_order"',
            *(
                f"cast(null as {warehouse.types[stream.columns[name].type]}) as {warehouse.quote(name)}"
                for name in columns
            ),
        ]
        return f"select {', '.join(chosen)} where 1 = 0"
