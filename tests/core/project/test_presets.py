# SPDX-License-Identifier: Apache-2.0
"""Keys of a project are laid over those of a preset; faults are still told at their place in the file."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import Field

from cdp_provider.core.project.base import Model, Options
from cdp_provider.core.project.document import Document
from cdp_provider.core.project.faults import Fault, ProjectError
from cdp_provider.core.project.loader import interpret
from cdp_provider.core.project.presets import Preset
from cdp_provider.core.project.schema import json_schema
from tests.core.project.example import KINDS, CursorPaging, FileOptions, PagePaging

if TYPE_CHECKING:
    from cdp_provider.core.project.model import Project
    from cdp_provider.core.project.streams import Stream


class Since(Model):
    column: str
    parameter: str


class PagedOptions(Options):
    path: str
    paging: Annotated[CursorPaging | PagePaging, Field(discriminator="type")]
    cursor: Since | None = None
    parameters: dict[str, str] = Field(default_factory=dict)


SHOP = Preset(
    type="paged",
    about="A shop.",
    connection={"host": "https://shop.example"},
    defaults={
        "paging": {"type": "cursor", "next": "next"},
        "parameters": {"v": "1", "all": "yes"},
        "contract": {"min_rows": 1},
    },
    streams={
        "people": {
            "path": "/people",
            "cursor": {"column": "changed", "parameter": "since"},
            "parameters": {"all": "no"},
            "primary_key": "id",
            "time": "changed",
            "columns": {
                "id": {"type": "integer", "required": True},
                "email": {"type": "string", "path": "contact.email"},
                "phone": "string",
                "changed": "timestamp",
            },
            "identifiers": {"email": "email", "phone": "phone", "shop_id": "id"},
        },
        "orders": {"path": "/orders", "primary_key": "id", "columns": {"id": "string"}},
    },
)
LISTS = Preset(type="files", about="Files.", connection={}, streams={"people": {"path": "*.csv"}})
PRESETS = {"shop": SHOP, "lists": LISTS}
PRESET_KINDS = replace(KINDS, sources={"paged": PagedOptions, "files": FileOptions}, presets=PRESETS)
VALIDATOR = Draft202012Validator(json_schema(PRESET_KINDS))

HEAD = """\
project: shop
warehouse: {connection: lake}
identity:
  identifiers:
    email: {normalize: email}
    shop_id: {}
sources:
  shop:
    type: paged
    preset: shop
    streams:
"""


def load(streams: str, head: str = HEAD) -> Project:
    return interpret(Document(head + streams, "cdp.yaml"), PRESET_KINDS)


def people(keys: str) -> Stream:
    return load(f"      people: {keys}\n").sources["shop"].streams["people"]


def faults(streams: str, head: str = HEAD) -> tuple[Fault, ...]:
    try:
        load(streams, head)
    except ProjectError as error:
        return error.faults
    return ()


def marked(streams: str, head: str = HEAD) -> list[str]:
    """What an editor says of the file."""
    return [error.message for error in VALIDATOR.iter_errors(Document(head + streams, "cdp.yaml").value)]


@pytest.mark.parametrize("keys", ["{}", ""])
def test_all_may_come_from_the_preset(keys):
    stream = people(keys)
    assert stream.options == PagedOptions(
        path="/people",
        paging=CursorPaging(type="cursor", next="next"),
        cursor=Since(column="changed", parameter="since"),
        parameters={"v": "1", "all": "no"},
    )
    assert (stream.primary_key, stream.time, stream.contract.min_rows) == (("id",), "changed", 1)
    assert stream.columns["email"].path == "contact.email"
    assert marked(f"      people: {keys}\n") == []


def test_identifiers_that_the_project_does_not_have_are_left_out():
    assert people("{}").identifiers == {"email": ("email",), "shop_id": ("id",)}
    head = HEAD.replace(HEAD[HEAD.index("identity:") : HEAD.index("sources:")], "")
    assert load("      people: {}\n", head).sources["shop"].streams["people"].identifiers == {}
    (fault,) = faults("      people: {identifiers: {phone: phone}}\n")
    assert "there is no identifier 'phone' in identity.identifiers" in fault.message


@pytest.mark.parametrize(
    ("keys", "seen"),
    [
        ("{path: /v2/people}", lambda s: s.options.path == "/v2/people"),
        (
            "{columns: {age: integer}}",
            lambda s: list(s.columns) == ["id", "email", "phone", "changed", "age"],
        ),
        ("{columns: {email: string}}", lambda s: s.columns["email"].path is None),
        ("{columns: {phone: null}}", lambda s: "phone" not in s.columns),
        (
            "{identifiers: {email: phone}}",
            lambda s: s.identifiers == {"email": ("phone",), "shop_id": ("id",)},
        ),
        ("{identifiers: {email: null}}", lambda s: s.identifiers == {"shop_id": ("id",)}),
        ("{identifiers: null}", lambda s: s.identifiers == {}),
        (
            "{cursor: {parameter: after}}",
            lambda s: s.options.cursor == Since(column="changed", parameter="after"),
        ),
        ("{cursor: null}", lambda s: s.options.cursor is None),
        ("{parameters: {x: y}}", lambda s: s.options.parameters == {"v": "1", "all": "no", "x": "y"}),
        ("{paging: {type: page}}", lambda s: s.options.paging == PagePaging(type="page")),
        ("{contract: {freshness: 1 day}}", lambda s: s.contract.min_rows == 1 and s.contract.freshness),
        ("{primary_key: [id, email]}", lambda s: s.primary_key == ("id", "email")),
        ("{optional: true}", lambda s: s.optional),
    ],
)
def test_keys_of_the_project_win(keys, seen):
    assert seen(people(keys))
    assert marked(f"      people: {keys}\n") == []


def test_a_stream_that_the_preset_does_not_know_takes_its_defaults():
    project = load("      own: {path: /own, primary_key: id, columns: {id: string}}\n")
    own = project.sources["shop"].streams["own"]
    assert own.options.paging == CursorPaging(type="cursor", next="next")
    assert own.options.parameters == {"v": "1", "all": "yes"}


def test_nothing_of_a_preset_changes_when_it_is_used():
    before = SHOP.model_dump()
    people("{columns: {phone: null}, parameters: {v: null}, contract: {min_rows: 7}}")
    assert SHOP.model_dump() == before


def edited(old: str, new: str) -> str:
    assert old in HEAD
    return HEAD.replace(old, new)


@pytest.mark.parametrize(
    ("head", "streams", "path", "message", "hint"),
    [
        (
            edited("preset: shop", "preset: shoop"),
            "people: {}",
            "sources.shop.preset",
            "there is no preset 'shoop'",
            "did you mean 'shop'?",
        ),
        (
            edited("preset: shop", "preset: lists"),
            "people: {}",
            "sources.shop.type",
            "the preset 'lists' is for sources of type 'files', not 'paged'",
            "write 'type: files'",
        ),
        (
            HEAD,
            "peple: {}",
            "sources.shop.streams.peple",
            "the preset 'shop' has no stream 'peple', so its keys must stand here",
            "did you mean 'people'?",
        ),
        (
            HEAD,
            "people: {pth: /x}",
            "sources.shop.streams.people.pth",
            "unknown key 'pth'",
            "did you mean 'path'?",
        ),
        (
            HEAD,
            "people: {columns: {age: integr}}",
            "sources.shop.streams.people.columns.age",
            "'integr' is not one of string",
            "did you mean 'integer'?",
        ),
        (
            HEAD,
            "people: {columns: []}",
            "sources.shop.streams.people.columns",
            "this must be a mapping of keys",
            "",
        ),
        (HEAD, "people: {time: id}", "sources.shop.streams.people.time", "the column 'id' is integer", ""),
        (
            HEAD,
            "people: {paging: {type: pgae}}",
            "sources.shop.streams.people.paging.type",
            "'pgae' is not one of cursor, page",
            "did you mean 'page'?",
        ),
        (HEAD, "people: []", "sources.shop.streams.people", "this must be a mapping of keys", ""),
    ],
)
def test_a_fault_is_told_once_at_its_place(head, streams, path, message, hint):
    (fault,) = faults(f"      {streams}\n", head)
    assert fault.path == path
    assert message in fault.message
    assert hint in fault.hint
    text = (head + f"      {streams}\n").splitlines()[fault.line - 1]
    assert fault.column > 0
    assert fault.path.rpartition(".")[2] in text
    assert marked(f"      {streams}\n", head) or "time: id" in streams or "peple" in streams


def test_what_a_null_takes_away_is_missed_at_the_stream():
    (fault,) = faults("      people: {primary_key: null}\n")
    assert (fault.line, "the key 'primary_key' is missing" in fault.message) == (12, True)


@pytest.mark.parametrize("name", ["5", "[shop]", "true"])
def test_a_preset_is_a_name(name):
    found = faults("      people: {}\n", edited("preset: shop", f"preset: {name}"))
    assert "sources.shop.preset" in {fault.path for fault in found}


def test_a_type_without_presets_takes_none():
    head = edited("type: paged", "type: files").replace("preset: shop", "preset: lists")
    assert marked("      people: {primary_key: a, columns: {a: string}}\n", head) == []
    kinds: dict[str, Any] = json_schema(replace(PRESET_KINDS, presets={}))
    assert "PresetPagedStream" not in kinds["$defs"]
