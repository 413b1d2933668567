# SPDX-License-Identifier: Apache-2.0
"""A vendor in a process of its own, as quick as Python allows: it stores what it is sent, answers for each
record, and counts."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import time
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection

_processes = multiprocessing.get_context("spawn")


class _Vendor:
    """A list of members.

    :param rate: requests in any second; None: unlimited.
    :param latency: seconds that every answer takes.
    """

    def __init__(self, rate: int | None, latency: float) -> None:
        self._rate = rate
        self._latency = latency
        self._members: dict[str, Any] = {}
        self._recent: deque[float] = deque()
        self._counts = {"requests": 0, "throttled": 0, "records": 0}

    async def members(self, request: web.Request) -> web.Response:
        now = time.monotonic()
        body = await request.read()
        if not self._admit(now):
            self._counts["throttled"] += 1
            return web.Response(status=429, headers={"Retry-After": "1"})
        self._counts["requests"] += 1
        members = orjson.loads(body)["members"]
        results = []
        for member in members:
            self._members[member["email"]] = member.get("fields")
            results.append({"email": member["email"], "status": "updated"})
        self._counts["records"] += len(members)
        if self._latency:
            await asyncio.sleep(self._latency)
        return web.Response(body=orjson.dumps({"results": results}), content_type="application/json")

    async def counts(self, request: web.Request) -> web.Response:  # noqa: ARG002 - aiohttp gives it
        return web.json_response({**self._counts, "members": len(self._members)})

    def _admit(self, now: float) -> bool:
        if self._rate is None:
            return True
        while self._recent and now - self._recent[0] >= 1:
            self._recent.popleft()
        if len(self._recent) >= self._rate:
            return False
        self._recent.append(now)
        return True


def _serve(told: Connection, rate: int | None, latency: float) -> None:
    # A collection takes 50 ms, and what came meanwhile would seem to have come at once.
    gc.disable()

    async def main() -> None:
        vendor = _Vendor(rate, latency)
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/lists/{list}/members", vendor.members)
        app.router.add_post("/lists/{list}/members/remove", vendor.members)
        app.router.add_get("/counts", vendor.counts)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        told.send(runner.addresses[0][1])
        await asyncio.Event().wait()

    asyncio.run(main())


@contextmanager
def vendor(*, rate: int | None = None, latency: float = 0.0) -> Iterator[str]:
    """Its address, as long as it runs."""
    listening, told = _processes.Pipe(duplex=False)
    process = _processes.Process(target=_serve, args=(told, rate, latency), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{listening.recv()}"
    finally:
        process.kill()
        process.join()
