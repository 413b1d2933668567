# SPDX-License-Identifier: Apache-2.0
"""What a stream over HTTP declares."""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from cdp_provider.core.ingest.moments import Form, read_day, reader
from cdp_provider.core.ingest.paging import NoPaging, Paging
from cdp_provider.core.project.base import Duration, Model, Options, Whole
from cdp_provider.core.project.problems import Problem, Problems, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cdp_provider.core.project.streams import Column

SINCE, UNTIL = "{since}", "{until}"

#: Types of columns that have an order in which changes can be asked for.
_ORDERED = ("timestamp", "date", "integer", "string")


def _as_text(value: Any) -> Any:
    return value.isoformat() if isinstance(value, date) else value


#: A moment as a text; YAML reads an unquoted one as a date.
_Moment = Annotated[str, BeforeValidator(_as_text, json_schema_input_type=str)]


class PageSize(Model):
    """How many records a page is asked for."""

    parameter: str
    value: int = Field(ge=1)


class Incremental(Model):
    """Only what changed since the last batch.

    :param column: a column of the stream that grows with every change; of type timestamp, date, integer or
        string (compared as text).
    :param parameter: where the request carries the highest value seen so far. Left out, the value stands in
        for ``{since}`` in `parameters` and `body`.
    :param overlap: asks from this much before it, for sources whose changes appear late; timestamps only.
    :param format: how the value is written; left out, as the source wrote it.
    :param start: the value before there is any.
    :param stop: the source gives the newest first and cannot filter: the reading ends where the batch before
        began.
    """

    column: str
    parameter: str | None = None
    overlap: Duration = timedelta(0)
    format: Form | None = None
    start: Annotated[str | int, BeforeValidator(_as_text)] | None = None
    stop: bool = False


class Stretches(Model):
    """Ask stretch by stretch, for sources that refuse long spans or page badly through them.

    :param start: where the request carries the first moment of a stretch; or ``{since}``.
    :param end: where it carries the first moment after it; or ``{until}``.
    :param step: how long a stretch is.
    :param format: how moments are written; left out, as those of the cursor.
    :param since: the first moment of all; left out, the cursor's start or else the window's.
    """

    start: str | None = None
    end: str | None = None
    step: Duration
    format: Form | None = None
    since: _Moment | None = Field(default=None, alias="from")

    def model_post_init(self, context: Any, /) -> None:
        """Refuse a first moment that is none."""
        if self.since is not None and reader(None)(self.since) is None:
            what = f"{self.since!r} is no moment; write it as 2024-01-01 or 2024-01-01T00:00:00Z"
            raise Problems([Problem(("from",), what)])


class RequestRate(Model):
    """How often the source may be asked by one task; requests are evenly spaced."""

    requests: Whole = Field(ge=1)
    per: Duration


class HttpOptions(Options):
    """How a stream is read from an HTTP API.

    :param path: below the connection's base URL.
    :param body: sent as JSON, with the method POST.
    :param graphql: a query, sent with the method POST; `parameters` are its variables.
    :param records: dotted path of the list of records in the answer; empty when the answer is the list.
    :param parameters: added to the query of every request; an address of a next page brings its own.
    :param headers: beside those of the connection, which is where secrets belong.

    What changes from request to request (tokens of pages, moments) is put into the query with GET, into the
    body with POST and into the variables with GraphQL; in the latter two, places are dotted.
    """

    path: str
    method: Literal["GET", "POST"] = "GET"
    body: dict[str, Any] | None = None
    graphql: str | None = None
    records: str = ""
    paging: Paging = NoPaging()
    page_size: PageSize | None = None
    cursor: Incremental | None = None
    window: Stretches | None = None
    rate: RequestRate | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)
    headers: dict[str, str] = Field(default_factory=dict)

    @property
    def verb(self) -> str:
        """The method, which GraphQL implies."""
        return "POST" if self.graphql is not None else self.method

    def mentions(self, place: str) -> bool:
        """Whether ``{since}`` or ``{until}`` stands somewhere in the parameters or the body."""
        return any(place in text for text in _texts([self.parameters, self.body]))

    def model_post_init(self, context: Any, /) -> None:
        """Refuse parts that contradict each other."""
        if problems := [*self._request_problems(), *self._progress_problems()]:
            raise Problems(problems)

    def _request_problems(self) -> Iterator[Problem]:
        if self.body is not None and self.graphql is not None:
            yield Problem(("body",), "a GraphQL request has a body of its own; leave out `body`")
        elif self.body is not None and self.method == "GET":
            yield Problem(("body",), "a GET request has no body; add `method: POST`")
        if self.graphql is None:
            for name, value in self.parameters.items():
                if not _is_scalar(value) and not (isinstance(value, list) and all(map(_is_scalar, value))):
                    what = (
                        f"is {type(value).__name__}; a query holds texts, numbers, booleans or a list of them"
                    )
                    yield Problem(("parameters", name), f"the parameter {name!r} {what}")

    def _progress_problems(self) -> Iterator[Problem]:
        cursor, window = self.cursor, self.window
        if cursor is None:
            if window is not None:
                what = "`window` goes on where the cursor stands"
                yield Problem(("window",), f"{what}; add `cursor: {{column: ...}}`")
            if self.mentions(SINCE):
                yield Problem((), f"{SINCE} stands for the cursor, and there is none; add `cursor`")
        elif window is not None:
            yield from self._window_problems(cursor, window)
        elif not (cursor.parameter or cursor.stop or self.mentions(SINCE)):
            what = "nothing tells the source where to go on"
            yield Problem(("cursor",), f"{what}; add `parameter`, {SINCE} in parameters or body, or `stop`")

    def _window_problems(self, cursor: Incremental, window: Stretches) -> Iterator[Problem]:
        if cursor.parameter is not None:
            yield Problem(("cursor", "parameter"), "`window` asks for the changes already; leave it out")
        for name, place, stands in (("start", window.start, SINCE), ("end", window.end, UNTIL)):
            if place is None and not self.mentions(stands):
                what = f"the {name} of a stretch goes nowhere"
                hint = f"give {name}, or write {stands} into parameters or body"
                yield Problem(("window",), what, hint, missing=name)

    def stream_problems(self, stream: Any) -> Iterator[Problem]:
        """A cursor needs a column with an order."""
        cursor = self.cursor
        if cursor is None:
            return
        column: Column | None = stream.columns.get(cursor.column)
        if column is None:
            what = f"cursor.column {cursor.column!r} is no column of {stream.ref}; name one of its columns"
            yield Problem(("cursor", "column"), what, did_you_mean(cursor.column, stream.columns))
            return
        what = f"the column {cursor.column!r} is of type {column.type}"
        if column.type not in _ORDERED:
            yield Problem(("cursor", "column"), f"{what}; a cursor must be one of {', '.join(_ORDERED)}")
        if cursor.overlap and column.type != "timestamp":
            yield Problem(("cursor", "overlap"), f"overlap needs a cursor of type timestamp, but {what}")
        if column.type in ("integer", "string"):
            for name, given in (("cursor", cursor.format), ("window", self.window)):
                if given is not None:
                    wanted = "format of a cursor" if name == "cursor" else "window"
                    yield Problem((name,), f"a {wanted} is for timestamps and dates, but {what}")
        elif cursor.start is not None and _read(column, cursor.start) is None:
            what = f"{cursor.start!r} is no moment; write it as 2024-01-01 or 2024-01-01T00:00:00Z"
            yield Problem(("cursor", "start"), what)


def _read(column: Column, value: Any) -> Any:
    """A moment of the project, as a text or as the source would write it."""
    return reader(None)(value) or (reader(column.format) if column.type == "timestamp" else read_day)(value)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


def _is_scalar(value: Any) -> bool:
    return isinstance(value, str | int | float | bool)
