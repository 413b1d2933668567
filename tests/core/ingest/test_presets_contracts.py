# SPDX-License-Identifier: Apache-2.0
"""What presets ask for and read is in the vendors' own descriptions of their APIs, where we have them."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest

from cdp_provider.core.ingest.presets import PRESETS
from tests.contracts import CONTRACTS

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Streams whose endpoint is not in the slice of the contract that lies here.
MISSING = {"klaviyo.lists"}
#: JSON types that a column of a type may be read from.
READ_FROM = {
    "string": {"string"},
    "integer": {"integer"},
    "number": {"number", "integer"},
    "decimal": {"number", "integer", "string"},
    "boolean": {"boolean"},
    "date": {"string"},
    "timestamp": {"string"},
}
STREAMS = [
    (preset, stream)
    for preset in ("stripe", "klaviyo")
    for stream in PRESETS[preset].streams
    if f"{preset}.{stream}" not in MISSING
]


@cache
def contract(name: str) -> dict[str, Any]:
    path = CONTRACTS / name / "openapi.json"
    if not path.is_file():
        pytest.skip("a public clone has no contracts of vendors")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


class Described:
    """The list endpoint of a stream, as its vendor describes it."""

    def __init__(self, preset: str, stream: str) -> None:
        self.keys = PRESETS[preset].under(stream, {}, None, None)
        self._whole = contract(preset)
        self.operation = self._whole["paths"][self.keys["path"]]["get"]

    def resolved(self, schema: dict[str, Any]) -> dict[str, Any]:
        while "$ref" in schema:
            found: Any = self._whole
            for part in schema["$ref"].removeprefix("#/").split("/"):
                found = found[part]
            schema = found
        return schema

    def choices(self, schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """All plain schemas that a value may follow."""
        schema = self.resolved(schema)
        members = [*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())]
        if not members or schema.get("properties"):
            yield schema
        for member in members:
            yield from self.choices(member)

    def at(self, schema: dict[str, Any], path: str) -> list[dict[str, Any]]:
        """Schemas of what stands at a dotted path; an object of which nothing is said may hold it."""
        found = list(self.choices(schema))
        for part in path.split("."):
            inner: list[dict[str, Any]] = []
            for choice in found:
                if part in choice.get("properties", {}):
                    inner += self.choices(choice["properties"][part])
                elif choice.get("type") == "object" and not choice.get("properties"):
                    inner.append({})
            found = inner
        return found

    @property
    def answer(self) -> dict[str, Any]:
        content = self.operation["responses"]["200"]["content"]
        found: dict[str, Any] = next(iter(content.values()))["schema"]
        return found

    @property
    def record(self) -> dict[str, Any]:
        (listed,) = self.at(self.answer, self.keys["records"])
        assert listed["type"] == "array"
        found: dict[str, Any] = listed["items"]
        return found


def parameters(keys: dict[str, Any]) -> set[str]:
    """Names of what is asked for in the query."""
    named = [
        keys.get("page_size", {}),
        keys.get("cursor", {}),
        keys.get("paging", {}),
        keys.get("window", {}),
    ]
    found = {part["parameter"] for part in named if "parameter" in part} | set(keys.get("parameters", {}))
    return found | {keys["window"][key] for key in ("start", "end") if key in keys.get("window", {})}


@pytest.mark.parametrize(("preset", "stream"), STREAMS)
def test_paths_and_parameters_are_the_vendors(preset, stream):
    described = Described(preset, stream)
    known = {given["name"]: given for given in described.operation["parameters"]}
    for name in parameters(described.keys):
        whole, _, part = name.removesuffix("]").partition("[")
        if name in known:
            continue
        properties = {
            key
            for choice in described.choices(known[whole]["schema"])
            for key in choice.get("properties", ())
        }
        assert part in properties, name
    size = described.keys["page_size"]
    limits = described.resolved(known[size["parameter"]]["schema"])
    # Stripe says it in words only.
    assert size["value"] <= limits.get("maximum", 100)
    if "sort" in described.keys.get("parameters", {}):
        assert described.keys["parameters"]["sort"] in known["sort"]["schema"]["enum"]


@pytest.mark.parametrize(("preset", "stream"), STREAMS)
def test_columns_are_fields_of_the_answer(preset, stream):
    described = Described(preset, stream)
    for name, column in described.keys["columns"].items():
        column = {"type": column} if isinstance(column, str) else column
        found = described.at(described.record, column.get("path", name))
        assert found, f"{name} is not in the contract"
        kinds = {choice["type"] for choice in found if "type" in choice}
        if "format" in column:
            assert kinds <= {"integer"}, name
        elif column["type"] != "json" and kinds:
            assert kinds & READ_FROM[column["type"]], f"{name} is {kinds}"


@pytest.mark.parametrize(("preset", "stream"), STREAMS)
def test_the_way_to_the_next_page_is_in_the_answer(preset, stream):
    described = Described(preset, stream)
    paging = described.keys["paging"]
    places = {paging[key] for key in ("next", "more", "done") if key in paging}
    assert places
    for place in places:
        assert described.at(described.answer, place), place
    if paging["type"] == "last_record":
        assert described.at(described.record, paging["field"])


def test_the_test_itself_sees_what_is_not_there():
    described = Described("stripe", "customers")
    assert described.at(described.record, "emial") == []
    assert described.at(described.record, "address.citty") == []


def test_filters_of_klaviyo_are_allowed():
    for stream in ("profiles", "events"):
        described = Described("klaviyo", stream)
        operator, _, field = described.keys["parameters"]["filter"].partition("(")
        (said,) = [
            given["description"] for given in described.operation["parameters"] if given["name"] == "filter"
        ]
        (line,) = [line for line in said.split("<br>") if line.startswith(f"`{field.partition(',')[0]}`")]
        assert f"`{operator}`" in line
