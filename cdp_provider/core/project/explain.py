# SPDX-License-Identifier: Apache-2.0
"""What pydantic finds wrong, in plain words and at the place where the file has it."""

from __future__ import annotations

import types
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, Tag

from cdp_provider.core.project.base import COLUMN_PATTERN, NAME_PATTERN
from cdp_provider.core.project.faults import is_secret
from cdp_provider.core.project.problems import Path, Problem, Problems, closest, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

_SCALARS: dict[type, str] = {
    bool: "true or false",
    int: "a whole number",
    Decimal: "a number",
    float: "a number",
    datetime: "a date",
    date: "a date",
    str: "text",
}

_PATTERNS = {
    NAME_PATTERN: "names are lower case letters and digits in words joined by single underscores",
    COLUMN_PATTERN: "columns are letters, digits and underscores, and begin with a letter",
}

#: The first part of pydantic's error type -> what must stand there.
_WANTED = {
    "string": "text",
    "int": "a whole number",
    "float": "a number",
    "decimal": "a number",
    "finite": "a finite number",
    "bool": "true or false",
    "date": "a date, such as 2026-01-31",
    "datetime": "a moment, such as 2026-01-31T10:00:00Z",
    "model": "a mapping of keys",
    "dict": "a mapping of keys",
    "mapping": "a mapping of keys",
    "tuple": "a list",
    "list": "a list",
    "set": "a list",
    "frozen": "a list",
}

_BOUNDS = {
    "greater_than_equal": "at least {ge}",
    "greater_than": "more than {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "less than {lt}",
}


def explain(
    error: ValidationError, model: type[BaseModel], raw: Any, known: Iterable[str] = ()
) -> list[Problem]:
    """All that is wrong with a value of a project file, each place once.

    :param model: what `raw` was validated as.
    :param raw: the value as the file has it, which leads to the places.
    :param known: further keys that `raw` itself may have.
    """
    groups: dict[Path, list[tuple[ErrorDetails, _Place]]] = {}
    for details in error.errors(include_url=False):
        about_key = details["type"] in ("missing", "extra_forbidden")
        place = _find(model, details["loc"][:-1] if about_key else details["loc"], raw)
        at = (*place.path, details["loc"][-1]) if about_key else place.path
        groups.setdefault(at, []).append((details, place))
    problems = []
    for at, found in groups.items():
        details, place = found[0]
        if len(found) > 1 and (wanted := _union(place.annotation)):
            problems.append(Problem(at, f"this must be {wanted}, and {_shown(at, details['input'])}"))
        else:
            problems += _one(details, place, known)
    return problems


@dataclass(frozen=True, slots=True)
class _Place:
    path: Path
    annotation: Any
    at_key: bool = False

    @property
    def keys(self) -> list[str]:
        """The keys that a mapping in this place may have."""
        if isinstance(self.annotation, type) and issubclass(self.annotation, BaseModel):
            return [field.alias or name for name, field in self.annotation.model_fields.items()]
        return []


def _find(model: type[BaseModel], loc: tuple[int | str, ...], raw: Any) -> _Place:
    """Follow pydantic's location through the types and the file at once.

    Pydantic also puts in which member of a union it tried; the file knows nothing of that.
    """
    annotation: Any = model
    path: list[int | str] = []
    for part in loc:
        members = _models(annotation)
        if len(members) > 1:
            annotation = next((member for member in members if _answers_to(member, part)), None)
            continue
        annotation = members[0] if members else annotation
        if part == "[key]":
            return _Place(tuple(path), None, at_key=True)
        if isinstance(raw, dict) and isinstance(part, str) and part in raw:
            raw = raw[part]
        elif isinstance(raw, list) and isinstance(part, int) and part < len(raw):
            raw = raw[part]
        else:
            break
        path.append(part)
        annotation = _step(annotation, part)
    members = _models(annotation)
    return _Place(tuple(path), members[0] if len(members) == 1 else annotation)


def _step(annotation: Any, part: int | str) -> Any:
    """Type of what stands under a key or position of a value of some type."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for name, field in annotation.model_fields.items():
            if part == (field.alias or name):
                return field.annotation
        return None
    for member in _members(annotation):
        arguments = get_args(member)
        if get_origin(member) is dict:
            return arguments[1]
        if get_origin(member) in (tuple, list, set, frozenset):
            homogeneous = len(arguments) == 1 or arguments[-1] is Ellipsis
            return (
                arguments[0] if homogeneous or not isinstance(part, int) else arguments[part % len(arguments)]
            )
    return None


def _members(annotation: Any) -> list[Any]:
    """Members of a union (one for what is none), without None; tags are kept."""
    bare = _bare(annotation)
    if get_origin(bare) in (Union, types.UnionType):
        return [member for member in get_args(bare) if member is not type(None)]
    return [annotation if get_origin(annotation) is Annotated and _tag(annotation) else bare]


def _models(annotation: Any) -> list[Any]:
    """Members of a union that are models."""
    found = []
    for member in _members(annotation):
        bare = _bare(member)
        if isinstance(bare, type) and issubclass(bare, BaseModel):
            found.append(member if _tag(member) else bare)
    return [_bare(found[0])] if len(found) == 1 else found


def _bare(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _tag(annotation: Any) -> str | None:
    metadata = get_args(annotation)[1:] if get_origin(annotation) is Annotated else ()
    return next((item.tag for item in metadata if isinstance(item, Tag)), None)


def _answers_to(member: Any, label: int | str) -> bool:
    """Whether pydantic means this member of a union by that part of a location."""
    model = _bare(member)
    literals = [
        value
        for field in model.model_fields.values()
        if get_origin(field.annotation) is Literal
        for value in get_args(field.annotation)
    ]
    return label in (_tag(member), model.__name__, *literals)


def _union(annotation: Any) -> str | None:
    """``a whole number or text`` for a union of scalars."""
    wanted = dict.fromkeys(
        _SCALARS[bare] for member in _members(annotation) if (bare := _bare(member)) in _SCALARS
    )
    if len(wanted) == len(set(_SCALARS.values())):
        return "a single value"
    return " or ".join(wanted) if len(wanted) > 1 else None


def _one(details: ErrorDetails, place: _Place, known: Iterable[str]) -> list[Problem]:
    """One error of pydantic as problems; its own validators may have found several."""
    kind, path, context = details["type"], place.path, details.get("ctx", {})
    cause = context.get("error")
    if isinstance(cause, Problems):
        return [problem.below(path) for problem in cause.problems]
    if kind == "missing":
        key = str(details["loc"][-1])
        return [Problem(path, f"the key {key!r} is missing", at_key=True, missing=key)]
    if kind == "extra_forbidden":
        key = str(details["loc"][-1])
        keys = [*place.keys, *(known if not path else ())]
        hint, meant = did_you_mean(key, keys), closest(key, keys)
        return [Problem((*path, key), f"unknown key {key!r}", hint, at_key=True, meant=meant)]
    message, hint = _message(details, context, path)
    return [Problem(path, message, hint, at_key=place.at_key)]


def _message(details: ErrorDetails, context: Mapping[str, Any], path: Path) -> tuple[str, str]:
    kind, given = details["type"], details["input"]
    shown = "***" if _secret(path) else repr(given)[:60]
    wanted = _WANTED.get(kind.split("_")[0])
    if kind in ("literal_error", "enum"):
        choices = str(context["expected"]).replace("'", "").replace(" or ", ", ").split(", ")
        return f"{shown} is not one of {', '.join(choices)}", did_you_mean(str(given), choices)
    if kind == "string_pattern_mismatch":
        pattern = str(context["pattern"])
        return f"{shown} does not fit: {_PATTERNS.get(pattern, f'it must match {pattern}')}", ""
    if kind == "string_too_long":
        return f"{shown} has {len(given)} characters, and at most {context['max_length']} fit", ""
    if kind.startswith("too_short") or kind == "string_too_short":
        return "this must not be empty", ""
    if kind in _BOUNDS:
        return f"{shown} is out of range: it must be {_BOUNDS[kind].format(**context)}", ""
    if kind == "value_error":
        return str(context["error"]), ""
    if wanted:
        hint = (
            "put it in quotes if it is meant as text" if wanted == "text" and not _collection(given) else ""
        )
        return f"this must be {wanted}, and {_shown(path, given)}", hint
    return details["msg"].replace("Input should be", "this must be"), ""


def _shown(path: Path, value: Any) -> str:
    """``'abc' is text``: a value of the file and what YAML made of it."""
    if value is None:
        return "nothing stands there"
    if isinstance(value, dict):
        return "a mapping stands there"
    if isinstance(value, list | tuple):
        return "a list stands there"
    if _secret(path):
        return "what stands there is not"
    if isinstance(value, bool):
        return f"YAML reads {str(value).lower()} there"
    kind = next(
        (words for scalar, words in _SCALARS.items() if isinstance(value, scalar)), type(value).__name__
    )
    shown = str(value) if isinstance(value, date) else repr(value)
    return f"{shown[:60]} is {kind}"


def _secret(path: Path) -> bool:
    return any(is_secret(part) for part in path)


def _collection(value: Any) -> bool:
    return value is None or isinstance(value, dict | list | tuple)
