# SPDX-License-Identifier: Apache-2.0
"""Kafka: the records of topics, partition by partition, each offset once."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, cast

import orjson
from pydantic import BeforeValidator, Field, StringConstraints

from cdp_provider.core.ingest.base import Connector, Cursor, Fetched, FileKey, RawFile
from cdp_provider.core.ingest.kafka_client import Client, Span, gone
from cdp_provider.core.ingest.messages import lines_of, parsed, refused
from cdp_provider.core.ingest.segment import EventOptions, as_calls
from cdp_provider.core.project.base import Duration, Whole

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path
    from typing import BinaryIO

    from confluent_kafka import Message

    from cdp_provider.core.ingest.kafka_client import ClientConfig
    from cdp_provider.core.project.base import Options
    from cdp_provider.core.project.streams import Stream
    from cdp_provider.core.run import Window

Topic = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,249}$")]


def _one_or_more(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


class KafkaOptions(EventOptions):
    """How a stream of records is read.

    :param topics: one or several; the value of each record is a JSON object, or an array of them.
    :param key: what a record's key is: ``text``, or ``json``. It becomes ``_key``.
    :param tombstones: what a record without a value means: ``delete`` the row that its key names, or
        ``quarantine``.
    :param headers: gives each record its headers as ``_headers``.
    :param max_records: a batch takes so many at the most; the next one goes on there.
    :param max_wait: so long without an answer, the brokers count as down.
    :param lost: what happens when records were removed before they were read: ``fail`` until somebody has
        looked, or ``accept``: go on with the oldest one there is.
    """

    needs_connection: ClassVar[bool] = True

    topics: Annotated[
        tuple[Topic, ...],
        BeforeValidator(_one_or_more, json_schema_input_type=Topic | tuple[Topic, ...]),
        Field(min_length=1),
    ]
    key: Literal["text", "json"] = "text"
    tombstones: Literal["delete", "quarantine"] = "delete"
    headers: bool = False
    max_records: Annotated[Whole, Field(ge=1)] = 500_000
    max_wait: Duration = timedelta(seconds=30)
    lost: Literal["fail", "accept"] = "fail"

    def by_arrival(self) -> bool:
        """Where a record can remove a row, the order counts, which Kafka keeps for the records of one key."""
        return self.tombstones == "delete" and self.spec is None


class KafkaConnector(Connector):
    """Reads each partition from where the batch before ended, up to the first record that is not older than
    the window's end, or to what the partition held when the batch began.

    Where it stands, the cursor says: ``next``, topic -> partition -> offset; ``first``, where the batch
    itself began. Nothing depends on what a consumer group has committed.

    :param config: of librdkafka.
    """

    options: ClassVar[type[Options]] = KafkaOptions
    reaches = "kafka"

    def __init__(self, config: ClientConfig) -> None:
        self._config = config

    def fetch(
        self,
        stream: Stream,
        cursor: Cursor | None,
        window: Window,
        spool: Path,
        *,
        taken: Collection[FileKey] = (),  # records are no files
        until: Cursor | None = None,
    ) -> Fetched:
        options = cast("KafkaOptions", stream.options)
        with Client(self._config, options.max_wait) as client:
            if until is None:
                spans, end = _new_spans(client, options, cursor or {}), window.end
            else:
                spans, end = _same_spans(client, until), None
            reading = _Reading(client, stream, spool, end)
            for left, span in zip(range(len(spans), 0, -1), spans, strict=True):
                # What one partition leaves of its share, those after it may use.
                limit = None if until else max((options.max_records - reading.records) // left, 1)
                reading.read(span, limit)
        return as_calls(options, reading.fetched(cursor or {}), spool)

    def confirm(self, stream: Stream, cursor: Cursor) -> None:
        """Commit the offsets for the connection's ``group.id``, if it has one, so that monitors of lag see
        them.

        :raises ConfigurationError: other programs work under this group.
        """
        if not self._config.get("group.id"):
            return
        options = cast("KafkaOptions", stream.options)
        with Client(self._config, options.max_wait) as client:
            client.commit({topic: cursor["next"].get(topic, {}) for topic in options.topics})


def _new_spans(client: Client, options: KafkaOptions, cursor: Cursor) -> list[Span]:
    """What the partitions hold beyond the cursor; partitions that it does not know, from their beginning.

    :raises DataError: records that were never read are gone.
    """
    spans = []
    for topic in options.topics:
        known = cursor.get("next", {}).get(topic, {})
        for partition in client.partitions(topic):
            low, high = client.held(topic, partition)
            wanted = known.get(str(partition), low)
            span = Span(topic, partition, wanted, high)
            if not low <= wanted <= high:
                if options.lost == "fail":
                    raise gone(span, low, high)
                span = replace(span, first=low, lost=max(low - wanted, 0))
            spans.append(span)
    return spans


def _same_spans(client: Client, until: Cursor) -> list[Span]:
    """What the batch had when it was landed before.

    :raises DataError: some of it is gone; the rows that stand are better than what is left.
    """
    spans = []
    for topic, partitions in until["first"].items():
        for partition, first in partitions.items():
            span = Span(topic, int(partition), first, until["next"][topic][partition])
            if span.first < span.end:
                low, high = client.held(topic, span.partition)
                if not low <= span.first <= span.end <= high:
                    raise gone(span, low, high)
            spans.append(span)
    return spans


class _Reading:
    """Writes records into the spool, one file per partition, and knows how far it came.

    :param end: records that are not older wait for a later window; None: all that a span holds.
    """

    def __init__(self, client: Client, stream: Stream, spool: Path, end: datetime | None) -> None:
        self._client, self._stream, self._spool = client, stream, spool
        self._options = cast("KafkaOptions", stream.options)
        self._end = None if end is None else end.timestamp() * 1000
        self._files: list[RawFile] = []
        self._first: dict[str, dict[str, int]] = {}
        self._next: dict[str, dict[str, int]] = {}
        self._bytes = self._lost = self._waiting = self._tombstones = 0
        self.records = 0

    def read(self, span: Span, limit: int | None) -> None:
        """Take in a span, or its first `limit` records."""
        path = self._spool / f"{len(self._files):06d}.ndjson"
        with path.open("wb") as file:
            following = self._copy(span, file, limit)
        if self._end is None and following < span.end:
            raise gone(span, span.first, following)
        self._files.append(RawFile(path, f"{span.topic}/{span.partition}", "ndjson"))
        self._first.setdefault(span.topic, {})[str(span.partition)] = span.first
        self._next.setdefault(span.topic, {})[str(span.partition)] = following
        self._waiting += span.end - following
        self._lost += span.lost

    def fetched(self, before: Cursor) -> Fetched:
        """Everything that was read; topics that are read no more keep their place in the cursor."""
        return Fetched(
            self._files,
            cursor={"first": self._first, "next": {**before.get("next", {}), **self._next}},
            bytes=self._bytes,
            detail={
                "records": self.records,
                "tombstones": self._tombstones,
                "partitions": len(self._files),
                "left_for_later": self._waiting,
                **({"lost": self._lost} if self._lost else {}),
            },
        )

    def _copy(self, span: Span, file: BinaryIO, limit: int | None) -> int:
        """Write the records; returns the offset of the first one that was not read."""
        taken, following = 0, span.first
        for offset, message in self._client.records(span):
            following = offset
            if message is None or taken == limit or self._is_late(message):
                break
            file.writelines(line + b"\n" for line in self._lines(message))
            taken += 1
            self.records += 1
        return following

    def _is_late(self, message: Message) -> bool:
        kind, milliseconds = message.timestamp()
        return self._end is not None and bool(kind) and milliseconds >= self._end

    def _lines(self, message: Message) -> Iterator[bytes]:
        value, key = message.value(), message.key()
        self._bytes += len(value or b"") + len(key or b"")
        about = self._about(message)
        if key is not None:
            try:
                about["_key"] = self._key(key)
            except orjson.JSONDecodeError:
                yield refused("its key is no JSON", about, value or b"")
                return
        if value is None:
            self._tombstones += 1
            yield self._tombstone(about)
        else:
            yield from lines_of(value, about)

    def _about(self, message: Message) -> dict[str, Any]:
        kind, milliseconds = message.timestamp()
        moment = datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat() if kind else None
        about: dict[str, Any] = {
            "_topic": message.topic(),
            "_partition": message.partition(),
            "_offset": message.offset(),
            "_timestamp": moment,
            "_key": None,
        }
        if self._options.headers:
            headers = cast("list[tuple[str, bytes | None]]", message.headers() or [])
            about["_headers"] = {name: None if value is None else _text(value) for name, value in headers}
        return about

    def _key(self, key: bytes) -> Any:
        return parsed(key) if self._options.key == "json" else _text(key)

    def _tombstone(self, about: dict[str, Any]) -> bytes:
        """The record that removes a row: with its primary key, which the record's key names."""
        key, columns = about["_key"], self._stream.primary_key
        if not self._options.by_arrival() or key is None:
            return refused("a record without a value", about, b"")
        if isinstance(key, dict):
            return orjson.dumps({**key, **about, "_deleted": True})
        if len(columns) > 1:
            return refused("a record without a value, whose key is not the whole primary key", about, b"")
        column = self._stream.columns[columns[0]]
        first, *rest = (column.path or columns[0]).split(".")
        if first in about:
            return orjson.dumps({**about, "_deleted": True})
        for part in reversed(rest):
            key = {part: key}
        return orjson.dumps({first: key, **about, "_deleted": True})


def _text(value: bytes) -> str:
    """Text of any bytes; no engine stores NUL."""
    return value.decode(errors="backslashreplace").replace("\x00", "\\x00")
