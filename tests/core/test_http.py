# SPDX-License-Identifier: Apache-2.0
"""The HTTP client against a real server."""

from __future__ import annotations

import gzip

import pytest

from cdp_provider.core.exceptions import (
    AccessError,
    ConfigurationError,
    DataError,
    NotFoundError,
    RateLimitedError,
    UnavailableError,
)
from cdp_provider.core.http import Endpoint, HttpClient
from tests.core.ingest.service import Answer, Service

SECRET = "s3cr3t-token"


def client(url: str, **options: object) -> HttpClient:
    return HttpClient(Endpoint(url, {"Authorization": f"Bearer {SECRET}"}, timeout=5), **options)


def test_a_request_carries_headers_parameters_and_body():
    with Service([Answer(body={"ok": True})]) as service, client(service.url + "/v2/") as http:
        answer = http.request(
            "POST", "/things?a=1", params={"b": "x y"}, json={"n": 1}, headers={"X-Own": "1"}
        )
        assert answer.json() == {"ok": True}
        assert service.asked[0].path == "/v2/things"
        assert service.asked[0].query == {"a": "1", "b": "x y"}
        assert service.asked[0].headers["Authorization"] == f"Bearer {SECRET}"
        assert service.asked[0].headers["X-Own"] == "1"
        assert service.asked[0].headers["Content-Type"] == "application/json"


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (301, ConfigurationError),
        (400, ConfigurationError),
        (401, AccessError),
        (403, AccessError),
        (404, NotFoundError),
        (408, UnavailableError),
        (410, NotFoundError),
        (422, ConfigurationError),
        (429, RateLimitedError),
        (500, UnavailableError),
        (503, UnavailableError),
    ],
)
def test_a_status_becomes_an_error_that_tells_no_secret(status, error):
    with (
        Service([Answer(status, {"email": "jane@example.com"}, {"Location": "/elsewhere"})]) as service,
        client(service.url) as http,
        pytest.raises(error) as caught,
    ):
        http.request("GET", "/people?email=jane@example.com", params={"since": "private"})
    assert f"GET /people answered {status}" in str(caught.value)
    for secret in (SECRET, "jane", "private"):
        assert secret not in str(caught.value)
    assert len(service.asked) == 1


def test_send_leaves_the_status_to_the_caller():
    with Service([Answer(500, {"why": 1})]) as service, client(service.url) as http:
        answer = http.send("GET", "/x")
        assert (answer.status, answer.json()) == (500, {"why": 1})


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "1.5"}, 1.5),
        (
            {"Retry-After": "Wed, 01 Jul 2026 10:00:30 GMT", "Date": "Wed, 01 Jul 2026 10:00:00 GMT"},
            30.0,
        ),
        ({"Retry-After": "Wed, 01 Jul 2026 09:00:00 GMT", "Date": "Wed, 01 Jul 2026 10:00:00 GMT"}, 0.0),
        ({"Retry-After": "Wed, 01 Jul 2026 10:00:30 GMT"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-5"}, None),
        ({}, None),
    ],
)
def test_retry_after_in_all_its_forms(headers, seconds):
    with (
        Service([Answer(429, {}, headers)]) as service,
        client(service.url) as http,
        pytest.raises(RateLimitedError) as caught,
    ):
        http.request("GET", "/x")
    assert caught.value.retry_after == seconds


def test_an_answer_cut_in_its_body_is_no_answer():
    with (
        Service([Answer(body=[1, 2, 3], cut=4)]) as service,
        client(service.url) as http,
        pytest.raises(UnavailableError, match="broke off"),
    ):
        http.request("GET", "/x")


def test_nobody_listens():
    with Service([]) as service:
        url = service.url
    with client(url) as http, pytest.raises(UnavailableError, match="no connection"):
        http.request("GET", "/x")


@pytest.mark.parametrize("body", [b"<html>login</html>", b"", b'{"a": '])
def test_what_is_no_json_is_named_by_its_content_type_only(body):
    with (
        Service([Answer(body=body, headers={"Content-Type": "text/html; charset=utf-8"})]) as service,
        client(service.url) as http,
        pytest.raises(DataError, match="'text/html' that are not JSON") as caught,
    ):
        http.request("GET", "/x").json()
    assert "login" not in str(caught.value)


@pytest.mark.parametrize("packed", [False, True])
def test_a_body_beyond_the_limit_is_not_read_to_its_end(packed):
    body, headers = b" " * 5_000_000, {}
    if packed:
        body, headers = gzip.compress(body), {"Content-Encoding": "gzip"}
    with (
        Service([Answer(body=body, headers=headers)]) as service,
        client(service.url, max_body=100_000) as http,
        pytest.raises(DataError, match="more than 100000 bytes"),
    ):
        http.request("GET", "/x")


def test_the_token_stays_with_its_host():
    with Service([Answer(body=[])]) as service, client(service.url) as http:
        with pytest.raises(ConfigurationError, match="another host"):
            http.request("GET", "http://elsewhere.example/x")
        http.request("GET", service.url + "/x")
    assert len(service.asked) == 1


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host",
        "host/path",
        "",
        "http://",
        "https://user:pw@host",
        "https://host?token=x",
        "http://h:port",
        "http://[x",
    ],
)
def test_a_base_url_that_cannot_be_one(url):
    with pytest.raises(ConfigurationError) as caught:
        Endpoint(url)
    assert "pw" not in str(caught.value)
    assert "token=x" not in str(caught.value)


@pytest.mark.parametrize("value", ["Bearer x\n", "Bearer x\r\nEvil: 1", "Bearer \u00e9", "a\x00b"])
def test_a_header_that_http_does_not_allow(value):
    with pytest.raises(ConfigurationError, match="'Authorization'") as caught:
        Endpoint("https://host", {"Authorization": value})
    assert "Bearer" not in str(caught.value)


def test_secrets_are_not_in_the_repr():
    assert SECRET not in repr(Endpoint("https://host", {"Authorization": SECRET}))


def test_a_ca_bundle_that_is_not_there(tmp_path):
    with pytest.raises(NotFoundError, match="CA certificates"):
        HttpClient(Endpoint("https://host", verify=str(tmp_path / "none.pem")))
