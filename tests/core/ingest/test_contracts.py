# SPDX-License-Identifier: Apache-2.0
"""The check and the gate."""

from __future__ import annotations

import pytest

from cdp_provider.core.exceptions import ConfigurationError, DataError, NotFoundError
from cdp_provider.core.ingest.contracts import check
from cdp_provider.core.ingest.files import FilesConnector
from cdp_provider.core.ingest.gate import gate
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
    assert report.detail == {"passed": ["till.good"], "left_out": ["till.extra"]}
    assert report.rows_in == 1
    with pytest.raises(DataError, match=r"- till\.good: nothing was landed"):
        gate(warehouse, [good], run(2))
    land(warehouse, good, source, run(2))
    with pytest.raises(DataError, match=r"- till\.good: landed, but not checked"):
        gate(warehouse, [good], run(2))
