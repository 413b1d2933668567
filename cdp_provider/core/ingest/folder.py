# SPDX-License-Identifier: Apache-2.0
"""A folder of files, on this machine or in any object storage: what is there, and how it is brought here."""

from __future__ import annotations

import hashlib
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeAlias

from cdp_provider.core.exceptions import (
    AccessError,
    CdpError,
    ConfigurationError,
    NotFoundError,
    UnavailableError,
)
from cdp_provider.core.ingest.base import FileKey

if TYPE_CHECKING:
    from collections.abc import Iterator

#: What file systems call an etag or the time of the last change.
_MODIFIED = ("ETag", "etag", "mtime", "LastModified", "last_modified", "updated", "modified")

Info: TypeAlias = "dict[str, Any]"


@dataclass(frozen=True, order=True)
class Entry:
    """A file as a listing shows it.

    :param name: relative to the folder, with ``/``.
    :param size: bytes.
    :param modified: see :class:`~cdp_provider.core.ingest.base.FileKey`.
    :param place: how the file system itself calls it.
    """

    name: str
    size: int
    modified: str | None = field(compare=False)
    place: Any = field(compare=False, repr=False)

    @property
    def state(self) -> tuple[str, int, str | None]:
        """What stays equal as long as nobody writes to the file."""
        return self.name, self.size, self.modified


class Folder:
    """The files below a root; the one place that knows what a file system is.

    :param root: a path on this machine, or an ``airflow.sdk.ObjectStoragePath`` (or any other ``UPath``).
    """

    def __init__(self, root: Any) -> None:
        if getattr(root, "protocol", "file") in ("", "file", "local"):
            self._tree: _Local | _Store = _Local(Path(getattr(root, "path", root)))
        else:
            self._tree = _Store(root)
        #: For messages: a path, or an address without whoever opens it.
        self.address = self._tree.address

    def find(self, pattern: str) -> list[Entry]:
        """The files that match, by name. Those whose name starts with a dot are left out.

        :param pattern: ``*``, ``?``, ``[...]`` and ``**`` match as in a shell.
        :raises NotFoundError: there is no such folder.
        :raises AccessError: the storage refuses us.
        :raises UnavailableError: the storage does not answer.
        :raises ConfigurationError: a link leads out of the folder.
        """
        with self._answering():
            found = sorted(entry for entry in self._tree.find(pattern) if not _hidden(entry.name))
            if not found and not self._tree.exists():
                msg = f"the folder {self._tree.address} does not exist; create it, or correct the path"
                raise NotFoundError(msg)
        return found

    def copy(self, entry: Entry, target: Path) -> FileKey | None:
        """Bring a file here.

        :returns: its key, from the very bytes that went to `target`; None where the file is being written
            right now, or has gone.
        :raises AccessError: the storage refuses us.
        :raises UnavailableError: the storage does not answer.
        """
        with self._answering():
            try:
                self._tree.copy(entry, target)
                whole = self._tree.whole or self._tree.look(entry).state == entry.state
            except FileNotFoundError:
                return None
        with target.open("rb") as copied:
            checksum = hashlib.file_digest(copied, "sha256").hexdigest()
        size = target.stat().st_size
        if not whole or (size != entry.size and not self._tree.whole):
            return None
        return FileKey(entry.name, size, checksum, entry.modified)

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """Faults of whatever file system it is, as errors of ours."""
        try:
            yield
        except CdpError:
            raise
        except FileNotFoundError as error:
            msg = f"{self._tree.address} does not exist; create it, or correct the path"
            raise NotFoundError(msg) from error
        except PermissionError as error:
            msg = f"we may not read {self._tree.address}; permit it, or correct the connection"
            raise AccessError(msg) from error
        except NotADirectoryError as error:
            msg = f"{self._tree.address} is no folder; name the folder, and the file in the stream's path"
            raise ConfigurationError(msg) from error
        # Every library of a file system has its own exceptions, and few of them are an OSError.
        except Exception as error:
            msg = f"{self._tree.address} cannot be read right now ({type(error).__name__})"
            raise UnavailableError(msg) from error


class _Local:
    """Files on this machine."""

    #: What is read is what somebody has written in one piece.
    whole = False

    def __init__(self, root: Path) -> None:
        self._root = root
        self.address = str(root)

    def exists(self) -> bool:
        return self._root.is_dir()

    def find(self, pattern: str) -> Iterator[Entry]:
        top = self._root.resolve()
        for path in self._root.glob(pattern):
            if not path.is_file() or _hidden(path.name):
                continue
            name = path.relative_to(self._root).as_posix()
            if not path.resolve().is_relative_to(top):
                msg = f"{name!r} is a link that leads out of {self._root}; put the file itself there"
                raise ConfigurationError(msg)
            yield self._entry(name, path)

    def look(self, entry: Entry) -> Entry:
        return self._entry(entry.name, entry.place)

    def copy(self, entry: Entry, target: Path) -> None:
        shutil.copyfile(entry.place, target)

    def _entry(self, name: str, path: Path) -> Entry:
        found = path.stat()
        return Entry(name, found.st_size, str(found.st_mtime_ns), path)


class _Store:
    """Files behind an fsspec file system."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._top = str(root.path).rstrip("/")
        self.address = f"{root.protocol}://{self._top}"
        # Where paths start with a bucket, objects appear and change as a whole and folders are made up.
        self.whole = not self._top.startswith("/")

    @cached_property
    def _fs(self) -> Any:
        """Some connect as soon as they are there, so a fault of that is one of a call."""
        return self._root.fs

    def exists(self) -> bool:
        """Whether there is such a folder. A bucket's folders need not be there before the first file is."""
        return bool(self._fs.exists(self._top.partition("/")[0] or self._top or "/"))

    def find(self, pattern: str) -> Iterator[Entry]:
        # A listing that was remembered from a look before would hide what has come since.
        self._fs.invalidate_cache()
        if not names_many(pattern):
            info = self._info(f"{self._top}/{pattern}")
            infos = {pattern: info} if info else {}
        else:
            infos = dict(self._below("", PurePosixPath(pattern).parts))
        for name, info in infos.items():
            if info["type"] == "file":
                yield _entry(name, info)

    def look(self, entry: Entry) -> Entry:
        self._fs.invalidate_cache()
        return _entry(entry.name, self._fs.info(entry.place))

    def copy(self, entry: Entry, target: Path) -> None:
        self._fs.get_file(entry.place, str(target))

    def _below(self, folder: str, parts: tuple[str, ...]) -> Iterator[tuple[str, Info]]:
        """Names and infos of what matches below a folder that is given relative to the top."""
        head, rest = parts[0], parts[1:]
        if head == "**" and self.whole:
            yield from self._flat(folder, parts)
        elif head == "**":
            yield from self._below(folder, rest)
            for name, info in self._ls(folder):
                if info["type"] == "directory":
                    yield from self._below(name, parts)
        elif rest and not names_many(head):
            yield from self._below(f"{folder}{head}/", rest)
        else:
            for name, info in self._ls(folder):
                if not fnmatchcase(PurePosixPath(name).name, head):
                    continue
                if rest and info["type"] == "directory":
                    yield from self._below(name, rest)
                elif not rest:
                    yield name, self._followed(info)

    def _flat(self, folder: str, parts: tuple[str, ...]) -> Iterator[tuple[str, Info]]:
        """All objects with the prefix of a folder, without asking for each folder below it."""
        for place, info in self._fs.find(f"{self._top}/{folder}".rstrip("/"), detail=True).items():
            name = place[len(self._top) + 1 :]
            if _matches(PurePosixPath(name[len(folder) :]).parts, parts):
                yield name, info

    def _ls(self, folder: str) -> Iterator[tuple[str, Info]]:
        """The direct children of a folder; a folder's name ends with a slash."""
        place = f"{self._top}/{folder}".rstrip("/")
        try:
            infos = self._fs.ls(place or "/", detail=True)
        except FileNotFoundError:
            return
        for info in infos:
            child = str(info["name"]).rstrip("/")
            if child != place:  # some stores list a folder as its own first child
                end = "/" if info["type"] == "directory" else ""
                yield f"{folder}{PurePosixPath(child).name}{end}", info

    def _followed(self, info: Info) -> Info:
        """What a link leads to."""
        return self._info(info["name"]) or info if info["type"] == "link" else info

    def _info(self, place: str) -> Info | None:
        try:
            return {"name": place, **self._fs.info(place)}
        except FileNotFoundError:
            return None


def _entry(name: str, info: Info) -> Entry:
    value = next((info[key] for key in _MODIFIED if info.get(key) is not None), None)
    if isinstance(value, datetime):
        value = value.isoformat()
    return Entry(name, int(info["size"] or 0), None if value is None else str(value), info["name"])


def _hidden(name: str) -> bool:
    return PurePosixPath(name).name.startswith(".")


def names_many(pattern: str) -> bool:
    """Whether more than one file may match."""
    return any(mark in pattern for mark in "*?[")


def _matches(parts: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_matches(parts[n:], pattern[1:]) for n in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])
