# SPDX-License-Identifier: Apache-2.0
"""Troubles that the stand-in vendor does not make, from a small server that does."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, ClassVar

import pytest

from cdp_provider.core.activation.delivery import Delivery, Patience, idempotency_key
from cdp_provider.core.activation.destinations import HttpDestination
from cdp_provider.core.activation.destinations.base import Record
from cdp_provider.core.activation.limiter import SqliteLimits, Throttle
from cdp_provider.core.exceptions import ConfigurationError, NotFoundError, UnavailableError
from cdp_provider.core.http import Endpoint, HttpClient
from tests.core.activation.scene import mail, newsletter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WINDOW_END = datetime(2026, 7, 2, tzinfo=UTC)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    behave: ClassVar[Callable[[list[str], int], tuple[int, object]]]
    seen: ClassVar[list[tuple[list[str], str]]]

    def do_POST(self) -> None:
        members = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["members"]
        keys = [member["email"] for member in members]
        self.seen.append((keys, self.headers["Idempotency-Key"]))
        status, answer = type(self).behave(keys, len(self.seen))
        body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if status in (301, 302):
            self.send_header("Location", "http://127.0.0.1:1/stolen")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Tests read what they need from `seen`."""


def taken(keys: list[str]) -> tuple[int, object]:
    return 200, {"results": [{"email": key, "status": "created"} for key in keys]}


def record(key: str, **changed) -> Record:
    given = {
        "record_key": key,
        "key": key,
        "fields": {"A": 1},
        "operation": "upsert",
        "payload_hash": "h",
        "attempts": 0,
        "intended": WINDOW_END,
    }
    return Record(**given | changed)


@pytest.fixture
def serve(tmp_path) -> Iterator[Callable]:
    """Returns a function: behaviour -> a delivery to a server that behaves so, and what it saw."""
    opened = []

    def make(behave):
        handler = type("Handler", (_Handler,), {"behave": staticmethod(behave), "seen": []})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        store = SqliteLimits(tmp_path / "limits.sqlite")
        client = HttpClient(Endpoint(f"http://127.0.0.1:{server.server_port}", timeout=2), max_body=10_000)
        opened.append((client, server, thread, store))
        patience = Patience(max_wait=5, throttles=3, tries=3, pause=0.01)
        kind = HttpDestination(mail(), newsletter())
        return Delivery(kind, client, Throttle(store, "a", 0.0001, 5), patience), handler.seen

    yield make
    for client, server, thread, store in opened:
        client.close()
        server.shutdown()
        thread.join()
        server.server_close()
        store.close()


@pytest.mark.parametrize("poison", [{0}, {36}, {99}, {3, 4}, {0, 50, 99}])
def test_halving_finds_every_culprit_and_delivers_the_rest(serve, poison):
    bad = {f"{n:03}" for n in poison}
    delivery, seen = serve(lambda keys, _: (422, {"why": "no"}) if bad & set(keys) else taken(keys))
    batch = [record(f"{n:03}") for n in range(100)]
    results = []
    delivery.deliver(batch, results)
    assert [r.record.record_key for r in results] == [r.record_key for r in batch]
    assert {r.record.record_key for r in results if r.outcome.state == "rejected"} == bad
    assert all('answered 422: {"why": "no"}' == r.outcome.reason for r in results if not r.outcome.taken)
    assert len(seen) <= 1 + 2 * 7 * len(bad)
    assert len({key for _, key in seen}) == len(seen), "each part has a key of its own"


def test_the_same_request_keeps_its_key_over_tries(serve):
    delivery, seen = serve(lambda keys, number: (503, {}) if number < 3 else taken(keys))
    delivery.deliver([record("a")], [])
    assert len(seen) == 3
    assert len({key for _, key in seen}) == 1


@pytest.mark.parametrize(
    "answer",
    [b"<html>", b"", b"{}", b'{"results": 5}', b'"' + b"x" * 20_000 + b'"'],
    ids=["html", "empty", "no list", "a number", "huge"],
)
def test_unreadable_answers_are_tried_again_then_ambiguous(serve, answer):
    delivery, seen = serve(lambda *_: (200, answer))
    results = []
    with pytest.raises(UnavailableError, match="tried 3 times"):
        delivery.deliver([record("a"), record("b")], results)
    assert len(seen) == 3
    assert [r.outcome.state for r in results] == ["ambiguous"] * 2


def test_a_record_without_an_answer_is_retryable(serve):
    delivery, _ = serve(lambda keys, _: taken(keys[:1]))
    results = []
    delivery.deliver([record("a"), record("b")], results)
    assert [(r.outcome.state, r.outcome.reason) for r in results] == [
        ("accepted", None),
        ("retryable", "no answer for this record"),
    ]


def test_answers_in_the_vendors_spelling_and_order_find_their_records(serve):
    delivery, _ = serve(lambda keys, _: taken([key.lower() for key in reversed(keys)]))
    results = []
    delivery.deliver([record("Ada@X.org"), record("bob@X.org")], results)
    assert [r.outcome.state for r in results] == ["accepted"] * 2


@pytest.mark.parametrize(
    ("status", "error", "says"),
    [
        (302, ConfigurationError, "redirects are not followed"),
        (404, NotFoundError, "check the path"),
        (405, ConfigurationError, "405"),
    ],
)
def test_wrong_addresses_fail_at_once(serve, status, error, says):
    delivery, seen = serve(lambda *_: (status, {}))
    with pytest.raises(error, match=says):
        delivery.deliver([record("a"), record("b")], [])
    assert len(seen) == 1


def test_key_changes_with_everything_that_makes_it_another_request():
    base = [record("a"), record("b")]
    others = [
        [record("b"), record("a")],
        [record("a")],
        [record("a"), record("b", payload_hash="x")],
        [record("a"), record("b", attempts=1)],
        [record("a", operation="remove"), record("b", operation="remove")],
        [record("a", intended=datetime(2026, 7, 3, tzinfo=UTC)), record("b")],
    ]
    keys = {idempotency_key("s", batch) for batch in [base, *others]} | {idempotency_key("t", base)}
    assert len(keys) == 8
    assert idempotency_key("s", base) == idempotency_key("s", [record("a"), record("b")])


def test_a_record_shows_neither_key_nor_fields():
    assert "secret" not in repr(record("secret", fields={"A": "secret"}))
