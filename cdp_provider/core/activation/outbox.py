# SPDX-License-Identifier: Apache-2.0
"""The records of one sync that wait to be sent: a table, read piece by piece.

It holds the values as they were when the difference was made, so no transaction stays open while requests are
on their way, and profiles that are built meanwhile change nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import repeat
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa

from cdp_provider.core.activation.destinations.base import Record
from cdp_provider.core.exceptions import RetryableError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cdp_provider.core.activation.shape import Shape
    from cdp_provider.core.warehouse import Session, Warehouse

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: In the order of :class:`Record`, whose key and fields come between.
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
    fields = "".join(f", v.{column}" for column in shape.names)
    removal = "operation in ('remove', 'archive', 'clear')"
    number = f"row_number() over (partition by {removal}, kept order by event_time, record_key)"
    session.execute(f"drop table if exists {table}")
    session.execute(
        f"create table {table} as select row_number() over"
        f" (order by case when {removal} then 0 else 1 end, intended, place, record_key) as seq,"
        f" waiting.*{fields}"
        " from (select record_key, profile_id, operation, hash as payload_hash,"
        " case when tried then l_attempts else 0 end as attempts,"
        " case when kept then l_window_end else cast(:window_end as timestamp with time zone) end"
        " as intended,"
        f" case when kept then l_place else {number} - 1"
        f" + case when {removal} then cast(:first as bigint) else cast(:rest as bigint) end end as place,"
        f" l_sent as sent, event_time, l_record_key is not null as known"
        f" from ({open_rows}) o) waiting left join ({shape.values_sql(session.warehouse)}) v"
        f" on v.profile_id = waiting.profile_id and not {removal} order by seq",
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
        columns = ", ".join((_COLUMNS, *(["event_time"] if events else []), *shape.names))
        with warehouse.session() as session:
            rows = None
            if session.exists(table):
                rows = session.arrow(
                    f"select {columns} from {warehouse.table(table)}"
                    " where seq > :after and seq <= :last order by seq",
                    {"after": after, "last": after + count},
                )
            # Afterwards: then what was read is not another task's outbox.
            self.check(session)
        return [] if rows is None else self._records(rows, events=events)

    def check(self, session: Session) -> None:
        """:raises SupersededError: another task has taken the sync over since."""
        state = session.warehouse.table("sync_state")
        sync = self.shape.sync.name
        if session.scalar(f"select claim from {state} where sync = :sync", {"sync": sync}) != self.claim:
            msg = (
                f"a newer task has taken over the sync {sync}, so this one stops; whatever was answered is"
                " kept, and the other task sends the rest"
            )
            raise SupersededError(msg)

    def _records(self, rows: pa.Table, *, events: bool) -> list[Record]:
        columns = [_values(column) for column in rows.columns]
        record_keys, profiles, operations, *fixed = columns[:8]
        rest = columns[8:]
        times = rest.pop(0) if events else repeat(None)
        whole = self.shape.types[self.shape.sync.key] in ("bigint", "integer", "smallint")
        keys = map(self.shape.key, record_keys) if events or whole else record_keys
        payloads = self._payloads(operations, rest)
        return list(map(Record, record_keys, keys, profiles, payloads, operations, *fixed, times))

    def _payloads(self, operations: list[str], values: list[list[Any]]) -> list[Mapping[str, Any]]:
        fields = self.shape.sync.fields
        for number, mapped in enumerate(fields.values()):
            if self.shape.types[mapped.source] in ("json", "jsonb"):
                values[number] = [None if v is None else orjson.Fragment(v) for v in values[number]]
        names = tuple(fields)
        rows: Iterable[tuple[Any, ...]] = zip(*values, strict=True) if values else [()] * len(operations)
        payloads: list[Mapping[str, Any]] = [dict(zip(names, row, strict=True)) for row in rows]
        if skipped := {name for name, mapped in fields.items() if mapped.null == "skip"}:
            payloads = [
                payload if operation == "clear" else _without_nulls(payload, skipped)
                for operation, payload in zip(operations, payloads, strict=True)
            ]
        if {"remove", "archive"} & set(operations):
            return [
                {} if operation in ("remove", "archive") else payload
                for operation, payload in zip(operations, payloads, strict=True)
            ]
        return payloads


def _without_nulls(payload: Mapping[str, Any], skipped: set[str]) -> Mapping[str, Any]:
    return {name: value for name, value in payload.items() if value is not None or name not in skipped}


def _values(column: pa.ChunkedArray) -> list[Any]:
    """A column's values as Python's. Arrow by itself makes a moment from the name of its time zone, each
    time."""
    if not pa.types.is_timestamp(column.type):
        plain: list[Any] = column.to_pylist()
        return plain
    micros = column.cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).to_pylist()
    moments = {
        micro: None if micro is None else _EPOCH + timedelta(microseconds=micro) for micro in set(micros)
    }
    return [moments[micro] for micro in micros]
