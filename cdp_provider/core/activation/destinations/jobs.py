# SPDX-License-Identifier: Apache-2.0
"""Jobs of vendors that take a batch now and say later how its records fared, and what they say then."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from cdp_provider.core.activation.destinations.answers import body_of
from cdp_provider.core.exceptions import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from cdp_provider.core.activation.destinations.base import Line, Request

#: Seconds between two questions: the first pause, and the longest.
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 30.0


async def finished(
    line: Line, request: Request, done: Callable[[dict[str, Any]], bool], wait: timedelta
) -> dict[str, Any] | None:
    """The first answer to `request` that is `done`, asked for again after growing pauses; None where there is
    none within `wait`. Errors as of :meth:`Line.send`.

    :raises DataError: an answer cannot be read.
    """
    pause, until = _FIRST_PAUSE, time.monotonic() + wait.total_seconds()
    while True:
        left = until - time.monotonic()
        await line.sleep(max(0.0, min(pause, left)))
        # A job may be known a moment later than it is answered for.
        with suppress(NotFoundError):
            answer = body_of(await line.send(request))
            if done(answer):
                return answer
        if left <= pause:
            return None
        pause = min(pause * 2, _LONGEST_PAUSE)


def part(parent: Any, *keys: str) -> dict[str, Any]:
    """The JSON object that stands under nested keys; an empty one where there is none."""
    for key in keys:
        parent = parent.get(key) if isinstance(parent, dict) else None
    return parent if isinstance(parent, dict) else {}


def count(told: dict[str, Any], key: str) -> int:
    """The whole number at a key; 0 where there is none."""
    found = told.get(key)
    return found if isinstance(found, int) else 0
