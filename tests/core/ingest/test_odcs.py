# SPDX-License-Identifier: Apache-2.0
"""Contracts in ODCS: what they become, and what they ask for in vain."""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from cdp_provider.core.exceptions import DataError
from cdp_provider.core.ingest.contracts import check
from cdp_provider.core.ingest.files import FilesConnector
from cdp_provider.core.ingest.landing import land
from cdp_provider.core.project.faults import ProjectError
from cdp_provider.core.registry import load_project

if TYPE_CHECKING:
    from collections.abc import Callable

    from cdp_provider.core.project.streams import Stream

CONTRACT = """\
apiVersion: v3.1.0
kind: DataContract
id: 53581432-6c55-4ba2-a65f-72344a91553b
version: 1.0.0
status: active
contractCreatedTs: 2026-01-01T00:00:00Z
team: {name: team-shop}
price: {priceAmount: 9, priceUnit: GB, whatever: 1}
schema:
  - name: orders
    logicalType: object
    properties:
      - {name: order_id, logicalType: string, primaryKey: true, required: true, unique: true}
      - name: email
        logicalType: string
        logicalTypeOptions: {pattern: ".+@.+", maxLength: 320}
        classification: restricted
        quality:
          - {metric: nullValues, mustBeLessThan: 50, unit: percent, severity: warning}
      - name: total
        physicalName: amount
        physicalType: DECIMAL(10,2)
        logicalType: number
        logicalTypeOptions: {minimum: 0, exclusiveMaximum: 100000}
      - name: status
        logicalType: string
        quality:
          - {metric: invalidValues, arguments: {validValues: [paid, open, refunded]}, mustBe: 0}
      - name: ordered_at
        logicalType: timestamp
        logicalTypeOptions: {minimum: "2020-01-01", timezone: true}
      - name: address
        logicalType: object
        properties:
          - {name: city, logicalType: string}
    quality:
      - {metric: rowCount, mustBeGreaterThan: 0}
      - name: not too many refunds
        type: sql
        query: select count(*) from ${table} where status = 'refunded'
        mustBeLessOrEqualTo: 1
      - {type: text, description: Orders come once a day.}
slaProperties:
  - {property: freshness, value: 1, unit: d, element: orders.ordered_at}
  - {property: retention, value: 3, unit: y}
"""
PROJECT = """\
project: shop
warehouse: {connection: wh}
sources:
  till:
    type: files
    streams:
      orders:
        path: "*.ndjson"
        format: ndjson
        contract: {file: contracts/orders.odcs.yaml, max_rows: 1000}
"""


@pytest.fixture
def load(tmp_path) -> Callable[..., Stream]:
    """Contract, project -> the stream that they declare together."""

    def call(contract: str = CONTRACT, project: str = PROJECT) -> Stream:
        (tmp_path / "contracts").mkdir(exist_ok=True)
        (tmp_path / "contracts" / "orders.odcs.yaml").write_text(contract)
        (tmp_path / "cdp.yaml").write_text(project)
        return load_project(tmp_path / "cdp.yaml").sources["till"].streams["orders"]

    return call


def test_a_contract_becomes_a_stream(load):
    stream = load()
    assert {name: column.model_dump(exclude_defaults=True) for name, column in stream.columns.items()} == {
        "order_id": {"required": True, "unique": True},
        "email": {"pattern": ".+@.+", "max_length": 320},
        "total": {"type": "decimal", "path": "amount", "min": 0},
        "status": {},
        "ordered_at": {"type": "timestamp", "min": date(2020, 1, 1)},
        "address_city": {"path": "address.city"},
    }
    assert (stream.primary_key, stream.time) == (("order_id",), "ordered_at")
    contract = stream.contract
    assert (contract.owner, contract.freshness, contract.max_rows) == ("team-shop", timedelta(days=1), 1000)
    rules = {rule.name: rule for rule in contract.rules}
    assert list(rules) == [
        *("email.nullValues", "total.max_exclusive", "status.invalidValues", "rowCount"),
        "not_too_many_refunds",
    ]
    assert rules["email.nullValues"].severity == "warn"
    assert 0.4999 < rules["email.nullValues"].max_share < 0.5
    assert rules["total.max_exclusive"].sql == '"total" < 100000'
    assert (rules["status.invalidValues"].severity, rules["status.invalidValues"].max_rows) == ("fail", 0)
    assert rules["rowCount"].rows.min == 1
    assert rules["not_too_many_refunds"].max == 1


ROW = (
    '{{"order_id": "{0}", "email": "a@b", "amount": {1}, "status": "{2}",'
    ' "ordered_at": "2026-07-01T10:00Z"}}\n'
)


def test_a_batch_is_held_against_it(warehouse, tmp_path, load, run):
    stream = load()
    (tmp_path / "1.ndjson").write_text(ROW.format(1, 5, "paid") + ROW.format(2, 99999, "refunded"))
    land(warehouse, stream, FilesConnector(tmp_path), run())
    assert check(warehouse, stream, run()).detail["rules"]["failed"] == 0
    (tmp_path / "2.ndjson").write_text(ROW.format(3, 5, "lost") + ROW.format(4, 100000, "open") * 9)
    land(warehouse, stream, FilesConnector(tmp_path), run(2))
    with pytest.raises(DataError) as caught:
        check(warehouse, stream, run(2))
    for told in (
        "quarantine: 9 of 10 rows",
        'rule "total.max_exclusive" is broken (9)',
        "status.invalidValues: 1 of",
    ):
        assert told in str(caught.value)


def test_the_project_has_the_last_word(load):
    own = """\
        primary_key: [order_id, status]
        columns:
          total: {type: number, min: 1}
          status: string
          more: integer
        contract:
          file: contracts/orders.odcs.yaml
          schema: orders
          owner: me
          rules:
            - {column: more, min: 0}
"""
    project = PROJECT[: PROJECT.index("        contract:")] + own
    # What the project gives a type may be of any in the file.
    contract = CONTRACT.replace(
        "physicalType: DECIMAL(10,2)\n        logicalType: number", "logicalType: time"
    )
    contract = contract.replace(", exclusiveMaximum: 100000", "")
    stream = load(contract, project)
    assert stream.columns["total"].model_dump(exclude_defaults=True) == {
        "type": "number",
        "path": "amount",
        "min": 1,
    }
    assert list(stream.columns)[-1] == "more"
    assert (stream.primary_key, stream.contract.owner) == (("order_id", "status"), "me")
    assert [rule.name for rule in stream.contract.rules][:2] == [None, "email.nullValues"]


PROPERTIES = [
    ({"logicalType": "integer", "logicalTypeOptions": {"format": "u8"}}, {"type": "integer",
     "min": 0, "max": 255}),
    ({"logicalType": "integer",
     "logicalTypeOptions": {"exclusiveMinimum": 0}}, {"type": "integer", "min": 1}),
    ({"logicalType": "date", "logicalTypeOptions": {"exclusiveMaximum": "2026-03-01"}},
     {"type": "date", "max": date(2026, 2, 28)}),
    ({"logicalType": "number"}, {"type": "number"}),
    ({"physicalType": "NUMERIC(9,2)"}, {"type": "decimal"}),
    ({"physicalType": "varchar(20)"}, {}),
    ({"physicalType": "TIMESTAMP WITH TIME ZONE"}, {"type": "timestamp"}),
    ({"logicalType": "array", "items": {"logicalType": "string"}}, {"type": "json"}),
    ({"logicalType": "string", "enum": [{"value": "a"}, {"value": "b"}]}, {"values": ("a", "b")}),
    ({"logicalType": "boolean", "unique": False}, {"type": "boolean"}),
]  # fmt: skip


def changed(**extra: Any) -> str:
    """The contract with one more property, or another part."""
    contract = yaml.safe_load(CONTRACT)
    for key, value in extra.items():
        if key == "more":
            contract["schema"][0]["properties"].append({"name": "more", **value})
        elif key == "quality":
            contract["schema"][0]["properties"][1]["quality"] = [value]
        elif key == "of_schema":
            contract["schema"][0]["quality"] = [value]
        else:
            contract[key] = value
    return yaml.safe_dump(contract, sort_keys=False)


def test_types_and_options(load):
    contract = yaml.safe_load(CONTRACT)
    given = contract["schema"][0]["properties"]
    given += [{"name": f"p{i}", **more} for i, (more, _) in enumerate(PROPERTIES)]
    stream = load(yaml.safe_dump(contract))
    for i, (more, column) in enumerate(PROPERTIES):
        assert stream.columns[f"p{i}"].model_dump(exclude_defaults=True) == column, more


RULES = [
    ({"metric": "nullValues", "mustBe": 0}, {"column": "email", "required": True, "max_rows": 0}),
    ({"metric": "nullValues", "mustBeLessThan": 3}, {"column": "email", "required": True, "max_rows": 2}),
    ({"metric": "nullValues", "mustBeBetween": [0, 4]}, {"max_rows": 4}),
    ({"metric": "duplicateValues", "mustBeLessOrEqualTo": 1,
     "unit": "percent"}, {"unique": ("email",), "max_share": 0.01}),
    ({"metric": "invalidValues", "arguments": {"pattern": "a.*"}, "mustBe": 0, "severity": "info"},
     {"pattern": "a.*", "severity": "warn"}),
    ({"metric": "missingValues", "arguments": {"missingValues": [None, "", "N/A"]}, "mustBe": 0},
     {"sql": "\"email\" is not null and coalesce(cast(\"email\" as varchar) not in ('', 'N/A'), true)"}),
    ({"type": "sql", "query": "select count(${column}) from {object}", "mustBeGreaterThan": 2},
     {"query": 'select count(*) from (select count("email") from {rows}) as measured(value)'
               " where not (value > 2)"}),
    ({"type": "sql", "query": "select 1;", "mustBe": 1, "name": "one!"}, {"name": "one", "query": "select 1",
     "min": 1, "max": 1}),
    ({"type": "sql", "query": "select 1", "mustNotBeBetween": [2, 3]},
     {"query": "select count(*) from (select 1) as measured(value) where not (value not between 2 and 3)"}),
]  # fmt: skip


def test_quality_rules(load):
    contract = yaml.safe_load(CONTRACT)
    contract["schema"][0]["properties"][1]["quality"] = [rule for rule, _ in RULES]
    found = load(yaml.safe_dump(contract)).contract.rules
    for rule, (given, wanted) in zip(found, RULES, strict=False):
        assert {key: getattr(rule, key) for key in wanted} == wanted, given
    assert len({rule.name for rule in found}) == len(found)


def test_own_sql_of_a_contract_runs(warehouse, tmp_path, load, run):
    contract = yaml.safe_load(CONTRACT)
    rules = [{**rule, "severity": "warning"} for rule, _ in RULES]
    contract["schema"][0]["properties"][1]["quality"] = rules
    stream = load(yaml.safe_dump(contract))
    (tmp_path / "1.ndjson").write_text("".join(ROW.format(i, 5, "paid") for i in range(3)))
    land(warehouse, stream, FilesConnector(tmp_path), run())
    detail = check(warehouse, stream, run()).detail
    assert detail["warned"] == ["email.duplicateValues"]


FAULTS = [
    (changed(kind="Data"), "kind", "no data contract of ODCS"),
    (changed(apiVersion="v2.2.2"), "apiVersion", "is no version of ODCS"),
    (changed(schema=[]), None, "the contract has no schema"),
    (changed(more={"logicalType": "time"}), "more", "there is no column of the type 'time'"),
    (changed(more={}), "more", "'more' has no logicalType"),
    (changed(more={"logicalType": "string", "requird": True}), "requird", "did you mean 'required'?"),
    (changed(more={"logicalType": "string", "required": "often"}), "often", "true or false"),
    (changed(more={"logicalType": "array", "logicalTypeOptions": {"maxItems": 3}}),
     "maxItems", "cannot be checked"),
    (changed(more={"logicalType": "array", "items": {"logicalType": "string", "required": True}}),
     "items", "'required' of"),
    (changed(more={"logicalType": "object", "required": True,
     "properties": [{"name": "a", "logicalType": "string"}]}),
     "required", "of an object"),
    (changed(more={"logicalType": "string", "logicalTypeOptions": {"format": "iban"}}),
     "iban", "cannot be checked"),
    (changed(more={"logicalType": "date", "logicalTypeOptions": {"format": "dd.MM.yyyy"}}),
     "dd.MM", "cannot be checked"),
    (changed(more={"logicalType": "timestamp", "logicalTypeOptions": {"defaultTimezone": "CET"}}),
     "CET", "cannot be"),
    (changed(quality={"type": "custom", "engine": "soda", "implementation": "x"}), "custom", "cannot be run"),
    (changed(quality={"metric": "freshness", "mustBe": 0}), "freshness", "there is no metric"),
    (changed(quality={"metric": "nullValues"}), "quality", "compares with nothing"),
    (changed(quality={"metric": "nullValues", "mustBe": 0, "mustNotBe": 1}), "quality", "compares 2 times"),
    (changed(quality={"metric": "nullValues", "mustBe": 5}), "mustBe", "says no more than"),
    (changed(quality={"metric": "nullValues", "mustBe": "none"}), "none", "is no number"),
    (changed(quality={"metric": "nullValues", "mustBe": 0, "unit": "kg"}), "kg", "there is no unit"),
    (changed(quality={"metric": "nullValues", "mustBe": 0, "severity": "urgent"}),
     "urgent", "there is no severity"),
    (changed(quality={"metric": "nullValues", "mustBe": 0, "schedule": "0 2 * * *"}),
     "schedule", "at no other time"),
    (changed(quality={"metric": "invalidValues", "mustBe": 0}), "quality", "needs one of"),
    (changed(quality={"metric": "missingValues", "mustBe": 0}), "quality", "names no values"),
    (changed(quality={"type": "sql", "mustBe": 0}), "quality", "has no query"),
    (changed(of_schema={"metric": "nullValues", "mustBe": 0}), "nullValues", "is about a property"),
    (changed(of_schema={"metric": "duplicateValues", "mustBe": 0}), "quality", "names no properties"),
    (changed(of_schema={"metric": "rowCount", "mustNotBe": 5}), "mustNotBe", "cannot be checked"),
    (changed(of_schema={"type": "sql", "query": "select ${column}", "mustBe": 0}),
     "query", "the rule has none"),
    (changed(slaProperties=[{"property": "uptime", "value": 99}]), "uptime", "cannot be checked"),
    (changed(slaProperties=[{"property": "freshness", "value": 1, "unit": "y"}]), "value", "is no duration"),
    (changed(more={"logicalType": "string", "relationships": [{"to": "a/b"}]}),
     "a/b", "does not name a stream"),
    # Found where the project is checked, told where the contract has it.
    (changed(more={"logicalType": "string", "relationships": [{"to": "people.id"}]}),
     "to", "no stream 'till.people'"),
    (changed(more={"logicalType": "string", "logicalTypeOptions": {"pattern": "(?=x)"}}),
     "pattern", "no regular"),
    (changed(more={"logicalType": "integer", "logicalTypeOptions": {"minimum": "2026-01-01"}}),
     "minimum", "no number"),
    (changed(quality={"type": "sql", "query": "drop table x", "mustBe": 0}), "quality", "write a select"),
    (CONTRACT.replace("name: city", "name: ci-ty"), "ci-ty", "letters, digits and underscores"),
]  # fmt: skip


@pytest.mark.parametrize(("contract", "pointed", "message"), FAULTS, ids=[f[2] for f in FAULTS])
def test_what_cannot_be_kept_is_a_fault_of_the_file(load, contract, pointed, message):
    with pytest.raises(ProjectError) as caught:
        load(contract)
    (fault,) = caught.value.faults
    assert message in str(fault)
    if pointed is not None:
        assert fault.file.endswith("orders.odcs.yaml")
        lines = contract.splitlines()[max(0, fault.line - 3) : fault.line + 8]
        assert any(pointed in line for line in lines), str(fault)


def test_a_file_that_is_not_there_or_no_yaml(load, tmp_path):
    with pytest.raises(ProjectError, match="no valid YAML"):
        load("a: [")
    with pytest.raises(ProjectError) as caught:
        load(project=PROJECT.replace("orders.odcs", "order.odcs"))
    (fault,) = caught.value.faults
    assert fault.file == str(tmp_path / "contracts" / "order.odcs.yaml")
    assert "there is no such file" in str(fault)


def test_which_schema_is_meant(load):
    two = yaml.safe_load(CONTRACT)
    two["schema"].append(
        {"name": "others", "properties": [{"name": "a", "logicalType": "string", "primaryKey": True}]}
    )
    text = yaml.safe_dump(two)
    with pytest.raises(ProjectError, match="the contract has 2 schemas"):
        load(text)
    with pytest.raises(ProjectError, match="did you mean 'others'"):
        load(text, PROJECT.replace("max_rows: 1000", "schema: other"))
    assert list(load(text, PROJECT.replace("max_rows: 1000", "schema: others")).columns) == ["a"]
