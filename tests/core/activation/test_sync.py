# SPDX-License-Identifier: Apache-2.0
"""The whole sync against a real vendor: what travels, what stays, what is written down."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from cdp_provider.core.exceptions import (
    ConfigurationError,
    DeliveryError,
    NotFoundError,
)
from tests.core.activation.scene import mail, newsletter, person, put_profiles

LIST = "/mail/lists/news/members"


def expected(*numbers, **changed):
    return {person(n)["email"]: {"FIRSTNAME": f"Person {n}", "COUNTRY": "DE", **changed} for n in numbers}


def test_insert_update_unchanged_remove(scene, vendor):
    put_profiles(scene.warehouse, [person(n) for n in range(1, 6)])
    report = scene.sync(0)
    assert vendor.contacts("news") == expected(1, 2, 3, 4, 5)
    assert (report.rows_in, report.rows_out, report.rows_refused) == (5, 5, 0)

    put_profiles(
        scene.warehouse, [person(1), person(2, country="FR"), person(3, out=True), person(4), person(6)]
    )
    report = scene.sync(1)
    assert vendor.contacts("news") == expected(1, 4, 6) | expected(2, COUNTRY="FR")
    assert report.detail == {
        "accepted": 2,
        "removed": 2,
        "rejected": 0,
        "ambiguous": 0,
        "dead": 0,
        "invalid": 0,
        "withheld": 0,
        "unchanged": 2,
        "removals_waiting": 0,
        "requests": 2,
    }

    sent = len(vendor.requests())
    report = scene.sync(2)
    assert len(vendor.requests()) == sent
    assert (report.rows_in, report.rows_out, report.detail["unchanged"]) == (4, 0, 4)
    assert vendor.doubled() == []


def test_same_window_again_sends_nothing_and_says_the_same(scene, vendor):
    put_profiles(scene.warehouse, [person(1), person(2), person(3, email="x@bounce.invalid")])
    first = scene.sync(0)
    ledger, sent = scene.ledger(), len(vendor.requests())
    again = scene.sync(0)
    assert len(vendor.requests()) == sent
    assert scene.ledger() == ledger
    assert (again.rows_in, again.rows_out, again.rows_refused) == (
        first.rows_in,
        first.rows_out,
        first.rows_refused,
    )


def test_leaving_and_returning_with_the_same_fields_is_delivered_again(scene, vendor):
    for day, out in enumerate([False, True, False, True, False]):
        put_profiles(scene.warehouse, [person(1, out=out)])
        scene.sync(day)
        assert bool(vendor.contacts("news")) is not out


def test_value_that_returns_is_delivered_again(scene, vendor):
    for day, country in enumerate(["DE", "FR", "DE"]):
        put_profiles(scene.warehouse, [person(1, country=country)])
        scene.sync(day)
        assert vendor.contacts("news") == expected(1, COUNTRY=country)


def test_null_is_not_empty_and_separators_do_not_collide(scene, vendor):
    names = [(None, ""), ("", None), ("a", "1:b"), ("a1:", "b"), ("-", None), (None, "-")]
    for day, (first, country) in enumerate(names):
        put_profiles(scene.warehouse, [person(1, first_name=first, country=country)])
        scene.sync(day)
        assert vendor.contacts("news") == expected(1, FIRSTNAME=first, COUNTRY=country)


def test_values_travel_as_json(scene, vendor):
    row = person(
        1,
        orders=2**53 + 1,
        spent=Decimal("12345678901234567890.120000"),
        score=0.1,
        seen_at=datetime(2026, 7, 1, 12, 30, tzinfo=UTC),
        born=date(1990, 2, 28),
        consent=True,
        tags='{"a": [1, null]}',
        first_name='Zoë "Z"\n\\',
    )
    put_profiles(scene.warehouse, [row])
    names = ("orders", "spent", "score", "seen_at", "born", "consent", "tags", "first_name", "country")
    scene.sync(0, newsletter(fields={name.upper(): name for name in names}))
    assert vendor.contacts("news")[row["email"]] == {
        "ORDERS": 2**53 + 1,
        "SPENT": float("12345678901234567890.12"),
        "SCORE": 0.1,
        "SEEN_AT": "2026-07-01T12:30:00Z",
        "BORN": "1990-02-28",
        "CONSENT": True,
        "TAGS": {"a": [1, None]},
        "FIRST_NAME": 'Zoë "Z"\n\\',
        "COUNTRY": "DE",
    }


def test_records_that_cannot_be_sent_are_told_once(scene, vendor):
    rows = [
        person(1, email=None),
        person(2, email="  "),
        person(3, email="same@example.com"),
        person(4, email="same@example.com", country="AT"),
        person(5, score=float("nan")),
        person(6, email="profile_id=7"),
        person(7),
    ]
    put_profiles(scene.warehouse, rows)
    mapped = newsletter(fields={"COUNTRY": "country", "SCORE": "score"})
    report = scene.sync(0, mapped)
    assert report.rows_refused == report.detail["invalid"] == 5
    assert vendor.contacts("news").keys() == {"same@example.com", person(7)["email"]}
    assert vendor.contacts("news")["same@example.com"]["COUNTRY"] == "DE"
    reasons = {key: reason for key, (state, _, reason) in scene.ledger().items() if state == "invalid"}
    assert reasons == {
        "profile_id=1": "the key is empty",
        "profile_id=2": "the key is empty",
        "profile_id=4": "another profile has the same key",
        "profile_id=5": "the value of score is not a finite number",
        "profile_id=6": "the key begins with profile_id=",
    }
    logged = len(scene.log())
    put_profiles(scene.warehouse, [*rows[1:4], person(4, profile_id=8, email=None), rows[6]])
    scene.sync(1, mapped)
    assert [entry for entry in scene.log() if entry[2] == "invalid"][-1][0] == "profile_id=8"
    assert len(scene.log()) == logged + 1
    put_profiles(scene.warehouse, [rows[6]])
    scene.sync(2, newsletter())
    assert [key for key, (state, _, _) in scene.ledger().items() if state == "invalid"] == []


def test_an_unsendable_value_does_not_remove_who_is_there(scene, vendor):
    mapped = newsletter(fields={"SCORE": "score"})
    put_profiles(scene.warehouse, [person(1, score=1.5)])
    scene.sync(0, mapped)
    put_profiles(scene.warehouse, [person(1, score=float("inf"))])
    scene.sync(1, mapped)
    assert vendor.contacts("news")[person(1)["email"]] == {"SCORE": 1.5}


def test_rejected_records_are_retried_in_later_windows_until_enough(scene, vendor):
    bad = person(2, email="x@bounce.invalid")
    declared = newsletter(max_attempts=2)
    put_profiles(scene.warehouse, [person(1), bad])
    report = scene.sync(0, declared)
    assert (report.state, report.rows_out, report.rows_refused) == ("ok", 1, 1)
    assert scene.ledger()["x@bounce.invalid"] == ("rejected", 1, "the domain accepts no mail")
    scene.sync(1, declared)
    assert scene.ledger()["x@bounce.invalid"][:2] == ("dead", 2)
    sent = len(vendor.requests())
    report = scene.sync(2, declared)
    assert len(vendor.requests()) == sent, "tried max_attempts times, so it rests"
    assert report.detail["dead"] == 1

    put_profiles(scene.warehouse, [person(1), bad | {"country": "AT"}])
    scene.sync(3, declared)
    assert scene.ledger()["x@bounce.invalid"][:2] == ("rejected", 1), "it changed, so it counts anew"


def test_rejected_update_leaves_a_record_that_can_still_be_removed(scene, vendor):
    put_profiles(scene.warehouse, [person(1), person(2)])
    scene.sync(0)
    vendor.inject(LIST, status=422, times=3)
    put_profiles(scene.warehouse, [person(1, country="AT"), person(2, country="AT")])
    scene.sync(1)
    assert vendor.contacts("news") == expected(1, 2)
    put_profiles(scene.warehouse, [person(2, country="AT")])
    scene.sync(2)
    assert vendor.contacts("news") == expected(2, COUNTRY="AT")


def test_all_rejected_and_none_ever_accepted_fails(scene):
    put_profiles(scene.warehouse, [person(n, email=f"{n}@bounce.invalid") for n in range(3)])
    for _ in range(2):
        with pytest.raises(DeliveryError, match="rejected all 3 records of sync newsletter"):
            scene.sync(0)
    assert [row[1] for row in scene.runs()] == ["failed"]


def test_older_window_changes_nothing(scene, vendor):
    put_profiles(scene.warehouse, [person(1)])
    scene.sync(5)
    put_profiles(scene.warehouse, [person(2)])
    report = scene.sync(3)
    assert report.state == "superseded"
    assert vendor.contacts("news") == expected(1)


def test_upsert_never_removes_and_all_profiles_need_no_segment(scene, vendor):
    declared = newsletter(mode="upsert", segment=None)
    put_profiles(scene.warehouse, [person(1), person(2, out=True)])
    scene.sync(0, declared)
    assert vendor.contacts("news") == expected(1, 2)
    put_profiles(scene.warehouse, [person(1)])
    scene.sync(1, declared)
    assert vendor.contacts("news") == expected(1, 2)


def test_another_list_gets_everything(scene, vendor):
    put_profiles(scene.warehouse, [person(1)])
    scene.sync(0)
    scene.sync(1, newsletter(parameters={"list": "other list"}))
    assert vendor.contacts("other list") == expected(1)


def test_key_that_changes_its_spelling_stays(scene, vendor):
    put_profiles(scene.warehouse, [person(1, email="Ada@Example.com")])
    scene.sync(0)
    put_profiles(scene.warehouse, [person(1, email="ada@example.com")])
    scene.sync(1)
    assert vendor.contacts("news").keys() == {"ada@example.com"}


def test_folded_keys_are_one(scene, vendor):
    put_profiles(scene.warehouse, [person(1, email="Ada@Example.com "), person(2, email="ada@example.com")])
    report = scene.sync(0, destination=mail(key_case="lower"))
    assert report.detail["invalid"] == 1
    assert vendor.contacts("news").keys() == {"ada@example.com"}


@pytest.mark.parametrize(
    ("declared", "destination", "message"),
    [
        ({"key": "emial"}, {}, "did you mean 'email'"),
        ({"fields": {"X": "nothing_like_it"}}, {}, "neither a field nor a trait"),
        ({}, {"remove": None}, "describes no remove call"),
        ({"parameters": {}}, {}, "needs the parameter 'list'"),
    ],
)
def test_faulty_sync_says_what_to_do(scene, vendor, declared, destination, message):
    put_profiles(scene.warehouse, [person(1)])
    with pytest.raises(ConfigurationError, match=message):
        scene.sync(0, newsletter(**declared), mail(**destination))
    assert vendor.requests() == []


def test_missing_profiles_say_so(scene):
    with pytest.raises(NotFoundError, match="build the profiles first"):
        scene.sync(0)


def test_empty_segment_sends_nothing(scene, vendor):
    put_profiles(scene.warehouse, [])
    report = scene.sync(0)
    assert (report.rows_in, report.rows_out, vendor.requests()) == (0, 0, [])
