# SPDX-License-Identifier: Apache-2.0
"""An API to read from, over real HTTP: pages in every dialect that the options of an ``http`` stream name."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, Self
from urllib.parse import urlencode

from cdp_provider.core.http import Endpoint
from cdp_provider.testing.connectors.source import SourceUnderTest
from cdp_provider.testing.destinations.fake import FakeAnswer, FakeRequest, FakeServer, FakeService

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from cdp_provider.core.ingest.base import Connector

TOKEN = "conformance-token"  # noqa: S105 - nobody else knows it


class FakeApi(FakeService):
    """A list of records, served page by page as the stream's options say that it is.

    :param options: of an ``http`` stream: ``path``, ``records``, ``paging``, ``page_size``, ``cursor``.
    :param page: records per page, where ``page_size`` does not ask for another number.

    :ivar records: in the order in which they are served.
    :ivar stuck: ``page`` gives the first page over and over, under ever new names; ``token`` names the same
        next page again and again.
    """

    def __init__(self, options: Mapping[str, Any], *, page: int = 10) -> None:
        self.options = options
        self.paging: Mapping[str, Any] = options.get("paging", {"type": "none"})
        self.records: list[dict[str, Any]] = []
        self.stuck: Literal["", "page", "token"] = ""
        self._page = page

    def answer(self, request: FakeRequest) -> FakeAnswer:
        """The page that the request asks for."""
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return FakeAnswer(401, {"error": "who are you?"})
        if request.path != self.options["path"]:
            return FakeAnswer(404, {"error": "no such list"})
        found = self._wanted(request)
        start, size = self._start(request, found), self._size(request)
        shown = 0 if self.stuck == "page" else start
        page = found[shown : shown + size]
        more = self.stuck != "" or start + size < len(found)
        envelope, headers = self._links(request, start, len(page), more=more)
        return FakeAnswer(200, self._wrapped(page, envelope), headers)

    def _wanted(self, request: FakeRequest) -> list[dict[str, Any]]:
        cursor = self.options.get("cursor")
        if not cursor:
            return self.records
        column = cursor["column"]
        if cursor.get("stop"):
            return sorted(self.records, key=lambda record: record[column], reverse=True)
        since = _moment(request.query.get(cursor["parameter"]))
        ordered = sorted(self.records, key=lambda record: _moment(record[column]))
        return [record for record in ordered if _moment(record[column]) >= since]

    def _size(self, request: FakeRequest) -> int:
        if self.paging["type"] == "none":
            return len(self.records)
        parameter = self.options.get("page_size", {}).get("parameter", "")
        return int(request.query.get(parameter, self._page))

    def _start(self, request: FakeRequest, found: Sequence[Mapping[str, Any]]) -> int:
        """Place of the page's first record."""
        kind = self.paging["type"]
        first: int
        if kind == "none":
            return 0
        if kind == "last_record":
            last = request.query.get(self.paging["parameter"])
            ids = [str(record[self.paging["field"]]) for record in found]
            return ids.index(last) + 1 if last else 0
        if kind == "page":
            first = self.paging.get("start", 1)
            return (int(request.query[self.paging.get("parameter", "page")]) - first) * self._size(request)
        if kind == "offset":
            first = self.paging.get("start", 0)
            return int(request.query[self.paging.get("parameter", "offset")]) - first
        return int(request.query.get(self.paging.get("parameter", "after"), 0))

    def _links(
        self, request: FakeRequest, start: int, count: int, *, more: bool
    ) -> tuple[dict[str, Any], dict[str, str]]:
        """What leads to the next page: members of the answer, and headers."""
        envelope: dict[str, Any] = {}
        if where := self.paging.get("more"):
            _place(envelope, where, more)
        if where := self.paging.get("done"):
            _place(envelope, where, not more)
        kind, following = self.paging["type"], 10 if self.stuck == "token" else start + count
        if kind == "cursor":
            _place(envelope, self.paging["next"], str(following) if more else None)
        query = urlencode({**request.query, "after": following})
        if kind == "next_url":
            _place(envelope, self.paging["next"], f"{request.path}?{query}" if more else None)
        link = f'<{request.path}?{query}>; rel="next"'
        return envelope, {"Link": link} if kind == "link" and more else {}

    def _wrapped(self, page: list[dict[str, Any]], envelope: dict[str, Any]) -> Any:
        where = self.options.get("records", "")
        if not where:
            return page
        _place(envelope, where, page)
        return envelope


class ApiSource(SourceUnderTest):
    """A :class:`FakeApi` that listens inside a ``with`` statement.

    :param options: of the stream; given to the API, too, unless `api` is one of another shape.
    :param connect: an endpoint -> the connector.
    """

    def __init__(
        self,
        options: Mapping[str, Any],
        connect: Callable[[Endpoint], Connector],
        api: FakeApi | None = None,
    ) -> None:
        self.api = api or FakeApi(options)
        self._options = options
        self._connect = connect

    @property
    def options(self) -> Mapping[str, Any]:
        return self._options

    def put(self, records: Sequence[Mapping[str, Any]], at: datetime) -> None:
        self.api.records += map(dict, records)

    def connector(self, *, timeout: float = 10.0) -> Connector:
        """A connector with a token that is known.

        :param timeout: seconds without a byte until an answer counts as lost.
        """
        return self._connect(self._endpoint(TOKEN, timeout))

    def locked_out(self) -> Connector:
        return self._connect(self._endpoint("another-token", 10.0))

    def _endpoint(self, token: str, timeout: float) -> Endpoint:
        return Endpoint(self.server.url, headers={"Authorization": f"Bearer {token}"}, timeout=timeout)

    def __enter__(self) -> Self:
        self.server = FakeServer(self.api)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.server.__exit__(kind, error, trace)


def _moment(value: Any) -> datetime:
    """A cursor's value as a moment; whatever is missing lies before all others."""
    if value is None:
        return datetime.min.replace(tzinfo=UTC)
    text = str(value)
    if text.isdecimal():
        return datetime.fromtimestamp(int(text) / (1000 if len(text) > 11 else 1), UTC)
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _place(document: dict[str, Any], path: str, value: Any) -> None:
    """Put a value at a dotted path."""
    *parents, last = path.split(".")
    for part in parents:
        document = document.setdefault(part, {})
    document[last] = value
