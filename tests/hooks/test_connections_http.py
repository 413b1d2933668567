# SPDX-License-Identifier: Apache-2.0
"""Refresh tokens and proxies of a connection, as an HTTP source meets them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from airflow.sdk._shared.secrets_masker import redact

from cdp_provider.core.exceptions import ConfigurationError
from cdp_provider.core.http import HttpClient
from cdp_provider.hooks.source import SourceHook
from tests.core.ingest.conftest import window
from tests.core.ingest.fetching import stream_of
from tests.core.ingest.service import Answer, Asked, Service

EXTRA = {"auth_scheme": "refresh_token", "token_url": "/token", "refresh_token": "first-refresh"}


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A source hook for a connection of these fields."""

    def make(**fields: Any) -> SourceHook:
        given = {"conn_type": "http", "login": "me", "password": "client-secret", **fields}
        monkeypatch.setenv("AIRFLOW_CONN_THERE", json.dumps(given))
        return SourceHook("there")

    return make


def test_a_source_is_read_with_tokens_that_are_refreshed(hook, tmp_path):
    """Each access token serves two requests, each refresh token one."""
    issued: list[str] = []

    def answer(asked: Asked) -> Answer:
        if asked.path == "/token":
            shown = dict(pair.split("=") for pair in asked.body.decode().split("&"))
            if shown["refresh_token"] != (f"refresh-{len(issued)}" if issued else "first-refresh"):
                return Answer(400, {"error": "invalid_grant"})
            issued.append(f"access-{len(issued) + 1}")
            return Answer(200, {"access_token": issued[-1], "refresh_token": f"refresh-{len(issued)}"})
        number = int(asked.query.get("after", 0))
        if asked.headers.get("Authorization") != f"Bearer access-{number // 2 + 1}":
            return Answer(401, {})
        return Answer(200, {"data": [{"id": number}], "next": number + 1 if number < 5 else None})

    with Service(answer) as service:
        stream = stream_of(paging={"type": "cursor", "next": "next", "parameter": "after"})
        connector = hook(host=service.url, extra=EXTRA).connector(stream)
        fetched = connector.fetch(stream, None, window(), tmp_path)
    assert fetched.detail["requests"] == 6
    assert issued == ["access-1", "access-2", "access-3"]
    for secret in ("client-secret", "first-refresh", "refresh-3", "access-3"):
        assert redact(f"sent {secret}") == "sent ***"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"extra": {**EXTRA, "refresh_token": ""}}, "needs the extra refresh_token"),
        ({"extra": {**EXTRA, "token_url": None}}, "refresh_token needs the extra token_url"),
        ({"extra": EXTRA, "password": None}, "lacks the client id"),
        ({"extra": {"proxy": "proxy.example:3128"}}, r"write http://\[user:password@\]host:port"),
        ({"extra": {"proxy": "http://proxy.example:3128/a?b"}}, "the proxy is no address"),
    ],
)
def test_a_wrong_connection_says_which_and_why(hook, fields, message):
    with pytest.raises(ConfigurationError, match=message) as caught:
        _ = hook(host="http://h", **fields).endpoint
    assert "'there'" in str(caught.value)
    assert "first-refresh" not in str(caught.value)


@pytest.mark.parametrize("where", ["extra", "environment"])
def test_requests_go_through_the_proxy(hook, monkeypatch, where):
    with Service([Answer(200, {"ok": True})]) as proxy:
        address = proxy.url.replace("//", "//ann:proxy-secret@")
        if where == "environment":
            monkeypatch.setenv("HTTP_PROXY", address)
            monkeypatch.delenv("NO_PROXY", raising=False)
            monkeypatch.delenv("no_proxy", raising=False)
        extra = {"proxy": address} if where == "extra" else {}
        endpoint = hook(host="http://api.invalid/v1", extra=extra).endpoint
        with HttpClient(endpoint) as client:
            assert client.request("GET", "/customers").json() == {"ok": True}
        (asked,) = proxy.asked
    assert (asked.path, asked.headers["Host"]) == ("/v1/customers", "api.invalid")
    assert asked.headers["Proxy-Authorization"] == "Basic YW5uOnByb3h5LXNlY3JldA=="
    assert "proxy-secret" not in repr(endpoint)
    if where == "extra":
        assert redact("sent proxy-secret") == "sent ***"
