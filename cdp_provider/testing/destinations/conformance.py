# SPDX-License-Identifier: Apache-2.0
"""What every destination has to do right, as a class of tests to subclass.

The tests drive the real delivery against a :class:`FakeVendor` over HTTP. A vendor whose shape makes a test
impossible overrides that test, and says why.
"""
# ruff: noqa: S101 - a class of tests asserts

from __future__ import annotations

import hashlib
import logging
import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from email.utils import formatdate
from itertools import product
from typing import TYPE_CHECKING, Any, ClassVar
from unittest import SkipTest
from urllib.parse import unquote

from cdp_provider.core.activation.batches import batch_size
from cdp_provider.core.activation.delivery import Patience, deliver
from cdp_provider.core.activation.destinations.base import Operation, Outcome, Record
from cdp_provider.core.exceptions import (
    CdpError,
    ConfigurationError,
    DeliveryError,
    RateLimitedError,
    UnavailableError,
)
from cdp_provider.core.http import Endpoint
from cdp_provider.core.project.activation import Destination, Sync
from cdp_provider.testing.destinations.fake import FakeAnswer, FakeRequest, FakeServer, FakeVendor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import pytest

    from cdp_provider.core.activation.destinations.base import Capabilities, DestinationKind, Result

TOKEN = "conformance-token"  # noqa: S105 - no vendor knows it
_QUICK = Patience(max_wait=5, throttles=5, tries=4, pause=0.01, refusals=3)
_INTENDED = datetime(2026, 7, 1, tzinfo=UTC)
#: Seconds until an answer counts as lost, where a test loses one.
_SHORT = 0.2
_MODES: dict[str, Operation] = {"insert": "insert", "update": "update", "event": "event"}


@dataclass
class Delivered:
    """What one delivery came to.

    :ivar outcomes: the last one of each record, by record key.
    :ivar error: what ended the delivery early.
    """

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    error: CdpError | None = None
    seconds: float = 0.0

    @property
    def states(self) -> list[str]:
        """The records' states, in the order of the records' keys."""
        return [outcome.state for _, outcome in sorted(self.outcomes.items())]

    def write(self, results: Sequence[Result]) -> None:
        """What delivery is given as its ledger."""
        self.outcomes |= {result.record.record_key: result.outcome for result in results}


class DestinationConformance:
    """Subclass it as ``TestSomething``, in a file that pytest collects.

    :cvar kind: the destination's class.
    :cvar options: its options, as a project file says them.
    :cvar sync: keys of :class:`~cdp_provider.core.project.activation.Sync` that matter to it: ``fields``,
        ``mode``, ``parameters``.
    :cvar whole_batch_status: with which the vendor refuses a batch as a whole.
    """

    kind: ClassVar[type[DestinationKind]]
    options: ClassVar[dict[str, Any]] = {}
    sync: ClassVar[dict[str, Any]] = {}
    whole_batch_status: ClassVar[int] = 400

    # What a subclass says of its vendor

    def vendor(self) -> FakeVendor:
        """A new fake that knows nobody."""
        raise NotImplementedError

    def key(self, n: int) -> str | int:
        """The n-th key, as it is sent."""
        return f"person{n:05}@example.com"

    def known_as(self, n: int) -> str:
        """What the fake calls the n-th record in ``refuses``, ``applied`` and ``holds``."""
        return str(self.key(n))

    def fields(self, n: int) -> dict[str, Any]:
        """What is sent of the n-th record, by the vendor's fields."""
        return {name: f"value {n}" for name in self.declared().fields}

    def held(self, n: int) -> dict[str, Any]:
        """What of it the vendor then holds, at least."""
        return {} if self.operation == "event" else self.fields(n)

    def carries(self, request: FakeRequest, n: int) -> bool:
        """Whether a request is about the n-th record."""
        key = str(self.key(n)).encode()
        names = (key, hashlib.sha256(key).hexdigest().encode(), self.known_as(n).encode())
        return any(name in request.body or name in request.path.encode() for name in names)

    # What tests are made of

    @property
    def operation(self) -> Operation:
        """What the sync's mode does with a record that is new."""
        return _MODES.get(self.declared().mode, "upsert")

    def declared(self, **changed: Any) -> Sync:
        """The sync of all tests."""
        given = {"name": "conformance", "segment": "everyone", "destination": "vendor", "key": "email"}
        return Sync.model_validate({**given, **self.sync, **changed})

    def made(self, *, sync: dict[str, Any] | None = None, **destination: Any) -> DestinationKind:
        """The kind, for a destination without limits of its own."""
        given = {
            "name": "vendor",
            "type": "conformance",
            "connection": "vendor",
            "rate": {"requests": 100_000, "per": "1 second"},
            "options": self.kind.options.model_validate(self.options),
        }
        return self.kind(Destination.model_validate(given | destination), self.declared(**sync or {}))

    @property
    def capabilities(self) -> Capabilities:
        """What the destination can do."""
        return self.made().capabilities

    def record(self, n: int, operation: Operation | None = None, **changed: Any) -> Record:
        """The n-th record; `changed` are attributes of :class:`Record`."""
        operation = operation or self.operation
        fields = self.fields(n) if operation not in ("remove", "archive") else {}
        made = Record(
            record_key=f"{self.key(n)}",
            key=self.key(n),
            profile_id=n,
            fields=fields,
            operation=operation,
            payload_hash=hashlib.sha256(repr((operation, fields)).encode()).hexdigest(),
            attempts=0,
            intended=_INTENDED,
            time=_INTENDED if operation == "event" else None,
        )
        return replace(made, **changed)

    def records(self, count: int, operation: Operation | None = None) -> list[Record]:
        """The records 0 to `count`."""
        return [self.record(n, operation) for n in range(count)]

    def deliver(
        self,
        server: FakeServer,
        records: Sequence[Record],
        *,
        kind: DestinationKind | None = None,
        timeout: float = 10.0,
        **options: Any,
    ) -> Delivered:
        """One delivery of all records."""
        delivered = Delivered()
        target = Endpoint(server.url, headers=self.kind.auth.headers(TOKEN), timeout=timeout)
        chunk = [replace(record, place=place) for place, record in enumerate(records)]
        started = time.monotonic()
        try:
            deliver(
                kind or self.made(),
                target,
                [chunk],
                write=delivered.write,
                **{"patience": _QUICK, **options},
            )
        except CdpError as error:
            delivered.error = error
        delivered.seconds = time.monotonic() - started
        return delivered

    @contextmanager
    def serving(self) -> Iterator[tuple[Seen, FakeServer]]:
        """A new vendor that notes what it is asked."""
        seen = Seen(self.vendor())
        with FakeServer(seen) as server:
            yield seen, server

    def needs(self, *operations: Operation) -> None:
        """Skip a test of what the destination does not offer."""
        missing = [name for name in operations if name not in self.capabilities.operations]
        if missing:
            msg = f"the destination offers no {' and no '.join(missing)}"
            raise SkipTest(msg)

    def steps(self) -> int:
        """How many requests bring three records."""
        with self.serving() as (_, server):
            assert self.deliver(server, self.records(3)).error is None
            return len(server.requests)

    def is_held(self, seen: FakeVendor, count: int) -> None:
        """The vendor holds the records 0 to `count`, and what was sent of them."""
        holds = seen.holds()
        for n in range(count):
            assert self.known_as(n) in holds
            assert self.held(n).items() <= holds[self.known_as(n)].items()

    # The tests

    def test_everything_is_accepted_once(self) -> None:
        with self.serving() as (seen, server):
            delivered = self.deliver(server, self.records(7))
            assert delivered.error is None
            assert delivered.states == ["accepted"] * 7
            assert all(200 <= (outcome.status or 0) < 300 for outcome in delivered.outcomes.values())
            self.is_held(seen, 7)
            assert seen.applied == dict.fromkeys(map(self.known_as, range(7)), 1)

    def test_what_was_rejected_is_told_apart_with_its_reason(self) -> None:
        with self.serving() as (seen, server):
            seen.refuses.add(self.known_as(1))
            delivered = self.deliver(server, self.records(4))
            assert delivered.error is None
            assert delivered.states == ["accepted", "rejected", "accepted", "accepted"]
            assert "refused" in (delivered.outcomes[str(self.key(1))].reason or "").lower()
            assert self.known_as(1) not in seen.holds()
            assert self.known_as(1) not in seen.applied

    def test_a_refused_batch_is_halved_to_the_culprit(self) -> None:
        with self.serving() as (seen, server):
            seen.poison = lambda request: self.carries(request, 2)
            seen.poisoned = FakeAnswer(self.whole_batch_status, {"error": "refused"})
            delivered = self.deliver(server, self.records(5))
            assert delivered.error is None
            assert delivered.states == ["accepted", "accepted", "rejected", "accepted", "accepted"]
            culprit = delivered.outcomes[str(self.key(2))]
            assert culprit.reason
            assert culprit.status == self.whole_batch_status
            assert self.known_as(2) not in seen.holds()

    def test_a_destination_that_refuses_everybody_ends_the_delivery(self) -> None:
        with self.serving() as (seen, server):
            seen.poison = lambda request: any(self.carries(request, n) for n in range(4))
            seen.poisoned = FakeAnswer(self.whole_batch_status, {"error": "refused"})
            delivered = self.deliver(server, self.records(4), proven=False)
            assert delivered.states == ["rejected"] * 4
            if batch_size(self.made()) > 1:
                assert isinstance(delivered.error, DeliveryError)

    def test_no_request_is_larger_than_allowed(self) -> None:
        with self.serving() as (seen, server):
            delivered = self.deliver(server, self.records(7), kind=self.made(batch=3))
            assert delivered.states == ["accepted"] * 7
            assert max(sum(self.carries(request, n) for n in range(7)) for request in seen.got) <= 3
            assert seen.applied == dict.fromkeys(map(self.known_as, range(7)), 1)
        size = 2_000
        with self.serving() as (seen, server):
            delivered = self.deliver(server, self.records(40), kind=self.made(batch_size=size))
            assert delivered.states == ["accepted"] * 40
            assert max(len(request.body) for request in seen.got) <= size

    def test_a_record_that_is_too_large_is_never_sent(self) -> None:
        most = self.capabilities.max_record_bytes
        fields = self.fields(1)
        if most is None or not fields:
            msg = "the destination limits no record's size, or takes no fields"
            raise SkipTest(msg)
        large = {name: "x" * most for name in fields}
        with self.serving() as (seen, server):
            records = [self.record(0), self.record(1, fields=large), self.record(2)]
            assert self.deliver(server, records).states == ["accepted", "invalid", "accepted"]
            assert not any(self.carries(request, 1) for request in seen.got)

    def test_a_429_is_waited_for_as_it_says(self) -> None:
        names = self.kind.rate_headers
        now = time.time()
        dialects = {
            "seconds": {names.retry_after: "0.2"},
            "date": {names.retry_after: formatdate(now, usegmt=True)},
        }
        if names.remaining and names.reset:
            reset = str(int(now)) if names.reset_is == "epoch" else "0.2"
            dialects["reset"] = {names.retry_after: "0.2", names.remaining: "0", names.reset: reset}
        with self.serving() as (_, server):
            usual = self.deliver(server, self.records(3)).seconds
        for dialect, headers in dialects.items():
            with self.serving() as (seen, server):
                server.inject(status=429, headers=headers)
                delivered = self.deliver(server, self.records(3))
                assert delivered.error is None, dialect
                assert delivered.states == ["accepted"] * 3, dialect
                assert set(seen.applied.values()) == {1}, dialect
                least = 0.0 if dialect == "date" else 0.2
                # What cannot be read is waited for a second.
                assert least <= delivered.seconds < usual + 0.9, dialect

    def test_a_429_for_longer_than_a_worker_waits_is_raised(self) -> None:
        with self.serving() as (seen, server):
            server.inject(status=429, headers={self.kind.rate_headers.retry_after: "600"}, times=None)
            delivered = self.deliver(server, self.records(3))
            assert isinstance(delivered.error, RateLimitedError)
            assert 500 < (delivered.error.retry_after or 0) <= 600
            assert not {"accepted", "rejected", "ambiguous"} & set(delivered.states)
            assert not seen.applied

    def test_trouble_before_the_vendor_acted(self) -> None:
        """Nothing was applied, and no client can know."""
        self.bears(
            {"cut": True}, {"down": True}, {"status": 500}, {"down": True, "delay": 2 * _SHORT}, acts=False
        )

    def test_trouble_after_the_vendor_acted(self) -> None:
        """Everything was applied, and no client can know."""
        self.bears({"cut": True}, {"down": True}, {"delay": 2 * _SHORT}, acts=True)

    def test_an_answer_that_cannot_be_read(self) -> None:
        """Broken JSON, or far too much of it."""
        self.bears({"malformed": True}, {"body_bytes": 17_000_000}, acts=True)

    def bears(self, *troubles: dict[str, Any], acts: bool) -> None:
        """Each trouble, once in each of the requests of a delivery: it is delivered in the end, or left
        ambiguous where the destination may not be told twice."""
        steps = self.steps()
        for trouble, step in product(troubles, range(steps)):
            with self.serving() as (seen, server):
                server.inject(after=step, acts=acts, **trouble)
                timeout = _SHORT if "delay" in trouble else 10.0
                delivered = self.deliver(server, self.records(3), timeout=timeout)
                if self.capabilities.repeatable:
                    assert delivered.error is None, (trouble, step)
                    assert delivered.states == ["accepted"] * 3, (trouble, step)
                    self.is_held(seen, 3)
                else:
                    assert set(delivered.states) <= {"accepted", "ambiguous", "retryable"}, (trouble, step)
                    assert max(seen.applied.values(), default=0) <= 1, (trouble, step)

    def test_a_vendor_that_is_down_ends_the_delivery(self) -> None:
        with self.serving() as (seen, server):
            server.inject(down=True, times=None)
            delivered = self.deliver(server, self.records(3))
            assert isinstance(delivered.error, UnavailableError)
            assert not {"accepted", "rejected"} & set(delivered.states)
            assert not seen.applied
            assert len(server.requests) <= _QUICK.tries * 3

    def test_credentials_that_are_refused_end_the_delivery(self) -> None:
        with self.serving() as (seen, server):
            server.inject(status=401, times=None)
            delivered = self.deliver(server, self.records(3))
            assert isinstance(delivered.error, ConfigurationError)
            assert not seen.applied
            assert not {"accepted", "rejected", "ambiguous"} & set(delivered.states)

    def test_a_slow_answer_is_an_answer(self) -> None:
        with self.serving() as (seen, server):
            server.inject(delay=0.2)
            assert self.deliver(server, self.records(3)).states == ["accepted"] * 3
            assert set(seen.applied.values()) == {1}

    def test_removal_takes_away_and_bears_that_nobody_is_there(self) -> None:
        self.needs("remove", self.operation)
        with self.serving() as (seen, server):
            first = self.deliver(server, self.records(3))
            sent = {key: outcome.sent for key, outcome in first.outcomes.items()}
            gone = [self.record(n, "remove", sent=sent[f"{self.key(n)}"]) for n in (0, 2)]
            for _ in range(2):
                delivered = self.deliver(server, gone)
                assert delivered.error is None
                assert delivered.states == ["accepted"] * 2
            assert {n for n in range(3) if self.known_as(n) in seen.holds()} == {1}

    def test_archiving_is_accepted(self) -> None:
        self.needs("archive", self.operation)
        with self.serving() as (_, server):
            first = self.deliver(server, self.records(3))
            sent = {key: outcome.sent for key, outcome in first.outcomes.items()}
            archived = [self.record(n, "archive", sent=sent[f"{self.key(n)}"]) for n in range(3)]
            assert self.deliver(server, archived).states == ["accepted"] * 3

    def test_clearing_empties_the_mapped_fields(self) -> None:
        self.needs("upsert")
        if self.operation != "upsert" or not self.held(0):
            msg = "the vendor holds no fields that could be emptied"
            raise SkipTest(msg)
        with self.serving() as (seen, server):
            self.deliver(server, self.records(2))
            nothing = dict.fromkeys(self.fields(0))
            assert self.deliver(server, [self.record(0, "clear", fields=nothing)]).states == ["accepted"]
            holds = seen.holds()
            left = {name: holds.get(self.known_as(0), {}).get(name) for name in self.held(0)}
            assert set(left.values()) <= {None, ""}
            assert self.held(1).items() <= holds[self.known_as(1)].items()

    def test_if_empty_leaves_what_is_there(self) -> None:
        if not self.capabilities.reads or not self.held(0):
            msg = "the destination cannot be asked for what it holds"
            raise SkipTest(msg)
        name = next(iter(self.declared().fields))
        careful = {name: {"from": "anything", "write": "if_empty"}}
        fields = {**self.declared().model_dump(by_alias=True)["fields"], **careful}
        with self.serving() as (seen, server):
            self.deliver(server, self.records(2))
            changed = [self.record(n, fields=self.fields(n + 5)) for n in range(3)]
            delivered = self.deliver(server, changed, kind=self.made(sync={"fields": fields}))
            assert delivered.states == ["accepted"] * 3
            holds = seen.holds()
            kept = [holds[self.known_as(n)].get(name) for n in range(3)]
            assert kept == [self.held(0)[name], self.held(1)[name], self.held(7)[name]]

    def test_a_repeat_is_the_same_to_the_byte(self) -> None:
        """Equal records make equal requests, in any process; and doing it twice leaves what once leaves."""
        bodies = []
        for _ in range(2):
            with self.serving() as (seen, server):
                self.deliver(server, self.records(3))
                # Requests of one delivery are on their way at the same time.
                bodies.append(sorted((request.method, request.path, request.body) for request in seen.got))
        assert bodies[0] == bodies[1]
        if self.operation == "event" or not self.capabilities.repeatable:
            return
        with self.serving() as (seen, server):
            self.deliver(server, self.records(3))
            before = seen.holds()
            again = [replace(record, attempts=1) for record in self.records(3)]
            assert self.deliver(server, again).states == ["accepted"] * 3
            assert seen.holds() == before

    def test_each_try_of_a_request_has_the_same_idempotency_key(self) -> None:
        if not self.capabilities.repeatable:
            msg = "the destination is never told twice"
            raise SkipTest(msg)
        for trouble in ("cut", "malformed"):
            with self.serving() as (seen, server):
                server.inject(acts=True, cut=trouble == "cut", malformed=trouble == "malformed")
                self.deliver(server, self.records(3))
                first = seen.got[0]
                tries = [
                    r
                    for r in seen.got
                    if (r.method, r.path, r.body) == (first.method, first.path, first.body)
                ]
                keys = {r.headers.get("idempotency-key") for r in tries if r.method != "GET"}
                assert len(keys) <= 1, trouble

    def test_values_of_all_types_travel_or_are_invalid(self) -> None:
        fields = self.fields(0)
        values = [
            Decimal("12.50"),
            datetime(2026, 7, 1, 12, tzinfo=UTC),
            date(2026, 7, 1),
            True,
            7,
            1.5,
            "Jürgen \u2028 \"'<&>\t\U0001f600",
            None,
        ]
        with self.serving() as (_, server):
            records = [self.record(n, fields=dict.fromkeys(fields, value)) for n, value in enumerate(values)]
            delivered = self.deliver(server, records)
            assert delivered.error is None
            assert len(delivered.outcomes) == len(values)
            assert set(delivered.states) <= {"accepted", "invalid", "rejected"}

    def test_nothing_personal_is_logged_or_raised(self, caplog: pytest.LogCaptureFixture) -> None:
        texts = [repr(self.record(n)) for n in range(3)]
        with caplog.at_level(logging.DEBUG):
            for trouble in ({}, {"cut": True}, {"status": 401}, {"malformed": True}, {"status": 429}):
                with self.serving() as (_, server):
                    if trouble:
                        server.inject(times=None, **trouble)
                    delivered = self.deliver(
                        server, self.records(3), patience=replace(_QUICK, tries=2, throttles=1)
                    )
                    texts += [repr(delivered.outcomes.values())]
                    error: BaseException | None = delivered.error
                    while error is not None:
                        texts.append(repr(error))
                        error = error.__cause__
        texts += [record.getMessage() for record in caplog.records if not record.name.startswith("asyncio")]
        said = unquote("\n".join(texts))
        secrets = {TOKEN, *(str(self.key(n)) for n in range(3))}
        secrets |= {value for n in range(3) for value in self.fields(n).values() if isinstance(value, str)}
        assert [secret for secret in sorted(secrets) if secret in said] == []

    def test_limits_name_their_source(self) -> None:
        if self.kind.limits:
            assert self.kind.limits_source.startswith("https://")
            assert "" in self.kind.limits


class Seen(FakeVendor):
    """A vendor, and what it was asked.

    :ivar got: the requests that reached it, in order.
    :ivar poison: which requests are refused as a whole, with the answer `poisoned`.
    """

    def __init__(self, vendor: FakeVendor) -> None:
        super().__init__()
        self.vendor = vendor
        self.refuses, self.applied = vendor.refuses, vendor.applied
        self.got: list[FakeRequest] = []
        self.poison: Callable[[FakeRequest], bool] = _nothing
        self.poisoned = FakeAnswer(400)

    def answer(self, request: FakeRequest) -> FakeAnswer:
        self.got.append(request)
        return self.poisoned if self.poison(request) else self.vendor.answer(request)

    def holds(self) -> dict[str, dict[str, Any]]:
        return self.vendor.holds()


def _nothing(_: FakeRequest) -> bool:
    return False
