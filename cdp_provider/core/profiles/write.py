# SPDX-License-Identifier: Apache-2.0
"""Bring the table ``profiles`` to what a definition says, at the cost of what changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdp_provider.core.exceptions import DataError

if TYPE_CHECKING:
    from cdp_provider.core.profiles.definition import Definition
    from cdp_provider.core.warehouse import Session

TABLE = "profiles"

#: Updating more than this share of the columns in all lines costs more than writing the lines anew.
_MOST = 0.3


def write(session: Session, definition: Definition) -> int:
    """Make the table hold the result of the definition's statement. Call it inside a transaction, under the
    lock ``linked``: what is kept of rows comes up to now in the same one.

    :returns: the number of profiles.
    :raises DataError: a statement of the project's own gave a profile more than once.
    """
    table, facts = session.warehouse.table(TABLE), definition.facts
    query = definition.query()
    fingerprint = facts.fingerprint(query.sql)
    moving = definition.moving()
    stands = session.columns(TABLE).keys() == {"profile_id", *definition.names}
    if (
        facts.changed is None
        or not stands
        or _standing(session) != fingerprint
        or definition.has_own_sql  # whose lines an update could not count
        or len(moving) > _MOST * len(definition.names)
    ):
        session.replace_table(TABLE, query.sql, query.params)
        session.index(TABLE, "profile_id")
    else:
        _update(session, definition, moving, facts.changed)
    _remember(session, fingerprint, definition)
    lines = int(session.scalar(f"select count(*) from {table}"))
    if definition.has_own_sql:
        people = session.scalar(f"select count(distinct profile_id) from {table}")
        if lines != people:
            msg = (
                f"{lines - people} profiles came more than once from a statement of the project's own (fields"
                " or traits of type sql); have it give each profile_id once, for example by group by"
            )
            raise DataError(msg)
    return lines


def _update(session: Session, definition: Definition, moving: list[str], changed: str) -> None:
    warehouse = session.warehouse
    table, identifiers = warehouse.table(TABLE), warehouse.table("identifiers")
    session.execute(f'delete from {table} where profile_id in (select "_profile_id" from {changed})')
    session.execute(
        f"delete from {table} where not exists"
        f" (select 1 from {identifiers} i where i.profile_id = {table}.profile_id)"
    )
    missing = f"not exists (select 1 from {table} t where t.profile_id = i.profile_id)"
    still = [name for name in definition.names if name not in moving]
    names = ", ".join(map(warehouse.quote, ["profile_id", *still]))
    query = definition.query(still, missing)
    session.execute(f"insert into {table} ({names}) {query.sql}", query.params)
    if moving:
        query = definition.query(moving)
        columns = [warehouse.quote(name) for name in moving]
        assigned = ", ".join(f"{column} = b.{column}" for column in columns)
        differ = " or ".join(f"t.{column} is distinct from b.{column}" for column in columns)
        session.execute(
            f"update {table} as t set {assigned} from ({query.sql}) b"
            f" where b.profile_id = t.profile_id and ({differ})",
            query.params,
        )


def _standing(session: Session) -> str | None:
    """The fingerprint of the definition that the table was written by."""
    found: str | None = session.scalar(
        f"select fingerprint from {session.warehouse.table('kept')} where name = :name", {"name": TABLE}
    )
    return found


def _remember(session: Session, fingerprint: str, definition: Definition) -> None:
    kept = session.warehouse.table("kept")
    session.execute(f"delete from {kept} where name = :name", {"name": TABLE})
    session.execute(
        f"insert into {kept} (name, fingerprint, window_end, resolved_seq, linked)"
        " values (:name, :fingerprint, :now, 0, '{}')",
        {"name": TABLE, "fingerprint": fingerprint, "now": definition.params.now},
    )
