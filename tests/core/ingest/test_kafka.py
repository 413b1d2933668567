# SPDX-License-Identifier: Apache-2.0
"""Records of Kafka, over the real protocol.

They come from the brokers in ``CDP_TEST_KAFKA``, or from the one on loopback that librdkafka has for tests.
That one knows no transactions and no compaction.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from pydantic import ValidationError

from cdp_provider.core.exceptions import (
    AccessError,
    ConfigurationError,
    DataError,
    NotFoundError,
    RetryableError,
)
from cdp_provider.core.ingest.contracts import check
from cdp_provider.core.ingest.kafka import KafkaConnector, KafkaOptions
from cdp_provider.core.ingest.kafka_client import translated
from cdp_provider.core.ingest.landing import land
from cdp_provider.core.project.streams import Stream
from cdp_provider.core.run import Window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cdp_provider.core.ingest.base import Cursor, Fetched

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
END = NOON + timedelta(hours=12)
#: Partitions of a topic that librdkafka's broker makes when it is written to.
PARTITIONS = 4
_names = itertools.count(1)
_quiet = logging.getLogger("tests.kafka")


@pytest.fixture(scope="module")
def broker() -> Iterator[str]:
    """Its address."""
    if address := os.environ.get("CDP_TEST_KAFKA"):
        yield address
        return
    home = Producer({"bootstrap.servers": "nowhere:1", "test.mock.num.brokers": 1}, logger=_quiet)
    (found,) = home.list_topics(timeout=10).brokers.values()
    yield f"{found.host}:{found.port}"
    del home


@pytest.fixture
def topic() -> str:
    return f"orders.{os.getpid()}.{next(_names)}"


@pytest.fixture
def send(broker: str, topic: str) -> Iterator[Callable[..., None]]:
    """A function that writes a value, by default to partition 0, at noon."""
    producer = Producer({"bootstrap.servers": broker}, logger=_quiet)

    def produce(value: Any, key: str | bytes | None = None, partition: int = 0, **more: Any) -> None:
        at = more.pop("at", NOON)
        raw = value if value is None or isinstance(value, bytes) else json.dumps(value).encode()
        more = {"topic": topic, **more}
        producer.produce(
            value=raw, key=key, partition=partition, timestamp=int(at.timestamp() * 1000), **more
        )
        assert producer.flush(20) == 0

    yield produce
    producer.flush(1)


@pytest.fixture
def stream(topic: str) -> Callable[..., Stream]:
    """A stream of that topic; keywords are options."""

    def make(**options: Any) -> Stream:
        return Stream(
            source="shop",
            name="orders",
            primary_key=("id",),
            time="at",
            columns={
                "id": {"type": "string", "required": True, "path": "order.id"},
                "total": "decimal",
                "offset": {"type": "integer", "path": "_offset"},
                "at": {"type": "timestamp", "path": "_timestamp"},
            },
            quarantine={"max_share": 1},
            options=KafkaOptions(**({"topics": topic, "max_wait": "20 seconds"} | options)),
        )

    return make


@pytest.fixture
def read(broker: str, tmp_path: Path) -> Callable[..., tuple[Fetched, list[Any]]]:
    """A function that fetches, and gives what it brought and its lines."""
    spools = itertools.count()

    def fetch(
        stream: Stream, cursor: Cursor | None = None, until: Cursor | None = None, end: datetime = END
    ) -> tuple[Fetched, list[Any]]:
        spool = tmp_path / f"spool_{next(spools)}"
        spool.mkdir()
        connector = KafkaConnector({"bootstrap.servers": broker})
        fetched = connector.fetch(stream, cursor, Window(None, end), spool, until=until)
        lines = [line for file in fetched.files for line in file.path.read_text().splitlines()]
        return fetched, [json.loads(line) if line.startswith(('{"', "[")) else line for line in lines]

    return fetch


def order(number: int, **more: Any) -> dict[str, Any]:
    return {"order": {"id": str(number)}, **more}


def numbers(lines: list[Any]) -> list[str]:
    return [line["order"]["id"] for line in lines]


def rows(warehouse: Any, sql: str) -> list[tuple[Any, ...]]:
    with warehouse.session() as session:
        return session.fetch(sql)


def test_records_become_rows_once(warehouse, run, broker, send, stream):
    connector = KafkaConnector({"bootstrap.servers": broker})
    for number in range(6):
        send(order(number, total=number), partition=number % 2)
    for day in (1, 2):
        land(warehouse, stream(), connector, run(day))
        check(warehouse, stream(), run(day))
        send(order(5, total=50), at=NOON + timedelta(days=1))
        send(order(6), partition=3, at=NOON + timedelta(days=1))
    found = rows(warehouse, f'select id, total, "offset" from {warehouse.table("shop__orders")} order by id')
    assert [(key, total and int(total), offset) for key, total, offset in found] == [
        *((str(n), n, n // 2) for n in range(5)),
        ("5", 50, 3),
        ("6", None, 0),
    ]
    assert rows(warehouse, f"select rows_read from {warehouse.table('loads')} order by load_id") == [
        (6,),
        (2,),
    ]


def test_a_record_says_where_it_stood(send, stream, read, topic):
    send(
        b' {"order": {"id": "1"},\r\n "n": 12345678901234567890.5}\n',
        key="k",
        partition=2,
        headers={"a": b"\xff"},
    )
    _, (line,) = read(stream(headers=True))
    assert {key: line[key] for key in ("_topic", "_partition", "_offset", "_key", "_headers")} == {
        "_topic": topic,
        "_partition": 2,
        "_offset": 0,
        "_key": "k",
        "_headers": {"a": r"\xff"},
    }
    assert datetime.fromisoformat(line["_timestamp"]) == NOON
    fetched, _ = read(stream())
    assert b'"n": 12345678901234567890.5}' in fetched.files[2].path.read_bytes()


def test_records_of_a_later_window_wait_with_all_behind_them(send, stream, read):
    for number, hours in enumerate((1, 20, 2)):
        send(order(number), at=NOON + timedelta(hours=hours))
    fetched, lines = read(stream())
    assert numbers(lines) == ["0"]
    assert fetched.detail["left_for_later"] == 2
    _, lines = read(stream(), fetched.cursor, end=END + timedelta(days=1))
    assert numbers(lines) == ["1", "2"]


def test_a_batch_landed_again_has_the_same_records(send, stream, read, topic):
    for number in range(4):
        send(order(number), partition=number % 2)
    first, lines = read(stream())
    for number in range(4, 8):
        send(order(number), partition=number % 3)
    again, same = read(stream(), None, first.cursor)
    assert (same, again.cursor) == (lines, first.cursor)
    rest, more = read(stream(), first.cursor)
    assert sorted(numbers(more)) == ["4", "5", "6", "7"]
    assert rest.cursor["first"][topic] == first.cursor["next"][topic]
    _, same = read(stream(), first.cursor, rest.cursor)
    assert same == more


def test_a_batch_takes_from_all_partitions_before_it_is_full(send, stream, read):
    for number in range(10):
        send(order(number), partition=0)
    for number in range(10, 13):
        send(order(number), partition=3)
    first, lines = read(stream(max_records=8))
    # What partitions 0 to 2 leave of their shares, partition 3 takes.
    assert numbers(lines) == ["0", "1", "10", "11", "12"]
    assert first.detail["left_for_later"] == 8
    second, lines = read(stream(max_records=8), first.cursor)
    assert numbers(lines) == ["2", "3"]
    _, lines = read(stream(), second.cursor)
    assert numbers(lines) == ["4", "5", "6", "7", "8", "9"]


def test_a_partition_that_is_new_is_read_from_its_beginning(send, stream, read, topic):
    send(order(1))
    send(order(2), partition=3)
    old, _ = read(stream())
    before = {"next": {topic: {"0": 1}}}
    _, lines = read(stream(), before)
    assert numbers(lines) == ["2"]
    _, lines = read(stream(), old.cursor)
    assert lines == []


def test_several_topics_each_keep_their_place(send, stream, read, topic):
    other = f"{topic}.other"
    send(order(1))
    send(order(2), topic=other)
    both = stream(topics=[topic, other])
    fetched, lines = read(both)
    assert [(line["_topic"], line["order"]["id"]) for line in lines] == [(topic, "1"), (other, "2")]
    send(order(3), topic=other)
    one, _ = read(stream(topics=topic), fetched.cursor)
    _, lines = read(both, one.cursor)
    assert numbers(lines) == ["3"]


@pytest.mark.parametrize(
    ("value", "key", "said"),
    [
        (b"\x00\x01\xff", None, '"base64":"AAH/"'),
        (b"text\nof two lines", None, "neither a JSON object"),
        (b"[1]", None, "neither a JSON object"),
        (b"", None, "neither a JSON object"),
        (b'{"order": {"id": "1"}', None, '"_offset":0'),
        (b'{"order": {"id": "1"}, "_offset": 7}', None, "has the reserved key _offset"),
        (b'{"order": {"id": "1"}}', b"{", "its key is no JSON"),
        (None, None, "a record without a value"),
    ],
)
def test_what_is_no_record_goes_to_quarantine(make_warehouse, run, broker, send, stream, value, key, said):
    warehouse = make_warehouse("duckdb")
    send(value, key)
    send(order(2), key="{}")
    report = land(warehouse, stream(key="json"), KafkaConnector({"bootstrap.servers": broker}), run())
    assert (report.rows_in, report.rows_out) == (2, 1)
    ((raw,),) = rows(warehouse, f"select raw from {warehouse.table('quarantine')}")
    assert said in raw


def test_an_array_is_as_many_records(send, stream, read):
    send([order(1), order(2)])
    _, lines = read(stream())
    assert [(line["order"]["id"], line["_offset"]) for line in lines] == [("1", 0), ("2", 0)]


def test_a_record_without_a_value_removes_a_row(send, stream, read):
    send(None, "1")
    send(None, '{"order": {"id": 2}}', partition=1)
    fetched, lines = read(stream())
    assert (lines[0]["_deleted"], lines[0]["order"], lines[0]["_key"]) == (True, {"id": "1"}, "1")
    assert fetched.detail["tombstones"] == 2
    _, lines = read(stream(key="json"))
    assert (lines[1]["_deleted"], lines[1]["order"], lines[1]["_key"]) == (
        True,
        {"id": 2},
        {"order": {"id": 2}},
    )
    _, lines = read(stream(tombstones="quarantine"))
    assert [line[0] for line in lines] == ["a record without a value"] * 2


def test_removed_rows_leave_the_view(warehouse, run, broker, send, stream):
    connector = KafkaConnector({"bootstrap.servers": broker})
    for number in range(3):
        send(order(number), str(number))
    send(None, "1")
    send(None, "2")
    send(order(2, total=9), "2")
    land(warehouse, stream(), connector, run())
    check(warehouse, stream(), run())
    view = f"select id, total from {warehouse.table('shop__orders')} order by id"
    assert [(key, total and int(total)) for key, total in rows(warehouse, view)] == [("0", None), ("2", 9)]
    send(None, "0", at=NOON + timedelta(days=1))
    land(warehouse, stream(), connector, run(2))
    check(warehouse, stream(), run(2))
    assert [key for key, _ in rows(warehouse, view)] == ["2"]


def test_calls_of_segments_spec(send, stream, read):
    call = {"type": "page", "messageId": "m", "userId": "u"}
    send({"batch": [call, call | {"type": "nothing"}]})
    _, (page, refused) = read(stream(spec="segment"))
    assert (page["event"], page["_offset"], page["timestamp"]) == ("page", 0, page["_timestamp"])
    assert "of a type" in refused[0]
    send(None, "m")
    assert (stream(spec="segment").options.by_arrival(), stream().options.by_arrival()) == (False, True)
    _, lines = read(stream(spec="segment"))
    assert lines[2][0] == "a record without a value"


def test_a_loss_is_said_loudly(send, stream, read, topic):
    if os.environ.get("CDP_TEST_KAFKA"):
        pytest.skip("a real broker keeps what it has; librdkafka's keeps 5 MB")
    send(order(0))
    send(order(1))
    first, _ = read(stream(max_records=1))
    assert first.cursor["next"][topic]["0"] == 1
    for number in range(2, 9):
        send(order(number, filling="x" * 900_000))
    with pytest.raises(
        DataError, match=rf"partition 0 of topic '{topic}' is to be read from offset 1 on, but holds"
    ):
        read(stream(), first.cursor)
    with pytest.raises(DataError, match=r"from offset 0 on"):
        read(stream(lost="accept"), None, first.cursor)
    fetched, lines = read(stream(lost="accept"), first.cursor)
    oldest = int(numbers(lines)[0])
    assert oldest > 1
    assert fetched.detail["lost"] == oldest - 1


def test_a_topic_that_was_made_anew_is_noticed(send, stream, read, topic):
    send(order(1))
    before = {"first": {topic: {"0": 0}}, "next": {topic: {"0": 9}}}
    with pytest.raises(DataError, match="or the topic was made anew"):
        read(stream(), before)
    with pytest.raises(DataError, match="or the topic was made anew"):
        read(stream(), None, before)
    fetched, lines = read(stream(lost="accept"), before)
    assert (numbers(lines), "lost" in fetched.detail) == (["1"], False)


def test_what_is_read_is_committed_for_monitors(broker, send, stream, read, topic):
    send(order(1))
    send(order(2), partition=2)
    fetched, _ = read(stream())
    KafkaConnector({"bootstrap.servers": broker}).confirm(stream(), fetched.cursor)
    settings = {"bootstrap.servers": broker, "group.id": f"cdp.{topic}"}
    for _ in range(2):
        KafkaConnector(settings).confirm(stream(), fetched.cursor)
    consumer = Consumer(settings, logger=_quiet)
    committed = consumer.committed([TopicPartition(topic, n) for n in (0, 2)], timeout=10)
    consumer.close()
    assert [place.offset for place in committed] == [1, 1]


def test_a_topic_that_is_not_there(stream, read):
    with pytest.raises(NotFoundError, match="correct `topics` of the stream, or create the topic"):
        read(stream(topics="no.such.topic"))


def test_brokers_that_are_not_there(stream, tmp_path):
    connector = KafkaConnector({"bootstrap.servers": "127.0.0.1:9"})
    with pytest.raises(RetryableError, match="Kafka says"):
        connector.fetch(stream(max_wait="1 second"), None, Window(None, END), tmp_path)


@pytest.mark.parametrize("settings", [{"no.such.setting": 1}, {"security.protocol": "x"}])
def test_settings_that_are_wrong(stream, tmp_path, settings):
    connector = KafkaConnector({"bootstrap.servers": "127.0.0.1:9", **settings})
    with pytest.raises(ConfigurationError, match="correct the extra of the connection"):
        connector.fetch(stream(), None, Window(None, END), tmp_path)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (KafkaError._AUTHENTICATION, AccessError),
        (KafkaError.SASL_AUTHENTICATION_FAILED, AccessError),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, AccessError),
        (KafkaError.GROUP_AUTHORIZATION_FAILED, AccessError),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, NotFoundError),
        (KafkaError.UNKNOWN_MEMBER_ID, ConfigurationError),
        (KafkaError._ALL_BROKERS_DOWN, RetryableError),
        (KafkaError.NOT_LEADER_FOR_PARTITION, RetryableError),
    ],
)
def test_errors_are_told_apart(code, error):
    assert type(translated(KafkaError(code), "topic 'x'")) in (error, *error.__subclasses__())


@pytest.mark.parametrize(
    "given", [{"topics": []}, {"topics": "no topic"}, {}, {"topics": "x", "max_records": 0}]
)
def test_options_that_are_wrong(given):
    with pytest.raises(ValidationError):
        KafkaOptions(**given)


def test_one_topic_may_be_written_as_such():
    assert KafkaOptions(topics="a.b-c_d").topics == ("a.b-c_d",)
