# SPDX-License-Identifier: Apache-2.0
"""Building the table of profiles: windows, reruns, merges, missing streams, hostile strings."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest

from cdp_provider.core.exceptions import ConfigurationError, DataError, NotFoundError
from cdp_provider.core.profiles.build import build_profiles, snapshot
from cdp_provider.core.profiles.linked import table_of
from cdp_provider.core.profiles.provenance import provenance
from cdp_provider.core.project.base import Options
from cdp_provider.core.project.profiles import ProfileField, Profiles, Trait
from cdp_provider.core.project.streams import Stream
from cdp_provider.core.warehouse.duckdb import DuckDBSession
from tests.core.profiles.world import (
    EVENTS,
    LIST,
    NOW,
    PEOPLE,
    STREAMS,
    Row,
    add_rows,
    event,
    next_seq,
    numbered,
    profile_rows,
    put,
    run,
)

DAY = timedelta(days=1)
COUNT = Profiles(traits={"events": Trait(type="count", stream="web.events")})


def ledger(warehouse):
    with warehouse.session() as session:
        return session.fetch(
            f"select state, rows_in, rows_out from {warehouse.table('runs')}"
            " where stage = 'profiles' order by run_id"
        )


def test_every_profile_has_one_row_with_or_without_data(warehouse):
    put(warehouse, numbered([event(1), event(1), event(2), event(None)]), {1: 1, 2: 2, 3: 3})
    report = build_profiles(warehouse, COUNT, STREAMS, run())
    assert {p: row["events"] for p, row in profile_rows(warehouse).items()} == {1: 2, 2: 1, 3: 0}
    assert (report.rows_in, report.rows_out, report.detail) == (3, 3, {"profiles": 3})
    assert report.watermark == NOW - DAY
    assert ledger(warehouse) == [("ok", 3, 3)]


def test_a_project_without_fields_and_traits_has_profiles_too(warehouse):
    put(warehouse, [], {1: 1})
    build_profiles(warehouse, Profiles(), (), run())
    assert profile_rows(warehouse) == {1: {"profile_id": 1}}


def test_the_table_has_the_declared_types(warehouse):
    columns = {
        "s": "string",
        "i": "integer",
        "n": "number",
        "d": "decimal",
        "b": "boolean",
        "day": "date",
        "t": "timestamp",
        "j": "json",
    }
    traits = {f"last_{n}": Trait(type="last", stream="web.events", column=n) for n in columns}
    traits |= {f"sum_{n}": Trait(type="sum", stream="web.events", column=n) for n in "ind"}
    traits |= {f"avg_{n}": Trait(type="average", stream="web.events", column=n) for n in "ind"}
    put(warehouse, [], {1: 1})
    build_profiles(warehouse, Profiles(traits=traits), STREAMS, run())
    wanted = {f"last_{n}": kind for n, kind in columns.items()} | {f"sum_{n}": columns[n] for n in "ind"}
    wanted |= {f"avg_{n}": "number" for n in "ind"}
    with warehouse.session() as session:
        spec = ", ".join(f"{n} {warehouse.types[kind]}" for n, kind in wanted.items())
        session.execute(f"create table {warehouse.table('wanted')} ({spec})")
        given = session.columns("profiles")
        assert {n: given[n] for n in wanted} == session.columns("wanted")


def test_a_window_sees_what_happened_before_its_end(warehouse):
    rows = [
        event(1, at=NOW - timedelta(microseconds=1)),
        event(1, at=NOW),
        event(1, at=None),
        event(1, at=NOW + DAY),
    ]
    put(warehouse, numbered(rows), {1: 1})
    build_profiles(warehouse, COUNT, STREAMS, run())
    assert profile_rows(warehouse)[1]["events"] == 2


def test_a_rerun_changes_nothing_and_an_older_window_is_superseded(warehouse):
    put(warehouse, numbered([event(1), event(2)]), {1: 1, 2: 2})
    build_profiles(warehouse, COUNT, STREAMS, run(run_id="1"))
    before = profile_rows(warehouse)
    build_profiles(warehouse, COUNT, STREAMS, run(run_id="1"))
    assert profile_rows(warehouse) == before
    assert build_profiles(warehouse, COUNT, STREAMS, run(NOW - DAY, "0")).state == "superseded"
    assert profile_rows(warehouse) == before
    assert ledger(warehouse) == [("superseded", 0, 0), ("ok", 2, 2)]


def test_a_merge_moves_rows_and_takes_the_loser_away(warehouse):
    rows = numbered([event(1), event(2)])
    put(warehouse, rows, {1: 1, 2: 2})
    build_profiles(warehouse, COUNT, STREAMS, run(NOW))
    put(warehouse, rows, {1: 1, 2: 1})
    build_profiles(warehouse, COUNT, STREAMS, run(NOW + DAY))
    assert {p: row["events"] for p, row in profile_rows(warehouse).items()} == {1: 2}


def test_columns_follow_the_project(warehouse):
    put(warehouse, [event(1, i=4)], {1: 1})
    build_profiles(warehouse, COUNT, STREAMS, run())
    other = Profiles(traits={"total": Trait(type="sum", stream="web.events", column="i")})
    build_profiles(warehouse, other, STREAMS, run())
    assert profile_rows(warehouse) == {1: {"profile_id": 1, "total": 4}}


def test_days_since_last_counts_whole_days_of_24_hours(warehouse):
    wanted = Profiles(traits={"days": Trait(type="days_since_last", stream="web.events")})
    tick = timedelta(microseconds=1)
    ages = {
        1: DAY,
        2: DAY - tick,
        3: DAY + tick,
        4: timedelta(days=20_000),
        5: timedelta(days=20_000) - tick,
        6: tick,
    }
    put(warehouse, numbered([event(n, at=NOW - age) for n, age in ages.items()]), {n: n for n in ages})
    build_profiles(warehouse, wanted, STREAMS, run())
    assert [profile_rows(warehouse)[n]["days"] for n in ages] == [1, 0, 1, 20_000, 19_999, 0]


def test_nulls_count_for_nothing_and_no_rows_give_no_sum(warehouse):
    kinds = ("sum", "average", "min", "max", "first", "last", "distinct_count")
    wanted = Profiles(traits={kind: Trait(type=kind, stream="web.events", column="d") for kind in kinds})
    rows = [event(1, d=Decimal(1)), event(1, d=None), event(1, d=Decimal("0.5")), event(2, d=None)]
    put(warehouse, numbered(rows), {1: 1, 2: 2})
    build_profiles(warehouse, wanted, STREAMS, run())
    rows = profile_rows(warehouse)
    half, one = Decimal("0.5"), Decimal(1)
    assert [rows[1][kind] for kind in kinds] == [one + half, 0.75, half, one, one, half, 2]
    assert [rows[2][kind] for kind in kinds] == [None] * 6 + [0]


@pytest.mark.parametrize(
    ("keep", "expected"),
    [("most_recent", "new"), ("first", "old"), ("source_priority", "new"), ("most_frequent", "often")],
)
def test_survivorship_between_sources(warehouse, keep, expected):
    ago = [NOW - n * DAY for n in range(10)]
    rows = [
        event(1, s="old", at=ago[9]),
        event(1, s="often", at=ago[8]),
        Row("crm.people", 1, {"s": "often", "at": ago[7]}),
        event(1, s="new", at=ago[1]),
        event(1, s="", at=ago[0] - DAY / 2),
        Row("crm.people", 1, {"s": None, "at": ago[0] - DAY / 2}),
    ]
    put(warehouse, numbered(rows), {1: 1})
    wanted = Profiles(fields={"s": ProfileField(sources=["web.events.s", "crm.people.s"], keep=keep)})
    build_profiles(warehouse, wanted, STREAMS, run())
    assert profile_rows(warehouse)[1]["s"] == expected


def test_ties_go_to_the_later_load_then_to_the_earlier_source(warehouse):
    wanted = Profiles(fields={"s": ProfileField(sources=["crm.people.s", "web.events.s"])})
    at = NOW - DAY
    rows = [
        Row("crm.people", 1, {"id": "0", "s": "crm", "at": at}, load_seq=1),
        Row("web.events", 1, {"id": "1", "s": "web", "at": at}, load_id=2, load_seq=2),
        Row("crm.people", 2, {"id": "2", "s": "crm", "at": at}, load_seq=1, position=2),
        Row("web.events", 2, {"id": "3", "s": "web", "at": at}, load_id=3, load_seq=1, position=3),
    ]
    put(warehouse, rows, {1: 1, 2: 2})
    build_profiles(warehouse, wanted, STREAMS, run())
    assert [profile_rows(warehouse)[p]["s"] for p in (1, 2)] == ["web", "crm"]


def test_an_optional_stream_that_never_landed_has_no_rows(warehouse):
    ghost = Stream(
        source="new", name="ghost", primary_key=("id",), time="at", event="id", optional=True,
        columns={"id": "string", "at": "timestamp", "j": "json"}, options=Options(),
    )  # fmt: skip
    put(warehouse, [event(1)], {1: 1})
    wanted = Profiles(
        traits={
            "seen": Trait(type="count", stream="new.ghost", within_last=DAY),
            "newest": Trait(type="last", stream="new.ghost", column="id"),
        },
        fields={"id": ProfileField(sources=["new.ghost.id"], keep="most_frequent")},
    )
    build_profiles(warehouse, wanted, [*STREAMS, ghost], run())
    assert profile_rows(warehouse)[1] == {
        "profile_id": 1,
        "seen": 0,
        "newest": None,
        "id": None,
    }
    needed = ghost.model_copy(update={"optional": False})
    with pytest.raises(NotFoundError, match=r"new\.ghost is needed, but it was never landed"):
        build_profiles(warehouse, wanted, [*STREAMS, needed], run())
    assert ledger(warehouse)[0][0] == "failed"


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (Profiles(traits={"x": Trait(type="sum", stream="web.events", column="s")}), "x names no column"),
        (Profiles(traits={"x": Trait(type="max", stream="web.events", column="j")}), "x names no column"),
        (
            Profiles(traits={"x": Trait(type="average", stream="web.events", column="s")}),
            "needs a column of numbers",
        ),
        (Profiles(traits={"x": Trait(type="count", stream="web.event")}), "no stream 'web.event'"),
        (Profiles(traits={"x": Trait(type="sum", stream="web.events", column="q")}), "x names no column"),
        (Profiles(traits={"x": Trait(type="days_since_last", stream="old.list")}), "declare its time column"),
        (Profiles(traits={"x": Trait(type="count", stream="old.list", within_last=DAY)}), "declare its time"),
        (Profiles(traits={"profile_id": Trait(type="count", stream="web.events")}), "the profile's own key"),
        (
            Profiles(fields={"x": ProfileField(sources=["web.events.d", "web.events.s"])}),
            r"web\.events\.s is string",
        ),
        (
            Profiles(
                traits={"x": Trait(type="count", stream="web.events")},
                fields={"x": ProfileField(sources=["web.events.s"])},
            ),
            "both a field and a trait",
        ),
    ],
)
def test_what_cannot_be_computed_is_refused(make_warehouse, wanted, message):
    warehouse = make_warehouse("duckdb")
    put(warehouse, [], {})
    with pytest.raises(ConfigurationError, match=message):
        build_profiles(warehouse, wanted, STREAMS, run())


NASTY = 'it\'s "quoted"; drop table profiles; -- :p0 %s %% $1 /* \\ é'


def test_strings_of_project_and_data_stay_values(warehouse):
    where = {
        "s": {"is": NASTY, "contains": NASTY, "starts_with": NASTY, "ends_with": NASTY, "any_of": [NASTY]}
    }
    wanted = Profiles(
        traits={
            "hits": Trait(type="count", stream="web.events", where=where),
            "others": Trait(type="count", stream="web.events", where={"s": {"none_of": [NASTY]}}),
            "newest": Trait(type="last", stream="web.events", column="s"),
        },
        fields={"s": ProfileField(sources=["web.events.s", "crm.people.s"], keep="most_frequent")},
    )
    put(warehouse, numbered([event(1, s=NASTY), event(1, s="x", at=None)]), {1: 1})
    build_profiles(warehouse, wanted, STREAMS, run())
    expected = {"hits": 1, "others": 1, "newest": NASTY, "s": NASTY}
    assert profile_rows(warehouse)[1] == {"profile_id": 1, **expected}


def test_each_stream_is_read_once(make_warehouse, monkeypatch):
    warehouse = make_warehouse("duckdb")
    put(warehouse, [], {})
    wanted = Profiles(
        traits={
            f"{s.name}_{n}": Trait(type="count", stream=s.ref, where={"i": n})
            for n in range(9)
            for s in STREAMS
        },
        fields={"s": ProfileField(sources=["web.events.s", "crm.people.s"], keep="first")},
    )
    statements = []
    execute = DuckDBSession.execute

    def noted(session, sql, params=None):
        statements.append(sql)
        return execute(session, sql, params)

    monkeypatch.setattr(DuckDBSession, "execute", noted)
    build_profiles(warehouse, wanted, STREAMS, run())
    keeps = f"create table {warehouse.table('kept')[:-1]}"
    makes = " ".join(sql for sql in statements if sql.startswith(keeps))
    for stream in (EVENTS, PEOPLE, LIST):
        assert makes.count(f"{warehouse.table(table_of(stream))} t ") == 1


def test_a_statement_that_gives_a_profile_twice_is_refused_in_a_later_run_too(warehouse):
    own = Trait(type="sql", as_="string", sql="select profile_id, s as value from {web.events}")
    wanted = Profiles(traits={"own": own, **COUNT.traits})
    put(warehouse, [event(1, id="a", s="x")], {1: 1})
    build_profiles(warehouse, wanted, STREAMS, run())
    with warehouse.session() as session, session.transaction():
        seq = next_seq(session)
        add_rows(
            session, [Row("web.events", 1, {"id": "b", "s": "y", "at": NOW}, load_id=2, load_seq=2)], seq
        )
    with pytest.raises(DataError, match="1 profiles came more than once"):
        build_profiles(warehouse, wanted, STREAMS, run(NOW + DAY, "later"))
    assert profile_rows(warehouse) == {1: {"profile_id": 1, "own": "x", "events": 1}}


def test_provenance_passes_over_a_source_that_never_landed(warehouse):
    ghost = Stream(
        source="new", name="ghost", primary_key=("id",), time="at", optional=True,
        columns={"id": "string", "at": "timestamp"}, options=Options(),
    )  # fmt: skip
    put(warehouse, [event(1, id="a", s="x")], {1: 1})
    wanted = Profiles(fields={"s": ProfileField(sources=["new.ghost.id", "web.events.s"])})
    build_profiles(warehouse, wanted, [*STREAMS, ghost], run())
    found = provenance(warehouse, wanted, [*STREAMS, ghost], 1, "s")
    assert [(one.stream, one.chosen) for one in found.statements] == [("web.events", True)]


def test_what_others_build_on_provenance_outlives_rows_that_are_linked_anew(warehouse):
    wanted = Profiles(fields={"s": ProfileField(sources=["web.events.s"])})
    view, theirs = warehouse.table("field_provenance"), warehouse.table("theirs")
    for number, text in enumerate(("x", "y")):
        put(warehouse, [event(1, id="a", s=text)], {1: 1})
        with warehouse.session() as session:
            session.execute(f"update {warehouse.table('linked')} set fingerprint = ''")
        build_profiles(warehouse, wanted, STREAMS, run(NOW + number * DAY, f"run_{number}"))
        with warehouse.session() as session:
            if not number:
                session.execute(f"create view {theirs} as select field, value from {view}")
            assert session.fetch(f"select field, value from {theirs}") == [("s", text)]


def test_a_snapshot_takes_no_table_of_the_product(warehouse):
    for table in ("membership_flags", "profiles", "kept", "linked_web__events", EVENTS.view):
        with pytest.raises(ConfigurationError, match="give the snapshot another name"):
            snapshot(warehouse, COUNT, STREAMS, NOW, table)
