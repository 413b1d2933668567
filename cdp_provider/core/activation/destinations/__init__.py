# SPDX-License-Identifier: Apache-2.0
"""One vendor, one file; :data:`DESTINATIONS` maps the ``type`` of a destination to its class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdp_provider.core.activation.destinations.base import DestinationKind
from cdp_provider.core.activation.destinations.http import HttpDestination

if TYPE_CHECKING:
    from collections.abc import Mapping

DESTINATIONS: Mapping[str, type[DestinationKind]] = {"http": HttpDestination}

__all__ = ["DESTINATIONS", "DestinationKind", "HttpDestination"]
