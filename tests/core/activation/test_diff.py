# SPDX-License-Identifier: Apache-2.0
"""The difference: against an oracle, and where it is easy to get wrong."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from cdp_provider.core.activation.destinations.base import Outcome, Result
from cdp_provider.core.project.activation import Consent
from tests.core.activation.desk import EVERYTHING, Desk, sent
from tests.core.activation.oracle import REMOVALS, Oracle, Vendor
from tests.core.activation.scene import newsletter, person, put_profiles, run

DEPTH = int(os.environ.get("CDP_TEST_DEPTH", "1"))
ADA = person(1)["email"]
FIELDS = {
    "NAME": {"from": "first_name", "write": "if_empty"},
    "COUNTRY": {"from": "country", "null": "skip"},
    "SCORE": "score",
}
MODES = [
    {"mode": "upsert"},
    {"mode": "insert"},
    {"mode": "update"},
    {"mode": "mirror"},
    {"mode": "mirror", "removal": "clear"},
    {"mode": "mirror", "removal": "nothing"},
    {"mode": "archive"},
]
_profile = st.fixed_dictionaries(
    {
        "profile_id": st.integers(1, 6),
        "email": st.sampled_from(["a", "a", "b", "B ", " b", "c", "d", "", None]),
        "first_name": st.sampled_from(["x", "y", None]),
        "country": st.sampled_from(["DE", "", None]),
        "score": st.sampled_from([1.0, 2.0, None, 1.0, float("nan")]),
        "consent": st.sampled_from([None, False, None, False, None, True]),
        "out": st.sampled_from([False, False, True]),
    }
)
#: What comes of a record: what the destination says, and whether it did it.
_fate = st.sampled_from(
    [
        ("accepted", True),
        ("accepted", True),
        ("accepted", True),
        ("rejected", False),
        ("invalid", False),
        ("retryable", False),
        ("retryable", True),
        ("ambiguous", False),
        ("ambiguous", True),
        ("throttled", False),
        (None, False),
        (None, True),
    ]
)
_task = st.fixed_dictionaries(
    {
        "fates": st.lists(_fate, min_size=6, max_size=6),
        "resync": st.sampled_from([None, None, None, "r1", "r2"]),
    }
)
_window = st.fixed_dictionaries(
    {
        "rows": st.lists(_profile, max_size=6, unique_by=lambda row: row["profile_id"]),
        "tasks": st.lists(_task, min_size=1, max_size=2),
        "release": st.sampled_from([False, False, True]),
    }
)


def check_task(desk: Desk, oracle: Oracle, vendor: Vendor, day: int, rows: list[dict], task: dict) -> None:
    """One try of one run: what it means to send is what the oracle says; then its records fare as told."""
    before = {key: line.record for key, line in oracle.lines.items()}
    desk.fold()
    preview = desk.preview(day) if task["resync"] is None else None
    plan = desk.plan(day, resync=task["resync"])
    records = desk.records(plan)
    expected, notes = oracle.plan(rows, day, task["resync"])
    found = {r.record_key: (r.operation, dict(r.fields), r.attempts) for r in records}
    assert found == {key: row[:3] for key, row in expected.items()}
    assert len(records) == len(found) == plan.total
    invalid = sum(line.state == "invalid" for line in oracle.lines.values())
    suppressed = sum(reason.startswith("suppressed") for reason in notes.values())
    assert (plan.withheld, plan.invalid) == (suppressed, len(notes) - suppressed + invalid)
    assert plan.desired == sum(not row.get("out") for row in rows)
    assert plan.acknowledged == sum(line.held is not None for line in oracle.lines.values())
    assert plan.removals == sum(record.operation in REMOVALS for record in records)
    if preview is not None:
        same = ("desired", "creates", "updates", "removals", "acknowledged")
        assert [getattr(preview, name) for name in same] == [getattr(plan, name) for name in same]
        assert sum(preview.invalid.values()) + sum(preview.withheld.values()) == len(notes)
    order = [(r.operation not in REMOVALS, r.intended, r.place) for r in records]
    assert order == sorted(order)
    assert len(set(order)) == len(order)
    for record in records:
        if expected[record.record_key][3]:
            old = before[record.record_key]
            assert (record.intended, record.place) == (old.intended, old.place)
        else:
            assert record.intended == run(day).window.end
        oracle.lines[record.record_key].record = record
    results = []
    for record, (state, applied) in zip(records, task["fates"], strict=False):
        if applied:
            vendor.apply(record)
        if state is not None:
            results.append(Result(record, Outcome(state), "key"))
            oracle.answer(record.record_key, state, day, repeatable=desk.capabilities.repeatable)
    desk.record(day, results)


def clear(desk: Desk) -> None:
    with desk.warehouse.session() as session:
        for table in ("sync_ledger", "sync_answers", "sync_state", "delivery_log"):
            session.execute(f"delete from {desk.warehouse.table(table)}")


def told(row: dict[str, Any]) -> dict[str, Any]:
    return person(row["profile_id"], **{name: value for name, value in row.items() if name != "profile_id"})


@settings(
    max_examples=12 * DEPTH,
    deadline=None,
    derandomize=DEPTH == 1,
    database=None,
    # A generated history fails in words; making it smaller would take minutes.
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
@given(
    mode=st.sampled_from(MODES),
    windows=st.lists(_window, min_size=1, max_size=4),
    folds_keys=st.booleans(),
    repeatable=st.booleans(),
)
def test_whatever_happens_the_outbox_is_right(desk, mode, windows, folds_keys, repeatable):
    clear(desk)
    desk.sync = newsletter(fields=FIELDS, max_attempts=2, **mode)
    desk.capabilities = EVERYTHING
    desk.can(folds_keys=folds_keys, repeatable=repeatable)
    desk.consent = Consent(suppressed=("consent",))
    oracle, vendor = Oracle(desk.sync, folds_keys), Vendor()
    rows: list[dict] = []
    for day, window in enumerate(windows):
        rows = [told(row) for row in window["rows"]]
        put_profiles(desk.warehouse, rows)
        for task in window["tasks"]:
            check_task(desk, oracle, vendor, day, rows, task)
        if window["release"]:
            desk.fold()
            desk.release()
            oracle.release()

    # From now on all goes well: after one run the destination has what it should, after that nothing travels.
    fine = {"fates": [("accepted", True)] * 20, "resync": None}
    desk.fold()
    desk.release()
    oracle.release()
    check_task(desk, oracle, vendor, len(windows), rows, fine)
    check_task(desk, oracle, vendor, len(windows) + 1, rows, fine)
    assert desk.plan(len(windows) + 2).total == 0
    check_end(oracle, vendor, rows)


def check_end(oracle: Oracle, vendor: Vendor, rows: list[dict]) -> None:
    """The destination holds what the profiles say; what a profile that cannot be sent had stays as it was."""
    holders, notes = oracle.desired(rows)
    wanted = {key: oracle.fields(row) for key, row in holders.items() if row["profile_id"] not in notes}
    assert wanted.keys() <= vendor.held.keys()
    if oracle.sync.mode != "insert":
        for key, fields in wanted.items():
            # A value that is written only where there is none may be an older one.
            assert vendor.held[key] | {"NAME": None} == fields | {"NAME": None}
    if oracle.leaves in ("remove", "archive"):
        assert vendor.held.keys() <= holders.keys()
    if oracle.leaves == "clear":
        gone = [fields for key, fields in vendor.held.items() if key not in holders]
        assert all(value is None for fields in gone for value in fields.values())


def test_null_is_not_empty_and_neighbours_do_not_run_together(desk):
    names = [(None, ""), ("", None), ("a", "1:b"), ("a1:", "b"), ("-", None), (None, "-"), (None, None)]
    for day, (first, country) in enumerate([*names, names[0]]):
        put_profiles(desk.warehouse, [person(1, first_name=first, country=country)])
        (record,) = desk.day(day)
        assert record.fields == {"FIRSTNAME": first, "COUNTRY": country}


def test_a_change_of_any_type_of_value_is_seen(desk):
    columns = ("orders", "spent", "score", "seen_at", "born", "consent", "tags", "first_name")
    desk.declare(fields={name: name for name in columns})
    row = person(1)
    values = {
        "orders": [1, 2**53 + 1],
        "spent": [1, 2],
        "score": [0.1, 0.2],
        "seen_at": [run(0).window.start, run(0).window.end],
        "born": [run(0).window.start.date(), run(0).window.end.date()],
        "consent": [True, False],
        "tags": ['{"a": 1}', '{"a": 2}'],
        "first_name": ["a", "A"],
    }
    day = 0
    for column, changes in values.items():
        for value in [*changes, None]:
            put_profiles(desk.warehouse, [row := row | {column: value}])
            (record,) = desk.day(day)
            shown = record.fields[column]
            assert (shown is None) == (value is None)
            if column not in ("tags", "spent"):
                assert shown == value
            day += 1
    assert desk.day(day) == []


def test_records_that_cannot_be_sent_are_told_once(desk):
    desk.declare(fields={"COUNTRY": "country", "SCORE": "score"})
    rows = [
        person(1, email=None),
        person(2, email="  "),
        person(3, email="same@example.com"),
        person(4, email="same@example.com", country="AT"),
        person(5, score=float("nan")),
        person(6, email="profile_id=7"),
        person(7, email="x" * 3000),
        person(8),
    ]
    put_profiles(desk.warehouse, rows)
    reasons = {
        "the key is empty": 2,
        "another profile has the same key": 1,
        "the value of score is not a finite number": 1,
        "the key begins with profile_id=": 1,
        "the key is longer than 2000 bytes": 1,
    }
    assert desk.preview(0).invalid == reasons
    assert desk.states() == {}, "a preview writes nothing"
    assert sent(desk.day(0)) == [("upsert", rows[7]["email"]), ("upsert", "same@example.com")]
    assert desk.plan(1).invalid == 6
    assert desk.preview(1).invalid == reasons
    assert len(desk.rows("select * from {delivery_log} where outcome = 'invalid'")) == 6
    put_profiles(desk.warehouse, rows[7:])
    desk.plan(2)
    assert set(desk.states().values()) == {"accepted", "pending"}


@pytest.mark.parametrize("holder", [1, 2])
def test_a_key_goes_to_the_oldest_that_wants_it(desk, holder):
    older, younger = person(1, email=ADA), person(2, email=ADA, country="FR")
    put_profiles(desk.warehouse, [older if holder == 1 else younger])
    desk.day(0)
    put_profiles(desk.warehouse, [older, younger])
    moved = desk.day(1)
    assert [record.fields["COUNTRY"] for record in moved] == ([] if holder == 1 else ["DE"])
    assert desk.states() == {ADA: "accepted", "profile_id=2": "invalid"}
    assert desk.day(2) == []
    put_profiles(desk.warehouse, [younger])
    assert [record.profile_id for record in desk.day(3)] == [2]
    assert desk.states() == {ADA: "accepted"}


def test_a_profile_that_merges_into_one_with_the_same_values_sends_nothing(desk):
    put_profiles(desk.warehouse, [person(2, email=ADA, first_name="Ada")])
    desk.day(0)
    put_profiles(desk.warehouse, [person(1, email=ADA, first_name="Ada")])
    assert desk.day(1) == []
    assert desk.rows("select profile_id from {sync_ledger}") == [(1,)]


def test_a_key_that_changes_is_a_removal_and_a_new_record(desk):
    put_profiles(desk.warehouse, [person(1, email="Ada@Example.com")])
    desk.day(0)
    put_profiles(desk.warehouse, [person(1, email="ada@example.com")])
    assert sent(desk.day(1)) == [("remove", "Ada@Example.com"), ("upsert", "ada@example.com")]


def test_whole_numbers_stay_numbers(desk):
    desk.declare(key="orders", fields={})
    put_profiles(desk.warehouse, [person(1, orders=7), person(2)])
    (record,) = desk.day(0)
    assert (record.key, record.record_key) == (7, "7")


def test_members_without_a_profile_are_nobody(desk):
    put_profiles(desk.warehouse, [person(1), person(2)])
    with desk.warehouse.session() as session:
        session.execute(f"delete from {desk.warehouse.table('profiles')} where profile_id = 2")
    plan = desk.plan(0)
    assert (plan.desired, plan.total, plan.invalid) == (1, 1, 0)


def test_every_profile_without_a_segment(desk):
    desk.declare(segment=None, mode="upsert")
    put_profiles(desk.warehouse, [person(1), person(2, out=True)])
    plan = desk.plan(0)
    assert (plan.desired, plan.creates) == (2, 2)


def test_profiles_built_anew_do_not_change_what_is_on_its_way(desk):
    put_profiles(desk.warehouse, [person(1)])
    plan = desk.plan(0)
    put_profiles(desk.warehouse, [person(1, country="FR")])
    assert desk.records(plan)[0].fields["COUNTRY"] == "DE"


def test_another_list_gets_everything(desk):
    put_profiles(desk.warehouse, [person(1)])
    desk.day(0)
    desk.declare(parameters={"list": "other"})
    assert len(desk.day(1)) == 1
