# SPDX-License-Identifier: Apache-2.0
"""What a sync should send, in plain Python, and a destination that does what it is told."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cdp_provider.core.activation.destinations.base import Record
    from cdp_provider.core.project.activation import Sync

REMOVALS = {"remove", "archive", "clear"}


@dataclass
class Line:
    """What is known of one key.

    :ivar held: the payload that was acknowledged; None: nothing.
    :ivar tried: the payload, or the kind of removal, that was tried last.
    :ivar unsure: something tried since may have arrived.
    :ivar record: as it was read last.
    """

    state: str
    held: Any = None
    tried: Any = None
    attempts: int = 0
    refusals: int = 0
    unsure: bool = False
    window: int = 0
    record: Record | None = None


@dataclass
class Vendor:
    """Holds records by key, and applies what it is sent."""

    held: dict[str, dict[str, Any]] = field(default_factory=dict)

    def apply(self, record: Record) -> None:
        if record.operation in ("remove", "archive"):
            self.held.pop(record.record_key, None)
        elif record.operation == "clear":
            self.held[record.record_key] = dict(record.fields)
        else:
            self.held[record.record_key] = dict(record.fields)


@dataclass
class Oracle:
    """The state of a sync, told anew with each plan and each answer."""

    sync: Sync
    folds_keys: bool
    lines: dict[str, Line] = field(default_factory=dict)
    resync: str = ""

    @property
    def leaves(self) -> str | None:
        if self.sync.mode == "archive":
            return "archive"
        removes = self.sync.mode == "mirror" and self.sync.removal != "nothing"
        return self.sync.removal if removes else None

    @property
    def sends(self) -> str:
        return self.sync.mode if self.sync.mode in ("insert", "update") else "upsert"

    def desired(self, rows: list[dict[str, Any]]) -> tuple[dict[str, dict[str, Any]], dict[int, str]]:
        """Key -> profile that has it; profile -> why it has no record."""
        holders: dict[str, dict[str, Any]] = {}
        notes: dict[int, str] = {}
        for row in sorted(rows, key=lambda row: row["profile_id"]):
            key = (row["email"] or "").strip(" ")
            key = key.lower() if self.folds_keys else key
            if row.get("out"):
                continue
            if row["consent"]:
                notes[row["profile_id"]] = "suppressed by consent"
            elif not key:
                notes[row["profile_id"]] = "the key is empty"
            elif key in holders:
                notes[row["profile_id"]] = "another profile has the same key"
            else:
                holders[key] = row
                if row["score"] is not None and not math.isfinite(row["score"]):
                    notes[row["profile_id"]] = "the value of score is not a finite number"
        return holders, notes

    def fields(self, row: Mapping[str, Any]) -> dict[str, Any]:
        told = {"NAME": row["first_name"], "COUNTRY": row["country"], "SCORE": row["score"]}
        return {name: value for name, value in told.items() if name != "COUNTRY" or value is not None}

    def payload(self, row: Mapping[str, Any]) -> Any:
        """What decides whether a record has changed: of the name only whether there is one."""
        return (row["first_name"] is None, row["country"], row["score"], self.resync)

    def plan(
        self, rows: list[dict[str, Any]], window: int, resync: str | None
    ) -> tuple[dict[str, tuple[str, dict[str, Any], int, bool]], dict[int, str]]:
        """Key -> operation, fields, attempts and whether it keeps its place; and the notes."""
        if resync is not None:
            self.resync = resync
        holders, notes = self.desired(rows)
        out: dict[str, tuple[str, dict[str, Any], int, bool]] = {}
        for key, row in holders.items():
            if row["profile_id"] not in notes:
                self._send(out, key, self.sends, self.payload(row), self.fields(row), window)
        for key in [key for key in self.lines if key not in holders]:
            line = self.lines[key]
            if self.leaves and self._goes(line, window):
                empty = dict.fromkeys(self.sync.fields) if self.leaves == "clear" else {}
                self._open(out, key, self.leaves, self.leaves, empty, window)
            elif line.unsure:
                continue
            elif line.state == "invalid" and not line.held:
                del self.lines[key]
            elif line.state == "invalid" and not self.leaves:
                line.state, line.tried = "accepted", None
        return out, notes

    def _again(self, line: Line, window: int) -> bool:
        return line.state == "rejected" and (line.window < window or line.refusals == 0)

    def _send(self, out: Any, key: str, sends: str, payload: Any, fields: Any, window: int) -> None:
        line = self.lines.get(key)
        if line is not None:
            done = (
                line.held is not None
                if self.sync.mode == "insert"
                else line.held == payload and not line.unsure
            )
            if line.state in ("rejected", "dead", "invalid") and done:
                line.state, line.tried = "accepted", None
            if line.state == "ambiguous":
                return
            if done and (line.state == "accepted" or self.sync.mode == "insert"):
                return
            refused = line.state in ("rejected", "dead", "invalid")
            if refused and line.tried == payload and not self._again(line, window):
                return
        self._open(out, key, sends, payload, fields, window)

    def _goes(self, line: Line, window: int) -> bool:
        if line.state in ("accepted", "pending", "retryable"):
            return True
        if line.state == "ambiguous":
            return line.tried not in REMOVALS
        if line.state == "removed":
            return False
        if line.tried == self.leaves:
            return self._again(line, window)
        return line.held is not None or line.unsure

    def _open(self, out: Any, key: str, operation: str, payload: Any, fields: Any, window: int) -> None:
        line = self.lines.setdefault(key, Line("new"))
        line.unsure |= line.state in ("pending", "retryable", "ambiguous")
        same = line.tried == payload
        kept = line.state == "pending" and same
        if not same:
            line.attempts = 0
        if not line.attempts:
            line.refusals = 0
        line.state, line.tried = "pending", payload
        if not kept:
            line.window = window
        out[key] = (operation, fields, line.attempts, kept)

    def answer(self, key: str, state: str, window: int, *, repeatable: bool) -> None:
        line = self.lines[key]
        if state == "throttled" or (state == "ambiguous" and repeatable):
            return
        line.window = window
        line.attempts += state != "ambiguous"
        if state == "accepted":
            removed = line.tried in REMOVALS
            line.held = None if removed else line.tried
            line.unsure = False
            line.state, line.tried = ("removed" if removed else "accepted"), None
            return
        line.refusals += state == "rejected"
        dead = state == "rejected" and line.refusals >= self.sync.max_attempts
        line.state = "dead" if dead else state

    def release(self) -> None:
        for line in self.lines.values():
            if line.state in ("dead", "ambiguous", "invalid"):
                line.unsure |= line.state == "ambiguous"
                line.state, line.refusals = "rejected", 0
