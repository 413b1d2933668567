# SPDX-License-Identifier: Apache-2.0
"""JSON over HTTP: paged, incremental, patient with a service that is throttled or has a bad moment."""

from __future__ import annotations

import hashlib
import json
import random
import time
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, cast

import orjson
from pydantic import Field

from cdp_provider.core.exceptions import ConfigurationError, DataError, RetryableError
from cdp_provider.core.http import Endpoint, HttpClient, Response
from cdp_provider.core.ingest.base import Connector, Cursor, Fetched, FileKey, RawFile
from cdp_provider.core.ingest.conversion import quote_long_numbers
from cdp_provider.core.ingest.paging import Next, NoPaging, Paging, dig
from cdp_provider.core.ingest.progress import Progress
from cdp_provider.core.project.base import Duration, Model, Options

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from cdp_provider.core.project.streams import Stream
    from cdp_provider.core.run import Window

#: Pages without records in a row, after which a source counts as endless.
_MAX_EMPTY = 100


class PageSize(Model):
    """How many records a page is asked for."""

    parameter: str
    value: int = Field(ge=1)


class Incremental(Model):
    """Only what changed since the last batch.

    :param column: a column of the stream that grows with every change; of type timestamp, date, integer or
        string (compared as text).
    :param parameter: query parameter that carries the highest value seen so far, as the source wrote it.
    :param overlap: asks from this much before it, for sources whose changes appear late; timestamps only.
    """

    column: str
    parameter: str
    overlap: Duration = timedelta(0)


class HttpOptions(Options):
    """How a stream is read from an HTTP API.

    :param path: below the connection's base URL.
    :param records: dotted path of the list of records in the answer; empty when the answer is the list.
    :param parameters: added to the query of every request; an address of a next page brings its own.
    :param headers: beside those of the connection, which is where secrets belong.
    """

    path: str
    records: str = ""
    paging: Paging = NoPaging()
    page_size: PageSize | None = None
    cursor: Incremental | None = None
    parameters: dict[str, str | int | float | bool] = Field(default_factory=dict)
    headers: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True)
class Patience:
    """How a request is tried again in place; what takes longer is the scheduler's business.

    :param tries: of one request, the first included.
    :param longest: seconds; a source that asks for a longer pause is asked again by a later task.
    :param base: seconds before the second try; doubles from try to try, jittered.
    """

    tries: int = 5
    longest: float = 30.0
    base: float = 0.5

    def pause(self, attempt: int, wanted: float | None) -> float | None:
        """Seconds until the next try, or None to give up. `attempt` counts from 1."""
        if attempt >= self.tries or (wanted is not None and wanted > self.longest):
            return None
        backoff: float = min(self.longest, self.base * 2 ** (attempt - 1))
        jittered = backoff * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret
        return jittered if wanted is None else wanted + 0.1 * jittered


class HttpConnector(Connector):
    """Reads pages of one endpoint into an NDJSON file, one record per line, number for number.

    Records whose cursor value lies at or past the end of the window are left for the next one, and the cursor
    never passes it.
    """

    options: ClassVar[type[Options]] = HttpOptions
    reaches = "endpoint"

    def __init__(self, endpoint: Endpoint, *, patience: Patience | None = None) -> None:
        self._endpoint = endpoint
        self._patience = patience or Patience()

    def fetch(
        self,
        stream: Stream,
        cursor: Cursor | None,
        window: Window,
        spool: Path,
        *,
        taken: Collection[FileKey] = (),  # pages are no files
        until: Cursor | None = None,  # the window bounds it
    ) -> Fetched:
        options = cast("HttpOptions", stream.options)
        progress = _progress(stream, options, cursor, window)
        parameters: dict[str, Any] = dict(options.parameters)
        if options.page_size:
            parameters[options.page_size.parameter] = options.page_size.value
        if options.cursor and progress and (since := progress.since()) is not None:
            parameters[options.cursor.parameter] = since
        path = spool / "pages.ndjson"
        with HttpClient(self._endpoint) as client, path.open("wb") as file:
            walk = _Walk(client, options, self._patience)
            for records in walk.pages(parameters):
                _write(file, records, progress)
        return Fetched(
            [RawFile(path, f"GET {options.path}", "ndjson")],
            cursor=progress.cursor() if progress else None,
            bytes=walk.received,
            detail={"requests": walk.requests, **(progress.counts() if progress else {})},
        )


@dataclass
class _Walk:
    """From page to page, counting; refuses to go in circles."""

    client: HttpClient
    options: HttpOptions
    patience: Patience
    requests: int = 0
    received: int = 0
    _seen: set[bytes] = field(default_factory=set)
    _asked: set[str] = field(default_factory=set)
    _empty: int = 0

    def pages(self, parameters: dict[str, Any]) -> Iterator[list[Any]]:
        """The records of each page."""
        following: Next | None = self.options.paging.first(self.options.path, parameters)
        while following is not None:
            asked = following
            self._refuse_circle(asked)
            response, answer = self._ask(asked)
            records = self._records(response, answer)
            self._refuse_repetition(response, records)
            yield records
            url = self.client.endpoint.url(asked[0])
            following = self.options.paging.following(answer, url, asked, len(records))

    def _ask(self, asked: Next) -> tuple[Response, Any]:
        attempt = 0
        while True:
            attempt += 1
            self.requests += 1
            failure: RetryableError | DataError
            try:
                response = self.client.request("GET", asked[0], params=asked[1], headers=self.options.headers)
            except RetryableError as error:
                failure = error
            else:
                self.received += len(response.body)
                try:
                    return response, _load(response)
                except DataError as error:  # a maintenance page is often gone a second later
                    failure = error
            pause = self.patience.pause(attempt, getattr(failure, "retry_after", None))
            if pause is None:
                raise failure
            time.sleep(pause)

    def _records(self, response: Response, answer: Any) -> list[Any]:
        records = dig(answer, self.options.records)
        if not isinstance(records, list):
            where = f"at {self.options.records!r}" if self.options.records else "as the whole answer"
            msg = (
                f"{response.method} {response.path} has no list of records {where}, but"
                f" {type(records).__name__}; correct `records` of the stream"
            )
            raise DataError(msg)
        return records

    def _refuse_circle(self, asked: Next) -> None:
        key = json.dumps(asked, sort_keys=True)
        if key in self._asked:
            msg = (
                f"GET {self.options.path} names a next page that was already read (after {self.requests}"
                " requests); the source would go round for ever, so check `paging` of the stream"
            )
            raise DataError(msg)
        self._asked.add(key)

    def _refuse_repetition(self, response: Response, records: list[Any]) -> None:
        self._empty = 0 if records else self._empty + 1
        if self._empty > _MAX_EMPTY:
            msg = f"GET {self.options.path} gave {_MAX_EMPTY} pages without a record; check `paging`"
            raise DataError(msg)
        if not records:
            return
        digest = hashlib.sha256(_dump(records)).digest()
        if digest in self._seen:
            msg = (
                f"GET {self.options.path} gave the same page twice (request {self.requests}); it seems to"
                " ignore the paging parameter, so check `paging` of the stream"
            )
            raise DataError(msg)
        self._seen.add(digest)


def _progress(stream: Stream, options: HttpOptions, cursor: Cursor | None, window: Window) -> Progress | None:
    if options.cursor is None:
        return None
    column = stream.columns.get(options.cursor.column)
    if column is None:
        msg = f"cursor.column {options.cursor.column!r} is no column of {stream.ref}; name one of its columns"
        raise ConfigurationError(msg)
    return Progress(
        options.cursor.column,
        column.type,
        column.path or options.cursor.column,
        options.cursor.overlap,
        window.end,
        cursor,
    )


def _load(response: Response) -> Any:
    """The answer as JSON, with every digit of its numbers. What is not clean JSON but readable is read: then
    one record is bad and not the whole page."""
    body = quote_long_numbers(response.body)
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        try:
            return json.loads(body, parse_constant=str)
        except (ValueError, RecursionError):
            response.fail_as_not_json()


def _dump(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value).encode()


def _write(file: BinaryIO, records: list[Any], progress: Progress | None) -> None:
    for record in records:
        content = _dump(record)
        if progress is None or progress.admit(record, content):
            file.write(content + b"\n")
