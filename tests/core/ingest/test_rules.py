# SPDX-License-Identifier: Apache-2.0
"""What sets a row aside: the parser's SQL, told and counted as it should be."""

from __future__ import annotations

import json

import duckdb
import pytest

from cdp_provider.core.ingest.rules import batch_checks, failing, row_checks, row_faults

COLUMNS = {
    "id": "string",
    "total": "decimal",
    "count": "integer",
    "ratio": "number",
    "paid": "boolean",
    "day": "date",
    "at": "timestamp",
    "email": "string",
}
TYPES = {
    "string": "varchar",
    "decimal": "decimal(28, 6)",
    "integer": "bigint",
    "number": "double",
    "boolean": "boolean",
    "date": "date",
    "timestamp": "timestamptz",
}


@pytest.fixture
def reasons(orders):
    """Conditions on a column, its value as SQL -> what is wrong with it: (column, conditions, value)."""

    def call(column, conditions, value, rules=()):
        columns = {name: {"type": kind} for name, kind in COLUMNS.items()}
        columns[column] |= conditions
        stream = orders(primary_key=("id",), time=None, columns=columns, contract={"rules": rules})
        given = ", ".join(
            f'cast({value if name == column else "null"} as {TYPES[kind]}) as "{name}"'
            for name, kind in COLUMNS.items()
        )
        with duckdb.connect(":memory:") as engine:
            engine.execute("set TimeZone = 'UTC'")
            found = []
            for condition, reason in row_faults(stream):
                ((bad, told),) = engine.execute(
                    f"select {condition}, {reason} from (select {given})"
                ).fetchall()
                assert bad is not None
                if bad:
                    found.append(told)
        return found

    return call


BAD = [
    ("total", {"min": 0}, "-3", 'column "total": "-3" is below 0'),
    ("total", {"max": 10.5}, "10.500001", 'column "total": "10.500001" is above 10.5'),
    ("total", {"values": [1, 2.5]}, "2.4", 'column "total": "2.4" is none of the allowed values'),
    ("count", {"min": 5}, "4", 'column "count": "4" is below 5'),
    ("count", {"values": [1, 2]}, "3", 'column "count": "3" is none of the allowed values'),
    ("ratio", {"max": 0.1}, "0.11", 'column "ratio": "0.11" is above 0.1'),
    ("paid", {"values": [True]}, "false", 'column "paid": "false" is none of the allowed values'),
    ("day", {"min": "2026-01-01"}, "'2025-12-31'", 'column "day": "2025-12-31" is before 2026-01-01'),
    ("day", {"values": ["2026-01-01"]}, "'2026-01-02'", 'column "day": "2026-01-02" is none of'),
    ("at", {"max": "2026-01-01"}, "'2026-01-02 00:00:00Z'", 'column "at": "2026-01-02 00:00:00+00" is after'),
    ("at", {"min": "2026-01-01T12:00:00+02:00"}, "'2026-01-01 09:59:59Z'", "is before 2026-01-01T10:00:00"),
    ("email", {"pattern": ".+@.+"}, "'jane'", 'column "email": "jane" is not of the pattern .+@.+'),
    ("email", {"pattern": "[a-z]+"}, "'jane doe'", "is not of the pattern"),  # of the whole text
    ("email", {"pattern": "it's"}, "'x'", "is not of the pattern it's"),
    ("email", {"min_length": 3}, "'jö'", 'column "email": "jö" is shorter than 3 characters'),
    ("email", {"max_length": 2}, "'jö🙂'", "is longer than 2 characters"),
    ("email", {"values": ["it's"]}, "'its'", 'column "email": "its" is none of the allowed values'),
    ("email", {"max_length": 5}, "repeat('x', 99)", f'column "email": "{"x" * 60}…" is longer than 5'),
    ("email", {"max_length": 1}, "'a\"b'", 'column "email": "a\\"b" is longer'),
]


@pytest.mark.parametrize(("column", "conditions", "value", "told"), BAD, ids=str)
def test_what_is_wrong_with_a_value(reasons, column, conditions, value, told):
    (reason,) = reasons(column, conditions, value)
    assert told in reason


@pytest.mark.parametrize(
    ("column", "conditions", "value"),
    [
        ("total", {"min": 0, "max": 10, "values": [10]}, "10"),
        ("ratio", {"min": 0.1}, "0.1"),
        ("at", {"max": "2026-01-01"}, "'2026-01-01 23:59:59.999999Z'"),
        ("day", {"min": "2026-01-01", "max": "2026-01-01"}, "'2026-01-01'"),
        ("email", {"pattern": "(?:a|b)+", "min_length": 2, "max_length": 2}, "'ab'"),
        ("email", {"pattern": "a.b"}, "'a' || chr(10) || 'b'"),
        ("email", {"min_length": 2, "max_length": 2}, "'jö'"),
        *((name, {"min": 1, "max": 2}, "null") for name in ("total", "count", "ratio")),
        ("email", {"pattern": "x", "min_length": 1, "values": ["x"]}, "null"),
    ],
)
def test_a_value_that_keeps_them(reasons, column, conditions, value):
    assert reasons(column, conditions, value) == []


@pytest.mark.parametrize(
    ("sql", "value", "bad"),
    [
        ("count > 0", "1", False),
        ("count > 0", "0", True),
        ("count > 0", "null", False),
        ("10 / count > 0 -- what a comment says;", "1", False),
        ("cast('jane' || count as integer) > 0", "1", True),  # what cannot be computed must not pass
        ("count > 0;", "0", True),
    ],
)
def test_a_condition_of_ones_own(reasons, sql, value, bad):
    rule = {"name": "mine", "sql": sql}
    assert reasons("count", {}, value, [rule]) == (['rule "mine" is broken'] if bad else [])


def test_only_what_sets_rows_aside_is_the_parsers(orders):
    columns = {
        "order_id": {"type": "string", "unique": True},
        "total": {"type": "decimal", "min": 0, "severity": "warn"},
        "email": {"type": "string", "required": True, "pattern": "x", "references": "till.orders.order_id"},
    }
    rules = [
        {"column": "total", "max": 9},
        {"column": "total", "values": [1], "severity": "fail", "max_share": 0.1},
        {"column": "email", "required": True, "severity": "warn"},
        {"column": "order_id", "required": True},
        {"name": "own", "sql": "total > 0", "severity": "fail"},
        {"unique": ["email", "total"]},
        {"name": "query", "query": "select 0"},
        {"name": "size", "rows": {"min": 1}},
    ]
    stream = orders(time=None, columns=columns, contract={"rules": rules})
    assert {check.name: check.severity for check in row_checks(stream)} == {
        "total.min": "warn",
        "email.pattern": "quarantine",
        "total.max": "quarantine",
        "total.values": "fail",
        "email.required": "warn",
        "order_id.required": "quarantine",
        "own": "fail",
    }
    assert len(row_faults(stream)) == 3
    assert failing(stream) == [
        *("total.values", "own"),
        *("order_id.unique", "email.references", "email_total.unique"),
        *("query", "size"),
    ]
    assert {check.name: (check.columns, check.target) for check in batch_checks(stream)} == {
        "order_id.unique": (("order_id",), None),
        "email.references": (("email",), "till.orders.order_id"),
        "email_total.unique": (("email", "total"), None),
    }


def test_what_is_told_of_a_rule_is_its_reason_without_the_value(orders):
    stream = orders(
        time=None,
        columns={"order_id": "string", "total": {"type": "decimal", "min": 0}},
        contract={"rules": [{"name": "own", "sql": "total <> 7"}, {"column": "total", "required": True}]},
    )
    with duckdb.connect(":memory:") as engine:
        for check, (_, reason) in zip(row_checks(stream), row_faults(stream), strict=True):
            row = "select '1' as order_id, cast(-3 as decimal(28, 6)) as total"
            ((told,),) = engine.execute(f"select {reason} from ({row})").fetchall()
            assert told.replace(json.dumps("-3"), "…") == check.told()
