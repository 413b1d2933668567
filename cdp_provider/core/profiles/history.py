# SPDX-License-Identifier: Apache-2.0
"""Past values of profiles: a line whenever a value differs from that of the window before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from cdp_provider.core.profiles.params import Query

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from cdp_provider.core.project.profiles import Profiles
    from cdp_provider.core.warehouse import Session, Warehouse

_VALUES, _BEFORE, _NEXT = '"history_values"', '"history_before"', '"history_next"'


def record(session: Session, profiles: Profiles, relation: str, as_of: datetime, run_id: str) -> int:
    """Write the values of one window to ``profile_history``. Call it inside a transaction.

    Windows may come in any order, and one that comes again replaces itself: what is read at any other window
    stays what it was. A profile that is not there, because it was merged into another, has no values.

    :param relation: all profiles as of the window: ``profile_id`` and the columns that history is kept of.
    :returns: how many values differ from those of the window before.
    """
    if not profiles.history:
        return 0
    warehouse = session.warehouse
    history, windows = warehouse.table("profile_history"), warehouse.table("history_windows")
    names = _Names(profiles.history)
    following = session.scalar(f"select min(as_of) from {windows} where as_of > :as_of", {"as_of": as_of})
    _keep(session, _VALUES, _values(session, names, relation), names.at(as_of))
    _keep(session, _BEFORE, _newest(warehouse, names, "<"), names.at(as_of))
    if following is not None:
        _keep(session, _NEXT, _newest(warehouse, names, "<="), names.at(following))
    changed = _replace(session, names, as_of, _BEFORE, _VALUES)
    if following is not None:
        _replace(session, names, following, _VALUES, _NEXT)
    session.execute(f"delete from {windows} where as_of = :as_of", {"as_of": as_of})
    session.execute(
        f"insert into {windows} (as_of, run_id) values (:as_of, :run_id)", {"as_of": as_of, "run_id": run_id}
    )
    session.analyze(history)
    return changed


def value_at(warehouse: Warehouse, name: str, as_of: datetime) -> Query:
    """A statement for the values of a field or trait at a moment: those of the newest window up to it.

    It gives ``profile_id``, ``name`` and ``value`` (JSON), for profiles that had one.
    """
    names = _Names((name,))
    sql = f"select * from ({_newest(warehouse, names, '<=')}) newest where value is not null"
    return Query(sql, names.at(as_of))


class _Names:
    """Names of fields and traits, bound."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._values = {f"name_{i}": name for i, name in enumerate(dict.fromkeys(names))}
        self.listed = ", ".join(f":{key}" for key in self._values)

    def bound(self) -> list[tuple[str, str]]:
        """Each name, and the parameter that holds it."""
        return [(name, f":{key}") for key, name in self._values.items()]

    def at(self, as_of: datetime) -> dict[str, Any]:
        """The parameters of a statement about one window."""
        return {"as_of": as_of, **self._values}


def _values(session: Session, names: _Names, relation: str) -> str:
    """Values that are there, as lines: ``profile_id``, ``name``, ``value``."""
    warehouse = session.warehouse
    columns = {name: warehouse.quote(name) for name, _ in names.bound()}
    types = session.arrow(f"select {', '.join(columns.values())} from {relation} where 1 = 0").schema
    text = warehouse.types["string"]
    lines = []
    for name, bound in names.bound():
        value = warehouse.json_value(columns[name], moment=pa.types.is_timestamp(types.field(name).type))
        lines.append(
            f"select profile_id, cast({bound} as {text}) as name, {value} as value"
            f" from {relation} where {columns[name]} is not null"
        )
    return " union all ".join(lines)


def _newest(warehouse: Warehouse, names: _Names, until: str) -> str:
    """What is read at a window: the newest line of each profile and name up to it (or before it)."""
    history = warehouse.table("profile_history")
    return (
        f"select h.profile_id, h.name, h.value from {history} h join"
        f" (select profile_id, name, max(as_of) as as_of from {history}"
        f" where as_of {until} :as_of and name in ({names.listed}) group by profile_id, name) newest"
        " on newest.profile_id = h.profile_id and newest.name = h.name and newest.as_of = h.as_of"
    )


def _keep(session: Session, table: str, select: str, params: Mapping[str, Any]) -> None:
    session.execute(f"drop table if exists {table}")
    session.execute(f"create temporary table {table} as {select}", params)
    session.analyze(table)


def _replace(session: Session, names: _Names, as_of: datetime, before: str, values: str) -> int:
    """Make a window's lines those of `values` that differ from `before`; returns how many they are."""
    warehouse = session.warehouse
    history = warehouse.table("profile_history")
    gone = f"as_of = :as_of and name in ({names.listed})"
    session.execute(f"delete from {history} where {gone}", names.at(as_of))
    return session.execute(
        f"insert into {history} (profile_id, name, as_of, value)"
        " select coalesce(v.profile_id, b.profile_id), coalesce(v.name, b.name),"
        f" cast(:as_of as {warehouse.types['timestamp']}), v.value"
        f" from {values} v full join {before} b on b.profile_id = v.profile_id and b.name = v.name"
        " where v.value is distinct from b.value",
        {"as_of": as_of},
    )
