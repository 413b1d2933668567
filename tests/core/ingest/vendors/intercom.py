# SPDX-License-Identifier: Apache-2.0
"""Intercom: searches, of contacts by the day, and a list of companies by page."""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from tests.core.ingest.vendors.base import SECRET, Vendor, only, refuse, seconds, size_of, unix

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from cdp_provider.testing.destinations.fake import FakeRequest
    from tests.core.ingest.vendors.base import Record


def _intercom(**members: Any) -> Record:
    def make(n: int, at: datetime) -> dict[str, Any]:
        moments = dict.fromkeys(
            ("created_at", "updated_at", "signed_up_at", "last_seen_at", "last_request_at", "waiting_since"),
            unix(at),
        )
        return {"id": f"{n:024x}", **members, **moments}

    return make


RECORDS: dict[str, Record] = {
    "contacts": _intercom(
        external_id="e1",
        role="user",
        email="a@example.com",
        phone="+4930",
        name="Ada",
        location={"country": "Germany", "city": "Berlin"},
        language_override="de",
        owner_id="7",
        unsubscribed_from_emails=False,
        has_hard_bounced=False,
        marked_email_as_spam=False,
        custom_attributes={"plan": "gold"},
    ),
    "companies": _intercom(
        company_id="c1",
        name="Shop",
        industry="Retail",
        website="https://shop.example",
        size=12,
        monthly_spend=99.5,
        user_count=3,
        session_count=5,
        plan={"type": "plan", "id": "1", "name": "Gold"},
        custom_attributes={},
    ),
    "conversations": _intercom(
        title="Help",
        state="open",
        open=True,
        read=False,
        priority="priority",
        source={
            "type": "email",
            "delivered_as": "customer_initiated",
            "subject": "Help",
            "author": {"type": "user", "id": "0" * 24, "email": "a@example.com"},
        },
        contacts={"type": "contact.list", "contacts": [{"id": "0" * 24}]},
        admin_assignee_id=5,
        team_assignee_id="6",
        conversation_rating={"rating": 5},
    ),
}


class Intercom(Vendor):
    name = "intercom"
    records = RECORDS
    needs: ClassVar = {"authorization": f"Bearer {SECRET}", "intercom-version": "2.17"}

    def listed(self, request: FakeRequest) -> dict[str, Any]:
        if request.method != "POST":
            refuse(request.method)
        if request.path == "/companies/list":
            return self._companies(request)
        stream = request.path.removeprefix("/").removesuffix("/search")
        body = request.json()
        only(body, "query", "pagination", "sort")
        only(body["pagination"], "per_page", "starting_after")
        query = body["query"]
        assert (query["field"], query["operator"]) == ("updated_at", ">")
        bound = seconds(query["value"])
        if stream == "contacts":
            # Known to the day only: later than that day.
            bound = bound.replace(hour=0, minute=0, second=0) + timedelta(days=1, seconds=-1)
        found = [record for record in self.lists[stream].values() if seconds(record["updated_at"]) > bound]
        start, size = self._after(body["pagination"]), size_of(body["pagination"].get("per_page"), 50, 150)
        shown, following = self.page(found, start, size)
        pages: dict[str, Any] = {
            "type": "pages",
            "page": start // size + 1,
            "per_page": size,
            "total_pages": 9,
        }
        if following is not None:
            token = base64.b64encode(str(following).encode()).decode()
            pages["next"] = {"page": start // size + 2, "starting_after": token}
        key = "data" if stream == "contacts" else stream
        return {"type": "list", key: shown, "total_count": len(found), "pages": pages}

    @staticmethod
    def _after(pagination: Mapping[str, Any]) -> int:
        token = pagination.get("starting_after")
        return int(base64.b64decode(token)) if token else 0

    def _companies(self, request: FakeRequest) -> dict[str, Any]:
        asked = {**(request.json() if request.body else {}), **request.query}
        only(asked, "page", "per_page", "order")
        page, size = int(asked.get("page", 1)), size_of(asked.get("per_page"), 15, 60)
        found = list(self.lists["companies"].values())
        shown, _ = self.page(found, (page - 1) * size, size)
        pages = {"type": "pages", "page": page, "per_page": size, "total_pages": -(-len(found) // size)}
        return {"type": "list", "data": shown, "total_count": len(found), "pages": pages}
