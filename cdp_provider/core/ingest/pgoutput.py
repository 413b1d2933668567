# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL's logical replication messages (pgoutput, protocol 1) into columns of text, many at a time.

Messages are told apart and taken to pieces with numpy, column by column over thousands of rows; the bytes of
values are not touched before their column is made. Values are what the output functions of their types write.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cdp_provider.core.exceptions import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Numbers: TypeAlias = "npt.NDArray[np.int64]"
Mask: TypeAlias = "npt.NDArray[np.bool_]"
Bytes: TypeAlias = "npt.NDArray[np.uint8]"

#: So much behind the last message may be looked at.
_PAD = bytes(32)
_CHANGES = np.frombuffer(b"IUD", np.uint8)
_SPECIAL = np.frombuffer(b"RT", np.uint8)
_TEXT, _UNCHANGED, _NEW, _BEGIN, _COMMIT, _DELETE = b"tuNBCD"


@dataclass(frozen=True)
class Snapshot:
    """Which transactions a snapshot saw.

    :param end: the first id that was not given out yet.
    :param running: ids before it whose transactions were under way.
    """

    end: int
    running: tuple[int, ...] = ()

    @classmethod
    def of(cls, text: str) -> Snapshot:
        """From what ``pg_current_snapshot()`` gives: ``xmin:xmax:xip,xip``."""
        _, end, running = text.split(":")
        return cls(int(end), tuple(int(xid) for xid in running.split(",") if xid))

    def saw(self, xids: Numbers) -> Mask:
        """Of transaction ids as the log has them: the lower 32 bits, which begin anew after the last one."""
        earlier = (xids - self.end).astype(np.int32) < 0
        running = np.array([xid & 0xFFFFFFFF for xid in self.running], np.int64)
        return earlier & ~np.isin(xids, running)


@dataclass(frozen=True)
class Span:
    """Which transactions are wanted: those whose commit lies in ``[start, end)`` of the log.

    :param snapshot: and which it did not see.
    """

    start: int = 0
    end: int = 2**63 - 1
    snapshot: Snapshot | None = None

    def wants(self, commits: Numbers, xids: Numbers) -> Mask:
        """By where their commits lie, and by their ids."""
        within: Mask = (commits >= self.start) & (commits < self.end)
        return within & ~self.snapshot.saw(xids) if self.snapshot else within


@dataclass
class Rows:
    """Rows of one shape, in the order in which they came about.

    :param columns: name -> values (binary); null where there is none, and where it is missing.
    :param deleted: which rows are gone; they hold at least their replica identity.
    :param missing: name -> which rows have a value that was not sent, for it is long and did not change;
        only columns that have such rows.
    """

    columns: dict[str, pa.Array]
    deleted: Mask
    missing: dict[str, Mask] = field(default_factory=dict)


class Truncated:
    """The table was emptied."""


@dataclass
class Decoder:
    """Takes chunks of messages, one after the other.

    :param table: oid of the table whose changes are wanted.
    :param key: columns whose change makes another row of a row.
    """

    table: int
    key: Sequence[str]
    span: Span = Span()
    #: Wanted transactions, and changes of the table in them, so far.
    transactions: int = 0
    changes: int = 0
    #: Where the last commit before the span's end ends.
    end: int = 0
    _names: tuple[str, ...] = ()
    _wanted: bool = False

    def decode(self, messages: bytes, starts: Numbers) -> Iterator[Rows | Truncated]:
        """What happened to the table.

        :param starts: where each message begins.
        :raises DataError: the changes lack a column of the key.
        """
        padded = messages + _PAD
        data = np.frombuffer(padded, np.uint8)
        tags = data[starts]
        wanted = self._wanted_messages(data, tags, starts)
        chosen = wanted & np.isin(tags, _CHANGES) & (_numbers(data, starts + 1, 4) == self.table)
        begin = 0
        for special in np.flatnonzero(np.isin(tags, _SPECIAL)):
            yield from self._rows(padded, data, starts[begin:special][chosen[begin:special]])
            begin = int(special) + 1
            message = messages[starts[special] : starts[begin] if begin < len(starts) else len(messages)]
            if message.startswith(b"R"):
                self._describe(message)
            elif wanted[special] and self._truncates(message):
                self.changes += 1
                yield Truncated()
        yield from self._rows(padded, data, starts[begin:][chosen[begin:]])

    def _wanted_messages(self, data: Bytes, tags: Bytes, starts: Numbers) -> Mask:
        """Which messages belong to a wanted transaction; one may have begun in an earlier chunk."""
        begins = tags == _BEGIN
        at = starts[begins]
        wants = self.span.wants(_numbers(data, at + 1, 8), _numbers(data, at + 17, 4))
        self.transactions += int(wants.sum())
        by_transaction = np.append(self._wanted, wants)
        self._wanted = bool(by_transaction[-1])
        at = starts[tags == _COMMIT]
        ends = _numbers(data, at + 10, 8)[_numbers(data, at + 2, 8) < self.span.end]
        self.end = max(self.end, int(ends.max(initial=0)))
        return np.asarray(by_transaction[np.cumsum(begins)])

    def _describe(self, message: bytes) -> None:
        """Take over the table's columns from a Relation message."""
        if int.from_bytes(message[1:5], "big") != self.table:
            return
        name = message.index(b"\0", 5) + 1
        at = message.index(b"\0", name) + 2
        count, at, names = int.from_bytes(message[at : at + 2], "big"), at + 2, []
        for _ in range(count):
            end = message.index(b"\0", at + 1)
            names.append(message[at + 1 : end].decode())
            at = end + 9
        self._names = tuple(names)
        lacking = next((name for name in self.key if name not in names), None)
        if lacking is not None:
            msg = (
                f"the source's changes carry no column {lacking!r}, which belongs to the primary key; they"
                f" have {', '.join(names)}: correct primary_key or the column's path"
            )
            raise DataError(msg)

    def _truncates(self, message: bytes) -> bool:
        count = int.from_bytes(message[1:5], "big")
        return self.table in np.frombuffer(message, ">u4", count, 6)

    def _rows(self, padded: bytes, data: Bytes, starts: Numbers) -> Iterator[Rows]:
        """Of messages that all are of one relation, and of its present shape."""
        if not len(starts):
            return
        self.changes += len(starts)
        first = _Tuples(padded, data, starts + 6, self._names)
        deleted = data[starts] == _DELETE
        twofold = ~deleted & (data[starts + 5] != _NEW)
        if twofold.any():
            second = _Tuples(padded, data, first.end[twofold] + 1, self._names)
            yield self._before_and_after(first, second, deleted, twofold)
        else:
            yield Rows(first.columns(), deleted, _some(first.unsent))

    def _before_and_after(self, first: _Tuples, second: _Tuples, deleted: Mask, twofold: Mask) -> Rows:
        """Of updates that tell the row as it was too: a row with another key is a deletion and a row."""
        before, after, unsent = first.columns(), second.columns(), second.unsent
        told = pa.array(twofold)
        for name in after:
            known = unsent[name] & first.sent[name][twofold]
            if known.any():
                after[name] = pc.if_else(pa.array(known), before[name].filter(told), after[name])
                unsent[name] = unsent[name] & ~known
        gone = np.zeros(len(second.end), bool)
        for name in self.key:
            old = before[name].filter(told)
            same = pc.fill_null(pc.equal(old, after[name]), False)  # noqa: FBT003 - its fill value
            gone |= pc.and_not(pc.is_valid(old), same).to_numpy(zero_copy_only=False)
        kept = ~twofold
        kept[twofold] = gone
        old_places, new_places = np.flatnonzero(kept), np.flatnonzero(twofold)
        order = np.argsort(np.concatenate((old_places, new_places)), kind="stable")
        taken = np.concatenate((old_places, len(kept) + np.arange(len(gone))))[order]
        none = np.zeros(len(gone), bool)
        return Rows(
            {name: pa.concat_arrays([before[name], after[name]]).take(pa.array(taken)) for name in after},
            np.concatenate((deleted | twofold, none))[taken],
            _some({name: np.concatenate((first.unsent[name], unsent[name]))[taken] for name in after}),
        )


class _Tuples:
    """Where the values of many rows of one shape lie.

    :param at: where each row's number of columns stands.
    """

    def __init__(self, padded: bytes, data: Bytes, at: Numbers, names: tuple[str, ...]) -> None:
        if (_numbers(data, at, 2) != len(names)).any():
            msg = f"rows do not have the {len(names)} columns that their relation announced"
            raise RuntimeError(msg)
        self._buffer = pa.py_buffer(padded)
        self._offsets: dict[str, npt.NDArray[np.int32]] = {}
        self.sent: dict[str, Mask] = {}
        self.unsent: dict[str, Mask] = {}
        at = at + 2
        for name in names:
            kinds = data[at]
            sent = kinds == _TEXT
            lengths = np.where(sent, _numbers(data, at + 1, 4), 0)
            self.sent[name], self.unsent[name] = sent, kinds == _UNCHANGED
            offsets = np.empty(2 * len(at), np.int32)
            offsets[0::2], offsets[1::2] = at + 5, at + 5 + lengths
            self._offsets[name] = offsets
            at = at + 1 + np.where(sent, 4 + lengths, 0)
        #: Behind the last value of each row.
        self.end = at

    def columns(self) -> dict[str, pa.Array]:
        """Values by name; null where there is none, or none was sent."""
        return {name: self._column(name) for name in self._offsets}

    def _column(self, name: str) -> pa.Array:
        # The values and what lies between them, in turn, make an array without a copy.
        offsets, sent = self._offsets[name], self.sent[name]
        buffers = [None, pa.py_buffer(offsets), self._buffer]
        alternating = pa.Array.from_buffers(pa.binary(), len(offsets) - 1, buffers)
        return alternating.take(pa.array(np.arange(0, len(offsets), 2), mask=~sent))


def _numbers(data: Bytes, at: Numbers, size: int) -> Numbers:
    """The whole numbers of `size` bytes that begin at these places."""
    everywhere: npt.NDArray[np.uint64] = np.ndarray(
        (len(data) - size + 1,), f">u{size}", data.data, strides=(1,)
    )
    return everywhere[at].astype(np.int64)


def _some(masks: dict[str, Mask]) -> dict[str, Mask]:
    return {name: mask for name, mask in masks.items() if mask.any()}
