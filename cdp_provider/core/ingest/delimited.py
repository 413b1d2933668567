# SPDX-License-Identifier: Apache-2.0
"""CSV by RFC 4180, strictly: the structure is found here for every record, so that no parser ever guesses.

A quote opens a field only at its start, and closes it only before a delimiter or the end; inside a field that
has begun without one it is a character like any other. What breaks that rule, or has not as many fields as
the header, is one bad row; the lines after it are read on as if it were not there.
"""

from __future__ import annotations

import csv
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from cdp_provider.core.exceptions import DataError
from cdp_provider.core.ingest.lines import (
    NEWLINE,
    QUOTE,
    RETURN,
    BadRow,
    Block,
    Bytes,
    Mask,
    Numbers,
    chunks,
    line_spans,
    not_blank,
    take_bad_text,
    text_of,
)
from cdp_provider.core.ingest.sound import Sound, read_fields, sound_records

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cdp_provider.core.ingest.base import RawFile
    from cdp_provider.core.ingest.lines import Origins

#: Longest stretch over which a quoted field may run; beyond it the quote counts as never closed.
MAX_QUOTED = 16 * 1024 * 1024
_NUL = "holds a NUL character"
_MISQUOTED = "a quote is not closed, or text follows a closing one"


@dataclass
class _Structure:
    """Records of a stretch of CSV: spans, the number of each one's first line, and what is wrong with it."""

    starts: Numbers
    ends: Numbers
    lines: Numbers
    faults: dict[int, str]
    consumed: int
    consumed_lines: int


def csv_blocks(files: Iterable[RawFile], origins: Origins) -> Iterator[Block]:
    """The records of CSV files after their headers, all fields as text.

    :raises DataError: a file has no header, or one that names a column twice.
    """
    taken = 0
    for file in files:
        origins.begin(file.source, taken)
        for block, lines in _file_blocks(file, taken + 1):
            yield block
            taken += lines


def _file_blocks(file: RawFile, number: int) -> Iterator[tuple[Block, int]]:
    """Blocks of one file, and how many lines each took."""
    rest, header, header_lines = b"", None, 0
    for chunk, last in chunks(file):
        data = rest + chunk
        if header is None:
            end = data.find(b"\n") + 1 or len(data)
            header = header_of(file, data[:end])
            data, number = data[end:], number + 1
            header_lines = 1
        sound = sound_records(data, len(header), file, last=last)
        if sound:
            block, lines = _sound_block(sound, header, file, number), sound.consumed_lines
            rest = data[len(sound.data) :]
        else:
            found = _structure(data, file.delimiter, len(header), last=last)
            block, lines = _block(data[: found.consumed], found, header, file, number), found.consumed_lines
            rest = data[found.consumed :]
        yield block, header_lines + lines
        number, header_lines = number + lines, 0


def _sound_block(sound: Sound, header: list[str], file: RawFile, first: int) -> Block:
    table = sound.table.add_column(0, "_position", pa.array(first + sound.lines))
    return Block(
        *(sound.data, table, sound.starts, sound.ends, []),
        header=tuple(header),
        source=file.source,
        format=format_of(header, file),
    )


def format_of(header: list[str], file: RawFile) -> str:
    """What one needs to know to read a line again."""
    return json.dumps({"fields": header, "delimiter": file.delimiter, "null": file.null})


def header_of(file: RawFile, line: bytes) -> list[str]:
    """The names of the fields, from the first line.

    :raises DataError: there are none, or one is there twice.
    """
    text = text_of(line)
    names = [name.strip() for name in next(csv.reader([text], delimiter=file.delimiter), [])]
    if not any(names):
        msg = f"{file.source} is empty or starts with a blank line; its first line must name the columns"
        raise DataError(msg)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        msg = f"{file.source} names the column {twice[0]!r} more than once in its header; rename one of them"
        raise DataError(msg)
    return names


def _block(data: bytes, found: _Structure, header: list[str], file: RawFile, first: int) -> Block:
    for index in take_bad_text(data, found.starts, found.ends):
        found.faults[int(index)] = "not UTF-8 text"
    bad = [
        BadRow(first + int(found.lines[i]), reason, text_of(data[found.starts[i] : found.ends[i]]))
        for i, reason in sorted(found.faults.items())
    ]
    good = np.ones(len(found.starts), bool)
    good[list(found.faults)] = False
    starts, ends = found.starts[good], found.ends[good]
    table = _fields(data, starts, ends, header, file)
    table = table.add_column(0, "_position", pa.array(first + found.lines[good]))
    return Block(
        *(data, table, starts, ends, bad),
        header=tuple(header),
        source=file.source,
        format=format_of(header, file),
    )


def _fields(data: bytes, starts: Numbers, ends: Numbers, header: list[str], file: RawFile) -> pa.Table:
    """Well-formed records into columns ``f0``, ``f1``, ..."""
    names = [f"f{i}" for i in range(len(header))]
    if not len(starts):
        return pa.table({name: pa.array([], pa.string()) for name in names})
    breaks = np.flatnonzero(starts[1:] != ends[:-1]) + 1
    firsts, lasts = np.insert(breaks, 0, 0), np.append(breaks, len(starts)) - 1
    text = b"".join(data[starts[i] : ends[j]] for i, j in zip(firsts, lasts, strict=True))
    table = read_fields(text, names, file, longest=int((ends - starts).max()))
    if table.num_rows != len(starts):
        msg = f"{file.source}: {len(starts)} CSV records were found, but {table.num_rows} were parsed"
        raise RuntimeError(msg)
    return table


def _structure(data: bytes, delimiter: str, width: int, *, last: bool) -> _Structure:
    """Where the records of `data` are; an unfinished one at its end is left over unless it is the last."""
    cut = len(data) if last else data.rfind(b"\n") + 1
    data = data[:cut]
    bytes_ = np.frombuffer(data, np.uint8)
    starts, ends = line_spans(data)
    quotes = np.flatnonzero(bytes_ == QUOTE)
    line_of_quote = np.searchsorted(ends, quotes, side="right")
    odd = np.flatnonzero(np.bincount(line_of_quote, minlength=len(starts)) & 1)
    joined, broken, stop = _join(data, starts, ends, odd, delimiter, width, last=last)

    faults: dict[int, str] = {}
    _count_fields(bytes_, starts, ends, quotes, ord(delimiter), width, faults)
    _check_quotes(bytes_, starts, ends, quotes, line_of_quote, ord(delimiter), faults)
    for line in np.searchsorted(ends, np.flatnonzero(bytes_ == 0), side="right"):
        faults[int(line)] = _NUL
    keep = not_blank(data, starts, ends)
    for line in broken:
        faults[line] = _MISQUOTED
    _forgive(data, starts, ends, _record_pattern(delimiter, width), faults)
    for first, final in joined:
        ends[first] = ends[final]
        keep[first + 1 : final + 1] = False
        inner = [faults.pop(line, None) for line in range(first, final + 1)]
        if _NUL in inner:
            faults[first] = _NUL
    keep[stop:] = False
    return _compact(starts, ends, keep, faults, stop, cut)


def _compact(
    starts: Numbers, ends: Numbers, keep: Mask, faults: dict[int, str], stop: int, cut: int
) -> _Structure:
    lines = np.flatnonzero(keep)
    index = {int(line): i for i, line in enumerate(lines) if int(line) in faults} if faults else {}
    return _Structure(
        starts[lines],
        ends[lines],
        lines,
        {index[line]: reason for line, reason in faults.items() if line in index},
        consumed=int(starts[stop]) if stop < len(starts) else cut,
        consumed_lines=stop,
    )


def _join(
    data: bytes, starts: Numbers, ends: Numbers, odd: Numbers, delimiter: str, width: int, *, last: bool
) -> tuple[list[tuple[int, int]], list[int], int]:
    """Lines with an odd number of quotes: pairs that make one record, lone ones, and where to stop.

    Each such line is tried once with the stretch up to the next, so the work is linear.
    """
    record = _record_pattern(delimiter, width)
    joined: list[tuple[int, int]] = []
    broken: list[int] = []
    k = 0
    while k < len(odd):
        first = int(odd[k])
        if k + 1 == len(odd):
            if not last and ends[-1] - starts[first] < MAX_QUOTED:
                return joined, broken, first
        else:
            final = int(odd[k + 1])
            short = ends[final] - starts[first] < MAX_QUOTED
            if short and record.fullmatch(data, int(starts[first]), int(ends[final])):
                joined.append((first, final))
                k += 2
                continue
        broken.append(first)
        k += 1
    return joined, broken, len(starts)


def _forgive(
    data: bytes, starts: Numbers, ends: Numbers, record: re.Pattern[bytes], faults: dict[int, str]
) -> None:
    """Take back faults of lines in which quotes only stand inside unquoted fields."""
    for line, reason in list(faults.items()):
        if reason != _NUL and record.fullmatch(data, int(starts[line]), int(ends[line])):
            del faults[line]


def _record_pattern(delimiter: str, width: int) -> re.Pattern[bytes]:
    mark = re.escape(delimiter.encode())
    field = rb'(?:"[^"]*(?:""[^"]*)*"|[^"\r\n' + mark + rb"][^\r\n" + mark + rb"]*|)"
    return re.compile(field + rb"(?:" + mark + field + rb"){" + str(width - 1).encode() + rb"}\r?\n?")


def _count_fields(
    bytes_: Bytes,
    starts: Numbers,
    ends: Numbers,
    quotes: Numbers,
    delimiter: int,
    width: int,
    faults: dict[int, str],
) -> None:
    """Lines taken by themselves: as many fields as the header, and no stray carriage return."""

    def outside(places: Numbers) -> tuple[Numbers, Numbers]:
        lines = np.searchsorted(ends, places, side="right")
        before = np.searchsorted(quotes, places) - np.searchsorted(quotes, starts[lines])
        return places[before % 2 == 0], lines[before % 2 == 0]

    _, lines = outside(np.flatnonzero(bytes_ == delimiter))
    fields = np.bincount(lines, minlength=len(starts)) + 1
    for line in np.flatnonzero(fields != width):
        faults[int(line)] = f"{fields[line]} fields where the header has {width}"
    returns, lines = outside(np.flatnonzero(bytes_ == RETURN))
    for place, line in zip(returns, lines, strict=True):
        if place + 1 < len(bytes_) and bytes_[place + 1] != NEWLINE:
            faults[int(line)] = "a carriage return stands inside a line"


def _check_quotes(
    bytes_: Bytes,
    starts: Numbers,
    ends: Numbers,
    quotes: Numbers,
    lines: Numbers,
    delimiter: int,
    faults: dict[int, str],
) -> None:
    """Lines taken by themselves: quotes only open at a field's start and close at its end."""
    if not len(quotes):
        return
    padded = np.append(bytes_, [NEWLINE, NEWLINE])
    opens = (np.arange(len(quotes)) - np.searchsorted(quotes, starts[lines])) % 2 == 0
    before = np.where(quotes > starts[lines], padded[quotes - 1], NEWLINE)
    after = padded[quotes + 1]
    good_open = np.isin(before, [delimiter, NEWLINE]) | ((before == QUOTE) & (quotes > starts[lines]))
    good_close = np.isin(after, [delimiter, NEWLINE, RETURN, QUOTE])
    for line in np.unique(lines[np.where(opens, ~good_open, ~good_close)]):
        faults[int(line)] = _MISQUOTED
