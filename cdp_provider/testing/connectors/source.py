# SPDX-License-Identifier: Apache-2.0
"""A real source that the conformance suite fills and a connector reads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from cdp_provider.core.ingest.base import Connector


class SourceUnderTest(ABC):
    """Where records are before anybody has read them."""

    @property
    @abstractmethod
    def options(self) -> Mapping[str, Any]:
        """Options of the stream, as a project file says them."""

    @abstractmethod
    def put(self, records: Sequence[Mapping[str, Any]], at: datetime) -> None:
        """Add records after those that are there.

        :param records: each with ``id`` (text), ``name`` (text or None, or not there), ``amount`` (a number)
            and ``updated_at`` (ISO 8601). An ``id`` that was there before is a newer version of it.
        :param at: when they arrive, for sources that note it.
        """

    @abstractmethod
    def connector(self) -> Connector:
        """A new connector to the source, as a task of its own would build it."""

    def locked_out(self) -> Connector:
        """One whose credentials the source refuses."""
        raise NotImplementedError
