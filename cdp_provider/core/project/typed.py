# SPDX-License-Identifier: Apache-2.0
"""A project without faults -> the same one, with every constant in the type of what it is held against."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cdp_provider.core.project.conditions import (
    AccountIs,
    AccountMembers,
    AllOf,
    AnyOf,
    Comparison,
    EventCount,
    Funnel,
    NoneOf,
    Related,
    TraitIs,
)
from cdp_provider.core.project.constants import convert, typed_comparison
from cdp_provider.core.project.typing import account_kinds, column_type, trait_types

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cdp_provider.core.project.base import Model
    from cdp_provider.core.project.model import Project
    from cdp_provider.core.project.profiles import Trait


def typed(project: Project) -> Project:
    """The project with every constant of its conditions in the type of what it is compared with.

    The project must be free of problems.
    """
    typing = _Typing(project)
    traits = {name: typing.trait(name, trait) for name, trait in project.profiles.traits.items()}
    segments = {
        name: segment.model_copy(update={"where": typing.condition(segment.where)})
        for name, segment in project.segments.items()
    }
    profiles = project.profiles.model_copy(update={"traits": traits})
    return project.model_copy(update={"profiles": profiles, "segments": segments})


class _Typing:
    """Looks up what constants are held against."""

    def __init__(self, project: Project) -> None:
        self._streams = {stream.ref: stream for stream in project.streams()}
        self._kinds = trait_types(project.profiles, self._streams)
        self._accounts = account_kinds(project.profiles, self._kinds)
        self._typers: dict[type[Model], Callable[[Any], Any]] = {
            **dict.fromkeys((AllOf, AnyOf, NoneOf), self._branch),
            TraitIs: lambda node: typed_comparison(node, self._kinds[node.trait]),
            AccountIs: lambda node: typed_comparison(node, self._accounts[node.account]),
            AccountMembers: lambda node: node.model_copy(update={"where": self.condition(node.where)}),
            EventCount: self._event,
            Funnel: self._funnel,
            Related: self._related,
        }

    def trait(self, name: str, trait: Trait) -> Trait:
        update: dict[str, Any] = {}
        if trait.where and trait.stream is not None:
            update["where"] = self._filter(trait.where, trait.stream)
        if trait.default is not None:
            update["default"] = convert(trait.default, self._kinds[name])
        return trait.model_copy(update=update) if update else trait

    def condition(self, node: Any) -> Any:
        """A condition, and all that it holds."""
        typer = self._typers.get(type(node))
        return typer(node) if typer else node

    def _branch(self, node: AllOf | AnyOf | NoneOf) -> Any:
        (branch,) = type(node).model_fields
        return node.model_copy(update={branch: tuple(map(self.condition, getattr(node, branch)))})

    def _event(self, node: EventCount) -> EventCount:
        if not node.where:
            return node
        return node.model_copy(update={"where": self._filter(node.where, node.stream)})

    def _funnel(self, node: Funnel) -> Funnel:
        steps = tuple(
            step.model_copy(update={"where": self._filter(step.where, step.stream)}) for step in node.funnel
        )
        return node.model_copy(update={"funnel": steps})

    def _related(self, node: Related) -> Related:
        where = self._filter(node.where, node.related)
        return node.model_copy(update={"where": where, "having": tuple(map(self._related, node.having))})

    def _filter(self, where: Mapping[str, Comparison], stream: str) -> dict[str, Comparison]:
        return {
            name: typed_comparison(part, column_type(stream, name, self._streams) or "string")
            for name, part in where.items()
        }
