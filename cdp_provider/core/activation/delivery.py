# SPDX-License-Identifier: Apache-2.0
"""Records to one destination: within its limits, many requests at once, and every record's end known."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import AsyncExitStack, aclosing, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cdp_provider.core.activation.batches import Batches, idempotency_key
from cdp_provider.core.activation.client import Client
from cdp_provider.core.activation.destinations.answers import without_values
from cdp_provider.core.activation.destinations.base import Outcome, Refused, Result
from cdp_provider.core.activation.encoding import encode
from cdp_provider.core.activation.journal import Journal
from cdp_provider.core.activation.limiter import Limiter
from cdp_provider.core.activation.limits import SqliteLimits
from cdp_provider.core.activation.line import Line, Patience, StoppedError, Traffic
from cdp_provider.core.exceptions import (
    CdpError,
    ConfigurationError,
    DataError,
    DeliveryError,
    RateLimitedError,
    UnavailableError,
)

if TYPE_CHECKING:
    import threading
    from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence

    from cdp_provider.core.activation.batches import Batch
    from cdp_provider.core.activation.destinations.base import DestinationKind, Operation, Record

__all__ = ["Patience", "StoppedError", "deliver"]

#: Batches whose results wait to be written, at most, for each request at a time: what a crash sends again.
_UNWRITTEN = 4

#: Without a network in between there is little to wait for, and such batches are large.
_LOCAL_IN_FLIGHT = 4

#: Seconds between two looks at whether the task shall stop.
_GLANCE = 0.1


def deliver(
    kind: DestinationKind,
    target: Any,
    chunks: Iterable[Sequence[Record]],
    *,
    write: Callable[[Sequence[Result]], None],
    patience: Patience | None = None,
    limiter: Limiter | None = None,
    proven: bool = True,
    probe: bool = False,
    stop: threading.Event | None = None,
) -> int:
    """Bring records to a destination.

    A batch that is refused as a whole is halved until each culprit stands alone. The first error that ends
    the delivery lets what is on its way come to its end.

    :param target: what the connection became; see :class:`~.destinations.base.Line`.
    :param chunks: records in the order of sending; read from another thread, a chunk ahead.
    :param write: keeps results; called from another thread, one call at a time, before an error is raised
        with everything that is known by then.
    :param limiter: the account's; without one, only what the destination says of its limits is obeyed.
    :param proven: the destination has taken records of this sync before.
    :param probe: try one batch alone first, once.
    :param stop: set when the task shall end.
    :returns: requests sent, each try counted.
    :raises RateLimitedError: the account is busy for longer than a worker waits; with ``retry_after``.
    :raises UnavailableError: no usable answer; what was sent may or may not have been applied.
    :raises ConfigurationError: credentials, path or connection are wrong.
    :raises DeliveryError: whole batches are refused, and each of their records alone too.
    :raises StoppedError: `stop` was set.
    """
    patience = patience or Patience()
    limiter = limiter or Limiter(SqliteLimits(":memory:"), "", {}, patience.max_wait)
    traffic = Traffic(kind, target, patience, limiter, Journal(write))
    try:
        asyncio.run(_Delivery(traffic, proven=proven, stop=stop).run(iter(chunks), probe=probe))
    except CdpError as error:
        error.requests = traffic.requests  # type: ignore[attr-defined]
        raise
    return traffic.requests


class _Delivery:
    """One sync's records on their way; see :func:`deliver`."""

    def __init__(self, traffic: Traffic, *, proven: bool, stop: threading.Event | None) -> None:
        self._traffic = traffic
        self._kind = traffic.kind
        self._stop = stop
        self._proven = proven
        self._refusals = 0
        local = traffic.kind.transport != "http"
        self._in_flight = _LOCAL_IN_FLIGHT if local else traffic.patience.in_flight
        self._tasks: set[asyncio.Task[None]] = set()
        fields = self._kind.sync.fields.items()
        self._if_empty = [name for name, field in fields if field.write == "if_empty"]

    async def run(self, chunks: Iterator[Sequence[Record]], *, probe: bool) -> None:
        """Everything that `chunks` hold."""
        async with AsyncExitStack() as stack:
            if self._kind.transport == "http":
                client = Client(self._traffic.target, connections=self._traffic.patience.in_flight)
                self._traffic.client = await stack.enter_async_context(client)
            stack.push_async_callback(self._traffic.limiter.close)
            glance = asyncio.create_task(self._glance())
            try:
                await self._dispatch(chunks, probe=probe)
            except BaseException as error:  # noqa: BLE001 - raised below, once all answers are written
                self._traffic.fail(error)
            await self._drain()
            glance.cancel()
            await self._traffic.journal.close()
        if self._traffic.error is not None:
            raise self._traffic.error

    async def _dispatch(self, chunks: Iterator[Sequence[Record]], *, probe: bool) -> None:
        """Start a task for each batch, as long as nothing has gone wrong."""
        slots = asyncio.Semaphore(self._in_flight)
        unwritten = asyncio.Semaphore(self._in_flight * _UNWRITTEN)
        operation: Operation | None = None
        busy: set[int | None] = set()
        async with aclosing(self._batches(chunks)) as batches:
            async for batch in batches:
                if batch.operation != operation or probe:
                    # A record that changed the spelling of its key is removed before it is sent anew.
                    await self._drain()
                    operation = batch.operation
                if operation == "event":
                    busy = await self._in_order(batch, busy)
                await unwritten.acquire()
                await slots.acquire()
                if self._traffic.error is not None:
                    return
                task = asyncio.create_task(self._bring(batch, slots))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                task.add_done_callback(lambda _: unwritten.release())
                if probe:
                    self._traffic.probing, probe = True, False
                    await self._drain()
                    self._traffic.probing = False

    async def _in_order(self, batch: Batch, busy: set[int | None]) -> set[int | None]:
        """Events of one profile arrive in their order: wait for those on their way, if there are any."""
        profiles = {record.profile_id for record in batch.records}
        if busy & profiles or len(busy) > 100_000:
            await self._drain()
            return profiles
        return busy | profiles

    async def _batches(self, chunks: Iterator[Sequence[Record]]) -> AsyncGenerator[Batch]:
        """Batches, while the next chunk is read already."""
        batches = Batches(self._kind)
        coming = asyncio.create_task(asyncio.to_thread(next, chunks, None))
        try:
            while (records := await coming) is not None:
                coming = asyncio.create_task(asyncio.to_thread(next, chunks, None))
                for batch in batches.cut(records):
                    yield batch
            for batch in batches.rest():
                yield batch
        finally:
            with suppress(CdpError):
                await coming

    async def _drain(self) -> None:
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _glance(self) -> None:
        while self._stop is not None:
            if self._stop.is_set():
                msg = f"the sync {self._kind.sync.name} was told to stop; the next try goes on from there"
                self._traffic.fail(StoppedError(msg))
                return
            await asyncio.sleep(_GLANCE)

    async def _bring(self, batch: Batch, slots: asyncio.Semaphore) -> None:
        results = list(batch.unsent)
        try:
            if batch.records:
                await self._settle(batch, results)
        except asyncio.CancelledError:
            if self._traffic.error is None:
                raise
        except BaseException as error:  # noqa: BLE001 - raised by `run`
            self._traffic.fail(error)
        slots.release()
        try:
            await self._traffic.journal.write(results)
        except BaseException as error:  # noqa: BLE001 - raised by `run`
            self._traffic.fail(error)

    async def _settle(self, batch: Batch, results: list[Result]) -> None:
        """Send a batch, halving what is refused; `results` are filled as they become known."""
        operation = self._kind.asked(batch.operation)
        waiting = [(batch.records, batch.items)]
        refused = 0
        while waiting:
            records, items = waiting.pop()
            line = Line(self._traffic, idempotency_key(self._kind.sync.name, records), records)
            try:
                outcomes = await self._exchange(line, operation, records, items)
            except Refused as refusal:
                if len(records) > 1:
                    middle = len(records) // 2
                    waiting.append((records[middle:], items[middle:]))
                    waiting.append((records[:middle], items[:middle]))
                    continue
                refused += 1
                reason = without_values(str(refusal), records[0])
                outcomes = [Outcome("rejected", reason, refusal.status)]
            except RateLimitedError:
                outcome = Outcome(
                    "throttled" if self._traffic.repeatable else "retryable", "the account is busy"
                )
                results += [Result(record, outcome, line.idempotency_key) for record in records]
                raise
            except (UnavailableError, StoppedError, ConfigurationError) as error:
                outcome = Outcome("retryable" if line.unseen else "ambiguous", str(error))
                results += [Result(record, outcome, line.idempotency_key) for record in records]
                raise
            except asyncio.CancelledError:
                if line.noted and line.unseen:
                    outcome = Outcome("retryable", "called off while it waited for its moment")
                    results += [Result(record, outcome, line.idempotency_key) for record in records]
                raise
            self._keep(records, outcomes, line, results)
        self._judge(len(batch.records), refused)

    def _keep(
        self, records: Sequence[Record], outcomes: Sequence[Outcome], line: Line, results: list[Result]
    ) -> None:
        key, status = line.idempotency_key, line.status
        # Most records of a batch share one outcome, the very same object.
        told: dict[int, Outcome] = {}
        for record, outcome in zip(records, outcomes, strict=True):
            full = told.get(id(outcome))
            if full is None:
                full = outcome if outcome.status or not status else replace(outcome, status=status)
                told[id(outcome)] = full
                self._proven = self._proven or outcome.state == "accepted"
            results.append(Result(record, full, key))

    def _judge(self, size: int, refused: int) -> None:
        """Halving batch after batch of a sync that is wrong as a whole would go on for hours."""
        self._refusals = self._refusals + 1 if refused == size > 1 else 0
        if self._refusals >= (self._traffic.patience.refusals if self._proven else 1):
            msg = (
                f"destination {self._kind.destination.name} refused a batch of {refused} records and then"
                " each of them alone; the ledger holds its reasons. Check how the destination is described"
                " and what the sync maps"
            )
            raise DeliveryError(msg)

    async def _exchange(
        self, line: Line, operation: Operation, records: Sequence[Record], items: Sequence[bytes]
    ) -> Sequence[Outcome]:
        """Outcomes of the records; an answer that cannot be read is asked for again."""
        if self._if_empty and operation in ("upsert", "update"):
            records, items = await self._without_present(line, operation, records)
        for failed in range(1, self._traffic.tries + 1):
            line.begin()
            try:
                return await self._kind.deliver(line, operation, records, items)
            except DataError as error:
                if failed == self._traffic.tries or not self._traffic.repeatable:
                    msg = f"{error} (tried {failed} times)"
                    raise UnavailableError(msg) from None
                await line.back_off(failed)
        raise AssertionError

    async def _without_present(
        self, line: Line, operation: Operation, records: Sequence[Record]
    ) -> tuple[Sequence[Record], Sequence[bytes]]:
        """The records without those ``if_empty`` fields that have a value at the destination."""
        empty = await self._kind.empty(line, records, self._if_empty)
        without = [
            replace(
                record,
                fields={
                    name: value
                    for name, value in record.fields.items()
                    if name not in self._if_empty or name in fields
                },
            )
            for record, fields in zip(records, empty, strict=True)
        ]
        items = [encode(self._kind.item(operation, record)) for record in without]
        # What stands at the destination by now is part of the request, so of its key too.
        line.idempotency_key += "-" + hashlib.sha256(b"\x1e".join(items)).hexdigest()[:8]
        return without, items
