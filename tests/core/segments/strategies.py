# SPDX-License-Identifier: Apache-2.0
"""Random conditions and whole segmentations over the streams of the small worlds."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from cdp_provider.core.project.activation import Consent
from cdp_provider.core.project.conditions import (
    AccountIs,
    AccountMembers,
    AllOf,
    AnyOf,
    Comparison,
    ConsentIs,
    EventCount,
    Funnel,
    InSegment,
    InSplit,
    Near,
    NoneOf,
    Related,
    Sql,
    Step,
    TraitIs,
)
from cdp_provider.core.project.model import Limit, Segment, Segmentation, Split
from cdp_provider.core.project.profiles import Accounts, AccountTrait, ProfileField, Profiles, Trait
from tests.core.profiles.definitions import kinds
from tests.core.profiles.strategies import (
    NUMERIC,
    VALUES,
    WITH_IDENTIFIERS,
    columns_of,
    filters,
    one_of,
    operators,
    windows,
)
from tests.core.profiles.world import EVENTS, PEOPLE, STREAMS

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.core.profiles.oracle import Oracle

_LAST = {
    "string": "s",
    "integer": "i",
    "number": "n",
    "decimal": "d",
    "boolean": "b",
    "date": "day",
    "timestamp": "t",
}
#: One field or trait of every kind, and what accounts need.
PROFILES = Profiles(
    fields={
        "text": ProfileField(sources=["crm.people.s", "web.events.s"], keep="source_priority"),
        "texts": ProfileField(sources=["crm.people.s", "web.events.s"], keep="list"),
        "numbers": ProfileField(sources=["web.events.i"], keep="list"),
        "days": ProfileField(sources=["web.events.day"], keep="list"),
        "agreed": ProfileField(sources=["crm.people.b"]),
    },
    traits={
        **{
            f"last_{kind}": Trait(type="last", stream="web.events", column=column)
            for kind, column in _LAST.items()
        },
        "rows": Trait(type="count", stream="web.events"),
    },
    accounts=Accounts(
        key="last_boolean",
        traits={
            "seats": AccountTrait(type="count"),
            "most": AccountTrait(type="max", of="last_integer"),
            "reachable": AccountTrait(type="any", of="agreed"),
        },
    ),
)
TYPES = kinds(PROFILES)
ACCOUNT_TYPES = {"seats": "integer", "most": "integer", "reachable": "boolean"}
CONSENT = Consent(purposes={"mail": "agreed"})
BOUNDS = ["at_least", "at_most", "more_than", "less_than", "exactly"]


@st.composite
def comparisons(draw: st.DrawFn) -> TraitIs:
    trait = draw(st.sampled_from(sorted(TYPES)))
    return TraitIs(trait=trait, **draw(operators(TYPES[trait])))


@st.composite
def counts(draw: st.DrawFn) -> EventCount:
    stream = draw(st.sampled_from(WITH_IDENTIFIERS))
    columns = columns_of(stream.ref)
    measured = draw(st.sampled_from([None, None, *_measures(columns)]))
    numbers = [0, 1, 2] if measured is None else [0, 1, 2, 0.5]
    bounds: dict[str, Any] = draw(
        st.dictionaries(
            st.sampled_from(BOUNDS),
            st.sampled_from(numbers),
            max_size=2,
            min_size=0 if measured is None else 1,
        )
    )
    return EventCount(
        stream=stream.ref,
        event=draw(st.none() | one_of(VALUES["string"])) if stream.event else None,
        where=draw(_some(columns)),
        **draw(windows(stream)),
        **bounds,
        **dict([measured] if measured else []),
    )


def _measures(columns: dict[str, str]) -> list[tuple[str, str]]:
    found = [("distinct_count", name) for name, kind in columns.items() if kind != "json"]
    numeric = [name for name, kind in columns.items() if kind in NUMERIC]
    return found + [(kind, name) for name in numeric for kind in ("sum", "average", "min", "max")]


def _some(columns: dict[str, str]) -> st.SearchStrategy[Any]:
    """Mostly no filter or one that every other row passes, so that something is left."""
    simple = [{}, {}, {}, {"b": Comparison(is_=True)}, {"i": Comparison(at_least=1)}]
    simple = [where for where in simple if where.keys() <= columns.keys()]
    return st.integers(0, 9).flatmap(lambda n: filters(columns) if n == 9 else st.sampled_from(simple))


@st.composite
def funnels(draw: st.DrawFn) -> Funnel:
    same = draw(st.sampled_from([(), (), (), ("s",), ("b",), ("s", "b")]))
    steps = []
    for n in range(draw(st.integers(2, 4))):
        stream = draw(st.sampled_from([EVENTS, PEOPLE]))
        absent = n > 0 and draw(st.booleans())
        steps.append((stream, absent))
    last = max(n for n, (_, absent) in enumerate(steps) if not absent)
    return Funnel(
        funnel=tuple(
            Step(
                stream=stream.ref,
                absent=absent,
                event=draw(st.sampled_from([None, None, "a"])) if stream.event else None,
                within=draw(st.sampled_from([None, *(timedelta(hours=h) for h in (12, 24, 36, 9600))]))
                if n and (not absent or n > last)
                else None,
                where=draw(_some(columns_of(stream.ref))),
                columns={"s": "name"} if stream is EVENTS and "s" in same and draw(st.booleans()) else {},
            )
            for n, (stream, absent) in enumerate(steps)
        ),
        same=same,
        **(draw(windows(EVENTS)) if draw(st.integers(0, 4)) == 4 else {}),
    )


@st.composite
def related(draw: st.DrawFn, around: dict[str, str] | None = None, depth: int = 3) -> Related:
    """:param around: columns of the object around it and their types; None outermost."""
    stream = draw(st.sampled_from(STREAMS))
    columns = columns_of(stream.ref)
    on: dict[str, str] = {}
    if around is not None or not stream.identifiers or draw(st.booleans()):
        pairs = [
            (ours, theirs)
            for ours, kind in columns.items()
            for theirs, other in (around or TYPES).items()
            if kind == other and kind in ("string", "integer", "boolean", "date")
        ]
        on = dict(draw(st.lists(st.sampled_from(pairs), min_size=1, max_size=2, unique_by=lambda p: p[0])))
    whole = st.integers(0, 2)
    how: dict[str, Any] = draw(
        st.one_of(
            st.just({}),
            st.fixed_dictionaries({"which": st.sampled_from(["any", "all", "none"])}),
            st.fixed_dictionaries({}, optional={"at_least": st.integers(1, 2), "at_most": whole}),
            st.fixed_dictionaries({"exactly": whole}),
        )
    )
    having = (
        st.lists(related(columns, depth - 1), max_size=2)
        if depth > 1 and draw(st.booleans())
        else st.just([])
    )
    return Related(
        related=stream.ref,
        on=on,
        where=draw(_some(columns)),
        having=tuple(draw(having)),
        **how,
        **draw(windows(stream)),
    )


_SQL = "select profile_id from {profiles} where rows > 1"
_SQL_ROWS = 'with mine as (select * from {crm.people} where b) select profile_id from mine where "at" < :now'

#: Statements that a project may hold, and whom they return.
OWN_SQL: dict[str, Callable[[Oracle], set[int]]] = {
    _SQL: lambda oracle: {p for p in oracle.ids if oracle.values[p]["rows"] > 1},
    _SQL_ROWS: lambda oracle: {
        p
        for p in oracle.ids
        if any(r.values.get("b") and r.values.get("at") is not None for r in oracle.rows(p, PEOPLE.ref))
    },
}


def leaves(others: list[str], groups: list[tuple[str, str]]) -> st.SearchStrategy[Any]:
    found = [comparisons(), counts(), funnels(), related()]
    found.append(
        st.sampled_from(sorted(ACCOUNT_TYPES)).flatmap(
            lambda name: operators(ACCOUNT_TYPES[name]).map(lambda given: AccountIs(account=name, **given))
        )
    )
    found.append(
        st.builds(AccountMembers, members=st.sampled_from(["any", "all", "none"]), where=comparisons())
    )
    found.append(st.builds(ConsentIs, consent=st.just("mail"), given=st.booleans()))
    found.append(
        st.builds(
            Near,
            near=st.sampled_from([(0, 0), (1.0, 0.5), (-1, 179)]),
            latitude=st.just("last_integer"),
            longitude=st.just("last_number"),
            kilometres=st.sampled_from([0, 100, 200.5, 20_100]),
        )
    )
    found.append(st.builds(Sql, sql=st.sampled_from(sorted(OWN_SQL))))
    if others:
        found += [st.builds(InSegment, segment=st.sampled_from(others))] * 2
    if groups:
        found.append(st.sampled_from(groups).map(lambda of: InSplit(split=of[0], group=of[1])))
    return st.one_of(found)


def conditions(others: list[str], groups: list[tuple[str, str]] | None = None) -> st.SearchStrategy[Any]:
    def grown(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        parts = st.lists(inner, min_size=1, max_size=3).map(tuple)
        both = st.builds(AllOf, all=parts) | st.builds(AnyOf, any=parts) | st.builds(NoneOf, none=parts)
        return both | st.builds(AccountMembers, members=st.sampled_from(["any", "all", "none"]), where=inner)

    return st.recursive(leaves(others, groups or []), grown, max_leaves=5)


_ORDERED = sorted(name for name, kind in TYPES.items() if not kind.startswith("list") and kind != "boolean")
LIMITS = st.builds(
    Limit,
    count=st.integers(1, 3),
    by=st.sampled_from(_ORDERED),
    order=st.sampled_from(["descending", "ascending"]),
    per=st.sampled_from([None, "last_boolean", "text", "last_integer"]),
    ties=st.sampled_from(["id", "include", "exclude"]),
)
GROUPS = {"half": "50 %", "rest": "30 %"}
SPLITS = (
    Split(name="all", groups=GROUPS),
    Split(name="some", segment="segment_0", groups=GROUPS, salt="pepper"),
    Split(name="even", groups=GROUPS, stratify=("last_boolean",)),
)
#: Each group of them as a segment, with nobody kept from it.
DIVIDED = Segmentation(
    segments=tuple(
        Segment(name=f"{split.name}_{group}", where=InSplit(split=split.name, group=group))
        for split in SPLITS
        for group in GROUPS
    ),
    splits=tuple(split.model_copy(update={"segment": None}) for split in SPLITS),
)


_BROAD = [
    TraitIs(trait="rows", at_least=0),
    TraitIs(trait="last_integer", at_least=1),
    TraitIs(trait="last_boolean", is_=True),
    TraitIs(trait="text", exists=True),
]


def broad(others: list[str], groups: list[tuple[str, str]]) -> st.SearchStrategy[Any]:
    """Conditions that many fulfil, so that there is something to narrow."""
    divided = [InSplit(split=split, group=group) for split, group in groups]
    without = [NoneOf(none=(InSegment(segment=name),)) for name in others]
    return st.sampled_from(_BROAD) | st.sampled_from([*_BROAD, *divided, *without])


@st.composite
def segmentations(draw: st.DrawFn, where: Callable[..., st.SearchStrategy[Any]] = conditions) -> Segmentation:
    """Segments that refer to earlier ones in every way, in any order.

    :param where: what their conditions are drawn from.
    """
    names = [f"segment_{number}" for number in range(draw(st.integers(1, 7)))]
    groups = [(split.name, group) for split in SPLITS for group in GROUPS]
    suppression = draw(st.sampled_from([(), (), (names[0],)]))
    found = []
    for n, name in enumerate(names):
        others, whole = names[:n], [group for group in groups if n or group[0] != "some"]
        found.append(
            Segment(
                name=name,
                where=draw(where(others, whole)),
                limit=draw(st.none() | LIMITS),
                but_not=tuple(draw(st.lists(st.sampled_from(others), max_size=1)) if others else ()),
            )
        )
    free = [name for name in names if name not in suppression]
    exclusive = draw(st.lists(st.sampled_from(free), max_size=3, unique=True)) if free else []
    return Segmentation(
        segments=tuple(draw(st.permutations(found))),
        splits=SPLITS,
        exclusive={"one": tuple(sorted(exclusive))} if len(exclusive) > 1 else {},
        suppression=suppression,
        consent=CONSENT,
    )
