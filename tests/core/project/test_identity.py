# SPDX-License-Identifier: Apache-2.0
"""Identity rules as Python has them: what follows from what is not said, and what is refused."""

from __future__ import annotations

from datetime import timedelta

import pytest
from pydantic import ValidationError

from cdp_provider.core.project.base import parse_size
from cdp_provider.core.project.identity import (
    Allow,
    Deny,
    Exclude,
    ExcludedRow,
    Identifier,
    Identity,
)
from cdp_provider.core.project.patterns import pattern_fault
from tests.core.project.example import GOOD, load_text


def test_rules_of_a_file_are_those_of_python():
    identity = load_text(GOOD).identity
    assert identity.rules == (
        Deny(deny=({"email": "eve@example.com"}, {"user_id": "17"})),
        Allow(allow=({"email": "jo@example.com"}, {"email": "joanna@example.com"})),
        Exclude(exclude={"phone": "+4930555000"}),
        Exclude(exclude=ExcludedRow(stream="crm.customers", key=("C-1004",))),
        Exclude(exclude=ExcludedRow(stream="web.events", key=("m-1",))),
    )
    assert identity == Identity(
        over_limit="refuse",
        memory=512_000_000,
        identifiers={
            "user_id": Identifier(priority=1),
            "email": Identifier(
                priority=2,
                limit=3,
                within=timedelta(days=365),
                normalize="email",
                block=("test@example.com",),
            ),
            "phone": Identifier(normalize="phone", region="DE", region_column="country", hub=50),
            "card": Identifier(
                within=timedelta(days=10), normalize="shop.cards:number", block_patterns=("9+",)
            ),
        },
        rules=identity.rules,
    )


def test_s3_without_priorities_user_id_comes_before_email_before_the_rest_by_name():
    names = ("ga_client_id", "email", "anonymous_id", "user_id")
    identity = Identity(identifiers={name: Identifier() for name in names})
    assert identity.ranked() == ["user_id", "email", "anonymous_id", "ga_client_id"]
    more = Identity(identifiers={**identity.identifiers, "android_id": Identifier()})
    assert more.ranked() == ["user_id", "email", "android_id", "anonymous_id", "ga_client_id"]


def test_stated_priorities_come_first():
    identity = Identity(
        identifiers={
            "user_id": Identifier(),
            "b": Identifier(priority=7),
            "a": Identifier(priority=7),
            "email": Identifier(),
            "z": Identifier(priority=1),
        }
    )
    assert identity.ranked() == ["z", "a", "b", "user_id", "email"]


def test_s4_one_user_id_and_five_of_all_others_unless_stated():
    identity = Identity(identifiers={"user_id": Identifier(hub=3), "email": Identifier()})
    assert {name: rule.limit for name, rule in identity.identifiers.items()} == {"user_id": 1, "email": 5}
    assert identity.identifiers["user_id"].hub == 3
    assert Identity(identifiers=identity.identifiers) == identity
    stated = Identity(identifiers={"user_id": Identifier(limit=5)})
    assert stated.identifiers["user_id"].limit == 5
    bare = GOOD.replace("user_id: {priority: 1}", "user_id: {}")
    assert load_text(bare).identity.identifiers["user_id"].limit == 1


@pytest.mark.parametrize(
    ("window", "days"), [("weekly", 7), ("monthly", 30), ("annually", 365), ("10 days", 10), ("2 weeks", 14)]
)
def test_windows(window: str, days: int):
    assert Identifier.model_validate({"within": window}).within == timedelta(days=days)


@pytest.mark.parametrize(
    ("size", "count"),
    [("4 GB", 4 * 10**9), ("512MB", 512 * 10**6), (" 1 kB ", 1000), ("2 TB", 2 * 10**12), (7, 7)],
)
def test_sizes_are_decimal(size: str | int, count: int):
    assert parse_size(size) == count


@pytest.mark.parametrize(
    "size", ["4", "4GiB", "4 gb", "-4 GB", "1.5 GB", "", 1.5, True, None, [], "9999999999 TB"]
)
def test_what_is_no_size(size: object):
    with pytest.raises(ValueError, match="is no size; write"):
        parse_size(size)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"deny": [{"email": "a"}]}, "here stand 1"),
        ({"deny": [{"email": "a", "user_id": "b"}, {"email": "b"}]}, "here stand 2"),
        ({"deny": [{}, {"email": "b"}]}, "here stand 0"),
        ({"allow": [{"email": "a"}, {"email": 5}]}, "valid string"),
        ({"exclude": {}}, "here stand 0"),
        ({"exclude": "a"}, "the stream and the key of a row"),
        ({"exclude": {"stream": "a.b", "key": ()}}, "at least 1"),
        ({"deny": [{"email": "a"}, {"email": "b"}], "allow": []}, "exactly one of the keys"),
        ({}, "exactly one of the keys"),
        ("deny", "exactly one of the keys"),
    ],
)
def test_rules_that_are_none(rule: object, words: str):
    with pytest.raises(ValidationError, match=words):
        Identity.model_validate({"rules": [rule]})


def test_the_patterns_that_block_by_default_are_fine():
    assert [pattern_fault(pattern) for pattern in Identifier().block_patterns] == [None, None, None]
