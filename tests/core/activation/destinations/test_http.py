# SPDX-License-Identifier: Apache-2.0
"""The described destination: pure mapping, no server needed."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from pydantic import ValidationError

from cdp_provider.core.activation.destinations import DESTINATIONS
from cdp_provider.core.activation.destinations.base import Outcome, Record
from cdp_provider.core.activation.destinations.http import HttpDestinationOptions
from cdp_provider.core.activation.encoding import encode
from cdp_provider.core.exceptions import DataError
from cdp_provider.core.http import Response
from tests.core.activation.scene import mail, newsletter


def kind(sync=None, **changed):
    return DESTINATIONS["http"](mail(**changed), sync or newsletter())


def record(key="a@x.org", operation="upsert", **fields):
    return Record(
        record_key=str(key),
        key=key,
        fields=fields,
        operation=operation,
        payload_hash="h",
        attempts=0,
        intended=datetime(2026, 7, 1, tzinfo=UTC),
    )


def response(body, status=200):
    return Response("POST", "/x", status, {}, json.dumps(body).encode())


def test_fields_under_their_key_and_beside_the_record_key():
    request = kind().request("upsert", [record(A=1), record("b@x.org", A=None)])
    assert (request.method, request.path) == ("POST", "/mail/lists/news/members")
    assert json.loads(request.json) == {
        "members": [{"email": "a@x.org", "fields": {"A": 1}}, {"email": "b@x.org", "fields": {"A": None}}]
    }
    flat = kind(fields=None, upsert={"path": "/bulk"}).request("upsert", [record(7, A=1)])
    assert json.loads(flat.json) == [{"email": 7, "A": 1}]


def test_a_removal_carries_the_key_alone():
    request = kind().request("remove", [record(operation="remove")])
    assert request.path == "/mail/lists/news/members/remove"
    assert json.loads(request.json) == {"members": [{"email": "a@x.org"}]}


def test_parameters_cannot_leave_their_place_in_the_path():
    sync = newsletter(parameters={"list": "../a/b?c=d#e{list}"})
    assert kind(sync).request("upsert", [record()]).path == (
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
        Outcome("rejected", "status None"),
        Outcome("retryable", "no answer for this record"),
        Outcome("removed"),
    ]
    assert kind(answer=None).outcomes("upsert", response(None, 204), records) == [Outcome("accepted")] * 3


@pytest.mark.parametrize("body", [{"results": None}, {"data": []}, 5, None])
def test_an_answer_without_results_cannot_be_read(body):
    with pytest.raises(DataError, match="without a list at results; check answer.results"):
        kind().outcomes("upsert", response(body), [record()])


def test_reasons_are_cut_and_storable():
    shape = {"status": "s", "accepted": ["ok"], "reason": "why"}
    body = [{"s": "no", "why": "x\x00y" * 1000}]
    (outcome,) = kind(answer=shape).outcomes("upsert", response(body), [record()])
    assert outcome.reason == ("xy" * 1000)[:500]


@pytest.mark.parametrize(
    ("changed", "sync", "message"),
    [
        ({"remove": None}, {}, "describes no remove call"),
        ({}, {"parameters": {}}, "needs the parameter 'list'"),
        ({"fields": None}, {"fields": {"email": "email"}}, "is the name of the key"),
    ],
)
def test_what_does_not_fit_together_is_told(changed, sync, message):
    problems = list(mail(**changed).options.sync_problems(newsletter(**sync)))
    assert len(problems) == 1
    assert message in problems[0].message
    assert problems[0].hint


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"upsert": {"path": "no/slash"}, "key": "k"},
        {"upsert": {"path": "/x", "method": "GET"}, "key": "k"},
        {"upsert": {"path": "/x"}, "key": "k", "surprise": 1},
        {"upsert": {"path": "/x"}, "key": "k", "answer": {"status": "s", "accepted": []}},
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
