# SPDX-License-Identifier: Apache-2.0
"""A history to resolve, landed by hand: batches of rows whose identifiers are given as keywords."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from cdp_provider.core import tables
from cdp_provider.core.identity.resolve import rebuild, resolve
from cdp_provider.core.project.base import Options
from cdp_provider.core.project.identity import Identifier, Identity
from cdp_provider.core.project.streams import Column, Stream
from cdp_provider.core.run import Run, Window

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cdp_provider.core.runs import Report
    from cdp_provider.core.warehouse import Warehouse

DAY = datetime(2026, 1, 1, tzinfo=UTC)
KINDS = ("user_id", "email", "anonymous_id")
_WRITTEN = (
    *("loads", "identifiers", "row_links", "merges", "refused_links", "splits", "barred_identifiers"),
    *("neighbours", "identity_runs", "progress", "runs"),
)
#: Segment's ranks and limits.
SEGMENT = Identity(
    identifiers={
        "user_id": Identifier(priority=1, limit=1),
        "email": Identifier(priority=2, limit=5, normalize="email"),
        "anonymous_id": Identifier(priority=3, limit=5),
    }
)


def stream_of(name: str, kinds: Sequence[str] = KINDS, **columns: tuple[str, ...]) -> Stream:
    """A stream with a key, a time and one column per identifier type, named like it.

    :param columns: identifier type -> its columns, where they are others.
    """
    identifiers = {kind: (kind,) for kind in kinds} | columns
    return Stream(
        source="app",
        name=name,
        primary_key=("key",),
        time="at",
        columns={
            "key": Column(required=True),
            "at": Column(type="timestamp"),
            **{column: Column() for group in identifiers.values() for column in group},
        },
        identifiers=identifiers,
        options=Options(),
    )


def run_of(day: int) -> Run:
    """The run of the day-th day."""
    return Run("dag", f"run_{day}", Window(DAY + timedelta(days=day), DAY + timedelta(days=day + 1)))


def filled(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows with the key and the time that those without have."""
    return [{"key": f"k{n:05}", "at": None, **row} for n, row in enumerate(rows)]


@dataclass
class History:
    """Lands and resolves; reads back what came of it."""

    warehouse: Warehouse
    identity: Identity = SEGMENT
    streams: tuple[Stream, ...] = field(default_factory=lambda: (stream_of("web"), stream_of("crm")))
    day: int = 0

    def __post_init__(self) -> None:
        with self.warehouse.session() as session:
            tables.ensure(session)
            for stream in self.streams:
                spec = ", ".join(
                    f"{self.warehouse.quote(name)} {self.warehouse.types[column.type]}"
                    for name, column in stream.columns.items()
                )
                raw = self.warehouse.table(stream.raw_table)
                session.execute(
                    f"create table if not exists {raw}"
                    f" ({spec}, _load_id bigint, _position bigint, _extra varchar)"
                )

    def clear(self) -> None:
        with self.warehouse.session() as session:
            for name in (*_WRITTEN, *(stream.raw_table for stream in self.streams)):
                session.execute(f"delete from {self.warehouse.table(name)}")
        self.day = 0

    def land(
        self, *rows: Mapping[str, Any], stream: int = 0, load_id: int | None = None, state: str = "passed"
    ) -> int:
        """Land a batch (again, when `load_id` is given); ``key`` and ``at`` of a row have defaults."""
        of = self.streams[stream]
        data = {name: [row.get(name) for row in filled(rows)] for name in of.columns}
        with self.warehouse.session() as session, session.transaction():
            load_id = self._batch(session, of, load_id, len(rows), state, repr(rows))
            raw = self.warehouse.table(of.raw_table)
            session.execute(f"delete from {raw} where _load_id = :id", {"id": load_id})
            types = {"timestamp": pa.timestamp("us", tz="UTC"), "integer": pa.int64()}
            table = {
                name: pa.array(data[name], types.get(column.type, pa.string()))
                for name, column in of.columns.items()
            }
            table["_load_id"] = pa.array([load_id] * len(rows), pa.int64())
            table["_position"] = pa.array(range(1, len(rows) + 1), pa.int64())
            session.load(raw, pa.table(table))
        return load_id

    def _batch(self, session, stream, load_id, rows, state, content) -> int:
        loads = self.warehouse.table("loads")
        values = {"id": load_id, "state": state, "hash": content, "stream": stream.ref}
        if load_id is not None:
            session.execute(
                f"update {loads} set state = :state, content_hash = :hash where load_id = :id", values
            )
            return load_id
        values["id"] = (session.scalar(f"select max(load_id) from {loads}") or 0) + 1
        session.execute(
            f"insert into {loads} (load_id, load_seq, batch_id, pipeline, stream, run_id, window_end,"
            " rows_read, rows_landed, rows_quarantined, bytes, content_hash, state)"
            " values (:id, :id, 'b', 'dag', :stream, 'r', :end, 0, 0, 0, 0, :hash, :state)",
            {**values, "end": DAY},
        )
        return values["id"]

    def resolve(self) -> Report:
        self.day += 1
        return resolve(self.warehouse, self.identity, self.streams, run_of(self.day))

    def rebuild(self) -> Report:
        self.day += 1
        return rebuild(self.warehouse, self.identity, self.streams, run_of(self.day))

    def state(self) -> dict[str, list[tuple[Any, ...]]]:
        """What identity resolution wrote and a replay writes again, in a fixed order."""
        columns = {
            "identifiers": "node_id, type, value, profile_id, first_seen, resolved_seq, evicted_seq",
            "row_links": "load_id, position, stream, node_id",
            "merges": "resolved_seq, load_id, position, loser, winner, stream, evidence, run_id",
            "refused_links": "resolved_seq, load_id, position, type, value, stream, rule, run_id",
            "barred_identifiers": "type, value, resolved_seq, reason, rule",
            "loads": "load_id, resolved_seq, resolved_hash",
        }
        with self.warehouse.session() as session:
            return {
                name: sorted(session.fetch(f"select {spec} from {self.warehouse.table(name)}"), key=repr)
                for name, spec in columns.items()
            }

    def partition(self) -> dict[str, int]:
        """``type:value`` -> profile id, of identifiers that were not evicted."""
        return {
            f"{kind}:{value}": profile
            for _, kind, value, profile, _, _, evicted in self.state()["identifiers"]
            if evicted is None
        }

    def links(self) -> dict[tuple[int, int], int]:
        """(batch, position) -> profile id."""
        state = self.state()
        profiles = {node: profile for node, _, _, profile, *_ in state["identifiers"]}
        return {(load, position): profiles[node] for load, position, _, node in state["row_links"]}

    def refused(self) -> list[tuple[int, int, str, str]]:
        """(batch, position, ``type:value``, rule)."""
        return sorted(
            (load, position, f"{kind}:{value}", rule)
            for _, load, position, kind, value, _, rule, _ in self.state()["refused_links"]
        )

    def barred(self) -> set[str]:
        """``type:value`` of hubs and broken identifiers."""
        return {f"{kind}:{value}" for kind, value, *_ in self.state()["barred_identifiers"]}

    def splits(self) -> set[tuple[int, int]]:
        """(old, new) profile id, of the last run."""
        splits = self.warehouse.table("splits")
        with self.warehouse.session() as session:
            return set(
                session.fetch(
                    f"select profile_id, new_profile_id from {splits} where run_id = :run",
                    {"run": f"run_{self.day}"},
                )
            )

    def redirect(self) -> dict[int, int]:
        with self.warehouse.session() as session:
            return dict(session.fetch(f"select * from {self.warehouse.table('profile_redirect')}"))
