# SPDX-License-Identifier: Apache-2.0
"""What drivers raise -> the product's errors, by how one recovers, and without any value of a row."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from cdp_provider.core.exceptions import (
    AccessError,
    CdpError,
    ConfigurationError,
    DataError,
    NotFoundError,
    RetryableError,
    UnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

_NOT_THERE = "correct the name in the stream, or the database of the connection; upper and lower case count"
_REFUSED = "check the connection's login and password, and grant its user SELECT"
_WRONG = "correct `table`, `query` or `cursor` of the stream"
_BROKEN = "the query breaks on a value that it calculates with; make it proof against such values"
_LATER = "it is tried again later"

#: Start of an SQLSTATE -> error, what it means, what to do. The first that fits counts.
_STATES: tuple[tuple[str, type[CdpError], str, str], ...] = (
    ("42P01", NotFoundError, "there is no such table", _NOT_THERE),
    ("42S02", NotFoundError, "there is no such table", _NOT_THERE),
    ("42703", NotFoundError, "there is no such column", _NOT_THERE),
    ("42S22", NotFoundError, "there is no such column", _NOT_THERE),
    ("3F", NotFoundError, "there is no such schema", _NOT_THERE),
    ("3D", NotFoundError, "there is no such database", _NOT_THERE),
    ("42501", AccessError, "the user may not read it", _REFUSED),
    ("28", AccessError, "the login is refused", _REFUSED),
    ("25006", ConfigurationError, "it would write, and sources are only read", _WRONG),
    ("42", ConfigurationError, "the database does not understand the statement", _WRONG),
    ("0A", ConfigurationError, "the database cannot do that", _WRONG),
    ("22", DataError, "the statement fails on the data", _BROKEN),
    ("21", DataError, "the statement fails on the data", _BROKEN),
    ("57014", RetryableError, "the statement was cancelled, perhaps by a time limit", _LATER),
    ("40", RetryableError, "the transaction was rolled back", _LATER),
    ("55", RetryableError, "something is locked", _LATER),
    ("08", UnavailableError, "the connection failed", _LATER),
    ("53", UnavailableError, "the database lacks room or connections", _LATER),
    ("57", UnavailableError, "the database is going down or starting", _LATER),
)

#: What drivers say that give no SQLSTATE.
_PHRASES: tuple[tuple[str, type[CdpError], str, str], ...] = (
    (
        r"denied|(role|user) .*does not exist|not authorized|pg_hba|(authentication|login) failed",
        AccessError,
        "the user is refused",
        _REFUSED,
    ),
    (
        r"no such (table|column)|does(n't| not) exist|not found in|(unknown|invalid) (table|column|database)",
        NotFoundError,
        "there is no such table or column",
        _NOT_THERE,
    ),
    (
        r"syntax error|error in your sql",
        ConfigurationError,
        "the database does not understand the statement",
        _WRONG,
    ),
    (
        r"could not decode",
        DataError,
        "a text is not in the database's encoding",
        "mend it there, or read the column as bytes with `query`",
    ),
)

#: The classes that PEP 249 asks of every driver.
_CLASSES: tuple[tuple[str, type[CdpError], str, str], ...] = (
    ("ProgrammingError", ConfigurationError, "the database does not understand the statement", _WRONG),
    ("NotSupportedError", ConfigurationError, "the database cannot do that", _WRONG),
    ("DataError", DataError, "the statement fails on the data", _BROKEN),
    ("IntegrityError", DataError, "the statement fails on the data", _BROKEN),
    ("DatabaseError", UnavailableError, "the database failed, or cannot be reached", _LATER),
    ("InterfaceError", UnavailableError, "the database cannot be reached", _LATER),
)


@contextmanager
def told(what: str) -> Iterator[None]:
    """Errors of a driver inside, told apart by how one recovers.

    :param what: is read: ``table public.orders``.
    """
    try:
        yield
    except CdpError:
        raise
    except Exception as error:
        fault = _fault(error, what)
        if fault is None:
            raise
        # The driver's own message may quote a row, so it is not even the cause.
        raise fault from None


def _fault(error: Exception, what: str) -> CdpError | None:
    """None for what no database raised."""
    classes = {kind.__name__ for kind in type(error).__mro__}
    if not classes & {"DatabaseError", "InterfaceError"}:
        return None
    state = _state(error)
    found = next((entry for entry in _STATES if state.startswith(entry[0])), None) if state else None
    found = found or next((entry for entry in _PHRASES if re.search(entry[0], str(error), re.I)), None)
    found = found or next(entry for entry in _CLASSES if entry[0] in classes)
    _, kind, meaning, advice = found
    said = ", ".join(
        filter(None, (type(error).__name__, state and f"SQLSTATE {state}", _named(error, state)))
    )
    return kind(f"the {what} cannot be read: {meaning} ({said}); {advice}")


def _state(error: Any) -> str:
    state = getattr(error, "sqlstate", None) or (error.args[0] if error.args else None)
    return state if isinstance(state, str) and re.fullmatch(r"[0-9A-Z]{5}", state) else ""


def _named(error: Any, state: str) -> str:
    """What PostgreSQL says of a statement that it has not begun with: names only, no values."""
    said = getattr(getattr(error, "diag", None), "message_primary", None) or ""
    return said if state in ("42P01", "42703", "42501", "3F000") else ""
