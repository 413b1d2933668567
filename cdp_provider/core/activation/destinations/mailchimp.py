# SPDX-License-Identifier: Apache-2.0
"""Mailchimp: members of an audience, five hundred at a time.

https://mailchimp.com/developer/marketing/api/lists/batch-subscribe-or-unsubscribe/
"""

from __future__ import annotations

import re
from hashlib import md5
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast
from urllib.parse import quote

from cdp_provider.core.activation.destinations.answers import body_of, error_body, objects, without_values
from cdp_provider.core.activation.destinations.base import (
    ACCEPTED,
    Capabilities,
    DestinationKind,
    InvalidRecord,
    Limits,
    Outcome,
    Refused,
    Request,
)
from cdp_provider.core.activation.destinations.fit import operation_problems, parameter_problems
from cdp_provider.core.auth import Auth
from cdp_provider.core.exceptions import DataError, RateLimitedError
from cdp_provider.core.project.base import Options
from cdp_provider.core.project.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cdp_provider.core.activation.destinations.base import Line, Operation, Record
    from cdp_provider.core.http import Response
    from cdp_provider.core.project.activation import Destination, Sync

_OPERATIONS: frozenset[Operation] = frozenset({"upsert", "insert", "remove", "archive"})
#: These stand beside a member's address; all other fields are merge fields.
_OF_MEMBER = frozenset({"language", "vip", "email_type"})
_MERGE_TAG = re.compile(r"[A-Z0-9_]{1,10}")
_GONE = frozenset({"unsubscribed", "cleaned", "archived"})


class MailchimpOptions(Options):
    """An audience of a Mailchimp account.

    :param list: the audience's id; ``{name}`` is filled by the sync's parameters.
    :param status: what members become; ``pending`` asks them to confirm, ``transactional`` gets no campaigns.
    :param removal: what ``remove`` does. ``unsubscribe`` keeps Mailchimp from subscribing them again by API;
        ``archive`` takes one request per member.
    :param skip_merge_validation: whether members may lack merge fields that the audience requires.
    """

    needs_connection: ClassVar[bool] = True

    list: str
    status: Literal["subscribed", "pending", "transactional"] = "subscribed"
    removal: Literal["unsubscribe", "archive"] = "archive"
    skip_merge_validation: bool = False

    def sync_problems(self, sync: Sync) -> Iterator[Problem]:
        """A mode that Mailchimp has not, an unfilled place, a field that is no merge tag."""
        yield from operation_problems(sync, _OPERATIONS)
        yield from parameter_problems(sync, self.places())
        for name in sync.fields:
            if name not in _OF_MEMBER and not _MERGE_TAG.fullmatch(name):
                message = f"{name!r} is no merge tag: up to ten capital letters, digits and underscores"
                hint = f"write it as the audience's settings do, or one of {', '.join(sorted(_OF_MEMBER))}"
                yield Problem(("fields", name), message, hint, at_key=True)


class Missing(Refused):
    """The member of the path is not in the audience."""


class Mailchimp(DestinationKind):
    """Batch subscribe; archiving goes member by member."""

    options = MailchimpOptions
    auth = Auth(scheme="basic", login="cdp")
    limits: ClassVar[Mapping[str, Limits]] = {"": Limits(concurrency=10)}
    limits_source = "https://mailchimp.com/developer/marketing/docs/fundamentals/"

    def __init__(self, destination: Destination, sync: Sync) -> None:
        super().__init__(destination, sync)
        self._options = cast("MailchimpOptions", destination.options)

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(_OPERATIONS, max_batch=500, folds_keys=True, remembers=True)

    def item(self, operation: Operation, record: Record) -> Any:
        member: dict[str, Any] = {"email_address": str(record.key)}
        if operation in ("remove", "archive"):
            return member | {"status": "unsubscribed"}
        if record.operation != "clear":
            member["status"] = self._options.status
        merge_fields = {}
        for name, value in record.fields.items():
            if name in _OF_MEMBER:
                member[name] = value
            else:
                merge_fields[name] = _merge_value(name, value)
        return member | {"merge_fields": merge_fields} if merge_fields else member

    def request(self, operation: Operation, records: Sequence[Record], items: Sequence[bytes]) -> Request:
        if self._archives(operation):
            return Request("DELETE", f"{self._path()}/members/{_member(records[0])}")
        lenient = self._options.skip_merge_validation or operation == "remove"
        existing = b"false" if operation == "insert" else b"true"
        body = b'{"members":[' + b",".join(items) + b'],"update_existing":' + existing + b"}"
        return Request("POST", self._path() + ("?skip_merge_validation=true" if lenient else ""), body)

    async def deliver(
        self, line: Line, operation: Operation, records: Sequence[Record], items: Sequence[bytes]
    ) -> list[Outcome]:
        if not self._archives(operation):
            return await super().deliver(line, operation, records, items)
        return [await self._archive(line, operation, record) for record in records]

    def outcomes(self, operation: Operation, response: Response, records: Sequence[Record]) -> list[Outcome]:
        body = body_of(response)
        if not isinstance(body.get("errors"), list):
            msg = f"{response.method} {response.path} answered {response.status} without a list of errors"
            raise DataError(msg)
        members = objects(body, "new_members") + objects(body, "updated_members")
        about = {_address(answer): answer for answer in [*members, *objects(body, "errors")]}
        return [self._outcome(operation, record, about.get(str(record.key).casefold())) for record in records]

    def inspect(self, response: Response) -> None:
        what = f"{response.method} {response.path} answered {response.status}"
        if response.status == 403 and not error_body(response):
            msg = f"{what} without JSON, which is how Mailchimp slows down a busy account"
            raise RateLimitedError(msg, retry_after=response.retry_after())
        if response.method == "DELETE" and response.status == 404:
            reason = "not in the audience"
            raise Missing(reason, response.status)
        if response.status in {400, 405, 409, 413, 422}:
            raise Refused(_reason(error_body(response)), response.status)

    def _archives(self, operation: Operation) -> bool:
        return operation == "archive" or (operation == "remove" and self._options.removal == "archive")

    def _path(self) -> str:
        return f"/lists/{quote(self.filled(self._options.list), safe='')}"

    async def _archive(self, line: Line, operation: Operation, record: Record) -> Outcome:
        try:
            await line.send(self.request(operation, [record], ()), records=1)
        except Missing:
            return ACCEPTED
        except Refused as refused:
            return Outcome("rejected", str(refused), refused.status)
        return ACCEPTED

    def _outcome(self, operation: Operation, record: Record, answer: Mapping[str, Any] | None) -> Outcome:
        if answer is None:
            return Outcome("retryable", "no answer for this record")
        code = answer.get("error_code")
        if code is not None and not (operation == "insert" and code == "ERROR_CONTACT_EXISTS"):
            reason = ": ".join(str(part) for part in (code, answer.get("field"), answer.get("error")) if part)
            return Outcome("rejected", without_values(reason, record))
        if operation == "upsert" and record.operation != "clear" and answer.get("status") in _GONE:
            return Outcome("rejected", f"stays {answer['status']}: only the person can subscribe again")
        return Outcome("accepted", sent=answer.get("contact_id"))


def _member(record: Record) -> str:
    """What names a member in a path: its contact id, or, where that is not known, MD5 of its address."""
    address = str(record.key).lower().encode()
    return quote(record.sent or md5(address, usedforsecurity=False).hexdigest(), safe="")


def _merge_value(name: str, value: Any) -> Any:
    """A merge field's value; an empty text empties it, null would leave it as it is."""
    if isinstance(value, (list, dict)):
        msg = f"the field {name!r} holds a list or an object, and a merge field is text, a number or a date"
        raise InvalidRecord(msg)
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else value


def _address(answer: Mapping[str, Any]) -> str:
    return str(answer.get("email_address")).strip('" ').casefold()


def _reason(problem: Mapping[str, Any]) -> str:
    """Of a problem document (RFC 7807) with Mailchimp's list of errors."""
    fields = [f"{error.get('field')} {error.get('message')}" for error in objects(problem, "errors")]
    title = str(problem.get("title") or "refused")
    return without_values(f"{title}: {', '.join(fields) or problem.get('detail') or 'no reason given'}")
