# SPDX-License-Identifier: Apache-2.0
"""A real HTTP server whose answers a test writes down one by one."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qsl, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass
class Asked:
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes = b""
    #: The query as it came, a name more than once included.
    pairs: list[tuple[str, str]] = field(default_factory=list)
    at: float = field(default_factory=time.monotonic)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Answer:
    """:param cut: send this many bytes of the body, then hang up."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None

    def bytes(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


class Service:
    """Answers the n-th request with the n-th answer, or every one with what a function says.

    :param answers: a list, or ``Asked -> Answer``.
    """

    def __init__(self, answers: list[Answer] | Callable[[Asked], Answer]) -> None:
        self.asked: list[Asked] = []
        self.connections: set[Any] = set()
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Head and body go out as one; else the other side's delayed acknowledgement costs 40 ms.
            wbufsize = 1 << 20

            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                pairs = parse_qsl(parts.query)
                asked = Asked(parts.path, dict(pairs), dict(self.headers.items()), body, pairs)
                service.asked.append(asked)
                service.connections.add(self.client_address)
                self.reply(answers(asked) if callable(answers) else answers[len(service.asked) - 1])

            do_POST = do_GET

            def reply(self, answer: Answer) -> None:
                body = answer.bytes()
                self.send_response_only(answer.status)
                for name, value in {"Content-Type": "application/json", **answer.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: answer.cut])
                self.close_connection = answer.cut is not None

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
