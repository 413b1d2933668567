# SPDX-License-Identifier: Apache-2.0
"""A workspace of Customer.io, as the Track API, version 2, describes it."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from cdp_provider.testing.destinations.fake import FakeAnswer, FakeVendor

if TYPE_CHECKING:
    from cdp_provider.testing.destinations.fake import FakeRequest

_ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")


class CustomerioVendor(FakeVendor):
    """People and their events.

    :ivar events: by ULID; one that came before is dropped.
    """

    def __init__(self) -> None:
        super().__init__()
        self.people: dict[str, dict[str, Any]] = {}
        self.events: dict[str, dict[str, Any]] = {}

    def answer(self, request: FakeRequest) -> FakeAnswer:
        if (request.method, request.path) != ("POST", "/api/v2/batch"):
            return FakeAnswer(404)
        body = request.json()
        if len(request.body) > 500_000 or not isinstance(body.get("batch"), list) or not body["batch"]:
            return _refused("batch", "the batch is empty or too large")
        errors = []
        for index, given in enumerate(body["batch"]):
            if wrong := self._wrong(given):
                reason, field, message = wrong
                errors.append({"batch_index": index, "reason": reason, "field": field, "message": message})
            else:
                self._apply(given)
        return FakeAnswer(207, {"errors": errors}) if errors else FakeAnswer(200, {})

    def holds(self) -> dict[str, dict[str, Any]]:
        return self.people

    def _wrong(self, given: dict[str, Any]) -> tuple[str, str, str] | None:
        identifiers = given.get("identifiers")
        if not isinstance(identifiers, dict) or len(identifiers) != 1:
            return "required", "identifiers", "one identifier has to be given"
        ((name, key),) = identifiers.items()
        if name not in ("id", "email", "phone", "cio_id") or not isinstance(key, str) or not key:
            return "invalid", "identifiers", "the identifier has to be a text"
        if len(json.dumps(given)) > 32_000:
            return "invalid", "", "larger than 32 KB"
        if given["action"] == "event" and not (
            isinstance(given.get("timestamp"), int) and _ULID.fullmatch(given.get("id", ""))
        ):
            return "invalid", "timestamp", "a timestamp is a whole number, an id a ULID"
        return ("invalid", "attributes", f"refused for {key}") if key in self.refuses else None

    def _apply(self, given: dict[str, Any]) -> None:
        (key,) = given["identifiers"].values()
        if given["action"] == "delete":
            if self.people.pop(key, None) is not None:
                self.applied[key] += 1
            return
        attributes = dict(given["attributes"])
        if attributes.pop("_update", False) and key not in self.people:
            return
        if given["action"] == "event":
            if given["id"] in self.events:
                return
            self.events[given["id"]] = given
            attributes = {}
        person = self.people.setdefault(key, {})
        self.applied[key] += 1
        for name, value in attributes.items():
            if value in (None, ""):
                person.pop(name, None)
            else:
                person[name] = value


def _refused(field: str, message: str) -> FakeAnswer:
    return FakeAnswer(400, {"errors": [{"reason": "invalid", "field": field, "message": message}]})
