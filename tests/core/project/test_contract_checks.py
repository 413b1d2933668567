# SPDX-License-Identifier: Apache-2.0
"""Contracts that no batch could keep, each told where the project file has it."""

from __future__ import annotations

import pytest
from jsonschema import Draft202012Validator

from cdp_provider.core.project.checks import check
from cdp_provider.core.project.schema import json_schema
from tests.core.project.example import KINDS, faults, load_text
from tests.core.project.test_schema import as_json

TEXT = """\
project: shop
warehouse: {connection: wh}
sources:
  till:
    type: files
    streams:
      orders:
        path: orders.csv
        format: csv
        primary_key: order_id
        time: at
        columns:
          order_id: string
          email: {type: string, pattern: ".+@.+", max_length: 320, severity: warn}
          total: {type: decimal, min: 0, max: 10.5, max_share: 0.1}
          day: {type: date, min: 2020-01-01}
          at: {type: timestamp, max: 2030-01-01T00:00:00Z}
          status: {type: string, values: [paid, open]}
          customer: {type: string, references: till.customers.id}
          extra: json
        contract:
          owner: team-shop
          freshness: 1 day
          freshness_severity: warn
          min_rows: 1
          max_rows: 10
          max_change: {share: 0.5, windows: 3}
          rules:
            - {name: paid_has_total, sql: "status <> 'paid' or total > 0", severity: fail, max_share: 0.01}
            - {name: few_refunds, query: "select count(*) from {rows} where status = 'refunded'", max: 100}
            - {column: total, values: [1, 2], severity: warn}
            - {unique: [order_id, email]}
            - {name: usual, rows: {min: 1, max: 5}, severity: warn}
      customers:
        path: customers.csv
        format: csv
        primary_key: id
        columns: {id: string, n: integer}
"""
RULES = TEXT.index("          rules:")


def test_a_contract_in_full_is_read():
    project = load_text(TEXT)
    stream = project.sources["till"].streams["orders"]
    assert not list(check(project))
    assert stream.contract.max_change.windows == 3
    assert [type(rule).__name__ for rule in stream.contract.rules] == [
        "SqlRule",
        "QueryRule",
        "ColumnRule",
        "UniqueRule",
        "RowsRule",
    ]


def test_an_editor_knows_all_of_it():
    validator = Draft202012Validator(json_schema(KINDS))
    assert [error.message for error in validator.iter_errors(as_json(TEXT))] == []
    for old, new in (("min: 0,", "mn: 0,"), ("unique: [", "uniq: ["), ("rows: {min", "rows: {mn")):
        assert list(validator.iter_errors(as_json(TEXT.replace(old, new))))


def test_a_share_alone_is_a_change():
    contract = (
        load_text(TEXT.replace("{share: 0.5, windows: 3}", "0.5")).sources["till"].streams["orders"].contract
    )
    assert (contract.max_change.share, contract.max_change.windows) == (0.5, 7)


FAULTS = [
    ('pattern: ".+@.+"', 'pattern: "("', '"("', "is no regular expression"),
    ('pattern: ".+@.+"', 'pattern: "(?i)x"', '"(?i)x"', "not every warehouse"),
    ("order_id: string", "order_id: {type: string, min: 0}", "0}", "'order_id' is string, which 'min'"),
    ("min: 0, max: 10.5", "min: 11, max: 10.5", "10.5", "no value is at least 11"),
    ("min: 0,", "min: 2020-01-01,", "2020-01-01, max", "2020-01-01 is no number"),
    ("min: 0,", "min: zero,", "zero", "this must be"),
    ("min: 2020-01-01", "min: 5", "5}", "'day' is date, and 5 is no date"),
    ("values: [paid, open]", "values: [paid, 5]", "values", "'status' is string, and 5 is not"),
    ("values: [paid, open]", "values: []", "values", "must not be empty"),
    ("references: till.customers.id", "references: till.customer.id", "till.customer.id",
     "no stream 'till.customer'"),
    ("references: till.customers.id", "references: till.customers.ids", "till.customers.ids",
     "no column 'ids'"),
    ("references: till.customers.id", "references: till.customers.n", "till.customers.n", "they never meet"),
    ("references: till.customers.id", "references: customers", "customers}", "does not fit"),
    ("customer: {type: string, references: till.customers.id}",
     "customer: {type: string, unique: true, severity: quarantine}", "quarantine}",
     "cannot set a single row aside"),
    ("order_id: string", "order_id: {type: string, required: true, severity: warn}", "severity: warn",
     "no condition that this 'severity'"),
    ("extra: json", "extra: {type: json, unique: true}", "true}", "'extra' is json"),
    ("severity: warn}\n          total", "severity: warm}\n          total", "warm", "'warm' is not one of"),
    ("max_rows: 10\n", "max_rows: 0\n", "0\n", "at least 1 and at most 0 rows"),
    ("        time: at\n", "", "1 day", "the stream till.orders names none"),
    ("          freshness: 1 day\n", "", "freshness_severity", "no freshness"),
    ("share: 0.5, windows", "share: 0, windows", "0, windows", "more than 0"),
    ("{unique: [order_id, email]}", "{unique: [order_id, mail]}", "unique", "no column 'mail'"),
    ("{unique: [order_id, email]}", "{unique: [order_id, order_id]}", "unique", "listed twice"),
    ("{column: total, values: [1, 2], severity: warn}", "{column: totl, values: [1]}", "totl",
     "no column 'totl'"),
    ("{column: total, values: [1, 2], severity: warn}", "{column: total, severity: warn}", "{column",
     "no condition"),
    ("{column: total, values: [1, 2], severity: warn}", "{column: total, min: 1, max: 2}", "{column",
     "min, max"),
    ("{column: total, values: [1, 2], severity: warn}", "{column: total, min: 1}", "{column: total",
     "already is a rule"),
    ("name: few_refunds", "name: paid_has_total", "name: paid_has_total, query", "already is a rule"),
    ("name: few_refunds", "name: freshness", "name: freshness", "already is a rule"),
    ("name: few_refunds, query", "name: few_refunds, querry", "{name: few_refunds",
     "exactly one of the keys"),
    ("from {rows} where", "from {row} where", "\"select", "no stream 'row'"),
    ("select count(*) from {rows}", "delete from {rows}", "\"delete", "write a select"),
    ("max: 100}", "max: 100, min: 101}", "100, min", "nothing is at least 101"),
    ("rows: {min: 1, max: 5}", "rows: {}", "rows", "bounds nothing"),
    ("rows: {min: 1, max: 5}", "rows: {min: 6, max: 5}", "5}", "at least 6"),
    ("total > 0\"", "total > {rows}\"", "\"status", "it sees one row"),
    ("total > 0\"", "at < :now\"", "\"status", "it knows no :now"),
    ("total > 0\"", "total > 0)\"", "\"status", "parenthesis"),
    ("sql: \"status <> 'paid' or total > 0\", severity: fail", "sql: \"totl > 0\"", "\"totl", "totl"),
    ("sql: \"status <> 'paid' or total > 0\", severity: fail", "sql: \"email\"", "\"email",
     "cannot be computed"),
    ("sql: \"status <> 'paid' or total > 0\", severity: fail", "sql: \" \"", "\" \"", "it is empty"),
    ("          owner: team-shop", "          schema: orders", "schema", "no file"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "pointed", "message"), FAULTS, ids=str)
def test_a_fault_is_told_at_its_place(old, new, pointed, message):
    assert TEXT.count(old) == 1, old
    text = TEXT.replace(old, new)
    found = faults(text)
    assert len(found) == 1, [str(fault) for fault in found]
    line = text.splitlines()[found[0].line - 1]
    assert line[found[0].column - 1 :].startswith(pointed.rstrip("\n")), str(found[0])
    assert message in str(found[0])


def test_streams_that_refer_to_each_other():
    text = TEXT.replace("columns: {id: string, n", "columns: {id: {references: till.orders.order_id}, n")
    (fault,) = faults(text)
    assert "the streams need each other in a circle: till.orders -> till.customers -> till.orders" in str(
        fault
    )


def test_a_stream_may_refer_to_itself():
    assert load_text(TEXT.replace("references: till.customers.id", "references: till.orders.order_id"))
