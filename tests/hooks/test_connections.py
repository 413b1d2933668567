# SPDX-License-Identifier: Apache-2.0
"""Connections become endpoints; what they lack is said, what they hide stays hidden."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from airflow.sdk._shared.secrets_masker import redact

from cdp_provider.core.activation.destinations import DESTINATIONS
from cdp_provider.core.activation.destinations.http import HttpDestination
from cdp_provider.core.auth import Auth
from cdp_provider.core.exceptions import ConfigurationError, NotFoundError
from cdp_provider.core.http import HttpClient
from cdp_provider.hooks.destination import DestinationHook
from cdp_provider.hooks.source import SourceHook
from cdp_provider.testing.vendor import VendorServer
from tests.airflow_env import connection_json
from tests.core.ingest.service import Answer, Asked, Service

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "s3cr3t-token"


OAUTH = {
    "host": "http://h",
    "login": "me",
    "password": SECRET,
    "extra": {"auth_scheme": "client_credentials", "token_url": "/oauth/token"},
}


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch) -> Any:
    def add(conn_id: str, **fields: Any) -> str:
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(fields))
        return conn_id

    return add


@pytest.mark.parametrize(
    ("fields", "url", "headers"),
    [
        (
            {"host": "https://api.example.com/v2", "password": SECRET},
            "https://api.example.com/v2",
            {"Authorization": f"Bearer {SECRET}"},
        ),
        (
            {"host": "api.example.com", "schema": "https", "port": 8443, "login": "ann", "password": "pw"},
            "https://api.example.com:8443",
            {"Authorization": "Basic YW5uOnB3"},
        ),
        ({"host": "localhost"}, "http://localhost", {}),
        (
            {"host": "localhost", "password": SECRET, "extra": {"auth_scheme": "header"}},
            "http://localhost",
            {"X-API-Key": SECRET},
        ),
        (
            {
                "host": "localhost",
                "password": SECRET,
                "extra": {
                    "auth_scheme": "header",
                    "auth_header": "Api-Token",
                    "headers": {"X-Tenant": "acme"},
                },
            },
            "http://localhost",
            {"Api-Token": SECRET, "X-Tenant": "acme"},
        ),
    ],
)
def test_endpoint(connection: Any, fields: dict[str, Any], url: str, headers: dict[str, str]) -> None:
    for kind in ("http", "cdp_destination"):
        endpoint = DestinationHook(connection("there", conn_type=kind, **fields)).endpoint
        assert endpoint.base_url == url
        assert dict(endpoint.headers) == headers
        assert SECRET not in repr(endpoint)


def test_only_known_extras_are_read(connection: Any) -> None:
    extra = {"cookie": "x", "proxies": {"http": "evil"}, "verify_tls": False, "timeout": 5}
    endpoint = DestinationHook(connection("there", conn_type="http", host="localhost", extra=extra)).endpoint
    assert (dict(endpoint.headers), endpoint.verify, endpoint.timeout) == ({}, False, 5.0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"host": ""}, "names no host"),
        ({"host": "ftp://example.com"}, "http"),
        ({"host": f"https://ann:{SECRET}@example.com"}, "user name or password"),
        ({"host": "h", "login": "ann"}, "a login and no password"),
        (
            {"host": "h", "password": SECRET, "extra": {"auth_scheme": "digest"}},
            "basic, header, client_credentials or refresh_token",
        ),
        ({"host": "h", "extra": {"verify_tls": "no"}}, "verify_tls"),
        ({"host": "h", "extra": {"timeout": "soon"}}, "timeout"),
        ({"host": "h", "extra": {"headers": ["x"]}}, "headers"),
        ({"host": "h", "password": f"{SECRET}\n"}, "Authorization"),
        ({**OAUTH, "login": None}, "lacks the client id"),
        ({**OAUTH, "password": None}, "lacks the client id"),
        ({**OAUTH, "extra": {"auth_scheme": "client_credentials"}}, "needs the extra token_url"),
        ({**OAUTH, "extra": {**OAUTH["extra"], "token_auth": "query"}}, "token_auth is 'query'"),
        ({**OAUTH, "extra": {**OAUTH["extra"], "token_url": f"https://me:{SECRET}@h/t"}}, "user name or"),
    ],
)
def test_a_wrong_connection_says_which_and_why(connection: Any, fields: dict[str, Any], message: str) -> None:
    hook = DestinationHook(connection("there", conn_type="cdp_destination", **fields))
    with pytest.raises(ConfigurationError, match=message) as caught:
        _ = hook.endpoint
    assert "'there'" in str(caught.value)
    assert SECRET not in str(caught.value)


def test_a_missing_connection_says_how_to_add_it() -> None:
    with pytest.raises(NotFoundError, match=r"no Airflow connection 'nowhere'.*AIRFLOW_CONN_NOWHERE"):
        _ = DestinationHook("nowhere").endpoint


def test_a_connection_of_another_type(connection: Any) -> None:
    hook = SourceHook(connection("there", conn_type="ftp", host="h"))
    with pytest.raises(ConfigurationError, match=r"of type 'ftp'.*name a connection of type http"):
        _ = hook.endpoint


class Plain(HttpDestination):
    """The least that is a kind."""


class Picky(Plain):
    """A vendor with ways of its own."""

    auth = Auth("header", "Authorization", "Api-Key ")
    headers: ClassVar[dict[str, str]] = {"revision": "2026-01-15"}
    base_url = "https://api.example.com"


class Basic(Plain):
    auth = Auth("basic", login="anyone")
    connection_types = ("http", "google_cloud_platform")


@pytest.mark.parametrize(
    ("kind", "fields", "url", "headers"),
    [
        (
            Picky,
            {"password": SECRET},
            "https://api.example.com",
            {"revision": "2026-01-15", "Authorization": f"Api-Key {SECRET}"},
        ),
        (
            Picky,
            {
                "host": "http://h",
                "password": "x",
                "extra": {"auth_scheme": "bearer", "headers": {"revision": "2"}},
            },
            "http://h",
            {"revision": "2", "Authorization": "Bearer x"},
        ),
        (
            Picky,
            {"password": "x", "extra": {"auth_scheme": "header", "auth_header": "Key"}},
            "https://api.example.com",
            {"revision": "2026-01-15", "Key": "x"},
        ),
        (Basic, {"host": "http://h", "password": "pw"}, "http://h", {"Authorization": "Basic YW55b25lOnB3"}),
        (
            Basic,
            {"host": "http://h", "login": "ann", "password": "pw"},
            "http://h",
            {"Authorization": "Basic YW5uOnB3"},
        ),
        (
            Plain,
            {"host": "http://h", "login": "ann", "password": "pw"},
            "http://h",
            {"Authorization": "Basic YW5uOnB3"},
        ),
        (Plain, {"host": "http://h", "password": "x"}, "http://h", {"Authorization": "Bearer x"}),
    ],
)
def test_what_the_vendor_wants_and_the_connection_says(
    connection: Any, kind: Any, fields: dict[str, Any], url: str, headers: dict[str, str]
) -> None:
    target = DestinationHook(connection("there", conn_type="cdp_destination", **fields)).target(kind)
    assert (target.base_url, dict(target.headers)) == (url, headers)
    assert SECRET not in repr(target)


@pytest.mark.parametrize("token_url", ["/oauth/token", "{url}/oauth/token?tenant=1"])
def test_tokens_of_an_oauth_server(connection: Any, token_url: str) -> None:
    def answer(asked: Asked) -> Answer:
        if asked.path == "/v2/oauth/token" or asked.query:
            return Answer(200, {"access_token": "granted", "expires_in": 3600})
        return Answer(200 if asked.headers.get("Authorization") == "Bearer granted" else 401, {})

    with Service(answer) as service:
        extra = {"auth_scheme": "client_credentials", "token_url": token_url.format(url=service.url)}
        there = connection(
            "there", conn_type="http", **{**OAUTH, "host": f"{service.url}/v2", "extra": extra}
        )
        target = DestinationHook(there).target(Plain)
        assert not service.asked
        with HttpClient(target) as client:
            assert client.send("GET", "/x").status == 200
        with HttpClient(SourceHook(there).endpoint) as client:
            assert client.send("GET", "/x").status == 200
        assert DestinationHook(there).test_connection() == (True, "the destination answers (200)")
    assert SECRET not in repr(target)


def test_secrets_are_masked_in_logs(connection: Any) -> None:
    with Service([Answer(200, {"access_token": "issued-token"})]) as service:
        there = connection(
            "there", conn_type="http", **{**OAUTH, "password": "secret-1", "host": service.url}
        )
        DestinationHook(there).target(Plain).credentials.headers()
    there = connection("there", conn_type="http", host="h", password="secret-2")
    basic = DestinationHook(there).target(Basic).headers["Authorization"].removeprefix("Basic ")
    for secret in ("secret-1", "issued-token", "secret-2", basic):
        assert redact(f"sent {secret}") == "sent ***"


@pytest.mark.parametrize("name", [name for name, kind in DESTINATIONS.items() if kind.transport == "http"])
def test_each_kind_is_let_in_by_a_token_alone(connection: Any, name: str) -> None:
    kind = DESTINATIONS[name]
    host = {} if kind.base_url else {"host": "https://own.example.com"}
    target = DestinationHook(
        connection("there", conn_type="cdp_destination", password=SECRET, **host)
    ).target(kind)
    assert target.base_url == (kind.base_url or "https://own.example.com")
    assert kind.headers.items() <= target.headers.items()
    assert len(target.headers) == len(kind.headers) + 1


def test_rows_go_to_a_postgres(connection: Any, postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_THERE", connection_json("postgres", postgres_url))
    with DestinationHook("there").target(DESTINATIONS["postgres"])() as opened:
        assert opened.execute("select 1 as a").fetchall() == [(1,)]
    with pytest.raises(ConfigurationError, match="'http', which cannot be a destination of rows"):
        DestinationHook(connection("api", conn_type="http", host="h")).target(DESTINATIONS["postgres"])


def test_files_go_to_a_folder(connection: Any, tmp_path: Path) -> None:
    for kind in ("fs", "file"):
        there = connection("there", conn_type=kind, extra={"path": str(tmp_path)})
        assert DestinationHook(there).target(DESTINATIONS["file"]) == tmp_path


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"conn_type": "fs"}, 'names no folder.*"path": "/the/folder"'),
        ({"conn_type": "fs", "extra": {"path": "/gone/for/good"}}, "does not exist on this worker"),
        ({"conn_type": "aws"}, 'names no folder.*"path": "s3://bucket/folder"'),
        ({"conn_type": "aws", "extra": {"path": "bucket/folder"}}, "such as 's3://bucket/folder'"),
        ({"conn_type": "wasb", "extra": {"path": "abfs://c/f"}}, "no installed provider opens abfs://"),
        ({"conn_type": "http", "host": "h"}, "fs, file, aws, google_cloud_platform, wasb or adls"),
    ],
)
def test_what_is_no_folder(connection: Any, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        DestinationHook(connection("there", **fields)).target(DESTINATIONS["file"])


def test_a_connection_of_google_without_its_provider(connection: Any) -> None:
    there = connection("there", conn_type="google_cloud_platform")
    with pytest.raises(ConfigurationError, match="install apache-airflow-providers-google"):
        DestinationHook(there).target(Basic)
    with pytest.raises(ConfigurationError, match="of type 'google_cloud_platform'"):
        DestinationHook(there).target(Plain)


def test_testing_a_destination(connection: Any) -> None:
    with VendorServer() as vendor:
        good = connection("good", conn_type="cdp_destination", host=vendor.url, password="shop-mail-token")
        assert DestinationHook(good).test_connection()[0]
    gone = connection("gone", conn_type="cdp_destination", host=vendor.url, password=SECRET)
    works, why = DestinationHook(gone).test_connection()
    assert not works
    assert SECRET not in why


def test_folder_of_a_files_source(connection: Any, tmp_path: Path) -> None:
    for kind in ("fs", "file"):
        named = connection("files", conn_type=kind, extra={"path": str(tmp_path)})
        assert SourceHook(named).folder == tmp_path
    assert SourceHook(root=str(tmp_path)).folder == tmp_path


def test_a_files_source_without_a_folder(connection: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="the project names none"):
        _ = SourceHook().folder
    with pytest.raises(ConfigurationError, match=r"connection 'files' names no folder"):
        _ = SourceHook(connection("files", conn_type="fs")).folder
    with pytest.raises(NotFoundError, match="does not exist on this worker"):
        _ = SourceHook(root=str(tmp_path / "gone")).folder


def test_an_http_source_needs_a_connection() -> None:
    with pytest.raises(ConfigurationError, match="needs a connection of type http"):
        _ = SourceHook().endpoint
