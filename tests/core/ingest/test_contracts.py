# SPDX-License-Identifier: Apache-2.0
"""The check: what a batch has to keep, and what is kept of it."""

from __future__ import annotations

import json

import pytest

from cdp_provider.core.exceptions import ConfigurationError, DataError
from cdp_provider.core.ingest.contracts import check
from cdp_provider.core.ingest.files import FileOptions, FilesConnector
from cdp_provider.core.ingest.landing import land

HEADER = "order_id,email,total,ordered_at\n"


@pytest.fixture
def landed(warehouse, tmp_path, orders, run):
    """Lands lines and checks them: (stream parts, lines, day) -> report of the check."""

    def call(*lines, day=1, **parts):
        (tmp_path / f"{day}.csv").write_text(HEADER + "".join(f"{line}\n" for line in lines))
        stream = orders(**parts)
        land(warehouse, stream, FilesConnector(tmp_path), run(day))
        return check(warehouse, stream, run(day))

    return call


def states(warehouse):
    with warehouse.session() as session:
        return [s for (s,) in session.fetch(f"select state from {warehouse.table('loads')} order by load_id")]


def test_too_many_bad_rows(warehouse, landed):
    bad = ["1,,jane@example.com,", "2,,3o,2026-13-01", "3,,x", ",,1,"]
    with pytest.raises(DataError) as caught:
        landed("9,,1,", *bad, '5,,"a"" is not",', quarantine={"max_share": 0.2})
    message = str(caught.value)
    assert "5 of 6 rows (83.3%) are in quarantine, more than the allowed 20.0%" in message
    assert 'most often: column "total": … is not a decimal (2)' in message
    assert "load_id 1" in message
    for value in ("jane", "3o", "2026-13"):
        assert value not in message
    assert states(warehouse) == ["failed"]
    with warehouse.session() as session:
        runs = session.fetch(f"select state, error from {warehouse.table('runs')} where stage = 'check'")
    assert runs == [("failed", message)]


def test_an_absolute_limit(warehouse, landed):
    with pytest.raises(DataError, match="1 rows are in quarantine, more than the allowed 0"):
        landed("1,,1,", "x", quarantine={"max_share": 1, "max_rows": 0})
    assert states(warehouse) == ["failed"]


def test_a_share_at_the_limit_passes(warehouse, landed):
    assert landed("1,,1,", "x", quarantine={"max_share": 0.5}).rows_refused == 1
    assert states(warehouse) == ["passed"]


def test_too_few_rows(warehouse, landed):
    with pytest.raises(DataError, match="0 rows landed, fewer than min_rows 1"):
        landed(contract={"min_rows": 1})
    assert states(warehouse) == ["failed"]


def test_freshness(warehouse, landed):
    fresh = {"contract": {"freshness": "1 day"}}
    landed("1,,1,2026-07-01T00:00:00Z", **fresh)  # exactly a day before the end of the window
    landed(day=2, contract={"freshness": "2 days"})  # nothing new: the newest that passed counts
    with pytest.raises(
        DataError, match=r"newest row is of 2026-07-01T00:00:00\+00:00, more than 1 day, 0:00:00 before"
    ):
        landed(day=3, **fresh)
    with pytest.raises(DataError, match="newest row is of 2026-07-02T23"):
        landed("2,,1,2026-07-02T23:00:00Z", "3,,1,2099-01-01", day=4, **fresh)  # the future is not fresh


def test_freshness_of_a_stream_that_never_had_a_row(landed):
    with pytest.raises(DataError, match="no time at all"):
        landed(contract={"freshness": "1 day"})


def test_freshness_without_a_time(warehouse, orders, run):
    with pytest.raises(ConfigurationError, match="declares contract.freshness but no time column"):
        check(warehouse, orders(time=None, contract={"freshness": "1 day"}), run())


def test_nothing_landed(warehouse, orders, run):
    with pytest.raises(DataError, match="no batch has been landed"):
        check(warehouse, orders(), run())


def test_checking_again_and_after_the_contract_was_loosened(warehouse, landed, orders, run):
    with pytest.raises(DataError):
        landed("1,,1,", "x", quarantine={"max_share": 0})
    for _ in range(2):
        assert check(warehouse, orders(quarantine={"max_share": 1}), run()).rows_out == 1
        assert states(warehouse) == ["passed"]


# Rules of columns and of one's own


def results(warehouse, *columns):
    """Rule -> what the last check said of it."""
    wanted = columns or ("outcome",)
    with warehouse.session() as session:
        rows = session.fetch(
            f"select rule, {', '.join(wanted)} from {warehouse.table('contract_results')} order by load_id"
        )
    return {rule: found[0] if len(found) == 1 else tuple(found) for rule, *found in rows}


def columns(**conditions):
    """The columns of the orders, with further conditions on some of them."""
    return {
        "columns": {
            name: {"type": kind, **conditions.get(name, {})}
            for name, kind in {
                "order_id": "string",
                "email": "string",
                "total": "decimal",
                "ordered_at": "timestamp",
            }.items()
        }
    }


ROWS = ("1,jane@example.com,10,2026-07-01", "2,joe@example.com,-3,2026-06-30", "3,,,")

#: A rule, and how many of the ROWS break it.
RULES = [
    ({"column": "total", "min": 0}, 1),
    ({"column": "total", "min": -3}, 0),
    ({"column": "total", "min": 10.5}, 2),
    ({"column": "total", "max": 9.5}, 1),
    ({"column": "total", "max": 10}, 0),
    ({"column": "total", "values": [10, -4]}, 1),
    ({"column": "total", "values": [10, -3]}, 0),
    ({"column": "total", "required": True}, 1),
    ({"column": "order_id", "required": True}, 0),
    ({"column": "email", "pattern": "jane@.+"}, 1),
    ({"column": "email", "pattern": r"(jane|joe)@[a-z]+\.com"}, 0),
    ({"column": "email", "min_length": 16}, 1),
    ({"column": "email", "min_length": 15}, 0),
    ({"column": "email", "max_length": 15}, 1),
    ({"column": "email", "max_length": 16}, 0),
    ({"column": "email", "values": ["joe@example.com", "it's"]}, 1),
    ({"column": "ordered_at", "min": "2026-07-01"}, 1),
    ({"column": "ordered_at", "min": "2026-06-30T00:00:00Z"}, 0),
    ({"column": "ordered_at", "max": "2026-06-30"}, 1),
    ({"column": "ordered_at", "max": "2026-07-01"}, 0),
    ({"column": "ordered_at", "max": "2026-06-30T23:59:59Z"}, 1),
    ({"sql": "total > 0"}, 1),  # null is not broken
    ({"sql": "email like '%@example.com' -- a comment"}, 0),
    ({"sql": "total is not null or email is null"}, 0),
    ({"sql": "not (order_id = '1' and total > 5); "}, 1),
    ({"sql": "coalesce(total, 0) % 2 = 0"}, 1),
    ({"query": "select count(*) from {rows} where total < 0"}, 1),
    ({"query": "select count(*) from {rows} where total < -9"}, 0),
    ({"query": "select sum(total) from {rows}", "min": 7, "max": 7}, 0),
    ({"query": "select sum(total) from {rows}", "max": 6.5}, 1),
    ({"query": "with r as (select * from {rows}) select count(*) from r", "min": 4}, 1),
    ({"query": "select max(total) from {rows} where total > 99", "max": 1}, 0),  # null
    ({"query": "select avg(total) from {rows}"}, 1),  # neither 0 nor a count
    ({"query": "select count(*) from {rows} where ordered_at > :now"}, 0),
    ({"query": "select count(*) from {rows} r join {till.orders} o using (order_id)", "min": 3}, 0),
    ({"rows": {"min": 4}}, 1),
    ({"rows": {"min": 1, "max": 2}}, 1),
    ({"rows": {"min": 3, "max": 3}}, 0),
]


def test_what_rules_say_of_rows(warehouse, landed):
    rules = [{"name": f"r{i}", "severity": "warn", **rule} for i, (rule, _) in enumerate(RULES)]
    landed(*ROWS, contract={"rules": rules}, **columns())
    found = results(warehouse, "failed", "outcome", "severity")
    for i, (rule, failed) in enumerate(RULES):
        assert found[f"r{i}"] == (failed, "warned" if failed else "passed", "warn"), rule


def test_conditions_that_stand_with_the_column(warehouse, landed):
    given = columns(
        email={"pattern": "jane.*", "max_length": 15, "severity": "warn"},
        total={"min": 0, "max": 100, "severity": "fail"},
    )
    with pytest.raises(DataError) as caught:
        landed(*ROWS, **given)
    assert "total.min: 1 of 3 rows (33.3%) break it, more than the allowed 0" in str(caught.value)
    for value in ("jane", "joe", "-3"):
        assert value not in str(caught.value)
    assert states(warehouse) == ["failed"]
    found = results(warehouse, "kind", "severity", "checked", "failed", "outcome")
    assert found["total.min"] == ("min", "fail", 3, 1, "failed")
    assert found["total.max"] == ("max", "fail", 3, 0, "passed")
    assert found["email.pattern"] == ("pattern", "warn", 3, 1, "warned")
    assert found["email.max_length"] == ("max_length", "warn", 3, 1, "warned")


LIMITS = [
    ({"max_rows": 2}, True),
    ({"max_rows": 1}, False),
    ({"max_share": 0.5}, True),
    ({"max_share": 0.49}, False),
    ({"max_rows": 1, "max_share": 1}, False),
    ({"max_rows": 9, "max_share": 0.4}, False),
    ({}, False),
]


def test_how_many_rows_may_break_a_rule(warehouse, landed):
    lines = [f"{i},,{-1 if i < 3 else 1},2026-07-01" for i in range(1, 5)]
    rules = [
        {"name": f"r{i}", "column": "total", "min": 0, "severity": "warn", **limits}
        for i, (limits, _) in enumerate(LIMITS)
    ]
    landed(*lines, contract={"rules": rules}, **columns())
    found = results(warehouse, "failed", "share", "outcome")
    for i, (limits, passes) in enumerate(LIMITS):
        assert found[f"r{i}"] == (2, 0.5, "passed" if passes else "warned"), limits


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ({"sql": "totl > 0", "severity": "fail"}, "totl"),
        ({"sql": "cast(email as integer) > 0", "severity": "fail"}, "cannot be computed: "),
        ({"query": "select count(*) from {rows} where totl > 0"}, "totl"),
        ({"query": "select max(cast(email as integer)) from {rows}"}, "cannot be computed: "),
        ({"query": "select total from {rows}"}, "gives no single number"),
        ({"query": "select 'text'"}, "gives no single number"),
    ],
    ids=str,
)
def test_sql_of_ones_own_that_cannot_be_computed(warehouse, landed, rule, told):
    with pytest.raises(ConfigurationError, match="'mine'") as caught:
        landed(*ROWS, contract={"rules": [{"name": "mine", **rule}]}, **columns())
    assert told in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None  # the engine's own error quotes values
    assert "jane" not in str(caught.value)
    assert states(warehouse) == ["landed"]
    assert results(warehouse) == {}


# Unique


def test_rows_of_one_key_may_follow_each_other(warehouse, landed):
    lines = ("1,jane@example.com,1,2026-07-01T01:00:00Z", "1,jane@example.com,2,2026-07-01T02:00:00Z")
    landed(*lines, **columns(email={"unique": True}))
    assert results(warehouse, "checked", "failed")["email.unique"] == (2, 0)


def test_a_value_of_two_keys_in_one_batch(warehouse, landed):
    lines = ("1,jane@example.com,1,", "2,jane@example.com,1,", "3,,1,", "4,,1,")
    with pytest.raises(DataError, match=r"email.unique: 2 of 2 rows \(100.0%\) break it"):
        landed(*lines, **columns(email={"unique": True}))


def test_a_value_of_another_key_in_an_earlier_batch(warehouse, landed):
    given = columns(email={"unique": True, "severity": "warn"})
    landed("1,jane@example.com,1,2026-07-01", **given)
    landed("2,joe@example.com,1,2026-07-02", "1,jane@example.com,2,2026-07-02", day=2, **given)
    assert set(results(warehouse).values()) == {"passed"}
    report = landed("3,joe@example.com,1,2026-07-03", "4,x@example.com,1,2026-07-03", day=3, **given)
    assert report.detail["warned"] == ["email.unique"]
    assert results(warehouse, "checked", "failed")["email.unique"] == (2, 1)


def test_a_value_that_went_over_to_another_key(warehouse, landed):
    given = columns(email={"unique": True})
    landed("1,jane@example.com,1,2026-07-01", **given)
    lines = ("1,new@example.com,1,2026-07-02", "2,jane@example.com,1,2026-07-02")
    assert landed(*lines, day=2, **given).detail["rules"]["failed"] == 0


def test_a_unique_primary_key_occurs_once_in_a_batch(landed):
    lines = ("1,,1,2026-07-01T01:00:00Z", "1,,2,2026-07-01T02:00:00Z")
    with pytest.raises(DataError, match="order_id.unique: 1 of 2 rows"):
        landed(*lines, **columns(order_id={"unique": True}))


def test_columns_that_are_unique_together(warehouse, landed):
    rule = {"unique": ["email", "total"], "max_rows": 1}
    lines = ("1,a@example.com,1,", "2,a@example.com,2,", "3,,2,", "4,,2,")
    landed(*lines, contract={"rules": [rule]}, **columns())
    assert results(warehouse, "checked", "failed")["email_total.unique"] == (2, 0)
    with pytest.raises(DataError, match="email_total.unique: 2 of 3 rows"):
        landed(*lines, "5,a@example.com,1,", contract={"rules": [rule]}, **columns())


# References


def test_references(warehouse, tmp_path, landed, orders, run):
    given = columns(email={"references": "till.people.email"})
    with pytest.raises(DataError, match="1 of 1 rows .* till.people has landed nothing yet"):
        landed("1,jane@example.com,1,", **given)
    (tmp_path / "people").mkdir()
    (tmp_path / "people" / "1.csv").write_text(HEADER + "9,jane@example.com,1,\n")
    people = orders(name="people", path="people/*.csv")
    land(warehouse, people, FilesConnector(tmp_path), run())
    with pytest.raises(DataError, match="email.references"):  # they have not passed yet
        landed("1,jane@example.com,1,", **given)
    check(warehouse, people, run())
    landed("1,jane@example.com,1,", "2,,1,", **given)
    with pytest.raises(DataError, match="1 of 2 rows .* their email is not in till.people.email"):
        landed("1,jane@example.com,1,", "2,joe@example.com,1,", day=2, **given)


def test_a_reference_to_the_stream_itself(warehouse, landed):
    given = columns(email={"references": "till.orders.order_id"})
    landed("1,,1,", "2,1,1,", **given)
    with pytest.raises(DataError, match="email.references: 1 of 2 rows"):
        landed("3,1,1,", "4,9,1,", day=2, **given)


# Volume


def test_bounds_of_rows(warehouse, landed):
    landed(*ROWS, contract={"max_rows": 3, "min_rows": 3}, **columns())
    with pytest.raises(DataError, match="max_rows: 3 rows landed, more than max_rows 2"):
        landed(*ROWS, day=2, contract={"max_rows": 2}, **columns())
    assert states(warehouse) == ["passed", "failed"]


def test_a_change_against_the_mean_of_the_last_batches(warehouse, landed):
    given = {"contract": {"max_change": {"share": 0.5, "windows": 2}}}
    for day, rows in enumerate((2, 10, 4, 8), 1):  # the mean of 10 and 4 is 7
        try:
            landed(*(f"{day}-{i},,1," for i in range(rows)), day=day, **given)
        except DataError:
            assert day == 3  # 4 is less than half of 6, the mean of 2 and 10 ... allowed from 3
    assert states(warehouse) == ["passed"] * 4
    with pytest.raises(DataError, match="13 rows landed, more than 50% away from 6, the mean of the last 2"):
        landed(*(f"5-{i},,1," for i in range(13)), day=5, **given)


# What is kept


class Arriving(FileOptions):
    """Files whose records tell of deletions."""

    def by_arrival(self) -> bool:
        return True


def test_results_are_kept_also_of_a_batch_that_fails_and_replaced_by_the_next_check(
    warehouse, landed, orders, run
):
    strict = columns(total={"min": 0, "severity": "fail"}, email={"min_length": 99, "severity": "warn"})
    with pytest.raises(DataError):
        landed(*ROWS, contract={"owner": "team-shop", "min_rows": 1}, **strict)
    with warehouse.session() as session:
        rows = session.fetch(
            "select rule, kind, severity, checked, failed, share, outcome, pipeline, run_id, stream, load_id"
            f" from {warehouse.table('contract_results')} order by rule"
        )
        detail = session.scalar(f"select detail from {warehouse.table('runs')} where stage = 'check'")
    assert [row[:7] for row in rows] == [
        ("email.min_length", "min_length", "warn", 3, 2, pytest.approx(2 / 3), "warned"),
        ("min_rows", "min_rows", "fail", 3, 0, 0, "passed"),
        ("primary_key", "required", "fail", 3, 0, 0, "passed"),
        ("quarantine", "quarantine", "fail", 3, 0, 0, "passed"),
        ("total.min", "min", "fail", 3, 1, pytest.approx(1 / 3), "failed"),
    ]
    assert {row[7:] for row in rows} == {("shop", "run_1", "till.orders", 1)}
    detail = json.loads(detail)
    assert detail["rules"] == {"passed": 3, "warned": 1, "failed": 1}
    assert (detail["warned"], detail["broken"]) == (["email.min_length"], ["total.min"])
    assert detail["owner"] == "team-shop"
    check(warehouse, orders(), run())
    assert results(warehouse) == {"primary_key": "passed", "quarantine": "passed"}


def test_deleted_rows_do_not_count(warehouse, tmp_path, orders, run):
    given = columns(total={"min": 0, "severity": "fail"}, email={"unique": True})
    stream = orders(contract={"max_rows": 1}, **given)
    stream = stream.model_copy(update={"options": Arriving(path="*.ndjson", format="ndjson")})
    (tmp_path / "1.ndjson").write_text(
        '{"order_id": "1", "email": "a", "total": 1}\n'
        '{"order_id": "2", "email": "a", "total": -1, "_deleted": true}\n'
    )
    land(warehouse, stream, FilesConnector(tmp_path), run())
    check(warehouse, stream, run())
    assert results(warehouse, "checked", "failed")["total.min"] == (1, 0)


def test_what_a_rule_sets_aside_is_counted(warehouse, landed):
    given = columns(total={"min": 0, "max_share": 0.3}, email={"pattern": "jane.*"})
    rules = {"contract": {"rules": [{"name": "mine", "sql": "total <> 7"}]}, "quarantine": {"max_share": 1}}
    landed(*ROWS, "4,jane@example.com,7,", **rules, **given)
    found = results(warehouse, "severity", "checked", "failed", "outcome")
    assert found["total.min"] == ("quarantine", 4, 1, "passed")
    assert found["email.pattern"] == ("quarantine", 4, 1, "passed")
    assert found["mine"] == ("quarantine", 4, 1, "passed")
    assert found["quarantine"] == ("fail", 4, 2, "passed")
    with pytest.raises(
        DataError, match=r"total.min: 2 of 5 rows \(40.0%\) break it, more than the allowed 30.0%"
    ):
        landed(*ROWS, "4,joe@example.com,-8,", "5,,7,", **rules, **given)
