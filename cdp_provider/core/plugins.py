# SPDX-License-Identifier: Apache-2.0
"""Kinds of sources and destinations, ours and those of other packages, imported when asked for."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, TypeVar

from cdp_provider.core.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")


@cache
def installed(group: str) -> Mapping[str, EntryPoint]:
    """Entry points by name. Looking them up takes tens of milliseconds, so it is done once, and only when a
    project names a type that is not ours."""
    return {point.name: point for point in entry_points(group=group)}


class KindsByName(Mapping[str, type[T]]):
    """``type`` in a project file -> its class: ours, and those of installed packages, imported when asked
    for.

    :param group: of the entry points.
    :param base: what their classes build on.
    :param own: name -> ``module:Class``; these go before entry points of the same name.
    :raises ConfigurationError: on access to an entry point that leads to no such class.
    """

    def __init__(self, group: str, base: type[T], own: Mapping[str, str]) -> None:
        self._group = group
        self._base = base
        self._own = {name: EntryPoint(name, value, group) for name, value in own.items()}

    def __getitem__(self, name: str) -> type[T]:
        return self._loaded(self._own[name] if name in self._own else installed(self._group)[name])

    def __iter__(self) -> Iterator[str]:
        return iter({**self._own, **installed(self._group)})

    def __len__(self) -> int:
        return len({*self._own, *installed(self._group)})

    def _loaded(self, point: EntryPoint) -> type[T]:
        what = f"the entry point {point.name!r} of {self._group} leads to {point.value!r}, which"
        try:
            kind = point.load()
        except (ImportError, AttributeError) as error:
            msg = f"{what} cannot be imported: {error}"
            raise ConfigurationError(msg) from error
        if isinstance(kind, type) and issubclass(kind, self._base):
            return kind
        msg = f"{what} is no {self._base.__name__}"
        raise ConfigurationError(msg)
