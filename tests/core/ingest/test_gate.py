# SPDX-License-Identifier: Apache-2.0
"""The gate: nothing downstream runs on a stream that has not passed, or whose rows are missing."""

from __future__ import annotations

import pytest

from cdp_provider.core.exceptions import DataError, NotFoundError
from cdp_provider.core.ingest.contracts import check
from cdp_provider.core.ingest.files import FilesConnector
from cdp_provider.core.ingest.gate import gate
from cdp_provider.core.ingest.landing import land

HEADER = "order_id,email,total,ordered_at\n"


def test_the_gate(warehouse, tmp_path, orders, run):
    streams = [
        orders(path=f"{name}/*.csv", name=name, optional=name == "extra")
        for name in ("good", "bad", "extra", "none")
    ]
    good, bad, _, none = streams
    source = FilesConnector(tmp_path)
    for name in ("good", "bad", "extra"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.csv").write_text(HEADER + ("1,,1,2026-07-01\n" if name != "bad" else "x\n"))
    land(warehouse, good, source, run())
    check(warehouse, good, run())
    land(warehouse, bad, source, run())
    with pytest.raises(DataError):
        check(warehouse, bad, run())
    with pytest.raises(NotFoundError):
        land(
            warehouse,
            none.model_copy(update={"options": none.options.model_copy(update={"path": "none/a.csv"})}),
            source,
            run(),
        )
    with pytest.raises(DataError) as caught:
        gate(warehouse, streams, run())
    first, *lines = str(caught.value).splitlines()
    assert first.startswith("2 of 4 streams have no batch that passed in window 2026-07-01")
    assert lines[0].startswith("- till.bad: check failed: till.bad, window")
    assert lines[1].startswith("- till.none: land failed: the file 'none/a.csv' does not exist")
    assert len(lines) == 2

    report = gate(warehouse, [good, streams[2]], run())
    assert report.detail == {"passed": ["till.good"], "left_out": {"till.extra": "nothing was landed"}}
    assert report.rows_in == 1
    with pytest.raises(DataError, match=r"- till\.good: nothing was landed"):
        gate(warehouse, [good], run(2))
    land(warehouse, good, source, run(2))
    with pytest.raises(DataError, match=r"- till\.good: landed, but not checked"):
        gate(warehouse, [good], run(2))


@pytest.fixture
def day(warehouse, tmp_path, orders, run):
    """Lands a file of these lines (or none at all), checks it and asks the gate: (number, lines, stream) ->
    the gate's report."""

    def call(number, *lines, **parts):
        for file in tmp_path.glob("*.csv"):
            file.unlink()
        if lines:
            (tmp_path / f"{number}.csv").write_text(HEADER + "".join(f"{line}\n" for line in lines))
        stream = orders(**{"quarantine": {"max_share": 0}} | parts)
        land(warehouse, stream, FilesConnector(tmp_path), run(number))
        try:
            check(warehouse, stream, run(number))
        except DataError:
            with pytest.raises(DataError, match=r"- till\.orders: check failed: till.orders, window"):
                gate(warehouse, [stream], run(number))
            return None
        return gate(warehouse, [stream], run(number))

    return call


def test_an_earlier_batch_that_failed_while_this_one_is_empty(warehouse, day, orders, run):
    assert day(1, "1,,1,2026-07-01")
    assert day(2, "2,,1,2026-07-02", "x") is None
    with pytest.raises(DataError) as caught:
        day(3)
    assert str(caught.value).splitlines()[1] == (
        "- till.orders: its batch of the window that ended 2026-07-03T00:00:00+00:00 failed its check, and no"
        " later batch has brought these rows; clear land and check of that window"
    )
    optional = gate(warehouse, [orders(optional=True)], run(3))
    assert list(optional.detail["left_out"]) == ["till.orders"]
    assert gate(warehouse, [orders()], run(1)).detail["passed"] == ["till.orders"]
    # A later batch reads the same stretch again, or the failed one is landed once more.
    assert day(4, "2,,1,2026-07-02")
    assert gate(warehouse, [orders()], run(3)).detail["passed"] == ["till.orders"]


def test_clearing_the_window_that_failed(warehouse, day, orders, run):
    assert day(1, "1,,1,2026-07-01", "x") is None
    with pytest.raises(DataError, match="failed its check, and no later batch"):
        day(2)
    assert day(1)
    assert gate(warehouse, [orders()], run(2))


def test_a_batch_that_failed_without_rows_misses_none(day):
    assert day(1, contract={"min_rows": 1}) is None
    assert day(2)


def test_freshness_that_is_over(day):
    fresh = {"contract": {"freshness": "1 day"}}
    assert day(1, "1,,1,2026-07-01T12:00:00Z", **fresh)
    assert day(2, **fresh) is None
    assert day(3, contract={"freshness": "1 day", "freshness_severity": "warn"})


def test_another_pipeline_is_none_of_ours(warehouse, day, orders, run):
    assert day(1, "x") is None
    other = run(2).__class__("other", "run_2", run(2).window)
    stream = orders()
    with pytest.raises(DataError, match="nothing was landed"):
        gate(warehouse, [stream], other)
