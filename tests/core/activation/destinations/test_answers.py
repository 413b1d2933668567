# SPDX-License-Identifier: Apache-2.0
"""What kinds share when they read answers."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from cdp_provider.core.activation.destinations.answers import body_of, error_body, objects, without_values
from cdp_provider.core.activation.destinations.base import Record
from cdp_provider.core.exceptions import DataError
from cdp_provider.core.http import Response


def response(body: bytes) -> Response:
    return Response("POST", "/x", 400, {}, body)


def record(key="ada@example.com", **fields):
    return Record(key, key, 1, fields, "upsert", "h", 0, datetime(2026, 7, 1, tzinfo=UTC))


def test_only_an_object_is_a_body():
    assert body_of(response(b'{"a": 1}')) == {"a": 1}
    with pytest.raises(DataError, match="JSON that is no object"):
        body_of(response(b"[1]"))
    assert error_body(response(b"[1]")) == error_body(response(b"<html>")) == {}


def test_lists_hold_objects_or_nothing():
    assert objects({"a": [{"b": 1}, None, "x"]}, "a") == [{"b": 1}]
    for parent in ({"a": {"b": 1}}, {}, None, [1]):
        assert objects(parent, "a") == []


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("ADA@example.com is fake", "… is fake"),
        ("'someone.else+x@mail.example.org', too", "'…', too"),
        ("Lovelace was born 1990-01-02 and spent 812.50", "… was born … and spent …"),
        ("Lovelaces cannot be DE, and True is true of 7", "Lovelaces cannot be DE, and True is true of 7"),
        ("Ada Lovelace is one value and Ada another", "… is one value and … another"),
    ],
)
def test_reasons_lose_what_they_quote(said, kept):
    fields = {
        "whole": "Ada Lovelace",
        "first": "Ada",
        "last": "Lovelace",
        "country": "DE",
        "born": date(1990, 1, 2),
        "spent": Decimal("812.50"),
        "vip": True,
        "orders": 7,
        "none": None,
    }
    assert without_values(said, record(**fields)) == kept


def test_addresses_are_left_out_of_what_is_said_of_nobody():
    assert without_values("ada@example.com, DE") == "…, DE"
