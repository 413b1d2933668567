# SPDX-License-Identifier: Apache-2.0
"""From page to page of an HTTP source: patient, paced, and never in circles."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cdp_provider.core.exceptions import DataError, RetryableError
from cdp_provider.core.ingest.http_answers import (
    GarbledError,
    dump,
    load,
    records_of,
    refuse_graphql_errors,
    refuse_status,
)
from cdp_provider.core.ingest.paging import Page

if TYPE_CHECKING:
    from collections.abc import Callable

    from cdp_provider.core.http import HttpClient, Response
    from cdp_provider.core.ingest.http_options import HttpOptions, RequestRate
    from cdp_provider.core.ingest.http_requests import Asked, Requests
    from cdp_provider.core.ingest.paging import Step

#: Pages without records in a row, after which a source counts as endless.
_MAX_EMPTY = 100


@dataclass(frozen=True)
class Patience:
    """How a request is tried again in place; what takes longer is the scheduler's business.

    :param tries: of one request, the first included.
    :param longest: seconds; a source that asks for a longer pause is asked again by a later task.
    :param base: seconds before the second try; doubles from try to try, jittered.
    """

    tries: int = 5
    longest: float = 30.0
    base: float = 0.5

    def pause(self, attempt: int, wanted: float | None) -> float | None:
        """Seconds until the next try, or None to give up. `attempt` counts from 1."""
        if attempt >= self.tries or (wanted is not None and wanted > self.longest):
            return None
        backoff: float = min(self.longest, self.base * 2 ** (attempt - 1))
        jittered = backoff * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret
        return jittered if wanted is None else wanted + 0.1 * jittered


class Pace:
    """Spaces the requests of one task evenly."""

    def __init__(self, rate: RequestRate | None) -> None:
        self._interval = rate.per.total_seconds() / rate.requests if rate else 0.0
        self._next = 0.0

    def wait(self) -> None:
        """Return when the next request may go out."""
        if not self._interval:
            return
        time.sleep(max(0.0, self._next - time.monotonic()))
        self._next = time.monotonic() + self._interval


@dataclass
class Walk:
    """The pages of one endpoint, counted over all stretches.

    :param requests: that were sent.
    :param received: bytes of bodies, unpacked.
    """

    client: HttpClient
    options: HttpOptions
    patience: Patience
    requests: int = 0
    received: int = 0
    pace: Pace = field(init=False)

    def __post_init__(self) -> None:
        self.pace = Pace(self.options.rate)

    @property
    def what(self) -> str:
        """How messages call it: ``GET /customers``."""
        return f"{self.options.verb} {self.options.path}"

    def read(self, requests: Requests, take: Callable[[list[Any], list[bytes]], bool]) -> None:
        """Hand the records of each page, as values and as lines of JSON, to `take`, until it returns False.

        :raises AccessError, NotFoundError, RetryableError, DataError: as :meth:`Connector.fetch` says.
        """
        circles = _Circles(self.what)
        step: Step | None = self.options.paging.first()
        while step is not None:
            circles.refuse_step(step, self.requests)
            # A page is forgotten before the next one is there; that is a matter of speed as well.
            step = self._page(step, requests.at(step), circles, take)

    def _page(
        self, step: Step, asked: Asked, circles: _Circles, take: Callable[[list[Any], list[bytes]], bool]
    ) -> Step | None:
        response, answer = self._ask(asked)
        records = records_of(response, answer, self.options.records)
        lines = dump(records)
        circles.refuse_page(lines, self.requests)
        if not take(records, lines):
            return None
        url = self.client.endpoint.url(asked.path)
        return self.options.paging.following(Page(step, url, response.headers, answer, records))

    def _ask(self, asked: Asked) -> tuple[Response, Any]:
        attempt = 0
        while True:
            attempt += 1
            try:
                return self._once(asked)
            except (RetryableError, GarbledError) as error:
                pause = self.patience.pause(attempt, getattr(error, "retry_after", None))
                if pause is None:
                    raise
            time.sleep(pause)

    def _once(self, asked: Asked) -> tuple[Response, Any]:
        self.pace.wait()
        self.requests += 1
        response = self.client.send(
            self.options.verb,
            asked.path,
            params=asked.parameters,
            json=asked.body,
            headers=self.options.headers,
        )
        refuse_status(response)
        self.received += len(response.body)
        answer = load(response)
        if self.options.graphql is not None:
            refuse_graphql_errors(response, answer)
        return response, answer


class _Circles:
    """Remembers what was asked and what came, to refuse both a second time."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._asked: set[tuple[Any, ...]] = set()
        self._pages: set[int] = set()
        self._empty = 0

    def refuse_step(self, step: Step, requests: int) -> None:
        """:raises DataError: the same was asked before."""
        key = (step.address, *step.values.items())
        if key in self._asked:
            msg = (
                f"{self._what} names a next page that was already read (after {requests} requests); the"
                " source would go round for ever, so check `paging` of the stream"
            )
            raise DataError(msg)
        self._asked.add(key)

    def refuse_page(self, lines: list[bytes], requests: int) -> None:
        """:raises DataError: the same records came before, or none for a long time."""
        self._empty = 0 if lines else self._empty + 1
        if self._empty > _MAX_EMPTY:
            msg = f"{self._what} gave {_MAX_EMPTY} pages without a record; check `paging`"
            raise DataError(msg)
        if not lines:
            return
        digest = hash(b"\n".join(lines))
        if digest in self._pages:
            msg = (
                f"{self._what} gave the same page twice (request {requests}); it seems to ignore the paging"
                " parameter, so check `paging` of the stream"
            )
            raise DataError(msg)
        self._pages.add(digest)
