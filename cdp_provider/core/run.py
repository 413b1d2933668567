# SPDX-License-Identifier: Apache-2.0
"""The run a step belongs to, and the window of time it speaks for."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True)
class Window:
    """A half-open span of time ``[start, end)`` in UTC; ``end`` is what every step calls "now".

    :param start: ``None`` means "from wherever the last window ended": manual and asset-driven runs have
        no data interval of their own.
    :param end: a moment with a time zone.
    """

    start: datetime | None
    end: datetime

    def __post_init__(self) -> None:
        for name in ("start", "end"):
            moment = getattr(self, name)
            if moment is None and name == "start":
                continue
            if moment.tzinfo is None:
                msg = f"window {name} {moment.isoformat()} has no time zone; give an aware datetime"
                raise ValueError(msg)
            object.__setattr__(self, name, moment.astimezone(UTC))
        if self.start is not None and self.start > self.end:
            msg = f"window starts at {self.start.isoformat()}, after its end {self.end.isoformat()}"
            raise ValueError(msg)

    @property
    def key(self) -> str:
        """The window as text, equal for equal windows: ``2026-07-01T00:00:00+00:00/2026-07-02T…``."""
        return f"{self.start.isoformat() if self.start else '-'}/{self.end.isoformat()}"


@dataclass(frozen=True)
class Run:
    """Which run of which pipeline a step works for.

    :param pipeline: the DAG's id; the same window of another pipeline is another window.
    :param run_id: the DAG run's id; recorded as evidence, never used to decide anything.
    :param map_index: of a mapped task; -1 for an ordinary one.
    """

    pipeline: str
    run_id: str
    window: Window
    map_index: int = -1

    def batch_id(self, node: str) -> str:
        """Name of the batch that `node` lands in this window; the same for every try of it."""
        text = "\x1f".join((self.pipeline, node, str(self.map_index), self.window.key))
        return hashlib.sha256(text.encode()).hexdigest()[:32]
