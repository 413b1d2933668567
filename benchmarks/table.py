# SPDX-License-Identifier: Apache-2.0
"""One result table per benchmark: printed, and written to ``build/bench-NAME.json``."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BUILD = Path(__file__).parent.parent / "build"


class NotHere(Exception):
    """What a benchmark needs is not on this machine; the message says what, and where it belongs."""


@dataclass(frozen=True)
class Measured:
    """One line of the table.

    :param ours: seconds, median of the rounds; `peer` and `floor` likewise, None where there is none.
    :param goal: what `ratio` (ours ÷ peer or floor, said in `what`) must not exceed.
    :param at_least: the goal is what it must reach instead.
    """

    what: str
    ours: float
    peer: float | None
    floor: float | None
    ratio: float | None
    goal: float | None
    note: str = ""
    at_least: bool = False
    columns: ClassVar = ("ours", "peer", "floor", "ratio", "goal")

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None without one."""
        measured = self.ratio if self.ratio is not None else self.ours
        if self.goal is None:
            return None
        return measured >= self.goal if self.at_least else measured <= self.goal


@dataclass(frozen=True)
class Scored:
    """One line of a table of how right something is.

    :param precision: the share of what was found that is right; `recall` of what is right that was found;
        `f1` their harmonic mean.
    :param goal: what `f1` must reach.
    """

    what: str
    precision: float
    recall: float
    f1: float
    goal: float | None = None
    note: str = ""
    columns: ClassVar = ("precision", "recall", "f1", "goal")

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None without one."""
        return None if self.goal is None else self.f1 >= self.goal


def side_by_side(rounds: int, **contenders: Callable[[], Any]) -> dict[str, float]:
    """Median seconds of each contender; rounds alternate between them, so that a noisy machine hits all."""
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, call in contenders.items():
            started = time.perf_counter()
            call()
            taken[name].append(time.perf_counter() - started)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def publish(name: str, rows: Sequence[Measured] | Sequence[Scored]) -> None:
    """Print the table and write the same to ``build/bench-NAME.json``. Rows are of one kind."""
    columns = rows[0].columns
    header = ("what", *columns, "met")
    lines: list[tuple[str, ...]] = [header]
    for row in rows:
        numbers = [getattr(row, column) for column in columns]
        cells = tuple("-" if n is None else f"{n:.3g}" for n in numbers)
        lines.append((row.what, *cells, {True: "yes", False: "NO", None: "-"}[row.met]))
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    for row in rows:
        if row.note:
            print(f"  {row.what}: {row.note}")
    BUILD.mkdir(exist_ok=True)
    machine = {"python": platform.python_version(), "cpus": os.cpu_count(), "load": os.getloadavg()}
    result = {"name": name, "machine": machine, "rows": [{**asdict(row), "met": row.met} for row in rows]}
    (BUILD / f"bench-{name}.json").write_text(json.dumps(result, indent=1) + "\n")
