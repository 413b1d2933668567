# SPDX-License-Identifier: Apache-2.0
"""Files in a folder or an object storage: CSV, NDJSON, JSON or Parquet; each file is landed once."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeAlias, cast

import pyarrow as pa
from pydantic import AfterValidator, StringConstraints

from cdp_provider.core.exceptions import DataError, NotFoundError
from cdp_provider.core.ingest.base import Connector, Cursor, Fetched, FileKey, RawFile
from cdp_provider.core.ingest.document import write_records
from cdp_provider.core.ingest.folder import Entry, Folder, names_many
from cdp_provider.core.ingest.segment import EventOptions, as_calls

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from cdp_provider.core.project.base import Options
    from cdp_provider.core.project.streams import Stream
    from cdp_provider.core.run import Window

#: Files that are brought at the same time: an object storage answers slowly, and many at once.
_AT_ONCE = 8

Compression: TypeAlias = Literal["", "gzip", "zstd"]
_ENDINGS: dict[str, Compression] = {".gz": "gzip", ".zst": "zstd"}


def _relative(pattern: str) -> str:
    path = PurePosixPath(pattern)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        msg = (
            f"{pattern!r} must lie below the folder of the connection: write it without a leading / and"
            " without .., such as 'orders/*.csv'"
        )
        raise ValueError(msg)
    if any("**" in part and part != "**" for part in path.parts) or path.parts[-1] == "**":
        msg = f"{pattern!r} is no pattern: ** stands alone between two /, as in 'orders/**/*.csv'"
        raise ValueError(msg)
    return pattern


class FileOptions(EventOptions):
    """How a stream of files is read.

    :param path: relative to the connection's folder; ``*``, ``?``, ``[...]`` and ``**`` match as in a shell.
        Files that start with a dot are left alone: they are uploads under way.
    :param format: NDJSON is one object per line; JSON is one document per file; CSV has a header line and RFC
        4180 quoting.
    :param compression: ``auto`` goes by the name, ``.gz`` or ``.zst``.
    :param records: of JSON: dotted path of the list of records; empty when the document is the list.
    :param delimiter: of CSV.
    :param null: the unquoted CSV text that means "no value"; quoted, it is a text like any other.
    """

    path: Annotated[str, AfterValidator(_relative)]
    format: Literal["ndjson", "json", "csv", "parquet"]
    compression: Literal["auto", "none", "gzip", "zstd"] = "auto"
    records: str = ""
    delimiter: Annotated[str, StringConstraints(pattern=r'^[^"\r\n\x00\x80-\U0010ffff]$')] = ","
    null: str = ""

    def model_post_init(self, context: Any, /) -> None:
        """Refuse what the format does not have."""
        if self.records and self.format != "json":
            msg = f"records is given, and only format json has a list of records inside, not {self.format}"
            raise ValueError(msg)
        if self.format == "parquet" and self.compression not in ("auto", "none"):
            msg = "a Parquet file is compressed inside; leave compression out"
            raise ValueError(msg)

    def compression_of(self, name: str) -> Compression:
        """How the file of that name is compressed."""
        if self.compression == "auto":
            return _ENDINGS.get(PurePosixPath(name).suffix, "")
        return "" if self.compression == "none" else self.compression


class FilesConnector(Connector):
    """Brings every matching file that no other batch has landed.

    A file whose content changed is a new one: its rows are landed again, and of each primary key the newest
    row counts. A file that changes while it is read waits for the next batch.

    :param root: the folder that the options' ``path`` is relative to: see
        :class:`~cdp_provider.core.ingest.folder.Folder`.
    """

    options: ClassVar[type[Options]] = FileOptions
    reaches = "folder"

    def __init__(self, root: Any) -> None:
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
        keys = [FileKey(*key) for key in taken]
        contents = {key[:3] for key in keys}
        listed = self._folder.find(options.path)
        if not listed and not names_many(options.path):
            msg = (
                f"the file {options.path!r} does not exist below {self._folder.address}; put it there, or"
                " correct the path"
            )
            raise NotFoundError(msg)
        fresh = unseen(listed, keys)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            found = pool.map(self._folder.copy, fresh, [spool / f"{n:06d}" for n in range(len(fresh))])
        files, changing = [], 0
        for number, key in enumerate(found):
            path = spool / f"{number:06d}"
            if key is None:
                changing += 1
            elif key[:3] not in contents:
                files.append(_raw_file(options, path, key))
                continue
            path.unlink(missing_ok=True)
        detail = {"files": len(files), "files_matched": len(listed)}
        if changing:
            detail["files_changing"] = changing
        total = sum(file.key.size for file in files if file.key)
        return as_calls(options, Fetched(files, bytes=total, detail=detail), spool)


def unseen(listed: Sequence[Entry], taken: Collection[FileKey]) -> list[Entry]:
    """The files that do not look like one of `taken`; their content may still be a known one."""
    known = {(key.path, key.size, key.modified) for key in taken if key.modified is not None}
    return [entry for entry in listed if entry.state not in known]


def _raw_file(options: FileOptions, path: Path, key: FileKey) -> RawFile:
    compression = options.compression_of(key.path)
    if options.format == "parquet" and compression:
        msg = f"{key.path} is a Parquet file inside {compression}, which no reader takes; upload it as it was"
        raise DataError(msg)
    if options.format == "json":
        document, path = path, path.with_suffix(".ndjson")
        document = _unpacked(document, compression, key.path)
        write_records(document, path, source=key.path, records=options.records)
        document.unlink()
        compression = ""
    return RawFile(
        path=path,
        source=key.path,
        format="ndjson" if options.format == "json" else options.format,
        compression=compression,
        key=key,
        delimiter=options.delimiter,
        null=options.null,
    )


def _unpacked(path: Path, compression: Compression, source: str) -> Path:
    if not compression:
        return path
    target = path.with_suffix(".json")
    try:
        with pa.input_stream(str(path), compression=compression) as packed, target.open("wb") as plain:
            shutil.copyfileobj(packed, plain, 1 << 20)
    except OSError as error:
        msg = (
            f"{source} is not a whole {compression} file; upload it again, or name its compression in the"
            " stream's options"
        )
        raise DataError(msg) from error
    path.unlink()
    return target
