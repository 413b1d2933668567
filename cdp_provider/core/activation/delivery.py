# SPDX-License-Identifier: Apache-2.0
"""One batch to one destination: within its rate, patient with its troubles, and every record's end known."""

from __future__ import annotations

import hashlib
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson

from cdp_provider.core.activation.destinations.base import Outcome, Result
from cdp_provider.core.exceptions import DataError, DeliveryError, RateLimitedError, UnavailableError
from cdp_provider.core.http import Response

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cdp_provider.core.activation.destinations.base import DestinationKind, Record
    from cdp_provider.core.activation.limiter import Throttle
    from cdp_provider.core.http import HttpClient

#: Statuses that refuse a batch as a whole because of what it holds.
_REFUSED = frozenset({400, 409, 413, 422})


@dataclass(frozen=True)
class Patience:
    """How much trouble a delivery bears before its task ends, for Airflow to try again later.

    :param max_wait: seconds that a worker sleeps at a time for the rate limit; a longer wait is raised.
    :param throttles: answers 429 to one request.
    :param tries: of one request that gets no usable answer.
    :param pause: seconds before the second try; doubled, with jitter, before each further one.
    :param refusals: batches in a row of which every record is refused; one is enough for a sync of which the
        destination has never taken a record.
    """

    max_wait: float = 60.0
    throttles: int = 10
    tries: int = 4
    pause: float = 0.5
    refusals: int = 3


class Delivery:
    """Brings batches of one sync to its destination, one request at a time.

    :param proven: the destination has taken records of this sync before.
    :ivar requests: how many were sent, each try counted.
    """

    def __init__(
        self,
        kind: DestinationKind,
        client: HttpClient,
        throttle: Throttle,
        patience: Patience,
        *,
        proven: bool = False,
    ) -> None:
        self.kind = kind
        self._client = client
        self._throttle = throttle
        self._patience = patience
        self._proven = proven
        self._refusals = 0
        self.requests = 0

    def deliver(self, batch: Sequence[Record], results: list[Result]) -> None:
        """Bring one batch, whose records share an operation.

        A batch that is refused as a whole is halved until each culprit stands alone.

        :param results: filled as results become known, so that an error part way takes nothing back.
        :raises RateLimitedError: the destination is busy for longer than a worker waits.
        :raises UnavailableError: no usable answer; what was sent may or may not have been applied.
        :raises ConfigurationError: credentials, path or connection are wrong.
        :raises DeliveryError: whole batches are refused, and each of their records alone too.
        """
        waiting, refused = [batch], 0
        while waiting:
            part = waiting.pop()
            key = idempotency_key(self.kind.sync.name, part)
            answer = self._answer_to(part, key, results)
            if isinstance(answer, Response) and len(part) > 1:
                middle = len(part) // 2
                waiting += [part[middle:], part[:middle]]
                continue
            if isinstance(answer, Response):
                refused += 1
                answer = [_refusal(answer)]
            results += [Result(record, outcome, key) for record, outcome in zip(part, answer, strict=True)]
            self._proven |= any(outcome.taken for outcome in answer)
        self._judge(len(batch), refused)

    def _judge(self, size: int, refused: int) -> None:
        """Halving batch after batch of a sync that is wrong as a whole would go on for hours."""
        self._refusals = self._refusals + 1 if refused == size > 1 else 0
        if self._refusals >= (self._patience.refusals if self._proven else 1):
            msg = (
                f"destination {self.kind.destination.name} refused a batch of {refused} records and then"
                " each of them alone; the ledger holds its reasons. Check how the destination is described"
                " and what the sync maps"
            )
            raise DeliveryError(msg)

    def _answer_to(self, part: Sequence[Record], key: str, results: list[Result]) -> list[Outcome] | Response:
        """One outcome per record, or the answer that refuses the whole part."""
        try:
            return self._exchange(part, key)
        except RateLimitedError:
            results += [Result(record, Outcome("throttled"), key) for record in part]
            raise
        except UnavailableError as error:
            results += [Result(record, Outcome("ambiguous", str(error)), key) for record in part]
            raise

    def _exchange(self, part: Sequence[Record], key: str) -> list[Outcome] | Response:
        """Send until there is an answer to use; the same request and key each time."""
        operation = part[0].operation
        request = self.kind.request(operation, part)
        headers = {"Idempotency-Key": key, **request.headers}
        throttled = failed = 0
        while True:
            self._throttle.wait()
            self.requests += 1
            try:
                response = self._client.send(
                    request.method, request.path, json=orjson.Fragment(request.json), headers=headers
                )
                if response.status in _REFUSED:
                    return response
                response.raise_for_status()
                return self.kind.outcomes(operation, response, part)
            except RateLimitedError as error:
                throttled += 1
                self._throttle.block(1.0 if error.retry_after is None else error.retry_after)
                if throttled >= self._patience.throttles:
                    raise
            except (UnavailableError, DataError) as error:
                failed += 1
                if failed >= self._patience.tries:
                    msg = f"{error} (tried {failed} times)"
                    raise UnavailableError(msg, retry_after=getattr(error, "retry_after", None)) from error
                self._back_off(error, failed)

    def _back_off(self, error: UnavailableError | DataError, failed: int) -> None:
        if isinstance(error, UnavailableError) and error.retry_after is not None:
            self._throttle.block(error.retry_after)
            return
        jitter = random.uniform(0.5, 1.0)  # noqa: S311 - spreads retries, keeps no secret
        time.sleep(self._patience.pause * 2 ** (failed - 1) * jitter)


def idempotency_key(sync: str, records: Sequence[Record]) -> str:
    """The same for every try of the same payloads of the same records, in any process; else another.

    A payload that returns later (A, then B, then A again) was intended by another window, and a record that
    got an answer counts it, so neither meets the stored answer of the earlier request.
    """
    digest = hashlib.sha256(sync.encode())
    for record in records:
        parts = (
            record.operation,
            record.record_key,
            record.payload_hash,
            str(record.attempts),
            record.intended.isoformat(),
        )
        digest.update(("\x1e" + "\x1f".join(parts)).encode())
    return digest.hexdigest()[:32]


def _refusal(response: Response) -> Outcome:
    """Why a record that stood alone was refused, in the vendor's own words."""
    said = response.body[:300].decode("utf-8", "replace")
    return Outcome("rejected", f"answered {response.status}: {said}")
