# SPDX-License-Identifier: Apache-2.0
"""Stand-ins for vendors over real HTTP: what a vendor remembers is written by whoever knows it; the server,
its troubles and its log are here."""

from __future__ import annotations

import json
import threading
from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qsl

from cdp_provider.testing.vendor.api import Response, spoil
from cdp_provider.testing.vendor.faults import Fault, Faults
from cdp_provider.testing.vendor.server import LoopbackServer

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from cdp_provider.testing.vendor.api import Request


@dataclass(frozen=True)
class FakeRequest:
    """A request as a fake vendor sees it.

    :param path: unquoted, without the query.
    :param headers: by lower-case name.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON; ValueError if it is something else."""
        return json.loads(self.body)


@dataclass(frozen=True)
class FakeAnswer:
    """What a fake vendor answers.

    :param body: bytes as they are, None as an empty body, anything else as JSON.
    :param headers: ``Content-Type`` is ``application/json`` unless it stands here.
    """

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


class FakeService(ABC):
    """Whatever answers requests; the base of vendors to write to and of APIs to read from."""

    @abstractmethod
    def answer(self, request: FakeRequest) -> FakeAnswer:
        """Apply a request and answer it; one at a time, under a lock."""


class FakeVendor(FakeService):
    """A vendor that remembers. A subclass with an ``__init__`` of its own calls this one's.

    :ivar refuses: keys of the records that it refuses, each with the reason ``refused``.
    :ivar applied: how often a write was applied to each key.
    """

    def __init__(self) -> None:
        self.refuses: set[str] = set()
        self.applied: Counter[str] = Counter()

    @abstractmethod
    def holds(self) -> dict[str, dict[str, Any]]:
        """Key -> fields as the vendor has them now; an audience's members have no fields."""


class FakeServer:
    """A fake service that listens on 127.0.0.1 inside a ``with`` statement.

    An exception that the service raises is raised again at the end of the statement.
    """

    def __init__(self, vendor: FakeService) -> None:
        self.vendor = vendor
        self.requests: list[tuple[str, str, int | None]] = []
        self._faults = Faults()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._error: Exception | None = None
        self._server = LoopbackServer(0, self._answer)

    @property
    def url(self) -> str:
        """The address to send requests to, without a trailing slash."""
        return self._server.url

    def inject(self, path_prefix: str = "/", **fault: Any) -> Fault:
        """Order a trouble for the next requests under a path; see :class:`Fault` for the keywords."""
        ordered = Fault(path_prefix=path_prefix, **fault)
        self._faults.add(ordered)
        return ordered

    def clear_faults(self) -> None:
        """Forget all troubles that are still to come."""
        self._faults.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._server.close()
        if self._error is not None and kind is None:
            raise self._error

    def _answer(self, request: Request) -> Response:
        fault = self._faults.take(request.path) or Fault()
        if not fault.acts:
            self._stopping.wait(fault.delay)
        with self._lock:
            answer = Response(200)
            if fault.acts or not fault.replaces_answer:
                answer = self._proper_answer(request)
            response = spoil(fault, answer)
            self.requests.append((request.method, request.path, response.status))
        if fault.acts:
            self._stopping.wait(fault.delay)
        return response

    def _proper_answer(self, request: Request) -> Response:
        query = dict(parse_qsl(request.query, keep_blank_values=True))
        given = FakeRequest(request.method, request.path, query, request.headers, request.body)
        try:
            answer = self.vendor.answer(given)
            return Response(answer.status, _bytes(answer.body), answer.headers)
        except Exception as error:  # noqa: BLE001 - raised again by __exit__, in the thread of the test
            self._error = self._error or error
            return Response(500, b'{"error": "the fake vendor failed"}')


def _bytes(body: Any) -> bytes:
    if body is None or isinstance(body, bytes):
        return body or b""
    return json.dumps(body).encode()
