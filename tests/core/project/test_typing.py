# SPDX-License-Identifier: Apache-2.0
"""Types of fields, traits and constants."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest

from cdp_provider.core.exceptions import ConfigurationError
from cdp_provider.core.project.constants import convert
from cdp_provider.core.project.profiles import FieldFrom, ProfileField, Profiles, Trait
from cdp_provider.core.project.streams import Stream
from cdp_provider.core.project.typing import account_kinds, element, is_list, trait_types
from tests.core.project.example import FileOptions

TYPES = ("string", "integer", "number", "decimal", "boolean", "date", "timestamp", "json")

STREAM = Stream(
    source="s",
    name="t",
    primary_key=("c_string",),
    time="c_timestamp",
    columns={f"c_{kind}": kind for kind in TYPES},
    options=FileOptions(path="x"),
)


def type_of(**trait: Any) -> str:
    profiles = Profiles(traits={"x": Trait(stream="s.t", **trait)})
    return trait_types(profiles, {"s.t": STREAM})["x"]


def test_types_of_traits():
    for counted in ("count", "days_since_last", "days_since_first"):
        assert type_of(type=counted) == "integer"
    assert type_of(type="exists") == "boolean"
    assert type_of(type="distinct_count", column="c_string") == "integer"
    for kind in ("integer", "number", "decimal"):
        assert type_of(type="sum", column=f"c_{kind}") == kind
        assert type_of(type="average", column=f"c_{kind}") == "number"
    for kind in TYPES:
        assert type_of(type="first", column=f"c_{kind}") == kind
        assert type_of(type="last", column=f"c_{kind}") == kind
    for kind in ("string", "number", "boolean", "timestamp"):
        assert type_of(type="min", column=f"c_{kind}") == kind
        assert type_of(type="most_frequent", column=f"c_{kind}") == kind
    for kind in ("string", "integer", "boolean", "date"):
        assert type_of(type="list", column=f"c_{kind}") == f"list of {kind}"


def test_types_of_traits_over_other_values():
    def of(**trait: Any) -> str:
        return trait_types(Profiles(traits={"x": Trait(**trait)}), {})["x"]

    assert of(type="quantile", of="a") == "integer"
    assert of(type="rfm", recency="a", frequency="b", monetary="c") == "string"
    assert of(type="ratio", of="a", over="b") == "number"
    assert of(type="formula", formula="a") == "number"
    assert of(type="formula", formula="a", as_="string") == "string"
    assert of(type="sql", sql="select 1", as_="date") == "date"


@pytest.mark.parametrize(
    ("keep", "column", "kind"),
    [
        ("most_recent", "c_json", "json"),
        ("sum", "c_decimal", "decimal"),
        ("average", "c_integer", "number"),
        ("min", "c_boolean", "boolean"),
        ("any", "c_boolean", "boolean"),
        ("list", "c_date", "list of date"),
    ],
)
def test_types_of_fields_follow_from_their_rule(keep: str, column: str, kind: str):
    field = ProfileField.model_validate({"from": [f"s.t.{column}"], "keep": keep})
    assert trait_types(Profiles(fields={"x": field}), {"s.t": STREAM}) == {"x": kind}


def test_types_of_account_traits():
    accounts = {
        "key": "x",
        "traits": {
            "n": {"type": "count"},
            "total": {"type": "sum", "of": "x"},
            "mean": {"type": "average", "of": "x"},
            "yes": {"type": "any", "of": "x"},
            "lost": {"type": "max", "of": "nothing"},
        },
    }
    profiles = Profiles.model_validate({"accounts": accounts})
    assert account_kinds(profiles, {"x": "decimal"}) == {
        "n": "integer", "total": "decimal", "mean": "number", "yes": "boolean",
    }  # fmt: skip
    assert account_kinds(Profiles(), {}) == {}


def test_lists():
    assert [is_list(kind) for kind in ("list of string", "string", "json")] == [True, False, False]
    assert element("list of date") == "date"


def test_fields_come_first_and_take_the_type_of_their_column():
    field = ProfileField.model_validate({"from": [FieldFrom(stream="s.t", column="c_date")]})
    profiles = Profiles(traits={"n": Trait(type="count", stream="s.t")}, fields={"born": field})
    assert list(trait_types(profiles, {"s.t": STREAM}).items()) == [("born", "date"), ("n", "integer")]


def test_a_column_that_is_not_there_is_an_error():
    profiles = Profiles(traits={"x": Trait(type="sum", stream="s.t", column="nope")})
    with pytest.raises(ConfigurationError, match="x names no column"):
        trait_types(profiles, {"s.t": STREAM})


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        ("a", "string", "a"),
        (5, "integer", 5),
        (5.0, "integer", 5),
        (2, "number", 2.0),
        (0.1, "decimal", Decimal("0.1")),
        (True, "boolean", True),
        (date(2026, 1, 1), "date", date(2026, 1, 1)),
        ("2026-01-01", "date", date(2026, 1, 1)),
        (date(2026, 1, 1), "timestamp", date(2026, 1, 1)),
        ("2026-01-01", "timestamp", date(2026, 1, 1)),
        ("a", "list of string", "a"),
        ("2026-01-01", "list of date", date(2026, 1, 1)),
        (datetime(2026, 1, 1, 5), "timestamp", datetime(2026, 1, 1, 5, tzinfo=UTC)),  # noqa: DTZ001, RUF100
        ("2026-01-01T05:00:00+01:00", "timestamp", datetime(2026, 1, 1, 4, tzinfo=UTC)),
        (
            datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=2))),
            "timestamp",
            datetime(2025, 12, 31, 22, tzinfo=UTC),
        ),
    ],
)
def test_constants_that_fit(value: Any, kind: str, expected: Any):
    converted = convert(value, kind)
    assert converted == expected
    assert type(converted) is type(expected)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (5, "string"),
        (True, "string"),
        (date(2026, 1, 1), "string"),
        ("5", "integer"),
        (True, "integer"),
        (5.5, "integer"),
        (2**63, "integer"),
        (float("nan"), "number"),
        (float("inf"), "decimal"),
        (Decimal("0.0000001"), "decimal"),
        (10**22, "decimal"),
        (1, "boolean"),
        ("true", "boolean"),
        (5, "timestamp"),
        (True, "date"),
        ("tomorrow", "date"),
        (datetime(2026, 1, 1, tzinfo=UTC), "date"),
        ("{}", "json"),
    ],
)
def test_constants_that_do_not_fit(value: Any, kind: str):
    with pytest.raises(ValueError, match=r"\w"):
        convert(value, kind)
