# SPDX-License-Identifier: Apache-2.0
"""Lists inside the rows of a stream as a stream of their own: the items of orders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, cast

import orjson
from pydantic import Field, StringConstraints

from cdp_provider.core.exceptions import ConfigurationError
from cdp_provider.core.ingest.base import Connector, Cursor, Fetched, FileKey, RawFile
from cdp_provider.core.ingest.conversion import quote_long_numbers
from cdp_provider.core.ingest.nested_rows import Parents, Version
from cdp_provider.core.project.base import ColumnName, Options
from cdp_provider.core.project.problems import Problem, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
    from pathlib import Path

    from cdp_provider.core.project.problems import Path as Place
    from cdp_provider.core.project.streams import Stream
    from cdp_provider.core.run import Window
    from cdp_provider.core.warehouse import Warehouse

_REFERENCE = r"^[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*$"
#: What an element that is no object is called.
_VALUE = "value"


class NestedOptions(Options):
    """Which list becomes a stream.

    :param of: the stream that holds it, as ``source.stream``.
    :param column: its column of type json; ``list`` in YAML.
    :param parent_key: columns that tell the rows of that stream apart; in a project its primary key.
    """

    of: Annotated[str, StringConstraints(pattern=_REFERENCE)]
    column: ColumnName = Field(alias="list")
    parent_key: tuple[ColumnName, ...] = ()

    def by_arrival(self) -> bool:
        return True

    def after(self) -> tuple[str, ...]:
        return (self.of,)

    def beside(self, streams: Mapping[str, Any]) -> Options:
        parent = streams.get(self.of)
        if parent is None or self.parent_key:
            return self
        return self.model_copy(update={"parent_key": parent.primary_key})

    def project_problems(
        self, stream: Any, find: Callable[[str, Place], tuple[Any, list[Problem]]]
    ) -> Iterator[Problem]:
        parent, problems = find(self.of, ("of",))
        yield from problems
        if parent is None:
            return
        column = parent.columns.get(self.column)
        if column is None:
            message = f"the stream {self.of} has no column {self.column!r}"
            yield Problem(("list",), message, did_you_mean(self.column, parent.columns))
        elif column.type != "json":
            message = f"the column {self.column!r} of {self.of} is {column.type}; lists are of type json"
            yield Problem(("list",), message, f"declare {self.column!r} as json")
        yield from self._key_problems(parent)
        if parent.optional and not stream.optional:
            message = f"{self.of} is optional, so its lists may be missing too"
            yield Problem(("of",), message, f"declare {stream.ref} as optional")

    def _key_problems(self, parent: Any) -> Iterator[Problem]:
        for name in self.parent_key:
            if name not in parent.columns:
                message = f"the stream {self.of} has no column {name!r}"
                yield Problem(("parent_key",), message, did_you_mean(name, parent.columns))


class NestedConnector(Connector):
    """Writes a line per element of the lists in those rows of the parent that are new and the newest of
    their key; what an earlier version of such a row held and this one does not counts as deleted.

    :param warehouse: where the parent is landed.
    """

    options: ClassVar[type[Options]] = NestedOptions
    reaches = "warehouse"

    def __init__(self, warehouse: Warehouse) -> None:
        self._warehouse = warehouse

    def fetch(
        self,
        stream: Stream,
        cursor: Cursor | None,
        window: Window,
        spool: Path,
        *,
        taken: Collection[FileKey] = (),  # rows are no files
        until: Cursor | None = None,
    ) -> Fetched:
        options = cast("NestedOptions", stream.options)
        before = cursor if cursor and cursor.get("of") == options.of else {}
        after = int(before.get("load_id", 0))
        bound = until.get("load_id") if until and until.get("of") == options.of else None
        key = _Key(stream, options)
        with self._warehouse.session() as session:
            parents = Parents(session, options.of, options.column, key.parent, key.columns)
            parents.choose(window, after, bound)
            newest, old = parents.newest(), parents.replaced()
            reached = max(after, parents.highest)
        path = spool / "elements.ndjson"
        with path.open("wb", buffering=1 << 20) as file:
            # An element that has moved to another row comes after its deletion here.
            removed = _write(file, _removals(old, key))
            elements = _write(file, _elements(newest))
        return Fetched(
            [RawFile(path, f"{options.of}.{options.column}", "ndjson", clean=True)],
            cursor={"of": options.of, "load_id": reached},
            bytes=path.stat().st_size,
            detail={"parents": parents.rows, "elements": elements, "removed": removed},
        )


class _Key:
    """The child's primary key: how it is read from a record, and what it takes from the parent."""

    def __init__(self, stream: Stream, options: NestedOptions) -> None:
        names = [stream.columns[name].path or name for name in stream.primary_key]
        self._paths = [tuple(path.split(".")) for path in names]
        inherited = [path[1] for path in self._paths if path[0] == "_parent" and len(path) > 1]
        #: Columns of the parent that are in the child's key.
        self.columns = tuple(dict.fromkeys(inherited))
        #: Columns that tell parents apart.
        self.parent = options.parent_key or self.columns
        if not self.parent:
            msg = (
                f"{stream.ref} does not say which columns tell the rows of {options.of} apart; name them"
                " under parent_key"
            )
            raise ConfigurationError(msg)

    def of(self, element: Mapping[str, Any], parent: Mapping[str, Any], index: int) -> tuple[str, ...] | None:
        """The key as texts, as 1 and "1" may be the same once landed; None where a part is missing."""
        record = {**element, "_parent": parent, "_index": index}
        values = [_dig(record, path) for path in self._paths]
        return None if None in values else tuple(map(str, values))


def _dig(value: Any, path: Iterable[str]) -> Any:
    for part in path:
        if isinstance(value, orjson.Fragment):
            value = orjson.loads(orjson.dumps(value))
        if isinstance(value, list) and part.isdecimal():
            value = value[int(part)] if int(part) < len(value) else None
        else:
            value = value.get(part) if isinstance(value, dict) else None
    return value


def _elements(newest: Iterable[Version]) -> Iterator[dict[str, Any]]:
    for version in newest:
        parent = orjson.Fragment(orjson.dumps(version.parent, default=str))
        for index, element in enumerate(_read(version.text)):
            yield {**element, "_parent": parent, "_index": index}


def _removals(old: Iterable[tuple[Version, str | None]], key: _Key) -> Iterator[dict[str, Any]]:
    """What rows held before and hold no more. One row may have had many versions."""
    told: set[tuple[str, ...]] = set()
    for version, text in old:
        # Of a deleted row only the old one can be told.
        kept = {key.of(element, version.now, index) for index, element in enumerate(_read(text))}
        for index, element in enumerate(_read(version.text)):
            gone = key.of(element, version.parent, index)
            if gone is not None and gone not in kept and gone not in told:
                told.add(gone)
                yield {**element, "_parent": version.parent, "_index": index, "_deleted": True}


def _read(text: str | None) -> list[dict[str, Any]]:
    """The elements of a list. A lone value stands for a list of one, as many systems write it."""
    value = None if text is None else orjson.loads(quote_long_numbers(text.encode()))
    if value is None:
        return []
    listed = value if isinstance(value, list) else [value]
    return [element if isinstance(element, dict) else {_VALUE: element} for element in listed]


def _write(file: Any, records: Iterable[dict[str, Any]]) -> int:
    count = 0
    for count, record in enumerate(records, 1):  # noqa: B007 - the count is what is returned
        file.write(orjson.dumps(record, default=str, option=orjson.OPT_APPEND_NEWLINE))
    return count
