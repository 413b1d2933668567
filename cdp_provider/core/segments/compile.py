# SPDX-License-Identifier: Apache-2.0
"""Segments as SQL: all of a project in one statement that reads the profiles and each stream once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdp_provider.core.exceptions import ConfigurationError
from cdp_provider.core.profiles.write import TABLE as PROFILES
from cdp_provider.core.project.conditions import (
    AccountIs,
    AccountMembers,
    AllOf,
    AnyOf,
    ConsentIs,
    EventCount,
    Funnel,
    InSegment,
    InSplit,
    Near,
    NoneOf,
    Related,
    Sql,
    TraitIs,
)
from cdp_provider.core.project.typing import trait_types
from cdp_provider.core.segments.columns import Columns, Expr, both, either, negated
from cdp_provider.core.segments.events import event_sql
from cdp_provider.core.segments.flags import bits, words
from cdp_provider.core.segments.funnel import funnel_sql
from cdp_provider.core.segments.narrow import limited
from cdp_provider.core.segments.own_sql import own_condition_sql
from cdp_provider.core.segments.related import related_sql
from cdp_provider.core.segments.splits import group_column
from cdp_provider.core.segments.tree import ordered, preceding, suppressing
from cdp_provider.core.segments.values import Values

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cdp_provider.core.profiles.facts import Facts
    from cdp_provider.core.profiles.params import Query
    from cdp_provider.core.project.conditions import Condition
    from cdp_provider.core.project.model import Segment, Segmentation
    from cdp_provider.core.project.profiles import Profiles
    from cdp_provider.core.warehouse import Warehouse


def segments_query(
    warehouse: Warehouse,
    segmentation: Segmentation,
    profiles: Profiles,
    facts: Facts,
) -> Query:
    """The statement whose result is one row ``(segment, profile_id)`` per member of each segment.

    :param segmentation: its segments with all those that they refer to, in any order.
    :param facts: about the profiles' rows, as of now; not asked for its relations before.
    :raises ConfigurationError: a condition names what is not there or does not suit its type, or segments
        refer to each other in a circle.
    """
    compiler = _Compiler(segmentation, profiles, facts)
    if not segmentation.segments:
        nobody = {"segment": "string", "profile_id": "integer"}
        columns = ", ".join(
            f"cast(null as {warehouse.types[kind]}) as {name}" for name, kind in nobody.items()
        )
        return facts.params.query(f"select {columns} where 1 = 0")
    relations, last = compiler.relations()
    names = ", ".join(
        f"case when {compiler.flags[segment.name].sql} then {facts.params.bind(segment.name, 'string')} end"
        for segment in segmentation.segments
    )
    return facts.params.query(
        f"with {', '.join(relations)} select segment, profile_id"
        f" from (select profile_id, unnest(array[{names}]) as segment from {last}) pairs"
        " where segment is not null"
    )


def flags_query(segmentation: Segmentation, profiles: Profiles, facts: Facts) -> Query:
    """The statement whose result has a row per profile: ``profile_id``, and whether it is in each of the
    segments, as the bits of ``w0``, ``w1`` and so on. See :mod:`.flags`.

    Parameters and errors are those of :func:`segments_query`.
    """
    compiler = _Compiler(segmentation, profiles, facts)
    relations, last = compiler.relations()
    names = [segment.name for segment in segmentation.segments]
    integer = facts.params.warehouse.types["integer"]
    chosen = words(bits(names), [compiler.flags[name].sql for name in names], integer)
    return facts.params.query(
        f"with {', '.join(relations)} select {', '.join(['profile_id', *chosen])} from {last}"
    )


def condition_query(
    warehouse: Warehouse,  # noqa: ARG001 - as of segments_query
    segmentation: Segmentation,
    profiles: Profiles,
    facts: Facts,
    conditions: Sequence[Condition],
) -> Query:
    """The statement whose result has a row per profile: ``profile_id``, and for each of the conditions
    whether it holds, ``c0``, ``c1`` and so on.

    Parameters and errors are those of :func:`segments_query`.

    :param conditions: they may refer to what the segmentation has.
    """
    compiler = _Compiler(segmentation, profiles, facts)
    found = [compiler.condition(condition) for condition in conditions]
    relations, last = compiler.relations()
    chosen = ", ".join(["profile_id", *(f"{expr.sql} as c{number}" for number, expr in enumerate(found))])
    return facts.params.query(f"with {', '.join(relations)} select {chosen} from {last}")


class _Compiler:
    """Turns the conditions of a segmentation into columns of one statement over the profiles."""

    def __init__(self, segmentation: Segmentation, profiles: Profiles, facts: Facts) -> None:
        self._segmentation = segmentation
        self._profiles = profiles
        self._facts = facts
        self._columns = Columns()
        self._values = Values(
            profiles, segmentation.consent, trait_types(profiles, facts.streams), facts.params, self._columns
        )
        self._splits = {split.name: split for split in segmentation.splits}
        self._groups: dict[str, Expr] = {}
        self._candidates: dict[str, Expr] = {}
        #: Who belongs to each segment in the end.
        self.flags: dict[str, Expr] = {}
        for segment in ordered(segmentation):
            self.flags[segment.name] = self._columns.store(self._members(segment))

    def relations(self) -> tuple[list[str], str]:
        """Common table expressions, and the name of the last; ask for them when everything is compiled."""
        relations = self._facts.relations()
        source = f"{self._facts.params.warehouse.table(PROFILES)} p{self._facts.joins('p.profile_id')}"
        own, last = self._columns.relations(source + self._values.joins())
        return [*relations, *own], last

    def condition(self, condition: Condition) -> Expr:
        """SQL that is true or false for every profile, never NULL."""
        match condition:
            case AllOf():
                return both(*map(self.condition, condition.all))
            case AnyOf():
                return either(*map(self.condition, condition.any))
            case NoneOf():
                return negated(either(*map(self.condition, condition.none)))
            case InSegment():
                return self._flag(condition.segment)
            case InSplit():
                return self._in_split(condition)
            case AccountMembers():
                return self._members_of_account(condition)
            case TraitIs() | AccountIs() | ConsentIs() | Near():
                return self._values.condition(condition)
        return self._of_rows(condition)

    def _of_rows(self, condition: EventCount | Funnel | Related | Sql) -> Expr:
        match condition:
            case EventCount():
                return Expr(event_sql(condition, self._facts, lambda sql: self._columns.read(sql).sql))
            case Funnel():
                return self._columns.read(funnel_sql(condition, self._facts))
            case Related():
                return self._columns.read(
                    related_sql(condition, self._facts, lambda name: self._values.trait(name).sql)
                )
            case Sql():
                return self._columns.read(own_condition_sql(condition, self._facts))

    def _members(self, segment: Segment) -> Expr:
        """Who belongs to a segment in the end; all that it refers to is decided."""
        found = self.condition(segment.where)
        against = [*suppressing(segment.name, self._segmentation), *segment.but_not]
        if against:
            found = both(found, *self._none(self._flag(name) for name in against))
        if any(segment.name in names for names in self._segmentation.exclusive.values()):
            self._candidates[segment.name] = found = self._columns.store(found)
            found = both(found, *self._none(self._candidates[name] for name in self._before(segment)))
        if segment.limit is not None:
            found = limited(found, segment.limit, self._values.trait, self._values.order, self._columns)
        return found

    def _before(self, segment: Segment) -> list[str]:
        return preceding(segment.name, self._segmentation)

    def _none(self, parts: Iterable[Expr]) -> list[Expr]:
        found = list(dict.fromkeys(parts))
        return [negated(either(*found))] if found else []

    def _flag(self, segment: str) -> Expr:
        if segment not in self.flags:
            msg = (
                f"a condition refers to {segment}, which is no segment here; it may be one of"
                f" {', '.join(self.flags) or 'none'}"
            )
            raise ConfigurationError(msg)
        return self.flags[segment]

    def _in_split(self, condition: InSplit) -> Expr:
        split = self._splits.get(condition.split)
        if split is None or condition.group not in split.groups:
            known = ", ".join(f"{s.name}: {' or '.join(s.groups)}" for s in self._splits.values())
            msg = (
                f"a condition names the group {condition.group} of the split {condition.split}, which is not"
                f" there; there are {known or 'no splits'}"
            )
            raise ConfigurationError(msg)
        if split.name not in self._groups:
            members = self._flag(split.segment) if split.segment is not None else None
            strata = [self._values.trait(name) for name in split.stratify]
            self._groups[split.name] = group_column(split, members, strata, self._columns, self._facts.params)
        group = self._groups[split.name]
        return Expr(
            f"coalesce({group.sql} = {list(split.groups).index(condition.group)}, false)", group.level
        )

    def _members_of_account(self, condition: AccountMembers) -> Expr:
        key = self._values.account_key()
        fulfils = self._columns.store(self.condition(condition.where))
        function = "bool_and" if condition.members == "all" else "bool_or"
        found = f"{function}({fulfils.sql}) over (partition by {key.sql})"
        found = f"not {found}" if condition.members == "none" else found
        return self._columns.store(Expr(f"({key.sql} is not null and {found})", fulfils.level))
