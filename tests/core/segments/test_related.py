# SPDX-License-Identifier: Apache-2.0
"""Objects of a profile: examples, and random nested ones against a walk from object to object."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cdp_provider.core.exceptions import ConfigurationError
from cdp_provider.core.project.conditions import Comparison, Related
from cdp_provider.core.project.model import Segmentation
from cdp_provider.core.segments.related import related_sql
from tests.core.segments.ground import DAY, NOW, TICK, Ground, facts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    Rows = Mapping[str, Sequence[Mapping[str, Any]]]

#: How often random examples are drawn, as a multiple.
DEPTH = int(os.environ.get("CDP_TEST_DEPTH", "1"))

PEOPLE = {1: {"text": "ann"}, 2: {"text": "bob"}, 3: {}, 4: {"text": "nobody"}}
ROWS = {
    "till.orders": [
        {"who": 1, "order_id": 1, "at": NOW - DAY, "status": "paid", "customer": "bob"},
        {"who": 1, "order_id": 2, "at": NOW - DAY - TICK, "status": "open", "customer": "bob"},
        {"who": 2, "order_id": 3, "at": NOW - 9 * DAY, "status": "paid", "customer": "ann"},
        {"who": 3, "order_id": 4, "status": None},
        {"who": None, "order_id": 5, "at": NOW - DAY, "status": "paid", "customer": "ann"},
        {"who": 4, "order_id": 6, "at": NOW, "status": "paid", "customer": "ann"},  # not yet
    ],
    "till.items": [
        {"item_id": 1, "order_id": 1, "sku": "x", "amount": 1},
        {"item_id": 2, "order_id": 1, "sku": "y", "amount": 2},
        {"item_id": 3, "order_id": 3, "sku": "x", "amount": 5},
        {"item_id": 4, "order_id": None, "sku": "x", "amount": 9},
        {"item_id": 5, "order_id": 4, "sku": None, "amount": 5},
    ],
    "shop.labels": [
        {"label_id": 1, "sku": "x", "label": "sale", "at": NOW - DAY},
        {"label_id": 2, "sku": "y", "label": "new", "at": NOW - DAY},
        {"label_id": 3, "label": "new", "at": NOW - DAY},
    ],
}
PAID = {"status": "paid"}
ITEMS = {"related": "till.items", "on": {"order_id": "order_id"}}
LABELS = {"related": "shop.labels", "on": {"sku": "sku"}}

CASES = [
    ({"related": "till.orders"}, {1, 2, 3}),
    ({"related": "till.orders", "which": "none"}, {4}),
    ({"related": "till.orders", "which": "all", "where": PAID}, {2}),
    ({"related": "till.orders", "which": "none", "where": PAID}, {3, 4}),
    ({"related": "till.orders", "which": "all", "where": PAID, "within_last": "1 day"}, {1}),
    ({"related": "till.orders", "which": "none", "within_last": "1 day"}, {2, 3, 4}),
    ({"related": "till.orders", "between": ["2026-02-28", "2026-02-28"], "exactly": 2}, {1}),
    ({"related": "till.orders", "exactly": 2}, {1}),
    ({"related": "till.orders", "exactly": 0}, {4}),
    ({"related": "till.orders", "at_most": 1, "where": PAID}, {1, 2, 3, 4}),
    ({"related": "till.orders", "at_least": 2}, {1}),
    # by a field or trait; a missing value equals nothing
    ({"related": "till.orders", "on": {"customer": "text"}}, {1, 2}),
    ({"related": "till.orders", "on": {"customer": "text"}, "exactly": 2}, {1, 2}),
    ({"related": "till.orders", "on": {"customer": "text"}, "which": "all", "where": PAID}, {1}),
    ({"related": "till.orders", "on": {"customer": "text"}, "which": "none"}, {3, 4}),
    # what they have in turn
    ({"related": "till.orders", "having": [ITEMS]}, {1, 2, 3}),
    ({"related": "till.orders", "which": "all", "having": [ITEMS]}, {2, 3}),
    ({"related": "till.orders", "having": [{**ITEMS, "which": "none"}]}, {1}),
    ({"related": "till.orders", "having": [{**ITEMS, "exactly": 2}]}, {1}),
    ({"related": "till.orders", "having": [{**ITEMS, "which": "all", "where": {"sku": "x"}}]}, {2}),
    ({"related": "till.orders", "having": [ITEMS, {**ITEMS, "where": {"amount": {"at_least": 5}}}]}, {2, 3}),
    ({"related": "till.orders", "having": [{**ITEMS, "having": [LABELS]}]}, {1, 2}),
    ({"related": "till.orders", "having": [{**ITEMS, "which": "all", "having": [LABELS]}]}, {1, 2}),
    (
        {
            "related": "till.orders",
            "having": [{**ITEMS, "which": "all", "having": [{**LABELS, "where": {"label": "new"}}]}],
        },
        set(),
    ),
    ({"related": "till.orders", "having": [{**ITEMS, "having": [{**LABELS, "which": "none"}]}]}, {3}),
    ({"related": "till.orders", "on": {"customer": "text"}, "having": [ITEMS]}, {1, 2}),
    ({"related": "till.orders", "on": {"customer": "text"}, "which": "all", "having": [ITEMS]}, set()),
]


def test_every_example(warehouse):
    ground = Ground(PEOPLE, ROWS)
    ground.put(warehouse)
    found = ground.holding(warehouse, [Related(**given) for given, _ in CASES], Segmentation())
    assert [
        (given, held) for (given, expected), held in zip(CASES, found, strict=True) if held != expected
    ] == []


def objects(related: Related, rows: Rows, around: Mapping[str, Any] | None, who: int) -> Iterator[bool]:
    """For each object that is looked at, whether it fulfils what is asked of it."""
    for row in rows[related.related]:
        time = row.get("at")
        if time is not None and time >= NOW:
            continue
        if related.within_last and (time is None or time < NOW - related.within_last):
            continue
        if related.on:
            pairs = ((row.get(column), (around or {}).get(outer)) for column, outer in related.on.items())
            if any(one is None or one != other for one, other in pairs):
                continue
        elif row.get("who") != who:
            continue
        asked = all(row.get(name) == comparison.is_ for name, comparison in related.where.items())
        yield asked and all(holds(inner, rows, row, who) for inner in related.having)


def holds(related: Related, rows: Rows, around: Mapping[str, Any] | None, who: int) -> bool:
    found = list(objects(related, rows, around, who))
    if related.at_least is not None and sum(found) < related.at_least:
        return False
    if related.at_most is not None and sum(found) > related.at_most:
        return False
    if related.exactly is not None and sum(found) != related.exactly:
        return False
    counted = (related.at_least, related.at_most, related.exactly) != (None, None, None)
    match related.which or (None if counted else "any"):
        case "any":
            return any(found)
        case "all":
            return bool(found) and all(found)
        case "none":
            return not any(found)
    return True


BOUNDS: list[dict[str, Any]] = [
    {},
    {"which": "any"},
    {"which": "all"},
    {"which": "none"},
    {"at_least": 2},
    {"at_most": 1},
    {"exactly": 0},
    {"exactly": 1},
]


@st.composite
def labels(draw: st.DrawFn) -> dict[str, Any]:
    where = draw(st.sampled_from([{}, {"label": Comparison(is_="a")}]))
    return {**LABELS, "where": where, **draw(st.sampled_from(BOUNDS))}


@st.composite
def items(draw: st.DrawFn) -> dict[str, Any]:
    where = draw(st.sampled_from([{}, {"sku": Comparison(is_="x")}, {"amount": Comparison(is_=1)}]))
    having = draw(st.lists(labels(), max_size=2))
    return {**ITEMS, "where": where, "having": having, **draw(st.sampled_from(BOUNDS))}


@st.composite
def orders(draw: st.DrawFn) -> Related:
    where = draw(st.sampled_from([{}, {"status": Comparison(is_="paid")}]))
    on = draw(st.sampled_from([{}, {"customer": "text"}]))
    last = draw(st.none() | st.just(DAY))
    having = draw(st.lists(items(), max_size=2))
    return Related(
        related="till.orders",
        on=on,
        where=where,
        within_last=last,
        having=having,
        **draw(st.sampled_from(BOUNDS)),
    )


def some(**values: list[Any]) -> st.SearchStrategy[list[dict[str, Any]]]:
    columns = {name: st.sampled_from(choices) for name, choices in values.items()}
    return st.lists(st.fixed_dictionaries(columns), max_size=8)


TIMES = [None, NOW, NOW - DAY, NOW - DAY - TICK, NOW - TICK]
WORLDS = st.fixed_dictionaries(
    {
        "till.orders": some(
            who=[1, 2, 3, None],
            order_id=[1, 2, 3, None],
            status=["paid", None],
            customer=["ann", "bob", None],
            at=TIMES,
        ),
        "till.items": some(order_id=[1, 2, 3, None], sku=["x", "y", None], amount=[1, 2]),
        "shop.labels": some(sku=["x", "y", None], label=["a", "b"], at=TIMES),
    }
)


@settings(
    max_examples=8 * DEPTH,
    deadline=None,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
)
@given(asked=st.lists(orders(), min_size=5, max_size=5), rows=WORLDS)
def test_nested_objects_equal_a_walk_from_object_to_object(warehouse, asked, rows):
    ground = Ground(PEOPLE, rows)
    ground.put(warehouse)
    found = ground.holding(warehouse, asked, Segmentation())
    for related, held in zip(asked, found, strict=True):
        assert held == {who for who, traits in PEOPLE.items() if holds(related, rows, traits, who)}


def test_only_a_profiles_own_plain_objects_are_kept(make_warehouse):
    asked = facts(make_warehouse("duckdb"))
    related_sql(Related(**CASES[2][0]), asked, str)
    assert not asked.extra
    for more in ({"on": {"customer": "text"}}, {"having": [ITEMS]}):
        related_sql(Related(related="till.orders", **more), asked, str)
    assert [relation.always for relation in asked.extra] == [True, True]


@pytest.mark.parametrize(
    "given",
    [
        {"related": "till.items", "within_last": "1 day", "on": {"sku": "text"}},
        {"related": "till.orders", "on": {"nope": "text"}},
        {"related": "till.orders", "having": [{"related": "till.items", "on": {"order_id": "nope"}}]},
        {"related": "till.nothing"},
    ],
)
def test_what_streams_do_not_have_is_refused(make_warehouse, given):
    with pytest.raises(ConfigurationError, match=r"time column|no column 'nope'|no stream"):
        related_sql(Related(**given), facts(make_warehouse("duckdb")), str)
