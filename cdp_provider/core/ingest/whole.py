# SPDX-License-Identifier: Apache-2.0
"""A CSV file read by DuckDB itself, as a whole and in parallel, as long as its structure is sound.

DuckDB stops at a record of more or fewer fields and at text behind a closing quote, but can't say what became
of the records around it. :class:`Broken` then asks for the exact way,
:mod:`~cdp_provider.core.ingest.delimited`, which finds the one that is to blame.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa

from cdp_provider.core.ingest.lines import BOM, text_of
from cdp_provider.core.ingest.validate import literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cdp_provider.core.ingest.base import RawFile
    from cdp_provider.core.ingest.validate import Plan

_PIECE = 1 << 23
#: Rows that come out at a time.
_ROWS = 50_000


class Broken(Exception):
    """A file is not as plain as it looked."""


@dataclass(frozen=True)
class Plain:
    """A file that may be read as a whole.

    :param lines: behind the header.
    :param records: as many as there are; None where quotes may hide line breaks.
    """

    file: RawFile
    lines: int
    records: int | None


def plain(file: RawFile) -> Plain | None:
    """Whether nothing in a file's bytes speaks against reading it as a whole."""
    if file.compression or file.format != "csv":
        return None
    newlines = returns = pairs = 0
    before, telling = b"", True
    with file.path.open("rb") as stream:
        while piece := stream.read(_PIECE):
            if b"\0" in piece or _blank(piece) or _blank(before + piece[:2]):
                return None
            newlines += piece.count(b"\n")
            telling = telling and b'"' not in piece
            if b"\r" in piece:
                returns += piece.count(b"\r")
                pairs += piece.count(b"\r\n")
            pairs += before.endswith(b"\r") and piece.startswith(b"\n")
            before = piece[-3:]
    if not newlines or (returns and not returns == pairs == newlines):
        return None
    lines = newlines - before.endswith(b"\n")
    return Plain(file, lines, lines if telling else None)


def _blank(text: bytes) -> bool:
    """Whether a line of it has nothing in it."""
    return b"\n\n" in text or b"\n\r\n" in text


def header_line(file: RawFile) -> bytes:
    """The first line of a file."""
    with file.path.open("rb") as stream:
        return stream.readline().removeprefix(BOM)


def read(
    engine: duckdb.DuckDBPyConnection, plan: Plan, source: Plain, width: int, constants: Mapping[str, int]
) -> Iterator[pa.Table]:
    """The rows of a plan's query over a file, in the order of the file.

    :param engine: has a result open until the last row is read; ask others meanwhile.
    :param width: fields per record, at least 2.
    :param constants: as :meth:`Plan.query` takes them.
    :raises Broken: the structure of a record is not sound.
    """
    fields = ", ".join(f"'f{i}': 'varchar'" for i in range(width))
    engine.execute(
        "create or replace temp view block as select *, cast(0 as bigint) as _position"
        f" from read_csv({literal(str(source.file.path))}, columns = {{{fields}}}, header = false, skip = 1,"
        f" auto_detect = false, delim = {literal(source.file.delimiter)}, quote = '\"', escape = '\"',"
        f" nullstr = {literal(source.file.null)}, allow_quoted_nulls = false,"
        " strict_mode = true, null_padding = false)"
    )
    try:
        reader = engine.sql(plan.query(constants), params=plan.params or None).to_arrow_reader(_ROWS)
        for batch in reader:
            yield pa.Table.from_batches([batch])
    except (duckdb.Error, pa.ArrowException, OSError):  # what it says quotes the record
        raise Broken from None


def raw_lines(file: RawFile, lines: Sequence[int]) -> list[str]:
    """The text of some lines of a file, given in ascending order, from 1."""
    found, at = [], 0
    with file.path.open("rb") as stream:
        for number in lines:
            text = next(islice(stream, number - at - 1, None), b"")
            found.append(text_of(text.removeprefix(BOM) if number == 1 else text))
            at = number
    return found
