# SPDX-License-Identifier: Apache-2.0
"""The one place that knows every kind of source and destination."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdp_provider.core.activation.destinations import DESTINATIONS
from cdp_provider.core.ingest import CONNECTORS
from cdp_provider.core.project.loader import Kinds, load

if TYPE_CHECKING:
    from pathlib import Path

    from cdp_provider.core.project.model import Project

KINDS = Kinds(
    sources={name: connector.options for name, connector in CONNECTORS.items()},
    destinations={name: destination.options for name, destination in DESTINATIONS.items()},
)


def load_project(path: Path) -> Project:
    """Read and validate a project file with all kinds of sources and destinations there are.

    :raises ProjectError: it has faults; all of them.
    """
    return load(path, KINDS)
