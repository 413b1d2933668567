# SPDX-License-Identifier: Apache-2.0
"""The page that `make demo` ends with says what the run ledger proves, no more."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from cdp_provider.core.run import Run, Window
from cdp_provider.core.runs import Report
from scripts.summary import WIDTH, newest_window, nothing_new, read_runs, summary, verdict

END = datetime(2026, 7, 1, tzinfo=UTC)


def row(stage: str, node: str = "-", state: str = "ok", counts=(0, 0, 0), error=None, **detail):
    return {
        "pipeline": "shop",
        "run_id": "demo",
        "window_start": None,
        "window_end": END,
        "stage": stage,
        "node": node,
        "state": state,
        "rows_in": counts[0],
        "rows_out": counts[1],
        "rows_refused": counts[2],
        "bytes": 0,
        "seconds": 1.25,
        "watermark": None,
        "detail": json.dumps(detail),
        "error": error,
    }


def first_run():
    return [
        row(
            "sync",
            "newsletter",
            counts=(90, 80, 10),
            accepted=80,
            rejected=4,
            invalid=6,
            removed=0,
            requests=9,
        ),
        row("segments", counts=(100, 90, 0), sizes={"vip": 5, "newsletter": 90}),
        row(
            "resolve",
            counts=(1000, 999, 3),
            profiles=100,
            new_profiles=100,
            merges=7,
            joins=40,
            identifiers=250,
            refused_links=3,
        ),
        row("land", "crm.customers", counts=(1000, 998, 2)),
    ]


def second_run(**delivered):
    return [row("land", "crm.customers"), row("sync", "newsletter", counts=(90, 80, 10), **delivered)]


def test_first_run_in_full():
    assert summary(first_run()).splitlines() == [
        "shop: all up to 2026-07-01 00:00 UTC",
        "",
        "stage     node           rows in  rows out  refused  seconds",
        "land      crm.customers    1,000       998        2      1.2",
        "resolve   -                1,000       999        3      1.2",
        "segments  -                  100        90        0      1.2",
        "sync      newsletter          90        80       10      1.2",
        "",
        "identity  250 identifiers make 100 profiles, of which 100 are new; 40 joins, 7 of them merged known",
        "          profiles; 3 links refused",
        "segments  newsletter 90, vip 5",
        "",
        "deliveries  accepted  rejected  invalid  removed  unchanged  requests",
        "newsletter        80         4        6        0          0         9",
        "",
        "1,000 new rows taken in, 80 changes delivered.",
    ]


def test_incremental_is_said_only_when_proven():
    said = "Incremental: nothing new, nothing delivered twice."
    assert verdict(second_run(accepted=0, removed=0, rejected=0, unchanged=80)) == said
    again = verdict(second_run(accepted=0, removed=0, rejected=4))
    assert again == f"{said} 4 deliveries refused earlier tried again, refused again."


@pytest.mark.parametrize(
    "rows",
    [
        [],
        first_run(),
        second_run(accepted=1),
        second_run(accepted=0, removed=1),
        second_run(accepted=0)[:1],  # nothing was synced, so nothing is proven about deliveries
        second_run(accepted=0)[1:],
        [*second_run(accepted=0), row("check", "crm.customers", state="failed", error="too many")],
        [row("land", "crm.customers", counts=(1, 0, 1)), row("sync", "newsletter", accepted=0)],
    ],
)
def test_incremental_is_not_said_otherwise(rows):
    assert not nothing_new(rows)
    assert "twice" not in summary(rows)


def test_failed_and_superseded_runs_say_so():
    failed = [
        *first_run(),
        row("check", "crm.customers", state="failed", error="12 % of the rows are malformed"),
    ]
    assert verdict(failed) == "Failed: check crm.customers: 12 % of the rows are malformed"
    assert "superseded" in summary([row("resolve", state="superseded")])
    assert verdict([row("resolve", state="superseded")]).startswith("A newer window's result stands already")


def test_an_empty_ledger_is_no_success():
    assert summary([]) == "The run ledger holds nothing of this run."


def test_long_names_stay_on_the_page():
    rows = [
        row("land", "s" * 28 + "." + "t" * 28, counts=(10**9, 10**9, 10**8)),
        row("segments", sizes={f"segment_number_{n}": n * 1000 for n in range(30)}),
        row("sync", "x" * 60, accepted=10**7, rejected=10**5, invalid=10**5, unchanged=10**7, requests=10**5),
    ]
    assert max(len(line) for line in summary(rows).splitlines()) <= WIDTH


def test_reads_what_the_stages_write(make_warehouse, tmp_path):
    warehouse = make_warehouse("duckdb")
    path = next(tmp_path.glob("*.duckdb"))
    assert newest_window(path, "shop") is None
    run = Run("shop", "demo__1", Window(None, END))
    report = Report(
        run, "land", "crm.customers", rows_in=3, rows_out=2, rows_refused=1, detail={"batch": "b"}
    )
    with warehouse.session() as session, session.transaction():
        report.write(session)
    rows = read_runs(path, "shop", "demo__1")
    assert [(line["stage"], line["rows_refused"], line["window_end"]) for line in rows] == [("land", 1, END)]
    assert "3 new rows taken in" in summary(rows)
    assert newest_window(path, "shop") == END
    assert newest_window(path, "another") is None
    assert newest_window(tmp_path / "missing.duckdb", "shop") is None


def test_a_warehouse_without_the_products_tables_has_no_window(tmp_path):
    import duckdb

    path = tmp_path / "empty.duckdb"
    duckdb.connect(str(path)).close()
    assert newest_window(path, "shop") is None
