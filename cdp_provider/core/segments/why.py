# SPDX-License-Identifier: Apache-2.0
"""Why a profile is in a segment, or is not."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from cdp_provider.core.exceptions import NotFoundError
from cdp_provider.core.project.conditions import AllOf, AnyOf, InSegment, NoneOf
from cdp_provider.core.segments.compile import condition_query
from cdp_provider.core.segments.membership import require_profiles
from cdp_provider.core.segments.reach import asking, reach, standing
from cdp_provider.core.segments.tree import preceding, suppressing, traits_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cdp_provider.core.project.base import Model
    from cdp_provider.core.project.conditions import Condition
    from cdp_provider.core.project.model import Segment, Segmentation
    from cdp_provider.core.project.profiles import Profiles
    from cdp_provider.core.project.streams import Stream
    from cdp_provider.core.warehouse import Session, Warehouse

_GROUPS: Mapping[type[Model], str] = {AllOf: "all of", AnyOf: "any of", NoneOf: "none of"}
_UNITS = {"day": 86_400, "hour": 3600, "minute": 60, "second": 1}


@dataclass(frozen=True)
class Node:
    """A condition, and whether it holds for the profile.

    :param condition: as the project file has it; of ``all``, ``any`` and ``none`` the word alone.
    :param parts: the conditions in it.
    :param values: what the profile has where the condition looks, if that was asked for.
    """

    condition: str
    holds: bool
    parts: tuple[Node, ...] = ()
    values: Mapping[str, Any] | None = None

    def sentences(self, depth: int = 0) -> Iterator[str]:
        """An indented line per condition."""
        known = "" if self.values is None else f"; the profile has {_flow(self.values)}"
        yield f"{'  ' * depth}{'yes' if self.holds else 'no '}  {self.condition}{known}"
        for part in self.parts:
            yield from part.sentences(depth + 1)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        found: dict[str, Any] = {"condition": self.condition, "holds": self.holds}
        if self.values is not None:
            found["values"] = {name: _plain(value) for name, value in self.values.items()}
        if self.parts:
            found["parts"] = [part.as_dict() for part in self.parts]
        return found


@dataclass(frozen=True)
class Why:
    """Why a profile is in a segment, or is not.

    :param member: whether it is, in the end.
    :param where: the segment's condition.
    :param narrowed: what keeps the profile out although the condition holds; the first such thing.
    :param as_of: the moment that it speaks of.
    """

    segment: str
    profile_id: int
    member: bool
    where: Node
    narrowed: str | None
    as_of: datetime

    def sentences(self) -> Iterator[str]:
        """Readable lines."""
        is_in = "is" if self.member else "is not"
        moment = self.as_of.isoformat()
        yield f"Profile {self.profile_id} {is_in} in the segment {self.segment} as of {moment}."
        yield from self.where.sentences()
        if self.narrowed:
            yield f"The condition holds, but {self.narrowed}."

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "segment": self.segment,
            "profile_id": self.profile_id,
            "member": self.member,
            "where": self.where.as_dict(),
            "narrowed": self.narrowed,
            "as_of": self.as_of.isoformat(),
        }


def why(
    warehouse: Warehouse,
    segment: Segment,
    profile_id: int,
    segmentation: Segmentation,
    profiles: Profiles,
    streams: Sequence[Stream],
    now: datetime | None = None,
    *,
    values: bool = False,
) -> Why:
    """Hold a profile against a segment, condition by condition.

    :param segment: need not belong to a project yet.
    :param profile_id: any id that the profile ever had.
    :param segmentation: where the segments that it refers to are looked up, and what narrows it.
    :param now: the moment that profiles speak of when None.
    :param values: tell also what the profile has in the fields and traits that are compared.
    :raises ConfigurationError: a condition names what is not there or does not suit its type.
    :raises NotFoundError: the profiles, a stream that is not optional, or this profile are not there.
    """
    needed = reach(segment, segmentation)
    asked = _Asked(segment, needed)
    with warehouse.session() as session:
        require_profiles(session, needed, profiles)
        moment, profile_id = now or standing(session), _today(session, profile_id)
        facts = asking(session, profiles, streams, moment)
        query = condition_query(warehouse, needed, profiles, facts, asked.conditions)
        row = session.one(
            f"select * from ({query.sql}) found where profile_id = :profile",
            {**query.params, "profile": profile_id},
        )
        if row is None:
            msg = f"the table profiles does not have profile {profile_id} yet; run build_profiles first"
            raise NotFoundError(msg)
        known = _values(session, profile_id, segment.where) if values else None
    return asked.answer(profile_id, row[1:], known, moment)


class _Asked:
    """The conditions that one profile is asked about, and what their answers mean."""

    def __init__(self, segment: Segment, segmentation: Segmentation) -> None:
        self.segment = segment
        self.segmentation = segmentation
        self.conditions: list[Condition] = []
        self._add(segment.where)
        self._member = self._place(InSegment(segment=segment.name))
        self._known = {other.name: other for other in segmentation.segments}
        self._suppressed = self._in(suppressing(segment.name, segmentation))
        self._excepted = self._in(segment.but_not)
        self._elders = {name: self._candidate(name) for name in preceding(segment.name, segmentation)}

    def answer(
        self, profile_id: int, holds: Sequence[bool], values: Mapping[str, Any] | None, now: datetime
    ) -> Why:
        where, _ = self._node(self.segment.where, 0, holds, values)
        member = bool(holds[self._member])
        narrowed = None if member or not where.holds else self._narrowed(holds)
        return Why(self.segment.name, profile_id, member, where, narrowed, now)

    def _narrowed(self, holds: Sequence[bool]) -> str:
        for name, place in self._suppressed.items():
            if holds[place]:
                return f"suppression keeps members of {name} out"
        for name, place in self._excepted.items():
            if holds[place]:
                return f"except keeps members of {name} out"
        for name, (where, *against) in self._elders.items():
            if holds[where] and not any(holds[place] for place in against):
                return f"it would belong to {name} too, which comes before in a list of exclusive segments"
        return f"limit admits {_flow(self.segment.limit)} only"

    def _candidate(self, name: str) -> tuple[int, ...]:
        """Places of a segment's condition, and of all that would keep somebody out before exclusive does."""
        if name not in self._known:
            return (self._place(InSegment(segment=name)),)
        other = self._known[name]
        against = (*suppressing(name, self.segmentation), *other.but_not)
        return (self._place(other.where), *self._in(against).values())

    def _in(self, names: Sequence[str]) -> dict[str, int]:
        return {name: self._place(InSegment(segment=name)) for name in names}

    def _place(self, condition: Condition) -> int:
        self.conditions.append(condition)
        return len(self.conditions) - 1

    def _add(self, condition: Condition) -> None:
        """A condition, and then all in it, in the order in which :meth:`_node` reads them."""
        self._place(condition)
        for part in _parts(condition):
            self._add(part)

    def _node(
        self, condition: Condition, place: int, holds: Sequence[bool], values: Mapping[str, Any] | None
    ) -> tuple[Node, int]:
        """A condition as a node, and the place after all in it."""
        parts, behind = [], place + 1
        for part in _parts(condition):
            node, behind = self._node(part, behind, holds, values)
            parts.append(node)
        if parts:
            return Node(_GROUPS[type(condition)], bool(holds[place]), tuple(parts)), behind
        own = None if values is None else {name: values[name] for name in dict.fromkeys(traits_of(condition))}
        return Node(_flow(condition), bool(holds[place]), (), own or None), behind


def _parts(condition: Condition) -> tuple[Condition, ...]:
    match condition:
        case AllOf(all=parts) | AnyOf(any=parts) | NoneOf(none=parts):
            return parts
    return ()


def _today(session: Session, profile_id: int) -> int:
    """What a profile of that id is called today."""
    identifiers = session.warehouse.table("identifiers")
    found = session.scalar(f"select profile_id from {identifiers} where node_id = :id", {"id": profile_id})
    if found is None:
        msg = f"no profile was ever called {profile_id}; the table profiles has those of today"
        raise NotFoundError(msg)
    return int(found)


def _values(session: Session, profile_id: int, where: Condition) -> dict[str, Any]:
    quote, names = session.warehouse.quote, sorted(set(traits_of(where)))
    columns = ", ".join(["profile_id", *map(quote, names)])
    row = session.one(
        f"select {columns} from {session.warehouse.table('profiles')} where profile_id = :profile",
        {"profile": profile_id},
    )
    return dict(zip(names, row[1:], strict=True)) if row else {}


def _flow(value: Any) -> str:
    """As YAML writes it on one line."""
    match value:
        case dict():
            return f"{{{', '.join(f'{key}: {_flow(part)}' for key, part in value.items())}}}"
        case list() | tuple():
            return f"[{', '.join(map(_flow, value))}]"
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case timedelta():
            return _span(value)
        case str() | int() | float() | Decimal() | date():
            return str(_plain(value))
    model = type(value)
    given = [name for name in model.model_fields if name in value.model_fields_set]
    own = sorted(given, key=lambda name: name not in model.__annotations__)  # what it inherits comes last
    named = {model.model_fields[name].alias or name: getattr(value, name) for name in own}
    return _flow({key: part for key, part in named.items() if part is not None})


def _plain(value: Any) -> Any:
    """A value of the warehouse as JSON has it."""
    if isinstance(value, datetime | date):
        return value.isoformat()
    return str(value) if isinstance(value, Decimal) else value


def _span(value: timedelta) -> str:
    """A duration as the project file writes it."""
    seconds = int(value.total_seconds())
    unit = next(unit for unit, length in _UNITS.items() if seconds % length == 0)
    count = seconds // _UNITS[unit]
    return f"{count} {unit if count == 1 else unit + 's'}"
