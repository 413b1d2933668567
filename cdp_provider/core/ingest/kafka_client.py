# SPDX-License-Identifier: Apache-2.0
"""A Kafka client that reads stretches of partitions, belongs to no group, and speaks the house's errors."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from cdp_provider.core.exceptions import (
    AccessError,
    CdpError,
    ConfigurationError,
    DataError,
    NotFoundError,
    UnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import timedelta

    from confluent_kafka import Consumer, KafkaError, Message

_log = logging.getLogger(__name__)

#: Keys of librdkafka: bootstrap.servers, security.protocol, ...
ClientConfig: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True)
class Span:
    """A stretch of a partition: from offset `first` on, up to and without `end`.

    :param lost: so many offsets before it were never read.
    """

    topic: str
    partition: int
    first: int
    end: int
    lost: int = 0

    @property
    def name(self) -> str:
        """For messages."""
        return f"partition {self.partition} of topic {self.topic!r}"


class Client:
    """A consumer that belongs to no group: it reads what it is told to, and errors are those of the house."""

    def __init__(self, config: ClientConfig, max_wait: timedelta) -> None:
        self._config, self._wait = config, max_wait.total_seconds()
        self._trouble: KafkaError | None = None

    def __enter__(self) -> Client:
        try:
            from confluent_kafka import Consumer
        except ImportError as error:
            msg = (
                "a source of type kafka needs the client of Kafka, which is not installed:"
                " pip install 'airflow-provider-cdp[kafka]'"
            )
            raise ConfigurationError(msg) from error
        settings = {
            "group.id": "cdp",  # the client wants one, even if nothing is ever committed for it
            "isolation.level": "read_committed",
            "queued.max.messages.kbytes": 16_384,
            "fetch.wait.max.ms": 100,
            **self._config,
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
            "error_cb": self._noted,
        }
        with self._named("its settings"):
            self._consumer: Consumer = Consumer(settings, logger=_log)
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    def partitions(self, topic: str) -> list[int]:
        """Numbers of a topic's partitions.

        :raises NotFoundError: there is no such topic.
        """
        with self._named(f"topic {topic!r}"):
            found = self._consumer.list_topics(topic, timeout=self._wait).topics[topic]
        if found.error is not None:
            raise translated(found.error, f"topic {topic!r}")
        return sorted(found.partitions)

    def held(self, topic: str, partition: int) -> tuple[int, int]:
        """The oldest offset of a partition, and the one after its newest committed record."""
        from confluent_kafka import TopicPartition

        with self._named(f"topic {topic!r}"):
            place = TopicPartition(topic, partition)
            low, high = self._consumer.get_watermark_offsets(place, timeout=self._wait)
        return low, high

    def records(self, span: Span) -> Iterator[tuple[int, Message | None]]:
        """The records of a span with their offsets; last, without one, the offset that comes after them.

        :raises DataError: the partition no longer holds where the span begins.
        """
        from confluent_kafka import TopicPartition

        following = span.first
        if following < span.end:
            with self._named(span.name):
                self._consumer.assign([TopicPartition(span.topic, span.partition, span.first)])
        # Offsets have gaps: the record after the last one of a span may be the first to be seen behind it.
        while following < span.end:
            message = self._next(span)
            offset = cast("int", message.offset())
            if message.error() is not None:
                # The end of what is committed, where a transaction is still open.
                yield min(offset, span.end), None
                return
            following = offset + 1
            if offset < span.end:
                yield offset, message
        yield max(span.first, span.end), None

    def _next(self, span: Span) -> Message:
        """The next record, or the note that there is none yet."""
        from confluent_kafka import KafkaError

        with self._named(span.name):
            message = self._consumer.poll(self._wait)
        if message is None:
            raise self._silent(span)
        error = message.error()
        if error is None or error.code() == KafkaError._PARTITION_EOF:
            return message
        if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            raise gone(span, *self.held(span.topic, span.partition))
        raise translated(error, span.name)

    def commit(self, offsets: Mapping[str, Mapping[str, int]]) -> None:
        """Commit topic -> partition -> offset for the group."""
        from confluent_kafka import TopicPartition

        places = [
            TopicPartition(topic, int(partition), offset)
            for topic, partitions in offsets.items()
            for partition, offset in partitions.items()
        ]
        if not places:
            return
        with self._named(f"group.id {self._config['group.id']!r}"):
            committed = self._consumer.commit(offsets=places, asynchronous=False) or []
        for place in committed:
            if place.error is not None:
                raise translated(place.error, f"group.id {self._config['group.id']!r}")

    def _noted(self, error: KafkaError) -> None:
        # After a refused login, brokers only seem to be down.
        if self._trouble is None or not isinstance(translated(self._trouble, ""), AccessError):
            self._trouble = error

    def _silent(self, span: Span) -> CdpError:
        """Why nobody answers, as far as the client has heard."""
        if self._trouble is not None:
            return translated(self._trouble, span.name)
        return UnavailableError(
            f"Kafka did not answer for {self._wait:.0f} s about {span.name}; see its brokers"
        )

    @contextmanager
    def _named(self, what: str) -> Iterator[None]:
        from confluent_kafka import KafkaException

        try:
            yield
        except KafkaException as error:
            found = error.args[0]
            trouble = self._trouble
            # A refused login only shows as a timeout here.
            told = (
                trouble
                if trouble is not None and isinstance(translated(trouble, what), AccessError)
                else found
            )
            raise translated(told, what) from error


def translated(error: KafkaError, what: str) -> CdpError:
    """An error of the client as one of the house."""
    from confluent_kafka import KafkaError

    said = f"Kafka says {error.name()} about {what}: {error.str()}"
    if error.code() in {
        KafkaError._AUTHENTICATION,
        KafkaError._SSL,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    }:
        return AccessError(f"{said}; correct the connection's credentials, or grant it the right to read")
    if error.code() in {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC}:
        return NotFoundError(f"{said}; correct `topics` of the stream, or create the topic")
    if error.code() in {
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.REBALANCE_IN_PROGRESS,
    }:
        return ConfigurationError(
            f"{said}: other programs work under it; give the connection a group of its own"
        )
    if error.code() in {KafkaError._INVALID_ARG, KafkaError._CONFLICT}:
        return ConfigurationError(f"{said}; correct the extra of the connection")
    return UnavailableError(f"{said}; see its brokers, or raise `max_wait`")


def gone(span: Span, low: int, high: int) -> DataError:
    """What to say where a partition holds offsets `low` up to and without `high`, and not those of a span."""
    msg = (
        f"{span.name} is to be read from offset {span.first} on, but"
        f" holds {low} to {high - 1}: records were removed before they were read, or before their batch was"
        " landed again, or the topic was made anew. Lengthen the topic's retention or run more often; to go"
        " on with what is left, set `lost: accept`"
    )
    return DataError(msg)
