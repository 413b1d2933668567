# SPDX-License-Identifier: Apache-2.0
"""Slack: a message for each profile that enters a segment, through ``chat.postMessage``.

https://docs.slack.dev/reference/methods/chat.postMessage
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, cast

from pydantic import Field

from cdp_provider.core.activation.destinations.answers import body_of, error_body
from cdp_provider.core.activation.destinations.base import (
    ACCEPTED,
    Capabilities,
    DestinationKind,
    InvalidRecord,
    Limits,
    Outcome,
    Request,
)
from cdp_provider.core.activation.destinations.fit import operation_problems, parameter_problems
from cdp_provider.core.activation.encoding import text as text_of
from cdp_provider.core.exceptions import (
    AccessError,
    ConfigurationError,
    DataError,
    RateLimitedError,
    UnavailableError,
)
from cdp_provider.core.project.activation import Rate
from cdp_provider.core.project.base import Options

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cdp_provider.core.activation.destinations.base import Operation, Record
    from cdp_provider.core.http import Response
    from cdp_provider.core.project.activation import Destination, Sync
    from cdp_provider.core.project.problems import Problem

_OPERATIONS: frozenset[Operation] = frozenset({"event"})
_PLACE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")

#: Longer texts are cut: https://api.slack.com/changelog/2018-04-truncating-really-long-messages
_LONGEST_TEXT = 40_000

#: https://docs.slack.dev/reference/methods/chat.postMessage#errors, by how one recovers.
_BUSY = frozenset({"rate_limited", "ratelimited", "message_limit_exceeded"})
_TROUBLE = frozenset(
    {"fatal_error", "internal_error", "request_timeout", "service_unavailable", "team_added_to_org"}
)
_NO_ACCESS = frozenset(
    {
        "access_denied", "account_inactive", "ekm_access_denied", "invalid_auth", "missing_scope",
        "no_permission", "not_allowed_token_type", "not_authed", "org_login_required", "token_expired",
        "token_revoked", "two_factor_setup_required",
    }
)  # fmt: skip
_NO_CHANNEL = frozenset({"channel_not_found", "is_archived", "not_in_channel", "restricted_action"})


class SlackOptions(Options):
    """A channel that is told.

    :param channel: its id, or a ``{place}`` that the sync's parameters fill.
    :param text: of the message; ``{name}`` is the value of the sync's field, or its parameter, of that name.
    """

    channel: str = Field(min_length=1)
    text: str = Field(min_length=1)

    def sync_problems(self, sync: Sync) -> Iterator[Problem]:
        """A mode other than ``event``, a place that nothing fills."""
        yield from operation_problems(sync, _OPERATIONS)
        text = set(_PLACE.findall(self.text)) - set(sync.fields)
        yield from parameter_problems(sync, text | set(_PLACE.findall(self.channel)))


class Slack(DestinationKind):
    """Messages in a channel of Slack."""

    options = SlackOptions
    #: Without a charset Slack warns in every answer.
    headers: ClassVar[Mapping[str, str]] = {"Content-Type": "application/json; charset=utf-8"}
    base_url = "https://slack.com/api"
    limits: ClassVar[Mapping[str, Limits]] = {
        "": Limits((Rate(requests=1, per=timedelta(seconds=1)),), concurrency=1)
    }
    limits_source = "https://docs.slack.dev/apis/web-api/rate-limits"

    def __init__(self, destination: Destination, sync: Sync) -> None:
        super().__init__(destination, sync)
        self._options = cast("SlackOptions", destination.options)

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(_OPERATIONS, max_batch=1, repeatable=False)

    def item(self, operation: Operation, record: Record) -> Any:
        values = {**self.sync.parameters, **record.fields}
        text = _PLACE.sub(lambda place: _escaped(values.get(place[1])), self._options.text)
        if not text.strip():
            msg = "the message's text is empty"
            raise InvalidRecord(msg)
        if len(text) > _LONGEST_TEXT:
            msg = f"the message's text is longer than the {_LONGEST_TEXT} characters that Slack shows"
            raise InvalidRecord(msg)
        return {"channel": self.filled(self._options.channel), "text": text}

    def request(self, operation: Operation, records: Sequence[Record], items: Sequence[bytes]) -> Request:
        return Request("POST", "/chat.postMessage", items[0])

    def inspect(self, response: Response) -> None:
        """Slack says nearly everything with status 200."""
        error = _error(response)
        what = f"{response.method} {response.path} answered {error!r}"
        if error in _BUSY:
            msg = f"{what}: too many messages; post less often"
            raise RateLimitedError(msg, retry_after=response.retry_after())
        if error in _TROUBLE:
            msg = f"{what}: Slack has trouble of its own; try again later"
            raise UnavailableError(msg)
        if error in _NO_ACCESS:
            msg = f"{what}: the token was refused; it has to be a bot's, with the scope chat:write"
            raise AccessError(msg)
        if error in _NO_CHANNEL:
            msg = f"{what}: check the channel of {self.destination.name}, and invite the bot to it"
            raise ConfigurationError(msg)

    def outcomes(self, operation: Operation, response: Response, records: Sequence[Record]) -> list[Outcome]:
        if body_of(response).get("ok") is True:
            return [ACCEPTED]
        if error := _error(response):
            return [Outcome("rejected", error)]
        msg = f"{response.method} {response.path} answered {response.status} without ok"
        raise DataError(msg)


def _error(response: Response) -> str | None:
    """The error that an answer names; None if it names none, or is something else."""
    answer = error_body(response) or {}
    return str(answer.get("error")) if answer.get("ok") is False else None


def _escaped(value: Any) -> str:
    """A value inside a message, where it is nothing but text: no mention, no link.

    https://docs.slack.dev/messaging/formatting-message-text#escaping
    """
    return text_of(value).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
