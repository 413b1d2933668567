# SPDX-License-Identifier: Apache-2.0
"""Traits over other traits: quantiles with ties, codes, ratios, their order, and circles among them."""

from __future__ import annotations

import os
import random
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cdp_provider.core.exceptions import ConfigurationError
from cdp_provider.core.profiles.derived import derived_levels
from cdp_provider.core.profiles.params import Params
from cdp_provider.core.project.profiles import Trait
from cdp_provider.core.warehouse import DuckDBWarehouse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cdp_provider.core.warehouse import Warehouse

DEPTH = int(os.environ.get("CDP_TEST_DEPTH", "1"))
NOW = datetime(2026, 3, 1, tzinfo=UTC)
BASE = {"i": "integer", "n": "number", "d": "decimal", "day": "date", "s": "string"}
ARROW = {
    "integer": pa.int64(),
    "number": pa.float64(),
    "decimal": pa.decimal128(28, 6),
    "date": pa.date32(),
    "string": pa.string(),
}
VALUES: Mapping[str, st.SearchStrategy[Any]] = {
    "i": st.integers(-2, 5),
    "n": st.sampled_from([-1.5, 0.0, 0.1, 0.3, 2.0, 1e9]),
    "d": st.sampled_from([Decimal("-0.5"), Decimal(0), Decimal("0.1"), Decimal("2.5")]),
    "day": st.sampled_from([date(2026, 1, day) for day in range(1, 6)]),
    "s": st.sampled_from(["", "a"]),
}
ROWS = st.lists(
    st.fixed_dictionaries({name: st.none() | of for name, of in VALUES.items()}), min_size=1, max_size=30
)
SETTINGS = settings(
    max_examples=12 * DEPTH, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def computed(
    warehouse: Warehouse, traits: Mapping[str, Trait], kinds: Mapping[str, str], rows: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Every row with its traits, level upon level as a build nests them."""
    params = Params(warehouse, NOW)
    levels = derived_levels(traits, kinds, params)
    arrow = pa.table(
        {
            "profile_id": pa.array(range(len(rows)), pa.int64()),
            **{name: pa.array([row[name] for row in rows], ARROW[kind]) for name, kind in BASE.items()},
        }
    )
    names = [name for level in levels for name, _ in level]
    with warehouse.session() as session:
        relation = session.temp("given", arrow)
        for level in levels:
            chosen = ", ".join(f"{sql} as {warehouse.quote(name)}" for name, sql in level)
            relation = f"(select *, {chosen} from {relation} r)"
        listed = ", ".join(map(warehouse.quote, names))
        query = params.query(f"select {listed} from {relation} r order by profile_id")
        return [
            dict(zip(names, row, strict=True)) | given
            for row, given in zip(session.fetch(query.sql, query.params), rows, strict=True)
        ]


def quantiles(values: list[Any], buckets: int, *, descending: bool = False) -> list[int | None]:
    known = [value for value in values if value is not None]

    def smaller(value: Any) -> int:
        return sum(other > value if descending else other < value for other in known)

    return [None if value is None else 1 + buckets * smaller(value) // len(known) for value in values]


@SETTINGS
@given(rows=ROWS, buckets=st.integers(2, 100), of=st.sampled_from(["i", "n", "d", "day"]), down=st.booleans())
def test_quantiles(warehouse: Warehouse, rows: list[dict[str, Any]], buckets: int, of: str, down: bool):
    order = "descending" if down else "ascending"
    traits = {
        "q": Trait(type="quantile", of=of, buckets=buckets, order=order),
        "all": Trait(type="quantile", of=of, buckets=buckets, order=order, default=0),
    }
    found = computed(warehouse, traits, BASE | {"q": "integer", "all": "integer"}, rows)
    expected = quantiles([row[of] for row in rows], buckets, descending=down)
    assert [row["q"] for row in found] == expected
    assert [row["all"] for row in found] == [value or 0 for value in expected]


def test_equal_values_share_a_bucket_and_buckets_are_even(warehouse: Warehouse):
    values = [*range(10), *range(10)]
    random.Random(1).shuffle(values)
    rows = [dict.fromkeys(BASE) | {"i": value} for value in values]
    traits = {
        "q": Trait(type="quantile", of="i"),
        "best_small": Trait(type="quantile", of="i", order="descending"),
    }
    found = computed(warehouse, traits, BASE | dict.fromkeys(traits, "integer"), rows)
    assert {row["i"]: row["q"] for row in found} == {value: 1 + value // 2 for value in range(10)}
    assert {row["i"]: row["best_small"] for row in found} == {value: 5 - value // 2 for value in range(10)}


@SETTINGS
@given(rows=ROWS, buckets=st.integers(2, 9))
def test_rfm_is_three_digits(warehouse: Warehouse, rows: list[dict[str, Any]], buckets: int):
    traits = {"rfm": Trait(type="rfm", recency="day", frequency="i", monetary="d", buckets=buckets)}
    found = computed(warehouse, traits, BASE | {"rfm": "string"}, rows)
    digits = zip(
        quantiles([row["day"] for row in rows], buckets, descending=True),
        quantiles([row["i"] for row in rows], buckets),
        quantiles([row["d"] for row in rows], buckets),
        strict=True,
    )
    expected = [None if None in code else "".join(map(str, code)) for code in digits]
    assert [row["rfm"] for row in found] == expected


def test_rfm_of_one_value_for_all_three_takes_it_both_ways(warehouse: Warehouse):
    rows = [dict.fromkeys(BASE) | {"i": value} for value in range(3)]
    traits = {"rfm": Trait(type="rfm", recency="i", frequency="i", monetary="i", buckets=3)}
    found = computed(warehouse, traits, BASE | {"rfm": "string"}, rows)
    assert [row["rfm"] for row in found] == ["311", "222", "133"]


@SETTINGS
@given(rows=ROWS, of=st.sampled_from(["i", "n", "d"]), over=st.sampled_from(["i", "n", "d"]))
def test_ratios(warehouse: Warehouse, rows: list[dict[str, Any]], of: str, over: str):
    traits = {
        "r": Trait(type="ratio", of=of, over=over),
        "r0": Trait(type="ratio", of=of, over=over, default=-1),
    }
    found = computed(warehouse, traits, BASE | dict.fromkeys(traits, "number"), rows)
    expected = [
        None if row[of] is None or not row[over] else float(row[of]) / float(row[over]) for row in rows
    ]
    assert [row["r"] for row in found] == expected
    assert [row["r0"] for row in found] == [-1.0 if value is None else value for value in expected]


def test_traits_are_computed_after_what_they_need(warehouse: Warehouse):
    traits = {
        "rank": Trait(type="quantile", of="worth", buckets=2),
        "worth": Trait(type="formula", formula="round(share * 100)", as_="integer", default=-1),
        "share": Trait(type="ratio", of="i", over="n"),
        "other": Trait(type="formula", formula="s is none", as_="boolean"),
        "orders": Trait(type="count", stream="till.orders"),
    }
    kinds = {
        "rank": "integer",
        "worth": "integer",
        "share": "number",
        "other": "boolean",
        "orders": "integer",
    }
    levels = derived_levels(traits, BASE | kinds, Params(warehouse, NOW))
    assert [[name for name, _ in level] for level in levels] == [["share", "other"], ["worth"], ["rank"]]
    rows = [dict.fromkeys(BASE) | {"i": i, "n": n} for i, n in ((1, 8.0), (1, 2.0), (1, 0.0))]
    found = computed(warehouse, traits, BASE | kinds, rows)
    assert [(row["share"], row["worth"], row["rank"]) for row in found] == [
        (0.125, 13, 1),
        (0.5, 50, 2),
        (None, -1, 1),
    ]
    assert [row["other"] for row in found] == [True] * 3


def test_defaults_take_the_type_of_their_trait(warehouse: Warehouse):
    traits = {
        "a": Trait(type="formula", formula="none if i > 0 else 1.5", as_="decimal", default=0),
        "b": Trait(type="formula", formula="coalesce(s, none)", as_="string", default="-"),
        "c": Trait(type="formula", formula="coalesce(day, none)", as_="date", default="2026-01-31"),
    }
    kinds = BASE | {"a": "decimal", "b": "string", "c": "date"}
    (found,) = computed(warehouse, traits, kinds, [dict.fromkeys(BASE) | {"i": 1}])
    assert (found["a"], found["b"], found["c"]) == (Decimal(0), "-", date(2026, 1, 31))


CIRCLE = {
    "a": Trait(type="formula", formula="b + 1"),
    "b": Trait(type="ratio", of="c", over="i"),
    "c": Trait(type="quantile", of="a"),
}
PARAMS = Params(DuckDBWarehouse(lambda: None), NOW)


@pytest.mark.parametrize(
    ("traits", "message"),
    [
        (CIRCLE, "in a circle: a -> b -> c -> a;"),
        ({"a": Trait(type="formula", formula="coalesce(a, 1)")}, "in a circle: a -> a;"),
        (
            {"a": Trait(type="ratio", of="ii", over="i")},
            "'ii', and there is no such field or trait; did you mean 'i'",
        ),
        ({"a": Trait(type="quantile", of="s")}, "'s', which is of type string; it needs numbers or dates"),
        ({"a": Trait(type="ratio", of="day", over="i")}, "'day', which is of type date; it needs numbers"),
        ({"a": Trait(type="formula", formula="1 +")}, "cannot be computed"),
        (
            {"a": Trait(type="rfm", recency="i", frequency="i", monetary="i", buckets=10)},
            "10 buckets, and each is to be one digit",
        ),
    ],
)
def test_what_is_refused(traits: dict[str, Trait], message: str):
    with pytest.raises(ConfigurationError) as error:
        derived_levels(traits, BASE | dict.fromkeys(traits, "number"), PARAMS)
    path = str(error.value)
    if "circle" in message and len(traits) > 1:
        # Where a circle begins is nobody's business.
        shown = path.partition("circle: ")[2].partition(";")[0].split(" -> ")
        assert shown[0] == shown[-1]
        assert "".join(shown[:-1] * 2).find("abc") >= 0
    else:
        assert message in path
