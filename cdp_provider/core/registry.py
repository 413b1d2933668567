# SPDX-License-Identifier: Apache-2.0
"""The one place that knows every kind of source and destination."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cdp_provider.core.activation.destinations import DESTINATIONS
from cdp_provider.core.activation.destinations.fit import reading_problems
from cdp_provider.core.ingest import CONNECTORS
from cdp_provider.core.ingest.presets import PRESETS
from cdp_provider.core.project.base import Options
from cdp_provider.core.project.loader import Kinds, load

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cdp_provider.core.project.activation import Destination, Sync
    from cdp_provider.core.project.contract_file import ContractFile
    from cdp_provider.core.project.model import Project
    from cdp_provider.core.project.problems import Problem


class _Options(Mapping[str, type[Options]]):
    """Type of a source or destination -> its options; kinds of other packages are imported only when asked
    for."""

    def __init__(self, kinds: Mapping[str, Any]) -> None:
        self._kinds = kinds

    def __getitem__(self, name: str) -> type[Options]:
        options: type[Options] = self._kinds[name].options
        return options

    def __iter__(self) -> Iterator[str]:
        return iter(self._kinds)

    def __len__(self) -> int:
        return len(self._kinds)


def _fit(destination: Destination, sync: Sync) -> Iterator[Problem]:
    return reading_problems(DESTINATIONS[destination.type](destination, sync))


def _contract(path: Path, stream: Mapping[str, Any], source: str) -> ContractFile:
    # Few projects have such files, and the standard's model takes its time to import.
    from cdp_provider.core.ingest.odcs import read_contract

    return read_contract(path, stream, source)


KINDS = Kinds(
    sources=_Options(CONNECTORS),
    destinations=_Options(DESTINATIONS),
    fit=_fit,
    presets=PRESETS,
    contracts=_contract,
)


def load_project(path: Path) -> Project:
    """Read and validate a project file with all kinds of sources and destinations there are.

    :raises ProjectError: it has faults; all of them.
    """
    return load(path, KINDS)
