# SPDX-License-Identifier: Apache-2.0
"""What an HTTP source answers: JSON with every digit, its records, and what GraphQL calls errors."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING, Any

import orjson

from cdp_provider.core.exceptions import DataError, RateLimitedError
from cdp_provider.core.ingest.conversion import quote_long_numbers
from cdp_provider.core.ingest.dotted import dig

if TYPE_CHECKING:
    from cdp_provider.core.http import Response

#: Codes of GraphQL errors that only ask for patience.
_THROTTLED = frozenset({"THROTTLED", "RATE_LIMITED"})
_NUMBER = re.compile(r"\d{1,13}(\.\d+)?")
#: A number from here on is seconds since 1970; a thousand times that, milliseconds.
_MOMENT = 1e9
_CODE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
#: So many errors of an answer are told.
_TOLD = 5

#: Digits, dots, exponents and the rest; the shape of long numbers is then found by plain search.
_SHAPES = bytes(
    ord("0")
    if chr(code).isdigit() and code < 128
    else code
    if code in b".-"
    else ord("e")
    if code in b"eE"
    else 32
    for code in range(256)
)
#: Every number that `quote_long_numbers` quotes has one of these shapes in it.
_LONG, _FRACTION = b"0" * 19, b"0" * 10 + b".0"
_POWER = b"0" * 17 + b"e"
#: What may stand before a number that is not part of a text.
_BEFORE = frozenset(b":,[ \t\r\n")


class GarbledError(DataError):
    """No JSON came; what stands there instead, such as a maintenance page, is often gone a second later."""


def load(response: Response) -> Any:
    """The answer as JSON, with every digit of its numbers. What is not clean JSON but readable is read: then
    one record is bad and not the whole page.

    :raises GarbledError: it is no JSON.
    """
    body = quote_long_numbers(response.body) if _may_hold_long_numbers(response.body) else response.body
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        try:
            return json.loads(body, parse_constant=str)
        except (ValueError, RecursionError):
            pass
    try:
        response.fail_as_not_json()
    except DataError as error:
        raise GarbledError(str(error)) from None


def dump(records: list[Any]) -> list[bytes]:
    """Each record as a line of JSON, without its end."""
    try:
        return [orjson.dumps(record) for record in records]
    except TypeError:  # half a character, or a number beyond 64 bits
        return [json.dumps(record).encode() for record in records]


def records_of(response: Response, answer: Any, place: str) -> list[Any]:
    """The records of an answer.

    :param place: dotted; empty when the answer is the list.
    :raises DataError: there is no list.
    """
    records = dig(answer, place)
    if not isinstance(records, list):
        where = f"at {place!r}" if place else "as the whole answer"
        msg = (
            f"{response.method} {response.path} has no list of records {where}, but {type(records).__name__};"
            " correct `records` of the stream"
        )
        raise DataError(msg)
    return records


def refuse_status(response: Response) -> None:
    """:meth:`Response.raise_for_status`, with what servers beyond RFC 9110 say of a limit that is used up."""
    try:
        response.raise_for_status()
    except RateLimitedError as error:
        if error.retry_after is None:
            error.retry_after = _until_reset(response)
        raise


def refuse_graphql_errors(response: Response, answer: Any) -> None:
    """GraphQL answers 200 whatever happens, and says in `errors` what went wrong.

    :raises RateLimitedError: the source is throttled.
    :raises DataError: there are other errors; their texts may quote data and are not told.
    """
    errors = answer.get("errors") if isinstance(answer, dict) else None
    if not errors:
        return
    errors = [error for error in errors if isinstance(error, dict)] if isinstance(errors, list) else []
    codes = [_code(error) for error in errors]
    what = f"{response.method} {response.path}"
    if not _THROTTLED.isdisjoint(codes):
        msg = f"{what}: the source is throttled; wait as long as it says, or ask less often (`rate`)"
        raise RateLimitedError(msg, retry_after=_refilled(answer))
    told = [
        " at ".join(filter(None, (code, _path(error))))
        for code, error in list(zip(codes, errors, strict=True))[:_TOLD]
    ]
    msg = (
        f"{what} answered with {len(errors) or 'unreadable'} GraphQL error(s):"
        f" {', '.join(told) or 'without code'}; check the query, its variables and the connection's rights"
    )
    raise DataError(msg)


def _may_hold_long_numbers(body: bytes) -> bool:
    """Whether `quote_long_numbers` may find something, in a twentieth of its time."""
    shapes = body.translate(_SHAPES)
    if _stands_free(body, shapes, _LONG) or _stands_free(body, shapes, _FRACTION):
        return True
    # A power of ten has at least eight digits in a row before its point or its e.
    if b"00000000e" not in shapes and b"00000000." not in shapes:
        return False
    return _stands_free(body, shapes.replace(b".", b"0"), _POWER)


def _stands_free(body: bytes, shapes: bytes, shape: bytes) -> bool:
    """Whether the shape is found where a number may stand, rather than in a text such as ``"1234"``."""
    at = shapes.find(shape)
    while at >= 0:
        start = at
        while start and shapes[start - 1] in b"0.-":
            start -= 1
        if not start or body[start - 1] in _BEFORE:
            return True
        at = shapes.find(shape, at + len(shape))
    return False


def _until_reset(response: Response) -> float | None:
    """Seconds until a limit is as good as new. Some write how many, some the moment; their size tells."""
    for name in ("ratelimit-reset", "x-ratelimit-reset"):
        text = response.headers.get(name, "").strip()
        if not _NUMBER.fullmatch(text):
            continue
        number = float(text)
        if number < _MOMENT:
            return number
        seconds = number / 1000 if number >= 1000 * _MOMENT else number
        now = response.date()
        return max(0.0, seconds - (time.time() if now is None else now))
    return None


def _code(error: dict[str, Any]) -> str:
    code = dig(error, "extensions.code") or error.get("type")
    return code if isinstance(code, str) and _CODE.fullmatch(code) else "no code"


def _path(error: dict[str, Any]) -> str:
    path = error.get("path")
    return (
        ".".join(str(part) for part in path if _CODE.fullmatch(str(part))) if isinstance(path, list) else ""
    )


def _refilled(answer: dict[str, Any]) -> float | None:
    """Seconds until the query is affordable, where the source tells what it costs and how fast the allowance
    comes back."""
    cost = dig(answer, "extensions.cost")
    needed, held = dig(cost, "requestedQueryCost"), dig(cost, "throttleStatus.currentlyAvailable")
    rate = dig(cost, "throttleStatus.restoreRate")
    if not all(isinstance(number, int | float) for number in (needed, held, rate)) or rate <= 0:
        return None
    seconds: float = (needed - held) / rate
    return max(0.0, seconds)
