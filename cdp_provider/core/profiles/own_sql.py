# SPDX-License-Identifier: Apache-2.0
"""Statements that a project brings along, as a part of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdp_provider.core.exceptions import ConfigurationError
from cdp_provider.core.project.own_sql import filled, places, sql_fault

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cdp_provider.core.profiles.facts import Facts


def own_sql(
    sql: str, facts: Facts, columns: Sequence[str], label: str, *, profiles: str | None = None
) -> str:
    """A select of ``_profile_id`` and further columns around somebody's own ``select``.

    It reads :meth:`Facts.rows` of the streams in its places, so it belongs into :meth:`Facts.relation`, with
    ``always=True``: nobody knows what it depends on.

    :param columns: what its columns are called from the second on; those that come after are left out.
    :param label: what to call it in an error.
    :param profiles: SQL for ``{profiles}``; left out, there is no such place.
    :raises ConfigurationError: it is no single ``select``, or has a place for what is not there.
    """
    if fault := sql_fault(sql):
        msg = f"the statement of {label} cannot run: {fault}"
        raise ConfigurationError(msg)
    named: dict[str, str] = {}
    parts: list[str] = []
    for place in places(sql):
        if place == "profiles" and profiles is not None:
            named[place] = profiles
            continue
        if place not in facts.streams:
            known = ", ".join((*(["profiles"] if profiles is not None else ()), *facts.streams))
            msg = f"the statement of {label} has the place {{{place}}}; there may be {known}"
            raise ConfigurationError(msg)
        named[place] = f'"_own_{len(named)}"'
        chosen = ", ".join(facts.column(place, name) for name in facts.stream(place).columns)
        parts.append(
            f'{named[place]} as (select "_profile_id" as profile_id, {chosen} from {facts.rows(place)})'
        )
    text = filled(sql, named.__getitem__, facts.params.moment())
    names = ", ".join(['"_profile_id"', *map(facts.params.warehouse.quote, columns)])
    reads = f"with {', '.join(parts)} " if parts else ""
    return f'{reads}select {names} from ({text}) as own({names}) where "_profile_id" is not null'
