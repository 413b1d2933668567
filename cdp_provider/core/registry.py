# SPDX-License-Identifier: Apache-2.0
"""The one place that knows every kind of source and destination."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from cdp_provider.core.activation.destinations import DESTINATIONS
from cdp_provider.core.activation.destinations.fit import reading_problems
from cdp_provider.core.ingest import CONNECTORS
from cdp_provider.core.project.base import Options
from cdp_provider.core.project.loader import Kinds, load

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cdp_provider.core.project.activation import Destination, Sync
    from cdp_provider.core.project.model import Project
    from cdp_provider.core.project.problems import Problem


class _DestinationOptions(Mapping[str, type[Options]]):
    """Type of a destination -> its options; kinds of other packages are imported only when asked for."""

    def __getitem__(self, name: str) -> type[Options]:
        return DESTINATIONS[name].options

    def __iter__(self) -> Iterator[str]:
        return iter(DESTINATIONS)

    def __len__(self) -> int:
        return len(DESTINATIONS)


def _fit(destination: Destination, sync: Sync) -> Iterator[Problem]:
    return reading_problems(DESTINATIONS[destination.type](destination, sync))


KINDS = Kinds(
    sources={name: connector.options for name, connector in CONNECTORS.items()},
    destinations=_DestinationOptions(),
    fit=_fit,
)


def load_project(path: Path) -> Project:
    """Read and validate a project file with all kinds of sources and destinations there are.

    :raises ProjectError: it has faults; all of them.
    """
    return load(path, KINDS)
