# SPDX-License-Identifier: Apache-2.0
"""The suite for destinations finds what is wrong, and the page about a destination of one's own works."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from cdp_provider.core.activation.destinations import DESTINATIONS
from cdp_provider.core.activation.destinations.base import (
    ACCEPTED,
    Capabilities,
    DestinationKind,
    Outcome,
    Request,
)
from cdp_provider.core.exceptions import CdpError, ConfigurationError
from cdp_provider.core.plugins import installed
from cdp_provider.core.project.base import Options
from cdp_provider.core.project.faults import ProjectError
from cdp_provider.core.project.schema import json_schema
from cdp_provider.core.registry import KINDS, load_project
from cdp_provider.testing.destinations import DestinationConformance, FakeAnswer, FakeServer, FakeVendor

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "own-destination.md").read_text()


class Shelf(FakeVendor):
    """Takes ``{key: fields}``, answers ``{key: reason}`` of those it refused."""

    def __init__(self):
        super().__init__()
        self.shelf: dict[str, dict[str, Any]] = {}

    def answer(self, request):
        given = request.json()
        if request.path == "/remove":
            for key in given:
                self.shelf.pop(key, None)
            return FakeAnswer(200, {})
        taken = {key: fields for key, fields in given.items() if key not in self.refuses}
        for key, fields in taken.items():
            self.shelf[key] = self.shelf.get(key, {}) | fields
        self.applied.update(taken.keys())
        return FakeAnswer(200, dict.fromkeys(given.keys() - taken.keys(), "refused"))

    def holds(self):
        return {key: dict(fields) for key, fields in self.shelf.items()}


class Good(DestinationKind):
    options = Options
    able: ClassVar[Capabilities] = Capabilities(
        operations=frozenset({"upsert", "remove"}), max_record_bytes=5_000
    )

    @property
    def capabilities(self):
        return self.able

    def item(self, operation, record):
        return record.fields

    def request(self, operation, records, items):
        parts = (b"%b:%b" % (json.dumps(r.key).encode(), i) for r, i in zip(records, items, strict=True))
        return Request("POST", "/remove" if operation == "remove" else "/put", b"{%b}" % b",".join(parts))

    def outcomes(self, operation, response, records):
        refused = response.json()
        return [Outcome("rejected", refused[r.key]) if r.key in refused else ACCEPTED for r in records]


class TestGood(DestinationConformance):
    """The suite has nothing against a destination that does it right."""

    kind: ClassVar[type[DestinationKind]] = Good
    sync: ClassVar[dict[str, Any]] = {"fields": {"city": "city"}, "mode": "mirror"}

    def vendor(self) -> FakeVendor:
        return Shelf()


class AcceptsAll(Good):
    def outcomes(self, operation, response, records):
        return [ACCEPTED] * len(records)


class LosesReasons(Good):
    def outcomes(self, operation, response, records):
        return [replace(o, reason=None) for o in super().outcomes(operation, response, records)]


class MixesUp(Good):
    def outcomes(self, operation, response, records):
        return super().outcomes(operation, response, records)[::-1]


class Counts(Good):
    """No two of its requests are the same."""

    number = 0

    def request(self, operation, records, items):
        Counts.number += 1
        return replace(super().request(operation, records, items), path=f"/put?{Counts.number}")

    def item(self, operation, record):
        Counts.number += 1
        return {**record.fields, "number": Counts.number}


class NewKeys(Good):
    """Another idempotency key for every try."""

    async def deliver(self, line, operation, records, items):
        Counts.number += 1
        request = replace(
            self.request(operation, records, items), headers={"Idempotency-Key": str(Counts.number)}
        )
        return self.outcomes(operation, await line.send(request), records)


class Talks(Good):
    """Puts keys into its errors."""

    def inspect(self, response):
        if response.status == 401:
            msg = "refused person00001@example.com"
            raise ConfigurationError(msg)


class PutsKeysIntoPaths(Good):
    def request(self, operation, records, items):
        request = super().request(operation, records, items)
        return replace(request, path=f"/put/{records[0].key}")


class NeverRemoves(Good):
    def request(self, operation, records, items):
        return replace(super().request(operation, records, items), path="/put")


class Sends0(Good):
    """Drops nulls, so nothing is ever cleared."""

    def item(self, operation, record):
        return {name: value for name, value in record.fields.items() if value is not None}


class Unlimited(Good):
    limits: ClassVar[dict[str, Any]] = {"": ()}


class Believes401(Good):
    def inspect(self, response):
        if response.status == 401:
            response.__dict__["status"] = 204


@pytest.mark.parametrize(
    ("kind", "test"),
    [
        (AcceptsAll, "what_was_rejected_is_told_apart_with_its_reason"),
        (LosesReasons, "what_was_rejected_is_told_apart_with_its_reason"),
        (MixesUp, "what_was_rejected_is_told_apart_with_its_reason"),
        (Counts, "a_repeat_is_the_same_to_the_byte"),
        (NewKeys, "each_try_of_a_request_has_the_same_idempotency_key"),
        (Talks, "nothing_personal_is_logged_or_raised"),
        (PutsKeysIntoPaths, "nothing_personal_is_logged_or_raised"),
        (NeverRemoves, "removal_takes_away_and_bears_that_nobody_is_there"),
        (Sends0, "clearing_empties_the_mapped_fields"),
        (Unlimited, "limits_name_their_source"),
        (Believes401, "credentials_that_are_refused_end_the_delivery"),
    ],
)
def test_it_finds_a_destination_that(kind, test, caplog):
    suite = TestGood()
    suite.kind = kind
    arguments = {"caplog": caplog} if test.startswith("nothing_personal") else {}
    with pytest.raises(AssertionError):
        getattr(suite, f"test_{test}")(**arguments)


def test_a_fake_that_fails_fails_its_test():
    def ask(server):
        with urllib.request.urlopen(urllib.request.Request(server.url, b"no json")):  # noqa: S310
            pass

    with (
        pytest.raises(json.JSONDecodeError),
        FakeServer(Shelf()) as server,
        pytest.raises(OSError, match="500"),
    ):
        ask(server)


def test_it_can_be_imported_without_pytest():
    code = "import sys; sys.modules['pytest'] = None; import cdp_provider.testing.destinations"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@pytest.fixture
def page(tmp_path):
    """The files of the page about a destination of one's own."""
    for name, text in re.findall(r"```python\n# (\w+\.py)\n(.*?)```", PAGE, re.DOTALL):
        (tmp_path / name).write_text(text)
    (toml,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    return tmp_path, tomllib.loads(toml)["project"]


def test_the_destination_of_the_page_passes_the_suite(page):
    folder, _ = page
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-c",
        "/dev/null",
        "--rootdir",
        ".",
    ]
    ended = subprocess.run([*command, "test_club.py"], cwd=folder, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout
    passed, skipped = (int(n) for n in re.search(r"(\d+) passed, (\d+) skipped", ended.stdout).groups())
    assert passed > 15
    assert skipped == 2, ended.stdout
    lines = (folder / "club.py").read_text() + (folder / "test_club.py").read_text()
    assert len(lines.splitlines()) < 100


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Makes entry points known, as an installed package does."""

    def add(**points):
        info = tmp_path / "club_destination-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: club-destination\nVersion: 1.0\n")
        text = "\n".join(f"{name} = {value}" for name, value in points.items())
        (info / "entry_points.txt").write_text(f"[cdp_provider.destinations]\n{text}\n")
        installed.cache_clear()
        sys.modules.pop("club", None)

    monkeypatch.syspath_prepend(tmp_path)
    yield add
    monkeypatch.undo()
    installed.cache_clear()
    sys.modules.pop("club", None)


def test_an_installed_destination_is_a_type_of_projects(page, install, tmp_path):
    install(**page[1]["entry-points"]["cdp_provider.destinations"])
    assert DESTINATIONS["club"].__name__ == "Club"
    assert "club" in list(DESTINATIONS)
    assert len(DESTINATIONS) == len(list(DESTINATIONS))
    assert "ClubDestination" in json_schema(KINDS)["$defs"]

    readme = re.search(r"```yaml\n(project: newsletter\n.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    project = yaml.safe_load(readme[1])
    loyalty = {"type": "club", "connection": "club", "club": "{club}"}
    joins = {"destination": "loyalty", "key": "email", "parameters": {"club": "gold"}}
    project |= {"destinations": {"loyalty": loyalty}, "syncs": {"joins": joins}}
    path = tmp_path / "cdp.yaml"
    path.write_text(yaml.safe_dump(project))
    assert load_project(path).destinations["loyalty"].options.club == "{club}"
    del loyalty["club"]
    path.write_text(yaml.safe_dump(project))
    with pytest.raises(ProjectError, match="club"):
        load_project(path)


def test_a_destination_that_nobody_installed_is_no_type():
    assert "club" not in DESTINATIONS
    with pytest.raises(KeyError):
        DESTINATIONS["club"]


@pytest.mark.parametrize("value", ["nowhere:Club", "json:Club", "json:dumps", "json:JSONDecoder"])
def test_an_entry_point_that_leads_nowhere_says_so(install, value):
    install(club=value)
    with pytest.raises(CdpError, match=f"'club' of cdp_provider.destinations leads to '{value}', which"):
        DESTINATIONS["club"]


def test_our_own_types_go_first(install):
    own = DESTINATIONS["http"]
    install(http="json:JSONDecoder")
    assert DESTINATIONS["http"] is own
