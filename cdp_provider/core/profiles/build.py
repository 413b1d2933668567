# SPDX-License-Identifier: Apache-2.0
"""Build the table ``profiles``: one row per person, with every field and trait of the project."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdp_provider.core import tables
from cdp_provider.core.exceptions import ConfigurationError
from cdp_provider.core.profiles import history
from cdp_provider.core.profiles.accounts import accounts_sql
from cdp_provider.core.profiles.definition import Definition
from cdp_provider.core.profiles.facts import Facts
from cdp_provider.core.profiles.kept import kept_facts
from cdp_provider.core.profiles.params import Params
from cdp_provider.core.profiles.provenance import write_view
from cdp_provider.core.profiles.sources import RawRows
from cdp_provider.core.profiles.write import TABLE, write
from cdp_provider.core.runs import advance, reported, superseded

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from cdp_provider.core.project.profiles import Profiles
    from cdp_provider.core.project.streams import Stream
    from cdp_provider.core.run import Run
    from cdp_provider.core.runs import Report
    from cdp_provider.core.warehouse import Session, Warehouse

ACCOUNTS = "accounts"
_PAST = '"cdp_past_profiles"'

#: Further tables and views that no project names.
_OWN = ("product", "profile_redirect", "field_provenance", "membership_flags")


def build_profiles(warehouse: Warehouse, profiles: Profiles, streams: Sequence[Stream], run: Run) -> Report:
    """Bring all profiles to the end of the run's window.

    One row per ``identifiers.profile_id``: ``profile_id``, and one column per field and trait. Readers see
    the old rows until all are there; what is kept of rows changes in the same transaction. When a newer
    window's profiles stand already, they stay, and only the past values that the project keeps a history of
    are written.

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
            definition = Definition(profiles, kept_facts(session, "profiles", params, streams))
            with session.lock("linked"), session.transaction():
                report.rows_out = write(session, definition)
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
    own = {*tables.TABLES, TABLE, ACCOUNTS, *_OWN}
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


def _as_of(session: Session, profiles: Profiles, streams: Sequence[Stream], moment: datetime) -> Definition:
    params = Params(session.warehouse, moment, profiles.timezone)
    by_ref = {stream.ref: stream for stream in streams}
    return Definition(profiles, Facts(params, by_ref, RawRows(session, params)))


def _apply(session: Session, definition: Definition, report: Report) -> None:
    """What follows from the new profiles."""
    run, profiles, table = report.run, definition.profiles, session.warehouse.table
    if profiles.accounts is not None:
        select = accounts_sql(profiles, definition.kinds, definition.params, table(TABLE))
        session.replace_table(ACCOUNTS, select)
    history.record(session, profiles, table(TABLE), run.window.end, run.run_id)
    write_view(session, profiles, definition.facts.streams)
    report.detail["profiles"] = report.rows_out
    report.rows_in, report.watermark = definition.rows(session)


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
