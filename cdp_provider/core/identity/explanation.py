# SPDX-License-Identifier: Apache-2.0
"""The answer to why two identifiers are, or are not, one person: plain values and sentences."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

Reason = Literal[
    "refused",
    "deny",
    "hub",
    "broken",
    "evicted",
    "excluded row",
    "blocked",
    "invalid",
    "excluded",
    "unknown",
]


@dataclass(frozen=True)
class Value:
    """An identifier in the form in which it is compared."""

    type: str
    value: str

    def __str__(self) -> str:
        return f"{self.type}={self.value}"


@dataclass(frozen=True)
class Asked:
    """An identifier that was asked for.

    :param node_id: None for one that belongs to nobody; `profile_id` likewise.
    """

    value: Value
    node_id: int | None = None
    profile_id: int | None = None


@dataclass(frozen=True)
class Row:
    """A raw row, and how it came.

    :param key: its primary key, each part as text.
    :param position: its place in the batch `load_id`.
    :param at: its event time.
    :param resolved_seq: the identity run that took it in.
    :param run_id: the DAG run that landed it, for the window given.
    """

    stream: str
    key: tuple[str, ...]
    load_id: int
    position: int
    at: datetime | None
    resolved_seq: int
    pipeline: str
    run_id: str
    window_start: datetime | None
    window_end: datetime | None

    def __str__(self) -> str:
        when = f" of {_moment(self.at)}" if self.at else ""
        return (
            f"row {', '.join(self.key)}{when} in {self.stream} (batch {self.load_id}, position"
            f" {self.position}, landed by {self.pipeline} {self.run_id}, identity run {self.resolved_seq})"
        )


@dataclass(frozen=True)
class Step:
    """Two identifiers that are linked.

    :param row: the first row that carries both; None where a rule set by hand allows the pair.
    :param score: of a fuzzy link that was accepted; `evidence` and `decided_by` likewise.
    """

    one: Value
    other: Value
    row: Row | None
    score: float | None = None
    evidence: str | None = None
    decided_by: str | None = None

    def __str__(self) -> str:
        if self.row is None:
            return f"{self.one} and {self.other} are allowed by a rule set by hand"
        told = f"{self.one} and {self.other} are both in {self.row}"
        if self.score is None:
            return told
        how = f"score {self.score:.4f}; {self.evidence}"
        return f"{told}: they look alike ({how}), accepted by {self.decided_by}"


@dataclass(frozen=True)
class Obstacle:
    """Something that stands between two identifiers.

    :param value: what was not linked. For a ``deny``, one of the pair, and `other` the other.
    :param rule: the limit, the hub, ``deny``.
    :param row: the first row concerned; `rows` says how many there are.
    :param profile_id: that an evicted value left.
    :param resolved_seq: the identity run since which it is so.
    """

    reason: Reason
    value: Value
    other: Value | None = None
    rule: str | None = None
    row: Row | None = None
    rows: int = 0
    profile_id: int | None = None
    resolved_seq: int | None = None

    def __str__(self) -> str:
        return _TOLD[self.reason].format(
            **{name: getattr(self, name) for name in ("value", "other", "rule", "row", "profile_id")},
            seq=self.resolved_seq,
            more=f", and {self.rows - 1} more" if self.rows > 1 else "",
        )


_TOLD: Mapping[Reason, str] = {
    "refused": "{value} was not linked ({rule}) by {row}{more}",
    "deny": "{value} and {other} are denied by a rule set by hand",
    "hub": "{value} is a hub since identity run {seq} ({rule})",
    "broken": "{value} is broken since identity run {seq} ({rule}), by {row}",
    "evicted": "{value} left profile {profile_id} in identity run {seq} ({rule})",
    "excluded row": "{value} is in {row}{more}, excluded by hand",
    "blocked": "{value} identifies nobody: blocked",
    "invalid": "{value} identifies nobody: it cannot be normalised",
    "excluded": "{value} identifies nobody: excluded by hand",
    "unknown": "{value} is an identifier of no row that was taken in",
}


@dataclass(frozen=True)
class Explanation:
    """The answer.

    :param steps: from one identifier to the other; empty when they are not in one profile, or the same.
    :param obstacles: what kept them apart; empty when they are together, or no row ever carried both.
    """

    one: Asked
    other: Asked
    steps: tuple[Step, ...] = ()
    obstacles: tuple[Obstacle, ...] = ()

    @property
    def together(self) -> bool:
        """Whether both belong to one profile."""
        return self.one.profile_id is not None and self.one.profile_id == self.other.profile_id

    def sentences(self) -> list[str]:
        """For people to read, one line each."""
        if self.one.value == self.other.value and self.together:
            return [f"{self.one.value} is one identifier, of profile {self.one.profile_id}."]
        if self.together:
            return [
                f"{self.one.value} and {self.other.value} belong to profile {self.one.profile_id}:",
                *(f"{number}. {step}." for number, step in enumerate(self.steps, 1)),
            ]
        told = [_belongs(self.one), *([_belongs(self.other)] if self.other != self.one else [])]
        nothing = "No row that was taken in carries identifiers of both."
        return [*told, *([f"{obstacle}." for obstacle in self.obstacles] or [nothing])]

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"together": self.together, **plain(self)}


def plain(value: Any) -> dict[str, Any]:
    """A dataclass as plain JSON values; moments in ISO 8601."""
    found: dict[str, Any] = json.loads(json.dumps(asdict(value), default=datetime.isoformat))
    return found


def _belongs(asked: Asked) -> str:
    who = "nobody" if asked.profile_id is None else f"profile {asked.profile_id}"
    return f"{asked.value} belongs to {who}."


def _moment(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(sep=" ", timespec="seconds")
