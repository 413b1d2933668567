# SPDX-License-Identifier: Apache-2.0
"""The described destination: what its description may say, and tools of several shapes over HTTP."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, ClassVar

import pytest
from pydantic import ValidationError

from cdp_provider.core.activation.destinations import DESTINATIONS
from cdp_provider.core.activation.destinations.base import Outcome, Record, Refused
from cdp_provider.core.activation.destinations.http import HttpDestination
from cdp_provider.core.activation.destinations.http_options import HttpDestinationOptions
from cdp_provider.core.activation.encoding import encode
from cdp_provider.core.exceptions import DataError
from cdp_provider.core.http import Response
from cdp_provider.core.project.activation import Destination, Sync
from cdp_provider.testing.destinations import DestinationConformance, FakeAnswer, FakeVendor

MAIL = {
    "upsert": {"path": "/mail/lists/{list}/members", "body": "members"},
    "remove": {"path": "/mail/lists/{list}/members/remove", "body": "members"},
    "key": "email",
    "fields": "fields",
    "answer": {
        "results": "results",
        "key": "email",
        "status": "status",
        "accepted": ["created", "updated", "removed", "not_found"],
        "reason": "reason",
    },
}


class Tool(FakeVendor):
    """A tool with one batch endpoint per operation, that answers in one of the common ways."""

    def __init__(self, answers: str = "results") -> None:
        super().__init__()
        self.answers = answers
        self.contacts: dict[str, dict[str, Any]] = {}

    def answer(self, request):
        body = request.json()
        records = body if isinstance(body, list) else body["data"]["members"]
        if request.path.endswith("/search"):
            found = [{"email": r["email"], "fields": self.contacts.get(r["email"], {})} for r in records]
            return FakeAnswer(200, {"found": found})
        done = {record["email"]: self._apply(request.path, record) for record in records}
        refused = [(place, key) for place, key in enumerate(done) if not done[key]]
        if self.answers == "results":
            results = [{"email": key.upper(), "ok": ok, "why": f"{key} refused"} for key, ok in done.items()]
            return FakeAnswer(207, {"results": results})
        errors = [{"at": place, "who": key, "why": "refused"} for place, key in refused]
        return FakeAnswer(200, {"errors": errors} if errors or self.answers == "errors" else None)

    def _apply(self, path: str, record: dict[str, Any]) -> bool:
        key = record["email"]
        if key in self.refuses:
            return False
        if path.endswith("/remove"):
            self.contacts.pop(key, None)
        else:
            self.contacts.setdefault(key, {}).update(record.get("fields", {}))
        self.applied[key] += 1
        return True

    def holds(self):
        return {key: dict(fields) for key, fields in self.contacts.items()}


class OfTool(DestinationConformance):
    kind = HttpDestination
    options: ClassVar[dict[str, Any]] = {
        "upsert": {
            "path": "/lists/{list}/members",
            "body": "data.members",
            "with": {"data.list": "the {list}", "source": "cdp"},
        },
        "remove": {"path": "/lists/{list}/remove", "method": "DELETE"},
        "archive": {"path": "/lists/{list}/archive"},
        "read": {"path": "/search", "results": "found"},
        "key": "email",
        "fields": "fields",
        "answer": {
            "results": "results",
            "key": "email",
            "status": "ok",
            "accepted": [True],
            "reason": "why",
        },
        "max_record_bytes": "10 kB",
        "headers": {"remaining": "X-Left", "reset": "X-Reset", "retry_after": "X-Wait"},
    }
    sync: ClassVar[dict[str, Any]] = {
        "fields": {"FIRSTNAME": "first_name", "COUNTRY": "country"},
        "mode": "mirror",
        "parameters": {"list": "news"},
    }

    def vendor(self):
        return Tool()


class TestResultsByKey(OfTool):
    pass


class TestErrorsByIndex(OfTool):
    options: ClassVar[dict[str, Any]] = {
        **OfTool.options,
        "answer": {"errors": "errors", "index": "at", "reason": "why"},
        "headers": {"remaining": "X-Left", "reset": "X-Reset", "reset_is": "epoch"},
    }

    def vendor(self):
        return Tool("errors")


class TestEvents(OfTool):
    """Errors by key, and no second telling."""

    options: ClassVar[dict[str, Any]] = {
        "event": {"path": "/events", "name": "event", "time": "at", "id": "id"},
        "key": "email",
        "fields": "fields",
        "answer": {"errors": "errors", "key": "who", "reason": "why"},
        "repeatable": False,
    }
    sync: ClassVar[dict[str, Any]] = {"fields": {"COUNTRY": "country"}, "mode": "event"}

    def vendor(self):
        return Tool("errors")


def newsletter(**changed):
    given = {
        "name": "newsletter",
        "segment": "newsletter",
        "destination": "mail",
        "key": "email",
        "fields": {"FIRSTNAME": "first_name"},
        "mode": "mirror",
        "parameters": {"list": "news"},
    }
    return Sync.model_validate(given | changed)


def mail(**changed):
    options = HttpDestinationOptions.model_validate(MAIL | changed)
    return Destination(name="mail", type="http", connection="shop_mail", options=options)


def kind(sync=None, **changed):
    return DESTINATIONS["http"](mail(**changed), sync or newsletter())


def record(key="a@x.org", operation="upsert", **fields):
    return Record(
        record_key=f"record {key}",
        key=key,
        profile_id=1,
        fields=fields,
        operation=operation,
        payload_hash="h",
        attempts=0,
        intended=datetime(2026, 7, 1, tzinfo=UTC),
    )


def request_of(described, operation, records):
    items = [encode(described.item(operation, record)) for record in records]
    request = described.request(operation, records, items)
    return request, json.loads(request.body)


def response(body, status=200):
    return Response("POST", "/x", status, {}, json.dumps(body).encode())


def test_fields_under_their_key_and_beside_the_record_key():
    request, body = request_of(kind(), "upsert", [record(A=1), record("b@x.org", A=None)])
    assert (request.method, request.path) == ("POST", "/mail/lists/news/members")
    assert body == {
        "members": [{"email": "a@x.org", "fields": {"A": 1}}, {"email": "b@x.org", "fields": {"A": None}}]
    }
    _, flat = request_of(kind(fields=None, upsert={"path": "/bulk"}), "upsert", [record(7, A=1)])
    assert flat == [{"email": 7, "A": 1}]


def test_constants_stand_beside_the_list():
    call = {"path": "/x", "body": "data.items", "with": {"data.type": "{list}-job", "n": 5, "on": True}}
    _, body = request_of(kind(upsert=call, fields=None), "upsert", [record()])
    assert body == {"data": {"type": "news-job", "items": [{"email": "a@x.org"}]}, "n": 5, "on": True}


def test_each_operation_has_its_call():
    calls = {name: {"path": f"/{name}"} for name in ("insert", "update", "archive")}
    described = kind(**calls)
    assert described.capabilities.operations == {"upsert", "remove", *calls}
    for name in calls:
        assert request_of(described, name, [record(operation=name)])[0].path == f"/{name}"
    request, body = request_of(described, "remove", [record(operation="remove")])
    assert request.path == "/mail/lists/news/members/remove"
    assert body == {"members": [{"email": "a@x.org"}]}


def test_an_event_says_its_name_and_time():
    call = {"path": "/e", "name": "what", "time": "when", "id": "id"}
    sync = newsletter(mode="event", event="Joined")
    _, body = request_of(kind(sync, event=call), "event", [record(operation="event", A=1)])
    assert body == [
        {
            "email": "a@x.org",
            "what": "Joined",
            "when": "2026-07-01T00:00:00Z",
            "id": "record a@x.org",
            "fields": {"A": 1},
        }
    ]


def test_parameters_cannot_leave_their_place_in_the_path():
    sync = newsletter(parameters={"list": "../a/b?c=d#e{list}"})
    assert request_of(kind(sync), "upsert", [record()])[0].path == (
        "/mail/lists/..%2Fa%2Fb%3Fc%3Dd%23e%7Blist%7D/members"
    )


def test_results_by_key_by_place_and_by_status_alone():
    records = [record("a"), record("b"), record("c")]
    shape = {"results": "data.items", "status": "s.code", "accepted": ["1"], "reason": "s.why"}
    items = [{"s": {"code": 1}}, {"s": {"code": 2, "why": "full"}}]
    by_place = kind(answer=shape).outcomes("upsert", response({"data": {"items": items}}), records)
    assert by_place == [
        Outcome("accepted"),
        Outcome("rejected", "full"),
        Outcome("retryable", "no answer for this record"),
    ]
    keyed = [{"id": "c", "s": {"code": 1}}, "noise", {"id": "a", "s": 5}]
    by_key = kind(answer=shape | {"results": None, "key": "id"}).outcomes("remove", response(keyed), records)
    assert by_key == [
        Outcome("rejected", "status null"),
        Outcome("retryable", "no answer for this record"),
        Outcome("accepted"),
    ]
    assert kind(answer=None).outcomes("upsert", response(None, 204), records) == [Outcome("accepted")] * 3


@pytest.mark.parametrize("body", [{"results": None}, {"data": []}, 5, None])
def test_an_answer_without_results_cannot_be_read(body):
    with pytest.raises(DataError, match="without a list at results; check how destination mail describes"):
        kind().outcomes("upsert", response(body), [record()])


@pytest.mark.parametrize(
    ("shape", "named"),
    [({"index": "at"}, {"at": 1}), ({"key": "id"}, {"id": " B "}), ({"index": "at"}, {"at": "1"})],
)
def test_who_is_not_among_the_errors_is_accepted(shape, named):
    described = kind(answer={"errors": "e.list", "reason": "why", **shape})
    records = [record("a"), record("b"), record("c")]
    body = {"e": {"list": [{**named, "why": "full"}]}}
    states = [o.state for o in described.outcomes("upsert", response(body), records)]
    assert states == ["accepted", "rejected", "accepted"]
    assert described.outcomes("upsert", response({}), records) == [Outcome("accepted")] * 3
    with pytest.raises(DataError, match=r"without a list at e\.list"):
        described.outcomes("upsert", response({"e": {"list": 5}}), records)


def test_an_error_that_names_nobody_is_the_only_records_or_halves_the_batch():
    described = kind(answer={"errors": "errors", "index": "at", "reason": "why"})
    body = response({"errors": [{"at": 9, "why": "full"}, "noise"]})
    with pytest.raises(Refused, match="full"):
        described.outcomes("upsert", body, [record("a"), record("b")])
    assert [o.state for o in described.outcomes("upsert", body, [record("a")])] == ["rejected"]


@pytest.mark.parametrize(
    ("when", "body", "refused"),
    [
        ("error", {"error": "full"}, True),
        ("error", {"error": None}, False),
        ("error", {}, False),
        ({"ok": False}, {"ok": False, "error": "full"}, True),
        ({"ok": False}, {"ok": True}, False),
        ({"s.code": 5}, {"s": {"code": 5}, "error": "full"}, True),
        ({"ok": False}, [], False),
    ],
)
def test_a_refusal_inside_a_200(when, body, refused):
    described = kind(answer={"refused_when": when, "reason": "error"})
    if refused:
        with pytest.raises(Refused, match="full"):
            described.inspect(response(body))
    else:
        described.inspect(response(body))
    described.inspect(response(body, 500))
    described.inspect(Response("POST", "/x", 200, {}, b"<html>"))


def test_what_the_tool_holds_is_asked_for():
    class Asked:
        idempotency_key = "k"

        async def send(self, request, *, records=0):
            self.request = request
            held = [{"email": "A@x.org", "fields": {"A": 1, "B": ""}}]
            return response({"found": held})

    line = Asked()
    described = kind(read={"path": "/search", "body": "people", "results": "found"})
    assert described.capabilities.reads
    empty = asyncio.run(described.empty(line, [record("b@x.org"), record("a@x.org")], ["A", "B", "C"]))
    assert empty == [{"A", "B", "C"}, {"B", "C"}]
    assert json.loads(line.request.body) == {"people": [{"email": "b@x.org"}, {"email": "a@x.org"}]}


def test_reasons_are_cut_and_storable_and_without_values():
    shape = {"status": "s", "accepted": ["ok"], "reason": "why"}
    body = [{"s": "no", "why": "a@x.org Ada" + "x\x00y" * 1000}]
    (outcome,) = kind(answer=shape).outcomes("upsert", response(body), [record(NAME="Ada")])
    assert len(outcome.reason) == 500
    assert not {"\x00", "a@x.org"} & set(outcome.reason.split())
    assert "@" not in outcome.reason


def test_capabilities_are_as_described():
    told = kind(max_bytes="1 MB", max_record_bytes="2 kB", key_case="lower", repeatable=False)
    able = told.capabilities
    assert (able.max_batch, able.max_bytes, able.max_record_bytes) == (100, 1_000_000, 2_000)
    assert able.folds_keys
    assert not able.repeatable
    assert not able.reads
    assert kind(headers={"retry_after": "X-Wait"}).rate_headers.retry_after == "X-Wait"


@pytest.mark.parametrize(
    ("changed", "sync", "message"),
    [
        ({"remove": None}, {}, "describes no remove call"),
        ({}, {"mode": "insert"}, "describes no insert call"),
        ({}, {"mode": "archive"}, "describes no archive call"),
        ({}, {"mode": "event"}, "describes no event call"),
        ({}, {"fields": {"A": {"from": "a", "write": "if_empty"}}}, "describes no read call"),
        ({}, {"parameters": {}}, "needs the parameter 'list'"),
        ({"upsert": {"path": "/x", "body": "b", "with": {"a": "{other}"}}}, {}, "the parameter 'other'"),
        ({"fields": None}, {"fields": {"email": "email"}}, "is the name of the key"),
    ],
)
def test_what_does_not_fit_together_is_told(changed, sync, message):
    problems = list(mail(**changed).options.sync_problems(newsletter(**sync)))
    assert len(problems) == 1
    assert message in problems[0].message
    assert problems[0].hint


def test_a_mirror_that_removes_nobody_needs_no_remove_call():
    for removal in ("nothing", "clear"):
        assert not list(mail(remove=None).options.sync_problems(newsletter(removal=removal)))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"key": "k"},
        {"upsert": {"path": "no/slash"}, "key": "k"},
        {"upsert": {"path": "/x", "method": "GET"}, "key": "k"},
        {"upsert": {"path": "/x"}, "key": "k", "surprise": 1},
        {"upsert": {"path": "/x", "with": {"a": 1}}, "key": "k"},
        {"upsert": {"path": "/x"}, "key": "k", "idempotency_header": "X Y"},
        *(
            {"upsert": {"path": "/x"}, "key": "k", "answer": answer}
            for answer in (
                {},
                {"results": "r"},
                {"status": "s", "accepted": []},
                {"accepted": ["ok"]},
                {"errors": "e"},
                {"errors": "e", "key": "k", "index": "i"},
                {"errors": "e", "key": "k", "status": "s", "accepted": ["ok"]},
                {"status": "s", "accepted": ["ok"], "index": "i"},
            )
        ),
    ],
)
def test_faulty_options_are_refused(options):
    with pytest.raises(ValidationError):
        HttpDestinationOptions.model_validate(options)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Decimal("12.500000"), "12.5"),
        (Decimal("100.000000"), "100"),
        (Decimal("100"), "100"),
        (Decimal("0E-6"), "0"),
        (Decimal("-0.000001"), "-0.000001"),
        (Decimal("1234567890123456789012.123456"), "1234567890123456789012.123456"),
        (datetime(2026, 7, 1, 12, tzinfo=UTC), '"2026-07-01T12:00:00Z"'),
        (datetime(2026, 7, 1, 12, 0, 0, 1500, tzinfo=UTC), '"2026-07-01T12:00:00.001500Z"'),
        (date(2026, 7, 1), '"2026-07-01"'),
        (None, "null"),
        (True, "true"),
        (2**63 - 1, str(2**63 - 1)),
    ],
)
def test_values_as_json(value, text):
    assert encode(value).decode() == text


def test_a_value_without_a_json_form_is_refused():
    with pytest.raises(TypeError, match="complex"):
        encode(1j)
