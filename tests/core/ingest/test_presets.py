# SPDX-License-Identifier: Apache-2.0
"""Each preset reads its vendor to the last page and then only what changed; every record lands once."""

from __future__ import annotations

import base64
import json
import os
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from openapi_core import OpenAPI

from cdp_provider.core.exceptions import AccessError, ConfigurationError
from cdp_provider.core.http import Endpoint
from cdp_provider.core.ingest.contracts import check
from cdp_provider.core.ingest.http import HttpConnector, Patience
from cdp_provider.core.ingest.landing import land
from cdp_provider.core.ingest.presets import PRESETS
from cdp_provider.core.project.document import Document
from cdp_provider.core.project.loader import interpret
from cdp_provider.core.project.schema import json_schema
from cdp_provider.core.registry import KINDS
from cdp_provider.core.run import Run, Window
from cdp_provider.testing.destinations.fake import FakeServer
from tests.conftest import ENGINES
from tests.contracts import CONTRACTS, Audited, audited
from tests.core.ingest.vendors.base import SECRET, Vendor
from tests.core.ingest.vendors.registry import VENDORS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cdp_provider.core.ingest.base import Fetched
    from cdp_provider.core.project.model import Project
    from cdp_provider.core.project.streams import Stream
    from cdp_provider.core.runs import Report
    from cdp_provider.core.warehouse import Warehouse

DEPTH = int(os.environ.get("CDP_TEST_DEPTH", "1"))
#: Warehouses to land into: what a preset brings is the same in both, and the tests of the landing know both.
INTO = ["duckdb"] if DEPTH == 1 else ENGINES
PAGE = (Path(__file__).parents[3] / "docs" / "connectors" / "presets.md").read_text()
START = datetime(2026, 7, 1, tzinfo=UTC)
STREAMS = [(preset, stream) for preset in VENDORS for stream in PRESETS[preset].streams]
FIRST = [(preset, next(iter(PRESETS[preset].streams))) for preset in VENDORS]
#: Streams whose endpoint is described by a contract; that of Klaviyo is a slice without lists.
CONTRACTED = [pair for pair in STREAMS if pair[0] in ("stripe", "klaviyo") and pair[1] != "lists"]
#: Streams that say nothing of changes: all of their records come every time.
WHOLE = {"stripe.customers", "stripe.subscriptions", "intercom.companies"}


def project(preset: str, streams: dict[str, Any]) -> Project:
    """A project with one source; it has all identifiers that presets know."""
    known = {kind for keys in PRESETS[preset].streams.values() for kind in keys.get("identifiers", {})}
    given = {
        "project": "shop",
        "warehouse": {"connection": "lake"},
        "identity": {"identifiers": {kind: {} for kind in sorted(known)}},
        "sources": {"vendor": {"type": "http", "preset": preset, "connection": "api", "streams": streams}},
    }
    return interpret(Document(yaml.safe_dump(given, sort_keys=False), "cdp.yaml"), KINDS)


def stream_of(preset: str, stream: str, **keys: Any) -> Stream:
    """A stream of a preset; nothing paces it, as the vendor is next door."""
    found = project(preset, {stream: {"rate": None, **keys}})
    return found.sources["vendor"].streams[stream]


def endpoint(vendor: Vendor, secret: str = SECRET) -> Endpoint:
    """What a connection becomes that is made as the preset says."""
    made = PRESETS[vendor.name].connection
    headers = {
        "bearer": lambda: {"Authorization": f"Bearer {secret}"},
        "basic": lambda: {
            "Authorization": f"Basic {base64.b64encode(f'me@example.com/token:{secret}'.encode()).decode()}"
        },
        "header": lambda: {made["auth_header"]: made.get("auth_prefix", "") + secret},
    }
    return Endpoint(vendor.url, headers=headers[made["auth_scheme"]](), timeout=5)


@pytest.fixture
def quick(make_warehouse):
    """The warehouse that is made fastest, for what does not depend on it."""
    return make_warehouse("duckdb")


def at(day: float) -> datetime:
    return START + timedelta(days=day)


class Reading:
    """A stream of a vendor on its way into a warehouse, day by day."""

    def __init__(self, vendor: Vendor, stream: Stream, warehouse: Warehouse) -> None:
        self.vendor, self.stream, self.warehouse = vendor, stream, warehouse

    def land(self, day: int) -> Report:
        run = Run("shop", f"run_{day}", Window(at(day), at(day + 1)))
        connector = HttpConnector(endpoint(self.vendor), patience=Patience(tries=1))
        report = land(self.warehouse, self.stream, connector, run)
        check(self.warehouse, self.stream, run)
        assert report.rows_refused == 0
        assert self.vendor.refusals == []
        return report

    def shown(self) -> dict[Any, dict[str, Any]]:
        """The view, by primary key."""
        (key,) = self.stream.primary_key
        names = list(self.stream.columns)
        columns = ", ".join(map(self.warehouse.quote, names))
        with self.warehouse.session() as session:
            rows = session.fetch(f"select {columns} from {self.warehouse.table(self.stream.view)}")
        found = {row[names.index(key)]: dict(zip(names, row, strict=True)) for row in rows}
        assert len(found) == len(rows)
        return found


@contextmanager
def serving(preset: str, stream: str) -> Iterator[tuple[Vendor, Stream]]:
    """A vendor that answers, and a stream that asks it for pages of two records: there are several."""
    vendor = VENDORS[preset]()
    keys: dict[str, Any] = {"page_size": {"value": 2}}
    if preset == "hubspot":
        keys["window"] = {"from": "2026-03-01"}
    with FakeServer(vendor) as server:
        vendor.url = server.url
        yield vendor, stream_of(preset, stream, **keys)


@pytest.mark.parametrize("warehouse", INTO, indirect=True)
@pytest.mark.parametrize(("preset", "stream"), FIRST)
def test_every_record_is_shown_once_as_it_is_now(preset, stream, warehouse):
    with serving(preset, stream) as (vendor, read):
        reading = Reading(vendor, read, warehouse)
        for number in range(5):
            vendor.put(stream, number, at(0.1 * number + 0.1))
        reading.land(0)
        assert len(reading.shown()) == 5
        vendor.put(stream, 1, at(1.5))
        vendor.put(stream, 7, at(1.6))
        reading.land(1)
        (moment, *_) = [
            name for name in ("updated_at", "updated", "lastmodifieddate", "created") if name in read.columns
        ]
        assert sorted(row[moment] for row in reading.shown().values()) == [
            *(at(0.1 * number + 0.1) for number in (0, 2, 3, 4)),
            at(1.5),
            at(1.6),
        ]


@pytest.mark.parametrize(("preset", "stream"), STREAMS)
def test_all_columns_of_a_preset_are_filled(preset, stream, quick):
    """One landing of each stream: its paths lead somewhere, and its types take what the vendor sends."""
    with serving(preset, stream) as (vendor, read):
        reading = Reading(vendor, read, quick)
        vendor.put(stream, 1, at(0.1))
        reading.land(0)
        (row,) = reading.shown().values()
        assert [name for name, value in row.items() if value is None] == []


@pytest.mark.parametrize(("preset", "stream"), STREAMS)
def test_a_second_reading_asks_for_changes_only(preset, stream, tmp_path):
    whole = f"{preset}.{stream}" in WHOLE
    with serving(preset, stream) as (vendor, read):
        connector = HttpConnector(endpoint(vendor), patience=Patience(tries=1))

        def fetch(day: int, cursor: dict[str, Any] | None) -> Fetched:
            vendor.served = 0
            return connector.fetch(read, cursor, Window(at(day), at(day + 1)), tmp_path)

        for number in range(9):
            vendor.put(stream, number, at(-100 - number))
        vendor.put(stream, 10, at(0.5))
        first = fetch(0, None)
        # A page of organizations begins with the last record of the one before.
        again = 2 if stream == "organizations" else 1
        assert len(ids(first)) == 10 + 8 * (again - 1)
        assert len(set(ids(first))) == 10
        assert first.detail["requests"] >= 5

        vendor.put(stream, 1, at(1.5))
        vendor.put(stream, 11, at(1.6))
        if not whole:
            # Not yet: it belongs to the window after.
            vendor.put(stream, 12, at(2.5))
        second = fetch(1, first.cursor)
        assert len(set(ids(second))) == (11 if whole else 2)
        # The new ones, those of the overlap and, where the vendor takes no end, the one to come.
        assert vendor.served <= (11 if whole else 4 * again)
        third = fetch(2, second.cursor)
        assert len(ids(third)) == (11 if whole else 1)
        assert vendor.refusals == []


def ids(fetched: Fetched) -> list[Any]:
    (file,) = fetched.files
    return [json.loads(line)["id"] for line in file.path.read_bytes().splitlines()]


@pytest.mark.parametrize("preset", VENDORS)
def test_a_wrong_secret_is_refused(preset, tmp_path):
    vendor = VENDORS[preset]()
    stream = next(iter(PRESETS[preset].streams))
    with FakeServer(vendor) as server:
        vendor.url = server.url
        connector = HttpConnector(endpoint(vendor, "another"))
        with pytest.raises(AccessError):
            connector.fetch(stream_of(preset, stream), None, Window(at(0), at(1)), tmp_path)


@pytest.mark.parametrize("preset", VENDORS)
def test_all_of_a_preset_is_a_project_without_faults(preset):
    """Faults inside a preset have no place in a project file, so there must be none."""
    streams = project(preset, dict.fromkeys(PRESETS[preset].streams, {})).sources["vendor"].streams
    assert list(streams) == list(PRESETS[preset].streams)
    for name, stream in streams.items():
        assert stream.identifiers.keys() == PRESETS[preset].streams[name].get("identifiers", {}).keys()
        assert stream.options.rate
    assert PRESETS[preset].about
    assert PRESETS[preset].connection["host"].startswith("https://")


@pytest.mark.parametrize("preset", VENDORS)
def test_the_page_says_what_goes_into_the_connection(preset):
    (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| `{preset}` |")]
    made = PRESETS[preset].connection
    extra = {key: value for key, value in made.items() if key not in ("host", "login")}
    assert f"`{made['host']}`" in row
    assert f"`{json.dumps(extra)}`" in row
    assert made.get("login", "") in row
    assert all(f"`{stream}`" in row for stream in PRESETS[preset].streams)


def test_editors_take_a_stream_of_which_nothing_is_said():
    validator = Draft202012Validator(json_schema(KINDS))
    source = {"type": "http", "preset": "stripe", "connection": "api"}
    given = {"project": "shop", "warehouse": {"connection": "lake"}}

    def marked(**streams: Any) -> list[Any]:
        return list(validator.iter_errors({**given, "sources": {"till": {**source, "streams": streams}}}))

    assert marked(customers={}, charges={"cursor": {"overlap": "5 days"}, "rate": None}) == []
    assert marked(customers={"cursr": None})
    assert marked(customers={"columns": {"id": "strin"}})
    source["preset"] = "segment" if "segment" in PRESETS else "none"
    assert marked(customers={})


def test_what_hubspot_shows_of_one_search_is_not_all_there_is(tmp_path):
    """Ten weeks of two changes each, of which one search would show the first four."""
    vendor = VENDORS["hubspot"]()
    vendor.most = 4
    for number in range(20):
        vendor.put("contacts", number, at(-70 + 3.5 * number))
    with FakeServer(vendor) as server:
        vendor.url = server.url
        size = {"page_size": {"value": 2}}
        connector = HttpConnector(endpoint(vendor))
        week = stream_of("hubspot", "contacts", **size, window={"from": "2026-01-01"})
        fetched = connector.fetch(week, None, Window(at(0), at(1)), tmp_path)
        assert len(fetched.files[0].path.read_bytes().splitlines()) == 20
        year = stream_of("hubspot", "contacts", **size, window={"from": "2026-01-01", "step": "52 weeks"})
        with pytest.raises(ConfigurationError, match="400"):
            connector.fetch(year, None, Window(at(0), at(1)), tmp_path)


def contract_of(vendor: Vendor) -> Audited:
    """The vendor behind its contract, whose parameters of the form ``created[gte]`` are told one by one: the
    validator knows no others."""
    watched = audited(vendor, vendor.name)
    watched._contract = _told_one_by_one(vendor.name)
    return watched


@cache
def _told_one_by_one(name: str) -> OpenAPI:
    described = json.loads((CONTRACTS / name / "openapi.json").read_text())
    described["servers"] = [{"url": "http://vendor"}]
    for methods in described["paths"].values():
        operation = methods.get("get", {})
        operation["parameters"] = [
            plain for given in operation.get("parameters", ()) for plain in _plain(given)
        ]
    return OpenAPI.from_dict(described)


def _plain(parameter: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if parameter.get("style") != "deepObject":
        yield parameter
        return
    for choice in parameter["schema"].get("anyOf", [parameter["schema"]]):
        for name, schema in choice.get("properties", {}).items():
            yield {"name": f"{parameter['name']}[{name}]", "in": "query", "schema": schema}


@pytest.mark.parametrize(("preset", "stream"), CONTRACTED)
def test_requests_and_answers_are_what_the_contract_allows(preset, stream, tmp_path):
    vendor = VENDORS[preset]()
    for number in range(5):
        vendor.put(stream, number, at(0.1 * number))
    watched = contract_of(vendor)
    with FakeServer(watched) as server:
        vendor.url = server.url
        read = stream_of(preset, stream, page_size={"value": 2})
        connector = HttpConnector(endpoint(vendor), patience=Patience(tries=1))
        fetched = connector.fetch(read, None, Window(at(0), at(1)), tmp_path)
        connector.fetch(read, fetched.cursor, Window(at(1), at(2)), tmp_path)
    watched.assert_kept()
    assert fetched.detail["requests"] >= 3
