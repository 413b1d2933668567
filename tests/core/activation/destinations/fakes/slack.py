# SPDX-License-Identifier: Apache-2.0
"""A workspace of Slack, as far as ``chat.postMessage`` goes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from cdp_provider.testing.destinations.fake import FakeAnswer, FakeVendor

if TYPE_CHECKING:
    from cdp_provider.testing.destinations.fake import FakeRequest

CHANNEL = "C0123456789"
_PERSON = re.compile(r"person\d+@example\.com")


class SlackVendor(FakeVendor):
    """One channel.

    :ivar messages: texts, in order.
    :ivar error: what every message is answered with, if not None.
    """

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []
        self.error: str | None = None

    def answer(self, request: FakeRequest) -> FakeAnswer:
        if (request.method, request.path) != ("POST", "/chat.postMessage"):
            return FakeAnswer(404)
        given = request.json()
        error = self._error(request, given)
        if error is not None:
            return FakeAnswer(200, {"ok": False, "error": error})
        text = given["text"]
        self.messages.append(text)
        self.applied.update(_PERSON.findall(text))
        stamp = f"1751328000.{len(self.messages):06}"
        message = {"type": "message", "text": text, "ts": stamp, "bot_id": "B012345678"}
        return FakeAnswer(200, {"ok": True, "channel": CHANNEL, "ts": stamp, "message": message})

    def holds(self) -> dict[str, dict[str, Any]]:
        return {person: {} for text in self.messages for person in _PERSON.findall(text)}

    def _error(self, request: FakeRequest, given: dict[str, Any]) -> str | None:
        if self.error is not None:
            return self.error
        if not request.headers.get("authorization", "").startswith("Bearer "):
            return "not_authed"
        if given.get("channel") != CHANNEL:
            return "channel_not_found"
        if not given.get("text"):
            return "no_text"
        # No error of Slack's is about a person; this one stands for all that are about a message.
        return "msg_too_long" if self.refuses & set(_PERSON.findall(given["text"])) else None
