# SPDX-License-Identifier: Apache-2.0
"""How profiles become records of one sync: keys, payloads, their hashes, and what is wrong with them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cdp_provider.core.activation import consent as consents
from cdp_provider.core.activation.batches import batch_size
from cdp_provider.core.exceptions import ConfigurationError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cdp_provider.core.activation.destinations.base import Capabilities, DestinationKind, Operation
    from cdp_provider.core.project.activation import Consent, Sync
    from cdp_provider.core.run import Run
    from cdp_provider.core.warehouse import Session, Warehouse

#: Begins the ledger's key of a profile that has no record: it is invalid or withheld. No record's key may
#: begin so.
NOTE = "profile_id="
#: Letters of a moment at the end of an event's record key, and the @ before it.
STAMP_LENGTH = len("@2026-07-01T00:00:00.000000Z")
#: Bits of a key. A line of an index of PostgreSQL holds no more than 2,704 bytes, the sync's name included.
_LONGEST_KEY = 2_000 * 8
_NOT_FINITE = "('nan', 'infinity', '-infinity', 'inf', '-inf')"
_SENDS: Mapping[str, Operation] = {"insert": "insert", "update": "update", "event": "event"}


def memory_for(rows: int) -> int:
    """Bytes that an engine inside this process may take for work on so many records: what indexes need, which
    stay in memory, and some room for joins, which don't."""
    return max(256_000_000, 256 * rows)


@dataclass(frozen=True)
class Shape:
    """How profiles become records of one sync.

    :param types: engine type of each column of ``profiles``, in lower case.
    :param batch: records of one batch, at most.
    :param sends: operation for those who are in the segment.
    :param leaves: operation for those who left it; None: nothing happens to them.
    :param withheld: SQL expression over ``profiles p``; see :func:`~.consent.withheld_sql`.
    :param reasons: values that it binds.
    """

    sync: Sync
    capabilities: Capabilities
    types: Mapping[str, str]
    batch: int
    sends: Operation
    leaves: Operation | None
    withheld: str
    reasons: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, session: Session, kind: DestinationKind, consent: Consent) -> Shape:
        """Held against the table ``profiles`` as it stands.

        :raises NotFoundError: there is no such table.
        :raises ConfigurationError: a mapped column is missing in it, or the destination cannot do what the
            sync's mode asks for.
        """
        sync, capabilities, destination = kind.sync, kind.capabilities, kind.destination
        sends, leaves = operations(sync, capabilities)
        types = {name: engine_type.lower() for name, engine_type in session.columns("profiles").items()}
        if not types:
            msg = f"sync {sync.name} has no table profiles to read; build the profiles first"
            raise NotFoundError(msg)
        if missing := sorted({sync.key, *sync.sources} - set(types)):
            msg = (
                f"sync {sync.name} maps {', '.join(missing)}, which the table profiles does not have; build"
                " the profiles with the present project first, or correct the sync"
            )
            raise ConfigurationError(msg)
        purposes = {*capabilities.purposes, *destination.purposes}
        consents.check(sync.name, consent, purposes, types)
        reasons: dict[str, str] = {}
        withheld = consents.withheld_sql(session.warehouse, consent, purposes, reasons)
        return cls(sync, capabilities, types, batch_size(kind), sends, leaves, withheld, reasons)

    @property
    def once(self) -> bool:
        """Whether a record that was acknowledged is never sent again, changed or not."""
        return self.sends in ("insert", "event")

    @property
    def names(self) -> tuple[str, ...]:
        """Columns of the values in the order of the sync's fields: ``f0``, ``f1``."""
        return tuple(f"f{number}" for number in range(len(self.sync.fields)))

    def seed(self, run: Run, resync: str) -> int:
        """Goes into every hash; changes when all has to travel anew: another target, another mapping, a full
        resync, and for a destination that wants everything each time, another window."""
        mapping = [(name, mapped.write) for name, mapped in self.sync.fields.items()]
        window = run.window.end.isoformat() if self.capabilities.snapshot else ""
        target = [self.sync.destination, sorted(self.sync.parameters.items()), mapping, resync, window]
        return int.from_bytes(hashlib.sha256(json.dumps(target).encode()).digest()[:7], "big")

    def desired_sql(self, warehouse: Warehouse) -> str:
        """A query for one row per profile (or event): ``profile_id``, ``record_key``, ``payload_hash``,
        ``reason`` where it cannot be sent and whether it is ``withheld`` then, and ``event_time``.

        Who has no record gets the key of a note. A member that is no profile is a row of nulls. Binds
        ``:segment``, ``:window_end``, ``:seed`` and :attr:`reasons`.
        """
        good = f"q.key <> '' and bit_length(q.key) <= {_LONGEST_KEY} and not starts_with(q.key, '{NOTE}')"
        event = self.sync.mode == "event"
        return (
            "select q.profile_id, case when q.withheld_by is null and"
            f" {good} then q.key{f' || {_STAMP}' if event else ''}"
            f" else '{NOTE}' || cast(q.profile_id as varchar) end as record_key, q.payload_hash,"
            f" coalesce(q.withheld_by, case when {good} then q.fault when q.key = '' then 'the key is empty'"
            f" when starts_with(q.key, '{NOTE}') then 'the key begins with {NOTE}'"
            f" else 'the key is longer than {_LONGEST_KEY // 8} bytes' end) as reason,"
            f" q.withheld_by is not null as withheld,"
            f" {'m.entered_at' if event else 'cast(null as timestamp with time zone)'} as event_time"
            f" from {self._members(warehouse)}"
        )

    def total_sql(self, warehouse: Warehouse) -> str:
        """A query for the number of rows of :meth:`desired_sql`."""
        if not self.sync.segment:
            return f"select count(*) from {warehouse.table('profiles')}"
        return f"select count(*) from {warehouse.table('memberships')} m where {self._stays}"

    @property
    def _stays(self) -> str:
        spoken_of = "m.entered_at <= :window_end" if self.sync.mode == "event" else "m.left_at is null"
        return f"m.segment = :segment and {spoken_of}"

    def values_sql(self, warehouse: Warehouse) -> str:
        """A query for ``profile_id`` and the values that travel, as :attr:`names`."""
        columns = "".join(
            f", p.{warehouse.quote(source)} as {name}"
            for source, name in zip(self.sync.sources, self.names, strict=True)
        )
        return f"select p.profile_id{columns} from {warehouse.table('profiles')} p"

    def _members(self, warehouse: Warehouse) -> str:
        profiles = self._profiles(warehouse)
        if not self.sync.segment:
            return profiles
        stays = f"(select * from {warehouse.table('memberships')} m where {self._stays}) m"
        # All members, so that counting them needs no join of its own.
        return f"{stays} left join {profiles} on q.profile_id = m.profile_id"

    def _profiles(self, warehouse: Warehouse) -> str:
        """What each profile says, worked out while it is read: once, however often it is asked for."""
        text = f"cast(p.{warehouse.quote(self.sync.key)} as varchar)"
        # Few have spaces, and looking for them costs DuckDB a third of trimming. Nothing but coalesce keeps
        # PostgreSQL from working the key out again wherever it is mentioned.
        spaced = f"{text} like ' %' or {text} like '% '"
        key = f"coalesce(case when {spaced} then trim({text}) else {text} end, '')"
        values = [f"p.{warehouse.quote(source)}" for source in self.sync.sources]
        return (
            f"(select p.profile_id, {f'lower({key})' if self.capabilities.folds_keys else key} as key,"
            f" {warehouse.hash_row(self._hashed(values), ':seed')} as payload_hash,"
            f" {self.withheld} as withheld_by, {self._fault_sql(warehouse)} as fault"
            f" from {warehouse.table('profiles')} p) q"
        )

    def _hashed(self, values: list[str]) -> list[str]:
        """Of a field that is written only where the destination has nothing, a change is no news."""
        hashed = []
        for value, mapped in zip(values, self.sync.fields.values(), strict=True):
            if mapped.write == "if_empty":
                hashed.append(f"({value} is null)")
            elif self.types[mapped.source] == "json":
                hashed.append(f"cast({value} as varchar)")  # PostgreSQL compares no json
            else:
                hashed.append(value)
        return hashed

    def _fault_sql(self, warehouse: Warehouse) -> str:
        """Why a payload has no JSON form; null for most."""
        cases = [
            f"when lower(cast(p.{warehouse.quote(column)} as varchar)) in {_NOT_FINITE}"
            f" then 'the value of {column} is not a finite number'"
            for column in dict.fromkeys(self.sync.sources)
            if self.types[column] in ("double", "double precision")
        ]
        return f"case {' '.join(cases)} end" if cases else "cast(null as varchar)"

    def key(self, record_key: str) -> str | int:
        """The key as the destination gets it: whole numbers stay numbers."""
        text = record_key[:-STAMP_LENGTH] if self.sync.mode == "event" else record_key
        return int(text) if self.types[self.sync.key] in ("bigint", "integer", "smallint") else text


#: ``@2026-07-01T00:00:00.000000Z`` of ``m.entered_at``, in the words that both engines know.
_MOMENT = "(m.entered_at at time zone 'UTC')"
_STAMP = (
    f"'@' || replace(cast(date_trunc('second', {_MOMENT}) as varchar), ' ', 'T') || '.'"
    f" || lpad(cast(cast(extract(microseconds from {_MOMENT}) as bigint) % 1000000 as varchar), 6, '0')"
    " || 'Z'"
)


def operations(sync: Sync, capabilities: Capabilities) -> tuple[Operation, Operation | None]:
    """What a sync's mode does to those in the segment, and to those who left it.

    :raises ConfigurationError: the destination cannot do it, or the mode needs a segment.
    """
    sends: Operation = _SENDS.get(sync.mode, "upsert")
    leaves: Operation | None = None
    if sync.mode == "archive":
        leaves = "archive"
    elif sync.mode == "mirror" and sync.removal != "nothing":
        leaves = sync.removal
    needed = {sends, "upsert" if leaves == "clear" else leaves or sends}
    if missing := sorted(needed - capabilities.operations):
        msg = (
            f"sync {sync.name} has mode: {sync.mode}, which needs {' and '.join(missing)}, but destination"
            f" {sync.destination} can only {', '.join(sorted(capabilities.operations))}; choose another mode,"
            " or describe how it does that"
        )
        raise ConfigurationError(msg)
    if sync.mode == "event" and not sync.segment:
        msg = f"sync {sync.name} has mode: event, which tells of entries into a segment; name the segment"
        raise ConfigurationError(msg)
    return sends, leaves
