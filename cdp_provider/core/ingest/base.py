# SPDX-License-Identifier: Apache-2.0
"""What every connector does: bring raw input into files next to the worker, whatever the source is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from cdp_provider.core.project.base import Options
    from cdp_provider.core.project.streams import Stream
    from cdp_provider.core.run import Window


class FileKey(NamedTuple):
    """A file as ``files`` knows it.

    :param size: bytes, as they lie there.
    :param checksum: SHA-256 of these bytes.
    :param modified: what changes with the content, as the file system tells it: an etag, or the time of the
        last change. None where it tells nothing, and where the file changed while it was read.
    """

    path: str
    size: int
    checksum: str
    modified: str | None = None


#: Where an incremental source goes on; JSON-serialisable, understood by its connector only.
Cursor: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class RawFile:
    """Raw input of one format, complete and readable by :mod:`~cdp_provider.core.ingest.parse`.

    :param path: where the bytes are now.
    :param source: what a reader of the quarantine should look for: a file's path, an endpoint.
    :param key: set where the file itself is the unit of progress: it is landed once.
    :param compression: of the bytes; Parquet has its own inside.
    :param clean: NDJSON that we have written ourselves: each line is strict JSON, its numbers as they came.
    :param delimiter: between the fields of a CSV line; one ASCII character.
    :param null: the unquoted CSV text that means "no value".
    """

    path: Path
    source: str
    format: Literal["ndjson", "csv", "parquet"]
    compression: Literal["", "gzip", "zstd"] = ""
    clean: bool = False
    key: FileKey | None = None
    delimiter: str = ","
    null: str = ""


@dataclass(frozen=True)
class Fetched:
    """What a connector brought.

    :param cursor: where the next batch starts; None for sources without one.
    :param bytes: as they came, before unpacking.
    :param detail: counts for the run ledger, such as ``requests`` or ``files``.
    :param complete: these are all rows that the source has: what was landed before and is not among them is
        gone there, and counts as deleted.
    """

    files: list[RawFile] = field(default_factory=list)
    cursor: Cursor | None = None
    complete: bool = False
    bytes: int = 0
    detail: dict[str, Any] = field(default_factory=dict)


class Connector(ABC):
    """A kind of source. Built per task, with whatever it needs to reach the source: its one argument is what
    the property of ``SourceHook`` gives that :attr:`reaches` names.

    Where the options say :meth:`~Options.by_arrival`, a record with a true ``_deleted`` says that the row
    with its primary key is gone; its other columns may be missing.
    """

    #: What a stream of this kind declares.
    options: ClassVar[type[Options]]
    #: Property of ``SourceHook``: ``endpoint``, ``folder``, ``database``, ...
    reaches: ClassVar[str]
    #: False: what was confirmed can't be read again, so a batch that stands is not fetched anew.
    rereadable: ClassVar[bool] = True

    @abstractmethod
    def fetch(
        self,
        stream: Stream,
        cursor: Cursor | None,
        window: Window,
        spool: Path,
        *,
        taken: Collection[FileKey] = (),
        until: Cursor | None = None,
    ) -> Fetched:
        """Bring everything that is new before ``window.end``. Opens no warehouse (unless it is the source).

        :param cursor: of the batch before, None for the first one.
        :param until: where this very batch ended when it was landed before; a source whose records carry no
            time should be read no further.
        :param spool: an empty folder for raw files; it goes away after the landing.
        :param taken: files that other batches have landed.
        :raises AccessError: the source refuses us.
        :raises NotFoundError: the path or endpoint does not exist.
        :raises RetryableError: the source is throttled or down, and stayed so.
        :raises DataError: the source answers in a form that the options do not describe.
        """

    def confirm(self, stream: Stream, cursor: Cursor) -> None:  # noqa: B027 - most sources need not know
        """Tell the source that everything up to `cursor` is committed. A crash may leave it out, or repeat
        it."""
