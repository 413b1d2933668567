# SPDX-License-Identifier: Apache-2.0
"""How the stand-in vendor answers a request: authorisation, limits, idempotency keys, faults."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import TYPE_CHECKING

from cdp_provider.testing.vendor.endpoints import (
    ApiError,
    Json,
    encode,
    find_route,
    list_customers,
    read_records,
)
from cdp_provider.testing.vendor.faults import Fault, Faults
from cdp_provider.testing.vendor.state import LoggedRequest, StoredAnswer, VendorState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class VendorOptions:
    """What the vendor demands and allows.

    :param crm_token: bearer token of everything under ``/crm``.
    :param mail_token: bearer token of everything under ``/mail``.
    :param throttle_every: every n-th read of the CRM is answered 429; None: none.
    :param fail_every: every n-th read of the CRM is answered 500; None: none.
    :param mail_rate: writes to the e-mail tool per fixed second; None: unlimited.
    :param crm_rate: batch writes to the CRM per fixed second; None: unlimited.
    """

    crm_token: str = "shop-crm-token"  # noqa: S105 - a known token of a test service
    mail_token: str = "shop-mail-token"  # noqa: S105 - a known token of a test service
    throttle_every: int | None = 13
    fail_every: int | None = 29
    mail_rate: int | None = 20
    crm_rate: int | None = 20


@dataclass(frozen=True, slots=True)
class Request:
    """A request off the wire; ``path`` is unquoted, without the query; header names are lower case."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Response:
    """An answer to send; ``status`` None asks for a reset of the connection instead, and ``torn`` for one
    in the middle of the body."""

    status: int | None
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    torn: bool = False


class FixedWindow:
    """Admits ``limit`` requests in each second of the clock, as vendors with fixed windows do."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._window = -1
        self._admitted = 0

    def admit(self) -> bool:
        """Count a request; False once the current second is full."""
        window = int(time.monotonic())
        if window != self._window:
            self._window, self._admitted = window, 0
        if self._limit is not None and self._admitted >= self._limit:
            return False
        self._admitted += 1
        return True


@dataclass(slots=True)
class _Outcome:
    """What is known of a request by the time it is logged."""

    status: int = HTTPStatus.OK
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    records: int = 0
    replayed: bool = False

    def respond(self) -> Response:
        return Response(self.status, self.body.encode(), self.headers)


class VendorApi:
    """The vendor without its sockets: a request in, a response out.

    :param wait: sleeps for the seconds of a delay; the server's one wakes up when the server stops.
    """

    def __init__(
        self, state: VendorState, options: VendorOptions, wait: Callable[[float], object] = time.sleep
    ) -> None:
        self.state = state
        self.faults = Faults()
        self._options = options
        self._wait = wait
        self._windows = {"mail": FixedWindow(options.mail_rate), "crm": FixedWindow(options.crm_rate)}

    def handle(self, request: Request) -> Response:
        """Apply a request in one transaction, log it, and return what the client shall get."""
        started = time.perf_counter()
        fault = self.faults.take(request.path) or Fault()
        if not fault.acts:
            self._wait(fault.delay)
        with self.state.transaction():
            outcome = _Outcome()
            if fault.acts or not fault.replaces_answer:
                self._answer(request, outcome)
            response = spoil(fault, outcome.respond())
            self.state.log_request(
                LoggedRequest(
                    method=request.method,
                    path=request.path,
                    query=request.query,
                    status=response.status,
                    records=outcome.records,
                    idempotency_key=request.headers.get("idempotency-key"),
                    replayed=outcome.replayed,
                    seconds=round(time.perf_counter() - started, 6),
                )
            )
        if fault.acts:
            self._wait(fault.delay)
        return response

    def _answer(self, request: Request, outcome: _Outcome) -> None:
        try:
            self._route(request, outcome)
        except ApiError as error:
            outcome.status = error.status
            outcome.body = encode({"error": {"code": error.code, "message": str(error)}})
            outcome.headers = error.headers

    def _route(self, request: Request, outcome: _Outcome) -> None:
        route = find_route(request.method, request.path)
        self._authorise(request, route.vendor)
        if request.method == "GET":
            self._trouble_reader(request)
            outcome.body = encode(list_customers(self.state, request.query))
            return
        if not self._windows[route.vendor].admit():
            raise ApiError(429, "rate_limited", "Too many requests in this second.", {"Retry-After": "1"})
        records = read_records(request.body, route)
        outcome.records = len(records)
        key = request.headers.get("idempotency-key")
        if key and (stored := self._stored(request, key)):
            outcome.status, outcome.body, outcome.replayed = stored.status, stored.body, True
            return
        outcome.status = route.status
        outcome.body = encode({"results": [route.apply(self.state, record) for record in records]})
        if key:
            answer = StoredAnswer(_text(request.body), outcome.status, outcome.body)
            self.state.store_answer(request.path, key, answer)

    def _authorise(self, request: Request, vendor: str) -> None:
        token = self._options.mail_token if vendor == "mail" else self._options.crm_token
        if request.headers.get("authorization") != f"Bearer {token}":
            message = "The bearer token is missing or not known."
            raise ApiError(401, "unauthorized", message, {"WWW-Authenticate": "Bearer"})

    def _trouble_reader(self, request: Request) -> None:
        number = self.state.count_requests("GET", request.path) + 1
        if self._options.throttle_every and number % self._options.throttle_every == 0:
            raise ApiError(429, "rate_limited", "Slow down.", {"Retry-After": "1"})
        if self._options.fail_every and number % self._options.fail_every == 0:
            raise ApiError(500, "internal_error", "Something went wrong, please try again.")

    def _stored(self, request: Request, key: str) -> StoredAnswer | None:
        stored = self.state.stored_answer(request.path, key)
        if stored and stored.request != _text(request.body):
            message = "This Idempotency-Key was used before, with another body."
            raise ApiError(409, "idempotency_conflict", message)
        return stored


def _text(body: bytes) -> str:
    return body.decode("utf-8", "backslashreplace")


def spoil(fault: Fault, response: Response) -> Response:
    """Return what the client gets in place of the proper response, if the fault says so."""
    if fault.cut:
        return Response(None)
    if fault.down:
        error: Json = {"error": {"code": "unavailable", "message": "No server is available."}}
        return Response(503, encode(error).encode(), fault.headers)
    if fault.status:
        error = {"error": {"code": "injected", "message": "An injected fault."}}
        return Response(fault.status, encode(error).encode(), fault.headers)
    if fault.malformed:
        return Response(200, (response.body or b'{"results": [')[:-1] + b"<", fault.headers)
    if fault.html:
        page = b"<!doctype html><title>Back soon</title>"
        return Response(200, page, {**fault.headers, "Content-Type": "text/html; charset=utf-8"})
    if fault.torn:
        return replace(response, torn=True)
    if fault.body_bytes:
        return Response(200, b'"' + b"x" * (fault.body_bytes - 2) + b'"', fault.headers)
    return response
