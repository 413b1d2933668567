# SPDX-License-Identifier: Apache-2.0
"""What pydantic finds wrong, in plain words and at the place where the file has it."""

from __future__ import annotations

from collections import Counter
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from cdp_provider.core.project.base import COLUMN_PATTERN, NAME_PATTERN
from cdp_provider.core.project.conditions import KINDS
from cdp_provider.core.project.faults import is_secret
from cdp_provider.core.project.identity import RULES, TEXT_PATTERN
from cdp_provider.core.project.places import Place, bare, find, members
from cdp_provider.core.project.problems import Path, Problem, Problems, closest, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pydantic import BaseModel, ValidationError
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
    TEXT_PATTERN: "it must not be blank",
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

#: Their location ends with a key that the file lacks or should lack.
_ABOUT_KEYS = ("missing", "extra_forbidden")

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
    groups: dict[Path, list[tuple[ErrorDetails, Place]]] = {}
    for details, place in _meant(error, model, raw):
        about_key = details["type"] in _ABOUT_KEYS
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


def _meant(error: ValidationError, model: type[BaseModel], raw: Any) -> list[tuple[ErrorDetails, Place]]:
    """Errors with their places; of a union of models those of the member that fits best."""
    found = []
    for details in error.errors(include_url=False):
        loc = details["loc"][:-1] if details["type"] in _ABOUT_KEYS else details["loc"]
        found.append((details, find(model, loc, raw)))
    weights: Counter[tuple[Path, int | str]] = Counter()
    for details, place in found:
        for choice in place.choices:
            # The type that a mapping names decides which member was meant.
            weights[choice] += 100 if details["type"] == "literal_error" else 1
    best: dict[Path, int | str] = {}
    for (path, label), _ in weights.most_common()[::-1]:
        best.setdefault(path, label)
    return [
        (details, place)
        for details, place in found
        if all(best[path] == label for path, label in place.choices)
    ]


def _union(annotation: Any) -> str | None:
    """``a whole number or text`` for a union of scalars."""
    wanted = dict.fromkeys(
        _SCALARS[kind] for member in members(annotation) if (kind := bare(member)) in _SCALARS
    )
    if len(wanted) == len(set(_SCALARS.values())):
        return "a single value"
    return " or ".join(wanted) if len(wanted) > 1 else None


def _one(details: ErrorDetails, place: Place, known: Iterable[str]) -> list[Problem]:
    """One error of pydantic as problems; its own validators may have found several."""
    kind, path, context = details["type"], place.path, details.get("ctx", {})
    cause = context.get("error")
    if isinstance(cause, Problems):
        return [problem.below(path) for problem in cause.problems]
    if kind == "missing":
        key = details["loc"][-1]
        if isinstance(key, int):
            return [Problem(path, f"this list is too short: its item {key + 1} is missing", at_key=True)]
        return [Problem(path, f"the key {key!r} is missing", at_key=True, missing=key)]
    if kind == "extra_forbidden":
        key = str(details["loc"][-1])
        keys = [*place.keys, *(known if not path else ())]
        hint, meant = did_you_mean(key, keys), closest(key, keys)
        return [Problem((*path, key), f"unknown key {key!r}", hint, at_key=True, meant=meant)]
    if kind == "condition" and isinstance(details["input"], dict):
        hints = (did_you_mean(str(key), KINDS) for key in details["input"] if closest(str(key), KINDS))
        return [Problem(path, details["msg"], next(hints, ""))]
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        return [_tag_problem(context, path)]
    message, hint = _message(details, context, path)
    return [Problem(path, message, hint, at_key=place.at_key)]


def _tag_problem(context: Mapping[str, Any], path: Path) -> Problem:
    """The key that decides between several forms of a mapping is missing or unknown."""
    key = str(context["discriminator"]).strip("'")
    if "tag" not in context:
        return Problem(path, f"the key {key!r} is missing", at_key=True, missing=key)
    choices = str(context["expected_tags"]).replace("'", "").split(", ")
    message = f"{context['tag']!r} is not one of {', '.join(choices)}"
    return Problem((*path, key), message, did_you_mean(str(context["tag"]), choices))


def _message(details: ErrorDetails, context: Mapping[str, Any], path: Path) -> tuple[str, str]:
    kind, given = details["type"], details["input"]
    shown = "***" if _hidden(path) else repr(given)[:60]
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
    if _hidden(path):
        return "what stands there is not"
    if isinstance(value, bool):
        return f"YAML reads {str(value).lower()} there"
    kind = next(
        (words for scalar, words in _SCALARS.items() if isinstance(value, scalar)), type(value).__name__
    )
    shown = str(value) if isinstance(value, date) else repr(value)
    return f"{shown[:60]} is {kind}"


def _hidden(path: Path) -> bool:
    """Whether a value is no business of whoever reads logs: a secret, or an identifier of somebody."""
    return path[:1] in {(key,) for key in RULES} or any(is_secret(part) for part in path)


def _collection(value: Any) -> bool:
    return value is None or isinstance(value, dict | list | tuple)
