# SPDX-License-Identifier: Apache-2.0
"""Connections become endpoints; what they lack is said, what they hide stays hidden."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from cdp_provider.core.exceptions import ConfigurationError, NotFoundError
from cdp_provider.hooks.destination import DestinationHook
from cdp_provider.hooks.source import SourceHook
from cdp_provider.testing.vendor import VendorServer

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "s3cr3t-token"


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
        ({"host": "h", "password": SECRET, "extra": {"auth_scheme": "digest"}}, "bearer, basic or header"),
        ({"host": "h", "extra": {"verify_tls": "no"}}, "verify_tls"),
        ({"host": "h", "extra": {"timeout": "soon"}}, "timeout"),
        ({"host": "h", "extra": {"headers": ["x"]}}, "headers"),
        ({"host": "h", "password": f"{SECRET}\n"}, "Authorization"),
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
    with pytest.raises(ConfigurationError, match=r"connection 'files'.* names none"):
        _ = SourceHook(connection("files", conn_type="fs")).folder
    with pytest.raises(NotFoundError, match="does not exist on this worker"):
        _ = SourceHook(root=str(tmp_path / "gone")).folder


def test_an_http_source_needs_a_connection() -> None:
    with pytest.raises(ConfigurationError, match="needs a connection of type http"):
        _ = SourceHook().endpoint
