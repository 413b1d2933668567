# SPDX-License-Identifier: Apache-2.0
"""Vendors' answers: parts that may be missing, and reasons that quote what was sent."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from cdp_provider.core.exceptions import DataError

if TYPE_CHECKING:
    from cdp_provider.core.activation.destinations.base import Record
    from cdp_provider.core.http import Response

_EMAIL = re.compile(r"[^\s\"'<>=:,;()\[\]{}]+@[^\s\"'<>=:,;()\[\]{}]+")

#: Shorter values are parts of ordinary words.
_TELLING = 3


def body_of(response: Response) -> dict[str, Any]:
    """The JSON object that a 2xx answer is.

    :raises DataError: it is something else, so nobody knows what was applied.
    """
    body = response.json()
    if not isinstance(body, dict):
        msg = (
            f"{response.method} {response.path} answered {response.status} with JSON that is no object; check"
            " that the base URL of the connection is the API's"
        )
        raise DataError(msg)
    return body


def objects(parent: Any, key: str) -> list[dict[str, Any]]:
    """The objects of the list at `key`; none where there is no such list."""
    found = parent.get(key) if isinstance(parent, dict) else None
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def error_body(response: Response) -> dict[str, Any]:
    """The JSON object that a refusal brought; an empty one for anything else, such as a gateway's page."""
    try:
        return body_of(response)
    except DataError:
        return {}


def without_values(text: str, record: Record | None = None) -> str:
    """A vendor's reason without what it quotes: e-mail addresses, and the key and values of `record`."""
    values = () if record is None else (record.key, *record.fields.values())
    quoted = {str(value) for value in values if value is not None and not isinstance(value, bool)}
    for value in sorted(quoted, key=len, reverse=True):
        if len(value) >= _TELLING:
            text = re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", "…", text, flags=re.IGNORECASE)
    return _EMAIL.sub("…", text)
