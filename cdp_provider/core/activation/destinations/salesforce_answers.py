# SPDX-License-Identifier: Apache-2.0
"""How Salesforce writes values, and how it says what became of a record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cdp_provider.core.activation.destinations.answers import objects, without_values
from cdp_provider.core.activation.destinations.base import InvalidRecord, Outcome
from cdp_provider.core.activation.encoding import encode
from cdp_provider.core.exceptions import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cdp_provider.core.activation.destinations.base import Record
    from cdp_provider.core.http import Response

#: In CSV. Salesforce leaves a field alone whose cell is empty.
NULL = "#N/A"

#: Codes of what passes by itself, and of what is said about a record that was deleted before.
_PASSING = frozenset(
    {"UNABLE_TO_LOCK_ROW", "SERVER_UNAVAILABLE", "REQUEST_RUNNING_TOO_LONG", "UNKNOWN_EXCEPTION"}
)
_GONE = frozenset({"ENTITY_IS_DELETED", "INVALID_CROSS_REFERENCE_KEY", "NOT_FOUND"})


def scalar(name: str, value: Any) -> Any:
    """A field's value as JSON; several options have semicolons between them.

    :raises InvalidRecord: it is an object.
    """
    if isinstance(value, (list, tuple)):
        return ";".join(map(str, value))
    if isinstance(value, dict):
        msg = f"the field {name!r} holds an object, and a Salesforce field holds one value or several options"
        raise InvalidRecord(msg)
    return value


def cell_text(value: Any) -> str:
    """A cell of CSV; Salesforce keeps no empty text, only null."""
    if isinstance(value, str):
        return value or NULL
    return NULL if value is None else encode(value).decode().strip('"')


def first_error(response: Response) -> Mapping[str, Any]:
    """``errorCode``, ``message`` and perhaps ``fields`` of a refusal; empty for any other answer."""
    try:
        body = response.json()
    except DataError:
        return {}
    error = body[0] if isinstance(body, list) and body else body
    return error if isinstance(error, dict) else {}


def outcome_of(result: Any, record: Record) -> Outcome:
    """By one result of sObject Collections. An accepted record's id is remembered."""
    if not isinstance(result, dict):
        return Outcome("retryable", "no answer for this record")
    if result.get("success") is True:
        return Outcome("accepted", sent=result.get("id"))
    error = next(iter(objects(result, "errors")), {})
    reason = reason_of(str(error.get("statusCode")), error.get("message"), error.get("fields"))
    return readable(Outcome("rejected", reason), record)


def outcome_of_call(result: Mapping[str, Any] | None, record: Record) -> Outcome:
    """By one answer inside that of a composite request."""
    if result is None:
        return Outcome("retryable", "no answer for this record")
    if str(result.get("httpStatusCode")).startswith("2"):
        return Outcome("accepted")
    error = next(iter(objects(result, "body")), {})
    reason = reason_of(str(error.get("errorCode")), error.get("message"), error.get("fields"))
    return readable(Outcome("rejected", reason), record)


def reason_of(code: str, message: Any, fields: Any) -> str:
    """Salesforce's code, its message without addresses, and the names of the fields."""
    named = f" ({', '.join(map(str, fields))})" if isinstance(fields, list) and fields else ""
    return f"{code}: {without_values(str(message or ''))}{named}"


def readable(outcome: Outcome, record: Record) -> Outcome:
    """The outcome without values in its reason; what passes by itself is tried again."""
    if outcome.state != "rejected":
        return outcome
    reason = without_values(outcome.reason or "", record)
    return Outcome("retryable" if reason.partition(":")[0] in _PASSING else "rejected", reason)


def once_gone(outcome: Outcome) -> Outcome:
    """What somebody else has deleted is deleted."""
    gone = outcome.state == "rejected" and (outcome.reason or "").partition(":")[0] in _GONE
    return Outcome("accepted") if gone or outcome.state == "accepted" else outcome
