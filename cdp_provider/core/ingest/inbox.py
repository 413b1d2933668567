# SPDX-License-Identifier: Apache-2.0
"""The inbox: what others send us, kept in the warehouse until a run takes it in.

Whoever receives messages, such as the receiving end of web hooks, writes them with :func:`append`. The
messages of a channel are numbered without a gap, in the order in which they become visible: a number is given
under a lock that is held until the writer has committed. So a reader that has seen number 7 has seen 1 to 6,
however many writers there are. (A sequence of the engine's would not do: its numbers are given before the
commit, so 7 may be there while 6 is still to come.)
"""

from __future__ import annotations

import itertools
import threading
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, cast

import orjson
from pydantic import Field

from cdp_provider.core.exceptions import DataError
from cdp_provider.core.ingest.base import Connector, Cursor, Fetched, FileKey, RawFile
from cdp_provider.core.ingest.lines import text_of
from cdp_provider.core.ingest.messages import lines_of
from cdp_provider.core.ingest.segment import EventOptions, as_calls
from cdp_provider.core.project.base import Duration, Name, Whole

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import BinaryIO

    from cdp_provider.core.project.base import Options
    from cdp_provider.core.project.streams import Stream
    from cdp_provider.core.run import Window
    from cdp_provider.core.warehouse import Session, Warehouse

#: Messages that one statement writes or reads.
_WRITTEN, _READ = 200, 5_000

#: The lock of an engine for one process does not keep the threads of that process apart.
_ALONE = threading.Lock()

#: Decided here, not by whoever sends.
_RESERVED = ("_deleted",)


class InboxOptions(EventOptions):
    """How a stream of messages from the inbox is read.

    :param channel: which messages; the source's name when left out.
    :param max_messages: a batch takes so many at the most; the next one goes on there.
    :param keep: messages that were taken in stay for so long, so that a batch can be landed again.
    :param lost: what happens when messages were removed before they were read: ``fail`` until somebody has
        looked, or ``accept``: go on with the oldest one there is.
    """

    channel: Name | None = None
    max_messages: Annotated[Whole, Field(ge=1)] = 500_000
    keep: Duration = timedelta(days=7)
    lost: Literal["fail", "accept"] = "fail"

    def channel_of(self, stream: Stream) -> str:
        """The channel that the stream reads."""
        return self.channel or stream.source


def append(
    session: Session,
    channel: str,
    bodies: Sequence[str | bytes],
    *,
    headers: Mapping[str, str] | None = None,
    received_at: datetime | None = None,
) -> int:
    """Write messages that arrived together; all of them or, on an error, none. They stand when it returns.

    Call it outside of a transaction: it opens its own. Other writers of the channel wait meanwhile, so do
    nothing slow with `bodies`; those of other channels don't.

    :param session: of a warehouse with the product's tables (``tables.ensure``).
    :param bodies: as they came. Bytes that are no UTF-8, and NUL characters, are spelt out (``\\xNN``).
    :param headers: those worth keeping, the same for all; never ``Authorization`` or a cookie.
    :param received_at: with a time zone; by default the warehouse's clock. A window reads up to the first
        message that arrived at or after its end.
    :returns: number of the last message; of none, that of the last one before.
    :raises WarehouseBusyError: other writers kept the channel for too long.
    """
    table = session.warehouse.table("inbox")
    shared = {
        "channel": channel,
        "headers": orjson.dumps(dict(headers)).decode() if headers else None,
        "received_at": received_at,
    }
    # A literal, for an engine needs the type of a null.
    moment = "current_timestamp" if received_at is None else ":received_at"
    texts = [
        text_of(body.encode("utf-8", "backslashreplace") if isinstance(body, str) else body)
        for body in bodies
    ]
    alone = _ALONE if session.warehouse.single_process else nullcontext()
    with alone, session.lock(f"inbox {channel}"), session.transaction():
        last = _last(session, channel)
        numbers = itertools.count(last + 1)
        for start in range(0, len(texts), _WRITTEN):
            part = texts[start : start + _WRITTEN]
            values = {f"b{i}": text for i, text in enumerate(part)} | {
                f"n{i}": next(numbers) for i in range(len(part))
            }
            rows = ", ".join(
                f"(:channel, :n{i}, {moment}, cast(:headers as varchar), :b{i})" for i in range(len(part))
            )
            session.execute(
                f"insert into {table} (channel, number, received_at, headers, body) values {rows}",
                {**shared, **values},
            )
    return last + len(texts)


def _last(session: Session, channel: str) -> int:
    """Number of the channel's newest message; it is never purged, so numbers are never given again."""
    return _held(session, channel)[1]


class InboxConnector(Connector):
    """Reads the messages of a channel in the order of their numbers.

    Cursor: ``next``, the number of the first message that was not read; ``first``, that of the batch's own.

    :param warehouse: whose table ``inbox`` is read.
    """

    options: ClassVar[type[Options]] = InboxOptions
    reaches = "warehouse"

    def __init__(self, warehouse: Warehouse) -> None:
        self._warehouse = warehouse

    def fetch(
        self,
        stream: Stream,
        cursor: Cursor | None,
        window: Window,
        spool: Path,
        *,
        taken: Collection[FileKey] = (),  # messages are no files
        until: Cursor | None = None,
    ) -> Fetched:
        options = cast("InboxOptions", stream.options)
        channel = options.channel_of(stream)
        path = spool / "messages.ndjson"
        size = 0
        with self._warehouse.session() as session, path.open("wb") as file:
            if until is None:
                span = _span(session, options, channel, cursor, window.end)
            else:
                span = _same_span(session, channel, until)
            for number, received_at, headers, body in _messages(session, channel, span):
                size += len(body.encode())
                _write(file, (channel, number, received_at, headers), body)
        fetched = Fetched(
            [RawFile(path, f"inbox {channel}", "ndjson")],
            cursor={"first": span.first, "next": span.following},
            bytes=size,
            detail={
                "messages": span.following - span.first,
                "left_for_later": span.waiting,
                **({"lost": span.lost} if span.lost else {}),
            },
        )
        return as_calls(options, fetched, spool)

    def confirm(self, stream: Stream, cursor: Cursor) -> None:
        """Remove messages that were taken in and are more than ``keep`` older than the last of these."""
        options = cast("InboxOptions", stream.options)
        names = {"channel": options.channel_of(stream), "next": cursor["next"]}
        with self._warehouse.session() as session:
            table = self._warehouse.table("inbox")
            newest = session.scalar(
                f"select max(received_at) from {table} where channel = :channel and number < :next", names
            )
            if newest is None:
                return
            session.execute(
                f"delete from {table} where channel = :channel and number < :next and received_at < :before"
                f" and number < (select max(number) from {table} where channel = :channel)",
                {**names, "before": newest - options.keep},
            )


@dataclass(frozen=True)
class _Span:
    """Which messages a batch takes: those numbered from `first` on, up to and without `following`.

    :param waiting: so many more are there, for later windows.
    :param lost: so many were removed before they were read.
    """

    first: int
    following: int
    waiting: int
    lost: int


def _span(
    session: Session, options: InboxOptions, channel: str, cursor: Cursor | None, end: datetime
) -> _Span:
    """What is new: up to the first message that arrived at or after `end`, or the most that a batch takes.

    :raises DataError: messages that were never read are gone.
    """
    oldest, newest = _held(session, channel)
    wanted = int(cursor["next"]) if cursor else oldest
    first = wanted
    if not oldest <= wanted <= newest + 1:
        if options.lost == "fail":
            raise _gone(channel, wanted, oldest, newest)
        first = oldest
    late = session.scalar(
        f"select min(number) from {session.warehouse.table('inbox')} where channel = :channel"
        " and number >= :first and received_at >= :end",
        {"channel": channel, "first": first, "end": end},
    )
    following = min(late or newest + 1, first + options.max_messages)
    return _Span(first, following, newest + 1 - following, max(first - wanted, 0))


def _same_span(session: Session, channel: str, until: Cursor) -> _Span:
    """What the batch had when it was landed before.

    :raises DataError: some of it is gone; the rows that stand are better than what is left.
    """
    span = _Span(int(until["first"]), int(until["next"]), 0, 0)
    oldest, newest = _held(session, channel)
    if span.first < span.following and not oldest <= span.first <= span.following <= newest + 1:
        raise _gone(channel, span.first, oldest, newest)
    return span


def _held(session: Session, channel: str) -> tuple[int, int]:
    """Numbers of the oldest and the newest message; 1 and 0 where there is none."""
    table = session.warehouse.table("inbox")
    query = f"select coalesce(min(number), 1), coalesce(max(number), 0) from {table} where channel = :channel"
    oldest, newest = session.fetch(query, {"channel": channel})[0]
    return oldest, newest


def _gone(channel: str, wanted: int, oldest: int, newest: int) -> DataError:
    held = f"{oldest} to {newest}" if newest else "none"
    msg = (
        f"the inbox channel {channel!r} is to be read from message {wanted} on, but of its messages it holds"
        f" {held}: they were removed before they were read, or before their batch was landed again. Lengthen"
        " `keep` of the streams that read it; to go on with what is left, set `lost: accept`"
    )
    return DataError(msg)


def _messages(session: Session, channel: str, span: _Span) -> Iterator[tuple[int, datetime, str | None, str]]:
    """Number, moment, headers and body of each message, a few at a time."""
    for start in range(span.first, span.following, _READ):
        rows = session.fetch(
            f"select number, received_at, headers, body from {session.warehouse.table('inbox')}"
            " where channel = :channel and number >= :start and number < :stop order by number",
            {"channel": channel, "start": start, "stop": min(start + _READ, span.following)},
        )
        yield from rows


def _write(file: BinaryIO, place: tuple[str, int, datetime, str | None], body: str) -> None:
    channel, number, received_at, headers = place
    about: dict[str, Any] = {
        "_channel": channel,
        "_number": number,
        "_received_at": received_at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
    }
    if headers is not None:
        about["_headers"] = orjson.loads(headers)
    file.writelines(line + b"\n" for line in lines_of(body.encode(), about, (*_RESERVED, "_headers")))
