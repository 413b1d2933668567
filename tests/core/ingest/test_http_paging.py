# SPDX-License-Identifier: Apache-2.0
"""Every way from page to page, against a real server that knows just that one."""

from __future__ import annotations

from typing import Any

import pytest

from cdp_provider.core.exceptions import ConfigurationError, DataError
from tests.core.ingest.fetching import fetch, stream_of
from tests.core.ingest.service import Answer, Asked, Service

#: Seven customers, three to a page.
ROWS = [{"id": f"c{n}", "at": {"key": n}} for n in range(7)]


def rows(asked: Asked, start: int) -> dict[str, Any]:
    return {"data": ROWS[start : start + int(asked.query.get("limit", 3))]}


def by_offset(asked: Asked) -> Answer:
    return Answer(body=rows(asked, int(asked.query["offset"])))


def by_page(asked: Asked) -> Answer:
    start = 3 * (int(asked.query["page"]) - 1)
    return Answer(body={**rows(asked, start), "meta": {"more": start < 6}})


def by_last_record(asked: Asked) -> Answer:
    after = asked.query.get("starting_after")
    start = 0 if after is None else 1 + [row["id"] for row in ROWS].index(after)
    return Answer(body={**rows(asked, start), "has_more": start + 3 < 7})


def by_token(asked: Asked) -> Answer:
    start = int(asked.query.get("after", 0))
    end = start + 3 >= 7
    # Some sources name a token for later on their last page, too.
    return Answer(body={**rows(asked, start), "next": str(start + 3), "end": end, "more": not end})


def by_link(asked: Asked) -> Answer:
    start = int(asked.query.get("from", 0))
    links = ['<https://docs.example/a,b>; title="rel=next, or not"; rel="help"']
    if start + 3 < 7:
        links.append(f'</customers?from={start + 3}&limit=3>; rel="last next"; title="a, b"')
    return Answer(body=rows(asked, start), headers={"Link": ", ".join(links)})


def by_address(asked: Asked) -> Answer:
    start = int(asked.query.get("from", 0))
    address = f"{asked.path}?from={start + 3}"
    return Answer(body={**rows(asked, start), "links": {"next": address}, "end": start + 3 >= 7})


@pytest.mark.parametrize(
    ("answers", "paging", "requests"),
    [
        (by_offset, {"type": "offset"}, 4),
        (by_page, {"type": "page"}, 4),
        (by_page, {"type": "page", "more": "meta.more"}, 3),
        (by_last_record, {"type": "last_record", "field": "id", "parameter": "starting_after"}, 4),
        (
            by_last_record,
            {"type": "last_record", "field": "id", "parameter": "starting_after", "more": "has_more"},
            3,
        ),
        (by_token, {"type": "cursor", "next": "next", "parameter": "after", "done": "end"}, 3),
        (by_token, {"type": "cursor", "next": "next", "parameter": "after", "more": "more"}, 3),
        (by_link, {"type": "link"}, 3),
        (by_address, {"type": "next_url", "next": "links.next", "done": "end"}, 3),
    ],
)
def test_every_record_comes_once(answers, paging, requests):
    with Service(answers) as service:
        got = fetch(service, stream_of(paging=paging, page_size={"parameter": "limit", "value": 3}))
    assert got.ids == [row["id"] for row in ROWS]
    assert (got.detail, len(service.asked)) == ({"requests": requests}, requests)
    assert len(service.connections) == 1


def test_an_offset_grows_by_what_came_and_not_by_what_was_asked_for():
    with Service(by_offset) as service:
        stream = stream_of(paging={"type": "offset", "start": 1}, parameters={"limit": 2})
        assert fetch(service, stream).ids == ["c1", "c2", "c3", "c4", "c5", "c6"]
    assert [asked.query["offset"] for asked in service.asked] == ["1", "3", "5", "7"]


def test_a_token_may_lie_deep_in_the_last_record():
    with Service([Answer(body={"data": ROWS[:2]}), Answer(body={"data": []})]) as service:
        paging = {"type": "last_record", "field": "at.key", "parameter": "above"}
        assert fetch(service, stream_of(paging=paging)).ids == ["c0", "c1"]
    assert service.asked[1].query == {"above": "1"}


@pytest.mark.parametrize(
    ("paging", "body", "message"),
    [
        (
            {"type": "cursor", "next": "next", "parameter": "after", "more": "hasmore"},
            {"next": "x", "has_more": True},
            "no boolean at 'hasmore' of the answer, but NoneType; correct paging.more",
        ),
        (
            {"type": "cursor", "next": "next", "parameter": "after", "more": "more"},
            {"next": "x", "more": "yes"},
            "no boolean at 'more' of the answer, but str",
        ),
        (
            {"type": "last_record", "field": "key", "parameter": "after"},
            {},
            "last record's 'key' is NoneType; correct paging.field",
        ),
        ({"type": "offset"}, {}, "the same page twice"),
        ({"type": "page"}, {}, "the same page twice"),
        ({"type": "next_url", "next": "next"}, {"next": "/customers"}, "the same page twice"),
        ({"type": "next_url", "next": "next"}, {"next": "?x=1"}, "the same page twice"),
    ],
)
def test_a_source_that_is_paged_otherwise_is_found_out(paging, body, message):
    """It always gives the same records, whatever it is asked."""
    with Service(lambda _: Answer(body={"data": ROWS[:2], **body})) as service:
        with pytest.raises(DataError, match=message):
            fetch(service, stream_of(paging=paging))
        assert len(service.asked) <= 2


def test_an_address_that_leads_back_is_a_circle():
    def answer(asked: Asked) -> Answer:
        page = int(asked.query.get("p", 0))
        return Answer(body={"data": [{"id": len(service.asked)}], "next": f"?p={page % 2 + 1}"})

    with Service(answer) as service:
        with pytest.raises(DataError, match="already read"):
            fetch(service, stream_of(paging={"type": "next_url", "next": "next"}))
        assert len(service.asked) == 3


def test_without_more_and_without_token_the_end_is_the_end():
    paging = {"type": "cursor", "next": "next", "parameter": "after", "more": "more"}
    with Service([Answer(body={"data": ROWS[:1]})]) as service:
        assert fetch(service, stream_of(paging=paging)).ids == ["c0"]


@pytest.mark.parametrize(
    "target", ["https://elsewhere.example/x", "//elsewhere.example/x", "http://127.0.0.1:1/x"]
)
def test_a_link_to_another_host_is_refused(target):
    answer = Answer(body={"data": []}, headers={"Link": f"<{target}>; rel=next"})
    with Service([answer]) as service:
        with pytest.raises(ConfigurationError, match="another host"):
            fetch(service, stream_of(paging={"type": "link"}))
        assert len(service.asked) == 1
