# SPDX-License-Identifier: Apache-2.0
"""JSON over HTTP: paged, incremental, patient with a service that is throttled or has a bad moment."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from cdp_provider.core.exceptions import ConfigurationError
from cdp_provider.core.http import Endpoint, HttpClient
from cdp_provider.core.ingest.base import Connector, Cursor, Fetched, FileKey, RawFile
from cdp_provider.core.ingest.http_options import HttpOptions
from cdp_provider.core.ingest.http_requests import Requests
from cdp_provider.core.ingest.http_walk import Patience, Walk
from cdp_provider.core.ingest.http_window import form_of, stretches
from cdp_provider.core.ingest.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path
    from typing import Any, BinaryIO

    from cdp_provider.core.ingest.http_window import Stretch
    from cdp_provider.core.project.base import Options
    from cdp_provider.core.project.streams import Stream
    from cdp_provider.core.run import Window

__all__ = ["HttpConnector", "HttpOptions", "Patience"]


class HttpConnector(Connector):
    """Reads pages of one endpoint into an NDJSON file, one record per line, number for number.

    Records whose cursor value lies at or past the end of the window are left for the next one, and the cursor
    never passes it.
    """

    options: ClassVar[type[Options]] = HttpOptions
    reaches = "endpoint"

    def __init__(self, endpoint: Endpoint, *, patience: Patience | None = None) -> None:
        self._endpoint = endpoint
        self._patience = patience or Patience()

    def fetch(
        self,
        stream: Stream,
        cursor: Cursor | None,
        window: Window,
        spool: Path,
        *,
        taken: Collection[FileKey] = (),  # pages are no files
        until: Cursor | None = None,
    ) -> Fetched:
        options = cast("HttpOptions", stream.options)
        progress = _progress(stream, options, cursor, window, until)
        path = spool / "pages.ndjson"
        asked = 0
        with HttpClient(self._endpoint) as client, path.open("wb") as file:
            walk = Walk(client, options, self._patience)
            for stretch in stretches(stream, options, progress, window):
                asked += 1
                walk.read(Requests(options, stretch), _taker(file, stretch, progress, walk.what))
        counts = {"stretches": asked} if options.window else {}
        return Fetched(
            [RawFile(path, walk.what, "ndjson", clean=True)],
            cursor=progress.cursor() if progress else None,
            bytes=walk.received,
            detail={"requests": walk.requests, **counts, **(progress.counts() if progress else {})},
        )


def _progress(
    stream: Stream, options: HttpOptions, cursor: Cursor | None, window: Window, until: Cursor | None
) -> Progress | None:
    for problem in options.stream_problems(stream):
        raise ConfigurationError(problem.message)
    if options.cursor is None:
        return None
    column = stream.columns[options.cursor.column]
    return Progress(
        options.cursor.column,
        column,
        window.end,
        cursor,
        until=until,
        overlap=options.cursor.overlap,
        form=form_of(options, column),
        stop=options.cursor.stop,
    )


def _taker(
    file: BinaryIO, stretch: Stretch, progress: Progress | None, what: str
) -> Callable[[list[Any], list[bytes]], bool]:
    """A function that writes what is to be landed of a page, and tells whether to read on."""

    def take(records: list[Any], lines: list[bytes]) -> bool:
        kept = lines if progress is None else progress.admit(records, lines)
        if kept:
            file.write(b"\n".join(kept) + b"\n")
        seen = progress.take_span() if progress else None
        stretch.check(seen, what)
        return seen is None or stretch.stop is None or bool(seen[0] >= stretch.stop)

    return take
