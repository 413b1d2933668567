# SPDX-License-Identifier: Apache-2.0
"""Profiles, accounts and linked rows put straight into a warehouse, to hold conditions against."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from cdp_provider.core.profiles.facts import Facts
from cdp_provider.core.profiles.params import Params
from cdp_provider.core.project.base import Options
from cdp_provider.core.project.profiles import Accounts, AccountTrait, ProfileField, Profiles, Trait
from cdp_provider.core.project.streams import Stream
from cdp_provider.core.project.typing import account_kinds, trait_types
from cdp_provider.core.segments.compile import condition_query, segments_query

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cdp_provider.core.project.conditions import Condition
    from cdp_provider.core.project.model import Segmentation
    from cdp_provider.core.warehouse import Session, Warehouse

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR, DAY, TICK = timedelta(hours=1), timedelta(days=1), timedelta(microseconds=1)

EVENTS = Stream(
    source="web",
    name="events",
    primary_key=("id",),
    time="at",
    event="name",
    columns={
        "id": "integer",
        "at": "timestamp",
        "name": "string",
        "product": "string",
        "amount": "integer",
        "due": "timestamp",
        "price": "decimal",
        "rate": "number",
    },
    identifiers={"id": "id"},
    options=Options(),
)
ORDERS = Stream(
    source="till",
    name="orders",
    primary_key=("order_id",),
    time="at",
    columns={
        "order_id": "integer",
        "at": "timestamp",
        "status": "string",
        "sku": "string",
        "customer": "string",
    },
    identifiers={"id": "order_id"},
    options=Options(),
)
ITEMS = Stream(
    source="till",
    name="items",
    primary_key=("item_id",),
    columns={"item_id": "integer", "order_id": "integer", "sku": "string", "amount": "integer"},
    options=Options(),
)
LABELS = Stream(
    source="shop",
    name="labels",
    primary_key=("label_id",),
    time="at",
    columns={"label_id": "integer", "at": "timestamp", "sku": "string", "label": "string"},
    options=Options(),
)
STREAMS = (EVENTS, ORDERS, ITEMS, LABELS)

_TRAITS = {
    "text": "string",
    "number": "number",
    "whole": "integer",
    "flag": "boolean",
    "day": "date",
    "moment": "timestamp",
    "latitude": "number",
    "longitude": "decimal",
    "company": "string",
    "country": "string",
}
PROFILES = Profiles(
    fields={"known": ProfileField(sources=["web.events.name"])},
    traits={
        **{name: Trait(type="sql", sql="select 1", **{"as": kind}) for name, kind in _TRAITS.items()},
        "listed": Trait(type="list", stream="web.events", column="name"),
    },
    accounts=Accounts(
        key="company",
        traits={"seats": AccountTrait(type="count"), "most": AccountTrait(type="max", of="whole")},
    ),
)
KINDS = trait_types(PROFILES, {stream.ref: stream for stream in STREAMS})


@dataclass
class Ground:
    """What there is.

    :param profiles: profile id -> fields and traits.
    :param rows: stream -> rows: values of columns, and ``who`` for the profile, if they have one.
    :param accounts: account -> traits.
    """

    profiles: Mapping[int, Mapping[str, Any]]
    rows: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    accounts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def put(self, warehouse: Warehouse) -> None:
        """Make the warehouse hold exactly this."""
        lists = [{"profile_id": number, **values} for number, values in self.profiles.items()]
        accounts = [{"account": account, **values} for account, values in self.accounts.items()]
        kinds = {"account": "string", "profiles": "integer", **account_kinds(PROFILES, KINDS)}
        people = [
            {"node_id": n, "type": "user_id", "value": str(n), "profile_id": n, "resolved_seq": 1}
            for n in self.profiles
        ]
        with warehouse.session() as session:
            _fill(session, "profiles", {"profile_id": "integer", **KINDS}, lists)
            _fill(session, "accounts", kinds, accounts)
            _fill(session, "identifiers", _IDENTIFIERS, people)
            for stream in STREAMS:
                kinds = {name: column.type for name, column in stream.columns.items()}
                kinds |= {"_node_id": "integer", "_order": "integer"}
                found = [
                    {**row, "_node_id": row.get("who"), "_order": number}
                    for number, row in enumerate(self.rows.get(stream.ref, ()), 1)
                ]
                _fill(session, f"rows_{stream.view}", kinds, found)

    def members(
        self, warehouse: Warehouse, segmentation: Segmentation, now: datetime = NOW, zone: str = "UTC"
    ) -> dict[str, set[int]]:
        """Who belongs to each segment."""
        query = segments_query(warehouse, segmentation, PROFILES, facts(warehouse, now, zone))
        found: dict[str, set[int]] = {segment.name: set() for segment in segmentation.segments}
        with warehouse.session() as session:
            rows = session.fetch(query.sql, query.params)
        for name, profile in rows:
            found[name].add(profile)
        assert len(rows) == sum(map(len, found.values()))
        return found

    def holding(
        self,
        warehouse: Warehouse,
        conditions: Sequence[Condition],
        segmentation: Segmentation,
        now: datetime = NOW,
        zone: str = "UTC",
    ) -> list[set[int]]:
        """For each condition, which profiles fulfil it."""
        query = condition_query(warehouse, segmentation, PROFILES, facts(warehouse, now, zone), conditions)
        with warehouse.session() as session:
            rows = session.fetch(query.sql, query.params)
        assert sorted(row[0] for row in rows) == sorted(self.profiles)
        assert {type(value) for row in rows for value in row[1:]} <= {bool}
        return [{row[0] for row in rows if row[place]} for place in range(1, len(conditions) + 1)]


class _Source:
    def __init__(self, warehouse: Warehouse, now: datetime) -> None:
        self._warehouse, self._now = warehouse, now

    def prepare(self, facts: Facts) -> None:
        """The tables lie ready."""

    def table(self, stream: Stream) -> str:
        table = self._warehouse.table(f"rows_{stream.view}")
        if stream.time is None:
            return table
        column = self._warehouse.quote(stream.time)
        return f"(select * from {table} where {column} is null or {column} < '{self._now.isoformat()}')"


def facts(warehouse: Warehouse, now: datetime = NOW, zone: str = "UTC") -> Facts:
    """Facts of the rows that were put."""
    streams = {stream.ref: stream for stream in STREAMS}
    return Facts(Params(warehouse, now, zone), streams, _Source(warehouse, now))


_IDENTIFIERS = {
    "node_id": "integer",
    "type": "string",
    "value": "string",
    "profile_id": "integer",
    "resolved_seq": "integer",
}


def _fill(session: Session, name: str, kinds: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> None:
    warehouse = session.warehouse
    table = warehouse.table(name)
    spec = ", ".join(f"{warehouse.quote(n)} {warehouse.column_type(k)}" for n, k in kinds.items())
    session.execute(f"create table if not exists {table} ({spec})")
    session.execute(f"delete from {table}")
    if rows:
        values: dict[str, Any] = {}
        lines = [_line(warehouse, kinds, row, values) for row in rows]
        names = ", ".join(map(warehouse.quote, kinds))
        session.execute(f"insert into {table} ({names}) values {', '.join(lines)}", values)


def _line(
    warehouse: Warehouse, kinds: Mapping[str, str], row: Mapping[str, Any], values: dict[str, Any]
) -> str:
    cells = []
    for name, kind in kinds.items():
        value = row.get(name)
        key = f"v{len(values)}"
        values[key] = json.dumps(value) if isinstance(value, list) else value
        cells.append(f"cast(:{key} as {warehouse.column_type(kind)})")
    return f"({', '.join(cells)})"
