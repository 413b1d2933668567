# SPDX-License-Identifier: Apache-2.0
"""Troubles that the stand-in vendor does not make, from a small server that does."""

from __future__ import annotations

import json
import threading
import time
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, ClassVar

import pytest

from cdp_provider.core.activation.batches import idempotency_key
from cdp_provider.core.activation.delivery import Patience, StoppedError, deliver
from cdp_provider.core.activation.destinations.base import Record, Result
from cdp_provider.core.activation.destinations.http import HttpDestination
from cdp_provider.core.exceptions import ConfigurationError, NotFoundError, UnavailableError
from cdp_provider.core.http import Endpoint
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
        "profile_id": 1,
        "fields": {"A": 1},
        "operation": "upsert",
        "payload_hash": "h",
        "attempts": 0,
        "intended": WINDOW_END,
    }
    return Record(**given | changed)


class Delivery:
    """A destination that behaves as it is told, and what became of the records."""

    def __init__(self, url: str, batch: int) -> None:
        self._target = Endpoint(url, timeout=2)
        self._kind = HttpDestination(mail(batch=batch), newsletter())
        self.results: list[Result] = []

    def deliver(self, records: list[Record], **given) -> int:
        patience = Patience(max_wait=5, throttles=3, tries=3, pause=0.01)
        return deliver(
            self._kind, self._target, [records], write=self.results.extend, patience=patience, **given
        )

    @property
    def states(self) -> list[str]:
        return [result.outcome.state for result in self.results]


@pytest.fixture
def serve() -> Iterator[Callable]:
    """Returns a function: behaviour -> a delivery to a server that behaves so, and what it saw."""
    opened = []

    def make(behave, batch=100):
        handler = type("Handler", (_Handler,), {"behave": staticmethod(behave), "seen": []})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        opened.append((server, thread))
        return Delivery(f"http://127.0.0.1:{server.server_port}", batch), handler.seen

    yield make
    for server, thread in opened:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("poison", [{0}, {36}, {99}, {3, 4}, {0, 50, 99}])
def test_halving_finds_every_culprit_and_delivers_the_rest(serve, poison):
    bad = {f"{n:03}" for n in poison}
    delivery, seen = serve(lambda keys, _: (422, {"why": "no"}) if bad & set(keys) else taken(keys))
    batch = [record(f"{n:03}", place=n) for n in range(100)]
    delivery.deliver(batch)
    results = delivery.results
    assert [r.record.record_key for r in results] == [r.record_key for r in batch]
    assert {r.record.record_key for r in results if r.outcome.state == "rejected"} == bad
    assert all(
        'answered 422: {"why": "no"}' == r.outcome.reason for r in results if r.outcome.state == "rejected"
    )
    assert len(seen) <= 1 + 2 * 7 * len(bad)
    assert len({key for _, key in seen}) == len(seen), "each part has a key of its own"


def test_the_same_request_keeps_its_key_over_tries(serve):
    delivery, seen = serve(lambda keys, number: (503, {}) if number < 3 else taken(keys))
    delivery.deliver([record("a")])
    assert len(seen) == 3
    assert len({key for _, key in seen}) == 1


@pytest.mark.parametrize(
    "answer",
    [b"<html>", b"", b"{}", b'{"results": 5}', b'"' + b"x" * 17_000_000 + b'"'],
    ids=["html", "empty", "no list", "a number", "huge"],
)
def test_unreadable_answers_are_tried_again_then_ambiguous(serve, answer):
    delivery, seen = serve(lambda *_: (200, answer))
    with pytest.raises(UnavailableError, match="tried 3 times"):
        delivery.deliver([record("a"), record("b", place=1)])
    assert len(seen) == 3
    assert delivery.states == ["ambiguous"] * 2


def test_a_record_without_an_answer_is_retryable(serve):
    delivery, _ = serve(lambda keys, _: taken(keys[:1]))
    delivery.deliver([record("a"), record("b", place=1)])
    assert [(r.outcome.state, r.outcome.reason) for r in delivery.results] == [
        ("accepted", None),
        ("retryable", "no answer for this record"),
    ]


def test_answers_in_the_vendors_spelling_and_order_find_their_records(serve):
    delivery, _ = serve(lambda keys, _: taken([key.lower() for key in reversed(keys)]))
    delivery.deliver([record("Ada@X.org"), record("bob@X.org", place=1)])
    assert delivery.states == ["accepted"] * 2


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
        delivery.deliver([record("a"), record("b", place=1)])
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


def test_a_batch_ends_with_window_operation_size_and_gaps(serve):
    later = datetime(2026, 7, 3, tzinfo=UTC)
    delivery, seen = serve(lambda keys, _: taken(keys), batch=3)
    records = [record(f"{place}", place=place) for place in (0, 1, 2, 3, 5, 6)]
    records += [record("7", place=7, intended=later), record("8", place=8, intended=later)]
    delivery.deliver(records)
    sent = sorted((keys for keys, _ in seen), key=lambda keys: int(keys[0]))
    assert sent == [["0", "1", "2"], ["3"], ["5"], ["6"], ["7", "8"]]


def test_what_a_killed_task_left_makes_the_same_requests(serve):
    delivery, seen = serve(lambda keys, _: taken(keys), batch=4)
    records = [record(f"{place}", place=place) for place in range(12)]
    delivery.deliver(records)
    whole = {key for _, key in seen}
    seen.clear()
    delivery.deliver(records[4:])
    assert len(seen) == 2
    assert {key for _, key in seen} < whole


def test_bytes_end_a_batch_and_a_record_that_is_too_large_is_invalid(serve):
    delivery, seen = serve(lambda keys, _: taken(keys))
    delivery._kind = HttpDestination(mail(max_bytes=3_000), newsletter())
    records = [record(f"{place}", place=place, fields={"A": "x" * 900}) for place in range(4)]
    records.append(record("4", place=4, fields={"A": "x" * 5_000}))
    delivery.deliver(records)
    assert sorted(len(keys) for keys, _ in seen) == [2, 2]
    invalid = [r for r in delivery.results if r.outcome.state == "invalid"]
    assert [r.record.record_key for r in invalid] == ["4"]
    assert "the destination takes" in invalid[0].outcome.reason


def test_requests_are_on_their_way_at_the_same_time(serve):
    together = threading.Barrier(4, timeout=5)
    delivery, seen = serve(lambda keys, _: (together.wait(), taken(keys))[1], batch=1)
    delivery.deliver([record(f"{place}", place=place) for place in range(4)])
    assert delivery.states == ["accepted"] * 4


def test_events_of_one_profile_keep_their_order(serve):
    def behave(keys, _):
        time.sleep(0.05 if keys[0].startswith("slow") else 0)
        done.append(keys[0])
        return taken(keys)

    done: list[str] = []
    delivery, _ = serve(behave, batch=1)
    events = [("slow 1", 1), ("other", 2), ("then 1", 1)]
    delivery._kind = HttpDestination(
        mail(batch=1, event={"path": "/events", "body": "members"}), newsletter()
    )
    delivery.deliver([record(k, place=n, profile_id=p, operation="event") for n, (k, p) in enumerate(events)])
    assert done.index("slow 1") < done.index("then 1")


def test_a_probe_that_fails_sends_nothing_else(serve):
    delivery, seen = serve(lambda *_: (503, {}), batch=1)
    with pytest.raises(UnavailableError):
        delivery.deliver([record(f"{place}", place=place) for place in range(5)], probe=True)
    assert len(seen) == 1


def test_told_to_stop_it_keeps_the_answers_it_waited_for(serve):
    stop = threading.Event()

    def behave(keys, _):
        stop.set()
        time.sleep(0.3)
        return taken(keys)

    delivery, seen = serve(behave, batch=1)
    with pytest.raises(StoppedError):
        delivery.deliver([record(f"{place}", place=place) for place in range(200)], stop=stop)
    assert len(seen) < 200
    assert delivery.states == ["accepted"] * len(seen)
