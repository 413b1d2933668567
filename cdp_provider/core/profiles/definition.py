# SPDX-License-Identifier: Apache-2.0
"""The fields and traits of a project as one statement: a row per profile."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cdp_provider.core.exceptions import ConfigurationError
from cdp_provider.core.profiles.constants import read
from cdp_provider.core.profiles.derived import DERIVED, OF_ALL, derived_levels, needed
from cdp_provider.core.profiles.own_sql import own_sql
from cdp_provider.core.profiles.parts import Part
from cdp_provider.core.profiles.survivorship import field_sql
from cdp_provider.core.profiles.traits import trait_sql
from cdp_provider.core.project.typing import trait_types

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from cdp_provider.core.profiles.facts import Facts
    from cdp_provider.core.profiles.params import Query
    from cdp_provider.core.project.profiles import Profiles, Trait
    from cdp_provider.core.warehouse import Session

_RESERVED = "profile_id"
_PARAM = re.compile(r":(p[0-9]+)\b")


class Definition:
    """What a profile holds, asked of `facts`.

    :raises ConfigurationError: a field or trait names what is not there, or what does not suit its type.
    """

    def __init__(self, profiles: Profiles, facts: Facts) -> None:
        _check_names(profiles)
        self.profiles, self.facts, self.params = profiles, facts, facts.params
        self.kinds = trait_types(profiles, facts.streams)
        self.names = [*profiles.fields, *profiles.traits]
        self._columns = {name: self._field(name) for name in profiles.fields} | {
            name: self._trait(name, trait)
            for name, trait in profiles.traits.items()
            if trait.type not in DERIVED
        }
        for ref in facts.used():
            facts.ask(ref, "count")
            if facts.stream(ref).time is not None:
                facts.ask(ref, "last_time")

    def query(self, names: Collection[str] | None = None, people: str | None = None) -> Query:
        """A statement that gives ``profile_id`` and fields and traits.

        :param names: only these.
        :param people: SQL condition on identifiers ``i``: only their profiles. What depends on all profiles
            needs all of them.
        """
        warehouse, quote = self.params.warehouse, self.params.warehouse.quote
        chosen = self.names if names is None else [name for name in self.names if name in names]
        computed = self._closure(chosen)
        types = {name: warehouse.column_type(kind) for name, kind in self.kinds.items()}
        relations = self.facts.relations()
        base = {name: sql for name, sql in self._columns.items() if name in computed}
        columns = [f"cast({sql} as {types[name]}) as {quote(name)}" for name, sql in base.items()]
        among = f" where {people}" if people else ""
        with_ = f"with {', '.join(relations)} " if relations else ""
        sql = (
            f"{with_}select {', '.join(['p.profile_id', *columns])}"
            f" from (select distinct i.profile_id from {warehouse.table('identifiers')} i{among}) p"
            f"{self.facts.joins('p.profile_id', ' '.join(base.values()))}"
        )
        for level in derived_levels(self.profiles.traits, self.kinds, self.params):
            wanted = [(name, value) for name, value in level if name in computed]
            if wanted:
                more = ", ".join(f"cast({value} as {types[name]}) as {quote(name)}" for name, value in wanted)
                sql = f"select b.*, {more} from ({sql}) b"
        return self.params.query(
            f"select {', '.join(map(quote, ['profile_id', *chosen]))} from ({sql}) built"
        )

    @property
    def has_own_sql(self) -> bool:
        """Whether it has statements of the project's own."""
        kinds = (field.keep for field in self.profiles.fields.values())
        return "sql" in {*kinds, *(trait.type for trait in self.profiles.traits.values())}

    def moving(self) -> list[str]:
        """Fields and traits that may change without a row of their profile: with now, or with others."""
        always = [extra.relation for extra in self.facts.extra if extra.always]
        found = {
            name
            for name, sql in self._columns.items()
            if any(relation in sql for relation in always)
            or any(self.params.is_relative(param) for param in _PARAM.findall(sql))
        }
        derived = {name: trait for name, trait in self.profiles.traits.items() if trait.type in DERIVED}
        found |= {name for name, trait in derived.items() if trait.type in OF_ALL}
        grown = True
        while grown:
            more = {name for name, trait in derived.items() if found & set(needed(trait))} - found
            found |= more
            grown = bool(more)
        return [name for name in self.names if name in found]

    def rows(self, session: Session) -> tuple[int, datetime | None]:
        """How many rows of streams the profiles are made of, and the newest of their times."""
        total, times = 0, []
        for ref in self.facts.used():
            held = self.facts.totals_of(ref, continued=True)
            if held.relation not in self.facts.kept:
                continue
            count = held.parts.column(Part("count"))
            time = "null"
            if self.facts.stream(ref).time is not None:
                newest = Part("max", '"_time"', "timestamp")
                time = f"max({held.parts.column(newest)})"
            row = session.one(f"select sum({count}), {time} from {self.facts.kept[held.relation]}")
            if row and row[0] is not None:
                total += int(row[0])
                times.append(row[1])
        return total, max(filter(None, times), default=None)

    def _closure(self, names: Collection[str]) -> set[str]:
        """Names, and what they are computed from."""
        found: set[str] = set()
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name in found:
                continue
            found.add(name)
            trait = self.profiles.traits.get(name)
            if trait is not None and trait.type in DERIVED:
                waiting += needed(trait)
        return found

    def _field(self, name: str) -> str:
        field = self.profiles.fields[name]
        if field.keep == "sql":
            return self._own_sql(name, str(field.sql))
        return field_sql(name, field, self.facts)

    def _trait(self, name: str, trait: Trait) -> str:
        if trait.type == "sql":
            sql = self._own_sql(name, str(trait.sql))
        else:
            sql = trait_sql(name, trait, self.facts)
        if trait.default is None:
            return sql
        kind = self.kinds[name]
        default = self.params.bind(read(trait.default, kind, f"the default of {name}"), kind)
        return f"coalesce({sql}, {default})"

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
