# SPDX-License-Identifier: Apache-2.0
"""The stand-in vendor as an HTTP/1.1 server on the loopback interface."""

from __future__ import annotations

import json
import socket
import struct
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast
from urllib.parse import unquote, urlsplit

from cdp_provider.testing.vendor.api import Request, Response, VendorApi, VendorOptions
from cdp_provider.testing.vendor.control import handle
from cdp_provider.testing.vendor.endpoints import encode
from cdp_provider.testing.vendor.faults import Fault
from cdp_provider.testing.vendor.state import Applied, LoggedRequest, VendorState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType

MAX_BODY_BYTES = 10_000_000


class VendorServer:
    """A CRM and an e-mail tool that listen on 127.0.0.1 from construction to :meth:`close`.

    :param state: SQLite file that outlives the server; ``:memory:`` forgets.
    :param port: TCP port; 0 takes a free one, see :attr:`url`.
    :param customers: customers of the CRM source, each with ``customer_id`` and ``updated_at`` (ISO 8601).
    :param data: folder of :mod:`cdp_provider.testing.shop`, whose customers the CRM then holds.
    :param options: tokens, rates and troubles as in :class:`VendorOptions`, for example ``fail_every=None``.
    :raises FileNotFoundError: ``data`` holds no ``crm/customers.ndjson``.
    :raises OSError: the port is taken.
    """

    def __init__(
        self,
        state: str | Path = ":memory:",
        port: int = 0,
        *,
        customers: Iterable[Mapping[str, Any]] = (),
        data: str | Path | None = None,
        **options: Any,
    ) -> None:
        settings = VendorOptions(**options)
        self._state = VendorState(state)
        self._stopping = threading.Event()
        self._api = VendorApi(self._state, settings, self._stopping.wait)
        try:
            self.put_customers(customers)
            if data is not None:
                self.put_customers(_read_customers(Path(data)))
            self._server = LoopbackServer(port, self._answer)
        except BaseException:
            self._state.close()
            raise

    @property
    def url(self) -> str:
        """The address to send requests to, without a trailing slash."""
        return self._server.url

    def close(self) -> None:
        """Stop: running requests are finished, delays cut short, idle connections closed."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._server.close()
        self._state.close()

    def _answer(self, request: Request) -> Response:
        return handle(self._api, request) if request.path.startswith("/_/") else self._api.handle(request)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def put_customers(self, customers: Iterable[Mapping[str, Any]]) -> None:
        """Insert or replace customers of the CRM source."""
        self._state.put_customers(customers)

    def contacts(self, list_name: str) -> dict[str, dict[str, Any]]:
        """Return the members of a list: their fields by e-mail address (lower case)."""
        return self._state.contacts(list_name)

    def customers(self) -> dict[str, dict[str, Any]]:
        """Return the written fields of each customer that was written back at least once, by customer id."""
        return self._state.written_customers()

    def requests(self, path_prefix: str | None = None) -> list[LoggedRequest]:
        """Return the requests under a path, oldest first; those under ``/_/`` are not logged."""
        return self._state.requests(path_prefix)

    def applied(self, key: str | None = None) -> list[Applied]:
        """Return how often each write was applied to a record (or, without a key, to every record)."""
        return self._state.applied(key)

    def doubled(self) -> list[Applied]:
        """Return the writes that a record received twice in a row: empty if nothing was delivered twice."""
        return self._state.doubled()

    def inject(self, path_prefix: str = "/", **fault: Any) -> Fault:
        """Order a trouble for the next requests under a path; see :class:`Fault` for the keywords."""
        ordered = Fault(path_prefix=path_prefix, **fault)
        self._api.faults.add(ordered)
        return ordered

    def clear_faults(self) -> None:
        """Forget all troubles that are still to come."""
        self._api.faults.clear()


def _read_customers(data: Path) -> list[dict[str, Any]]:
    path = data / "crm" / "customers.ndjson"
    if not path.is_file():
        msg = f"{path} does not exist: write it with `python -m cdp_provider.testing.shop {data}`."
        raise FileNotFoundError(msg)
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


class LoopbackServer(ThreadingHTTPServer):
    """Serves on 127.0.0.1, in threads of its own, from construction to :meth:`close`.

    :param port: TCP port; 0 takes a free one.
    :param answer: what to answer a request; called in many threads at once.
    :raises OSError: the port is taken.
    """

    # server_close() joins the threads of open connections, so none outlives the state it writes to.
    daemon_threads = False
    request_queue_size = 128

    def __init__(self, port: int, answer: Callable[[Request], Response]) -> None:
        self.answer = answer
        self._connections: set[socket.socket] = set()
        self._cut: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), _Handler)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,), name="loopback")
        self._thread.start()

    @property
    def url(self) -> str:
        """The address to send requests to, without a trailing slash."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def close(self) -> None:
        """Stop: running requests are finished, idle connections closed."""
        self.shutdown()
        self._thread.join()
        self.server_close()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        if request in self._cut:
            # An orderly shutdown would send FIN before the reset.
            self._cut.discard(request)
            self.close_request(request)
        else:
            super().shutdown_request(request)

    def server_close(self) -> None:
        for connection in list(self._connections):
            try:
                connection.shutdown(socket.SHUT_RD)
            except OSError:
                self._connections.discard(connection)  # the client was faster
        super().server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print the trace of a fault of ours; a client that hung up or was killed is none."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def reset_on_close(self, connection: socket.socket) -> None:
        """Make the closing of this connection a reset (RST) instead of an orderly end."""
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._cut.add(connection)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "cdp-vendor"
    sys_version = ""
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """Answer a request of any method: who answers decides which ones a path takes."""
        parts = urlsplit(self.path)
        body = self._read_body()
        if body is None:
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, unquote(parts.path), parts.query, headers, body)
        self._send(cast("LoopbackServer", self.server).answer(request))

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    def _read_body(self) -> bytes | None:
        """Return the body; None if its end cannot be told, is too far away or never came."""
        length = self.headers.get("Content-Length", "0")
        if "Transfer-Encoding" in self.headers or not length.isdecimal():
            self.send_error(411, "A body needs a Content-Length")
            return None
        if int(length) > MAX_BODY_BYTES:
            self.send_error(413, f"A body may have {MAX_BODY_BYTES} bytes")
            return None
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            self.close_connection = True  # the client died while it was sending
            return None
        return body

    def _send(self, response: Response) -> None:
        if response.status is None:
            cast("LoopbackServer", self.server).reset_on_close(self.connection)
            self.close_connection = True
            return
        self.send_response_only(response.status)
        self.send_header("Content-Length", str(len(response.body)))
        usual = {"Date": self.date_time_string(), "Content-Type": "application/json"}
        for name, value in {**usual, **response.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if response.torn:
            self.close_connection = True
        self.wfile.write(response.body[: len(response.body) // 2] if response.torn else response.body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer what the server itself refuses, in JSON too, and end the connection."""
        error = {
            "error": {"code": "bad_request", "message": message or explain or "The request is malformed."}
        }
        self.close_connection = True
        self._send(Response(code, encode(error).encode(), {"Connection": "close"}))

    def log_message(self, format: str, *args: object) -> None:
        """Write nothing: the request log is in the state, and paths may hold personal data."""
