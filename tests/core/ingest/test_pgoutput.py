# SPDX-License-Identifier: Apache-2.0
"""The decoder against one that reads message by message, over any messages in chunks of any size; what a real
server sends, test_postgres_cdc.py tests."""

from __future__ import annotations

import os
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdp_provider.core.exceptions import DataError
from cdp_provider.core.ingest.pgoutput import Decoder, Snapshot, Span, Truncated

DEPTH = int(os.environ.get("CDP_TEST_DEPTH", "1"))
TABLE, OTHER = 4711, 4712
UNSENT = object()

values = st.one_of(st.none(), st.binary(max_size=12), st.just(b""), st.just(UNSENT))
keys = st.sampled_from([b"1", b"2", b"3"])


def text(value: bytes) -> bytes:
    return value + b"\0"


def begin(commit: int, xid: int) -> bytes:
    return b"B" + struct.pack(">QQI", commit, 0, xid & 0xFFFFFFFF)


def commit(place: int) -> bytes:
    return b"C" + struct.pack(">BQQQ", 0, place, place + 8, 0)


def relation(table: int, names: list[str]) -> bytes:
    columns = b"".join(b"\0" + text(name.encode()) + struct.pack(">Ii", 25, -1) for name in names)
    head = struct.pack(">I", table) + text(b"public") + text(b"t") + b"d"
    return b"R" + head + struct.pack(">H", len(names)) + columns


def row(cells: list[Any]) -> bytes:
    parts = [struct.pack(">H", len(cells))]
    for cell in cells:
        if cell is None:
            parts.append(b"n")
        elif cell is UNSENT:
            parts.append(b"u")
        else:
            parts.append(b"t" + struct.pack(">I", len(cell)) + cell)
    return b"".join(parts)


def change(kind: str, table: int, old: list[Any] | None, new: list[Any] | None, mark: bytes = b"O") -> bytes:
    before = b"" if old is None else mark + row(old)
    after = b"" if new is None else b"N" + row(new)
    return kind.encode() + struct.pack(">I", table) + before + after


def truncate(*tables: int) -> bytes:
    return b"T" + struct.pack(f">IB{len(tables)}I", len(tables), 0, *tables)


def decode(decoder: Decoder, messages: list[bytes], sizes: list[int] | None = None) -> list[Any]:
    """Everything that comes out: rows as (values, deleted, names of what was not sent), or "empty".

    :param sizes: of chunks, in turn; all messages at once when left out.
    """
    out: list[Any] = []
    at = turn = 0
    while at < len(messages):
        size = sizes[turn % len(sizes)] if sizes else len(messages)
        chunk = messages[at : at + size]
        at, turn = at + size, turn + 1
        # Frames stand between the messages, as they do in what COPY sends.
        starts = np.cumsum([0, *(len(message) + 6 for message in chunk[:-1])]) + 6
        for piece in decoder.decode(b"".join(b"\0\1\0\0\0\0" + message for message in chunk), starts):
            if isinstance(piece, Truncated):
                out.append("empty")
                continue
            for number, gone in enumerate(piece.deleted):
                cells = {name: column[number].as_py() for name, column in piece.columns.items()}
                unsent = {name for name, mask in piece.missing.items() if mask[number]}
                out.append((cells, bool(gone), unsent))
    return out


def expected(names: list[str], old: list[Any] | None, new: list[Any] | None) -> list[Any]:
    """What one change comes to, read plainly. The key is the first column."""

    def told(cells: list[Any], gone: bool) -> Any:
        plain = {name: None if cell is UNSENT else cell for name, cell in zip(names, cells, strict=True)}
        return plain, gone, {name for name, cell in zip(names, cells, strict=True) if cell is UNSENT}

    if new is None:
        return [told(old or [], True)]
    if old is None:
        return [told(new, False)]
    filled = [
        before if cell is UNSENT and before is not None else cell
        for before, cell in zip(old, new, strict=True)
    ]
    left = old[0] is not None and old[0] != filled[0]
    return [*([told(old, True)] if left else []), told(filled, False)]


@st.composite
def logs(draw: st.DrawFn) -> tuple[list[bytes], list[Any], Span, int, int]:
    """Messages, what they come to, the span, and how many transactions and changes are wanted."""
    first = draw(st.sampled_from([100, 2**32 - 5, 3 * 2**32 - 3]))
    running = draw(st.sets(st.integers(0, 9)))
    seen_to = draw(st.integers(0, 10))
    snapshot = None
    if draw(st.booleans()):
        snapshot = Snapshot(first + seen_to, tuple(first + n for n in running if n < seen_to))
    span = Span(draw(st.integers(0, 5)) * 100, draw(st.sampled_from([2**62, 500, 800])), snapshot)
    names = ["id", "a"]
    messages, out, transactions, changes = [relation(TABLE, names)], [], 0, 0
    for number in range(draw(st.integers(0, 9))):
        messages.append(begin(number * 100, first + number))
        wanted = span.start <= number * 100 < span.end
        if snapshot:
            wanted = wanted and (number >= seen_to or number in running)
        transactions += wanted
        for _ in range(draw(st.integers(0, 5))):
            kind = draw(st.sampled_from("IIUUUUDDTRO"))
            made: list[Any] = []
            row_of = st.tuples(keys, *[values] * (len(names) - 1)).map(list)
            sent = row_of.map(lambda cells: [None if cell is UNSENT else cell for cell in cells])
            if kind == "R":
                names = draw(st.sampled_from([["id"], ["id", "a"], ["id", "b", "c"]]))
                messages.append(relation(TABLE, names))
                continue
            if kind == "O":
                messages += [relation(OTHER, ["x"]), change("I", OTHER, None, [b"1"]), truncate(OTHER)]
                continue
            if kind == "T":
                messages.append(truncate(*draw(st.sampled_from([(TABLE,), (OTHER, TABLE)]))))
                made = ["empty"]
            elif kind == "D":
                old = draw(sent)
                messages.append(change("D", TABLE, old, None, draw(st.sampled_from([b"K", b"O"]))))
                made = expected(names, old, None)
            else:
                before = draw(st.one_of(st.none(), sent)) if kind == "U" else None
                new = draw(row_of)
                messages.append(change(kind, TABLE, before, new, draw(st.sampled_from([b"K", b"O"]))))
                made = expected(names, before, new)
            if wanted:
                changes += 1
                out += made
        messages.append(commit(number * 100))
    return messages, out, span, transactions, changes


@settings(deadline=None, max_examples=100 * DEPTH)
@given(logs(), st.lists(st.integers(1, 7), min_size=1, max_size=3))
def test_any_log_in_chunks_of_any_size(log: tuple[Any, ...], sizes: list[int]):
    messages, out, span, transactions, changes = log
    for pieces in (None, sizes):
        decoder = Decoder(TABLE, ["id"], span)
        assert decode(decoder, messages, pieces) == out
        assert (decoder.transactions, decoder.changes) == (transactions, changes)
        ends = [number * 100 + 8 for number in range(sum(m[:1] == b"C" for m in messages))]
        assert decoder.end == max((end for end in ends if end - 8 < span.end), default=0)


def test_a_snapshot_is_read_as_postgresql_writes_it():
    assert Snapshot.of("10:20:11,15") == Snapshot(20, (11, 15))
    assert Snapshot.of("10:10:") == Snapshot(10)
    far = 5 * 2**32
    snapshot = Snapshot(far + 2, (far - 1,))
    xids = np.array([2**32 - 2, 2**32 - 1, 0, 1, 2, 3])
    assert snapshot.saw(xids).tolist() == [True, False, True, True, False, False]


def test_long_values_and_none():
    decoder = Decoder(TABLE, ["id"])
    long = bytes(range(256)) * 5_000
    messages = [relation(TABLE, ["id", "a"]), begin(1, 1), change("I", TABLE, None, [b"1", long]), commit(1)]
    assert decode(decoder, messages) == [({"id": b"1", "a": long}, False, set())]


def test_a_key_that_is_not_published():
    decoder = Decoder(TABLE, ["id"])
    with pytest.raises(DataError, match="no column 'id'"):
        decode(decoder, [relation(TABLE, ["a"])])
