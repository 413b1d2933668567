# SPDX-License-Identifier: Apache-2.0
"""What takes the place of a model that has faults, so that the rest can still be checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from cdp_provider.core.project.base import Model

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic.fields import FieldInfo

M = TypeVar("M", bound=Model)


def stand_in(model: type[M], values: Mapping[str, Any]) -> M:
    """An unchecked instance of defaults and some values; ``model_construct`` would check what it can."""
    defaults = {
        name: field.get_default(call_default_factory=True, validated_data={})
        for name, field in model.model_fields.items()
        if not field.is_required()
    }
    found = model.__new__(model)
    object.__setattr__(found, "__dict__", {**defaults, **values})
    object.__setattr__(found, "__pydantic_fields_set__", set(values))
    object.__setattr__(found, "__pydantic_extra__", None)
    object.__setattr__(found, "__pydantic_private__", None)
    return found


def sound(model: type[Model], raw: Any) -> dict[str, Any]:
    """Values of a model that are valid by themselves; of a mapping those members that are."""
    found: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        value = raw.get(field.alias or name) if isinstance(raw, dict) else None
        if value is not None:
            found |= _sound(name, field, value)
    return found


def _sound(name: str, field: FieldInfo, value: Any) -> dict[str, Any]:
    # A lone type cannot be annotated with nothing.
    annotated: Any = Annotated[field.annotation, name, *field.metadata]
    kind: TypeAdapter[Any] = TypeAdapter(annotated)
    try:
        return {name: kind.validate_python(value)}
    except ValidationError:
        if not isinstance(value, dict):
            return {}
    members: dict[str, Any] = {}
    for key, member in value.items():
        try:
            members |= kind.validate_python({key: member})
        except ValidationError:
            continue
    return {name: members} if members else {}
