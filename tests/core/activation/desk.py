# SPDX-License-Identifier: Apache-2.0
"""The warehouse's side of a sync without the network: plans, what they send, and answers as one likes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cdp_provider.core.activation import diff, ledger
from cdp_provider.core.activation.destinations.base import Capabilities, DestinationKind, Outcome, Result
from cdp_provider.core.activation.shape import Shape
from cdp_provider.core.project.activation import Consent, Destination, Sync
from cdp_provider.core.project.base import Options
from tests.core.activation.scene import newsletter, run

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cdp_provider.core.activation.destinations.base import Record
    from cdp_provider.core.warehouse import Warehouse

EVERYTHING = Capabilities(
    operations=frozenset({"upsert", "insert", "update", "remove", "archive", "event"}), max_batch=10
)
NOON = datetime(2026, 7, 9, 12, tzinfo=UTC)


class Plain(DestinationKind):
    """Can do what a test says it can."""

    options = Options
    capabilities = EVERYTHING

    def item(self, operation, record):
        return {"key": record.key, **record.fields}


@dataclass
class Desk:
    """One sync and its warehouse; claims, days and answers are counted by themselves."""

    warehouse: Warehouse
    sync: Sync = field(default_factory=newsletter)
    capabilities: Capabilities = EVERYTHING
    consent: Consent = field(default_factory=Consent)
    purposes: tuple[str, ...] = ()
    answers: int = 0
    claims: int = 0

    def declare(self, **changed: Any) -> Desk:
        self.sync = newsletter(**changed)
        return self

    @property
    def kind(self) -> Plain:
        destination = Destination(
            name="mail", type="plain", connection="mail", purposes=self.purposes, options=Options()
        )
        kind = Plain(destination, self.sync)
        kind.capabilities = self.capabilities
        return kind

    def can(self, **changed: Any) -> Desk:
        self.capabilities = replace(self.capabilities, **changed)
        return self

    def plan(self, day: int = 0, *, resync: str | None = None, approved: bool = False) -> diff.Plan:
        self.claims += 1
        with self.warehouse.session() as session, session.transaction():
            ledger.fold(session, self.sync)
            shape = Shape.of(session, self.kind, self.consent)
            claim = f"task {self.claims}"
            return diff.plan(session, shape, run(day), resync=resync, claim=claim, approved=approved)

    def preview(self, day: int = 0) -> diff.Preview:
        with self.warehouse.session() as session:
            return diff.preview(session, Shape.of(session, self.kind, self.consent), run(day))

    def records(self, plan: diff.Plan, count: int = 1000) -> list[Record]:
        return plan.outbox.read(self.warehouse, 0, count)

    def answer(self, day: int, records: Iterable[Record], outcome: Outcome | str = "accepted") -> None:
        told = outcome if isinstance(outcome, Outcome) else Outcome(outcome)
        self.record(day, [Result(record, told, "key") for record in records])

    def record(self, day: int, results: list[Result]) -> None:
        self.answers += 1
        with self.warehouse.session() as session, session.transaction():
            ledger.record(session, self.kind, run(day), results, self.answers, NOON)

    def fold(self) -> None:
        with self.warehouse.session() as session, session.transaction():
            ledger.fold(session, self.sync)

    def release(self, keys: list[str] | None = None) -> int:
        with self.warehouse.session() as session, session.transaction():
            return ledger.release(session, self.sync.name, keys)

    def day(self, day: int, outcome: Outcome | str = "accepted", **given: Any) -> list[Record]:
        """A whole run whose records all fare alike; returns them."""
        records = self.records(self.plan(day, **given))
        self.answer(day, records, outcome)
        self.fold()
        return records

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """`sql` names tables in braces."""
        names = ("sync_ledger", "delivery_log", "sync_state", "sync_answers", "profiles", "memberships")
        with self.warehouse.session() as session:
            return session.fetch(sql.format(**{name: self.warehouse.table(name) for name in names}))

    def states(self) -> dict[str, str]:
        return dict(self.rows("select record_key, state from {sync_ledger}"))


def sent(records: Iterable[Record]) -> list[tuple[str, str]]:
    """Operation and key, in the order of sending."""
    return [(record.operation, str(record.key)) for record in records]
