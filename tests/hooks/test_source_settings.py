# SPDX-License-Identifier: Apache-2.0
"""A connection of any type becomes the configuration of a program."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from cdp_provider.core.exceptions import NotFoundError
from cdp_provider.core.ingest.dlt import DltConnector, DltOptions
from cdp_provider.core.ingest.singer import SingerConnector, SingerOptions
from cdp_provider.core.project.streams import Stream
from cdp_provider.hooks.source import SourceHook
from tests.core.ingest.conftest import window

TAP = Path(__file__).parents[1] / "core" / "ingest" / "hand_tap.py"


def stream_of(options: Any) -> Stream:
    return Stream(
        source="forms", name="answers", primary_key=("id",), columns={"id": "string"}, options=options
    )


def tap(**options: Any) -> Stream:
    return stream_of(SingerOptions(command=(sys.executable, str(TAP)), select="all", **options))


@pytest.fixture
def masked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    seen: list[str] = []
    monkeypatch.setattr("cdp_provider.hooks.settings.mask_secret", seen.append)
    return seen


def test_the_connection_reaches_the_tap(monkeypatch, masked, tmp_path):
    given = {
        "conn_type": "generic",
        "host": "forms.test",
        "port": 8080,
        "login": "ann",
        "password": "hush-hush",
        "extra": {"region": "eu-central", "deep": {"keys": ["one", 17]}, "flag": True},
    }
    monkeypatch.setenv("AIRFLOW_CONN_FORMS", json.dumps(given))
    credentials = {"address": "host", "port": "port", "user": "login", "token": "password"}
    stream = tap(config={"steps": [{"tell": "told.json"}], "region": "us"}, credentials=credentials)
    connector = SourceHook("forms", root=str(tmp_path)).connector(stream)
    assert isinstance(connector, SingerConnector)
    (tmp_path / "spool").mkdir()
    connector.fetch(stream, None, window(), tmp_path / "spool")
    told = json.loads((tmp_path / "told.json").read_text())["config"]
    assert told.pop("steps")
    assert told == {
        "address": "forms.test",
        "port": 8080,
        "user": "ann",
        "token": "hush-hush",
        "region": "eu-central",
        "deep": {"keys": ["one", 17]},
        "flag": True,
    }
    assert sorted(masked) == ["17", "eu-central", "hush-hush", "one"]


def test_without_a_connection(masked, tmp_path):
    settings = SourceHook(root=str(tmp_path)).settings
    assert (settings.fields, settings.extra, settings.folder) == ({}, {}, tmp_path)
    assert masked == []
    options = DltOptions(python="python", resource="a:b")
    assert isinstance(SourceHook().connector(stream_of(options)), DltConnector)


def test_a_connection_that_is_not_there():
    with pytest.raises(NotFoundError, match="'nowhere', which is to be that of a program"):
        SourceHook("nowhere").settings  # noqa: B018 - a property that reads
