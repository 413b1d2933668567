# SPDX-License-Identifier: Apache-2.0
"""A stretch of CSV in which nothing is wrong, told as such for a fraction of what finding a fault costs.

Arrow's parser is fast and lenient: it takes a quote inside an unquoted field for a character, and text
behind a closing quote for a part of the field. So it is asked only for what has been seen to be free of both;
everything else is left to :mod:`~cdp_provider.core.ingest.delimited`, which finds the record to blame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from cdp_provider.core.ingest.lines import NEWLINE, QUOTE, RETURN, Numbers, line_spans, places

if TYPE_CHECKING:
    from cdp_provider.core.ingest.base import RawFile

#: Stands for each half of an escaped quote; text that holds it is not looked at here.
_HALF = b"\x01"


@dataclass(frozen=True)
class Sound:
    """Records without a fault.

    :param data: the text they stand in, from the beginning of what was given.
    :param table: one text column ``f<i>`` per field.
    :param lines: number of each record's first line, from 0.
    :param consumed_lines: in `data`.
    """

    data: bytes
    table: pa.Table
    starts: Numbers
    ends: Numbers
    lines: Numbers
    consumed_lines: int


def sound_records(data: bytes, width: int, file: RawFile, *, last: bool) -> Sound | None:
    """The whole records at the beginning of `data`; None when one of them may have a fault.

    :param width: fields per record; those of a single one can't be told from blank lines here.
    :param last: nothing follows, so the last record is whole without a line break.
    """
    if width == 1 or b"\0" in data or _HALF in data or not _is_text(data):
        return None
    if (returns := data.count(b"\r")) and data.count(b"\r\n") != returns:
        return None
    single = data.replace(b'""', 2 * _HALF)
    quotes = places(single, QUOTE)
    cut = _cut(data, quotes, last=last)
    quotes = quotes[: np.searchsorted(quotes, cut)]
    if not cut or not _well_placed(single[:cut], quotes, ord(file.delimiter)):
        return None
    data = data[:cut]
    starts, ends = line_spans(data)
    outside = np.searchsorted(quotes, ends) % 2 == 0
    lines = np.flatnonzero(np.concatenate([[True], outside[:-1]]))
    starts, count, ends = starts[lines], len(outside), ends[outside]
    try:
        table = read_fields(data, [f"f{i}" for i in range(width)], file, longest=int((ends - starts).max()))
    except pa.ArrowInvalid:  # a record of more or fewer fields
        return None
    pairs = single.count(_HALF, 0, cut) // 2
    if table.num_rows != len(starts) or (pairs and not _paired_inside(data, table, pairs, len(quotes), file)):
        return None
    return Sound(data, table, starts, ends, lines, count)


def read_fields(text: bytes, names: list[str], file: RawFile, *, longest: int) -> pa.Table:
    """Well-formed records as columns of text.

    :param longest: bytes of the longest record.
    :raises pa.ArrowInvalid: a record has more or fewer fields.
    """
    return pa_csv.read_csv(
        pa.py_buffer(text),
        read_options=pa_csv.ReadOptions(column_names=names, block_size=max(1 << 21, 2 * longest)),
        parse_options=pa_csv.ParseOptions(
            delimiter=file.delimiter, newlines_in_values=True, ignore_empty_lines=True
        ),
        convert_options=pa_csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()),
            null_values=[file.null],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _cut(data: bytes, quotes: Numbers, *, last: bool) -> int:
    """Where the last whole record ends; 0 when there is none."""
    if last:
        return len(data)
    cut = data.rfind(b"\n") + 1
    if np.searchsorted(quotes, cut) % 2:
        # The last quote before it has opened a field that goes on; its record begins a line, too.
        opened = quotes[np.searchsorted(quotes, cut) - 1]
        cut = data.rfind(b"\n", 0, int(opened)) + 1
    return cut


def _well_placed(single: bytes, quotes: Numbers, delimiter: int) -> bool:
    """Whether quotes open fields at their start and close them at their end."""
    if len(quotes) % 2:
        return False
    if not len(quotes):
        return True
    bytes_ = np.frombuffer(single, np.uint8)
    opening, closing = quotes[::2], quotes[1::2]
    before = np.where(opening > 0, bytes_[np.maximum(opening - 1, 0)], NEWLINE)
    after = np.where(closing < len(single) - 1, bytes_[np.minimum(closing + 1, len(single) - 1)], NEWLINE)
    opens = (before == delimiter) | (before == NEWLINE)
    closes = (after == delimiter) | (after == NEWLINE) | (after == RETURN)
    return bool(opens.all() and closes.all())


def _paired_inside(data: bytes, table: pa.Table, pairs: int, quotes: int, file: RawFile) -> bool:
    """Whether all pairs of quotes stand inside quoted fields, or are empty ones.

    Told by counting: bytes that are in no value are delimiters, line breaks, the quotes around fields and one
    of each escaped pair. A pair in an unquoted field takes none.
    """
    if file.null:
        return False  # empty fields with and without quotes look the same then
    inside, returns, empty = 0, data.count(b"\r"), 0
    for column in table.columns:
        lengths = pc.binary_length(column)
        inside += pc.sum(lengths).as_py() or 0
        empty += pc.sum(pc.equal(lengths, 0)).as_py() or 0
        for chunk in column.chunks if returns else ():
            returns -= bytes(chunk.buffers()[2] or b"").count(b"\r")
    breaks = table.num_rows - (not data.endswith(b"\n"))
    around = len(data) - inside - table.num_rows * (table.num_columns - 1) - breaks - returns
    return bool(pairs == around - quotes - empty)
