# SPDX-License-Identifier: Apache-2.0
"""Klaviyo: JSON:API lists with one filter and addresses of the next page."""

from __future__ import annotations

import base64
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlencode

from tests.core.ingest.vendors.base import SECRET, Vendor, iso, only, refuse, size_of, unix

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cdp_provider.testing.destinations.fake import FakeRequest
    from tests.core.ingest.vendors.base import Record


def _klaviyo_profile(n: int, at: datetime) -> dict[str, Any]:
    return {
        "type": "profile",
        "id": f"01P{n}",
        "attributes": {
            "email": f"p{n}@example.com",
            "phone_number": f"+4930123{n:04}",
            "external_id": f"e{n}",
            "first_name": "Ada",
            "last_name": f"N{n}",
            "organization": "Shop",
            "title": "Dr",
            "locale": "de-DE",
            "location": {"country": "DE", "city": "Berlin", "zip": "10115"},
            "properties": {"color": "red"},
            "subscriptions": {
                "email": {"marketing": {"consent": "SUBSCRIBED", "can_receive_email_marketing": True}},
                "sms": {"marketing": {"consent": "NEVER_SUBSCRIBED", "can_receive_sms_marketing": False}},
            },
            "last_event_date": iso(at),
            "created": iso(at),
            "updated": iso(at),
        },
        "links": {"self": f"https://a.klaviyo.com/api/profiles/01P{n}"},
    }


def _klaviyo_event(n: int, at: datetime) -> dict[str, Any]:
    return {
        "type": "event",
        "id": f"E{n}",
        "attributes": {
            "timestamp": unix(at),
            "event_properties": {"value": 5},
            "datetime": iso(at),
            "uuid": f"00000000-0000-0000-0000-{n:012}",
        },
        "relationships": {
            "profile": {"data": {"type": "profile", "id": f"01P{n}"}},
            "metric": {"data": {"type": "metric", "id": "Mopened"}},
        },
        "links": {"self": f"https://a.klaviyo.com/api/events/E{n}"},
    }


def _klaviyo_list(n: int, at: datetime) -> dict[str, Any]:
    attributes = {
        "name": f"List {n}",
        "created": iso(at),
        "updated": iso(at),
        "opt_in_process": "double_opt_in",
    }
    return {"type": "list", "id": f"L{n}", "attributes": attributes}


RECORDS: dict[str, Record] = {"profiles": _klaviyo_profile, "events": _klaviyo_event, "lists": _klaviyo_list}


class Klaviyo(Vendor):
    name = "klaviyo"
    records = RECORDS
    needs: ClassVar = {"authorization": f"Klaviyo-API-Key {SECRET}", "revision": "2026-07-15"}
    gives: ClassVar = {"Content-Type": "application/vnd.api+json"}
    _sizes: ClassVar = {"profiles": 100, "events": 1000, "lists": 10}

    def listed(self, request: FakeRequest) -> dict[str, Any]:
        stream, query = request.path.removeprefix("/api/"), request.query
        more = ("additional-fields[profile]",) if stream == "profiles" else ()
        only(query, "filter", "sort", "page[size]", "page[cursor]", *more)
        asked = re.fullmatch(r"([\w-]+)\((\w+),([\dT:.Z+-]+)\)", query["filter"])
        if asked is None or query["sort"] != asked[2]:
            refuse("filter or sort")
        operators = ("greater-or-equal", "greater-than") if stream == "events" else ("greater-than",)
        if asked[1] not in operators:
            refuse(f"{asked[2]} takes no {asked[1]}")
        bound = datetime.fromisoformat(asked[3])

        def changed(record: Mapping[str, Any]) -> datetime:
            return datetime.fromisoformat(record["attributes"][asked[2]])

        found = sorted(self.lists[stream].values(), key=changed)
        found = [
            r for r in found if changed(r) > bound or (asked[1] == "greater-or-equal" and changed(r) == bound)
        ]
        most = self._sizes[stream]
        start = int(base64.b64decode(query.get("page[cursor]", "")) or 0)
        shown, following = self.page(found, start, size_of(query.get("page[size]"), min(most, 20), most))
        links = {"self": f"{self.url}{request.path}"}
        if following is not None:
            token = base64.b64encode(str(following).encode()).decode()
            links["next"] = f"{links['self']}?{urlencode({**query, 'page[cursor]': token})}"
        return {"data": shown, "links": links}
