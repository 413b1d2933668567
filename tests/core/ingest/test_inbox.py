# SPDX-License-Identifier: Apache-2.0
"""What others send us: numbered as it commits, read once, kept for a while."""

from __future__ import annotations

import json
import random
import threading
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from cdp_provider.core.exceptions import DataError, WarehouseBusyError
from cdp_provider.core.ingest.contracts import check
from cdp_provider.core.ingest.inbox import InboxConnector, InboxOptions, append
from cdp_provider.core.ingest.landing import land
from cdp_provider.core.project.streams import Stream
from cdp_provider.core.run import Window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cdp_provider.core.ingest.base import Cursor, Fetched
    from cdp_provider.core.warehouse import Session, Warehouse

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def hooks(**options: Any) -> Stream:
    return Stream(
        source="forms",
        name="answers",
        primary_key=("id",),
        time="received_at",
        columns={
            "id": {"type": "string", "required": True},
            "answer": "string",
            "number": {"type": "integer", "path": "_number"},
            "agent": {"path": "_headers.user-agent"},
            "received_at": {"type": "timestamp", "path": "_received_at"},
        },
        quarantine={"max_share": 1},
        options=InboxOptions(**options),
    )


def send(warehouse: Warehouse, *bodies: Any, at: datetime | None = NOON, **more: Any) -> int:
    texts = [body if isinstance(body, str | bytes) else json.dumps(body) for body in bodies]
    with warehouse.session() as session:
        return append(session, "forms", texts, received_at=at, **more)


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., tuple[Fetched, list[Any]]]:
    """A function that fetches, and gives what it brought and its lines."""
    spools = iter(range(1000))

    def fetch(
        warehouse: Warehouse,
        stream: Stream,
        cursor: Cursor | None = None,
        until: Cursor | None = None,
        **of: Any,
    ) -> tuple[Fetched, list[Any]]:
        spool = tmp_path / f"spool_{next(spools)}"
        spool.mkdir()
        end = of.get("end", NOON + DAY)
        fetched = InboxConnector(warehouse).fetch(stream, cursor, Window(None, end), spool, until=until)
        lines = [line for file in fetched.files for line in file.path.read_text().splitlines()]
        return fetched, [json.loads(line) if line.startswith("{") else line for line in lines]

    return fetch


def rows(warehouse: Warehouse, sql: str) -> list[tuple[Any, ...]]:
    with warehouse.session() as session:
        return session.fetch(sql)


def test_messages_become_rows(warehouse, run):
    send(
        warehouse, {"id": "a", "answer": "yes"}, headers={"user-agent": "curl"}, at=NOON - timedelta(hours=13)
    )
    send(warehouse, [{"id": "b"}, {"id": "c", "answer": "no"}], at=NOON - timedelta(hours=12, minutes=1))
    stream = hooks()
    for day in (1, 2):
        land(warehouse, stream, InboxConnector(warehouse), run(day))
        check(warehouse, stream, run(day))
    found = rows(
        warehouse, f"select id, answer, number, agent from {warehouse.table('forms__answers')} order by id"
    )
    assert found == [("a", "yes", 1, "curl"), ("b", None, 2, None), ("c", "no", 2, None)]
    assert rows(warehouse, f"select rows_read from {warehouse.table('loads')} order by load_id") == [
        (3,),
        (0,),
    ]


def test_a_batch_ends_where_its_window_does(warehouse, read):
    stream = hooks()
    for number, hours in enumerate((1, 24, 2)):
        send(warehouse, {"id": str(number)}, at=NOON + timedelta(hours=hours))
    fetched, lines = read(warehouse, stream)
    assert [line["id"] for line in lines] == ["0"]
    assert fetched.detail == {"messages": 1, "left_for_later": 2}
    _, lines = read(warehouse, stream, fetched.cursor, end=NOON + 2 * DAY)
    assert [line["id"] for line in lines] == ["1", "2"]


def test_a_batch_landed_again_has_the_same_messages(warehouse, read):
    stream = hooks(max_messages=2)
    send(warehouse, *({"id": str(n)} for n in range(3)))
    first, lines = read(warehouse, stream)
    send(warehouse, {"id": "more"})
    again, same = read(warehouse, stream, None, first.cursor)
    assert (same, again.cursor) == (lines, first.cursor)
    assert [line["id"] for line in lines] == ["0", "1"]
    _, rest = read(warehouse, stream, first.cursor)
    assert [line["id"] for line in rest] == ["2", "more"]


def test_an_empty_channel(warehouse, read):
    fetched, lines = read(warehouse, hooks())
    assert (fetched.cursor, lines) == ({"first": 1, "next": 1}, [])
    InboxConnector(warehouse).confirm(hooks(), fetched.cursor)
    again, _ = read(warehouse, hooks(), fetched.cursor, fetched.cursor)
    assert again.cursor == fetched.cursor
    send(warehouse, {"id": "a"})
    _, lines = read(warehouse, hooks(), fetched.cursor)
    assert [line["id"] for line in lines] == ["a"]


@pytest.mark.parametrize("size", [1, 200, 201])
def test_all_of_an_append_is_numbered(make_warehouse, read, size):
    warehouse = make_warehouse("postgres")
    assert send(warehouse, *({"id": str(n)} for n in range(size))) == size
    assert send(warehouse) == size
    _, lines = read(warehouse, hooks())
    assert [(line["_number"], line["id"]) for line in lines] == [(n + 1, str(n)) for n in range(size)]


def test_the_clock_of_the_warehouse_is_the_default(warehouse, read):
    before = datetime.now(UTC)
    send(warehouse, {"id": "a"}, at=None)
    _, (line,) = read(warehouse, hooks(), end=before + DAY)
    assert abs(datetime.fromisoformat(line["_received_at"]) - before) < timedelta(minutes=1)


def test_what_is_no_record_is_kept_as_it_came(warehouse, run):
    bad = [
        b"\xff{",
        "{",
        "text\x00",
        "[1]",
        '{"id": "x", "_deleted": true}',
        '{"id": "x", "\\u005fnumber": 3}',
        "",
    ]
    send(warehouse, *bad, {"id": "good"}, at=NOON - DAY / 2)
    stream = hooks()
    report = land(warehouse, stream, InboxConnector(warehouse), run())
    assert (report.rows_in, report.rows_out, report.rows_refused) == (8, 1, 7)
    raws = [
        raw
        for (raw,) in rows(warehouse, f"select raw from {warehouse.table('quarantine')} order by position")
    ]
    for raw, number in zip(raws, range(1, 8), strict=True):
        assert f'"_number":{number}' in raw
    assert r"\\xff{" in raws[0]
    assert raws[1].endswith(",")
    assert r"text\\x00" in raws[2]
    assert "has the reserved key _deleted" in raws[4]
    assert "has the reserved key _number" in raws[5]


def test_calls_of_a_batch_arrive_with_their_message(warehouse, run):
    call = {"type": "track", "event": "Signed Up", "userId": "u", "timestamp": "2026-07-01T09:00:00Z"}
    batch = {"batch": [call | {"messageId": f"m{n}"} for n in range(3)], "sentAt": "2026-07-01T09:00:10Z"}
    send(warehouse, batch, at=datetime(2026, 7, 1, 10, tzinfo=UTC))
    stream = Stream(
        source="forms",
        name="calls",
        primary_key=("messageId",),
        time="timestamp",
        columns={
            "messageId": "string",
            "timestamp": "timestamp",
            "number": {"type": "integer", "path": "_number"},
        },
        options=InboxOptions(spec="segment"),
    )
    land(warehouse, stream, InboxConnector(warehouse), run())
    found = rows(
        warehouse, f'select "messageId", timestamp, number from {warehouse.table("raw_forms__calls")}'
    )
    moment = datetime(2026, 7, 1, 9, 59, 50, tzinfo=UTC)
    assert sorted(found) == [(f"m{n}", moment, 1) for n in range(3)]


# --- what was taken goes away


def test_old_messages_go_when_they_are_taken(warehouse, read):
    stream = hooks(keep="2 days")
    for day in range(5):
        send(warehouse, {"id": str(day)}, at=NOON + day * DAY)
    connector = InboxConnector(warehouse)
    fetched, _ = read(warehouse, stream, end=NOON + 4 * DAY)
    connector.confirm(stream, fetched.cursor)
    connector.confirm(stream, fetched.cursor)
    held = f"select number from {warehouse.table('inbox')} order by number"
    assert rows(warehouse, held) == [(2,), (3,), (4,), (5,)]
    last, lines = read(warehouse, stream, fetched.cursor, end=NOON + 10 * DAY)
    assert [line["id"] for line in lines] == ["4"]
    # The numbering goes on although all of them are old.
    send(warehouse, {"id": "new"}, at=NOON + 30 * DAY)
    newest, _ = read(warehouse, stream, last.cursor, end=NOON + 31 * DAY)
    connector.confirm(stream, newest.cursor)
    assert rows(warehouse, held) == [(6,)]
    assert send(warehouse, {"id": "next"}) == 7


def test_the_newest_message_stays_so_that_no_number_is_given_twice(warehouse, read):
    stream = hooks(keep="1 hour")
    send(warehouse, {"id": "b"}, at=NOON + timedelta(hours=9))
    send(warehouse, {"id": "a"})
    fetched, _ = read(warehouse, stream)
    InboxConnector(warehouse).confirm(stream, fetched.cursor)
    assert rows(warehouse, f"select number from {warehouse.table('inbox')} order by number") == [(1,), (2,)]


def test_other_channels_stay(warehouse, read):
    stream = hooks(keep="1 hour")
    with warehouse.session() as session:
        append(session, "others", ["{}"], received_at=NOON - 9 * DAY)
    send(warehouse, {"id": "a"})
    send(warehouse, {"id": "b"}, at=NOON + timedelta(hours=2))
    fetched, _ = read(warehouse, stream)
    InboxConnector(warehouse).confirm(stream, fetched.cursor)
    held = rows(warehouse, f"select channel, number from {warehouse.table('inbox')} order by channel")
    assert held == [("forms", 2), ("others", 1)]


def test_a_loss_is_said_loudly(warehouse, read):
    stream = hooks()
    send(warehouse, *({"id": str(n)} for n in range(6)))
    first, _ = read(warehouse, hooks(max_messages=2))
    with warehouse.session() as session:
        session.execute(f"delete from {warehouse.table('inbox')} where number < 5")
    with pytest.raises(DataError, match=r"from message 3 on, but of its messages it holds 5 to 6"):
        read(warehouse, stream, first.cursor)
    with pytest.raises(DataError, match=r"from message 1 on"):
        read(warehouse, stream, None, first.cursor)
    accepted, lines = read(warehouse, hooks(lost="accept"), first.cursor)
    assert [line["id"] for line in lines] == ["4", "5"]
    assert accepted.detail["lost"] == 2
    with pytest.raises(DataError, match=r"from message 1 on"):
        read(warehouse, hooks(lost="accept"), None, first.cursor)


def test_a_channel_that_was_emptied_is_noticed(warehouse, read):
    stream = hooks()
    send(warehouse, *({"id": str(n)} for n in range(6)))
    fetched, _ = read(warehouse, stream)
    with warehouse.session() as session:
        session.execute(f"delete from {warehouse.table('inbox')}")
    with pytest.raises(DataError, match=r"from message 7 on, but of its messages it holds none"):
        read(warehouse, stream, fetched.cursor)


# --- writers at the same time


def test_a_writer_that_commits_late_is_not_passed(make_warehouse, read, monkeypatch):
    """The trap: the first writer has its number and has not committed; the second would commit before it."""
    warehouse = make_warehouse("postgres")
    written, go_on = threading.Event(), threading.Event()
    commits: list[str] = []

    @contextmanager
    def slow(session: Session) -> Iterator[None]:
        with type(session).transaction(session):
            yield
            written.set()
            assert go_on.wait(30)
            commits.append("first")

    def first() -> None:
        with warehouse.session() as session:
            monkeypatch.setattr(session, "transaction", lambda: slow(session))
            append(session, "forms", ['{"id": "first"}'], received_at=NOON)

    def second() -> None:
        send(warehouse, {"id": "second"})
        commits.append("second")

    threads = [threading.Thread(target=work) for work in (first, second)]
    threads[0].start()
    assert written.wait(30)
    threads[1].start()
    threads[1].join(0.3)
    fetched, lines = read(warehouse, hooks())
    assert (lines, fetched.cursor) == ([], {"first": 1, "next": 1})
    go_on.set()
    for thread in threads:
        thread.join(30)
    assert commits == ["first", "second"]
    _, lines = read(warehouse, hooks(), fetched.cursor)
    assert [(line["_number"], line["id"]) for line in lines] == [(1, "first"), (2, "second")]


def test_writers_of_other_channels_do_not_wait(make_warehouse):
    warehouse = make_warehouse("postgres")
    warehouse.lock_timeout = 0.2
    with warehouse.session() as session, session.lock("inbox others"):
        assert send(warehouse, {"id": "a"}) == 1
        with warehouse.session() as other, pytest.raises(WarehouseBusyError):
            append(other, "others", ["{}"])


def test_of_many_writers_no_message_is_skipped_or_read_twice(warehouse, read):
    writers, each = 4, 12
    failures: list[BaseException] = []

    def work(writer: int) -> None:
        chance = random.Random(writer)
        try:
            for turn in range(each):
                send(warehouse, *({"id": f"{writer}-{turn}-{n}"} for n in range(chance.randint(1, 3))))
        except BaseException as error:  # noqa: BLE001 - a thread's error is the test's
            failures.append(error)

    threads = [threading.Thread(target=work, args=(writer,)) for writer in range(writers)]
    for thread in threads:
        thread.start()
    cursor, seen = None, []
    while True:
        alive = any(thread.is_alive() for thread in threads)
        fetched, lines = read(warehouse, hooks(), cursor)
        cursor = fetched.cursor
        seen += lines
        if not alive:
            break
    assert failures == []
    assert [line["_number"] for line in seen] == list(range(1, len(seen) + 1))
    wanted = {
        f"{writer}-{turn}-{n}"
        for writer in range(writers)
        for chance in [random.Random(writer)]
        for turn in range(each)
        for n in range(chance.randint(1, 3))
    }
    assert {line["id"] for line in seen} == wanted
    assert len(seen) == len(wanted)
