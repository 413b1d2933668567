# SPDX-License-Identifier: Apache-2.0
"""HubSpot's object batches, as documented for 2026-09."""

from __future__ import annotations

import itertools
import re
from typing import Any

from cdp_provider.testing.destinations.fake import FakeAnswer, FakeRequest, FakeVendor

_PATH = re.compile(r"/crm/objects/2026-09/(contacts|companies)/batch/(create|update|upsert|read|archive)")
_AT = "2026-07-01T00:00:00.000Z"


class HubspotVendor(FakeVendor):
    """One kind of object.

    :param partial: whether a batch is applied in part and answered with 207; without it, one bad input
        refuses the batch, as HubSpot does for upserts by e-mail address.
    :param echoes: whether results name the trace id of their input.
    """

    def __init__(self, *, id_property: str = "email", partial: bool = True, echoes: bool = True) -> None:
        super().__init__()
        self.id_property, self.partial, self.echoes = id_property, partial, echoes
        self.objects: dict[str, dict[str, str]] = {}
        self._ids = itertools.count(512)

    def answer(self, request: FakeRequest) -> FakeAnswer:
        path = _PATH.fullmatch(request.path)
        if request.method != "POST" or path is None:
            return FakeAnswer(404, {"status": "error", "message": "resource not found"})
        inputs = request.json()["inputs"]
        if not 0 < len(inputs) <= 100:
            return _refusal("VALIDATION_ERROR", "The number of inputs is not between 1 and 100")
        if path[2] == "archive":
            for given in inputs:
                if (gone := self.objects.pop(given["id"], None)) is not None:
                    self.applied[gone[self.id_property]] += 1
            return FakeAnswer(204)
        whole = not self.partial and path[2] == "upsert"
        answers = [self._one(path[2], given, dry=whole) for given in inputs]
        errors = [answer for answer in answers if "category" in answer]
        if whole:
            if errors:
                return FakeAnswer(400, errors[0])
            answers = [self._one(path[2], given) for given in inputs]
        return _multi([answer for answer in answers if "category" not in answer], errors)

    def holds(self) -> dict[str, dict[str, Any]]:
        return {
            held[self.id_property]: {n: v for n, v in held.items() if v != "" and n != self.id_property}
            for held in self.objects.values()
        }

    def _one(self, call: str, given: dict[str, Any], *, dry: bool = False) -> dict[str, Any]:
        properties: dict[str, str] = given.get("properties", {})
        trace = given.get("objectWriteTraceId")
        if call != "create" and call != "read":
            assert given["idProperty"] == self.id_property
        key = str(properties[self.id_property] if call == "create" else given["id"])
        key = key.lower() if self.id_property == "email" else key
        found = next((i for i, held in self.objects.items() if held[self.id_property] == key), None)
        if found is None and call in ("read", "update"):
            return _error("OBJECT_NOT_FOUND", "Could not get some objects", ids=[key])
        if call == "read":
            return self._result(str(found), None)
        if wrong := [name for name, value in properties.items() if not isinstance(value, str)]:
            return _error("VALIDATION_ERROR", f"{wrong} are not texts", objectWriteTraceId=[trace])
        if key in self.refuses:
            return _error("VALIDATION_ERROR", "refused", objectWriteTraceId=[trace])
        if found is not None and call == "create":
            message = f"Contact already exists. Existing ID: {found}"
            return _error("CONFLICT", message, objectWriteTraceId=[trace], existingId=[found])
        if dry:
            return {}
        id_ = found or str(next(self._ids))
        self.objects[id_] = {self.id_property: key, **self.objects.get(id_, {}), **properties}
        self.applied[key] += 1
        return self._result(id_, trace if self.echoes else None)

    def _result(self, id_: str, trace: str | None) -> dict[str, Any]:
        result = {"id": id_, "properties": self.objects[id_], "archived": False, "createdAt": _AT}
        return result if trace is None else {**result, "objectWriteTraceId": trace}


def _error(category: str, message: str, **context: list[Any]) -> dict[str, Any]:
    return {"status": "error", "category": category, "message": message, "context": context}


def _refusal(category: str, message: str) -> FakeAnswer:
    return FakeAnswer(400, _error(category, message))


def _multi(results: list[dict[str, Any]], errors: list[dict[str, Any]]) -> FakeAnswer:
    body: dict[str, Any] = {"status": "COMPLETE", "results": results, "startedAt": _AT, "completedAt": _AT}
    if errors:
        body |= {"numErrors": len(errors), "errors": errors}
    headers = {"X-HubSpot-RateLimit-Max": "100", "X-HubSpot-RateLimit-Remaining": "99"}
    return FakeAnswer(207 if errors else 200, body, headers)
