# SPDX-License-Identifier: Apache-2.0
"""A connection of type kafka becomes a connector that reads."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Producer

from cdp_provider.core.exceptions import ConfigurationError, NotFoundError
from cdp_provider.core.ingest import CONNECTORS
from cdp_provider.core.ingest.inbox import InboxConnector, InboxOptions, append
from cdp_provider.core.ingest.kafka import KafkaConnector, KafkaOptions
from cdp_provider.core.project.streams import Stream
from cdp_provider.core.run import Window
from cdp_provider.hooks.source import SourceHook

if TYPE_CHECKING:
    from pathlib import Path

    from cdp_provider.core.warehouse import Warehouse

STREAM = Stream(
    source="shop",
    name="orders",
    primary_key=("id",),
    columns={"id": "string"},
    options=KafkaOptions(topics="orders", max_wait="20 seconds"),
)


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch) -> Any:
    def add(kind: str = "kafka", **extra: Any) -> str:
        monkeypatch.setenv("AIRFLOW_CONN_EVENTS", json.dumps({"conn_type": kind, "extra": extra}))
        return "events"

    return add


def test_the_extra_of_the_connection_reaches_the_client(connection, tmp_path: Path):
    quiet = logging.getLogger("tests.kafka")
    home = Producer({"bootstrap.servers": "nowhere:1", "test.mock.num.brokers": 1}, logger=quiet)
    (broker,) = home.list_topics(timeout=10).brokers.values()
    home.produce("orders", b'{"id": "1"}', timestamp=1)
    home.flush(10)
    address = f"{broker.host}:{broker.port}"
    connector = SourceHook(connection(**{"bootstrap.servers": address, "client.id": "cdp"})).connector(STREAM)
    assert isinstance(connector, KafkaConnector)
    fetched = connector.fetch(STREAM, None, Window(None, datetime(2026, 7, 1, tzinfo=UTC)), tmp_path)
    assert fetched.detail["records"] == 1


def test_what_is_wrong_with_a_connection(connection, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ConfigurationError, match="needs a connection of that type"):
        SourceHook().connector(STREAM)
    with pytest.raises(ConfigurationError, match="is of type 'http'"):
        SourceHook(connection("http")).connector(STREAM)
    with pytest.raises(NotFoundError, match="there is no Airflow connection 'nowhere'"):
        SourceHook("nowhere").connector(STREAM)
    with pytest.raises(ConfigurationError, match=r"names no bootstrap.servers"):
        SourceHook(connection(**{"group.id": "x"})).connector(STREAM)
    with pytest.raises(ConfigurationError, match="callback_allowlist"):
        SourceHook(connection(**{"bootstrap.servers": "x:1", "oauth_cb": "os.system"})).connector(STREAM)
    monkeypatch.setitem(sys.modules, "airflow.providers.apache.kafka.hooks.base", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'airflow-provider-cdp\[kafka\]'"):
        SourceHook(connection(**{"bootstrap.servers": "x:1"})).connector(STREAM)


def test_without_the_client_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'airflow-provider-cdp\[kafka\]'"):
        KafkaConnector({}).fetch(STREAM, None, Window(None, datetime(2026, 7, 1, tzinfo=UTC)), tmp_path)


def test_the_inbox_lies_in_the_warehouse(warehouse: Warehouse, tmp_path: Path):
    inbox = Stream(
        source="forms",
        name="answers",
        primary_key=("id",),
        columns={"id": "string"},
        options=InboxOptions(),
    )
    with warehouse.session() as session:
        append(session, "forms", ['{"id": "1"}'], received_at=datetime(2026, 6, 1, tzinfo=UTC))
    connector = SourceHook(home=warehouse).connector(inbox)
    fetched = connector.fetch(inbox, None, Window(None, datetime(2026, 7, 1, tzinfo=UTC)), tmp_path)
    assert fetched.detail["messages"] == 1


def test_they_are_registered():
    assert (CONNECTORS["kafka"], CONNECTORS["inbox"]) == (KafkaConnector, InboxConnector)
