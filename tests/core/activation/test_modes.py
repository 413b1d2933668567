# SPDX-License-Identifier: Apache-2.0
"""What each mode sends when profiles come, change and go."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from cdp_provider.core.activation.destinations.base import Capabilities, Outcome
from cdp_provider.core.exceptions import ConfigurationError
from tests.core.activation.desk import sent
from tests.core.activation.scene import START, person, put_profiles

ADA, BEN, EVE = (f"{name}@example.com" for name in ("ada", "ben", "eve"))


def ada(**changed):
    return person(1, **{"email": ADA} | changed)


def ben(**changed):
    return person(2, **{"email": BEN} | changed)


@pytest.mark.parametrize(
    ("declared", "new", "changed", "left"),
    [
        ({"mode": "upsert"}, "upsert", "upsert", None),
        ({"mode": "insert"}, "insert", None, None),
        ({"mode": "update"}, "update", "update", None),
        ({"mode": "mirror"}, "upsert", "upsert", "remove"),
        ({"mode": "mirror", "removal": "clear"}, "upsert", "upsert", "clear"),
        ({"mode": "mirror", "removal": "nothing"}, "upsert", "upsert", None),
        ({"mode": "archive"}, "upsert", "upsert", "archive"),
    ],
)
def test_what_a_mode_sends(desk, declared, new, changed, left):
    desk.declare(**declared)
    put_profiles(desk.warehouse, [ada(), ben()])
    assert sent(desk.day(0)) == [(new, ADA), (new, BEN)]
    assert desk.day(1) == []
    put_profiles(desk.warehouse, [ada(country="FR"), ben()])
    assert sent(desk.day(2)) == ([(changed, ADA)] if changed else [])
    put_profiles(desk.warehouse, [ada(country="FR", out=True), ben()])
    gone = desk.day(3)
    assert sent(gone) == ([(left, ADA)] if left else [])
    if gone:
        assert gone[0].fields == ({"FIRSTNAME": None, "COUNTRY": None} if left == "clear" else {})
        assert gone[0].profile_id == 1
    assert desk.day(4) == []
    put_profiles(desk.warehouse, [ada(country="FR"), ben()])
    assert sent(desk.day(5)) == ([(new, ADA)] if left else []), "it returns"


def test_what_a_destination_cannot_do_is_said_in_words(desk):
    put_profiles(desk.warehouse, [ada()])
    cases = [
        ({"mode": "mirror"}, {"upsert"}, "mode: mirror, which needs remove, but destination mail can only"),
        ({"mode": "mirror", "removal": "clear"}, {"update"}, "needs upsert"),
        ({"mode": "upsert"}, {"update"}, "needs upsert, but destination mail can only update"),
        ({"mode": "insert"}, {"upsert"}, "needs insert"),
        ({"mode": "archive"}, {"upsert", "remove"}, "needs archive"),
        ({"mode": "event"}, {"upsert"}, "needs event"),
        ({"mode": "event", "segment": None}, {"event"}, "name the segment"),
    ]
    for declared, operations, message in cases:
        desk.declare(**declared)
        desk.capabilities = Capabilities(operations=frozenset(operations))
        with pytest.raises(ConfigurationError, match=message):
            desk.plan()
    assert desk.states() == {}


def stays(desk, *entries):
    """Make `entries` (profile, minutes after the start, left or not) all stays of the segment."""
    with desk.warehouse.session() as session:
        table = desk.warehouse.table("memberships")
        session.execute(f"delete from {table}")
        for profile, minutes, left in entries:
            entered = START + timedelta(minutes=minutes)
            session.execute(
                f"insert into {table} (segment, profile_id, entered_at, entered_run, left_at)"
                " values ('newsletter', :profile, :entered, 'r', :left)",
                {"profile": profile, "entered": entered, "left": entered + timedelta(1) if left else None},
            )


def test_events_are_told_once_per_entry(desk):
    desk.declare(mode="event")
    rows = [ada(), ben(), person(3, email=None)]
    put_profiles(desk.warehouse, rows)
    stays(desk, (1, 1, True), (1, 3.5, False), (2, 2, False), (3, 4, False), (1, 60 * 24 * 2 + 1, False))
    records = desk.day(0)
    assert [(r.operation, r.key, r.time) for r in records] == [
        ("event", ADA, START + timedelta(minutes=1)),
        ("event", BEN, START + timedelta(minutes=2)),
        ("event", ADA, START + timedelta(minutes=3.5)),
    ]
    assert records[2].record_key == f"{ADA}@2026-07-01T00:03:30.000000Z"
    assert desk.states()["profile_id=3"] == "invalid"
    put_profiles(desk.warehouse, [row | {"country": "FR"} for row in rows])
    stays(desk, (1, 1, True), (1, 3.5, True), (2, 2, True), (1, 60 * 24 * 2 + 1, False))
    assert desk.day(1) == []
    (later,) = desk.day(2)
    assert (later.key, later.time) == (ADA, START + timedelta(days=2, minutes=1))
    assert desk.day(3, resync="all") == [], "an event that is told twice is another event"


def test_an_event_is_not_told_again_under_a_new_key(desk):
    desk.declare(mode="event")
    put_profiles(desk.warehouse, [ada(), ben(), person(3, email=EVE)])
    stays(desk, (1, 1, False), (2, 2, False))
    first = desk.records(desk.plan(0))
    desk.answer(0, first[:1])
    desk.answer(0, first[1:], "rejected")
    desk.fold()
    put_profiles(desk.warehouse, [ada(email="new@example.com"), ben(email="other@example.com")])
    stays(desk, (1, 1, False), (2, 2, False))
    assert sent(desk.day(1)) == [("event", "other@example.com")], "the refused one may have had a bad key"
    assert desk.day(2) == []


def test_moments_of_events_keep_their_microseconds(desk):
    desk.declare(mode="event")
    put_profiles(desk.warehouse, [ada()])
    moments = [datetime(2026, 7, 1, 0, 0, 59, micro, tzinfo=UTC) for micro in (0, 7, 120_000, 999_999)]
    stays(desk, *((1, (moment - START) / timedelta(minutes=1), False) for moment in moments))
    records = desk.day(0)
    assert [record.time for record in records] == moments
    assert [r.record_key for r in records] == [f"{ADA}@{m:%Y-%m-%dT%H:%M:%S.%f}Z" for m in moments]


def test_insert_sends_until_it_is_acknowledged(desk):
    desk.declare(mode="insert", max_attempts=5)
    put_profiles(desk.warehouse, [ada()])
    desk.day(0, "rejected")
    put_profiles(desk.warehouse, [ada(country="FR")])
    (again,) = desk.day(1)
    assert again.fields["COUNTRY"] == "FR"
    assert desk.day(2, resync="all") == []


def test_a_value_that_is_only_for_the_empty(desk):
    fields = {"COUNTRY": {"from": "country", "write": "if_empty"}, "NAME": "first_name"}
    desk.declare(fields=fields)
    put_profiles(desk.warehouse, [ada()])
    (record,) = desk.day(0)
    assert record.fields == {"COUNTRY": "DE", "NAME": "Person 1"}
    put_profiles(desk.warehouse, [ada(country="FR")])
    assert desk.day(1) == []
    put_profiles(desk.warehouse, [ada(country="FR", first_name="Ada")])
    assert desk.day(2)[0].fields == {"COUNTRY": "FR", "NAME": "Ada"}
    put_profiles(desk.warehouse, [ada(country=None, first_name="Ada")])
    assert desk.day(3)[0].fields == {"COUNTRY": None, "NAME": "Ada"}


def test_a_missing_value_is_null_or_left_out(desk):
    desk.declare(fields={"A": {"from": "country", "null": "skip"}, "B": "country", "C": "tags"})
    put_profiles(desk.warehouse, [ada(country=None, tags=None)])
    assert desk.day(0)[0].fields == {"B": None, "C": None}


def test_a_snapshot_is_everything_each_window(desk):
    desk.declare(mode="upsert").can(snapshot=True)
    put_profiles(desk.warehouse, [ada(), ben()])
    for day in range(3):
        assert len(desk.day(day)) == 2
        assert desk.day(day) == [], "the same window again"


def test_a_full_resync_goes_on_where_it_was_killed(desk):
    put_profiles(desk.warehouse, [ada(), ben(), person(3, email=EVE)])
    desk.day(0)
    put_profiles(desk.warehouse, [ada(), ben(), person(3, email=EVE, out=True)])
    plan = desk.plan(1, resync="first")
    records = desk.records(plan)
    assert sent(records) == [("remove", EVE), ("upsert", ADA), ("upsert", BEN)]
    desk.answer(1, records[:2])
    again = desk.records(desk.plan(1, resync="first"))
    assert [(r.key, r.place, r.payload_hash) for r in again] == [
        (records[2].key, records[2].place, records[2].payload_hash)
    ]
    desk.answer(1, again)
    assert desk.day(2, resync="first") == []
    assert desk.day(3) == [], "without a word about it, the last one stays in force"
    assert len(desk.day(3, resync="second")) == 2


def test_removals_above_a_share_wait_for_an_approval(desk):
    desk.declare(approve_above=0.4)
    people = [person(number) for number in range(1, 6)]
    put_profiles(desk.warehouse, people)
    desk.day(0)
    put_profiles(desk.warehouse, [row | {"out": number < 2} for number, row in enumerate(people)])
    assert sent(desk.day(1)) == [("remove", row["email"]) for row in people[:2]], "two of five are no more"
    put_profiles(desk.warehouse, [people[4] | {"country": "FR"}])
    preview = desk.preview(2)
    assert (preview.removals, preview.acknowledged, preview.needs_approval) == (2, 3, True)
    plan = desk.plan(2)
    assert (plan.removals, plan.withheld_removals, plan.updates, plan.total) == (0, 2, 1, 1)
    assert sent(desk.records(plan)) == [("upsert", people[4]["email"])]
    desk.answer(2, desk.records(plan))
    assert desk.plan(3).withheld_removals == 2
    approved = desk.plan(3, approved=True)
    assert (approved.removals, approved.withheld_removals) == (2, 0)
    assert {operation for operation, _ in sent(desk.records(approved))} == {"remove"}


def test_what_was_sent_comes_back_with_the_removal(desk):
    desk.can(remembers=True)
    put_profiles(desk.warehouse, [ada()])
    (new,) = desk.day(0, Outcome("accepted", sent='["hash"]'))
    assert new.sent is None
    put_profiles(desk.warehouse, [ada(country="FR")])
    assert desk.day(1, "rejected")[0].sent == '["hash"]'
    put_profiles(desk.warehouse, [ada(out=True)])
    assert desk.day(2)[0].sent == '["hash"]'
    put_profiles(desk.warehouse, [ada()])
    assert desk.day(3)[0].sent is None
