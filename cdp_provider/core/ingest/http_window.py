# SPDX-License-Identifier: Apache-2.0
"""From when to when an HTTP source is asked."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from cdp_provider.core.exceptions import ConfigurationError, DataError
from cdp_provider.core.ingest.http_options import SINCE, UNTIL
from cdp_provider.core.ingest.moments import EPOCH, ceil, floor, read_day, reader, write

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cdp_provider.core.ingest.http_options import HttpOptions, Incremental
    from cdp_provider.core.ingest.moments import Form
    from cdp_provider.core.ingest.progress import Progress
    from cdp_provider.core.project.streams import Column, Stream
    from cdp_provider.core.run import Window

#: Values for placeholders as long as there is none.
_NOTHING: dict[str, Any] = {"integer": 0, "string": ""}

#: A source may count its days by another clock than ours.
_SLACK = timedelta(days=1)


@dataclass(frozen=True)
class Stretch:
    """What one walk through the pages asks for.

    :param since: the first value, as it is written; None: from the very beginning.
    :param until: the end of it, as it is written.
    :param span: both as moments, where the source is asked stretch by stretch.
    :param stop: the walk ends when a value below comes by; None: with the last page.
    """

    since: str | int | None
    until: str | int
    span: tuple[datetime, datetime] | None = None
    stop: Any = None

    def check(self, seen: tuple[Any, Any] | None, what: str) -> None:
        """Refuse a source that gives what it was not asked for: each stretch would bring everything.

        :param seen: the lowest and the highest value that came.
        :raises DataError: they lie outside.
        """
        if self.span is None or seen is None:
            return
        (first, last), (low, high) = self.span, seen
        if low < first - _SLACK or high > last + _SLACK:
            msg = (
                f"{what} was asked for {first.isoformat()} to {last.isoformat()} and gave records from"
                " outside; it ignores the places that `window` names, or goes by another time than"
                " cursor.column"
            )
            raise DataError(msg)


def form_of(options: HttpOptions, column: Column) -> Form | None:
    """How moments are written for the source; None: as it wrote them itself."""
    cursor, window = options.cursor, options.window
    asked = (window.format if window else None) or (cursor.format if cursor else None)
    if asked or column.type not in ("timestamp", "date"):
        return asked
    return "date" if column.type == "date" else column.format


def stretches(
    stream: Stream, options: HttpOptions, progress: Progress | None, window: Window
) -> Iterator[Stretch]:
    """The stretches of a batch, in order of time; one where the source is not asked stretch by stretch.

    :raises ConfigurationError: nothing says where to begin.
    """
    cursor = options.cursor
    if cursor is None or progress is None:
        yield Stretch(None, write(window.end, "iso"))
        return
    column = stream.columns[cursor.column]
    form = form_of(options, column)
    if options.window is None:
        until = write(ceil(window.end, form or "iso"), form or "iso")
        since = _since(options, column, progress, form)
        low = progress.floor
        if options.mentions(UNTIL) and isinstance(low, datetime) and low >= window.end:
            # The span would end before it begins. An earlier window than the last one asks for itself alone.
            if window.start is None:
                return
            since = write(window.start, form or "iso")
        yield Stretch(since, until, stop=_stop(cursor, column, progress))
        return
    first = _first(stream, options, progress, window)
    yield from _steps(first, window.end, options.window.step, form or "iso")


def _stop(cursor: Incremental, column: Column, progress: Progress) -> Any:
    if not cursor.stop:
        return None
    if progress.floor is not None or column.type in _NOTHING:
        return progress.floor
    return _start_of(cursor, column)


def _start_of(cursor: Incremental, column: Column) -> datetime | None:
    """The moment before which nothing is wanted as long as there is no cursor."""
    if cursor.start is None or column.type not in ("timestamp", "date"):
        return None
    moment = reader(None)(cursor.start)
    return moment or (reader(column.format) if column.type == "timestamp" else read_day)(cursor.start)


def _steps(first: datetime, end: datetime, step: timedelta, form: Form) -> Iterator[Stretch]:
    low = floor(first, form)
    while low < end:
        # What the form cannot tell of the last moment is asked for, and left for later by its own time.
        high = min(ceil(low + step, form), ceil(end, form))
        yield Stretch(write(low, form), write(high, form), (low, high))
        low = high


def _first(stream: Stream, options: HttpOptions, progress: Progress, window: Window) -> datetime:
    low = progress.floor
    if isinstance(low, datetime):
        # An earlier window than the last one (a backfill) asks for itself alone.
        return low if low < window.end or window.start is None else window.start
    declared = options.window.since if options.window else None
    moment = reader(None)(declared) if declared else None
    if moment is None and options.cursor:
        moment = _start_of(options.cursor, stream.columns[options.cursor.column])
    moment = moment or window.start
    if moment is None:
        msg = (
            f"{stream.ref} is asked stretch by stretch, and nothing says from when on: the run has no start;"
            " give `from` under `window`"
        )
        raise ConfigurationError(msg)
    return moment


def _since(options: HttpOptions, column: Column, progress: Progress, form: Form | None) -> str | int | None:
    if progress.text is not None:
        low = progress.floor
        plain = form == column.format or (column.type == "date" and form == "date")
        if not isinstance(low, datetime) or (plain and low == progress.highest):
            return progress.text  # type: ignore[no-any-return] # as the source wrote it
        return write(low, form or "iso")
    given = _written_start(options.cursor, column, form)
    if given is not None or not options.mentions(SINCE):
        return given
    return _NOTHING[column.type] if column.type in _NOTHING else write(EPOCH, form or "iso")


def _written_start(cursor: Incremental | None, column: Column, form: Form | None) -> str | int | None:
    if cursor is None or cursor.start is None:
        return None
    moment = _start_of(cursor, column)
    return cursor.start if moment is None or form is None else write(moment, form)
