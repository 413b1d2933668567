# SPDX-License-Identifier: Apache-2.0
"""Deletions, whole states, new keys, retention and replay: what becomes of rows after they were landed."""

from __future__ import annotations

import gzip
import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cdp_provider.core.exceptions import DataError, NotFoundError
from cdp_provider.core.ingest.base import Connector, Fetched, RawFile
from cdp_provider.core.ingest.contracts import check
from cdp_provider.core.ingest.landing import land
from cdp_provider.core.ingest.replay import replay
from cdp_provider.core.profiles import linked
from cdp_provider.core.project.base import Options
from cdp_provider.core.project.streams import Stream

if TYPE_CHECKING:
    from cdp_provider.core.run import Run
    from cdp_provider.core.warehouse import Warehouse


class State(Options):
    """Of a source whose rows come in order, deletions among them."""

    def by_arrival(self) -> bool:
        return True


class Given(Connector):
    """Brings what the test puts into it."""

    options = Options

    def __init__(self, *records: dict[str, Any] | str, complete: bool = False) -> None:
        self.records = records
        self.complete = complete
        self.confirmed: list[Any] = []

    def fetch(self, stream, cursor, window, spool, *, taken=(), until=None):
        self.until = until
        path = spool / "rows"
        path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in self.records))
        number = (cursor or {}).get("n", 0) + 1
        return Fetched([RawFile(path, "given", "ndjson")], cursor={"n": number}, complete=self.complete)

    def confirm(self, stream, cursor):
        self.confirmed.append(cursor)


class Once(Given):
    """Can't be read again."""

    rereadable = False


def stream(options: Options | None = None, **parts: Any) -> Stream:
    given: dict[str, Any] = {
        "source": "shop",
        "name": "people",
        "primary_key": "id",
        "time": "at",
        "columns": {"id": "string", "name": "string", "at": "timestamp"},
        "quarantine": {"max_share": 1},
    }
    return Stream(**given | parts, options=options or Options())


def arrive(warehouse: Warehouse, what: Stream, source: Connector, run: Run) -> dict[str, Any]:
    detail = land(warehouse, what, source, run).detail
    check(warehouse, what, run)
    return detail


def shown(warehouse: Warehouse, columns: str = "id, name") -> list[tuple[Any, ...]]:
    with warehouse.session() as session:
        return session.fetch(f"select {columns} from {warehouse.table('shop__people')} order by id")


DAY = "2026-07-01T10:00:00Z"


def test_a_deleted_row_is_gone_until_it_comes_again(warehouse, run):
    people = stream(State())
    arrive(warehouse, people, Given({"id": "1", "name": "a", "at": DAY}, {"id": "2", "name": "b"}), run(1))
    detail = arrive(warehouse, people, Given({"id": "1", "_deleted": True}), run(2))
    assert detail["gone"] == 1
    assert shown(warehouse) == [("2", "b")]
    # Its time lies before that of the row which was deleted: it counts nevertheless, as it came later.
    arrive(warehouse, people, Given({"id": "1", "name": "c", "at": "2026-06-01T00:00:00Z"}), run(3))
    assert shown(warehouse) == [("1", "c"), ("2", "b")]


def test_elsewhere_the_mark_is_a_key_like_any_other(warehouse, run):
    arrive(warehouse, stream(), Given({"id": "1", "_deleted": True}), run())
    assert shown(warehouse) == [("1", None)]


def test_a_deletion_needs_its_key_only(warehouse, run):
    people = stream(State(), columns={"id": "string", "name": {"required": True}, "at": "timestamp"})
    report = land(
        warehouse, people, Given({"id": "1", "_deleted": True}, {"_deleted": True}, {"id": 2}), run()
    )
    assert (report.rows_in, report.rows_out, report.rows_refused) == (3, 1, 2)


def test_what_a_whole_state_lacks_is_gone(warehouse, run):
    people = stream(State())
    arrive(warehouse, people, Given({"id": "1"}, {"id": "2"}, {"id": "3"}, complete=True), run(1))
    detail = arrive(warehouse, people, Given({"id": "2", "name": "b"}, {"id": "4"}, complete=True), run(2))
    assert detail["gone"] == 2
    assert shown(warehouse) == [("2", "b"), ("4", None)]
    # Again, as after a clear.
    arrive(warehouse, people, Given({"id": "2", "name": "b"}, {"id": "4"}, complete=True), run(2))
    assert shown(warehouse) == [("2", "b"), ("4", None)]


def test_profiles_no_longer_see_deleted_rows(warehouse, run):
    people = stream(State())

    def seen(day: int) -> list[str]:
        with warehouse.session() as session:
            loads = warehouse.table("loads")
            session.execute(f"update {loads} set resolved_seq = load_id, resolved_hash = content_hash")
            with session.transaction():
                linked.refresh(session, people, run(day).window.end)
            rows = session.fetch(f"select id from {warehouse.table(linked.table_of(people))} order by id")
        return [row[0] for row in rows]

    arrive(warehouse, people, Given({"id": "1", "at": DAY}, {"id": "2"}), run(1))
    assert seen(1) == ["1", "2"]
    arrive(warehouse, people, Given({"id": "1", "_deleted": True}, {"id": "3"}), run(2))
    assert seen(2) == ["2", "3"]
    arrive(warehouse, people, Given({"id": "1"}, {"id": "3", "_deleted": True}), run(3))
    assert seen(3) == ["1", "2"]
    with warehouse.session() as session:
        session.execute(f"update {warehouse.table('linked')} set fingerprint = ''")
    assert seen(3) == ["1", "2"]


def test_a_source_that_cant_be_read_again_is_not(warehouse, run):
    people, source = stream(State()), Once({"id": "1"})
    arrive(warehouse, people, source, run(1))
    assert source.confirmed == [{"n": 1}]
    again = Once({"id": "2"})
    report = land(warehouse, people, again, run(1))
    assert (report.rows_in, report.detail["stands"], again.confirmed) == (1, True, [{"n": 1}])
    assert shown(warehouse) == [("1", None)]


def test_a_batch_of_it_that_failed_waits_and_is_not_fetched_again(warehouse, run):
    people = stream(State())
    land(warehouse, people, Once({"id": "1"}), run(1))
    with warehouse.session() as session:
        session.execute(f"update {warehouse.table('loads')} set state = 'failed'")
    following = Once({"id": "2"})
    arrive(warehouse, people, following, run(2))
    assert following.confirmed == [{"n": 2}]
    check(warehouse, people, run(1))
    assert shown(warehouse) == [("1", None), ("2", None)]


def test_a_batch_that_is_landed_again_learns_where_it_ended(warehouse, run):
    arrive(warehouse, stream(), Given({"id": "1"}), run(1))
    again = Given({"id": "1"})
    arrive(warehouse, stream(), again, run(1))
    assert again.until == {"n": 1}


def test_new_keys_become_columns(warehouse, run):
    people = stream(contract={"drift": "evolve"})
    detail = arrive(
        warehouse,
        people,
        Given({"id": "1", "plan": "gold", "seats": 3, "x-y": 1}, {"id": "2", "tags": ["a"], "ID": "other"}),
        run(1),
    )
    assert detail["new_columns"] == ["plan", "seats", "tags"]
    wanted = "id, plan, seats, tags"
    assert [(r[0], r[1], r[2], json.loads(r[3]) if r[3] else None) for r in shown(warehouse, wanted)] == [
        ("1", "gold", "3", None),
        ("2", None, None, ["a"]),
    ]
    with warehouse.session() as session:
        table = warehouse.table("raw_shop__people")
        extra = [row[0] for row in session.fetch(f"select _extra from {table} order by id")]
    assert [json.loads(text) if isinstance(text, str) else text for text in extra] == [
        {"x-y": 1},
        {"ID": "other"},
    ]
    # A value of another kind is no reason to split a column, or to lose it.
    detail = arrive(warehouse, people, Given({"id": "1", "plan": {"name": "gold"}, "seats": "many"}), run(2))
    assert "new_columns" not in detail
    (first, _) = shown(warehouse, "id, seats, plan")
    assert (first[1], json.loads(first[2])) == ("many", {"name": "gold"})


def test_a_frozen_contract_takes_no_new_key(warehouse, run):
    people = stream(contract={"drift": "freeze"})
    arrive(warehouse, people, Given({"id": "1"}), run(1))
    land(warehouse, people, Given({"id": "1"}, {"id": "2", "plan": "gold"}), run(2))
    with pytest.raises(DataError, match="drift: 1 rows hold keys that no column takes"):
        check(warehouse, people, run(2))
    assert shown(warehouse) == [("1", None)]


def test_rows_that_nothing_shows_expire(warehouse, run):
    people = stream(State(), retention="2 days")
    arrive(warehouse, people, Given({"id": "1", "name": "a"}, {"id": "2"}, {"name": "no key"}), run(1))
    arrive(warehouse, people, Given({"id": "1", "name": "b"}), run(2))
    assert arrive(warehouse, people, Given({"id": "3"}), run(3))["expired"] == 1
    assert shown(warehouse) == [("1", "b"), ("2", None), ("3", None)]
    with warehouse.session() as session:
        assert session.scalar(f"select count(*) from {warehouse.table('raw_shop__people')}") == 3
        assert session.scalar(f"select count(*) from {warehouse.table('quarantine')}") == 0


def quarantine(warehouse: Warehouse) -> list[tuple[Any, ...]]:
    with warehouse.session() as session:
        table = warehouse.table("quarantine")
        return session.fetch(f"select load_id, position, released from {table} order by 1, 2")


def test_quarantined_rows_are_released_after_a_fix(warehouse, run, tmp_path, orders):
    strict = stream(columns={"id": "string", "name": "integer", "at": "timestamp"})
    arrive(
        warehouse,
        strict,
        Given(
            {"id": "1", "name": 5},
            {"id": "2", "name": "6 "},
            {"id": "3", "name": "x"},
            "{broken",
            {"id": "4", "name": "y"},
        ),
        run(1),
    )
    mended = stream(columns={"id": "string", "name": "integer", "label": {"path": "name"}, "at": "timestamp"})
    with pytest.raises(NotFoundError, match="nothing to replay"):
        replay(warehouse, mended, run(2), load_ids=[99])
    report = replay(warehouse, mended, run(2))
    assert (report.rows_in, report.rows_out, report.rows_refused) == (3, 0, 3)
    text = stream(columns={"id": "string", "label": {"path": "name"}, "at": "timestamp"})
    for _ in range(2):
        report = replay(warehouse, text, run(2))
        assert (report.rows_in, report.rows_out, report.rows_refused) == (3, 2, 1)
    assert [row[2] for row in quarantine(warehouse)] == [2, None, 2]
    assert shown(warehouse, "id, label") == [("1", None), ("2", None), ("3", "x"), ("4", "y")]


def test_lines_of_csv_are_released_with_their_header(warehouse, run, tmp_path, orders):
    from cdp_provider.core.ingest.files import FilesConnector

    (tmp_path / "a.csv").write_text(
        'order_id;email;total;ordered_at\n1;"a;b";x;\n2;"two\nlines ""q""";y;\n3;;1;\n'
    )
    options = {"delimiter": ";"}
    what = orders(options=options, quarantine={"max_share": 1})
    land(warehouse, what, FilesConnector(tmp_path), run())
    columns = {"order_id": "string", "email": "string", "word": {"path": "total"}}
    report = replay(warehouse, orders(options=options, columns=columns, time=None), run())
    assert (report.rows_in, report.rows_out) == (2, 2)
    with warehouse.session() as session:
        rows = session.fetch(
            f"select order_id, email, word from {warehouse.table('till__orders')} order by 1"
        )
    assert rows == [("1", "a;b", "x"), ("2", 'two\nlines "q"', "y")]


class Files(Given):
    def __init__(self, *files: RawFile) -> None:
        self.files = files

    def fetch(self, stream, cursor, window, spool, *, taken=(), until=None):
        return Fetched(list(self.files))

    def confirm(self, stream, cursor):
        raise AssertionError


def test_parquet_is_read_by_the_same_rules(warehouse, run, tmp_path):
    table = pa.table(
        {
            "id": pa.array([1, 2, 3], pa.int32()),
            "who": pa.array([{"name": "a"}, {"name": None}, None]),
            "at": pa.array([0, None, 1_000_000], pa.timestamp("us")),
            "score": pa.array([0.5, float("nan"), None]),
            "tags": pa.array([["x"], [], None]),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    columns = {
        "id": "string",
        "name": {"path": "who.name"},
        "at": "timestamp",
        "score": "number",
    }
    source = Files(RawFile(tmp_path / "a.parquet", "a.parquet", "parquet"))
    report = land(warehouse, stream(columns=columns), source, run())
    check(warehouse, stream(columns=columns), run())
    assert (report.rows_in, report.rows_refused, report.detail["unknown_keys"]) == (3, 1, ["tags", "who"])
    found = shown(warehouse, 'id, name, "at", score')
    assert [(row[0], row[1], row[2].year, row[3]) for row in found] == [
        ("1", "a", 1970, 0.5),
        ("3", None, 1970, None),
    ]
    with warehouse.session() as session:
        bad = session.one(f"select line, reason, raw from {warehouse.table('quarantine')}")
    assert bad[:2] == (2, 'column "score": "nan" is not a number')
    assert json.loads(bad[2]) == {"id": "2", "who": '{"name":null}', "score": "nan", "tags": "[]"}


def test_text_of_parquet_that_no_engine_stores_is_set_aside(warehouse, run, tmp_path):
    pq.write_table(pa.table({"id": ["1", "2", "3"], "name": ["a", "b\0", None]}), tmp_path / "a.parquet")
    source = Files(RawFile(tmp_path / "a.parquet", "a.parquet", "parquet"))
    report = land(warehouse, stream(time=None, columns={"id": "string", "name": "string"}), source, run())
    assert (report.rows_in, report.rows_out, report.rows_refused) == (3, 2, 1)
    with warehouse.session() as session:
        bad = session.one(f"select line, reason from {warehouse.table('quarantine')}")
    assert bad == (2, "holds a NUL character")


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_compressed_input(warehouse, run, tmp_path, compression):
    path = tmp_path / "rows"
    data = b'{"id": "1", "name": "a"}\n'
    if compression == "gzip":
        path.write_bytes(gzip.compress(data))
    else:
        with pa.CompressedOutputStream(str(path), "zstd") as file:
            file.write(data)
    source = Files(RawFile(path, "rows", "ndjson", compression=compression))
    arrive(warehouse, stream(), source, run())
    assert shown(warehouse) == [("1", "a")]


def test_a_number_of_seconds_is_a_moment_where_the_contract_says_so(warehouse, run):
    columns = {"id": "string", "at": {"type": "timestamp", "format": "unix"}}
    report = land(
        warehouse, stream(columns=columns), Given({"id": "1", "at": 0}, {"id": "2", "at": DAY}), run()
    )
    assert (report.rows_out, report.rows_refused) == (1, 1)
    assert timedelta(0) == report.watermark - report.watermark.replace(year=1970, month=1, day=1)


def test_rows_of_a_batch_that_waits_are_gone_too_when_they_are(warehouse, run):
    people = stream(State())
    land(warehouse, people, Once({"id": "1"}), run(1))
    with warehouse.session() as session:
        session.execute(f"update {warehouse.table('loads')} set state = 'failed'")
    arrive(warehouse, people, Given({"id": "2"}, complete=True), run(2))
    check(warehouse, people, run(1))
    assert shown(warehouse) == [("2", None)]
