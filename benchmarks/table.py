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
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BUILD = Path(__file__).parent.parent / "build"


@dataclass(frozen=True)
class Measured:
    """One line of the table.

    :param ours: seconds, median of the rounds; `peer` and `floor` likewise, None where there is none.
    :param goal: what `ratio` (ours ÷ peer or floor, said in `what`) must not exceed.
    """

    what: str
    ours: float
    peer: float | None
    floor: float | None
    ratio: float | None
    goal: float | None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None without one."""
        measured = self.ratio if self.ratio is not None else self.ours
        return None if self.goal is None else measured <= self.goal


def side_by_side(rounds: int, **contenders: Callable[[], Any]) -> dict[str, float]:
    """Median seconds of each contender; rounds alternate between them, so that a noisy machine hits all."""
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, call in contenders.items():
            started = time.perf_counter()
            call()
            taken[name].append(time.perf_counter() - started)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def publish(name: str, rows: Sequence[Measured]) -> None:
    """Print the table and write the same to ``build/bench-NAME.json``."""
    header = ("what", "ours", "peer", "floor", "ratio", "goal", "met")
    lines: list[tuple[str, ...]] = [header]
    for row in rows:
        numbers = (row.ours, row.peer, row.floor, row.ratio, row.goal)
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
