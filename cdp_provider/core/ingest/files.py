# SPDX-License-Identifier: Apache-2.0
"""Files in a folder: NDJSON or CSV, plain or gzip; each file is landed once."""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, cast

from pydantic import AfterValidator, StringConstraints

from cdp_provider.core.exceptions import ConfigurationError, NotFoundError
from cdp_provider.core.ingest.base import Connector, Cursor, Fetched, FileKey, RawFile
from cdp_provider.core.project.base import Options

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from cdp_provider.core.project.streams import Stream
    from cdp_provider.core.run import Window

_PIECE = 1 << 20


def _relative(pattern: str) -> str:
    path = PurePosixPath(pattern)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        msg = (
            f"{pattern!r} must lie below the folder of the connection: write it without a leading / and"
            " without .., such as 'orders/*.csv'"
        )
        raise ValueError(msg)
    return pattern


class FileOptions(Options):
    """How a stream of files is read.

    :param path: relative to the connection's folder; ``*``, ``?``, ``[...]`` and ``**`` match as in a shell.
        Files that start with a dot are left alone: they are uploads under way.
    :param format: NDJSON is one object per line; CSV has a header line and RFC 4180 quoting. A name that ends
        in ``.gz`` is unpacked.
    :param delimiter: of CSV.
    :param null: the unquoted CSV text that means "no value"; quoted, it is a text like any other.
    """

    path: Annotated[str, AfterValidator(_relative)]
    format: Literal["ndjson", "csv"]
    delimiter: Annotated[str, StringConstraints(pattern=r'^[^"\r\n\x00\x80-\U0010ffff]$')] = ","
    null: str = ""


class Folder:
    """Lists and opens the files below a root; the one place that knows what a file system is."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def names(self, pattern: str) -> list[str]:
        """Paths of matching files, relative to the root, sorted.

        :raises NotFoundError: there is no such folder, or no such file for a pattern that names just one.
        :raises ConfigurationError: a link leads out of the folder.
        """
        if not self.root.is_dir():
            msg = f"the folder {self.root} does not exist; create it, or correct the path of the connection"
            raise NotFoundError(msg)
        found = sorted(
            path.relative_to(self.root).as_posix()
            for path in self.root.glob(pattern)
            if path.is_file() and not path.name.startswith(".")
        )
        if not found and not any(mark in pattern for mark in "*?["):
            msg = f"the file {pattern!r} does not exist below {self.root}; put it there, or correct the path"
            raise NotFoundError(msg)
        top = self.root.resolve()
        for name in found:
            if not (top / name).resolve().is_relative_to(top):
                msg = f"{name!r} is a link that leads out of {self.root}; put the file itself into the folder"
                raise ConfigurationError(msg)
        return found

    def read(self, name: str) -> Iterator[bytes]:
        """The bytes of a file, piece by piece."""
        with (self.root / name).open("rb") as file:
            while piece := file.read(_PIECE):
                yield piece

    def size(self, name: str) -> int:
        """Bytes of a file."""
        return (self.root / name).stat().st_size


class FilesConnector(Connector):
    """Brings every matching file that no other batch has landed.

    A file whose content changed is a new one: its rows are landed again, and of each primary key the newest
    row counts.

    :param root: the folder that the options' ``path`` is relative to.
    """

    options: ClassVar[type[Options]] = FileOptions
    reaches = "folder"

    def __init__(self, root: str | Path) -> None:
        self._folder = Folder(root)

    def fetch(
        self,
        stream: Stream,
        cursor: Cursor | None,  # what is new, the ledger of files says
        window: Window,  # a file is landed with all its rows
        spool: Path,
        *,
        taken: Collection[FileKey] = (),
        until: Cursor | None = None,  # a file is landed with all its rows
    ) -> Fetched:
        options = cast("FileOptions", stream.options)
        known = {(name, size) for name, size, _ in taken}
        names = self._folder.names(options.path)
        files = []
        for number, name in enumerate(names):
            # Only a file that looks like a known one is read twice.
            seen = (name, self._folder.size(name)) in known
            if seen and self._copy(name, None) in taken:
                continue
            path = spool / f"{number:06d}"
            files.append(
                RawFile(
                    path=path,
                    source=name,
                    format=options.format,
                    compression="gzip" if name.endswith(".gz") else "",
                    key=self._copy(name, path),
                    delimiter=options.delimiter,
                    null=options.null,
                )
            )
        total = sum(file.key[1] for file in files if file.key)
        return Fetched(files, bytes=total, detail={"files": len(files), "files_matched": len(names)})

    def _copy(self, name: str, target: Path | None) -> FileKey:
        """The file's key, from the very bytes that go to `target`."""
        digest, size = hashlib.sha256(), 0
        pieces = self._folder.read(name)
        if target is None:
            for piece in pieces:
                digest.update(piece)
                size += len(piece)
        else:
            with target.open("wb") as copy:
                for piece in pieces:
                    digest.update(piece)
                    size += copy.write(piece)
        return name, size, digest.hexdigest()
