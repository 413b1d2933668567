# SPDX-License-Identifier: Apache-2.0
"""A batch lands whole, keeps its place, replaces itself, and nothing of a failed one is lost."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager, suppress
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from cdp_provider.core import tables
from cdp_provider.core.exceptions import ConfigurationError, DataError, NotFoundError
from cdp_provider.core.ingest.base import Connector, Fetched, RawFile
from cdp_provider.core.ingest.contracts import check
from cdp_provider.core.ingest.files import FilesConnector
from cdp_provider.core.ingest.landing import land
from cdp_provider.core.project.base import Options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cdp_provider.core.warehouse import Session, Warehouse

#: Of how many statements an engine dies before one.
SHARES = 1 if int(os.environ.get("CDP_TEST_DEPTH", "1")) > 1 else 2
HEADER = "order_id,email,total,ordered_at\n"


def put(path: Path, *rows: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(HEADER + "".join(f"{row}\n" for row in rows))


def rows(warehouse: Warehouse, sql: str, **params: Any) -> list[tuple[Any, ...]]:
    with warehouse.session() as session:
        return session.fetch(sql, params)


def state(warehouse: Warehouse) -> dict[str, list[tuple[Any, ...]]]:
    """All tables of the product, without what may differ between two tries."""
    found = {}
    with warehouse.session() as session:
        for table in [*tables.TABLES, "raw_till__orders", "till__orders"]:
            names = [n for n in session.columns(table) if n not in ("seconds", "detail")]
            quoted = ", ".join(map(warehouse.quote, names))
            found[table] = (
                sorted(session.fetch(f"select {quoted} from {warehouse.table(table)}"), key=repr)
                if names
                else []
            )
    return found


def view(warehouse: Warehouse) -> list[tuple[Any, ...]]:
    return rows(warehouse, f"select order_id, total from {warehouse.table('till__orders')} order by order_id")


def test_a_batch_lands_with_quarantine_and_report(warehouse, tmp_path, orders, run):
    put(
        tmp_path / "a.csv",
        "1,a@b.c,9.99,2026-07-01T10:00:00Z",
        "2,,1o,",
        "3,,5,2026-07-01T12:00:00+02:00",
        "3,,6,",
    )
    report = land(warehouse, orders(), FilesConnector(tmp_path), run())
    assert (report.rows_in, report.rows_out, report.rows_refused) == (4, 3, 1)
    assert report.watermark.isoformat() == "2026-07-01T10:00:00+00:00"
    assert report.bytes == (tmp_path / "a.csv").stat().st_size
    assert report.detail | {"batch": 0} == {
        "batch": 0,
        "files": 1,
        "files_matched": 1,
        "duplicates": 1,
        "unknown_keys": [],
    }
    table = warehouse.table("raw_till__orders")
    raw = f"select order_id, total, _position, _load_id, _extra from {table} order by 3"
    assert rows(warehouse, raw) == [
        ("1", Decimal("9.99"), 2, 1, None),
        ("3", Decimal(5), 4, 1, None),
        ("3", Decimal(6), 5, 1, None),
    ]
    bad = f"select source, position, reason, raw, run_id, stream from {warehouse.table('quarantine')}"
    assert rows(warehouse, bad) == [
        ("a.csv", 3, 'column "total": "1o" is not a decimal', "2,,1o,", "run_1", "till.orders")
    ]
    assert view(warehouse) == []  # until it has passed its check
    check(warehouse, orders(), run())
    assert view(warehouse) == [("1", Decimal("9.99")), ("3", Decimal(5))]  # null time is older than any
    table = warehouse.table("runs")
    kept = f"select stage, node, state, rows_in, rows_out, rows_refused from {table} order by 1 desc"
    assert rows(warehouse, kept) == [
        ("land", "till.orders", "ok", 4, 3, 1),
        ("check", "till.orders", "ok", 4, 3, 1),
    ]


def test_landing_again_changes_nothing(warehouse, tmp_path, orders, run):
    put(tmp_path / "a.csv", "1,,1,2026-07-01", "x")
    land(warehouse, orders(), FilesConnector(tmp_path), run())
    before = state(warehouse)
    again = land(warehouse, orders(), FilesConnector(tmp_path), run())
    assert (again.rows_out, again.rows_refused) == (1, 1)
    assert state(warehouse) == before


def test_a_file_is_landed_once_and_a_changed_one_again(warehouse, tmp_path, orders, run):
    stream, source = orders(), FilesConnector(tmp_path)
    put(tmp_path / "a.csv", "1,,1,")
    put(tmp_path / "b.csv", "2,,2,")
    assert land(warehouse, stream, source, run(1)).rows_out == 2
    check(warehouse, stream, run(1))
    second = land(warehouse, stream, source, run(2))
    assert (second.rows_in, second.detail["files"], second.detail["files_matched"]) == (0, 0, 2)
    check(warehouse, stream, run(2))
    put(tmp_path / "b.csv", "2,,3,")  # same size, other content
    assert land(warehouse, stream, source, run(3)).rows_out == 1
    check(warehouse, stream, run(3))
    assert view(warehouse) == [("1", Decimal(1)), ("2", Decimal(3))]


def test_a_batch_keeps_its_place(warehouse, tmp_path, orders, run):
    first, second = orders(path="1/*.csv"), orders(path="2/*.csv", name="returns")
    source = FilesConnector(tmp_path)
    put(tmp_path / "1/a.csv", "1,,1,")
    put(tmp_path / "2/a.csv", "1,,1,")
    for day in (1, 2):
        for stream in (first, second):
            land(warehouse, stream, source, run(day))
    places = f"select stream, load_id, load_seq from {warehouse.table('loads')} order by load_id"
    before = [("till.orders", 1, 1), ("till.returns", 2, 1), ("till.orders", 3, 2), ("till.returns", 4, 2)]
    assert rows(warehouse, places) == before
    with warehouse.session() as session:
        session.execute(
            f"update {warehouse.table('loads')} set resolved_seq = 7, resolved_hash = 'old', state = 'passed'"
        )
    put(tmp_path / "1/a.csv", "1,,1,", "2,,2,")
    land(warehouse, first, source, run(1))
    assert rows(warehouse, places) == before
    table = warehouse.table("loads")
    known = f"select state, resolved_seq, resolved_hash, content_hash <> 'old' from {table} where load_id = 1"
    assert rows(warehouse, known) == [("landed", 7, "old", True)]


def test_the_content_hash_follows_content_and_order(warehouse, tmp_path, orders, run):
    def landed(*lines: str) -> str:
        put(tmp_path / "a.csv", *lines)
        land(warehouse, orders(), FilesConnector(tmp_path), run())
        return str(rows(warehouse, f"select content_hash from {warehouse.table('loads')}")[0][0])

    one = landed("1,a,1,", "2,b,2,")
    assert landed("1,a,1.0,", "2,b,2.000,") == one
    assert len({one, landed("2,b,2,", "1,a,1,"), landed("1,a,1,"), landed('1,"",1,'), landed("1,,1,")}) == 5


def test_files_of_a_failed_batch_come_with_the_next(warehouse, tmp_path, orders, run):
    stream, source = orders(), FilesConnector(tmp_path)
    put(tmp_path / "a.csv", "1,,1,", *["x"] * 9)
    land(warehouse, stream, source, run(1))
    with pytest.raises(DataError):
        check(warehouse, stream, run(1))
    put(tmp_path / "b.csv", *[f"{i},,2," for i in range(2, 200)])
    assert land(warehouse, stream, source, run(2)).detail["files"] == 2
    check(warehouse, stream, run(2))
    assert len(view(warehouse)) == 199
    # The failed batch, cleared after all, finds its file taken.
    assert land(warehouse, stream, source, run(1)).rows_in == 0
    check(warehouse, stream, run(1))
    assert len(view(warehouse)) == 199


class Feed(Connector):
    """A source of numbered rows; its cursor is the number up to which it was read."""

    options = Options

    def __init__(self) -> None:
        self.newest = 0
        self.started: list[int] = []

    def fetch(self, stream, cursor, window, spool, *, taken=(), until=None):
        first = cursor["n"] if cursor else 0
        self.started.append(first)
        path = spool / "rows"
        path.write_text(
            "".join(json.dumps({"order_id": str(n), "total": n}) + "\n" for n in range(first, self.newest))
        )
        return Fetched([RawFile(path, "feed", "ndjson")], cursor={"n": self.newest})


def set_state(warehouse: Warehouse, load_id: int, value: str) -> None:
    with warehouse.session() as session:
        session.execute(
            f"update {warehouse.table('loads')} set state = :v where load_id = :i", {"v": value, "i": load_id}
        )


def test_a_batch_starts_where_the_last_good_one_ended(warehouse, orders, run):
    feed, stream = Feed(), orders()

    def landed(day: int, newest: int, verdict: str) -> int:
        feed.newest = newest
        land(warehouse, stream, feed, run(day))
        load_id = rows(
            warehouse, f"select load_id from {warehouse.table('loads')} where run_id = 'run_{day}'"
        )[0][0]
        set_state(warehouse, load_id, verdict)
        return feed.started[-1]

    assert landed(1, 5, "passed") == 0
    assert landed(2, 9, "failed") == 5
    assert landed(3, 12, "failed") == 5
    assert landed(4, 15, "passed") == 5  # covers both
    assert landed(5, 20, "passed") == 15
    assert landed(2, 22, "passed") == 5  # its own start, whatever came after
    assert landed(6, 30, "passed") == 20
    # A check that fails late, after the next window has landed behind it.
    set_state(warehouse, 5, "failed")
    assert landed(7, 31, "passed") == 15
    assert landed(8, 32, "passed") == 31
    assert len(view(warehouse)) == 32


class Killed(BaseException):
    """The process ends here."""


@contextmanager
def killed_at(warehouse: Warehouse, number: int) -> Iterator[Callable[[], int]]:
    """Let `number` statements of sessions through, then die; yields a counter."""
    count = 0
    real = warehouse.session

    def counted(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if count > number:
                raise Killed
            return method(*args, **kwargs)

        return call

    @contextmanager
    def session() -> Iterator[Session]:
        with real() as opened:
            for name in ("execute", "fetch", "load", "arrow"):
                setattr(opened, name, counted(getattr(opened, name)))
            yield opened

    warehouse.session = session
    try:
        yield lambda: count
    finally:
        warehouse.session = real


def test_dying_at_any_statement_leaves_the_old_or_the_new(warehouse, make_warehouse, tmp_path, orders, run):
    stream, source = orders(), FilesConnector(tmp_path)
    put(tmp_path / "a.csv", "1,,1,", "bad")
    clean = make_warehouse(warehouse.engine)
    for target in (warehouse, clean):
        land(target, stream, source, run(1))
    put(tmp_path / "b.csv", "2,,2,", "bad", "1,,9,")
    old = state(warehouse)
    land(clean, stream, source, run(2))
    new = state(clean)
    # Two engines share the statements among them: both send nearly the same ones.
    for number in range(warehouse.engine == "postgres" and SHARES > 1, 200, SHARES):
        with killed_at(warehouse, number) as count:
            try:
                land(warehouse, stream, source, run(2))
            except Killed:
                pass
            else:
                break
        # The last statements come after the commit: they give locks back.
        assert state(warehouse) in ((old, new) if number > 20 else (old,)), f"after statement {count()}"
    assert 15 < number < 60
    assert state(warehouse) == new
    for step in range(0, number, 6 * SHARES):
        with killed_at(warehouse, step), suppress(Killed):
            land(warehouse, stream, source, run(2))
        assert state(warehouse) == new
    land(warehouse, stream, source, run(2))
    assert state(warehouse) == new


def test_dying_in_the_check(warehouse, tmp_path, orders, run):
    put(tmp_path / "a.csv", "1,,1,")
    land(warehouse, orders(), FilesConnector(tmp_path), run())
    for number in range(50):
        try:
            with killed_at(warehouse, number):
                check(warehouse, orders(), run())
        except Killed:
            assert view(warehouse) == []
        else:
            break
    assert view(warehouse) == [("1", Decimal(1))]


def test_the_contract_may_grow_and_shrink(warehouse, tmp_path, orders, run):
    source = FilesConnector(tmp_path)
    put(tmp_path / "a.csv", "1,a@b.c,1,")
    land(warehouse, orders(), source, run(1))
    check(warehouse, orders(), run(1))
    columns = {"order_id": "string", "note": "json", "total": "decimal", "ordered_at": "timestamp"}
    wider = orders(columns=columns)
    (tmp_path / "b.csv").write_text('order_id,total,note\n2,2,"{""a"": 1}"\n')
    land(warehouse, wider, source, run(2))
    check(warehouse, wider, run(2))
    names = "order_id, note, total"
    landed = rows(warehouse, f"select {names} from {warehouse.table('till__orders')} order by 1")
    assert [(a, json.loads(b) if isinstance(b, str) else b, c) for a, b, c in landed] == [
        ("1", None, Decimal(1)),
        ("2", {"a": 1}, Decimal(2)),
    ]
    with warehouse.session() as session:
        assert list(session.columns("till__orders")) == [*columns, "_load_id", "_position", "_load_seq"]


def test_a_column_cannot_change_its_type(warehouse, tmp_path, orders, run):
    put(tmp_path / "a.csv", "1,,1,")
    land(warehouse, orders(), FilesConnector(tmp_path), run(1))
    changed = orders(columns={"order_id": "string", "total": "string", "ordered_at": "timestamp"})
    with pytest.raises(ConfigurationError, match="'total' of till.orders is now declared as string"):
        land(warehouse, changed, FilesConnector(tmp_path), run(2))


def test_every_kind_of_value_reaches_the_warehouse(warehouse, tmp_path, orders, run):
    columns = {
        "order_id": "string",
        "i": "integer",
        "n": "number",
        "d": "decimal",
        "b": "boolean",
        "day": "date",
        "ordered_at": "timestamp",
        "j": "json",
    }
    stream = orders(path="*.ndjson", form="ndjson", columns=columns)
    values = [
        {"i": -(2**63), "n": 1e300, "d": "9999999999999999999999.999999", "b": True, "day": "0001-01-01"},
        {
            "i": 2**63 - 1,
            "n": -0.0,
            "d": "-0.000001",
            "b": False,
            "day": "9999-12-31",
            "ordered_at": "0001-01-01",
        },
        {"ordered_at": "9999-12-31T23:59:59.999999Z", "j": {"\u00e9\U0001f600": '\U0001f600 "x" \\u0000'}},
        {"i": None, "j": [], "emoji \u2028": 'line\u2028separator\r\n\ttab, "quote"'},
    ]
    lines = [json.dumps({"order_id": str(i), **v}) for i, v in enumerate(values)]
    (tmp_path / "a.ndjson").write_text("\n".join(lines))
    report = land(warehouse, stream, FilesConnector(tmp_path), run())
    assert report.rows_refused == 0
    check(warehouse, stream, run())
    table = warehouse.table("till__orders")
    kept = rows(
        warehouse,
        f"select i, n, cast(d as varchar), b, cast(day as varchar) from {table} order by order_id",
    )
    assert kept[0] == (-(2**63), 1e300, "9999999999999999999999.999999", True, "0001-01-01")
    assert kept[1] == (2**63 - 1, 0.0, "-0.000001", False, "9999-12-31")
    with warehouse.session() as session:
        table = session.arrow(
            "select ordered_at, cast(j as varchar) as j, cast(_extra as varchar) as e"
            f" from {warehouse.table('raw_till__orders')} order by order_id"
        )
    assert [str(v)[:26] for v in table["ordered_at"].cast(pa.timestamp("us"))][1:3] == [
        "0001-01-01 00:00:00",
        "9999-12-31 23:59:59.999999",
    ]
    assert json.loads(table["j"][2].as_py()) == values[2]["j"]
    assert json.loads(table["e"][3].as_py()) == {"emoji \u2028": values[3]["emoji \u2028"]}


def test_nan_and_the_like_never_reach_the_warehouse(warehouse, tmp_path, orders, run):
    stream = orders(path="*.ndjson", form="ndjson")
    (tmp_path / "a.ndjson").write_bytes(
        b"\n".join(
            b'{"order_id":"1","total":1,"z":%s}' % value
            for value in (
                b"NaN",
                b'"\\u0000"',
                b"1e99999",
                b"[1,]",
                b'"\\ud800"',
                b"\xff",
                b"[" * 9000 + b"]" * 9000,
                b'"ok"',
            )
        )
    )
    report = land(warehouse, stream, FilesConnector(tmp_path), run())
    assert (report.rows_in, report.rows_out) == (8, 1)


def test_a_failed_landing_is_on_record_without_data(warehouse, tmp_path, orders, run):
    with pytest.raises(NotFoundError):
        land(warehouse, orders(path="none.csv"), FilesConnector(tmp_path), run())
    assert rows(warehouse, f"select state, error from {warehouse.table('runs')}") == [
        ("failed", f"the file 'none.csv' does not exist below {tmp_path}; put it there, or correct the path")
    ]
