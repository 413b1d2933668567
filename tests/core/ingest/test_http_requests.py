# SPDX-License-Identifier: Apache-2.0
"""What is sent: bodies, GraphQL, moments in places and in texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from cdp_provider.core.exceptions import ConfigurationError, DataError, RateLimitedError
from tests.core.ingest.fetching import fetch, stream_of
from tests.core.ingest.service import Answer, Asked, Service

if TYPE_CHECKING:
    from cdp_provider.core.project.problems import Problems

CURSOR = {"column": "updated_at", "value": "2026-06-30T12:00:00.5Z"}
UNIX = {"updated_at": {"type": "timestamp", "format": "unix"}}


def empty(_: Asked) -> Answer:
    return Answer(body={"data": []})


def sent(stream: Any, cursor: Any = None, **more: Any) -> Asked:
    """The first request."""
    with Service(empty) as service:
        fetch(service, stream, cursor, **more)
    return service.asked[0]


def test_with_post_everything_that_changes_goes_into_the_body():
    """A search such as HubSpot's, which pages by offset in the body."""

    def answer(asked: Asked) -> Answer:
        after = asked.json.get("paging", {}).get("after", 0)
        rows = [{"id": n} for n in range(after, min(after + asked.json["paging"]["limit"], 5))]
        return Answer(body={"data": rows, "next": {"after": after + 2 if after + 2 < 5 else None}})

    stream = stream_of(
        method="POST",
        parameters={"archived": False, "properties": ["a", "b"]},
        body={"filters": [{"name": "changed", "value": None}], "sort": ["changed"]},
        page_size={"parameter": "paging.limit", "value": 2},
        paging={"type": "cursor", "next": "next.after", "parameter": "paging.after"},
        cursor={"column": "updated_at", "parameter": "filters.0.value", "format": "unix_ms"},
    )
    with Service(answer) as service:
        assert fetch(service, stream, CURSOR).ids == [0, 1, 2, 3, 4]
    filters = {"filters": [{"name": "changed", "value": 1782820800500}], "sort": ["changed"]}
    assert [asked.json for asked in service.asked] == [
        {**filters, "paging": {"limit": 2}},
        {**filters, "paging": {"limit": 2, "after": 2}},
        {**filters, "paging": {"limit": 2, "after": 4}},
    ]
    for asked in service.asked:
        assert asked.pairs == [("archived", "false"), ("properties", "a"), ("properties", "b")]
        assert asked.headers["Content-Type"] == "application/json"
    # The options are as they were: the next batch builds its requests from them.
    assert stream.options.body == {"filters": [{"name": "changed", "value": None}], "sort": ["changed"]}


def test_a_place_that_leads_nowhere():
    stream = stream_of(method="POST", body={"a": [1]}, page_size={"parameter": "a.3.b", "value": 2})
    with Service(empty) as service, pytest.raises(ConfigurationError, match=r"no place 'a\.3\.b'.*in a list"):
        fetch(service, stream)
    assert service.asked == []


@pytest.mark.parametrize(
    ("form", "columns", "cursor", "since", "until"),
    [
        (None, {}, CURSOR, "2026-06-30T12:00:00.5Z", "2026-07-02T00:00:00Z"),
        ("iso", {}, CURSOR, "2026-06-30T12:00:00.500000Z", "2026-07-02T00:00:00Z"),
        ("unix", {}, CURSOR, 1782820800, 1782950400),
        ("unix_ms", {}, CURSOR, 1782820800500, 1782950400000),
        ("date", {}, CURSOR, "2026-06-30", "2026-07-02"),
        (None, UNIX, {**CURSOR, "value": 1782820800}, 1782820800, 1782950400),
        ("iso", UNIX, {**CURSOR, "value": 1782820800}, "2026-06-30T12:00:00Z", "2026-07-02T00:00:00Z"),
        (None, {"updated_at": "date"}, {**CURSOR, "value": "2026-06-30"}, "2026-06-30", "2026-07-02"),
        (None, {}, None, "1970-01-01T00:00:00Z", "2026-07-02T00:00:00Z"),
        ("unix", {}, None, 0, 1782950400),
        (None, {"updated_at": "date"}, None, "1970-01-01", "2026-07-02"),
        (None, {"updated_at": "integer"}, None, 0, "2026-07-02T00:00:00Z"),
        (None, {"updated_at": "integer"}, {**CURSOR, "value": 77}, 77, "2026-07-02T00:00:00Z"),
        (None, {"updated_at": "string"}, {**CURSOR, "value": "b7"}, "b7", "2026-07-02T00:00:00Z"),
    ],
)
def test_moments_stand_in_texts(form, columns, cursor, since, until):
    stream = stream_of(
        columns,
        method="POST",
        body={"q": [{"gte": "{since}"}, {"text": "changed >= '{since}' and < '{until}'"}], "n": 1},
        parameters={"f": "greater-than(updated,{since})", "to": "{until}"},
        cursor={"column": "updated_at", "format": form},
    )
    asked = sent(stream, cursor)
    assert asked.json == {
        "q": [{"gte": since}, {"text": f"changed >= '{since}' and < '{until}'"}],
        "n": 1,
    }
    assert asked.query == {"f": f"greater-than(updated,{since})", "to": str(until)}


@pytest.mark.parametrize(
    ("columns", "cursor", "query"),
    [
        ({}, {"parameter": "since", "start": "2020-01-01"}, {"since": "2020-01-01"}),
        ({}, {"parameter": "since", "start": "2020-01-01", "format": "unix"}, {"since": "1577836800"}),
        (UNIX, {"parameter": "since", "start": "2020-01-01"}, {"since": "1577836800"}),
        (UNIX, {"parameter": "since", "start": 1577836800}, {"since": "1577836800"}),
        (
            {},
            {"parameter": "since", "start": "2020-01-01", "format": "iso"},
            {"since": "2020-01-01T00:00:00Z"},
        ),
        ({"updated_at": "integer"}, {"parameter": "since", "start": 5}, {"since": "5"}),
        ({}, {"parameter": "since"}, {}),
    ],
)
def test_before_there_is_a_cursor(columns, cursor, query):
    assert sent(stream_of(columns, cursor={"column": "updated_at", **cursor})).query == query


def test_an_overlap_is_taken_off_in_the_form_of_the_source():
    cursor = {"column": "updated_at", "parameter": "since", "overlap": "10 minutes"}
    assert sent(stream_of(UNIX, cursor=cursor), {**CURSOR, "value": "1782820800"}).query == {
        "since": "1782820200"
    }
    assert sent(stream_of(cursor={**cursor, "format": "date"}), CURSOR).query == {"since": "2026-06-30"}


QUERY = """query($first: Int!, $after: String, $query: String) {
  customers(first: $first, after: $after, query: $query) {
    nodes { id updatedAt } pageInfo { hasNextPage endCursor }
  }
}"""
GRAPHQL = {
    "path": "/graphql.json",
    "graphql": QUERY,
    "records": "data.customers.nodes",
    "page_size": {"parameter": "first", "value": 2},
    "parameters": {"query": "updated_at:>='{since}'", "sort": {"key": "UPDATED_AT"}},
    "paging": {
        "type": "cursor",
        "next": "data.customers.pageInfo.endCursor",
        "parameter": "after",
        "more": "data.customers.pageInfo.hasNextPage",
    },
    "cursor": {"column": "updated_at", "format": "iso"},
}


def graphql(**answer: Any) -> Answer:
    customers = {"nodes": [{"id": "g1"}], "pageInfo": {"hasNextPage": False, "endCursor": "e"}}
    return Answer(body={"data": {"customers": customers}} | answer)


def test_graphql_pages_by_its_variables():
    first = graphql()
    first.body["data"]["customers"] = {
        "nodes": [{"id": "g0"}],
        "pageInfo": {"hasNextPage": True, "endCursor": "c1"},
    }
    with Service([first, graphql()]) as service:
        assert fetch(service, stream_of(**GRAPHQL), CURSOR).ids == ["g0", "g1"]
    variables = {
        "first": 2,
        "query": "updated_at:>='2026-06-30T12:00:00.500000Z'",
        "sort": {"key": "UPDATED_AT"},
    }
    assert [asked.json for asked in service.asked] == [
        {"query": QUERY, "variables": variables},
        {"query": QUERY, "variables": {**variables, "after": "c1"}},
    ]
    assert {(asked.path, len(asked.query)) for asked in service.asked} == {("/graphql.json", 0)}


THROTTLED = {
    "data": None,
    "errors": [{"message": "Throttled", "extensions": {"code": "THROTTLED"}}],
    "extensions": {
        "cost": {
            "requestedQueryCost": 112,
            "throttleStatus": {"maximumAvailable": 2000, "currentlyAvailable": 102, "restoreRate": 1000},
        }
    },
}


def test_a_throttled_graphql_source_is_asked_again():
    with Service([graphql(**THROTTLED), graphql()]) as service:
        assert fetch(service, stream_of(**GRAPHQL)).ids == ["g1"]
        pause = service.asked[1].at - service.asked[0].at
    assert 0.01 <= pause < 1
    slow = {
        **THROTTLED,
        "extensions": {"cost": {**THROTTLED["extensions"]["cost"], "requestedQueryCost": 5102}},
    }
    with Service([graphql(**slow)]) as service, pytest.raises(RateLimitedError) as caught:
        fetch(service, stream_of(**GRAPHQL))
    assert caught.value.retry_after == 5


@pytest.mark.parametrize(
    ("errors", "told"),
    [
        (
            [
                {
                    "message": "jane@example.com is unknown",
                    "path": ["customers", "nodes", 0, "jane@example.com"],
                    "extensions": {"code": "ACCESS_DENIED"},
                },
                {"message": "secret", "type": "undefinedField"},
                {"message": "secret"},
                "secret",
            ],
            r"3 GraphQL error\(s\): ACCESS_DENIED at customers\.nodes\.0, undefinedField, no code;",
        ),
        ([{"extensions": {"code": "jane@example.com"}}], r"1 GraphQL error\(s\): no code;"),
        ("secret", "unreadable GraphQL"),
    ],
)
def test_graphql_errors_are_told_without_data(errors, told):
    """Even where there is data beside them: it would not be whole."""
    with Service([graphql(errors=errors)]) as service:
        with pytest.raises(DataError, match=told) as caught:
            fetch(service, stream_of(**GRAPHQL))
        assert len(service.asked) == 1
    assert not {"jane", "secret"} & set(str(caught.value).replace("@", " ").split())


def test_no_errors_are_none():
    with Service([graphql(errors=[])]) as service:
        assert fetch(service, stream_of(**GRAPHQL)).ids == ["g1"]


WINDOW = {"start": "a", "end": "b", "step": "1 day"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"body": {}}, "a GET request has no body"),
        ({"body": {}, "graphql": "{ a }"}, "has a body of its own"),
        ({"parameters": {"a": {"b": 1}}}, "'a' is dict"),
        ({"parameters": {"a": "{since}"}}, "there is none; add `cursor`"),
        ({"cursor": {"column": "updated_at"}}, "nothing tells the source where to go on"),
        ({"window": WINDOW}, "add `cursor"),
        (
            {"window": WINDOW, "cursor": {"column": "updated_at", "parameter": "since"}},
            "asks for the changes already",
        ),
        (
            {"window": {"start": "a", "step": "1 day"}, "cursor": {"column": "updated_at"}},
            "the end of a stretch goes nowhere",
        ),
        ({"window": {**WINDOW, "from": "soon"}, "cursor": {"column": "updated_at"}}, "'soon' is no moment"),
        ({"rate": {"requests": 0, "per": "1 minute"}}, "greater than or equal to 1"),
        ({"paging": {"type": "link", "next": "x"}}, "Extra inputs"),
    ],
)
def test_options_that_contradict_each_other(options, message):
    with pytest.raises(ValueError, match=message):
        stream_of(**options)


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({}, {"cursor": {"column": "up", "parameter": "x"}}, "'up' is no column of crm.customers"),
        ({"n": "number"}, {"cursor": {"column": "n", "parameter": "x"}}, "is of type number; a cursor must"),
        ({}, {"cursor": {"column": "id", "parameter": "x", "format": "unix"}}, "format of a cursor is for"),
        ({}, {"cursor": {"column": "id"}, "window": WINDOW}, "a window is for timestamps and dates"),
        (
            {},
            {"cursor": {"column": "updated_at", "parameter": "x", "start": "soon"}},
            "'soon' is no moment",
        ),
    ],
)
def test_a_cursor_that_cannot_work_is_found_before_anything_is_asked(columns, options, message):
    stream = stream_of(columns, **options)
    assert [problem for problem in stream.options.stream_problems(stream) if message in problem.message]
    with Service([]) as service, pytest.raises(ConfigurationError, match=message):
        fetch(service, stream)


def test_problems_say_where():
    with pytest.raises(ValidationError) as caught:
        stream_of(cursor={"column": "updated_at"}, window={"step": "1 day"})
    problems: Problems = caught.value.errors()[0]["ctx"]["error"]
    assert [(problem.path, problem.missing) for problem in problems.problems] == [
        (("window",), "start"),
        (("window",), "end"),
    ]
