# SPDX-License-Identifier: Apache-2.0
"""Which place of a project file a location of pydantic means, and what may stand there."""

from __future__ import annotations

import types
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, Tag

if TYPE_CHECKING:
    from cdp_provider.core.project.problems import Path


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a file, and what may stand there.

    :param annotation: type of the value; None when the types do not tell.
    :param at_key: the key itself is meant.
    :param choices: where the way led through a union of models or of tagged members: the place, and the
        member that was tried.
    """

    path: Path
    annotation: Any
    at_key: bool = False
    choices: tuple[tuple[Path, int | str], ...] = ()

    @property
    def keys(self) -> list[str]:
        """The keys that a mapping in this place may have."""
        if isinstance(self.annotation, type) and issubclass(self.annotation, BaseModel):
            return [field.alias or name for name, field in self.annotation.model_fields.items()]
        return []


def find(model: type[BaseModel], loc: tuple[int | str, ...], raw: Any) -> Place:
    """Follow pydantic's location through the types and the file at once.

    Pydantic also puts in which member of a union it tried; the file knows nothing of that.
    """
    annotation: Any = model
    path: list[int | str] = []
    choices: list[tuple[Path, int | str]] = []
    for part in loc:
        models = _models(annotation)
        choice = models if len(models) > 1 else _tagged(annotation)
        if choice:
            annotation = next((member for member in choice if _answers_to(member, part)), None)
            choices.append((tuple(path), part))
            continue
        annotation = models[0] if models else annotation
        if part == "[key]":
            return Place(tuple(path), None, True, tuple(choices))
        if isinstance(raw, dict) and isinstance(part, str) and part in raw:
            raw = raw[part]
        elif isinstance(raw, list) and isinstance(part, int) and part < len(raw):
            raw = raw[part]
        elif isinstance(raw, dict) and part == 0:
            # A single mapping may stand where a list of them does.
            annotation = _step(annotation, part)
            continue
        else:
            break
        path.append(part)
        annotation = _step(annotation, part)
    models = _models(annotation)
    return Place(tuple(path), models[0] if len(models) == 1 else annotation, False, tuple(choices))


def _step(annotation: Any, part: int | str) -> Any:
    """Type of what stands under a key or position of a value of some type."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for name, field in annotation.model_fields.items():
            if part == (field.alias or name):
                return field.annotation
        return None
    for member in map(bare, members(annotation)):
        arguments = get_args(member)
        if get_origin(member) is dict:
            return arguments[1]
        if get_origin(member) in (tuple, list, set, frozenset):
            homogeneous = len(arguments) == 1 or arguments[-1] is Ellipsis
            return (
                arguments[0] if homogeneous or not isinstance(part, int) else arguments[part % len(arguments)]
            )
    return None


def members(annotation: Any) -> list[Any]:
    """Members of a union (one for what is none), without None; tags are kept."""
    plain = bare(annotation)
    if get_origin(plain) in (Union, types.UnionType):
        return [member for member in get_args(plain) if member is not type(None)]
    return [annotation if get_origin(annotation) is Annotated and _tag(annotation) else plain]


def _models(annotation: Any) -> list[Any]:
    """Members of a union that are models."""
    found = []
    for member in members(annotation):
        plain = bare(member)
        if isinstance(plain, type) and issubclass(plain, BaseModel):
            found.append(member if _tag(member) else plain)
    return [bare(found[0])] if len(found) == 1 else found


def _tagged(annotation: Any) -> list[Any]:
    """Members of a union that carry tags, be they models or not; none where the tag was followed already."""
    found = members(annotation)
    return [member for member in found if _tag(member)] if len(found) > 1 else []


def bare(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _tag(annotation: Any) -> str | None:
    metadata = get_args(annotation)[1:] if get_origin(annotation) is Annotated else ()
    return next((item.tag for item in metadata if isinstance(item, Tag)), None)


def _answers_to(member: Any, label: int | str) -> bool:
    """Whether pydantic means this member of a union by that part of a location."""
    if (tag := _tag(member)) is not None:
        return label == tag
    model = bare(member)
    literals = [
        value
        for field in model.model_fields.values()
        if get_origin(field.annotation) is Literal
        for value in get_args(field.annotation)
    ]
    return label in (model.__name__, *literals)
