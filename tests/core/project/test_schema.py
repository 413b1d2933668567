# SPDX-License-Identifier: Apache-2.0
"""Editors accept what the loader accepts, and mark a misspelt key."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from jsonschema import Draft202012Validator

from cdp_provider.core.project.document import Document
from cdp_provider.core.project.schema import json_schema
from tests.core.project.example import GOOD, KINDS, load_text
from tests.core.project.language import LANGUAGE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from jsonschema import ValidationError

SCHEMA = json_schema(KINDS)
VALIDATOR = Draft202012Validator(SCHEMA)


def as_json(text: str) -> Any:
    """As an editor sees the file: dates are text, and so is the key `on`."""
    return json.loads(json.dumps(Document(text, "f").value, default=str))


def test_the_schema_is_valid_and_accepts_the_good_project():
    Draft202012Validator.check_schema(SCHEMA)
    assert [error.message for error in VALIDATOR.iter_errors(as_json(GOOD))] == []


@pytest.mark.parametrize(
    "text",
    [
        GOOD.replace("format: ndjson", "optional: true\n        contract: {freshness: 2 days}"),
        GOOD.replace("crm.customers.born", "{stream: crm.customers, column: born}"),
        GOOD[: GOOD.index("  traits:")] + "  traits:\nsegments:\nsyncs:\n",
        GOOD[: GOOD.index("segments:")] + "segments:\ndestinations:\nsyncs:\n",
        GOOD.replace("512 MB", "512000000").replace("annually", "52 weeks").replace("C-1004", "[C-1004]"),
        GOOD.replace("{email: owner}", "{email: [owner, title]}"),
        GOOD[: GOOD.index("  rules:")] + "  rules:\n" + GOOD[GOOD.index("profiles:") :],
        GOOD.replace("{newsletters: consent}", "").replace("    purposes: [newsletters]\n", ""),
        GOOD.replace("{requests: 20, per: 1 second}", "[{records: 9, per: 1 day, resets: UTC}]"),
        GOOD.replace("at_least: 500", "between: [1, 2.5]").replace("30 days", "1 week"),
    ],
)  # fmt: skip
def test_other_spellings_are_accepted_by_both(text: str):
    assert load_text(text)
    assert [error.message for error in VALIDATOR.iter_errors(as_json(text))] == []


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("segments:\n", "segmnts:\n", []),
        ("path: products.csv", "pth: products.csv", ["sources", "web", "streams", "products"]),
        ("format: ndjson", "format: xml", ["sources", "web", "streams", "events", "format"]),
        ("format: ndjson", "paging: {type: page}", ["sources", "web", "streams", "events"]),
        ("    connection: crm_api\n", "", ["sources", "crm"]),
        ("type: api", "type: apy", ["sources", "crm", "type"]),
        ("upsert:", "upsrt:", ["destinations", "mail"]),
        ("keep: source_priority", "keep: newest", ["profiles", "fields", "email", "keep"]),
        ("mode: mirror", "mod: mirror", ["syncs", "vip_to_mail"]),
        ("512 MB", "512 MiB", ["identity", "memory"]),
        ("512 MB", "0", ["identity", "memory"]),
        ("over_limit: refuse", "over_limit: drop", ["identity", "over_limit"]),
        ("within: annually", "within: yearly", ["identity", "identifiers", "email", "within"]),
        ("hub: 50", "hub: 0", ["identity", "identifiers", "phone", "hub"]),
        ("shop.cards:number", "shop.cards", ["identity", "identifiers", "card", "normalize"]),
        ("- deny:", "- denny:", ["identity", "rules", 0]),
        ('{user_id: "17"}', "{user_id: 17}", ["identity", "rules", 0]),
        ('{user_id: "17"}]', "]", ["identity", "rules", 0]),
        ("key: C-1004", "ky: C-1004", ["identity", "rules", 3]),
        ("purposes: {", "purpses: {", ["consent"]),
        ("write: if_empty", "write: once", ["syncs", "vip_to_mail", "fields", "BORN"]),
        ("requests: 20", "request: 20", ["destinations", "mail", "rate"]),
        ("30 days", "30 moons", ["profiles", "traits", "visits", "within_last"]),
    ],
)
def test_misspelt_keys_and_values_are_marked(old: str, new: str, place: list[str]):
    errors = list(VALIDATOR.iter_errors(as_json(GOOD.replace(old, new, 1))))
    assert place in [list(error.absolute_path) for error in errors]


def test_a_misspelt_operator_in_a_segment_is_marked():
    broken = as_json(GOOD.replace("at_least: 500", "at_lest: 500"))
    assert list(VALIDATOR.iter_errors(broken))


def test_all_of_the_language_is_accepted():
    assert [error.message for error in VALIDATOR.iter_errors(as_json(LANGUAGE))] == []


@pytest.mark.parametrize(
    "empty",
    [
        "segments:\nsplits:\nexclusive:\nsuppression:\n",
        "  accounts:\n    key: country\n    traits:\n",
        "  history:\n",
    ],
)
def test_empty_sections_of_the_language_are_accepted_by_both(empty: str):
    start = "profiles:\n  fields:\n    country: {from: [crm.customers.country]}\n"
    text = GOOD[: GOOD.index("profiles:")] + (start + empty if empty[0] == " " else empty)
    assert load_text(text)
    assert [error.message for error in VALIDATOR.iter_errors(as_json(text))] == []


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("order: descending", "order: down", ["profiles", "traits", "decile", "order"]),
        ("    key: country\n", "    kye: country\n", ["profiles", "accounts"]),
        ("stratify: [country]", "strtify: [country]", ["splits", "spring"]),
        ("offers: [abandoned, careful]", "offers: abandoned", ["exclusive", "offers"]),
        ("ties: include", "ties: all", ["segments", "vip", "limit", "ties"]),
        ("except: [staff]", "but_not: [staff]", ["segments", "vip"]),
    ],
)
def test_misspelt_keys_of_the_language_are_marked(old: str, new: str, place: list[str]):
    errors = list(VALIDATOR.iter_errors(as_json(LANGUAGE.replace(old, new, 1))))
    assert place in [list(error.absolute_path) for error in _deep(errors)]


def _deep(errors: Iterable[ValidationError]) -> Iterator[ValidationError]:
    """The errors and those within them: what may be absent is a choice between nothing and a model."""
    for error in errors:
        yield error
        yield from _deep(error.context or ())
