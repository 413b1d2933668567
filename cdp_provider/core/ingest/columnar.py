# SPDX-License-Identifier: Apache-2.0
"""Parquet files as records of named fields, in text: then the rules for values are the same as everywhere."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cdp_provider.core.exceptions import DataError
from cdp_provider.core.ingest.lines import BadRow, Block, Numbers

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cdp_provider.core.ingest.base import RawFile
    from cdp_provider.core.ingest.lines import Origins

#: Rows read at a time.
_ROWS = 50_000


class _FieldsBlock(Block):
    """Its records have no text of their own."""

    def raw(self, position: int) -> str:
        """A record as a JSON object of texts; fields without a value are left out."""
        index = int(np.searchsorted(self.table["_position"].to_numpy(), position))
        row = self.table.slice(index, 1).to_pylist()[0]
        values = {name: row[f"f{i}"] for i, name in enumerate(self.header)}
        return json.dumps({name: value for name, value in values.items() if value is not None})


def parquet_blocks(files: Iterable[RawFile], origins: Origins) -> Iterator[Block]:
    """The rows of Parquet files; a position is the number of a row over all of them.

    :raises DataError: a file is no Parquet.
    """
    taken = 0
    with duckdb.connect(":memory:") as engine:
        engine.execute("set TimeZone = 'UTC'")
        for file in files:
            origins.begin(file.source, taken)
            for rows in _read(file):
                names = rows.schema.names
                # Names that differ in case only are the same to DuckDB.
                engine.register("rows", rows.rename_columns([f"c{i}" for i in range(len(names))]))
                fields = ", ".join(
                    f"{_text(field.type, f'c{i}')} as f{i}" for i, field in enumerate(rows.schema)
                )
                table = engine.sql(f"select {fields} from rows").to_arrow_table()
                engine.unregister("rows")
                positions = np.arange(taken + 1, taken + 1 + table.num_rows)
                table = table.add_column(0, "_position", pa.array(positions))
                nested = frozenset(field.name for field in rows.schema if _is_nested(field.type))
                yield _block(table, tuple(names), file.source, nested)
                taken += len(positions)


def _block(table: pa.Table, header: tuple[str, ...], source: str, nested: frozenset[str]) -> Block:
    none: Numbers = np.empty(0, np.int64)
    block = _FieldsBlock(b"", table, none, none, [], header, source, nested)
    odd = np.zeros(table.num_rows, bool)
    for name in table.column_names[1:]:
        odd |= pc.match_substring(table[name], "\0").fill_null(False).to_numpy(zero_copy_only=False)
    if odd.any():
        places = table["_position"].to_numpy()[odd]
        block.bad += [BadRow(int(place), "holds a NUL character", block.raw(place)) for place in places]
        block.table = table.filter(pa.array(~odd))
    return block


def _read(file: RawFile) -> Iterator[pa.Table]:
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file.path) as parquet:
            for batch in parquet.iter_batches(batch_size=_ROWS):
                yield pa.Table.from_batches([batch])
    except pa.ArrowInvalid as error:
        msg = f"{file.source} is no whole Parquet file; upload it again, or correct the stream's `format`"
        raise DataError(msg) from error


def _text(kind: pa.DataType, name: str) -> str:
    """SQL of a field's value as the text that the rules for values read."""
    if _is_nested(kind):
        return f"cast(to_json({name}) as varchar)"
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return f"to_base64({name})"
    return f"cast({name} as varchar)"


def _is_nested(kind: pa.DataType) -> bool:
    return bool(pa.types.is_nested(kind))
