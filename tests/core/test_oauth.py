# SPDX-License-Identifier: Apache-2.0
"""Tokens from a real token server: asked for once, renewed once, never shown."""

from __future__ import annotations

import base64
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import pytest

from cdp_provider.core.exceptions import AccessError, DataError, UnavailableError
from cdp_provider.core.http import Endpoint, HttpClient
from cdp_provider.core.oauth import ClientCredentials, RefreshToken
from tests.core.ingest.service import Answer, Asked, Service

if TYPE_CHECKING:
    from collections.abc import Callable

SECRET = "s3cr3t:+/"


class Authority:
    """A token endpoint and an API of one host; `good` tokens are let in."""

    def __init__(self, expires_in: Any = 3600) -> None:
        self.expires_in = expires_in
        self.tokens: list[str] = []
        self.good: set[str] = set()
        self.asked: list[Asked] = []

    def __call__(self, asked: Asked) -> Answer:
        if asked.path == "/oauth/token":
            self.asked.append(asked)
            self.tokens.append(f"token-{len(self.tokens) + 1}")
            self.good.add(self.tokens[-1])
            return Answer(200, {"access_token": self.tokens[-1], "expires_in": self.expires_in})
        token = asked.headers.get("Authorization", "").removeprefix("Bearer ")
        return Answer(200 if token in self.good else 401, {})


def client_of(url: str, **options: Any) -> HttpClient:
    credentials = ClientCredentials(Endpoint(url), "/oauth/token", "me", SECRET, **options)
    return HttpClient(Endpoint(url, {"X-Api-Version": "3"}, credentials=credentials))


def test_one_token_serves_many_requests_until_it_is_refused() -> None:
    authority, learned = Authority(), []
    with Service(authority) as service, client_of(service.url, learned=learned.append) as client:
        assert [client.send("GET", "/x").status for _ in range(3)] == [200, 200, 200]
        assert authority.tokens == ["token-1"]
        authority.good.clear()
        assert client.send("GET", "/x").status == 200
    assert authority.tokens == learned == ["token-1", "token-2"]
    assert service.asked[-1].headers["X-Api-Version"] == "3"
    assert service.asked[-1].headers["Authorization"] == "Bearer token-2"


def test_new_credentials_that_are_refused_too_are_not_asked_for_again() -> None:
    authority = Authority()

    def refuse(asked: Asked) -> Answer:
        return authority(asked) if asked.path == "/oauth/token" else Answer(401, {})

    with Service(refuse) as service, client_of(service.url) as client:
        with pytest.raises(AccessError, match="credentials were refused"):
            client.request("GET", "/x")
        assert [asked.path for asked in service.asked] == ["/oauth/token", "/x"] * 2


@pytest.mark.parametrize(("expires_in", "tokens"), [(0, 3), ("0", 3), ("3600", 1), (None, 1), ("soon", 1)])
def test_a_token_is_renewed_when_it_expires(expires_in: Any, tokens: int) -> None:
    authority = Authority(expires_in)
    with Service(authority) as service, client_of(service.url) as client:
        for _ in range(3):
            client.request("GET", "/x")
    assert len(authority.tokens) == tokens


def test_id_and_secret_travel_as_the_server_wants_them() -> None:
    authority = Authority()
    with Service(authority) as service:
        with client_of(service.url, scope="a b") as client:
            client.request("GET", "/x")
        with client_of(service.url, sends="body") as client:
            client.request("GET", "/x")
    header, body = authority.asked
    pair = base64.b64decode(header.headers["Authorization"].removeprefix("Basic ")).decode()
    assert pair == "me:s3cr3t%3A%2B%2F"
    assert parse_qs(header.body.decode()) == {"grant_type": ["client_credentials"], "scope": ["a b"]}
    assert "Authorization" not in body.headers
    assert parse_qs(body.body.decode()) == {
        "grant_type": ["client_credentials"],
        "client_id": ["me"],
        "client_secret": [SECRET],
    }


def test_many_threads_that_are_refused_at_once_ask_for_one_token() -> None:
    authority = Authority()
    with Service(authority) as service:
        credentials = ClientCredentials(Endpoint(service.url), "/oauth/token", "me", SECRET)
        stale = credentials.headers()
        barrier = threading.Barrier(8)

        def refused() -> None:
            barrier.wait()
            credentials.renew(stale)
            credentials.headers()

        threads = [threading.Thread(target=refused) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert authority.tokens == ["token-1", "token-2"]


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (Answer(401, {"error": "invalid_client"}), AccessError, r"\(invalid_client\)"),
        (Answer(400, {"error": [SECRET]}), AccessError, "gave no token"),
        (Answer(400, b"<html>"), AccessError, "gave no token"),
        (Answer(503, {}), UnavailableError, "trouble of its own"),
        (Answer(200, {"token": SECRET}), DataError, "without an access_token"),
        (Answer(200, {"access_token": f"{SECRET}\n"}), DataError, "without an access_token"),
        (Answer(200, [SECRET]), DataError, "without an access_token"),
        (Answer(200, b"<html>"), DataError, "not JSON"),
    ],
)
def test_no_token_says_why_and_no_secret(answer: Answer, error: type[Exception], words: str) -> None:
    give: Callable[[Asked], Answer] = lambda _: answer  # noqa: E731
    with Service(give) as service, client_of(service.url) as client:
        with pytest.raises(error, match=words) as caught:
            client.request("GET", "/x")
        assert SECRET not in str(caught.value)
        assert SECRET not in repr(client.endpoint)
        assert {asked.path for asked in service.asked} == {"/oauth/token"}


class Rotating(Authority):
    """Gives an access token for a refresh token, and a new refresh token every other time."""

    def __init__(self) -> None:
        super().__init__()
        self.holds = "refresh-1"

    def __call__(self, asked: Asked) -> Answer:
        if asked.path != "/oauth/token":
            return super().__call__(asked)
        shown = parse_qs(asked.body.decode())
        if shown["grant_type"] != ["refresh_token"] or shown["refresh_token"] != [self.holds]:
            self.asked.append(asked)
            return Answer(400, {"error": "invalid_grant", "error_description": self.holds})
        answer = super().__call__(asked)
        if len(self.tokens) % 2 == 0:
            self.holds = f"refresh-{len(self.tokens)}"
            answer.body["refresh_token"] = self.holds
        return answer


def refreshing(url: str, token: str, **options: Any) -> HttpClient:
    credentials = RefreshToken(Endpoint(url), "/oauth/token?tenant=1", "me", SECRET, token, **options)
    return HttpClient(Endpoint(url, credentials=credentials))


def test_a_rotated_refresh_token_is_used_and_told_but_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    authority, learned = Rotating(), []
    with (
        Service(authority) as service,
        refreshing(service.url, "refresh-1", learned=learned.append) as client,
    ):
        for number in range(1, 5):
            assert client.send("GET", "/x").status == 200
            assert len(authority.tokens) == number
            # The server holds the second one for the only good one from here on.
            authority.good.clear()
    shown = [parse_qs(asked.body.decode())["refresh_token"] for asked in authority.asked]
    assert shown == [["refresh-1"], ["refresh-1"], ["refresh-2"], ["refresh-2"]]
    assert learned == ["token-1", "refresh-2", "token-2", "token-3", "refresh-4", "token-4"]
    messages = [record.getMessage() for record in caplog.records if record.name.endswith("oauth")]
    assert len(messages) == 2
    assert "/oauth/token: the server rotated the refresh token, store it" in messages[0]
    assert not [text for text in messages if "refresh-" in text or SECRET in text]


def test_a_refresh_token_that_is_refused_is_told() -> None:
    with Service(Rotating()) as service, refreshing(service.url, "refresh-0", scope="a") as client:
        with pytest.raises(AccessError, match=r"\(invalid_grant\).*the extra refresh_token") as caught:
            client.request("GET", "/x")
        assert "refresh-" not in str(caught.value)
        assert len(service.asked) == 1
        assert parse_qs(service.asked[0].body.decode())["scope"] == ["a"]
