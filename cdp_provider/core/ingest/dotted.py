# SPDX-License-Identifier: Apache-2.0
"""Values at dotted places of JSON: ``pagination.starting_after``."""

from __future__ import annotations

from typing import Any

from cdp_provider.core.exceptions import ConfigurationError


def dig(value: Any, path: str) -> Any:
    """What stands at a dotted path; None where a part is missing. The empty path is the value itself."""
    for part in path.split(".") if path else ():
        value = value.get(part) if isinstance(value, dict) else None
    return value


def put(whole: dict[str, Any], path: str, value: Any) -> None:
    """Set what stands at a dotted path. Missing mappings are created; a number names an item of a list.

    :raises ConfigurationError: the path leads through something that is neither mapping nor list.
    """
    *parents, last = path.split(".")
    holder: Any = whole
    for part in parents:
        if isinstance(holder, dict):
            holder = holder.setdefault(part, {})
        else:
            holder = holder[_index(holder, part, path)]
    if isinstance(holder, dict):
        holder[last] = value
    else:
        holder[_index(holder, last, path)] = value


def _index(holder: Any, part: str, path: str) -> int:
    if isinstance(holder, list) and part.isdecimal() and int(part) < len(holder):
        return int(part)
    msg = (
        f"the body has no place {path!r}: {part!r} would lie in a {type(holder).__name__}; correct the place"
    )
    raise ConfigurationError(msg)
