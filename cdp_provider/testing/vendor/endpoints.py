# SPDX-License-Identifier: Apache-2.0
"""The endpoints of the stand-in vendor: reading of bodies and queries, and what is done per record."""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from cdp_provider.testing.vendor.state import VendorState, canonical, epoch_microseconds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Json = dict[str, Any]

MAX_PAGE = 500
MAX_MAIL_BATCH = 100
MAX_CRM_BATCH = 50
BOUNCING_DOMAIN = "bounce.invalid"

_EMAIL = re.compile(r"[a-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[a-z0-9!#$%&'*+/=?^_`{|}~-]+)*@([a-z0-9-]+\.)+[a-z]{2,}")


class ApiError(Exception):
    """A request that the vendor answers with an error as a whole."""

    def __init__(
        self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = dict(headers or {})


@dataclass(frozen=True, slots=True)
class Route:
    """What a path means.

    :param vendor: ``mail`` or ``crm``: which token and which rate limit hold.
    :param collection: name of the array of records in the body.
    :param key: name of the field that identifies a record.
    :param limit: most records in one request.
    :param status: status of the answer when the request as a whole is in order.
    :param apply: applies one record and returns its result.
    """

    vendor: str
    collection: str
    key: str
    limit: int
    status: int
    apply: Callable[[VendorState, Json], Json]


def encode(value: object) -> str:
    """Return the JSON text of an answer."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def find_route(method: str, path: str) -> Route:
    """Return what the path means; ApiError 404 or 405 if nothing."""
    if path == "/crm/customers":
        expected, route = "GET", Route("crm", "customers", "customer_id", MAX_PAGE, 200, _update_customer)
    elif path == "/crm/customers/batch":
        expected, route = (
            "POST",
            Route("crm", "customers", "customer_id", MAX_CRM_BATCH, 207, _update_customer),
        )
    elif found := re.fullmatch(r"/mail/lists/([^/]+)/members(/remove)?", path):
        name, removes = found.groups()
        apply = _remover(name) if removes else _upserter(name)
        expected, route = "POST", Route("mail", "members", "email", MAX_MAIL_BATCH, 200, apply)
    else:
        raise ApiError(404, "not_found", f"There is nothing at {path}.")
    if method != expected:
        message = f"{path} takes {expected}, not {method}."
        raise ApiError(405, "method_not_allowed", message, {"Allow": expected})
    return route


def read_records(body: bytes, route: Route) -> list[Json]:
    """Return the records of a body; ApiError 400 (no JSON) or 422 (another shape) refuses the whole batch."""
    try:
        given = json.loads(body)
    except ValueError as error:
        raise ApiError(400, "malformed_json", f"The body is no JSON: {type(error).__name__}.") from error
    records = given.get(route.collection) if isinstance(given, dict) else None
    if not isinstance(records, list) or not records:
        message = f'The body must be {{"{route.collection}": [...]}} with at least one record.'
        raise ApiError(422, "invalid_body", message)
    if len(records) > route.limit:
        message = f"{len(records)} records were sent; at most {route.limit} are allowed."
        raise ApiError(422, "batch_too_large", message)
    for position, record in enumerate(records):
        where = f"{route.collection}[{position}]"
        if not isinstance(record, dict) or not isinstance(record.get(route.key), str):
            raise ApiError(422, "invalid_record", f"{where}.{route.key} must be a string.")
        if not isinstance(record.get("fields", {}), dict):
            raise ApiError(422, "invalid_record", f"{where}.fields must be an object.")
    return records


def list_customers(state: VendorState, query: str) -> Json:
    """Answer a page of the CRM's customers; ApiError 400 names the parameter that cannot be read."""
    given = {name: values[-1] for name, values in parse_qs(query, keep_blank_values=True).items()}
    if unknown := given.keys() - {"limit", "updated_since", "cursor"}:
        raise ApiError(400, "invalid_parameter", f"Unknown parameter: {', '.join(sorted(unknown))}.")
    limit = _read_limit(given.get("limit"))
    since = _read_since(given.get("updated_since"))
    after = _read_cursor(given["cursor"]) if given.get("cursor") else None
    page = state.customer_page(since=since, after=after, limit=limit + 1)
    has_more = len(page) > limit
    page = page[:limit]
    cursor = _write_cursor(page[-1][0], page[-1][1]) if has_more else None
    return {"data": [customer for _, _, customer in page], "next_cursor": cursor}


def _read_limit(given: str | None) -> int:
    if given is None:
        return 100
    if not given.isdecimal() or int(given) < 1:
        raise ApiError(400, "invalid_parameter", "limit must be a whole number from 1.")
    return min(int(given), MAX_PAGE)


def _read_since(given: str | None) -> int | None:
    if given is None:
        return None
    try:
        return epoch_microseconds(given)
    except (ValueError, OverflowError) as error:
        message = "updated_since must be an ISO 8601 timestamp (and a + in a query must be written %2B)."
        raise ApiError(400, "invalid_parameter", message) from error


def _write_cursor(updated: int, customer_id: str) -> str:
    return base64.urlsafe_b64encode(canonical([updated, customer_id]).encode()).decode()


def _read_cursor(given: str) -> tuple[int, str]:
    try:
        updated, customer_id = json.loads(base64.urlsafe_b64decode(given))
    except (ValueError, TypeError, binascii.Error) as error:
        raise ApiError(400, "invalid_parameter", "cursor is none that this API gave out.") from error
    if not isinstance(updated, int) or not isinstance(customer_id, str):
        raise ApiError(400, "invalid_parameter", "cursor is none that this API gave out.")
    return updated, customer_id


def _update_customer(state: VendorState, record: Json) -> Json:
    customer_id = record["customer_id"]
    if state.update_customer(customer_id, record.get("fields", {})):
        return {"customer_id": customer_id, "status": "updated"}
    error = {"code": "unknown_customer", "message": "There is no customer with this customer_id."}
    return {"customer_id": customer_id, "status": "error", "error": error}


def _upserter(list_name: str) -> Callable[[VendorState, Json], Json]:
    def upsert(state: VendorState, record: Json) -> Json:
        email = record["email"].strip().lower()
        if not _EMAIL.fullmatch(email):
            return {"email": record["email"], "status": "rejected", "reason": "invalid e-mail address"}
        if email.endswith(f"@{BOUNCING_DOMAIN}"):
            reason = "the domain accepts no mail"
            return {"email": record["email"], "status": "rejected", "reason": reason}
        is_new = state.upsert_contact(list_name, email, record.get("fields", {}))
        return {"email": record["email"], "status": "created" if is_new else "updated"}

    return upsert


def _remover(list_name: str) -> Callable[[VendorState, Json], Json]:
    def remove(state: VendorState, record: Json) -> Json:
        removed = state.remove_contact(list_name, record["email"].strip().lower())
        return {"email": record["email"], "status": "removed" if removed else "not_found"}

    return remove
