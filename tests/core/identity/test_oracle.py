# SPDX-License-Identifier: Apache-2.0
"""Generated histories: the engine in many small runs, the engine in one rebuild and the oracle agree."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from cdp_provider.core.identity.graph import Graph, Known
from cdp_provider.core.identity.history import Load, Plan, RawRows, arrange, rules
from cdp_provider.core.project.identity import Identifier, Identity
from cdp_provider.core.warehouse import DuckDBWarehouse
from tests.core.identity.landed import DAY, KINDS, History
from tests.core.identity.oracle import Oracle

if TYPE_CHECKING:
    from collections.abc import Callable

    from cdp_provider.core.warehouse import Warehouse

LIMITS = {"user_id": 1, "email": 2, "anonymous_id": 3}
RULES = Identity(
    identifiers={
        kind: Identifier(priority=rank, limit=limit) for rank, (kind, limit) in enumerate(LIMITS.items(), 1)
    }
)

_values = st.one_of(st.none(), st.sampled_from("abcdef"))
_row = st.fixed_dictionaries(
    {
        **{kind: _values.map(lambda value, kind=kind: value and f"{kind[0]}{value}") for kind in KINDS},
        "key": st.sampled_from("xyz"),
        "at": st.one_of(st.none(), st.integers(0, 3)),
    }
)
_rows = st.lists(_row, max_size=6)
_many = st.lists(_row, max_size=40)
_land = st.tuples(st.just("land"), st.integers(0, 1), _rows)
_again = st.tuples(
    st.just("again"), st.integers(0, 9), _rows, st.sampled_from(["passed", "passed", "failed", "landed"])
)
_resolve = st.tuples(st.just("resolve"))
growing = st.lists(st.one_of(_land, _land, _resolve), max_size=10)
changing = st.lists(st.one_of(_land, _land, _resolve, _again), max_size=10)


def play(history: History, steps: list[tuple]) -> Oracle:
    """Both go through the same steps, and are compared after each run."""
    history.clear()
    oracle = Oracle(LIMITS)
    sources: list[int] = []
    for kind, *what in [*steps, ("resolve",)]:
        if kind == "resolve":
            settle(history, oracle)
            history.resolve()
            compare(history, oracle)
            continue
        if kind == "land":
            source, rows, state, load_id = what[0], what[1], "passed", None
            sources.append(source)
        elif sources:
            load_id, rows, state = what[0] % len(sources) + 1, what[1], what[2]
            source = sources[load_id - 1]
        else:
            continue
        oracle.land(
            history.land(*timed(rows), stream=source, load_id=load_id, state=state), source, rows, state
        )
    return oracle


def timed(rows: list[dict]) -> list[dict]:
    return [
        {**row, "at": None if row["at"] is None else DAY + timedelta(microseconds=row["at"])} for row in rows
    ]


def settle(history: History, oracle: Oracle) -> None:
    """A batch that waits for its check keeps its say until a replay; the oracle knows no such time, so here
    every check is done before a run."""
    with history.warehouse.session() as session:
        session.execute(
            f"update {history.warehouse.table('loads')} set state = 'passed' where state = 'landed'"
        )
    for load in oracle.loads.values():
        load["state"] = "passed" if load["state"] == "landed" else load["state"]
    oracle.resolve()


def compare(history: History, oracle: Oracle) -> None:
    state = history.state()
    partition = {(kind, value): (node, profile) for node, kind, value, profile, *_ in state["identifiers"]}
    assert partition == {key: (oracle.nodes[key], profile) for key, profile in oracle.partition().items()}
    assert sorted((load, position, node) for load, position, _, node in state["row_links"]) == sorted(
        oracle.links
    )
    assert sorted((*row[:5], row[6]) for row in state["merges"]) == sorted(oracle.merges)
    assert sorted((*row[:5], row[6]) for row in state["refused_links"]) == sorted(oracle.refused)


def rebuilt_alike(history: History, *, exactly: bool) -> None:
    def shape() -> dict[str, list]:
        state = history.state()
        if exactly:
            return state
        # A node that was cut off keeps the day of its first life; who did a replay may be another run.
        return {
            "identifiers": [row[:4] for row in state["identifiers"]],
            "row_links": state["row_links"],
            "merges": [row[:-1] for row in state["merges"]],
            "refused_links": [row[:-1] for row in state["refused_links"]],
        }

    before = shape()
    history.rebuild()
    assert shape() == before


def raw_rows(rows: list[dict], load_id: int) -> pa.Table:
    types = {"key": pa.string(), "at": pa.timestamp("us", tz="UTC")}
    names = {"key": "key_0", "at": "at"}
    return pa.table(
        {
            "load_id": pa.array([load_id] * len(rows), pa.int64()),
            "position": pa.array(range(1, len(rows) + 1), pa.int64()),
            **{
                names.get(column, f"id_{column}"): pa.array(
                    [r[column] for r in rows], types.get(column, pa.string())
                )
                for column in ("key", "at", *KINDS)
            },
        }
    )


def settings_of(examples: int) -> settings:
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


@pytest.fixture
def in_memory() -> History:
    root = duckdb.connect(":memory:")
    return History(DuckDBWarehouse(root.cursor), RULES)


@pytest.fixture
def on_postgres(make_warehouse: Callable[[str], Warehouse]) -> History:
    return History(make_warehouse("postgres"), RULES)


@settings_of(250)
@given(batches=st.lists(_many, min_size=1, max_size=3))
def test_one_run_without_a_warehouse_equals_the_oracle(batches):
    oracle = Oracle(LIMITS)
    for load_id, rows in enumerate(batches, 1):
        oracle.land(load_id, load_id, rows, "passed")
    oracle.resolve()
    loads = frozenset(Load(n, "app.web", n, "passed", "h", None, None) for n in range(1, len(batches) + 1))
    plan = Plan(loads, frozenset(), replay=False, last_seq=0)
    raw = [RawRows(n, raw_rows(timed(rows), n)) for n, rows in enumerate(batches, 1)]
    found = arrange(raw, plan, rules(RULES, []))
    none = np.zeros(len(found.values), np.int64)
    graph = Graph(found.kinds, list(LIMITS.values()), Known(none, none, none.astype(bool)))
    graph.take(found.columns)
    names = [(KINDS[kind], value) for kind, value in zip(found.kinds, found.values, strict=True)]
    profiles = {name: int(profile) for name, profile in zip(names, graph.profiles(), strict=True) if profile}
    assert profiles == oracle.partition()
    assert {name: int(node) for name, node in zip(names, graph.nodes(), strict=True) if node} == oracle.nodes
    assert [
        (
            int(found.load_ids[row]),
            int(found.positions[row]),
            *names[identifier],
            f"limit {KINDS[kind]} {LIMITS[KINDS[kind]]}",
        )
        for row, identifier, kind in graph.refusals
    ] == [refused[1:] for refused in oracle.refused]


@settings_of(30)
@given(steps=growing)
def test_small_runs_equal_the_oracle_and_a_rebuild(in_memory, steps):
    play(in_memory, steps)
    rebuilt_alike(in_memory, exactly=True)


@settings_of(50)
@given(steps=changing)
def test_histories_that_change_equal_the_oracle_and_a_rebuild(in_memory, steps):
    play(in_memory, steps)
    rebuilt_alike(in_memory, exactly=False)


@settings_of(10)
@given(steps=changing)
def test_histories_that_change_equal_the_oracle_on_postgres(on_postgres, steps):
    play(on_postgres, steps)
    rebuilt_alike(on_postgres, exactly=False)
