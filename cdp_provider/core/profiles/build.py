# SPDX-License-Identifier: Apache-2.0
"""Build the table ``profiles``: one row per person, with every field and trait of the project."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdp_provider.core import tables
from cdp_provider.core.exceptions import ConfigurationError
from cdp_provider.core.profiles import history
from cdp_provider.core.profiles.accounts import accounts_sql
from cdp_provider.core.profiles.constants import read
from cdp_provider.core.profiles.derived import derived_levels
from cdp_provider.core.profiles.facts import Facts
from cdp_provider.core.profiles.kept import kept_facts
from cdp_provider.core.profiles.linked import RawRows
from cdp_provider.core.profiles.own_sql import own_sql
from cdp_provider.core.profiles.params import Params
from cdp_provider.core.profiles.parts import Part
from cdp_provider.core.profiles.provenance import write_view
from cdp_provider.core.profiles.survivorship import field_sql
from cdp_provider.core.profiles.traits import OF_ROWS, trait_sql
from cdp_provider.core.project.typing import trait_types
from cdp_provider.core.runs import advance, reported, superseded

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from cdp_provider.core.profiles.params import Query
    from cdp_provider.core.project.profiles import Profiles, Trait
    from cdp_provider.core.project.streams import Stream
    from cdp_provider.core.run import Run
    from cdp_provider.core.runs import Report
    from cdp_provider.core.warehouse import Session, Warehouse

TABLE = "profiles"
ACCOUNTS = "accounts"
_RESERVED = "profile_id"
_PAST = '"cdp_past_profiles"'


def build_profiles(warehouse: Warehouse, profiles: Profiles, streams: Sequence[Stream], run: Run) -> Report:
    """Bring all profiles to the end of the run's window.

    One row per ``identifiers.profile_id``: ``profile_id``, one column per field and trait, and ``_as_of``,
    the end of the window. The table changes at once, when the whole result is there; readers see the old one
    until then. When a newer window's profiles stand already, they stay, and only the past values that the
    project keeps a history of are written.

    :param streams: all streams of the project.
    :returns: a report of stage ``profiles``; ``rows_in`` counts the rows of streams that profiles are made
        of, its watermark is the newest of their times.
    :raises ConfigurationError: a field or trait names what is not there, or what does not suit its type.
    :raises NotFoundError: a stream that is not optional was never landed.
    """
    with reported(warehouse, run, "profiles") as report, warehouse.session() as session:
        tables.ensure(session)
        with session.lock("profiles"):
            if superseded(session, report):
                _remember_past(session, profiles, streams, report)
                return report
            params = Params(warehouse, run.window.end, profiles.timezone)
            definition = _Definition(session, profiles, kept_facts(session, "profiles", params, streams))
            query = definition.query()
            with session.transaction():
                session.replace_table(TABLE, query.sql, query.params)
                _apply(session, definition, report)
                report.write(session)
                advance(session, report)
    return report


def snapshot(
    warehouse: Warehouse, profiles: Profiles, streams: Sequence[Stream], as_of: datetime, table: str
) -> int:
    """Put all profiles as of any moment into a table of their own, in place of what it held.

    What had happened before that moment counts, by today's knowledge of who is who.

    :param table: unquoted name in the warehouse's schema; none of the product's own.
    :returns: the number of profiles.
    :raises ConfigurationError: the table is one of the product.
    """
    own = {*tables.TABLES, TABLE, ACCOUNTS, "product", "profile_redirect", "field_provenance"}
    streams_tables = {name for stream in streams for name in (stream.view, stream.raw_table)}
    if table in own | streams_tables or table.startswith(("linked_", "kept_", "raw_", "outbox__")):
        msg = f"{table} is a table of the product itself; give the snapshot another name"
        raise ConfigurationError(msg)
    with warehouse.session() as session:
        tables.ensure(session)
        definition = _as_of(session, profiles, streams, as_of)
        query = definition.query()
        with session.transaction():
            session.replace_table(table, query.sql, query.params)
        return int(session.scalar(f"select count(*) from {warehouse.table(table)}"))


def _as_of(session: Session, profiles: Profiles, streams: Sequence[Stream], moment: datetime) -> _Definition:
    params = Params(session.warehouse, moment, profiles.timezone)
    by_ref = {stream.ref: stream for stream in streams}
    return _Definition(session, profiles, Facts(params, by_ref, RawRows(session, params)))


class _Definition:
    """The fields and traits of a project as one statement over `facts`."""

    def __init__(self, session: Session, profiles: Profiles, facts: Facts) -> None:
        self.session, self.profiles, self.facts = session, profiles, facts
        self.params = facts.params
        self.kinds = trait_types(profiles, facts.streams)
        _check_names(profiles)
        self._columns = {name: self._field(name) for name in profiles.fields} | {
            name: self._trait(name, trait)
            for name, trait in profiles.traits.items()
            if trait.type in OF_ROWS or trait.type == "sql"
        }
        for ref in self.facts.used():
            self.facts.ask(ref, "count")
            if self.facts.stream(ref).time is not None:
                self.facts.ask(ref, "last_time")

    def query(self) -> Query:
        """A row per profile: what the table holds."""
        warehouse, quote = self.session.warehouse, self.session.warehouse.quote
        types = {name: warehouse.column_type(kind) for name, kind in self.kinds.items()}
        chosen = ["p.profile_id"]
        chosen += [f"cast({sql} as {types[name]}) as {quote(name)}" for name, sql in self._columns.items()]
        relations = self.facts.relations()
        people = f"(select distinct profile_id from {warehouse.table('identifiers')}) p"
        with_ = f"with {', '.join(relations)} " if relations else ""
        sql = f"{with_}select {', '.join(chosen)} from {people}{self.facts.joins('p.profile_id')}"
        for level in derived_levels(self.profiles.traits, self.kinds, self.params):
            more = ", ".join(f"cast({value} as {types[name]}) as {quote(name)}" for name, value in level)
            sql = f"select b.*, {more} from ({sql}) b"
        names = ["profile_id", *self.profiles.fields, *self.profiles.traits]
        moment = self.params.moment()
        return self.params.query(
            f'select {", ".join(map(quote, names))}, {moment} as "_as_of" from ({sql}) built'
        )

    def rows(self) -> tuple[int, datetime | None]:
        """How many rows of streams the profiles are made of, and the newest of their times."""
        total, newest = 0, []
        for ref in self.facts.used():
            held = self.facts.totals_of(ref, continued=True)
            if held.relation not in self.facts.kept:
                continue
            count, time = (
                held.parts.column(Part("count")),
                held.parts.column(Part("max", '"_time"', "timestamp")),
            )
            latest = f"max({time})" if self.facts.stream(ref).time is not None else "null"
            row = self.session.one(f"select sum({count}), {latest} from {self.facts.kept[held.relation]}")
            if row and row[0] is not None:
                total += int(row[0])
                newest.append(row[1])
        return total, max(filter(None, newest), default=None)

    def _field(self, name: str) -> str:
        field = self.profiles.fields[name]
        if field.keep == "sql":
            return self._own_sql(name, str(field.sql))
        return field_sql(name, field, self.facts)

    def _trait(self, name: str, trait: Trait) -> str:
        sql = (
            self._own_sql(name, str(trait.sql)) if trait.type == "sql" else trait_sql(name, trait, self.facts)
        )
        if trait.default is None:
            return sql
        kind = self.kinds[name]
        return (
            f"coalesce({sql}, {self.params.bind(read(trait.default, kind, f'the default of {name}'), kind)})"
        )

    def _own_sql(self, name: str, sql: str) -> str:
        relation = self.facts.relation(own_sql(sql, self.facts, ("value",), name), (), always=True)
        return f'{relation}."value"'


def _check_names(profiles: Profiles) -> None:
    for name in profiles.traits:
        if name in profiles.fields:
            msg = f"{name} is both a field and a trait of the profile; rename one of them"
            raise ConfigurationError(msg)
    if _RESERVED in profiles.fields or _RESERVED in profiles.traits:
        msg = f"a field or trait is called {_RESERVED}, which is the profile's own key; rename it"
        raise ConfigurationError(msg)


def _apply(session: Session, definition: _Definition, report: Report) -> None:
    """What follows from the new profiles."""
    run, profiles, table = report.run, definition.profiles, session.warehouse.table
    if profiles.accounts is not None:
        select = accounts_sql(profiles, definition.kinds, definition.params, table(TABLE))
        session.replace_table(ACCOUNTS, select)
    history.record(session, profiles, table(TABLE), run.window.end, run.run_id)
    write_view(session, profiles, definition.facts.streams)
    report.rows_out = int(session.scalar(f"select count(*) from {table(TABLE)}"))
    report.detail["profiles"] = report.rows_out
    report.rows_in, report.watermark = definition.rows()


def _remember_past(session: Session, profiles: Profiles, streams: Sequence[Stream], report: Report) -> None:
    """Write the past values of a window that lies before the one that stands."""
    if not profiles.history:
        return
    window_end = report.run.window.end
    query = _as_of(session, profiles, streams, window_end).query()
    session.execute(f"drop table if exists {_PAST}")
    session.execute(f"create temporary table {_PAST} as {query.sql}", query.params)
    with session.transaction():
        history.record(session, profiles, _PAST, window_end, report.run.run_id)
        report.rows_out = int(session.scalar(f"select count(*) from {_PAST}"))
        report.write(session)
