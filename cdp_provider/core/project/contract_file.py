# SPDX-License-Identifier: Apache-2.0
"""A contract that stands in a file of its own, laid under what the project says of the stream."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path as FilePath
    from typing import TypeAlias

    from cdp_provider.core.project.document import Document
    from cdp_provider.core.project.faults import Fault
    from cdp_provider.core.project.problems import Path, Problem


@dataclass
class ContractFile:
    """What a file says of a stream, in the words of a project file.

    :param columns: name -> keys of a column.
    :param contract: keys of a contract.
    :param keys: further keys of the stream.
    :param origins: place in the stream -> place in the file, of whatever came from it.
    :param document: the file; None when there is none that could be read.
    :param faults: of the file itself.
    :param problems: of how the project refers to it, relative to the stream.
    """

    columns: dict[str, dict[str, Any]] = field(default_factory=dict)
    contract: dict[str, Any] = field(default_factory=dict)
    keys: dict[str, Any] = field(default_factory=dict)
    origins: dict[Path, Path] = field(default_factory=dict)
    document: Document | None = None
    faults: list[Fault] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def under(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """The stream as the project and the file declare it together; where both do, the project counts.

        Rules of both hold, the project's own first.
        """
        own = raw.get("columns")
        given = {name: _column(value) for name, value in own.items()} if isinstance(own, dict) else {}
        columns = {**self.columns, **given}
        for name in self.columns.keys() & given.keys():
            if isinstance(given[name], dict):
                columns[name] = {**self.columns[name], **given[name]}
        contract = {**self.contract, **raw["contract"]}
        rules = [part["rules"] for part in (raw["contract"], self.contract) if "rules" in part]
        if all(isinstance(part, list) for part in rules):
            contract["rules"] = [rule for part in rules for rule in part]
        self._move_rules(raw["contract"].get("rules"))
        return {**self.keys, **raw, "columns": columns, "contract": contract}

    def fault(self, raw: Any, problem: Problem) -> Fault | None:
        """A problem of the stream as a fault of the file, where it came from there; None where it did not.

        :param raw: the stream as the project itself declares it.
        """
        if self.document is None or _stands(raw, problem.path):
            return None
        for length in range(len(problem.path), 0, -1):
            if (origin := self.origins.get(problem.path[:length])) is not None:
                return self.document.fault(replace(problem, path=origin))
        return None

    def _move_rules(self, own: Any) -> None:
        shift = len(own) if isinstance(own, list) else 0
        moved: dict[Path, Path] = {}
        for path, origin in self.origins.items():
            if path[:2] == ("contract", "rules") and len(path) > 2:
                path = (*path[:2], int(path[2]) + shift, *path[3:])
            moved[path] = origin
        self.origins = moved


#: Reads such a file: its path, the project's own keys of the stream, and the name of the source.
ContractReader: TypeAlias = "Callable[[FilePath, Mapping[str, Any], str], ContractFile]"


def named_file(raw: Any) -> str | None:
    """The file that a stream names for its contract; None when there is none."""
    contract = raw.get("contract") if isinstance(raw, dict) else None
    file = contract.get("file") if isinstance(contract, dict) else None
    return file if isinstance(file, str) and file else None


def _column(value: Any) -> Any:
    return {"type": value} if isinstance(value, str) else value


def _stands(raw: Any, path: Path) -> bool:
    """Whether a place is in the project file itself."""
    for part in path:
        if isinstance(raw, dict) and part in raw:
            raw = raw[part]
        elif isinstance(raw, list) and isinstance(part, int) and part < len(raw):
            raw = raw[part]
        else:
            return False
    return True
