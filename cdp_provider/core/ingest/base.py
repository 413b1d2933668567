# SPDX-License-Identifier: Apache-2.0
"""What every connector does: bring raw input into files next to the worker, whatever the source is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from cdp_provider.core.project.base import Options
    from cdp_provider.core.project.streams import Stream
    from cdp_provider.core.run import Window

#: A file as ``files`` knows it: path, bytes, SHA-256.
FileKey: TypeAlias = tuple[str, int, str]
#: Where an incremental source goes on; JSON-serialisable, understood by its connector only.
Cursor: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class RawFile:
    """Raw input of one format, complete and readable by :mod:`~cdp_provider.core.ingest.parse`.

    :param path: where the bytes are now.
    :param source: what a reader of the quarantine should look for: a file's path, an endpoint.
    :param compressed: whether the bytes are gzip.
    :param key: set where the file itself is the unit of progress: it is landed once.
    :param delimiter: between the fields of a CSV line; one ASCII character.
    :param null: the unquoted CSV text that means "no value".
    """

    path: Path
    source: str
    format: Literal["ndjson", "csv"]
    compressed: bool = False
    key: FileKey | None = None
    delimiter: str = ","
    null: str = ""


@dataclass(frozen=True)
class Fetched:
    """What a connector brought.

    :param cursor: where the next batch starts; None for sources without one.
    :param bytes: as they came, before unpacking.
    :param detail: counts for the run ledger, such as ``requests`` or ``files``.
    """

    files: list[RawFile] = field(default_factory=list)
    cursor: Cursor | None = None
    bytes: int = 0
    detail: dict[str, Any] = field(default_factory=dict)


class Connector(ABC):
    """A kind of source. Built per task, with whatever it needs to reach the source."""

    #: What a stream of this kind declares.
    options: ClassVar[type[Options]]

    @abstractmethod
    def fetch(
        self,
        stream: Stream,
        cursor: Cursor | None,
        window: Window,
        spool: Path,
        *,
        taken: Collection[FileKey] = (),
    ) -> Fetched:
        """Bring everything that is new before ``window.end``. Opens no warehouse.

        :param cursor: of the batch before, None for the first one.
        :param spool: an empty folder for raw files; it goes away after the landing.
        :param taken: files that other batches have landed.
        :raises AccessError: the source refuses us.
        :raises NotFoundError: the path or endpoint does not exist.
        :raises RetryableError: the source is throttled or down, and stayed so.
        :raises DataError: the source answers in a form that the options do not describe.
        """
