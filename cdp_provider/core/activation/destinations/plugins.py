# SPDX-License-Identifier: Apache-2.0
"""Kinds of destinations from other packages, by the entry point group ``cdp_provider.destinations``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from cdp_provider.core.activation.destinations.base import DestinationKind
from cdp_provider.core.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

GROUP = "cdp_provider.destinations"


@cache
def installed() -> Mapping[str, EntryPoint]:
    """Entry points by name. Looking them up takes tens of milliseconds, so it is done once, and only when a
    project names a type that is not ours."""
    return {point.name: point for point in entry_points(group=GROUP)}


class DestinationKinds(Mapping[str, type[DestinationKind]]):
    """``type`` of a destination -> its class: ours, and those of installed packages, imported when asked for.

    :param own: these go before entry points of the same name.
    :raises ConfigurationError: on access to an entry point that leads to no destination.
    """

    def __init__(self, own: Mapping[str, type[DestinationKind]]) -> None:
        self._own = own

    def __getitem__(self, name: str) -> type[DestinationKind]:
        return self._own[name] if name in self._own else _loaded(installed()[name])

    def __iter__(self) -> Iterator[str]:
        return iter({**self._own, **installed()})

    def __len__(self) -> int:
        return len({*self._own, *installed()})


def _loaded(point: EntryPoint) -> type[DestinationKind]:
    try:
        kind = point.load()
    except (ImportError, AttributeError) as error:
        msg = (
            f"the entry point {point.name!r} of {GROUP} leads to {point.value!r}, which cannot be imported:"
            f" {error}"
        )
        raise ConfigurationError(msg) from error
    if isinstance(kind, type) and issubclass(kind, DestinationKind):
        return kind
    msg = f"the entry point {point.name!r} of {GROUP} leads to {point.value!r}, which is no DestinationKind"
    raise ConfigurationError(msg)
