# SPDX-License-Identifier: Apache-2.0
"""Funnels: boundaries one by one, and random ones against all chains that there are."""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cdp_provider.core.project.conditions import Funnel
from cdp_provider.core.project.model import Segmentation
from cdp_provider.core.segments.funnel import funnel_sql
from tests.core.segments.ground import DAY, HOUR, NOW, TICK, Ground, facts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: How often random examples are drawn, as a multiple.
DEPTH = int(os.environ.get("CDP_TEST_DEPTH", "1"))

VIEW, ADD = {"stream": "web.events", "event": "view"}, {"stream": "web.events", "event": "add"}
BUY = {"stream": "till.orders"}
T = NOW - DAY


def at(time, name="view", product="x"):
    """An event of one profile."""
    return {"at": time, "name": name, "product": product}


def bought(time, sku="x"):
    return {"at": time, "sku": sku, "status": "paid"}


#: funnel, events, orders, whether it holds
CASES = [
    ({"funnel": [VIEW, ADD]}, [at(T), at(T + TICK, "add")], [], True),
    ({"funnel": [VIEW, ADD]}, [at(T), at(T, "add")], [], False),  # at the same time is not later
    ({"funnel": [VIEW, ADD]}, [at(T + TICK), at(T, "add")], [], False),
    ({"funnel": [VIEW, VIEW]}, [at(T)], [], False),  # a row follows another one
    ({"funnel": [VIEW, VIEW]}, [at(T), at(T + TICK)], [], True),
    ({"funnel": [VIEW, ADD]}, [at(None), at(T, "add")], [], False),  # without a time it takes no part
    ({"funnel": [VIEW, {**ADD, "within": "1 hour"}]}, [at(T), at(T + HOUR, "add")], [], True),
    ({"funnel": [VIEW, {**ADD, "within": "1 hour"}]}, [at(T), at(T + HOUR + TICK, "add")], [], False),
    # a later row is nearer, but then nothing may come between
    (
        {"funnel": [VIEW, {**ADD, "within": "1 hour"}]},
        [at(T), at(T + HOUR), at(T + 2 * HOUR, "add")],
        [],
        True,
    ),
    ({"funnel": [VIEW, {**BUY, "absent": True}, ADD]}, [at(T), at(T + HOUR, "add")], [bought(T)], True),
    (
        {"funnel": [VIEW, {**BUY, "absent": True}, ADD]},
        [at(T), at(T + HOUR, "add")],
        [bought(T + TICK)],
        False,
    ),
    (
        {"funnel": [VIEW, {**BUY, "absent": True}, ADD]},
        [at(T), at(T + HOUR, "add")],
        [bought(T + HOUR)],
        True,
    ),
    (
        {"funnel": [VIEW, {**BUY, "absent": True}, ADD]},
        [at(T), at(T + 2 * TICK), at(T + HOUR, "add")],
        [bought(T + TICK)],
        True,
    ),
    # absent at the end: until now, or for so long, which must be over
    ({"funnel": [VIEW, {**BUY, "absent": True}]}, [at(T)], [], True),
    ({"funnel": [VIEW, {**BUY, "absent": True}]}, [at(T)], [bought(T)], True),
    ({"funnel": [VIEW, {**BUY, "absent": True}]}, [at(T)], [bought(NOW - TICK)], False),
    ({"funnel": [VIEW, {**BUY, "absent": True}]}, [at(T)], [bought(NOW)], True),
    ({"funnel": [VIEW, {**BUY, "absent": True, "within": "1 hour"}]}, [at(T)], [bought(T + HOUR)], False),
    (
        {"funnel": [VIEW, {**BUY, "absent": True, "within": "1 hour"}]},
        [at(T)],
        [bought(T + HOUR + TICK)],
        True,
    ),
    ({"funnel": [VIEW, {**BUY, "absent": True, "within": "1 day"}]}, [at(T)], [], False),
    ({"funnel": [VIEW, {**BUY, "absent": True, "within": "1 day"}]}, [at(T - TICK)], [], True),
    (  # the earlier view was followed by nothing for long enough, the later one was not
        {"funnel": [VIEW, {**BUY, "absent": True, "within": "1 hour"}]},
        [at(T), at(T + 2 * HOUR)],
        [bought(T + 3 * HOUR)],
        True,
    ),
    # same
    ({"funnel": [VIEW, ADD], "same": ["product"]}, [at(T), at(T + HOUR, "add", "y")], [], False),
    ({"funnel": [VIEW, ADD], "same": ["product"]}, [at(T), at(T + HOUR, "add")], [], True),
    (
        {"funnel": [VIEW, ADD], "same": ["product"]},
        [at(T, product=None), at(T + HOUR, "add", None)],
        [],
        False,
    ),
    (
        {"funnel": [VIEW, {**BUY, "columns": {"product": "sku"}, "absent": True}], "same": ["product"]},
        [at(T)],
        [bought(T + HOUR, "y")],
        True,
    ),
    (
        {"funnel": [VIEW, {**BUY, "columns": {"product": "sku"}}], "same": ["product"]},
        [at(T), at(T, product="y")],
        [bought(T + HOUR, "y")],
        True,
    ),
    # windows hold for all steps
    ({"funnel": [VIEW, ADD], "within_last": "1 day"}, [at(T), at(T + HOUR, "add")], [], True),
    ({"funnel": [VIEW, ADD], "within_last": "1 day"}, [at(T - TICK), at(T + HOUR, "add")], [], False),
    ({"funnel": [VIEW, ADD], "between": [T, T + HOUR]}, [at(T), at(T + HOUR, "add")], [], True),
    (
        {"funnel": [VIEW, {**BUY, "absent": True}], "between": [T, T + HOUR]},
        [at(T)],
        [bought(T + 2 * HOUR)],
        True,
    ),
    ({"funnel": [{**VIEW, "where": {"product": "y"}}, ADD]}, [at(T), at(T + HOUR, "add")], [], False),
]


def test_every_boundary(warehouse):
    """Each case is a profile of its own; every funnel is asked of all, and looked at for its own."""
    rows: dict[str, list[Mapping[str, Any]]] = {"web.events": [], "till.orders": []}
    for number, (_, events, orders, _) in enumerate(CASES, 1):
        rows["web.events"] += [{"who": number, **row} for row in events]
        rows["till.orders"] += [{"who": number, **row} for row in orders]
    ground = Ground({number: {} for number in range(1, len(CASES) + 1)}, rows)
    ground.put(warehouse)
    held = ground.holding(warehouse, [Funnel(**case[0]) for case in CASES], Segmentation())
    wrong = [
        case
        for number, (case, found) in enumerate(zip(CASES, held, strict=True), 1)
        if (number in found) != case[3]
    ]
    assert wrong == []


def holds(funnel: Funnel, rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> bool:
    """Whether some choice of rows fulfils a funnel of web.events, tried one by one."""
    keyed = {
        tuple(row[step.columns.get(name, name)] for name in funnel.same)
        for step in funnel.funnel
        for row in rows[step.stream]
    }
    return any(_chain(funnel, rows, key) for key in keyed if None not in key)


def _chain(funnel: Funnel, rows: Mapping[str, Sequence[Mapping[str, Any]]], key: tuple[Any, ...]) -> bool:
    start = NOW - funnel.within_last if funnel.within_last else None
    times = [
        [
            row["at"]
            for row in rows[step.stream]
            if row["at"] is not None
            and row["at"] < NOW
            and (start is None or row["at"] >= start)
            and (step.event is None or row["name"] == step.event)
            and tuple(row[step.columns.get(name, name)] for name in funnel.same) == key
        ]
        for step in funnel.funnel
    ]
    needed = [number for number, step in enumerate(funnel.funnel) if not step.absent]
    return any(
        _fits(funnel, times, dict(zip(needed, chosen, strict=True)))
        for chosen in itertools.product(*(times[number] for number in needed))
    )


def _fits(funnel: Funnel, times: Sequence[Sequence[Any]], chosen: Mapping[int, Any]) -> bool:
    last = None
    waiting: list[int] = []
    for number, step in enumerate(funnel.funnel):
        if step.absent:
            waiting.append(number)
            continue
        time = chosen[number]
        if last is not None:
            if time <= last or (step.within is not None and time - last > step.within):
                return False
            if any(last < other < time for absent in waiting for other in times[absent]):
                return False
        last, waiting = time, []
    for absent in waiting:
        within = funnel.funnel[absent].within
        if within is not None and not NOW > last + within:
            return False
        if any(other > last and (within is None or other <= last + within) for other in times[absent]):
            return False
    return True


@st.composite
def funnels(draw: st.DrawFn) -> Funnel:
    length = draw(st.integers(2, 5))
    steps: list[dict[str, Any]] = []
    for number in range(length):
        absent = number > 0 and draw(st.booleans())
        orders = draw(st.integers(0, 3)) == 0
        step: dict[str, Any] = {"stream": "till.orders" if orders else "web.events", "absent": absent}
        if orders:
            step["columns"] = {"product": "sku"}
        else:
            step["event"] = draw(st.none() | st.sampled_from(["a", "b"]))
        if number:
            step["within"] = draw(st.none() | st.integers(1, 3).map(lambda hours: hours * HOUR))
        steps.append(step)
    for number, step in enumerate(steps):
        if step["absent"] and not all(other["absent"] for other in steps[number:]):
            step["within"] = None
    return Funnel(
        funnel=steps,
        same=draw(st.sampled_from([(), ("product",)])),
        within_last=draw(st.none() | st.integers(2, 8).map(lambda hours: hours * HOUR)),
    )


TIMES = st.none() | st.integers(-1, 9).map(lambda hours: NOW - hours * HOUR)
ROWS = st.fixed_dictionaries(
    {
        "web.events": st.lists(
            st.fixed_dictionaries(
                {"at": TIMES, "name": st.sampled_from("ab"), "product": st.sampled_from(["x", "y", None])}
            ),
            max_size=9,
        ),
        "till.orders": st.lists(
            st.fixed_dictionaries({"at": TIMES, "sku": st.sampled_from(["x", "y", None])}), max_size=3
        ),
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
@given(asked=st.lists(funnels(), min_size=4, max_size=4), people=st.lists(ROWS, min_size=8, max_size=8))
def test_funnels_hold_where_some_chain_fulfils_them(warehouse, asked, people):
    rows = {
        ref: [{"who": number, **row} for number, found in enumerate(people, 1) for row in found[ref]]
        for ref in ("web.events", "till.orders")
    }
    ground = Ground({number: {} for number in range(1, len(people) + 1)}, rows)
    ground.put(warehouse)
    held = ground.holding(warehouse, asked, Segmentation())
    for funnel, found in zip(asked, held, strict=True):
        assert found == {number for number, theirs in enumerate(people, 1) if holds(funnel, theirs)}


@pytest.mark.parametrize(
    ("given", "windows", "always"),
    [
        ({"funnel": [VIEW, ADD]}, {"web.events": set()}, False),
        ({"funnel": [VIEW, BUY], "within_last": "1 day"}, {"web.events": {DAY}, "till.orders": {DAY}}, False),
        (
            {"funnel": [VIEW, {**BUY, "absent": True, "within": "1 hour"}]},
            {"web.events": {HOUR}, "till.orders": set()},
            False,
        ),
        ({"funnel": [VIEW, {**ADD, "where": {"due": {"today": True}}}]}, {"web.events": set()}, True),
        (
            {"funnel": [VIEW, {**ADD, "where": {"due": {"before": "2026-01-01"}}}]},
            {"web.events": set()},
            False,
        ),
    ],
)
def test_what_a_funnel_depends_on_is_told(make_warehouse, given, windows, always):
    asked = facts(make_warehouse("duckdb"))
    funnel_sql(Funnel(**given), asked)
    (relation,) = asked.extra
    assert {ref: set(found) for ref, found in relation.windows.items()} == windows
    assert (set(relation.refs), relation.always) == (set(windows), always)
