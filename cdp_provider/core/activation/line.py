# SPDX-License-Identifier: Apache-2.0
"""The way to a destination: each request within the limits, tried again as patiently as the sync is."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cdp_provider.core.activation.client import NotSentError
from cdp_provider.core.activation.destinations.answers import without_values
from cdp_provider.core.activation.destinations.base import Outcome, Refused, Result
from cdp_provider.core.exceptions import RateLimitedError, RetryableError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cdp_provider.core.activation.client import Client
    from cdp_provider.core.activation.destinations.base import DestinationKind, Record, Request
    from cdp_provider.core.activation.journal import Journal
    from cdp_provider.core.activation.limiter import Limiter
    from cdp_provider.core.http import Response

#: Statuses that refuse a batch as a whole because of what it holds.
_REFUSED = frozenset({400, 409, 413, 422})

#: Seconds to wait after a 429 that does not say how long; doubled with each further one.
_THROTTLED = 1.0
_LONGEST_THROTTLE = 60.0


class StoppedError(RetryableError):
    """The task was told to stop; what had been sent by then has its answers written."""


@dataclass(frozen=True)
class Patience:
    """How much trouble a delivery bears before its task ends, for Airflow to try again later.

    :param max_wait: seconds that a worker sleeps at a time for the rate limit; a longer wait is raised.
    :param throttles: answers 429 to one request.
    :param tries: of one request that gets no usable answer.
    :param pause: seconds before the second try; doubled, with jitter, before each further one.
    :param refusals: batches in a row of which every record is refused; one is enough for a sync of which the
        destination has never taken a record.
    :param in_flight: requests at the same time, at most.
    """

    max_wait: float = 60.0
    throttles: int = 10
    tries: int = 4
    pause: float = 0.5
    refusals: int = 3
    in_flight: int = 32


@dataclass
class Traffic:
    """What the lines of one delivery share.

    :param requests: sent so far, each try counted.
    :param waiting: tasks that wait for their moment: nothing of theirs is on its way.
    :param error: what ended the delivery, or None.
    """

    kind: DestinationKind
    target: Any
    patience: Patience
    limiter: Limiter
    journal: Journal
    client: Client | None = None
    probing: bool = False
    requests: int = 0
    waiting: set[Any] = field(default_factory=set)
    error: BaseException | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def fail(self, error: BaseException) -> None:
        """End the delivery: the first error counts, nobody goes on waiting, what is on its way comes home."""
        if self.error is None:
            self.error = error
        self.ended.set()
        for task in self.waiting:
            task.cancel()

    @property
    def tries(self) -> int:
        """Of one request; a single one while the circuit is open."""
        return 1 if self.probing else self.patience.tries

    @property
    def repeatable(self) -> bool:
        """Whether a request whose answer was lost may be sent again."""
        return self.kind.capabilities.repeatable


class Line:
    """What a kind sends the requests of one batch over; see :class:`~.destinations.base.Line`.

    :ivar status: of the last answer.
    :ivar noted: it has been written that an answer to the batch is awaited.
    :ivar unseen: nothing of the batch can have been applied: it was not sent, or refused.
    """

    def __init__(self, traffic: Traffic, key: str, records: Sequence[Record]) -> None:
        self.target = traffic.target
        self.idempotency_key = key
        self.status: int | None = None
        self.noted = False
        self.unseen = True
        self._traffic = traffic
        self._records = records
        self._sent = 0

    def begin(self) -> None:
        """Tell the batch once more from its start: the same requests get the same keys."""
        self._sent = 0

    async def send(self, request: Request, *, records: int = 0) -> Response:
        traffic = self._traffic
        throttled = failed = 0
        headers = self._headers(request)
        while True:
            try:
                return await self._send(request, headers, records)
            except _Throttled as told:
                throttled += 1
                if throttled >= traffic.patience.throttles or traffic.tries == 1:
                    raise told.error from None
                wait = told.error.retry_after
                if wait is None:
                    wait = min(_THROTTLED * 2 ** (throttled - 1), _LONGEST_THROTTLE)
                await traffic.limiter.blocked(request.limit, wait)
            except UnavailableError as error:
                failed += 1
                seen = not isinstance(error, NotSentError)
                if failed >= traffic.tries or (seen and not traffic.repeatable):
                    msg = f"{error} (tried {failed} times)"
                    raise UnavailableError(msg, retry_after=error.retry_after) from None
                if error.retry_after is None:
                    await self.back_off(failed)
                else:
                    await traffic.limiter.blocked(request.limit, error.retry_after)

    async def _send(self, request: Request, headers: dict[str, str], records: int) -> Response:
        traffic = self._traffic
        if traffic.error is not None:
            # One failure is enough; nobody tries a destination in trouble any further.
            msg = "another request of this sync failed meanwhile"
            raise StoppedError(msg)
        if traffic.client is None:
            msg = f"a destination of type {traffic.kind.destination.type} sends no requests"
            raise TypeError(msg)
        async with _Moment(traffic, request.limit, records):
            if not traffic.repeatable and request.method != "GET":
                await self._note_ambiguous()
            traffic.requests += 1
            try:
                response = await traffic.client.send(request.method, request.path, request.body, headers)
            except NotSentError:
                raise
            except BaseException:
                self.unseen = False
                raise
        self.status = response.status
        try:
            await self._judge(request, response)
        except UnavailableError:
            self.unseen = False
            raise
        self.unseen = False
        return response

    async def _judge(self, request: Request, response: Response) -> None:
        """Raise what an answer means, unless it is a success."""
        traffic = self._traffic
        await self._hear(request.limit, response)
        try:
            traffic.kind.inspect(response)
            if response.status in _REFUSED:
                said = response.body[:300].decode("utf-8", "replace")
                msg = f"answered {response.status}: {without_values(said)}"
                raise Refused(msg, response.status)
            response.raise_for_status()
        except RateLimitedError as error:
            if error.retry_after is None:
                error.retry_after = response.retry_after(traffic.kind.rate_headers.retry_after)
            raise _Throttled(error) from None

    async def _hear(self, limit: str, response: Response) -> None:
        """Tell the limiter what the answer's headers say."""
        names = self._traffic.kind.rate_headers
        if names.remaining is None or names.reset is None:
            return
        remaining = _number(response.headers.get(names.remaining.lower()))
        reset = _number(response.headers.get(names.reset.lower()))
        if remaining is None or reset is None:
            return
        if names.reset_is == "epoch":
            reset -= response.date() or time.time()
        if reset > 0:
            await self._traffic.limiter.heard(limit, remaining, reset)

    def _headers(self, request: Request) -> dict[str, str]:
        """Each request of a batch that writes has a key of its own, the same for every try."""
        headers = {"Content-Type": "application/json", **self._traffic.kind.headers}
        if request.method != "GET":
            self._sent += 1
            number = "" if self._sent == 1 else f"-{self._sent}"
            headers["Idempotency-Key"] = f"{self.idempotency_key}{number}"
        return headers | dict(request.headers)

    async def _note_ambiguous(self) -> None:
        """Have it written that an answer is awaited, before anything is sent."""
        awaited = Outcome("ambiguous", "sent, and the task ended before an answer came")
        key = self.idempotency_key
        self.noted = True
        await self._traffic.journal.write([Result(record, awaited, key) for record in self._records])

    async def back_off(self, failed: int) -> None:
        """Wait before a further try."""
        jitter = random.uniform(0.5, 1.0)  # noqa: S311 - spreads retries, keeps no secret
        await self.sleep(self._traffic.patience.pause * 2 ** (failed - 1) * jitter)

    async def sleep(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._traffic.ended.wait(), seconds)


class _Throttled(Exception):  # noqa: N818 - not an error of its own
    """The destination itself said that it is too much; unlike a wait that our own limiter finds too long."""

    def __init__(self, error: RateLimitedError) -> None:
        self.error = error


class _Moment:
    """A moment of the account's; who waits for it can be called off."""

    def __init__(self, traffic: Traffic, limit: str, records: int) -> None:
        self._traffic = traffic
        self._admission = traffic.limiter.admit(limit, records)

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        waiting: set[Any] = self._traffic.waiting
        waiting.add(task)
        try:
            await self._admission.__aenter__()
        finally:
            waiting.discard(task)

    async def __aexit__(self, *error: Any) -> None:
        await self._admission.__aexit__(*error)


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
