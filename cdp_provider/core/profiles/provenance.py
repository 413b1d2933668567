# SPDX-License-Identifier: Apache-2.0
"""Where the values of a profile's fields come from: every statement, and which of them count."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from cdp_provider.core.exceptions import ConfigurationError, NotFoundError
from cdp_provider.core.profiles import linked
from cdp_provider.core.profiles.versions import time_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from cdp_provider.core.project.profiles import ProfileField, Profiles
    from cdp_provider.core.project.streams import Stream
    from cdp_provider.core.warehouse import Session, Warehouse

VIEW = "field_provenance"

#: Field rule -> how statements are ranked, the one that counts first; of the other rules all count.
_NEWEST = '"_head" desc, "_source", "_order" desc'
_RANKS = {
    "most_recent": _NEWEST,
    "first": '"_head", "_source", "_order"',
    "source_priority": f'"_source", {_NEWEST}',
    "most_frequent": f'"_times" desc, "_latest" desc, {_NEWEST}',
    "min": f"{{value}}, {_NEWEST}",
    "max": f"{{value}} desc, {_NEWEST}",
}


@dataclass(frozen=True)
class Statement:
    """One row that states a value of a field.

    :param chosen: whether the field's value is (also) this one's.
    """

    stream: str
    load_id: int
    position: int
    time: datetime | None
    chosen: bool


@dataclass(frozen=True)
class Provenance:
    """All that is stated about one field of one profile, newest first."""

    profile_id: int
    field: str
    keep: str
    statements: tuple[Statement, ...]

    def sentences(self) -> Iterator[str]:
        """Lines for a person; they hold no value of the profile."""
        if not self.statements:
            yield f"No row states {self.field} of the profile {self.profile_id}."
            return
        yield f"{self.field} of the profile {self.profile_id} is kept by the rule {self.keep}:"
        for one in self.statements:
            when = one.time.isoformat() if one.time else "at no known time"
            mark = "counts" if one.chosen else "does not count"
            yield f"  {one.stream}, batch {one.load_id}, row {one.position}, {when}: {mark}"

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        listed = [
            {**asdict(one), "time": one.time.isoformat() if one.time else None} for one in self.statements
        ]
        return {**asdict(self), "statements": listed}


def provenance(
    warehouse: Warehouse, profiles: Profiles, streams: Sequence[Stream], profile_id: int, field: str
) -> Provenance:
    """Where a field of a profile has its value from, as of the last build.

    :param profile_id: any id that the profile ever had.
    :raises ConfigurationError: there is no such field, or it comes from a statement of its own.
    :raises NotFoundError: profiles were never built, or there is no such profile.
    """
    if field not in profiles.fields:
        msg = (
            f"there is no field {field!r}; the profile has the fields {', '.join(profiles.fields) or 'none'}"
        )
        raise ConfigurationError(msg)
    wanted = profiles.fields[field]
    if wanted.keep == "sql":
        msg = f"the field {field} comes from your own statement, which says nothing of rows; read it there"
        raise ConfigurationError(msg)
    by_ref = {stream.ref: stream for stream in streams}
    with warehouse.session() as session:
        if not any(_stands(session, by_ref[source.stream]) for source in wanted.sources):
            msg = "profiles were not built yet; run build_profiles first"
            raise NotFoundError(msg)
        current = session.scalar(
            f"select profile_id from {warehouse.table('identifiers')} where node_id = :id", {"id": profile_id}
        )
        if current is None:
            msg = f"there is no profile {profile_id}, and never was"
            raise NotFoundError(msg)
        statements = _field_sql(session, field, wanted, by_ref)
        rows = session.fetch(
            f"select stream, load_id, position, time, chosen from ({statements}) f"
            " where profile_id = :id order by time desc nulls last, load_id desc, position desc",
            {"id": current},
        )
    return Provenance(current, field, wanted.keep, tuple(Statement(*row) for row in rows))


def write_view(session: Session, profiles: Profiles, streams: Mapping[str, Stream]) -> None:
    """Make the view ``field_provenance`` speak of these fields. Call it inside a transaction.

    A line per statement: ``profile_id``, ``field``, ``stream``, ``load_id``, ``position``, ``time``,
    ``value`` (as text) and ``chosen``.
    """
    warehouse = session.warehouse
    parts = [
        f"select * from ({_field_sql(session, name, field, streams)}) f"
        for name, field in profiles.fields.items()
        if field.keep != "sql" and any(_stands(session, streams[source.stream]) for source in field.sources)
    ]
    # Replaced, not dropped: it keeps who may read it, and views of others on it.
    session.execute(
        f"create or replace view {warehouse.table(VIEW)} as"
        f" {' union all '.join(parts) or _nothing(warehouse)}"
    )


def _stands(session: Session, stream: Stream) -> bool:
    return session.exists(linked.table_of(stream))


def _nothing(warehouse: Warehouse) -> str:
    kinds = {
        "profile_id": "integer",
        "field": "string",
        "stream": "string",
        "load_id": "integer",
        "position": "integer",
        "time": "timestamp",
        "value": "string",
        "chosen": "boolean",
    }
    chosen = ", ".join(f"cast(null as {warehouse.types[kind]}) as {name}" for name, kind in kinds.items())
    return f"select {chosen} where 1 = 0"


def _field_sql(session: Session, name: str, field: ProfileField, streams: Mapping[str, Stream]) -> str:
    """Every statement about one field, of the sources that were ever landed. Names are of letters, digits
    and ``_`` alone."""
    warehouse = session.warehouse
    statements = []
    head = warehouse.order_head('t."_order"')
    for place, source in enumerate(field.sources):
        stream = streams[source.stream]
        if not _stands(session, stream):
            continue
        column = f"t.{warehouse.quote(source.column)}"
        kind = stream.columns[source.column].type
        where = [] if field.empty == "keep" else [f"{column} is not null"]
        if kind == "string" and where:
            where.append(f"{column} <> ''")
        value = warehouse.byte_order(column) if kind == "string" else column
        statements.append(
            f"select i.profile_id, '{stream.ref}' as stream, t.\"_load_id\" as load_id,"
            f' t."_position" as position, {time_of(warehouse, stream, "t")} as time,'
            f' {value} as "_value", {place} as "_source", t."_order", {head} as "_head"'
            f" from {warehouse.table(linked.table_of(stream))} t"
            f' join {warehouse.table("identifiers")} i on i.node_id = t."_node_id"'
            + (f" where {' and '.join(where)}" if where else "")
        )
    everything = " union all ".join(statements)
    chosen = "true"
    if field.keep in _RANKS:
        if field.keep == "most_frequent":
            everything = (
                'select s.*, count(*) over (partition by profile_id, "_value") as "_times", max("_head") over'
                f' (partition by profile_id, "_value") as "_latest" from ({everything}) s'
            )
        rank = _RANKS[field.keep].format(value='"_value"')
        chosen = f"row_number() over (partition by profile_id order by {rank}) = 1"
    return (
        f"select profile_id, '{name}' as field, stream, load_id, position, time,"
        f' cast("_value" as {warehouse.types["string"]}) as value, {chosen} as chosen from ({everything}) s'
    )
