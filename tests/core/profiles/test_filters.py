# SPDX-License-Identifier: Apache-2.0
"""The boundaries that the docstring of a comparison names, one by one, and what is refused."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest

from cdp_provider.core.exceptions import ConfigurationError
from cdp_provider.core.profiles.filters import Params, compile_comparison, compile_filter
from cdp_provider.core.project.conditions import Comparison
from tests.core.profiles.world import EVENTS, NOW

DAY, TICK = timedelta(days=1), timedelta(microseconds=1)
MIDNIGHT = datetime(2026, 2, 28, tzinfo=UTC)

#: column type, value, comparison, whether it holds
CASES = [
    # A missing value fulfils is_not, none_of and exists: false, and nothing else.
    *(
        ("string", None, given, held)
        for given, held in (
            ({"is_": "a"}, False),
            ({"is_not": "a"}, True),
            ({"any_of": ("a",)}, False),
            ({"none_of": ("a",)}, True),
            ({"any_of": ()}, False),
            ({"none_of": ()}, True),
            ({"at_least": "a"}, False),
            ({"at_most": "a"}, False),
            ({"more_than": ""}, False),
            ({"less_than": "z"}, False),
            ({"between": ("", "z")}, False),
            ({"contains": ""}, False),
            ({"starts_with": ""}, False),
            ({"ends_with": ""}, False),
            ({"exists": True}, False),
            ({"exists": False}, True),
            ({"exists": False, "is_": "a"}, False),
        )
    ),
    *(("timestamp", None, {name: NOW}, False) for name in ("before", "after", "at_least")),
    ("timestamp", None, {"within_last": DAY}, False),
    ("boolean", None, {"is_": False}, False),
    ("boolean", None, {"is_not": True}, True),
    # between includes both ends; a turned-around one holds nothing
    ("integer", 1, {"between": (1, 2)}, True),
    ("integer", 2, {"between": (1, 2)}, True),
    ("integer", 2, {"between": (2, 1)}, False),
    ("timestamp", MIDNIGHT, {"between": (MIDNIGHT, NOW)}, True),
    ("timestamp", NOW, {"between": (MIDNIGHT, NOW)}, True),
    ("timestamp", NOW + TICK, {"between": (MIDNIGHT, NOW)}, False),
    # before excludes its moment, after includes it
    ("timestamp", NOW, {"before": NOW}, False),
    ("timestamp", NOW - TICK, {"before": NOW}, True),
    ("timestamp", NOW, {"after": NOW}, True),
    ("timestamp", NOW - TICK, {"after": NOW}, False),
    # within_last: from now minus the duration (included) to now (excluded); a day is 24 hours
    ("timestamp", NOW - DAY, {"within_last": DAY}, True),
    ("timestamp", NOW - DAY - TICK, {"within_last": DAY}, False),
    ("timestamp", NOW - TICK, {"within_last": DAY}, True),
    ("timestamp", NOW, {"within_last": DAY}, False),
    ("timestamp", MIDNIGHT, {"within_last": timedelta(days=999_999_999)}, True),
    # dates are UTC: the midnight that they begin with
    ("timestamp", MIDNIGHT, {"is_": date(2026, 2, 28)}, True),
    ("timestamp", MIDNIGHT - TICK, {"before": date(2026, 2, 28)}, True),
    ("timestamp", MIDNIGHT, {"before": date(2026, 2, 28)}, False),
    ("timestamp", MIDNIGHT, {"after": date(2026, 2, 28)}, True),
    ("timestamp", MIDNIGHT, {"is_": datetime(2026, 2, 28)}, True),  # noqa: DTZ001 - as YAML may give it
    ("timestamp", MIDNIGHT, {"is_": datetime.fromisoformat("2026-02-28T01:00:00+01:00")}, True),
    ("date", date(2026, 2, 28), {"is_": date(2026, 2, 28)}, True),
    ("date", date(2026, 2, 28), {"after": MIDNIGHT}, True),
    ("date", date(2026, 2, 28), {"after": MIDNIGHT + TICK}, False),
    ("date", date(2026, 3, 1), {"within_last": DAY}, True),
    ("date", date(2026, 2, 28), {"within_last": DAY}, False),  # began 36 hours before now
    ("date", date(2024, 2, 29), {"between": (date(2024, 2, 28), date(2024, 2, 29))}, True),
    # contains, starts_with and ends_with ignore case, the others do not
    ("string", "aBc", {"contains": "Bc"}, True),
    ("string", "abc", {"contains": "BC"}, True),
    ("string", "ABC", {"starts_with": "ab"}, True),
    ("string", "abc", {"ends_with": "BC"}, True),
    ("string", "abc", {"ends_with": "xabc"}, False),
    ("string", "abc", {"ends_with": ""}, True),
    ("string", "a", {"is_": "A"}, False),
    ("string", "a", {"any_of": ("A",)}, False),
    ("string", "a", {"more_than": "B"}, True),
    ("string", "a_c", {"contains": "%"}, False),
    ("string", "abc", {"contains": "a_c"}, False),
    # an empty text is a value
    ("string", "", {"exists": True}, True),
    # numbers are compared exactly
    ("integer", 2**53 + 1, {"is_": 2**53}, False),
    ("integer", 1, {"more_than": 0.5}, True),
    ("integer", 1, {"is_": 1.5}, False),
    ("integer", 1, {"any_of": (1, 1.5)}, True),
    ("decimal", Decimal("0.100000"), {"is_": 0.1}, True),
    ("decimal", Decimal("0.000001"), {"more_than": 0}, True),
    ("number", 0.5, {"is_": Decimal("0.5")}, True),
    # every operator must hold
    ("integer", 3, {"at_least": 1, "is_not": 3}, False),
    ("integer", 3, {"at_least": 1, "less_than": 4}, True),
    ("json", None, {"exists": False}, True),
]


@pytest.fixture(scope="module")
def asked() -> list[tuple[str, object, Comparison, bool]]:
    return [(kind, value, Comparison(**given), held) for kind, value, given, held in CASES]


def test_every_boundary(warehouse, asked):
    params = Params(warehouse, NOW)
    chosen = []
    for kind, value, comparison, _ in asked:
        column = f"cast(null as {warehouse.types[kind]})" if value is None else params.bind(value, kind)
        chosen.append(f"select {len(chosen)}, {compile_comparison(column, kind, comparison, params, 'it')}")
    query = params.query(" union all ".join(chosen))
    with warehouse.session() as session:
        held = dict(session.fetch(query.sql, query.params))
    wrong = [case for number, case in enumerate(CASES) if held[number] is not case[3]]
    assert wrong == []


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        ("string", {"is_": 1}, "it is compared with 1; it wants a text; put it in quotes"),
        ("string", {"is_": True}, "wants a text"),
        ("string", {"is_": "\x00"}, "NUL"),
        (
            "string",
            {"within_last": DAY},
            "it is of type string and cannot be compared by within_last; use one of",
        ),
        ("integer", {"is_": "1"}, "finite number, without quotes"),
        ("integer", {"is_": True}, "finite number"),
        ("integer", {"contains": "1"}, "cannot be compared by contains"),
        ("decimal", {"is_": Decimal("0.0000001")}, "6 behind the point"),
        ("decimal", {"at_most": Decimal(10) ** 30}, "at most 22 digits"),
        ("number", {"is_": float("nan")}, "finite number"),
        ("number", {"is_": 10**400}, "finite number"),
        ("boolean", {"is_": 1}, "true or false"),
        ("boolean", {"at_least": True}, "cannot be compared by at_least"),
        ("timestamp", {"is_": "yesterday"}, "a date or a moment"),
        ("timestamp", {"is_": 5}, "a date or a moment"),
        ("json", {"is_": "{}"}, "use one of exists"),
    ],
)
def test_what_does_not_suit_the_type_is_refused(make_warehouse, kind, given, message):
    params = Params(make_warehouse("duckdb"), NOW)
    with pytest.raises(ConfigurationError, match=message):
        compile_comparison("x", kind, Comparison(**given), params, "it")


def test_a_filter_on_an_unknown_column_is_refused(make_warehouse):
    params = Params(make_warehouse("duckdb"), NOW)
    with pytest.raises(ConfigurationError, match=r"'nam', which the stream web\.events does not have"):
        compile_filter({"nam": Comparison(is_="x")}, EVENTS, params)


def test_equal_values_share_a_parameter(make_warehouse):
    params = Params(make_warehouse("duckdb"), NOW)
    assert params.bind("a", "string") == params.bind("a", "string")
    assert params.bind(1, "integer") != params.bind(1, "number")
    assert params.bind(1, "integer") != params.bind(True, "boolean")
    assert params.query("").params == {"p0": "a", "p1": 1, "p2": 1, "p3": True}
