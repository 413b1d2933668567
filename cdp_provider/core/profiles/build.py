# SPDX-License-Identifier: Apache-2.0
"""Build the table ``profiles``: one row per person, with every field and trait of the project."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdp_provider.core import tables
from cdp_provider.core.exceptions import ConfigurationError
from cdp_provider.core.profiles.filters import Params
from cdp_provider.core.profiles.scan import Scans
from cdp_provider.core.profiles.survivorship import Fields
from cdp_provider.core.profiles.traits import trait_sql
from cdp_provider.core.project.typing import trait_types
from cdp_provider.core.runs import advance, reported, superseded

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from datetime import datetime

    from cdp_provider.core.profiles.filters import Query
    from cdp_provider.core.project.profiles import Profiles
    from cdp_provider.core.project.streams import Stream
    from cdp_provider.core.run import Run
    from cdp_provider.core.runs import Report
    from cdp_provider.core.warehouse import Session, Warehouse

TABLE = "profiles"
_RESERVED = "profile_id"
_BUILT = '"profiles_built"'


def build_profiles(warehouse: Warehouse, profiles: Profiles, streams: Sequence[Stream], run: Run) -> Report:
    """Compute all profiles as of the end of the run's window and put them in place of the table's content.

    One row per ``identifiers.profile_id``: ``profile_id``, one column per field and trait, and ``_as_of``,
    the end of the window. The table changes at once, when the whole result is there; readers see the old one
    until then. Nothing happens when a newer window's profiles stand already.

    :param streams: all streams of the project.
    :returns: a report of stage ``profiles``; ``rows_in`` counts the rows of streams that were read, its
        watermark is the newest of their times.
    :raises ConfigurationError: a field or trait names what is not there, or what does not suit its type.
    :raises NotFoundError: a stream that is not optional was never landed.
    """
    with reported(warehouse, run, "profiles") as report, warehouse.session() as session:
        tables.ensure(session)
        with session.lock("profiles"):
            if superseded(session, report):
                return report
            _compute(session, profiles, streams, report)
            with session.transaction():
                _apply(session, profiles, report)
                report.write(session)
                advance(session, report)
    return report


def profiles_query(
    warehouse: Warehouse,
    profiles: Profiles,
    streams: Sequence[Stream],
    now: datetime,
    present: Callable[[str], Collection[str]],
) -> Query:
    """The one statement that computes all profiles: each stream is read once.

    Besides the columns of the table it gives ``_count``, the rows that a profile was made of, and
    ``_newest``, the newest of their times.

    :param now: the end of the window; only rows before it, or without a time, count.
    :param present: gives the columns of a stream's view, none where it does not exist.
    """
    by_ref = {stream.ref: stream for stream in streams}
    types = trait_types(profiles, by_ref)
    _check_names(profiles)
    params = Params(warehouse, now)
    scans = Scans(params, by_ref, present)
    fields = Fields(scans)
    columns = {name: fields.field_sql(name, field, types[name]) for name, field in profiles.fields.items()}
    columns |= {
        name: trait_sql(name, trait, scans.of(trait.stream)) for name, trait in profiles.traits.items()
    }

    counts = " + ".join(f"coalesce({count}, 0)" for count in scans.total("_count")) or "0"
    newest = ", ".join([f"cast(null as {warehouse.types['timestamp']})", *scans.total("_newest")])
    chosen = [
        "p.profile_id",
        *(
            f"cast({sql} as {warehouse.types[types[name]]}) as {warehouse.quote(name)}"
            for name, sql in columns.items()
        ),
        f'{params.moment()} as "_as_of"',
        f'{counts} as "_count"',
        f'greatest({newest}) as "_newest"',
    ]
    relations = [
        f'"_people" as (select distinct profile_id from {warehouse.table("identifiers")})',
        *scans.relations(),
        *fields.relations(),
    ]
    joins = scans.joins("p.profile_id") + fields.joins("p.profile_id")
    sql = f'with {", ".join(relations)} select {", ".join(chosen)} from "_people" p{joins}'
    return params.query(sql)


def _check_names(profiles: Profiles) -> None:
    for name in profiles.traits:
        if name in profiles.fields:
            msg = f"{name} is both a field and a trait of the profile; rename one of them"
            raise ConfigurationError(msg)
    if _RESERVED in profiles.fields or _RESERVED in profiles.traits:
        msg = f"a field or trait is called {_RESERVED}, which is the profile's own key; rename it"
        raise ConfigurationError(msg)


def _compute(session: Session, profiles: Profiles, streams: Sequence[Stream], report: Report) -> None:
    """The slow part, outside the transaction that swaps the result in."""
    query = profiles_query(session.warehouse, profiles, streams, report.run.window.end, session.columns)
    session.execute(f"drop table if exists {_BUILT}")
    session.execute(f"create temporary table {_BUILT} as {query.sql}", query.params)
    row = session.one(f'select count(*), coalesce(sum("_count"), 0), max("_newest") from {_BUILT}')
    people, rows, newest = row or (0, 0, None)
    report.rows_in, report.rows_out, report.watermark = int(rows), people, newest
    report.detail["profiles"] = people


def _apply(session: Session, profiles: Profiles, report: Report) -> None:
    names = ["profile_id", *profiles.fields, *profiles.traits, "_as_of"]
    columns = ", ".join(session.warehouse.quote(name) for name in names)
    session.replace_table(TABLE, f"select {columns} from {_BUILT}")
