# SPDX-License-Identifier: Apache-2.0
"""A project of Iterable: users in bulk, and static lists."""

from __future__ import annotations

from typing import Any

from cdp_provider.testing.destinations.fake import FakeAnswer, FakeRequest, FakeVendor


class IterableVendor(FakeVendor):
    """One project.

    :param list_id: if given, :meth:`holds` tells its members.
    :ivar users: identifier -> fields.
    :ivar lists: id -> identifiers of its members.
    :ivar silent: failures are counted, and nobody is named.
    """

    def __init__(self, list_id: int | None = None) -> None:
        super().__init__()
        self.list_id = list_id
        self.users: dict[str, dict[str, Any]] = {}
        self.lists: dict[int, set[str]] = {list_id: set()} if list_id is not None else {}
        self.forgotten: set[str] = set()
        self.silent = False

    def answer(self, request: FakeRequest) -> FakeAnswer:
        body = request.json()
        if request.path == "/api/users/bulkUpdate":
            return self._done([self._update(user) for user in body["users"]])
        if body["listId"] not in self.lists:
            return FakeAnswer(400, {"code": "BadParams", "msg": "List does not exist", "params": {}})
        members = self.lists[body["listId"]]
        if request.path == "/api/lists/subscribe":
            return self._done([self._update(user, members) for user in body["subscribers"]])
        return self._done([self._leave(user, members) for user in body["subscribers"]])

    def holds(self) -> dict[str, dict[str, Any]]:
        members = self.users.keys() if self.list_id is None else self.lists[self.list_id]
        return {key: self.users[key] for key in members}

    def _update(self, user: dict[str, Any], members: set[str] | None = None) -> tuple[str, str | None]:
        kind, key = _identifier(user)
        if key in self.forgotten:
            return key, f"forgotten{kind}"
        if key in self.refuses:
            return key, f"invalidData{kind}"
        self.users.setdefault(key, {}).update(user.get("dataFields", {}))
        self.applied[key] += 1
        if members is not None:
            members.add(key)
        return key, None

    def _leave(self, user: dict[str, Any], members: set[str]) -> tuple[str, str | None]:
        kind, key = _identifier(user)
        if key not in self.users:
            return key, f"notFound{kind}"
        members.discard(key)
        self.applied[key] += 1
        return key, None

    def _done(self, results: list[tuple[str, str | None]]) -> FakeAnswer:
        failed: dict[str, list[str]] = {}
        for key, why in results:
            if why is not None:
                failed.setdefault(why, []).append(key)
        count = sum(map(len, failed.values()))
        body = {
            "successCount": len(results) - count,
            "failCount": count,
            "invalidEmails": [],
            "invalidUserIds": [],
            "filteredOutFields": [],
            "createdFields": [],
            "failedUpdates": {} if self.silent else failed,
        }
        return FakeAnswer(200, body)


def _identifier(user: dict[str, Any]) -> tuple[str, str]:
    return ("Emails", user["email"].lower()) if "email" in user else ("UserIds", user["userId"])
