# SPDX-License-Identifier: Apache-2.0
"""Hostile texts, and a project of all kinds that holds them in every place."""

from __future__ import annotations

import copy
import json
import string
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from cdp_provider.core.project.document import Document
from cdp_provider.core.project.faults import ProjectError
from cdp_provider.core.project.loader import interpret
from cdp_provider.core.project.problems import path_text
from cdp_provider.core.registry import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cdp_provider.core.project.model import Project

Place = tuple[str | int, ...]
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SHOP = Path(__file__).parents[2] / "dags" / "shop" / "cdp.yaml"

#: None is a part of another one. Letters are small ones, because some conditions know no case.
NASTY = sorted(
    [
        "'; drop table cdp.canary; --",
        '"; drop table cdp.canary; --',
        "') or 1=1 or ('",
        '{"x": "y"}',
        "$1",
        ":p0",
        "%(name)s",
        "%s %%",
        "back\\slash\\",
        "{0}",
        "*/ 1 /*",
        "\u2019 \u201c \uff07",
        "e'\\' -- ",
        "${a} $$b$$",
        "line\nbreak\ttab",
    ]
)
#: In the same order, and with as many lines, by which places in a file are told.
PLAIN = [f"plain{number:02d}" + "\nx" * word.count("\n") for number, word in enumerate(NASTY)]


class Words:
    """The texts that one world is made of."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = words

    def __getitem__(self, number: int) -> str:
        return self.words[number % len(self.words)]

    def plainly(self, value: Any) -> Any:
        """A value with these words replaced by the plain ones."""
        match value:
            case str():
                for word, plain in zip(self.words, PLAIN, strict=True):
                    value = value.replace(word, plain)
                return value
            case dict():
                return {self.plainly(key): self.plainly(part) for key, part in value.items()}
            case list() | tuple():
                return [self.plainly(part) for part in value]
        return value


def whole_project() -> dict[str, Any]:
    """The example shop with its CRM in a file, and every kind of field, trait and segment that it lacks."""
    project = yaml.safe_load(SHOP.read_text())
    sources, profiles, segments = project["sources"], project["profiles"], project["segments"]
    sources["crm"] = {"type": "files", "streams": copy.deepcopy(sources["crm"]["streams"])}
    customers = sources["crm"]["streams"]["customers"]
    for key in ("records", "page_size", "paging", "cursor"):
        del customers[key]
    customers |= {"path": "customers.ndjson", "format": "ndjson"}
    till = sources["till"]["streams"]["orders"]
    till["null"] = "NULL"
    till["columns"]["status"]["path"] = "state"
    project["identity"]["rules"] = [{"deny": [{"email": "eve@example.com"}, {"user_id": "17"}]}]
    orders, events = {"stream": "till.orders"}, {"stream": "web.events"}
    profiles["fields"] |= {
        "city": {"from": ["crm.customers.city"], "empty": "keep"},
        "often": {"from": ["till.orders.status", "crm.customers.city"], "keep": "most_frequent"},
        "least_city": {"from": ["crm.customers.city", "till.orders.currency"], "keep": "min"},
        "cities": {"from": ["crm.customers.city", "till.orders.status"], "keep": "list"},
        "stated": {
            "keep": "sql",
            "type": "string",
            "sql": "select profile_id, min(status) as value from {till.orders} group by profile_id",
        },
    }
    profiles["traits"] |= {
        "bought": {"type": "exists", **orders, "where": {"status": "paid", "currency": {"is_not": "USD"}}},
        "statuses": {"type": "list", **orders, "column": "status"},
        "usual": {"type": "most_frequent", **orders, "column": "currency", "default": "none"},
        "first_page": {"type": "first", **events, "column": "product_id", "event": "Viewed", "default": "x"},
        "pages": {"type": "distinct_count", **events, "column": "product_id", "nulls": "keep"},
        "top": {"type": "max", **orders, "column": "status", "between": ["2026-01-01", "2026-03-31"]},
        "fifth": {"type": "quantile", "of": "orders"},
        "share": {"type": "ratio", "of": "orders", "over": "visits_30d"},
        "label": {"type": "formula", "as": "string", "formula": 'concat(country, "-")'},
        "own": {
            "type": "sql",
            "as": "string",
            "sql": "select profile_id, max(product_id) as value from {web.events} group by profile_id",
        },
    }
    profiles["accounts"] = {
        "key": "country",
        "traits": {
            "people": {"type": "count"},
            "cities": {"type": "distinct_count", "of": "city"},
            "last_city": {"type": "max", "of": "city"},
        },
    }
    profiles["history"] = ["lifetime_value", "city", "cities"]
    conditions = {
        "is": {"trait": "city", "is": "Berlin"},
        "is_not": {"trait": "city", "is_not": "Berlin"},
        "any_of": {"trait": "city", "any_of": ["Berlin", "Paris"]},
        "none_of": {"trait": "city", "none_of": ["Berlin", "Paris"]},
        "at_least": {"trait": "city", "at_least": "Berlin"},
        "at_most": {"trait": "city", "at_most": "Berlin"},
        "more_than": {"trait": "city", "more_than": "Berlin"},
        "less_than": {"trait": "city", "less_than": "Berlin"},
        "between": {"trait": "city", "between": ["Aachen", "Zwolle"]},
        "contains": {"trait": "city", "contains": "er"},
        "contains_any": {"trait": "city", "contains_any": ["er", "ar"], "ignore_case": False},
        "starts_with": {"trait": "city", "starts_with": "Ber"},
        "ends_with": {"trait": "city", "ends_with": "lin", "ignore_case": False},
        "same_letters": {"trait": "city", "is": "berlin", "ignore_case": True},
        "member": {"trait": "cities", "contains": "Berlin"},
        "members": {"trait": "statuses", "contains_any": ["paid", "open"]},
        "like": {"trait": "city", "like": "Berlin"},
        "matches": {"trait": "city", "matches": "Ber.*"},
        "happened": {"stream": "web.events", "event": "Viewed", "where": {"product_id": "p1"}},
        "measured": {"stream": "till.orders", "distinct_count": "status", "at_least": 2},
        "followed": {
            "funnel": [
                {"stream": "web.events", "event": "Viewed", "where": {"type": {"contains": "track"}}},
                {"stream": "till.orders", "where": {"status": {"any_of": ["paid", "open"]}}},
            ],
            "same": [],
        },
        "related": {
            "related": "till.orders",
            "where": {"status": "paid"},
            "having": [
                {"related": "web.events", "on": {"product_id": "status"}, "where": {"event": "Viewed"}}
            ],
        },
        "account": {"account": "last_city", "any_of": ["Aachen", "Berlin", "Celle"]},
        "colleagues": {"members": "any", "where": {"trait": "city", "is": "Berlin"}},
        "agreed": {"consent": "newsletter", "given": False},
        "near": {"near": [52.5, 13.4], "latitude": "orders", "longitude": "visits_30d", "kilometres": 50},
        "own_sql": {"sql": "select profile_id from {profiles} where city = 'Berlin'"},
    }
    segments |= {f"c_{name}": {"where": condition} for name, condition in conditions.items()}
    segments["everybody"] = {
        "description": "All of them.",
        "where": {"any": [{"split": "halves", "group": "one"}, {"split": "halves", "group": "two"}]},
    }
    segments["narrow"] = {
        "where": {"segment": "everybody"},
        "limit": {"count": 2, "by": "city", "per": "country", "ties": "include"},
        "except": ["c_is"],
    }
    unlike = [{"trait": "often", "is": "paid"}, {"trait": "city", "is": "Berlin"}]
    segments["outcast"] = {"where": {"all": unlike}}
    project["splits"]["halves"] = {
        "groups": {"one": "50 %", "two": "50 %"},
        "salt": "salt",
        "stratify": ["city"],
    }
    project["exclusive"] = {"one_of": ["c_any_of", "c_happened"]}
    project["suppression"] = ["outcast"]
    project["consent"] = {"purposes": {"newsletter": "marketing_consent"}}
    return project


def with_all_conditions(project: dict[str, Any]) -> dict[str, Any]:
    """And a segment of whoever fulfils any of the conditions."""
    conditions = [s["where"] for name, s in project["segments"].items() if name.startswith("c_")]
    whole = {"every_condition": {"where": {"any": conditions}}}
    return project | {"segments": project["segments"] | whole}


def strings(value: Any, path: Place = ()) -> Iterator[tuple[Place, bool]]:
    """Places of all texts: path, and whether it is the key at its end."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield (*path, key), True
            yield from strings(part, (*path, key))
    elif isinstance(value, list):
        for place, part in enumerate(value):
            yield from strings(part, (*path, place))
    elif isinstance(value, str):
        yield path, False


def replaced(project: Any, path: Place, text: str, *, key: bool = False) -> Any:
    """The project with another text in a place; shares with it what stays as it is."""
    first, *rest = path
    if not rest and key:
        return {text if name == first else name: part for name, part in project.items()}
    part = replaced(project[first], tuple(rest), text, key=key) if rest else text
    if isinstance(project, list):
        return [part if place == first else other for place, other in enumerate(project)]
    return project | {first: part}


def load(project: Mapping[str, Any]) -> Project:
    """Read and validate, as from a file.

    :raises ProjectError: it has faults.
    """
    return interpret(Document(json.dumps(project), "cdp.yaml"), KINDS)


def hostile(rotation: int) -> list[tuple[Place, int]]:
    """Places that take a hostile text, all of them at once, and the number of the text.

    Names of files are left as they are: no such file is an error of its own.
    """
    texts = [path for path, key in strings(whole_project()) if not key]
    places = [
        (path, number + rotation)
        for number, path in enumerate(texts)
        if not (path[0] == "sources" and path[4:] == ("path",))
    ]
    for _ in range(10):
        try:
            load(filled(places, Words(NASTY)))
        except ProjectError as error:
            faulty = [fault.path for fault in error.faults]
            # What is wrong further up may only follow from these.
            exactly = [place for place in places if path_text(place[0]) not in faulty]
            near = [place for place in places if not any(_meets(place[0], path) for path in faulty)]
            places = exactly if len(exactly) < len(places) else near
        else:
            return places
    pytest.fail(f"still refused for {faulty}")


def _meets(place: Place, fault: str) -> bool:
    """Whether one of the two lies within the other."""
    path = fault.replace("[", ".").replace("]", "").split(".")
    return all(str(part) == other for part, other in zip(place, path, strict=False))


def filled(places: Sequence[tuple[Place, int]], words: Words) -> dict[str, Any]:
    """The project with words in these places, as themselves or as texts within formulas and statements."""
    project = whole_project()
    for path, number in places:
        project = replaced(project, path, _worded(path, words[number]))
    return project


def _worded(path: Place, word: str) -> str:
    text = "'" + word.replace("'", "''") + "'"
    match path[-1], path[0]:
        case "formula", _:
            return f"concat(country, {json.dumps(word, ensure_ascii=False)})"
        case "matches", _:
            return "".join(f"\\{char}" if char in string.punctuation else char for char in word)
        case "sql", "segments":
            return f"select profile_id from {{profiles}} where city = {text}"
        case "sql", _:
            return f"select profile_id, {text} as value from {{till.orders}} group by profile_id"
    return word
