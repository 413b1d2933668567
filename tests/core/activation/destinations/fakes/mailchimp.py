# SPDX-License-Identifier: Apache-2.0
"""A Mailchimp audience: batch subscribe, and archiving of single members."""

from __future__ import annotations

import hashlib
from typing import Any

from cdp_provider.testing.destinations.fake import FakeAnswer, FakeRequest, FakeVendor

_PROBLEM = {"Content-Type": "application/problem+json"}
_STATUSES = {"subscribed", "unsubscribed", "cleaned", "pending", "transactional"}
_ON = {"subscribed", "pending", "transactional"}


class MailchimpVendor(FakeVendor):
    """One audience.

    :ivar members: address -> the member.
    :ivar complied: addresses that unsubscribed themselves.
    """

    def __init__(self, audience: str = "a1b2c3") -> None:
        super().__init__()
        self.audience = audience
        self.members: dict[str, dict[str, Any]] = {}
        self.complied: set[str] = set()

    def answer(self, request: FakeRequest) -> FakeAnswer:
        base = f"/lists/{self.audience}"
        if request.method == "POST" and request.path == base:
            return self._batch(request)
        if request.method == "DELETE" and request.path.startswith(f"{base}/members/"):
            return self._archive(request.path.rpartition("/")[2])
        return _problem(404, "Resource Not Found", "The requested resource could not be found.")

    def holds(self) -> dict[str, dict[str, Any]]:
        return {
            address: {name: value for name, value in member["merge_fields"].items() if value != ""}
            for address, member in self.members.items()
            if member["status"] in _ON
        }

    def _batch(self, request: FakeRequest) -> FakeAnswer:
        body = request.json()
        members = body["members"]
        if len(members) > 500 or any(m.get("status", "subscribed") not in _STATUSES for m in members):
            return _problem(400, "Invalid Resource", "members", [{"field": "members", "message": "invalid"}])
        answer: dict[str, Any] = {"new_members": [], "updated_members": [], "errors": []}
        for given in members:
            place, said = self._one(given, update=body["update_existing"])
            answer[place].append(said)
        for place, count in (("new_members", "created"), ("updated_members", "updated")):
            answer[f"total_{count}"] = len(answer[place])
        return FakeAnswer(200, answer | {"error_count": len(answer["errors"])})

    def _one(self, given: dict[str, Any], *, update: bool) -> tuple[str, dict[str, Any]]:
        address = given["email_address"]
        held = self.members.get(address.lower())
        on_list = held is not None and held["status"] != "archived"
        if address.lower() in self.refuses:
            return "errors", _error(address, "ERROR_GENERIC", f"refused: {address} looks fake")
        if address.lower() in self.complied and given.get("status") == "subscribed":
            text = f"{address} is in a compliance state and cannot be subscribed."
            return "errors", _error(address, "ERROR_GENERIC", text)
        if on_list and not update:
            return "errors", _error(address, "ERROR_CONTACT_EXISTS", f"{address} is already a list member")
        contact = f"contact{len(self.members)}"
        now = held or {
            "email_address": address,
            "contact_id": contact,
            "status": "subscribed",
            "merge_fields": {},
        }
        merged = {**now["merge_fields"], **given.get("merge_fields", {})}
        # An address that was unsubscribed by API stays so, and nothing says that it does.
        status = "unsubscribed" if now["status"] == "unsubscribed" else given.get("status", now["status"])
        self.members[address.lower()] = {**now, **given, "status": status, "merge_fields": merged}
        self.applied[address.lower()] += 1
        return "updated_members" if on_list else "new_members", self.members[address.lower()]

    def _archive(self, member: str) -> FakeAnswer:
        for address, held in self.members.items():
            name = hashlib.md5(address.encode(), usedforsecurity=False).hexdigest()
            if member in (name, held["contact_id"]) and held["status"] != "archived":
                if address in self.refuses:
                    return _problem(405, "Method Not Allowed", f"refused: {address} cannot be removed.")
                held["status"] = "archived"
                self.applied[address] += 1
                return FakeAnswer(204)
        return _problem(404, "Resource Not Found", "The requested resource could not be found.")


def _error(address: str, code: str, text: str) -> dict[str, Any]:
    return {"email_address": address, "error": text, "error_code": code, "field": "", "field_message": ""}


def _problem(status: int, title: str, detail: str, errors: list[dict[str, str]] | None = None) -> FakeAnswer:
    body = {"type": "https://mailchimp.com/developer/marketing/docs/errors/", "title": title}
    return FakeAnswer(
        status,
        {**body, "status": status, "detail": detail, "instance": "i", "errors": errors or []},
        _PROBLEM,
    )
