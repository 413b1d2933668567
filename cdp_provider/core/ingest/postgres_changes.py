# SPDX-License-Identifier: Apache-2.0
"""Changes of a table into CSV files: chunks of messages in, lines out."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from psycopg import sql

from cdp_provider.core.ingest.pgoutput import Rows, Truncated
from cdp_provider.core.ingest.postgres_table import session

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from typing import BinaryIO

    import psycopg

    from cdp_provider.core.ingest.pgoutput import Decoder, Mask
    from cdp_provider.core.ingest.postgres_table import Table

#: A chunk: so many messages or bytes, whichever comes first.
_MESSAGES, _BYTES = 20_000, 8 << 20
#: Header of COPY's binary format, and what stands before the one value of each row: count and length.
_HEADER, _FRAME = 19, 6
#: Rows whose values are looked up with one statement; each may be long.
_LOOKED_UP = 500
_SPECIAL = '["\r\n,]|^$'


class Messages:
    """What COPY sends, row by row, given to a decoder by the chunk."""

    def __init__(self, decoder: Decoder, file: ChangesFile) -> None:
        self._decoder = decoder
        self._file = file
        self._held: list[Any] = []
        self._size = 0
        self._begun = False
        #: Received so far.
        self.bytes = 0

    def write(self, row: Any) -> int:
        """Take what the server sent with one message of its own."""
        self._held.append(row)
        self._size += len(row)
        if len(self._held) >= _MESSAGES or self._size >= _BYTES:
            self.flush()
        return len(row)

    def flush(self) -> None:
        """Hand over what is held."""
        held = self._held
        if not self._begun and held:
            held[0] = held[0][_HEADER:]
            self._begun = True
        # The end of the whole is a frame without a value.
        held = [row for row in held if len(row) > _FRAME]
        self.bytes += self._size
        self._held, self._size = [], 0
        if not held:
            return
        lengths = np.fromiter(map(len, held), np.int64, len(held))
        for piece in self._decoder.decode(b"".join(held), np.cumsum(lengths) - lengths + _FRAME):
            self._file.take(piece)


class Lookup:
    """Finds values that the log does not repeat, in the table itself.

    They are long and did not change. What is found is the value as it is now; where that is another one than
    it was, a later change tells it once more. So does one for a row that is gone by now.

    :param key: columns of the primary key.
    """

    def __init__(self, connect: Callable[[], Any], table: Table, key: Sequence[str]) -> None:
        self._connect = connect
        self._table = table
        self._key = key
        self._opened = ExitStack()
        self._connection: psycopg.Connection[Any] | None = None
        #: Rows looked up so far.
        self.count = 0

    def fill(self, rows: Rows) -> None:
        """Fill in the missing values; rows that are gone count as deleted."""
        wanting = np.flatnonzero(np.logical_or.reduce(list(rows.missing.values())))
        for begin in range(0, len(wanting), _LOOKED_UP):
            self._fill(rows, wanting[begin : begin + _LOOKED_UP])

    def close(self) -> None:
        """Close the connection, if there was need of one."""
        self._opened.close()

    def _fill(self, rows: Rows, places: Any) -> None:
        self.count += len(places)
        names = [name for name in rows.missing if name in self._table.columns]
        keys = [[_text(value) for value in rows.columns[k].take(pa.array(places))] for k in self._key]
        found = {number - 1: values for number, *values in self._select(names, keys)}
        gone = [place for number, place in enumerate(places) if number not in found]
        rows.deleted[gone] = True
        for at, name in enumerate(names):
            here: Mask = np.zeros(len(rows.deleted), bool)
            here[[places[number] for number in found]] = True
            here &= rows.missing[name]
            values = [found[number][at] for number in sorted(found) if rows.missing[name][places[number]]]
            rows.columns[name] = pc.replace_with_mask(
                rows.columns[name], pa.array(here), pa.array(values, pa.binary())
            )

    def _select(self, names: Sequence[str], keys: list[list[str | None]]) -> list[tuple[Any, ...]]:
        if self._connection is None:
            # The one that the changes come from is busy.
            self._connection = self._opened.enter_context(session(self._connect))
        columns = [
            sql.SQL("case when t.{0} is not null then convert_to(format('%s', t.{0}), 'UTF8') end").format(
                sql.Identifier(name)
            )
            for name in names
        ]
        aliases = [sql.Identifier(f"k{number}") for number in range(len(self._key))]
        same = [
            sql.SQL("t.{} = o.{}").format(sql.Identifier(name), alias)
            for name, alias in zip(self._key, aliases, strict=True)
        ]
        # Bound values would take a % in a column's name for one of their marks.
        arrays = [
            sql.SQL("{}::{}[]").format(sql.Literal(values), sql.SQL(self._table.types[name]))
            for name, values in zip(self._key, keys, strict=True)
        ]
        statement = sql.SQL(
            "select {} from unnest({}) with ordinality as o({}, number) join {} t on {}"
        ).format(
            sql.SQL(", ").join([sql.SQL("o.number"), *columns]),
            sql.SQL(", ").join(arrays),
            sql.SQL(", ").join(aliases),
            self._table.sql,
            sql.SQL(" and ").join(same),
        )
        found: list[tuple[Any, ...]] = self._connection.execute(statement).fetchall()
        return found


class ChangesFile:
    """Rows as CSV, with a column ``_deleted``; a new file whenever their columns change."""

    def __init__(self, folder: Path, lookup: Lookup) -> None:
        self._folder = folder
        self._lookup = lookup
        self._names: tuple[str, ...] = ()
        self._file: BinaryIO | None = None
        self._paths: list[Path] = []
        #: The table was emptied on the way, so these are all rows that there are.
        self.emptied = False

    def take(self, piece: Rows | Truncated) -> None:
        """Write these rows, or forget all before."""
        if isinstance(piece, Truncated):
            for path in self.finish():
                path.unlink()
            self._paths, self.emptied = [], True
            return
        if piece.missing:
            self._lookup.fill(piece)
        names = tuple(piece.columns)
        file = self._file
        if file is None or names != self._names:
            file = self._begin(names)
        ends = pc.if_else(pa.array(piece.deleted), b"true\n", b"\n")
        lines = pc.binary_join_element_wise(*map(_field, piece.columns.values()), ends, b",")
        offsets = np.frombuffer(lines.buffers()[1], np.int32)[lines.offset :][: len(lines) + 1]
        file.write(memoryview(lines.buffers()[2])[offsets[0] : offsets[-1]])

    def finish(self) -> list[Path]:
        """Close what is open.

        :returns: the files, in order.
        """
        if self._file is not None:
            self._file.close()
            self._file = None
        return self._paths

    def _begin(self, names: tuple[str, ...]) -> BinaryIO:
        self.finish()
        path = self._folder / f"changes_{len(self._paths):06d}.csv"
        file = path.open("wb", buffering=1 << 20)
        self._paths.append(path)
        self._names, self._file = names, file
        header = _field(pa.array([name.encode() for name in names], pa.binary())).to_pylist()
        file.write(b",".join([*header, b"_deleted"]) + b"\n")
        return file


def _field(values: pa.Array) -> pa.Array:
    """Values as fields of a line: null is bare, an empty text is quoted."""
    special = pc.match_substring_regex(values, _SPECIAL)
    if pc.any(special).as_py():
        doubled = pc.replace_substring(values, b'"', b'""')
        values = pc.if_else(special, pc.binary_join_element_wise(b"", doubled, b"", b'"'), values)
    return pc.fill_null(values, b"")


def _text(value: Any) -> str | None:
    held = value.as_py()
    return None if held is None else held.decode()
