# SPDX-License-Identifier: Apache-2.0
"""A JSON API in a process of its own, which does as little as it can: pages are stretches of NDJSON."""

from __future__ import annotations

import asyncio
import mmap
import multiprocessing
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection
    from pathlib import Path

#: Records of a page.
PAGE = 1000
_processes = multiprocessing.get_context("spawn")


class _Pages:
    """``/orders`` gives all records, page by page; ``/changed`` the first page, and none after a moment."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._starts = [0]
        for number in count(1):
            line = self._bytes.readline()
            if not line or number % PAGE == 0:
                self._starts.append(self._bytes.tell())
            if not line:
                break
        if self._starts[-1] == self._starts[-2]:
            self._starts.pop()

    async def orders(self, request: web.Request) -> web.Response:
        return self._page(int(request.query.get("after", "0")), len(self._starts) - 1)

    async def changed(self, request: web.Request) -> web.Response:
        return self._page(0, 0 if "since" in request.query else 1)

    def _page(self, number: int, end: int) -> web.Response:
        lines = b""
        if number < end:
            lines = self._bytes[self._starts[number] : self._starts[number + 1] - 1].replace(b"\n", b",")
        following = b'"%d"' % (number + 1) if number + 1 < end else b"null"
        body = b'{"data":[%b],"next":%b}' % (lines, following)
        return web.Response(body=body, content_type="application/json")


def _serve(told: Connection, path: Path) -> None:
    async def main() -> None:
        pages = _Pages(path)
        app = web.Application()
        app.router.add_get("/orders", pages.orders)
        app.router.add_get("/changed", pages.changed)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        told.send(runner.addresses[0][1])
        await asyncio.Event().wait()

    asyncio.run(main())


@contextmanager
def api(path: Path) -> Iterator[str]:
    """Its address, as long as it runs.

    :param path: of NDJSON.
    """
    listening, told = _processes.Pipe(duplex=False)
    process = _processes.Process(target=_serve, args=(told, path), daemon=True)
    process.start()
    told.close()
    try:
        yield f"http://127.0.0.1:{listening.recv()}"
    finally:
        process.kill()
        process.join()
