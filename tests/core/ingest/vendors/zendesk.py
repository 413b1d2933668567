# SPDX-License-Identifier: Apache-2.0
"""Zendesk: incremental exports by cursor and, of organizations, by time."""

from __future__ import annotations

import base64
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlencode

from tests.core.ingest.vendors.base import SECRET, Vendor, iso, only, refuse, seconds, size_of, unix

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cdp_provider.testing.destinations.fake import FakeRequest
    from tests.core.ingest.vendors.base import Record


def _zendesk(**members: Any) -> Record:
    def make(n: int, at: datetime) -> dict[str, Any]:
        moments = {"created_at": iso(at), "updated_at": iso(at), "generated_timestamp": unix(at)}
        return {"id": 9_000_000_000 + n, "external_id": f"e{n}", **members, **moments}

    return make


RECORDS: dict[str, Record] = {
    "users": _zendesk(
        email="a@example.com",
        name="Ada",
        phone="+4930",
        role="end-user",
        active=True,
        suspended=False,
        verified=True,
        locale="de",
        time_zone="Berlin",
        organization_id=8,
        tags=["vip"],
        user_fields={"level": 3},
        last_login_at="2026-06-01T00:00:00Z",
    ),
    "tickets": _zendesk(
        subject="Help",
        status="open",
        priority="high",
        type="incident",
        via={"channel": "email"},
        requester_id=1,
        submitter_id=1,
        assignee_id=2,
        organization_id=8,
        group_id=3,
        satisfaction_rating={"score": "good"},
        tags=["vip"],
        custom_fields=[{"id": 1, "value": "x"}],
    ),
    "organizations": _zendesk(
        name="Shop",
        domain_names=["shop.example"],
        group_id=3,
        shared_tickets=True,
        tags=[],
        organization_fields={},
        deleted_at="2026-06-01T00:00:00Z",
    ),
}


class Zendesk(Vendor):
    name = "zendesk"
    records = RECORDS
    needs: ClassVar = {
        "authorization": "Basic " + base64.b64encode(f"me@example.com/token:{SECRET}".encode()).decode()
    }

    def listed(self, request: FakeRequest) -> dict[str, Any]:
        path = re.fullmatch(r"/api/v2/incremental/(\w+?)(/cursor)?\.json", request.path)
        if path is None:
            refuse(request.path)
        return (self._by_cursor if path[2] else self._by_time)(request, path[1])

    def _since(self, stream: str, start: int) -> list[dict[str, Any]]:
        changes = "generated_timestamp" if stream == "tickets" else "updated_at"

        def changed(record: Mapping[str, Any]) -> datetime:
            value = record[changes]
            return seconds(value) if isinstance(value, int) else datetime.fromisoformat(value)

        ordered = sorted(self.lists[stream].values(), key=changed)
        return [record for record in ordered if changed(record) >= seconds(start)]

    def _by_cursor(self, request: FakeRequest, stream: str) -> dict[str, Any]:
        only(request.query, "start_time", "cursor", "per_page")
        start, place = int(request.query.get("start_time", 0)), 0
        if cursor := request.query.get("cursor"):
            start, place = map(int, base64.b64decode(cursor).split(b":"))
        elif not start:
            refuse("start_time or cursor is needed")
        found = self._since(stream, start)
        shown, following = self.page(found, place, size_of(request.query.get("per_page"), 1000, 1000))
        after = base64.b64encode(f"{start}:{place + len(shown)}".encode()).decode()
        query = urlencode({"cursor": after, "per_page": request.query.get("per_page", 1000)})
        return {
            stream: shown,
            "after_url": f"{self.url}{request.path}?{query}",
            "after_cursor": after,
            "before_url": None,
            "before_cursor": None,
            "end_of_stream": following is None,
        }

    def _by_time(self, request: FakeRequest, stream: str) -> dict[str, Any]:
        only(request.query, "start_time", "per_page")
        size = size_of(request.query.get("per_page"), 1000, 1000)
        shown, following = self.page(self._since(stream, int(request.query["start_time"])), 0, size)
        end = int(datetime.fromisoformat(shown[-1]["updated_at"]).timestamp()) if shown else None
        query = urlencode({"start_time": end, "per_page": size})
        return {
            stream: shown,
            "count": len(shown),
            "end_time": end,
            "end_of_stream": following is None,
            "next_page": f"{self.url}{request.path}?{query}" if shown else None,
        }
