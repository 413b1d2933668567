# SPDX-License-Identifier: Apache-2.0
"""HubSpot: searches with filters, a sort and 10,000 results at the most."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from tests.core.ingest.vendors.base import SECRET, Vendor, iso, only, refuse, size_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cdp_provider.testing.destinations.fake import FakeRequest
    from tests.core.ingest.vendors.base import Record


def _hubspot(changed: str, **properties: str) -> Record:
    def make(n: int, at: datetime) -> dict[str, Any]:
        own = {key: value.format(n=n) for key, value in properties.items()}
        return {
            "id": str(1000 + n),
            "properties": {**own, "createdate": iso(at), changed: iso(at), "hs_object_id": str(1000 + n)},
            "createdAt": iso(at),
            "updatedAt": iso(at),
            "archived": False,
        }

    return make


RECORDS: dict[str, Record] = {
    "contacts": _hubspot(
        "lastmodifieddate",
        email="p{n}@example.com",
        firstname="Ada",
        lastname="N{n}",
        phone="+4930{n}",
        mobilephone="+49170{n}",
        company="Shop",
        country="Germany",
        city="Berlin",
        lifecyclestage="customer",
        hs_lead_status="OPEN",
        hubspot_owner_id="77",
        hs_unasked="not asked for",
    ),
    "companies": _hubspot(
        "hs_lastmodifieddate",
        name="Shop {n}",
        domain="shop{n}.example",
        phone="+4930{n}",
        industry="RETAIL",
        country="Germany",
        city="Berlin",
        numberofemployees="12",
        lifecyclestage="customer",
        hubspot_owner_id="77",
    ),
    "deals": _hubspot(
        "hs_lastmodifieddate",
        dealname="Deal {n}",
        amount="12.50",
        deal_currency_code="EUR",
        dealstage="closedwon",
        pipeline="default",
        closedate="2026-06-30T10:00:00Z",
        hs_is_closed_won="true",
        hubspot_owner_id="77",
    ),
}


class HubSpot(Vendor):
    name = "hubspot"
    records = RECORDS
    needs: ClassVar = {"authorization": f"Bearer {SECRET}", "content-type": "application/json"}
    #: Of one search, all pages together.
    most = 10_000

    def listed(self, request: FakeRequest) -> dict[str, Any]:
        path = re.fullmatch(r"/crm/objects/2026-09/(\w+)/search", request.path)
        if request.method != "POST" or path is None:
            refuse(f"{request.method} {request.path}")
        body = request.json()
        only(body, "filterGroups", "sorts", "properties", "limit", "after", "query")
        (group,) = body["filterGroups"]
        found = [r for r in self.lists[path[1]].values() if all(self._fits(r, f) for f in group["filters"])]
        (sort,) = body["sorts"]
        assert sort["direction"] == "ASCENDING"
        found.sort(key=lambda record: record["properties"][sort["propertyName"]])
        start, size = int(body.get("after", 0)), size_of(body.get("limit"), 10, 200)
        if start + size > self.most:
            refuse("paging past 10,000 results")
        shown, following = self.page(found, start, size)
        asked = {*body["properties"], "createdate", "hs_object_id"}
        shown = [r | {"properties": {k: v for k, v in r["properties"].items() if k in asked}} for r in shown]
        answer: dict[str, Any] = {"total": len(found), "results": shown}
        if following is not None:
            answer["paging"] = {"next": {"after": str(following)}}
        return answer

    @staticmethod
    def _fits(record: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
        only(wanted, "propertyName", "operator", "value")
        if not isinstance(wanted["value"], str | int):
            refuse("the value of a filter is text or a number")
        changed = datetime.fromisoformat(record["properties"][wanted["propertyName"]])
        bound = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=int(wanted["value"]))
        return {"GTE": changed >= bound, "LT": changed < bound}[wanted["operator"]]
