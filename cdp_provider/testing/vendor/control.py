# SPDX-License-Identifier: Apache-2.0
"""What a test asks and orders over HTTP, under ``/_/``: no token, no rate, not logged."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from cdp_provider.testing.vendor.api import Request, Response, VendorApi
from cdp_provider.testing.vendor.endpoints import encode
from cdp_provider.testing.vendor.faults import Fault

if TYPE_CHECKING:
    from collections.abc import Callable

_Answer = dict[str, Any] | list[dict[str, Any]]


def handle(api: VendorApi, request: Request) -> Response:
    """Answer one control request: 200, 400 (says what is wrong) or 404."""
    action = _ACTIONS.get((request.method, request.path))
    if action is None:
        known = ", ".join(f"{method} {path}" for method, path in _ACTIONS)
        return _respond(404, {"error": {"code": "not_found", "message": f"Known: {known}."}})
    try:
        return _respond(200, action(api, request))
    except (ValueError, TypeError, KeyError) as error:
        return _respond(
            400, {"error": {"code": "bad_request", "message": f"{type(error).__name__}: {error}"}}
        )


def _respond(status: int, answer: _Answer) -> Response:
    return Response(status, encode(answer).encode())


def _parameter(request: Request, name: str) -> str | None:
    values = parse_qs(request.query).get(name)
    return values[-1] if values else None


def _health(_api: VendorApi, _request: Request) -> _Answer:
    return {"status": "ok"}


def _state(api: VendorApi, _request: Request) -> _Answer:
    requests = Counter(
        f"{request.method} {request.path} {request.status}" for request in api.state.requests()
    )
    return {
        "contacts": {name: api.state.contacts(name) for name in api.state.lists()},
        "customers": api.state.written_customers(),
        "doubled": [asdict(write) for write in api.state.doubled()],
        "requests": dict(sorted(requests.items())),
    }


def _requests(api: VendorApi, request: Request) -> _Answer:
    return [asdict(logged) for logged in api.state.requests(_parameter(request, "path_prefix"))]


def _applied(api: VendorApi, request: Request) -> _Answer:
    return [asdict(write) for write in api.state.applied(_parameter(request, "key"))]


def _list_faults(api: VendorApi, _request: Request) -> _Answer:
    return api.faults.pending()


def _add_fault(api: VendorApi, request: Request) -> _Answer:
    api.faults.add(Fault.from_json(_object(request)))
    return api.faults.pending()


def _clear_faults(api: VendorApi, _request: Request) -> _Answer:
    api.faults.clear()
    return []


def _put_customers(api: VendorApi, request: Request) -> _Answer:
    customers = _object(request)["customers"]
    api.state.put_customers(customers)
    return {"customers": len(customers)}


def _object(request: Request) -> dict[str, Any]:
    given = json.loads(request.body)
    if not isinstance(given, dict):
        msg = f"The body must be a JSON object, not {type(given).__name__}."
        raise TypeError(msg)
    return given


_ACTIONS: dict[tuple[str, str], Callable[[VendorApi, Request], _Answer]] = {
    ("GET", "/_/health"): _health,
    ("GET", "/_/state"): _state,
    ("GET", "/_/requests"): _requests,
    ("GET", "/_/applied"): _applied,
    ("GET", "/_/faults"): _list_faults,
    ("POST", "/_/faults"): _add_fault,
    ("DELETE", "/_/faults"): _clear_faults,
    ("POST", "/_/customers"): _put_customers,
}
