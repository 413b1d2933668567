# SPDX-License-Identifier: Apache-2.0
"""One pass over a stream: its rows by profile, and all that traits, fields and segments ask about them.

Whoever needs a number about a profile's rows asks the stream's :class:`Scan` for it and gets the SQL of a
column back; the scan then computes all of them in one ``group by``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdp_provider.core.exceptions import ConfigurationError, NotFoundError
from cdp_provider.core.profiles.filters import compile_filter, within_last

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from datetime import timedelta

    from cdp_provider.core.profiles.filters import Params
    from cdp_provider.core.project.conditions import Filter
    from cdp_provider.core.project.streams import Stream

#: Order of a profile's rows, newest first; rows without a time are the oldest.
_NEWEST_FIRST = '{time} desc nulls last, v."_load_seq" desc, v."_load_id" desc, v."_position" desc'


class Scan:
    """The rows of one stream that belong to a profile and happened before now, or at an unknown time.

    :param number: makes the names of its relations unique within a statement.
    :param present: columns that the stream's view has; none where the stream was never landed.
    """

    def __init__(self, stream: Stream, params: Params, number: int, present: Collection[str]) -> None:
        self.stream = stream
        self.params = params
        self.rows = f'"_rows_{number}"'
        self.totals = f'"_totals_{number}"'
        self._present = present
        self._numbered = False
        self._columns: dict[str, None] = {}
        self._aggregates: dict[str, str] = {}

    def column(self, name: str) -> str:
        """The quoted name of a column of the stream, which the scan will read.

        :raises ConfigurationError: the stream has no such column.
        """
        if name not in self.stream.columns:
            known = ", ".join(self.stream.columns)
            msg = f"the stream {self.stream.ref} has no column {name!r}; it has {known}"
            raise ConfigurationError(msg)
        self._columns[name] = None
        return self.params.warehouse.quote(name)

    def conditions(self, where: Filter, last: timedelta | None) -> list[str]:
        """SQL of a filter, and of a duration back from now; all must hold.

        :raises ConfigurationError: a column is unknown, a comparison does not suit it, or `last` is given for
            a stream without a time.
        """
        found = compile_filter(where, self.stream, self.params)
        for name in where:
            self.column(name)
        if last is not None:
            found.append(within_last(self.time, last, self.params))
        return found

    @property
    def time(self) -> str:
        """SQL of the rows' time.

        :raises ConfigurationError: the stream declares none.
        """
        if self.stream.time is None:
            msg = (
                f"within_last and days_since_last need to know when a row of {self.stream.ref} happened;"
                " declare its time column with `time:`"
            )
            raise ConfigurationError(msg)
        return '"_time"'

    @property
    def order(self) -> str:
        """SQL of a row's place among its profile's rows of this stream: 1 is the newest."""
        self._numbered = True
        return '"_number"'

    def aggregate(self, sql: str) -> str:
        """SQL, outside the scan, of one aggregate over a profile's rows; NULL for a profile without rows."""
        name = self._aggregates.setdefault(sql, f'"_c{len(self._aggregates)}"')
        return f"{self.totals}.{name}"

    def rows_sql(self) -> str:
        """The rows themselves, one per primary key."""
        warehouse = self.params.warehouse
        if not self._lies_ready():
            return self._nothing()
        time = f"v.{warehouse.quote(self.stream.time)}" if self.stream.time else self._null("timestamp")
        chosen = ['i.profile_id as "_profile_id"', f'{time} as "_time"', 'v."_load_seq"']
        chosen += [f"v.{warehouse.quote(name)}" for name in self._columns]
        if self._numbered:
            order = _NEWEST_FIRST.format(time=time)
            chosen.append(f'row_number() over (partition by i.profile_id order by {order}) as "_number"')
        ref = self.params.bind(self.stream.ref, "string")
        known = f" where {time} < {self.params.moment()} or {time} is null" if self.stream.time else ""
        return (
            f"select {', '.join(chosen)} from {warehouse.table(self.stream.view)} v"
            f" join {warehouse.table('row_links')} l on l.stream = {ref}"
            ' and l.load_id = v."_load_id" and l.position = v."_position"'
            f" join {warehouse.table('identifiers')} i on i.node_id = l.node_id{known}"
        )

    def totals_sql(self) -> str:
        """One row per profile that has rows: their number, the newest time, and every aggregate asked for."""
        chosen = ['"_profile_id"', 'count(*) as "_count"', 'max("_time") as "_newest"']
        chosen += [f"{sql} as {name}" for sql, name in self._aggregates.items()]
        return f'select {", ".join(chosen)} from {self.rows} group by "_profile_id"'

    def _lies_ready(self) -> bool:
        """Whether the stream's view can be read; an optional stream that was never landed has no rows."""
        missing = [name for name in self._columns if name not in self._present]
        if self._present and not missing:
            return True
        if self.stream.optional:
            return False
        what = f"its columns {', '.join(missing)}" if self._present else "it"
        msg = (
            f"the stream {self.stream.ref} is needed, but {what} was never landed; land it first,"
            " or mark the stream as optional"
        )
        raise NotFoundError(msg)

    def _nothing(self) -> str:
        quote = self.params.warehouse.quote
        types = {"_profile_id": "integer", "_load_seq": "integer", "_number": "integer", "_time": "timestamp"}
        types |= {name: self.stream.columns[name].type for name in self._columns}
        chosen = [f"{self._null(kind)} as {quote(name)}" for name, kind in types.items()]
        return f"select {', '.join(chosen)} where 1 = 0"

    def _null(self, kind: str) -> str:
        return f"cast(null as {self.params.warehouse.types[kind]})"


class Scans:
    """The scans of one statement, one per stream that it asks about.

    :param streams: by :attr:`Stream.ref`.
    :param present: gives the columns of a view, none where it does not exist (:meth:`Session.columns`).
    """

    def __init__(
        self, params: Params, streams: Mapping[str, Stream], present: Callable[[str], Collection[str]]
    ) -> None:
        self.params = params
        self.streams = streams
        self._present = present
        self._scans: dict[str, Scan] = {}

    def of(self, ref: str) -> Scan:
        """The scan of a stream.

        :raises ConfigurationError: the project has no such stream.
        """
        if ref not in self._scans:
            if ref not in self.streams:
                msg = f"the project has no stream {ref!r}; it has {', '.join(self.streams) or 'none'}"
                raise ConfigurationError(msg)
            stream = self.streams[ref]
            self._scans[ref] = Scan(stream, self.params, len(self._scans), self._present(stream.view))
        return self._scans[ref]

    def relations(self) -> list[str]:
        """The scans as common table expressions, each after those that it reads."""
        return [
            f"{name} as ({sql})"
            for scan in self._scans.values()
            for name, sql in ((scan.rows, scan.rows_sql()), (scan.totals, scan.totals_sql()))
        ]

    def joins(self, profile_id: str) -> str:
        """Left joins of all scans' totals to the relation that has the profile ids."""
        return "".join(
            f' left join {scan.totals} on {scan.totals}."_profile_id" = {profile_id}'
            for scan in self._scans.values()
        )

    def total(self, column: str) -> list[str]:
        """SQL of ``_count`` or ``_newest`` of each scan."""
        return [f'{scan.totals}."{column}"' for scan in self._scans.values()]


def filtered(conditions: list[str]) -> str:
    """The ``filter`` clause of an aggregate; nothing without conditions."""
    return f" filter (where {' and '.join(conditions)})" if conditions else ""
