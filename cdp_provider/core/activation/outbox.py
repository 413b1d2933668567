# SPDX-License-Identifier: Apache-2.0
"""The records of one sync that wait to be sent: a table, read piece by piece.

It holds the values as they were when the difference was made, so no transaction stays open while requests are
on their way, and profiles that are built meanwhile change nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa

from cdp_provider.core.activation.destinations.base import Record
from cdp_provider.core.exceptions import RetryableError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from cdp_provider.core.activation.shape import Shape
    from cdp_provider.core.warehouse import Session, Warehouse

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_COLUMNS = "record_key, profile_id, operation, payload_hash, attempts, intended, place, sent"


class SupersededError(RetryableError):
    """A newer task has taken the sync over."""


def name(sync: str) -> str:
    """The table's name."""
    return f"outbox__{sync}"


def fill(
    session: Session,
    shape: Shape,
    open_rows: str,
    values: Mapping[str, Any],
    start: int,
    new_removals: int,
) -> None:
    """Make the outbox anew. Call it inside a transaction.

    What a killed task left keeps window and place, and comes before what is new. New records begin at a
    multiple of the batch's size, so that they change no batch that was sent before.

    :param open_rows: query with the columns of :func:`~.diff.open_sql`.
    :param start: first place of the run's window that is free.
    """
    table = session.warehouse.table(name(shape.sync.name))
    start = -(-start // shape.batch) * shape.batch
    places = {"first": start, "rest": -(-(start + new_removals) // shape.batch) * shape.batch}
    fields = "".join(f", {column}" for column in shape.names)
    removal = "operation in ('remove', 'archive', 'clear')"
    number = f"row_number() over (partition by {removal}, kept order by event_time, record_key)"
    session.execute(f"drop table if exists {table}")
    session.execute(
        f"create table {table} as select row_number() over"
        f" (order by case when {removal} then 0 else 1 end, intended, place, record_key) as seq, waiting.*"
        " from (select record_key, profile_id, operation, hash as payload_hash,"
        " case when tried then l_attempts else 0 end as attempts,"
        " case when kept then l_window_end else cast(:window_end as timestamp with time zone) end"
        " as intended,"
        f" case when kept then l_place else {number} - 1"
        f" + case when {removal} then cast(:first as bigint) else cast(:rest as bigint) end end as place,"
        f" l_sent as sent, event_time, l_record_key is not null as known{fields}"
        f" from ({open_rows}) o) waiting"
        " order by seq",
        {**values, **places},
    )
    session.index(name(shape.sync.name), "seq")
    session.analyze(table)


@dataclass(frozen=True)
class Outbox:
    """What one task has to send.

    :param claim: the task's; see :class:`SupersededError`.
    """

    shape: Shape
    claim: str

    def read(self, warehouse: Warehouse, after: int, count: int) -> list[Record]:
        """At most `count` records after the first `after` ones, in the order of sending.

        :raises SupersededError: another task has taken the sync over since.
        """
        shape = self.shape
        table = name(shape.sync.name)
        events = shape.sync.mode == "event"
        with warehouse.session() as session:
            self._check(session)
            if not session.exists(table):
                return []
            columns = ", ".join((_COLUMNS, *(["event_time"] if events else []), *shape.names))
            rows = session.arrow(
                f"select {columns} from {warehouse.table(table)}"
                " where seq > :after and seq <= :last order by seq",
                {"after": after, "last": after + count},
            )
        return list(self._records(rows, events=events))

    def _check(self, session: Session) -> None:
        state = session.warehouse.table("sync_state")
        sync = self.shape.sync.name
        if session.scalar(f"select claim from {state} where sync = :sync", {"sync": sync}) != self.claim:
            msg = (
                f"a newer task has taken over the sync {sync}, so this one stops; whatever was answered is"
                " kept, and the other task sends the rest"
            )
            raise SupersededError(msg)

    def _records(self, rows: pa.Table, *, events: bool) -> Iterator[Record]:
        columns = [_values(column) for column in rows.columns]
        fixed, rest = columns[:8], columns[8:]
        times: Iterable[Any] = rest.pop(0) if events else [None] * rows.num_rows
        shape = self.shape
        plain = not events and shape.types[shape.sync.key] not in ("bigint", "integer", "smallint")
        keys = fixed[0] if plain else map(shape.key, fixed[0])
        for key, payload, time, *row in zip(keys, self._payloads(fixed[2], rest), times, *fixed, strict=True):
            record_key, profile_id, operation, payload_hash, attempts, intended, place, sent = row
            yield Record(
                record_key,
                key,
                profile_id,
                payload,
                operation,
                payload_hash,
                attempts,
                intended,
                place,
                sent,
                time,
            )

    def _payloads(self, operations: Sequence[str], values: list[list[Any]]) -> Iterator[Mapping[str, Any]]:
        fields = self.shape.sync.fields
        names = tuple(fields)
        skipped = tuple(name for name, mapped in fields.items() if mapped.null == "skip")
        for number, mapped in enumerate(fields.values()):
            if self.shape.types[mapped.source] in ("json", "jsonb"):
                values[number] = [None if v is None else orjson.Fragment(v) for v in values[number]]
        rows = zip(*values, strict=True) if values else iter([()] * len(operations))
        for operation, row in zip(operations, rows, strict=True):
            if operation in ("remove", "archive"):
                yield {}
                continue
            payload = dict(zip(names, row, strict=True))
            if operation != "clear":
                for name in skipped:
                    if payload[name] is None:
                        del payload[name]
            yield payload


def _values(column: pa.ChunkedArray) -> list[Any]:
    """A column's values as Python's. ``to_pylist`` makes an object per value and a time zone per moment."""
    kind = column.type
    if pa.types.is_timestamp(kind):
        micros = column.cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
        moments: dict[int | None, datetime | None] = {None: None}
        for micro in micros.unique().to_pylist():
            if micro is not None:
                moments[micro] = _EPOCH + timedelta(microseconds=micro)
        return [moments[micro] for micro in _values(micros)]
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    # NumPy would make floats of whole numbers with nulls among them.
    quick = text or (number and not column.null_count)
    values: list[Any] = column.to_numpy().tolist() if quick else column.to_pylist()
    return values
