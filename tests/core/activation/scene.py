# SPDX-License-Identifier: Apache-2.0
"""Profiles in a segment, a destination to keep in step, and the warehouse's view of it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from cdp_provider.core.activation.delivery import Patience
from cdp_provider.core.activation.destinations.http import HttpDestinationOptions
from cdp_provider.core.activation.sync import sync
from cdp_provider.core.http import Endpoint
from cdp_provider.core.project.activation import Destination, Sync
from cdp_provider.core.project.profiles import Profiles
from cdp_provider.core.run import Run, Window

if TYPE_CHECKING:
    from cdp_provider.core.activation.limiter import LimitStore
    from cdp_provider.core.runs import Report
    from cdp_provider.core.warehouse import Warehouse

TOKEN = "shop-mail-token"
START = datetime(2026, 7, 1, tzinfo=UTC)
COLUMNS = {
    "email": "string",
    "first_name": "string",
    "country": "string",
    "orders": "integer",
    "spent": "decimal",
    "score": "number",
    "seen_at": "timestamp",
    "born": "date",
    "consent": "boolean",
    "tags": "json",
}
ARROW = {
    "string": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "decimal": pa.decimal128(28, 6),
    "timestamp": pa.timestamp("us", tz="UTC"),
    "date": pa.date32(),
    "boolean": pa.bool_(),
    "json": pa.string(),
}
PROFILES = Profiles.model_validate(
    {"fields": {name: {"from": [f"crm.customers.{name}"]} for name in COLUMNS}}
)
#: Impatient enough for a test, patient enough for four troubles in a row; one request after the other.
QUICK = Patience(max_wait=5, throttles=5, tries=4, pause=0.01, in_flight=1)


def run(day: int) -> Run:
    """The run of a day's window."""
    start = START + timedelta(days=day)
    return Run("shop", f"run_{day}", Window(start, start + timedelta(days=1)))


def mail(*, rate: int = 1000, batch: int = 100, **changed: Any) -> Destination:
    """The stand-in's e-mail tool."""
    options = {
        "upsert": {"path": "/mail/lists/{list}/members", "body": "members"},
        "remove": {"path": "/mail/lists/{list}/members/remove", "body": "members"},
        "key": "email",
        "fields": "fields",
        "answer": {
            "results": "results",
            "key": "email",
            "status": "status",
            "accepted": ["created", "updated", "removed", "not_found"],
            "reason": "reason",
        },
    }
    return Destination(
        name="mail",
        type="http",
        connection="shop_mail",
        rate={"requests": rate, "per": "1 second"},
        batch=batch,
        options=HttpDestinationOptions.model_validate(options | changed),
    )


def newsletter(**changed: Any) -> Sync:
    """A mirror of the segment ``newsletter``."""
    given = {
        "name": "newsletter",
        "segment": "newsletter",
        "destination": "mail",
        "key": "email",
        "fields": {"FIRSTNAME": "first_name", "COUNTRY": "country"},
        "mode": "mirror",
        "parameters": {"list": "news"},
    }
    return Sync.model_validate(given | changed)


def put_profiles(warehouse: Warehouse, rows: list[dict[str, Any]], segment: str = "newsletter") -> None:
    """Make `rows` (each with ``profile_id``) all there is, and its members the rows without ``out``."""
    members = [row["profile_id"] for row in rows if not row.get("out")]
    stays = pa.table(
        {
            "segment": pa.array([segment] * len(members), pa.string()),
            "profile_id": pa.array(members, pa.int64()),
            "entered_at": pa.array([START] * len(members), pa.timestamp("us", tz="UTC")),
            "entered_run": pa.array(["r"] * len(members), pa.string()),
        }
    )
    schema = pa.schema({"profile_id": pa.int64()} | {name: ARROW[kind] for name, kind in COLUMNS.items()})
    given = [{name: row.get(name) for name in schema.names} for row in rows]
    types = {"profile_id": "integer"} | COLUMNS
    spec = ", ".join(f"{name} {warehouse.types[kind]}" for name, kind in types.items())
    profiles, memberships = warehouse.table("profiles"), warehouse.table("memberships")
    with warehouse.session() as session, session.transaction():
        session.execute(f"drop table if exists {profiles}")
        session.execute(f"create table {profiles} ({spec})")
        session.load(profiles, pa.Table.from_pylist(given, schema))
        session.execute(f"delete from {memberships}")
        session.load(memberships, stays)


def person(number: int, **changed: Any) -> dict[str, Any]:
    """A profile, like all others but for its number."""
    return {
        "profile_id": number,
        "email": f"person{number:05}@example.com",
        "first_name": f"Person {number}",
        "country": "DE",
    } | changed


@dataclass
class Scene:
    """One warehouse, one vendor, one store of limits."""

    warehouse: Warehouse
    url: str
    limits: LimitStore
    token: str = TOKEN
    patience: Patience = field(default_factory=lambda: QUICK)

    def sync(
        self, day: int = 0, declared: Sync | None = None, destination: Destination | None = None
    ) -> Report:
        return sync(
            self.warehouse,
            declared or newsletter(),
            destination or mail(),
            Endpoint(self.url, headers={"Authorization": f"Bearer {self.token}"}, timeout=5),
            run(day),
            profiles=PROFILES,
            limits=self.limits,
            patience=self.patience,
        )

    def ledger(self) -> dict[str, tuple[str, int, str | None]]:
        """Record key -> state, attempts, reason."""
        rows = self._fetch("select record_key, state, attempts, reason from {sync_ledger}")
        return {key: (state, attempts, reason) for key, state, attempts, reason in rows}

    def log(self) -> list[tuple[str, str, str, int]]:
        """Record key, operation, outcome and attempt of everything that was tried."""
        return sorted(self._fetch("select record_key, operation, outcome, attempt from {delivery_log}"))

    def runs(self) -> list[tuple[Any, ...]]:
        return self._fetch("select run_id, state, rows_in, rows_out, rows_refused, error from {runs}")

    def everything(self) -> str:
        """All text of the tables that must hold no payload."""
        return repr(
            [self._fetch(f"select * from {{{table}}}") for table in ("delivery_log", "runs", "sync_ledger")]
        )

    def _fetch(self, sql: str) -> list[tuple[Any, ...]]:
        def table(name: re.Match[str]) -> str:
            return self.warehouse.table(name[1])

        with self.warehouse.session() as session:
            return session.fetch(re.sub(r"\{(\w+)\}", table, sql))
