# SPDX-License-Identifier: Apache-2.0
"""Records in the batches that they travel in."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cdp_provider.core.activation.destinations.base import InvalidRecord, Outcome, Result
from cdp_provider.core.activation.encoding import encode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from cdp_provider.core.activation.destinations.base import DestinationKind, Operation, Record

#: Of a request's body, for what stands around its records.
_AROUND = 1_024


@dataclass(slots=True)
class Batch:
    """Records of one operation and one window that travel together.

    :ivar items: JSON text of each.
    :ivar unsent: records met on the way that cannot be sent; their results are kept with the batch's, so that
        a killed task makes the same batch again or none of it.
    """

    operation: Operation
    records: list[Record] = field(default_factory=list)
    items: list[bytes] = field(default_factory=list)
    unsent: list[Result] = field(default_factory=list)


class Batches:
    """Cuts a stream of records into batches, always in the same places.

    A batch ends where the operation or the intended window changes, where the next record's place belongs to
    another multiple of the batch's size, where a record is missing because it has its answer, and before it
    gets too many bytes. So what a killed task left over makes up the same batches again.
    """

    def __init__(self, kind: DestinationKind) -> None:
        capabilities, destination = kind.capabilities, kind.destination
        self._kind = kind
        self.size = batch_size(kind)
        sizes = [size for size in (capabilities.max_bytes, destination.batch_size) if size]
        self._most = min(sizes) - _AROUND if sizes else None
        largest = [size for size in (capabilities.max_record_bytes, self._most) if size]
        self._largest = min(largest) if largest else None
        self._group: list[Record] = []

    def cut(self, records: Iterable[Record]) -> Iterator[Batch]:
        """The batches that `records` complete; the rest waits for more."""
        size, group = self.size, self._group
        last = group[-1] if group else None
        for record in records:
            if last is not None and (
                record.place != last.place + 1
                or record.place % size == 0
                or record.operation != last.operation
                or record.intended != last.intended
            ):
                yield from self.rest()
                group = self._group
            group.append(record)
            last = record

    def rest(self) -> Iterator[Batch]:
        """What waits: one batch, or more where bytes are limited."""
        group, self._group = self._group, []
        if not group:
            return
        batch = Batch(group[0].operation)
        operation = self._kind.asked(batch.operation)
        held = 0
        # All of them first: what cannot be sent goes with the first batch.
        for record, item in list(self._encoded(operation, group, batch.unsent)):
            held += len(item) + 1
            if self._most and held > self._most:
                yield batch
                batch, held = Batch(record.operation), len(item) + 1
            batch.records.append(record)
            batch.items.append(item)
        yield batch

    def _encoded(
        self, operation: Operation, group: Sequence[Record], unsent: list[Result]
    ) -> Iterator[tuple[Record, bytes]]:
        """The records that can be sent; `unsent` gets the others."""
        make, largest = self._kind.item, self._largest
        for record in group:
            try:
                item = encode(make(operation, record))
            except InvalidRecord as error:
                unsent.append(_invalid(record, str(error)))
            except TypeError:
                unsent.append(_invalid(record, "a value has no JSON form"))
            else:
                if largest and len(item) > largest:
                    reason = f"it has {len(item)} bytes, and the destination takes {largest}"
                    unsent.append(_invalid(record, reason))
                else:
                    yield record, item


def batch_size(kind: DestinationKind) -> int:
    """Records in one request: what the project says, within what the vendor takes and the limits admit."""
    asked = [kind.destination.batch] if kind.destination.batch else []
    records = [rate.records for rate in kind.destination.rate or () if rate.records]
    return min([kind.capabilities.max_batch, *asked, *records])


def _invalid(record: Record, reason: str) -> Result:
    return Result(record, Outcome("invalid", reason), "")


def idempotency_key(sync: str, records: Sequence[Record]) -> str:
    """The same for every try of the same payloads of the same records, in any process; else another.

    A payload that returns later (A, then B, then A again) was intended by another window, and a record that
    got an answer counts it, so neither meets the stored answer of the earlier request.
    """
    first = records[0]
    parts = [f"{sync}\x1e{first.operation}\x1e{first.intended.isoformat()}"]
    parts += [f"{record.record_key}\x1f{record.payload_hash}\x1f{record.attempts}" for record in records]
    return hashlib.sha256("\x1e".join(parts).encode()).hexdigest()[:32]
