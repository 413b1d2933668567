# SPDX-License-Identifier: Apache-2.0
"""How records fare, and what that means for the next run."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from cdp_provider.core.activation import ledger
from cdp_provider.core.activation.destinations.base import Outcome, Result
from cdp_provider.core.activation.outbox import SupersededError
from tests.core.activation.desk import NOON, sent
from tests.core.activation.scene import person, put_profiles, run

ADA = "person00001@example.com"


@pytest.fixture
def ada(desk):
    put_profiles(desk.warehouse, [person(1)])
    return desk


def state(desk, key=ADA):
    return desk.rows(
        f"select state, attempts, coalesce(refusals, 0) from {{sync_ledger}} where record_key = '{key}'"
    )[0]


def test_a_record_rejected_often_enough_is_a_dead_letter_until_it_changes_or_is_released(ada):
    ada.declare(max_attempts=2)
    ada.day(0, "rejected")
    assert ada.day(0) == [], "not again in the same window"
    (second,) = ada.day(1, "rejected")
    assert second.attempts == 1
    assert state(ada) == ("dead", 2, 2)
    assert ada.day(2) == []
    assert ada.release([]) == 0
    assert ada.release(["nobody@example.com"]) == 0
    assert ada.release([ADA]) == 1
    (third,) = ada.day(2, "rejected")
    assert third.attempts == 2, "the vendor must not take it for the request that it refused"
    assert state(ada) == ("rejected", 3, 1)
    ada.day(3, "rejected")
    assert ada.release() == 1
    ada.day(4, "rejected")
    ada.day(5, "rejected")
    put_profiles(ada.warehouse, [person(1, country="FR")])
    (changed,) = ada.day(6)
    assert changed.attempts == 0
    assert state(ada)[0] == "accepted"


def test_what_is_not_about_the_record_makes_no_dead_letter(ada):
    ada.declare(max_attempts=2)
    for attempts in range(4):
        (record,) = ada.day(0, "retryable")
        assert record.attempts == attempts
    ada.day(0, "rejected")
    assert state(ada) == ("rejected", 5, 1)


def test_without_an_answer_the_same_is_sent_again(ada):
    for outcome in ("ambiguous", "throttled"):
        (first,) = ada.day(0, outcome)
        assert state(ada)[:2] == ("pending", 0)
    put_profiles(ada.warehouse, [person(1), person(2)])
    again, new = ada.records(ada.plan(1))
    assert again == first, "in the same batch, so that it has the same idempotency key"
    assert (new.intended, new.place) == (run(1).window.end, 0)


def test_what_could_be_doubled_waits_for_a_person(ada):
    ada.can(repeatable=False)
    records = ada.records(ada.plan(0))
    ada.answer(0, records, "ambiguous")
    ada.fold()
    put_profiles(ada.warehouse, [person(1, country="FR")])
    assert ada.day(1) == []
    assert state(ada)[0] == "ambiguous"
    assert ada.release() == 1
    assert [r.fields["COUNTRY"] for r in ada.day(1)] == ["FR"]
    assert state(ada)[0] == "accepted"


def test_of_several_answers_to_one_try_the_last_counts(ada):
    ada.can(repeatable=False)
    records = ada.records(ada.plan(0))
    for outcome in ("ambiguous", "retryable", "ambiguous", "accepted"):
        ada.answer(0, records, outcome)
    ada.fold()
    assert state(ada)[0] == "accepted"


@pytest.mark.parametrize("later", ["rejected", "invalid"])
def test_what_may_have_arrived_is_not_forgotten(ada, later):
    ada.day(0, "retryable")
    put_profiles(ada.warehouse, [person(1, country="FR")])
    ada.day(1, later)
    put_profiles(ada.warehouse, [person(1, out=True)])
    assert sent(ada.day(2)) == [("remove", ADA)]
    assert ada.day(3) == []


def test_a_value_that_returns_is_sent_where_another_may_have_arrived(ada):
    ada.day(0)
    for day, (country, outcome) in enumerate([("FR", "retryable"), ("AT", "rejected")], 1):
        put_profiles(ada.warehouse, [person(1, country=country)])
        ada.day(day, outcome)
    put_profiles(ada.warehouse, [person(1)])
    assert len(ada.day(3)) == 1
    assert ada.day(4) == []


def test_an_answer_to_what_is_no_longer_on_its_way_changes_nothing(ada):
    old = ada.records(ada.plan(0))
    put_profiles(ada.warehouse, [person(1, country="FR")])
    ada.plan(1)
    ada.answer(0, old)
    ada.fold()
    assert state(ada)[0] == "pending"


def test_a_refused_change_leaves_what_the_destination_has(ada):
    ada.day(0)
    for day, outcome in enumerate(("rejected", "invalid"), 1):
        put_profiles(ada.warehouse, [person(1, country="FR")])
        assert len(ada.day(2 * day - 1, outcome)) == 1
        assert state(ada)[0] == outcome
        put_profiles(ada.warehouse, [person(1)])
        assert ada.day(2 * day) == [], "it holds that already"
        assert state(ada)[0] == "accepted"


def test_a_record_too_large_is_tried_again_when_it_changes_and_forgotten_when_it_goes(ada):
    ada.day(0, Outcome("invalid", "it has 9 bytes"))
    plan = ada.plan(1)
    assert (plan.total, plan.invalid) == (0, 1)
    put_profiles(ada.warehouse, [person(1, country="FR")])
    assert len(ada.day(2, "invalid")) == 1
    assert ada.plan(3).total == 0
    assert ada.release() == 1
    assert len(ada.day(3, "invalid")) == 1, "the destination may have been described anew"
    put_profiles(ada.warehouse, [])
    assert ada.plan(4).invalid == 0
    assert ada.states() == {}


def test_the_log_names_fields_and_keeps_payloads_only_where_asked(ada):
    query = "select fields, payload, status, answered_at, profile_id, attempt from {delivery_log}"
    ada.day(0, Outcome("accepted", status=207))
    assert ada.rows(query) == [('["FIRSTNAME", "COUNTRY"]', None, 207, NOON, 1, 1)]
    ada.declare(log_payload=True)
    put_profiles(ada.warehouse, [person(1, country="FR")])
    ada.day(1)
    (payload,) = [row[1] for row in ada.rows(query) if row[1]]
    assert json.loads(payload) == {"key": ADA, "FIRSTNAME": "Person 1", "COUNTRY": "FR"}


def test_old_lines_of_the_log_go(ada):
    ada.declare(log_retention="2 days")
    for day in range(4):
        put_profiles(ada.warehouse, [person(1, country=str(day))])
        ada.day(day)
        with ada.warehouse.session() as session:
            ledger.prune(session, ada.sync, run(day))
    oldest = ada.rows("select min(window_end), count(*) from {delivery_log}")
    assert oldest == [(run(3).window.end - timedelta(days=2), 3)]


def test_standing_counts_the_window(ada):
    put_profiles(ada.warehouse, [person(number) for number in range(1, 6)])
    records = ada.records(ada.plan(0))
    told = ("accepted", "rejected", "retryable", "accepted", "ambiguous")
    ada.record(0, [Result(r, Outcome(state), "k") for r, state in zip(records, told, strict=True)])
    ada.fold()
    with ada.warehouse.session() as session:
        counts = ledger.standing(session, ada.sync, run(0))
        later = ledger.standing(session, ada.sync, run(1))
    assert (counts.accepted, counts.rejected, counts.ever) == (2, 2, 2)
    assert (later.accepted, later.rejected, later.ever) == (0, 0, 2)


def test_the_outbox_is_gone_once_nothing_is_open(ada):
    plan = ada.plan(0)

    def there():
        with ada.warehouse.session() as session:
            return session.exists("outbox__newsletter")

    records = ada.records(plan)
    ada.fold()
    assert there()
    ada.answer(0, records)
    ada.fold()
    assert not there()
    assert ada.records(plan) == []


def test_an_older_task_stops_reading(ada):
    old = ada.plan(0)
    new = ada.plan(0)
    with pytest.raises(SupersededError, match="newer task has taken over the sync newsletter"):
        ada.records(old)
    assert sent(ada.records(new)) == [("upsert", ADA)]


def test_what_was_left_comes_first_in_its_places(desk):
    people = [person(number) for number in range(1, 26)]
    put_profiles(desk.warehouse, people)
    records = desk.records(desk.plan(0))
    assert [record.place for record in records] == list(range(25))
    desk.answer(0, records[:10])
    put_profiles(desk.warehouse, [*people[2:], person(0), person(99)])
    again = desk.records(desk.plan(0))
    assert [(r.operation, r.place) for r in again] == [
        *(("remove", place) for place in (30, 31)),
        *(("upsert", place) for place in range(10, 25)),
        *(("upsert", place) for place in (40, 41)),
    ], "25 were placed; each group of new ones begins at a multiple of the batch's ten"
    assert again[2:17] == records[10:]
    later = desk.records(desk.plan(3))
    assert [(r.intended, r.place) for r in later] == [(r.intended, r.place) for r in again]


def test_an_outbox_is_read_in_pieces(desk):
    put_profiles(desk.warehouse, [person(number) for number in range(1, 26)])
    plan = desk.plan(0)
    whole = desk.records(plan)
    pieces = [plan.outbox.read(desk.warehouse, after, 10) for after in (0, 10, 20, 30)]
    assert [len(piece) for piece in pieces] == [10, 10, 5, 0]
    assert sum(pieces, []) == whole
