# SPDX-License-Identifier: Apache-2.0
"""A workspace of Braze, as its API reference describes it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from cdp_provider.testing.destinations.fake import FakeAnswer, FakeVendor

if TYPE_CHECKING:
    from cdp_provider.testing.destinations.fake import FakeRequest

_IDENTIFIERS = ("external_id", "braze_id", "email", "phone")


class BrazeVendor(FakeVendor):
    """Users and their events.

    :param key: the identifier that users are known by.
    :ivar events: what was told of whom, in order.
    :ivar vague: whether errors come as texts that name no position.
    """

    def __init__(self, key: str = "external_id") -> None:
        super().__init__()
        self.key = key
        self.users: dict[str, dict[str, Any]] = {}
        self.events: list[dict[str, Any]] = []
        self.vague = False

    def answer(self, request: FakeRequest) -> FakeAnswer:
        if request.method != "POST" or request.path not in ("/users/track", "/users/delete"):
            return FakeAnswer(404, {"message": "no such endpoint"})
        body = request.json()
        answer = self._track(body) if request.path == "/users/track" else self._delete(body)
        reset = str(int(time.time()) + 3)
        limits = {"X-RateLimit-Limit": "3000", "X-RateLimit-Remaining": "2999", "X-RateLimit-Reset": reset}
        return FakeAnswer(answer.status, answer.body, limits)

    def holds(self) -> dict[str, dict[str, Any]]:
        return self.users

    def _track(self, body: dict[str, list[dict[str, Any]]]) -> FakeAnswer:
        if not body or not body.keys() <= {"attributes", "events"} or sum(map(len, body.values())) > 75:
            return FakeAnswer(400, {"message": "Too many objects, or none"})
        errors: list[Any] = []
        processed = dict.fromkeys(body, 0)
        for array, objects in body.items():
            for index, given in enumerate(objects):
                if (wrong := self._wrong(array, given)) is not None:
                    error = {"type": wrong, "input_array": array, "index": index}
                    errors.append(wrong if self.vague else error)
                    continue
                processed[array] += 1
                self._apply(array, given)
        if errors and not any(processed.values()):
            message = "Valid data must be provided in the 'attributes', 'events', or 'purchases' fields."
            return FakeAnswer(400, {"message": message, "errors": errors})
        counts = {f"{array}_processed": count for array, count in processed.items()}
        return FakeAnswer(201, {"message": "success", **counts, **({"errors": errors} if errors else {})})

    def _wrong(self, array: str, given: dict[str, Any]) -> str | None:
        if not any(isinstance(given.get(name), str) for name in _IDENTIFIERS):
            return "'external_id', 'braze_id', 'user_alias', 'email' or 'phone' is required"
        if array == "events" and not (isinstance(given.get("name"), str) and "time" in given):
            return "'name' and 'time' are required"
        return "refused" if given.get(self.key) in self.refuses else None

    def _apply(self, array: str, given: dict[str, Any]) -> None:
        key = given[self.key]
        if key not in self.users and given.get("_update_existing_only"):
            return
        user = self.users.setdefault(key, {})
        self.applied[key] += 1
        if array == "events":
            self.events.append(given)
            return
        for name, value in given.items():
            if value is None:
                user.pop(name, None)
            elif name not in (self.key, "_update_existing_only"):
                user[name] = value

    def _delete(self, body: dict[str, list[str]]) -> FakeAnswer:
        ((name, keys),) = body.items()
        if name not in ("external_ids", "braze_ids") or len(keys) > 50:
            return FakeAnswer(400, {"message": "a maximum of 50 users can be deleted"})
        deleted = [key for key in keys if self.users.pop(key, None) is not None]
        self.applied.update(deleted)
        return FakeAnswer(201, {"deleted": len(deleted), "message": "success"})
