# SPDX-License-Identifier: Apache-2.0
"""Past values: windows in any order and again and again, against a dictionary of snapshots."""

from __future__ import annotations

import json
import os
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cdp_provider.core.profiles.history import record, value_at
from cdp_provider.core.project.profiles import Profiles

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cdp_provider.core.warehouse import Session, Warehouse

DEPTH = int(os.environ.get("CDP_TEST_DEPTH", "1"))
START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
PROFILES = Profiles(history=("tier", "worth"))

#: profile -> tier and worth
Snapshot = dict[int, tuple[str | None, int | None]]
SNAPSHOTS = st.dictionaries(
    st.integers(1, 4),
    st.tuples(st.none() | st.sampled_from(["", "gold", 'it"s ä']), st.none() | st.integers(0, 2)),
    max_size=4,
)


def relation(session: Session, snapshot: Snapshot) -> str:
    rows = [(profile, *values) for profile, values in snapshot.items()]
    columns = list(zip(*rows, strict=True)) or [(), (), ()]
    types = {"profile_id": pa.int64(), "tier": pa.string(), "worth": pa.int64()}
    return session.temp(
        "snapshot",
        pa.table({name: pa.array(c, t) for (name, t), c in zip(types.items(), columns, strict=True)}),
    )


def put(session: Session, snapshot: Snapshot, as_of: datetime, profiles: Profiles = PROFILES) -> int:
    with session.transaction():
        return record(session, profiles, relation(session, snapshot), as_of, "run")


def lines(session: Session) -> dict[tuple[str, int, datetime], Any]:
    history = session.warehouse.table("profile_history")
    found = session.fetch(f"select name, profile_id, as_of, cast(value as varchar) from {history}")
    return {(n, p, at): None if v is None else json.loads(v) for n, p, at, v in found}


def at_moment(session: Session, name: str, as_of: datetime) -> dict[int, Any]:
    query = value_at(session.warehouse, name, as_of)
    text = f"select profile_id, cast(value as varchar) from ({query.sql}) v where name = '{name}'"
    return {profile: json.loads(value) for profile, value in session.fetch(text, query.params)}


def canonical(windows: Mapping[datetime, Snapshot]) -> dict[tuple[str, int, datetime], Any]:
    """A line wherever a value differs from the one of the window before."""
    found, before = {}, {}
    for as_of in sorted(windows):
        now = {
            (name, profile): value
            for profile, values in windows[as_of].items()
            for name, value in zip(PROFILES.history, values, strict=True)
        }
        for key in before.keys() | now.keys():
            if before.get(key) != now.get(key):
                found[(*key, as_of)] = now.get(key)
        before = now
    return found


@settings(max_examples=8 * DEPTH, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(runs=st.lists(st.tuples(st.integers(0, 6), SNAPSHOTS), max_size=12))
def test_windows_come_in_any_order(warehouse: Warehouse, runs: list[tuple[int, Snapshot]]):
    known: dict[datetime, Snapshot] = {}
    with warehouse.session() as session:
        for table in ("profile_history", "history_windows"):
            session.execute(f"delete from {warehouse.table(table)}")
        for number, snapshot in runs:
            known[START + number * DAY] = snapshot
            changed = put(session, snapshot, START + number * DAY)
            found, expected = lines(session), canonical(known)
            assert found == expected
            assert changed == sum(as_of == START + number * DAY for _, _, as_of in expected)
        windows = session.fetch(f"select as_of, run_id from {warehouse.table('history_windows')}")
        assert sorted(windows) == [(as_of, "run") for as_of in sorted(known)]
        for as_of, snapshot in known.items():
            for moment in (as_of, as_of + DAY / 2):
                for i, name in enumerate(PROFILES.history):
                    there = {p: values[i] for p, values in snapshot.items() if values[i] is not None}
                    assert at_moment(session, name, moment) == there
        assert at_moment(session, "tier", START - DAY) == {}


def test_a_merged_profile_has_no_value_any_more(warehouse: Warehouse):
    with warehouse.session() as session:
        put(session, {1: ("gold", 1), 2: ("gold", None)}, START)
        assert put(session, {1: ("gold", 1)}, START + DAY) == 1
        assert lines(session)["tier", 2, START + DAY] is None
        assert at_moment(session, "tier", START + DAY) == {1: "gold"}


def test_a_name_that_comes_later_leaves_the_others_alone(warehouse: Warehouse):
    with warehouse.session() as session:
        put(session, {1: ("gold", 1)}, START, Profiles(history=("tier",)))
        put(session, {1: ("gold", 1)}, START + DAY)
        put(session, {1: ("new", 2)}, START + DAY, Profiles(history=("worth",)))
        assert lines(session) == {
            ("tier", 1, START): "gold",
            ("worth", 1, START + DAY): 2,
        }
        assert put(session, {1: ("new", 2)}, START + 2 * DAY, Profiles()) == 0
        assert len(lines(session)) == 2


def test_values_of_every_type_are_written_alike(warehouse: Warehouse):
    values = {
        "s": ('a"\\ä', pa.string(), 'a"\\ä'),
        "i": (2**53 + 1, pa.int64(), 2**53 + 1),
        "n": (0.1, pa.float64(), 0.1),
        "d": (Decimal("1.500000"), pa.decimal128(28, 6), 1.5),
        "b": (False, pa.bool_(), False),
        "day": (date(2026, 1, 31), pa.date32(), "2026-01-31"),
        "t": (
            START + timedelta(microseconds=5),
            pa.timestamp("us", tz="UTC"),
            "2026-01-01T00:00:00.000005+00:00",
        ),
    }
    rows = pa.table(
        {"profile_id": [1]} | {name: pa.array([value], kind) for name, (value, kind, _) in values.items()}
    )
    with warehouse.session() as session:
        given = session.temp("given", rows)
        json_type = warehouse.types["json"]
        listed = f"(select *, cast('[\"a\", 1]' as {json_type}) as tags from {given} g) given"
        with session.transaction():
            record(session, Profiles(history=(*values, "tags")), listed, START, "run")
        assert {name: value for (name, _, _), value in lines(session).items()} == {
            "tags": ["a", 1],
            **{name: written for name, (_, _, written) in values.items()},
        }


class Stopped(Exception):  # noqa: N818 - nothing is wrong
    pass


def put_and_stop(session: Session) -> None:
    record(session, PROFILES, relation(session, {}), START, "run")
    assert lines(session) == {}
    raise Stopped


def test_a_run_that_fails_leaves_history_as_it_was(warehouse: Warehouse):
    with warehouse.session() as session:
        put(session, {1: ("gold", 1)}, START)
        before = lines(session)
        with pytest.raises(Stopped), session.transaction():
            put_and_stop(session)
        assert lines(session) == before
