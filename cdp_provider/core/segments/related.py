# SPDX-License-Identifier: Apache-2.0
"""Conditions on objects of a profile, and on what these objects have in turn.

They are decided from the innermost objects out, all at once: of the objects that an object has it takes two
numbers, how many there are and how many fulfil what is asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdp_provider.core.profiles.write import TABLE as PROFILES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cdp_provider.core.profiles.facts import Facts
    from cdp_provider.core.project.conditions import Related


def related_sql(related: Related, facts: Facts, trait: Callable[[str], str]) -> str:
    """SQL that is true or false for every profile, where :meth:`Facts.joins` are joined.

    :param trait: the quoted column of a field or trait of the profile.
    :raises ConfigurationError: a stream lacks what the condition asks.
    """
    ref = related.related
    if not related.on and not related.having:
        fitting = facts.ask(ref, "count", where=related.where, window=related)
        every = facts.ask(ref, "count", window=related) if related.which == "all" else "0"
        return _decided(related, fitting, every)
    if related.on:
        counted = _counted(
            related, facts, facts.objects(ref), [facts.column(ref, name) for name in related.on]
        )
        pairs = enumerate(related.on.values())
        same = " and ".join(f'counted."_k{number}" = p.{trait(name)}' for number, name in pairs)
        table = facts.params.warehouse.table(PROFILES)
        sql = (
            'select p.profile_id as "_profile_id", counted."_fitting", counted."_all"'
            f" from {table} p join ({counted}) counted on {same}"
        )
    else:
        counted = _counted(related, facts, facts.rows(ref), ['"_profile_id"'])
        sql = f'select "_k0" as "_profile_id", "_fitting", "_all" from ({counted}) counted'
    refs = [] if related.on else [ref]
    relation = facts.relation(sql, refs, always=True)
    return _decided(related, f'coalesce({relation}."_fitting", 0)', f'coalesce({relation}."_all", 0)')


def _decided(related: Related, fitting: str, every: str) -> str:
    """The condition, by the number of objects that fulfil what is asked of them and that of all."""
    bounds = ((">=", related.at_least), ("<=", related.at_most), ("=", related.exactly))
    tests = [f"{fitting} {sign} {bound}" for sign, bound in bounds if bound is not None]
    match related.which or (None if tests else "any"):
        case "any":
            tests.append(f"{fitting} > 0")
        case "none":
            tests.append(f"{fitting} = 0")
        case "all":
            tests.append(f"{every} > 0 and {fitting} = {every}")
    return f"({' and '.join(tests)})"


def _counted(related: Related, facts: Facts, relation: str, keys: Sequence[str]) -> str:
    """A select of ``_k0`` and so on, the values of `keys`, and of the numbers ``_fitting`` and ``_all``.

    :param relation: quoted name of the relation of all objects.
    """
    ref = related.related
    chosen = [f'{key} as "_k{number}"' for number, key in enumerate(keys)]
    outer: dict[str, str] = {}
    joins, tests = [], ['o."_fits"']
    for number, inner in enumerate(related.having):
        name = f"h{number}"
        inside = _counted(
            inner, facts, facts.objects(inner.related), [facts.column(inner.related, key) for key in inner.on]
        )
        same = []
        for place, column in enumerate(inner.on.values()):
            alias = outer.setdefault(facts.column(ref, column), f'"_o{len(outer)}"')
            same.append(f'{name}."_k{place}" = o.{alias}')
        joins.append(f" left join ({inside}) {name} on {' and '.join(same)}")
        tests.append(_decided(inner, f'coalesce({name}."_fitting", 0)', f'coalesce({name}."_all", 0)'))
    chosen += [f"{column} as {alias}" for column, alias in outer.items()]
    fits = " and ".join(facts.conditions(ref, related.where)) or "true"
    looked_at = [f"{key} is not null" for key in keys] + facts.conditions(ref, {}, window=related)
    objects = f'select {", ".join(chosen)}, {fits} as "_fits" from {relation} where {" and ".join(looked_at)}'
    grouped = ", ".join(f'o."_k{number}"' for number in range(len(keys)))
    return (
        f'select {grouped}, count(*) filter (where {" and ".join(tests)}) as "_fitting", count(*) as "_all"'
        f" from ({objects}) o{''.join(joins)} group by {grouped}"
    )
