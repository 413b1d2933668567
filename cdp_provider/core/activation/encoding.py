# SPDX-License-Identifier: Apache-2.0
"""Values of a profile as JSON."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import orjson


def encode(value: Any) -> bytes:
    """JSON text of a request's body.

    Decimals become numbers digit by digit, never through a float; timestamps are ISO 8601 in UTC with ``Z``,
    dates ISO 8601, and null stays null.

    :raises TypeError: a value has no JSON form.
    """
    return orjson.dumps(value, default=_encode_other, option=orjson.OPT_UTC_Z)


def text(value: Any) -> str:
    """A value for a field that only takes text: as in :func:`encode`, without quotation marks; null is empty.

    :raises TypeError: a value has no JSON form.
    """
    if value is None:
        return ""
    return value if isinstance(value, str) else encode(value).decode().strip('"')


def _encode_other(value: Any) -> Any:
    if isinstance(value, Decimal):
        text = f"{value:f}"
        return orjson.Fragment(text.rstrip("0").rstrip(".") if "." in text else text)
    raise TypeError  # orjson names the type in its own
