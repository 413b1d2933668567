# SPDX-License-Identifier: Apache-2.0
"""What connectors of HTTP APIs have to bear, beside what every connector must."""
# ruff: noqa: S101 - a class of tests asserts

from __future__ import annotations

import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any, ClassVar, cast
from unittest import SkipTest

from cdp_provider.core.exceptions import (
    AccessError,
    DataError,
    NotFoundError,
    RateLimitedError,
    RetryableError,
)
from cdp_provider.testing.connectors.api import ApiSource, FakeApi
from cdp_provider.testing.connectors.conformance import ConnectorConformance
from cdp_provider.testing.connectors.stage import Stage, newest, record

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from cdp_provider.core.http import Endpoint
    from cdp_provider.core.ingest.base import Connector

#: Seconds until an answer counts as lost, where a test loses one.
_SHORT = 0.3


class HttpConformance(ConnectorConformance):
    """Subclass it as ``TestSomething``, in a file that pytest collects.

    :cvar options: of the stream, as a project file says them. A :class:`FakeApi` serves what an ``http``
        stream with these options asks for; an API of another shape comes from :meth:`api`.
    :cvar patient: tries again by itself; otherwise the suite does, as the scheduler would.
    """

    options: ClassVar[Mapping[str, Any]]
    patient: ClassVar[bool] = True
    absent: ClassVar[Mapping[str, Any]] = {"path": "/nothing-here"}

    def connect(self, endpoint: Endpoint) -> Connector:
        """The connector for an endpoint. Let it be impatient: tests should not wait for seconds."""
        return self.kind(endpoint)  # type: ignore[call-arg]

    def api(self) -> FakeApi:
        """A new API that holds nothing."""
        return FakeApi(self.options)

    def source(self, folder: Path) -> ApiSource:
        return ApiSource(self.options, self.connect, self.api())

    @contextmanager
    def filled(self, tmp_path: Path) -> Iterator[tuple[Stage, ApiSource, list[dict[str, Any]]]]:
        """A source with three pages, what it is like, and what its view must show."""
        records = [record(n, 1 + n / 100) for n in range(25)]
        with self.stage(tmp_path) as stage:
            stage.put(*records, day=1.5)
            yield stage, cast("ApiSource", stage.source), records

    def bears(self, tmp_path: Path, *, timeout: float = 10.0, **fault: Any) -> float:
        """The trouble passes, and everything is there; returns the seconds that it took."""
        with self.filled(tmp_path) as (stage, source, records):
            source.server.inject(**fault)
            started = time.monotonic()
            try:
                stage.land(1, source.connector(timeout=timeout))
            except RetryableError as error:
                if self.patient:
                    raise
                time.sleep(getattr(error, "retry_after", None) or 0)
                stage.land(1, source.connector(timeout=10.0))
            assert stage.shown() == newest(records)
            return time.monotonic() - started

    def test_one_endless_page_is_noticed(self, tmp_path: Path) -> None:
        """The source ignores what it is asked for, and gives its first page for ever."""
        self.needs_pages()
        with self.filled(tmp_path) as (stage, source, _):
            source.api.stuck = "page"
            self.fails_clearly(stage, DataError)
            assert len(source.server.requests) < 10

    def test_a_next_page_that_is_no_other_is_noticed(self, tmp_path: Path) -> None:
        self.needs_pages()
        with self.filled(tmp_path) as (stage, source, _):
            source.api.stuck = "token"
            if source.api.paging["type"] in ("page", "offset", "last_record"):
                msg = f"with {source.api.paging['type']} the client itself says what comes next"
                raise SkipTest(msg)
            self.fails_clearly(stage, DataError)
            assert len(source.server.requests) < 10

    def needs_pages(self) -> None:
        """Skip a test of paging where there is none."""
        if self.api().paging["type"] == "none":
            msg = "one answer holds everything"
            raise SkipTest(msg)

    def test_401_403_404_are_told_apart_and_not_tried_again(self, tmp_path: Path) -> None:
        with self.filled(tmp_path) as (stage, source, _):
            for status, error in ((401, AccessError), (403, AccessError), (404, NotFoundError)):
                source.server.inject(status=status)
                asked = len(source.server.requests)
                self.fails_clearly(stage, error)
                assert len(source.server.requests) == asked + 1

    def test_429_waits_as_many_seconds_as_it_says(self, tmp_path: Path) -> None:
        waited = self.bears(tmp_path, status=429, headers={"Retry-After": "1"})
        assert 1.0 <= waited < 10

    def test_429_waits_until_the_date_that_it_says(self, tmp_path: Path) -> None:
        """Read against the source's own clock, which may be wrong by years."""
        there = datetime(2020, 1, 1, tzinfo=UTC)
        dates = {"Date": format_datetime(there, usegmt=True)} | {
            "Retry-After": format_datetime(there + timedelta(seconds=1), usegmt=True)
        }
        assert 1.0 <= self.bears(tmp_path, status=429, headers=dates) < 10

    def test_429_waits_for_the_reset(self, tmp_path: Path) -> None:
        assert 1.0 <= self.bears(tmp_path, status=429, headers={"RateLimit-Reset": "1"}) < 10

    def test_429_that_asks_for_an_hour_is_the_schedulers(self, tmp_path: Path) -> None:
        with self.filled(tmp_path) as (stage, source, records):
            source.server.inject(status=429, headers={"Retry-After": "3600"})
            started = time.monotonic()
            error = self.fails_clearly(stage, RateLimitedError)
            assert time.monotonic() - started < 5
            assert getattr(error, "retry_after", None) == 3600
            stage.land(1)
            assert stage.shown() == newest(records)

    def test_500_in_the_middle_passes(self, tmp_path: Path) -> None:
        self.bears(tmp_path, status=500, after=0 if self.api().paging["type"] == "none" else 1)

    def test_a_service_that_stays_down_is_retryable(self, tmp_path: Path) -> None:
        with self.filled(tmp_path) as (stage, source, records):
            source.server.inject(down=True, times=None)
            self.fails_clearly(stage, RetryableError)
            source.server.clear_faults()
            stage.land(1)
            assert stage.shown() == newest(records)

    def test_an_answer_that_does_not_come_is_asked_for_again(self, tmp_path: Path) -> None:
        self.bears(tmp_path, timeout=_SHORT, delay=3 * _SHORT)

    def test_a_slow_answer_is_waited_for(self, tmp_path: Path) -> None:
        assert self.bears(tmp_path, delay=0.5) >= 0.5

    def test_a_reset_connection_is_opened_again(self, tmp_path: Path) -> None:
        self.bears(tmp_path, cut=True)

    def test_an_answer_that_breaks_off_is_asked_for_again(self, tmp_path: Path) -> None:
        self.bears(tmp_path, torn=True)

    def test_a_web_page_instead_of_json_passes(self, tmp_path: Path) -> None:
        self.bears(tmp_path, html=True)

    def test_web_pages_for_ever_are_said(self, tmp_path: Path) -> None:
        with self.filled(tmp_path) as (stage, source, _):
            source.server.inject(html=True, times=None)
            assert "text/html" in str(self.fails_clearly(stage, DataError))
