# SPDX-License-Identifier: Apache-2.0
"""What a destination should hold against what it has acknowledged: the records that have to travel."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import orjson

from cdp_provider.core.activation.destinations.base import Record
from cdp_provider.core.exceptions import ConfigurationError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pyarrow as pa

    from cdp_provider.core.activation.destinations.base import DestinationKind, Operation
    from cdp_provider.core.project.activation import Sync
    from cdp_provider.core.run import Run
    from cdp_provider.core.warehouse import Session, Warehouse

#: Records that cannot be sent have no key of their own in the ledger; a key that looks so cannot be sent.
_INVALID_KEY = "profile_id="
#: Stands for the payload of a removal.
_REMOVAL = "remove"
_NOT_FINITE = "('nan', 'infinity', '-infinity', 'inf', '-inf')"
_ROWS_PER_CHUNK = 5_000


@dataclass(frozen=True)
class Shape:
    """How profiles become records of one sync.

    :param types: engine type of each column of ``profiles``, in lower case.
    :param salt: changes when the mapping or the target does, so that everything is sent anew.
    """

    sync: Sync
    types: Mapping[str, str]
    salt: str
    removes: bool
    folds_keys: bool

    @classmethod
    def of(cls, session: Session, kind: DestinationKind) -> Shape:
        """Held against the table ``profiles`` as it stands.

        :raises NotFoundError: there is no such table.
        :raises ConfigurationError: a mapped column is missing in it, or a mirror cannot remove.
        """
        sync, capabilities = kind.sync, kind.capabilities
        types = {name: engine_type.lower() for name, engine_type in session.columns("profiles").items()}
        if not types:
            msg = f"sync {sync.name} has no table profiles to read; build the profiles first"
            raise NotFoundError(msg)
        if missing := sorted({sync.key, *sync.fields.values()} - set(types)):
            msg = (
                f"sync {sync.name} maps {', '.join(missing)}, which the table profiles does not have; build"
                " the profiles with the present project first, or correct the sync"
            )
            raise ConfigurationError(msg)
        removes = sync.mode == "mirror"
        if removes and not capabilities.removes:
            msg = (
                f"sync {sync.name} is a mirror, but destination {sync.destination} describes no way to remove"
                " records; describe remove, or use mode: upsert"
            )
            raise ConfigurationError(msg)
        target = [sync.destination, sorted(sync.parameters.items()), list(sync.fields)]
        salt = hashlib.sha256(json.dumps(target).encode()).hexdigest()[:16]
        return cls(sync, types, salt, removes, capabilities.folds_keys)

    def key_sql(self, warehouse: Warehouse) -> str:
        """The record's key as text."""
        text = f"trim(cast(p.{warehouse.quote(self.sync.key)} as varchar))"
        return f"lower({text})" if self.folds_keys else text

    def hash_sql(self, warehouse: Warehouse) -> str:
        """Hash of the payload: every value with its length before it, so that no two payloads look alike;
        null has none."""
        parts = ["cast(:salt as varchar)"]
        for column in self.sync.fields.values():
            text = f"cast(p.{warehouse.quote(column)} as varchar)"
            parts.append(f"coalesce(cast(length({text}) as varchar) || ':' || {text}, '-')")
        return warehouse.hash_text(" || ".join(parts))

    def fault_sql(self, warehouse: Warehouse) -> str:
        """Why a payload has no JSON form; null for most."""
        cases = [
            f"when lower(cast(p.{warehouse.quote(column)} as varchar)) in {_NOT_FINITE}"
            f" then 'the value of {column} is not a finite number'"
            for column in self.sync.fields.values()
            if self.types[column] in ("double", "double precision")
        ]
        return f"case {' '.join(cases)} end" if cases else "cast(null as varchar)"

    def key(self, text: str) -> str | int:
        """The key as the destination gets it: whole numbers stay numbers."""
        return int(text) if self.types[self.sync.key] in ("bigint", "integer", "smallint") else text


@dataclass(frozen=True)
class Plan:
    """What has to travel.

    :param desired: profiles that the sync speaks of.
    :param invalid: of these, without a usable key or payload.
    :param proven: the destination has acknowledged records of this sync before.
    """

    shape: Shape
    rows: pa.Table
    desired: int
    invalid: int
    proven: bool

    def batches(self, size: int) -> Iterator[list[Record]]:
        """Records in batches of at most `size`: removals first, so that a record that changed the spelling of
        its key is not taken away again; then what an earlier window left open, in the batches it had.

        A batch never mixes operations or windows, and the order is always the same: after a crash the records
        still open make up the same batches again.
        """
        batch: list[Record] = []
        for record in self._records():
            last = batch[-1] if batch else record
            same = (last.operation, last.intended) == (record.operation, record.intended)
            if len(batch) == size or not same:
                yield batch
                batch = []
            batch.append(record)
        if batch:
            yield batch

    def _records(self) -> Iterator[Record]:
        names = list(self.shape.sync.fields)
        is_json = [
            self.shape.types[column] in ("json", "jsonb") for column in self.shape.sync.fields.values()
        ]
        for chunk in self.rows.to_batches(max_chunksize=_ROWS_PER_CHUNK):
            columns = [column.to_pylist() for column in chunk.columns]
            for key, operation, payload_hash, attempts, intended, *values in zip(*columns, strict=True):
                fields = {
                    name: orjson.Fragment(value) if raw and value is not None else value
                    for name, raw, value in zip(names, is_json, values, strict=True)
                }
                yield Record(
                    record_key=key,
                    key=self.shape.key(key),
                    fields=fields if operation == "upsert" else {},
                    operation=cast("Operation", operation),
                    payload_hash=payload_hash,
                    attempts=attempts,
                    intended=intended,
                )


def plan(session: Session, shape: Shape, run: Run) -> Plan:
    """Find what has to travel and note in the ledger that it is on its way. Call it inside a transaction.

    A record that has been answered and has not changed since is left alone, within the same window for good
    and in later ones unless it was rejected less than ``max_attempts`` times.
    """
    sync = shape.sync
    values = {
        "sync": sync.name,
        "segment": sync.segment,
        "salt": shape.salt,
        "window_end": run.window.end,
        "run_id": run.run_id,
        "max_attempts": sync.max_attempts,
        "removes": shape.removes,
    }
    _find_desired(session, shape, values)
    desired, invalid = _note_invalid(session, values)
    _find_open(session, values)
    _note_pending(session, values)
    acknowledged = session.scalar(
        f"select count(*) from {session.warehouse.table('sync_ledger')}"
        " where sync = :sync and (payload_hash is not null or state = 'removed')",
        values,
    )
    return Plan(shape, _read(session, shape), desired, invalid, acknowledged > 0)


def _find_desired(session: Session, shape: Shape, values: Mapping[str, Any]) -> None:
    """Fill ``sync_desired``, one row per profile: ``keyed`` when its key is usable and its own, ``reason``
    when it cannot be sent. Of profiles that share a key the oldest has it."""
    warehouse = session.warehouse
    key = shape.key_sql(warehouse)
    members = (
        f" join {warehouse.table('memberships')} m"
        " on m.profile_id = p.profile_id and m.segment = :segment and m.left_at is null"
        if shape.sync.segment
        else ""
    )
    session.execute("drop table if exists sync_desired")
    session.execute(
        "create temporary table sync_desired as"
        " select profile_id, record_key, payload_hash, key_fault is null as keyed,"
        " coalesce(key_fault, fault) as reason from ("
        " select c.*, case when record_key is null or record_key = '' then 'the key is empty'"
        f" when record_key like '{_INVALID_KEY}%' then 'the key begins with {_INVALID_KEY}'"
        " when place > 1 then 'another profile has the same key' end as key_fault from ("
        f" select p.profile_id, {key} as record_key, {shape.hash_sql(warehouse)} as payload_hash,"
        f" {shape.fault_sql(warehouse)} as fault,"
        f" row_number() over (partition by {key} order by p.profile_id) as place"
        f" from {warehouse.table('profiles')} p{members}) c) judged",
        values,
    )
    session.analyze("sync_desired")


def _note_invalid(session: Session, values: Mapping[str, Any]) -> tuple[int, int]:
    """Bring the ledger's invalid records in line; only new ones are logged. Returns all, and invalid ones."""
    ledger, log = session.warehouse.table("sync_ledger"), session.warehouse.table("delivery_log")
    desired, invalid = cast(
        "tuple[int, int]", session.one("select count(*), count(reason) from sync_desired")
    )
    key = f"'{_INVALID_KEY}' || cast(d.profile_id as varchar)"
    own = "l.sync = :sync and l.state = 'invalid'"
    session.execute(
        f"delete from {ledger} l where {own} and not exists"
        f" (select 1 from sync_desired d where d.reason is not null and {key} = l.record_key)",
        values,
    )
    if invalid:
        session.execute(
            f"update {ledger} l set reason = d.reason from sync_desired d"
            f" where {own} and d.reason is not null and l.record_key = {key} and l.reason <> d.reason",
            values,
        )
        new = (
            f"from sync_desired d left join {ledger} l on {own} and l.record_key = {key}"
            " where d.reason is not null and l.record_key is null"
        )
        session.execute(
            f"insert into {log} (sync, run_id, window_end, record_key, operation, outcome, reason, attempt,"
            f" idempotency_key) select :sync, :run_id, :window_end, {key}, 'upsert', 'invalid', d.reason, 0,"
            f" '' {new}",
            values,
        )
        session.execute(
            f"insert into {ledger} (sync, record_key, state, reason, attempts, window_end, run_id)"
            f" select :sync, {key}, 'invalid', d.reason, 0, :window_end, :run_id {new}",
            values,
        )
    return desired, invalid


def _find_open(session: Session, values: Mapping[str, Any]) -> None:
    """Fill ``sync_open``: the difference, in one statement."""
    may_try_again = "(l.attempts < :max_attempts and (l.state = 'retryable' or l.window_end < :window_end))"
    answered = "l.state in ('rejected', 'retryable')"
    session.execute("drop table if exists sync_open")
    session.execute(
        "create temporary table sync_open as"
        " select o.*, case when tried_before then l_attempts else 0 end as attempts,"
        " case when l_state = 'pending' and tried_before then l_window_end"
        " else cast(:window_end as timestamp with time zone) end as intended from ("
        " select coalesce(d.record_key, l.record_key) as record_key, d.profile_id,"
        " case when d.record_key is null then 'remove' else 'upsert' end as operation,"
        f" coalesce(d.payload_hash, '{_REMOVAL}') as payload_hash,"
        f" l.attempted_hash is not distinct from coalesce(d.payload_hash, '{_REMOVAL}') as tried_before,"
        " l.state as l_state, l.attempts as l_attempts, l.window_end as l_window_end"
        " from (select * from sync_desired where keyed) d"
        f" full join (select * from {session.warehouse.table('sync_ledger')}"
        " where sync = :sync and state <> 'invalid') l on l.record_key = d.record_key"
        " where (d.record_key is not null and d.reason is null and ("
        " l.record_key is null or l.state in ('pending', 'removed')"
        " or (l.state = 'accepted' and l.payload_hash is distinct from d.payload_hash)"
        f" or ({answered} and (l.attempted_hash is distinct from d.payload_hash or {may_try_again}))))"
        # Whatever may stand at the destination has to go, acknowledged or not.
        " or (:removes and d.record_key is null and (l.state in ('accepted', 'pending')"
        f" or ({answered} and l.attempted_hash = '{_REMOVAL}' and {may_try_again})"
        f" or ({answered} and l.attempted_hash <> '{_REMOVAL}'"
        " and (l.state = 'retryable' or l.payload_hash is not null))))"
        ") o",
        values,
    )
    session.analyze("sync_open")


def _note_pending(session: Session, values: Mapping[str, Any]) -> None:
    """From here on a crash is no loss: the ledger says what may have been sent."""
    ledger = session.warehouse.table("sync_ledger")
    session.execute(
        f"update {ledger} l set state = 'pending', reason = null, attempted_hash = o.payload_hash,"
        " attempts = o.attempts, window_end = o.intended, run_id = :run_id from sync_open o"
        " where l.sync = :sync and l.record_key = o.record_key and o.l_state is not null",
        values,
    )
    session.execute(
        f"insert into {ledger} (sync, record_key, attempted_hash, state, attempts, window_end, run_id)"
        " select :sync, record_key, payload_hash, 'pending', attempts, intended, :run_id"
        " from sync_open where l_state is null",
        values,
    )


def _read(session: Session, shape: Shape) -> pa.Table:
    warehouse = session.warehouse
    fields = "".join(
        f", p.{warehouse.quote(column)} as f{place}"
        for place, column in enumerate(shape.sync.fields.values())
    )
    return session.arrow(
        f"select o.record_key, o.operation, o.payload_hash, o.attempts, o.intended{fields} from sync_open o"
        f" left join {warehouse.table('profiles')} p on p.profile_id = o.profile_id"
        " order by o.operation, o.intended, o.record_key"
    )
