# SPDX-License-Identifier: Apache-2.0
"""Identity resolution once more: slow, without state that could go stale, obviously right.

Every answer goes through the whole history again, and looks up profiles by searching all of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Oracle:
    """:param limits: identifier type -> limit, strongest type first."""

    limits: dict[str, int]
    loads: dict[int, dict[str, Any]] = field(default_factory=dict)
    nodes: dict[tuple[str, str], int] = field(default_factory=dict)
    published: set[int] = field(default_factory=set)
    seq: int = 0

    def land(self, load_id: int, source: int, rows: list[dict[str, Any]], state: str) -> None:
        load = self.loads.setdefault(load_id, {"source": source, "seq": None})
        load.update(rows=rows, state=state)

    def resolve(self) -> None:
        pending = [load for load in self.loads.values() if load["state"] == "passed" and load["seq"] is None]
        if pending:
            self.seq += 1
        for load in pending:
            load["seq"] = self.seq
        self._replay()
        self.published |= set(self.partition().values())

    def partition(self) -> dict[tuple[str, str], int]:
        names = {
            member: min(self.nodes[m] for m in profile) for profile in self.profiles for member in profile
        }
        return {member: names.get(member, node) for member, node in self.nodes.items()}

    def _replay(self) -> None:
        self.profiles: list[set[tuple[str, str]]] = []
        self.links: list[tuple[int, int, int]] = []
        self.merges: list[tuple[int, int, int, int, int, str]] = []
        self.refused: list[tuple[int, int, int, str, str, str]] = []
        rows = [
            (
                load["seq"],
                load_id,
                row["at"] is not None,
                row["at"] or 0,
                load["source"],
                row["key"],
                position,
                row,
            )
            for load_id, load in self.loads.items()
            if load["state"] == "passed"
            for position, row in enumerate(load["rows"], 1)
        ]
        for seq, load_id, *_, position, row in sorted(rows, key=lambda r: r[:-1]):
            self._take((seq, load_id, position), [(kind, row[kind]) for kind in self.limits if row[kind]])

    def _take(self, place: tuple[int, int, int], identifiers: list[tuple[str, str]]) -> None:
        while identifiers:
            parts: list[set[tuple[str, str]]] = []
            for identifier in identifiers:
                part = next((profile for profile in self.profiles if identifier in profile), {identifier})
                if part not in parts:
                    parts.append(part)
            if (rule := self._broken(parts)) is None:
                self._join(place, parts, identifiers)
                self.links.append((*place[1:], self.nodes[identifiers[0]]))
                return
            self.refused.append((*place, *identifiers.pop(), rule))

    def _broken(self, parts: list[set[tuple[str, str]]]) -> str | None:
        for kind, limit in self.limits.items():
            if sum(1 for part in parts for member in part if member[0] == kind) > limit:
                return f"limit {kind} {limit}"
        return None

    def _join(
        self,
        place: tuple[int, int, int],
        parts: list[set[tuple[str, str]]],
        identifiers: list[tuple[str, str]],
    ) -> None:
        for identifier in identifiers:
            self.nodes.setdefault(identifier, len(self.nodes) + 1)
        names = [min(self.nodes[member] for member in part) for part in parts]
        evidence = ", ".join(kind for kind, _ in identifiers)
        for name in names:
            if name != min(names) and name in self.published:
                self.merges.append((*place, name, min(names), evidence))
        self.profiles = [profile for profile in self.profiles if profile not in parts] + [set().union(*parts)]
