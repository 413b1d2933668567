# SPDX-License-Identifier: Apache-2.0
"""A stand-in CRM and e-mail tool over real HTTP; see :class:`VendorServer`.

Source, token ``shop-crm-token``
    ``GET /crm/customers?limit=500&updated_since=ISO8601&cursor=OPAQUE`` answers
    ``{"data": [...], "next_cursor": "..." | null}``, ordered by (updated_at, customer_id); ``updated_since``
    is inclusive, a ``limit`` above 500 counts as 500. Every 13th request is answered 429 with
    ``Retry-After``, every 29th 500.

Destinations, tokens ``shop-mail-token`` and ``shop-crm-token``
    ``POST /mail/lists/{list}/members`` with ``{"members": [{"email", "fields"}]}``, up to 100, answers 200
    and a status per record: created, updated or rejected. ``POST /mail/lists/{list}/members/remove``: removed
    or not_found. ``POST /crm/customers/batch`` with ``{"customers": [{"customer_id", "fields"}]}``, up to 50,
    answers 207: updated or error. Both are limited to 20 requests per second and honour ``Idempotency-Key``.

For tests, without a token
    ``GET /_/health``, ``/_/state``, ``/_/requests?path_prefix=``, ``/_/applied?key=``; ``GET``, ``POST`` and
    ``DELETE /_/faults``; ``POST /_/customers`` with ``{"customers": [...]}`` changes the source's data.
"""

from cdp_provider.testing.vendor.faults import Fault
from cdp_provider.testing.vendor.server import VendorServer
from cdp_provider.testing.vendor.state import Applied, LoggedRequest

__all__ = ["Applied", "Fault", "LoggedRequest", "VendorServer"]
