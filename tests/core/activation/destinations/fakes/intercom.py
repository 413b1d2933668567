# SPDX-License-Identifier: Apache-2.0
"""Intercom's contacts."""

from __future__ import annotations

import re
import time
from typing import Any

from cdp_provider.testing.destinations.fake import FakeAnswer, FakeRequest, FakeVendor

_PATH = re.compile(r"/contacts(?:/(?P<id>[0-9a-f]{24}))?(?:/(?P<call>archive|unarchive))?")


class IntercomVendor(FakeVendor):
    """A workspace.

    :ivar contacts: id -> the contact; archived ones have ``archived``.
    """

    def __init__(self, key: str = "external_id") -> None:
        super().__init__()
        self.key = key
        self.contacts: dict[str, dict[str, Any]] = {}

    def answer(self, request: FakeRequest) -> FakeAnswer:
        answer = self._answer(request)
        reset = str(int(time.time()) + 10)
        headers = {"X-RateLimit-Limit": "1666", "X-RateLimit-Remaining": "1600", "X-RateLimit-Reset": reset}
        return FakeAnswer(answer.status, answer.body, headers)

    def holds(self) -> dict[str, dict[str, Any]]:
        own = {"id", "type", "role", "archived", "custom_attributes", self.key}
        return {
            contact[self.key]: {
                name: value
                for name, value in {**contact, **contact["custom_attributes"]}.items()
                if name not in own and value is not None
            }
            for contact in self.contacts.values()
            if not contact["archived"] and contact.get(self.key)
        }

    def _answer(self, request: FakeRequest) -> FakeAnswer:
        if request.path == "/contacts/search":
            query = request.json()["query"]
            assert query["operator"] == "="
            found = self._matching({query["field"]: query["value"]})
            live = [contact for contact in found if not contact["archived"]]
            return FakeAnswer(200, {"type": "list", "data": live, "total_count": len(live)})
        path = _PATH.fullmatch(request.path)
        if path is None:
            return _errors(404, "not_found", "Requested resource was not found")
        if path["id"] is None:
            return self._create(request.json())
        return self._change(request, path["call"], self.contacts.get(path["id"]))

    def _create(self, given: dict[str, Any]) -> FakeAnswer:
        assert given["role"] == "user"
        if refusal := self._refusal(given, {}):
            return refusal
        same = self._matching({name: given[name] for name in ("external_id", "email") if given.get(name)})
        if same:
            which = "An archived" if same[0]["archived"] else "A"
            text = f"{which} contact matching those details already exists with id={same[0]['id']}"
            return _errors(409, "conflict", text)
        id_ = f"{len(self.contacts) + 1:024x}"
        self.contacts[id_] = {"type": "contact", "id": id_, "archived": False, "custom_attributes": {}}
        return self._apply(id_, given)

    def _change(self, request: FakeRequest, call: str | None, contact: dict[str, Any] | None) -> FakeAnswer:
        if contact is None or (contact["archived"] and call != "unarchive"):
            return _errors(404, "not_found", "User Not Found")
        key = contact.get(self.key)
        if request.method == "GET":
            return self._shown(contact)
        if request.method == "PUT":
            return self._refusal(request.json(), contact) or self._apply(contact["id"], request.json())
        if request.method == "DELETE":
            del self.contacts[contact["id"]]
        else:
            contact["archived"] = call == "archive"
        self.applied[key] += 1
        return FakeAnswer(200, {"id": contact["id"], "type": "contact", "external_id": None})

    def _refusal(self, given: dict[str, Any], contact: dict[str, Any]) -> FakeAnswer | None:
        if given.get(self.key) in self.refuses:
            return _errors(400, "parameter_invalid", f"refused: {given[self.key]} is not valid")
        details = {name: given[name] for name in ("external_id", "email") if given.get(name)}
        other = [held for held in self._matching(details) if contact and held["id"] != contact["id"]]
        text = f"A contact matching those details already exists with id={other[0]['id']}" if other else ""
        return _errors(409, "conflict", text) if other else None

    def _apply(self, id_: str, given: dict[str, Any]) -> FakeAnswer:
        contact = self.contacts[id_]
        attributes = {**contact["custom_attributes"], **given.get("custom_attributes", {})}
        contact.update({**given, "custom_attributes": attributes})
        self.applied[contact[self.key]] += 1
        return FakeAnswer(200, contact)

    def _matching(self, details: dict[str, str]) -> list[dict[str, Any]]:
        return [
            contact
            for contact in self.contacts.values()
            if any(str(contact.get(n) or "").lower() == v.lower() for n, v in details.items())
        ]

    @staticmethod
    def _shown(contact: dict[str, Any] | None) -> FakeAnswer:
        if contact is None or contact["archived"]:
            return _errors(404, "not_found", "User Not Found")
        return FakeAnswer(200, contact)


def _errors(status: int, code: str, message: str) -> FakeAnswer:
    errors = [{"code": code, "message": message}]
    return FakeAnswer(status, {"type": "error.list", "request_id": "r", "errors": errors})
