# SPDX-License-Identifier: Apache-2.0
"""Paging, patience and progress, against a real server."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from cdp_provider.core.exceptions import (
    AccessError,
    ConfigurationError,
    DataError,
    NotFoundError,
    RateLimitedError,
    UnavailableError,
)
from cdp_provider.core.http import Endpoint
from cdp_provider.core.ingest.http import HttpConnector, Patience
from tests.core.ingest.service import Answer, Service

if TYPE_CHECKING:
    from cdp_provider.core.ingest.base import Fetched
    from cdp_provider.core.project.streams import Stream

HASTY = Patience(tries=3, longest=2, base=0.01)


@pytest.fixture
def fetch(tmp_path, run):
    """Service, stream, cursor -> what the connector fetched."""

    def call(service: Service, stream: Stream, cursor: dict[str, Any] | None = None, **more: Any) -> Fetched:
        connector = HttpConnector(Endpoint(service.url, timeout=5), patience=more.get("patience", HASTY))
        return connector.fetch(stream, cursor, run().window, tmp_path)

    return call


def records(fetched: Fetched) -> list[Any]:
    return [json.loads(line) for line in fetched.files[0].path.read_bytes().splitlines()]


def page(*ids: int, **more: Any) -> Answer:
    return Answer(body={"data": [{"id": i, "updated_at": f"2026-07-01T00:00:0{i}Z"} for i in ids], **more})


def test_cursor_paging(fetch, customers):
    with Service([page(1, 2, next="p2"), page(3, next="p3"), page(next=None)]) as service:
        found = fetch(service, customers(page_size={"parameter": "limit", "value": 2}, parameters={"v": 1}))
    assert [r["id"] for r in records(found)] == [1, 2, 3]
    assert [a.query for a in service.asked] == [
        {"v": "1", "limit": "2"},
        {"v": "1", "limit": "2", "after": "p2"},
        {"v": "1", "limit": "2", "after": "p3"},
    ]
    assert found.detail["requests"] == 3
    assert found.bytes > 100


def test_numbered_pages(fetch, customers):
    paging = {"type": "page", "parameter": "p", "start": 0}
    with Service([Answer(body=[{"id": 1}]), Answer(body=[{"id": 2}]), Answer(body=[])]) as service:
        found = fetch(service, customers(records="", paging=paging, cursor=None))
    assert [r["id"] for r in records(found)] == [1, 2]
    assert [a.query["p"] for a in service.asked] == ["0", "1", "2"]
    assert found.cursor is None


def test_addresses_of_next_pages(fetch, customers):
    def answer(asked):
        after = {None: "/other?page=2", "2": "?page=3", "3": f"{service.url}/customers?page=4", "4": ""}
        here = asked.query.get("page")
        return Answer(body={"x": {"rows": [{"id": here}]}, "links": {"next": after[here]}})

    with Service(answer) as service:
        stream = customers(records="x.rows", paging={"type": "next_url", "next": "links.next"}, cursor=None)
        assert [r["id"] for r in records(fetch(service, stream))] == [None, "2", "3", "4"]
    assert [a.path for a in service.asked] == ["/customers", "/other", "/other", "/customers"]


def test_a_next_address_elsewhere_is_refused(fetch, customers):
    stream = customers(paging={"type": "next_url", "next": "next"})
    with (
        Service([page(1, next="https://evil.example/x")]) as service,
        pytest.raises(ConfigurationError, match=r"evil\.example"),
    ):
        fetch(service, stream)


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([page(1, next="a"), page(2, next="b"), page(3, next="a")], "already read"),
        ([page(1, next="a"), page(1, next="b")], "the same page twice"),
        ([page(next=str(n)) for n in range(200)], "100 pages without a record"),
        ([Answer(body={"items": []})], "no list of records at 'data', but NoneType"),
        ([Answer(body={"data": {"1": {}}})], "no list of records at 'data', but dict"),
        ([page(1, next={"x": 1})], "the paging token at 'next' is dict"),
        (
            [Answer(body=b"<html>", headers={"Content-Type": "text/html"})] * 3,
            "'text/html' that are not JSON",
        ),
        ([Answer(body=b'{"data": [')] * 3, "not JSON"),
    ],
)
def test_a_source_that_goes_in_circles_or_makes_no_sense(fetch, customers, answers, message):
    with Service(answers) as service, pytest.raises(DataError, match=message):
        fetch(service, customers())


@pytest.mark.parametrize(
    ("status", "error"),
    [(401, AccessError), (403, AccessError), (404, NotFoundError), (400, ConfigurationError)],
)
def test_what_no_retry_mends_fails_at_once(fetch, customers, status, error):
    with Service([Answer(status)]) as service, pytest.raises(error):
        fetch(service, customers())
    assert len(service.asked) == 1


@pytest.mark.parametrize(
    "trouble",
    [
        Answer(500),
        Answer(503, headers={"Retry-After": "0"}),
        Answer(429, headers={"Retry-After": "0.01"}),
        Answer(
            429,
            headers={"Retry-After": "Wed, 01 Jul 2026 10:00:01 GMT", "Date": "Wed, 01 Jul 2026 10:00:00 GMT"},
        ),
        Answer(429, headers={"RateLimit-Reset": "0.01"}),
        Answer(429, headers={"X-RateLimit-Reset": "1782900000.05", "Date": "Wed, 01 Jul 2026 10:00:00 GMT"}),
        Answer(429, headers={"X-RateLimit-Reset": "1782900000050", "Date": "Wed, 01 Jul 2026 10:00:00 GMT"}),
        Answer(body={"data": [1, 2, 3]}, cut=5),
        Answer(body=b"<html>back soon</html>"),
    ],
)
def test_a_bad_moment_is_waited_out(fetch, customers, trouble):
    with Service([trouble, page(1, next="a"), trouble, trouble, page(2)]) as service:
        assert [r["id"] for r in records(fetch(service, customers()))] == [1, 2]
    assert len(service.asked) == 5


@pytest.mark.parametrize(
    ("answers", "error", "asked", "retry_after"),
    [
        ([Answer(500)] * 3, UnavailableError, 3, None),
        ([Answer(429, headers={"Retry-After": "900"})], RateLimitedError, 1, 900),
        ([Answer(429, headers={"X-RateLimit-Reset": "900"})], RateLimitedError, 1, 900),
        ([Answer(429, headers={"X-RateLimit-Reset": "900", "Retry-After": "90"})], RateLimitedError, 1, 90),
        (
            [Answer(429, headers={"RateLimit-Reset": "1782900900", "Date": "Wed, 01 Jul 2026 10:00:00 GMT"})],
            RateLimitedError,
            1,
            900,
        ),
        ([Answer(429, headers={"X-RateLimit-Reset": "2026-07-01"})] * 3, RateLimitedError, 3, None),
        ([Answer(503, headers={"Retry-After": "3"})], UnavailableError, 1, 3),
        ([Answer(body=[1, 2, 3], cut=2)] * 3, UnavailableError, 3, None),
    ],
)
def test_what_takes_long_is_left_to_the_scheduler(fetch, customers, answers, error, asked, retry_after):
    with Service(answers) as service, pytest.raises(error) as caught:
        fetch(service, customers())
    assert len(service.asked) == asked
    assert caught.value.retry_after == retry_after


def test_the_cursor_goes_as_far_as_the_newest_row_of_the_window(fetch, customers):
    rows = [
        {"id": 1, "updated_at": "2026-07-01T23:59:59.5Z"},
        {"id": 2, "updated_at": "2026-07-01T10:00:00"},
        {"id": 3, "updated_at": "2026-07-02T00:00:00Z"},  # the end of the window
        {"id": 4, "updated_at": "2026-07-02T01:00:00+02:00"},
        {"id": 5, "updated_at": "never"},
        {"id": 6},
        "no record",
    ]
    with Service([Answer(body={"data": rows})] * 3) as service:
        found = fetch(service, customers())
        assert [r["id"] for r in records(found)[:-1]] == [1, 2, 4, 5, 6]
        assert found.cursor["value"] == "2026-07-01T23:59:59.5Z"
        assert found.detail == {"requests": 1, "left_for_later": 1, "already_landed": 0}
        assert "since" not in service.asked[0].query
        fetch(service, customers(), found.cursor)
        assert service.asked[1].query["since"] == "2026-07-01T23:59:59.5Z"
        late = {"column": "updated_at", "parameter": "since", "overlap": "1 hour"}
        fetch(service, customers(cursor=late), found.cursor)
        assert service.asked[2].query["since"] == "2026-07-01T22:59:59.500000Z"


def test_a_record_that_comes_again_is_left_out_until_it_changes(fetch, customers):
    moment = "2026-07-01T05:00:00Z"
    first = {"id": 1, "name": "Ada", "updated_at": moment}
    second = {"id": 2, "name": "Alan", "updated_at": moment}
    changed = {**first, "name": "Ada L."}
    answers = [[first], [first], [second, first], [changed, second], [changed, second]]
    cursor, landed = None, []
    with Service([Answer(body={"data": rows}) for rows in answers]) as service:
        for _ in answers:
            found = fetch(service, customers(), cursor)
            cursor = found.cursor
            landed.append(records(found))
    assert landed == [[first], [], [second], [changed], []]


def test_what_lies_in_the_overlap_is_landed_once(fetch, customers):
    stream = customers(cursor={"column": "updated_at", "parameter": "since", "overlap": "1 hour"})
    old, new = ({"id": i, "updated_at": f"2026-07-01T0{i}:00:00Z"} for i in (1, 5))
    late = {"id": 4, "updated_at": "2026-07-01T04:30:00Z"}
    with Service([Answer(body={"data": [old, new]}), Answer(body={"data": [late, new]})]) as service:
        first = fetch(service, stream)
        again = fetch(service, stream, first.cursor)
    assert len(first.cursor["seen"]) == 1
    assert records(again) == [late]
    assert len(again.cursor["seen"]) == 2


def test_nothing_new_keeps_the_cursor_and_another_column_starts_afresh(fetch, customers):
    before = {"column": "updated_at", "value": "2026-07-01T05:00:00Z"}
    with Service([page(), page(1)]) as service:
        assert fetch(service, customers(), before).cursor == before
        other = {"column": "id", "parameter": "above"}
        assert fetch(service, customers(cursor=other), before).cursor is None  # a number is no text
        assert service.asked[1].query == {}


@pytest.mark.parametrize(
    ("cursor", "message"),
    [
        ({"column": "nope", "parameter": "x"}, "'nope' is no column of crm.customers"),
        ({"column": "id", "parameter": "x", "overlap": "1 day"}, "overlap needs a cursor of type timestamp"),
    ],
)
def test_a_cursor_that_cannot_work(fetch, customers, cursor, message):
    with Service([]) as service, pytest.raises(ConfigurationError, match=message):
        fetch(service, customers(cursor=cursor))


def test_requests_are_evenly_spaced(fetch, customers):
    stream = customers(rate={"requests": 10, "per": "1 second"})
    answers = [page(1, next="a"), Answer(500), page(2, next="b"), page(3)]
    with Service(answers) as service:
        began = time.monotonic()
        found = fetch(service, stream, patience=Patience(base=0.0001))
        took = time.monotonic() - began
    assert [r["id"] for r in records(found)] == [1, 2, 3]
    # Four requests, three pauses: the second try waits for its turn like any other.
    assert took >= 0.3


def test_one_connection_serves_all_pages(fetch, customers):
    def answer(asked):
        number = int(asked.query.get("after", 0))
        return Answer(body={"data": [{"id": number}], "next": str(number + 1) if number < 200 else None})

    with Service(answer) as service:
        assert fetch(service, customers()).detail["requests"] == 201
    assert len(service.connections) == 1
