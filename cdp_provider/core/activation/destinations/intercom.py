# SPDX-License-Identifier: Apache-2.0
"""Intercom: contacts, one at a time; it has no bulk path for them.

https://developers.intercom.com/docs/references/rest-api/api.intercom.io/contacts
"""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
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
    RateHeaders,
    Refused,
    Request,
)
from cdp_provider.core.activation.destinations.fit import field_problems, operation_problems
from cdp_provider.core.activation.encoding import encode
from cdp_provider.core.exceptions import DataError
from cdp_provider.core.project.activation import Rate
from cdp_provider.core.project.base import Options

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cdp_provider.core.activation.destinations.base import Line, Operation, Record
    from cdp_provider.core.http import Response
    from cdp_provider.core.project.activation import Destination, Sync
    from cdp_provider.core.project.problems import Problem

_OPERATIONS: frozenset[Operation] = frozenset({"upsert", "insert", "update", "remove", "archive"})
#: These stand beside the key; all other fields are custom attributes.
_OF_CONTACT = frozenset(
    "external_id email phone name avatar signed_up_at last_seen_at owner_id unsubscribed_from_emails".split()
)
_EXISTING = re.compile(r"\bid=(\w+)")


class IntercomOptions(Options):
    """Contacts of an Intercom workspace.

    :param key: what the sync's key is to Intercom.
    """

    needs_connection: ClassVar[bool] = True

    key: Literal["external_id", "email"] = "external_id"

    def sync_problems(self, sync: Sync) -> Iterator[Problem]:
        """A mode that Intercom has not, a field in the place of the key or the role."""
        yield from operation_problems(sync, _OPERATIONS)
        yield from field_problems(sync, (self.key, "role", "custom_attributes"))


class Missing(Refused):
    """The contact of the path is not there, or was merged into another."""


class Conflict(Refused):
    """A contact has these details already.

    :ivar contact: its id.
    :ivar archived: whether it has to be unarchived first.
    """

    def __init__(self, reason: str, status: int, contact: str) -> None:
        super().__init__(reason, status)
        self.contact = contact
        self.archived = "archived" in reason


class Intercom(DestinationKind):
    """Create, or update what a conflict names; afterwards update by the id that is remembered."""

    options = IntercomOptions
    headers: ClassVar[Mapping[str, str]] = {"Accept": "application/json", "Intercom-Version": "2.17"}
    base_url = "https://api.intercom.io"
    limits: ClassVar[Mapping[str, Limits]] = {"": Limits((Rate(requests=1_666, per=timedelta(seconds=10)),))}
    limits_source = "https://developers.intercom.com/docs/references/rest-api/errors/rate-limiting"
    rate_headers = RateHeaders("X-RateLimit-Remaining", "X-RateLimit-Reset", "epoch")

    def __init__(self, destination: Destination, sync: Sync) -> None:
        super().__init__(destination, sync)
        self._options = cast("IntercomOptions", destination.options)

    @property
    def capabilities(self) -> Capabilities:
        folds = self._options.key == "email"
        return Capabilities(_OPERATIONS, max_batch=1, folds_keys=folds, reads=True, remembers=True)

    def item(self, operation: Operation, record: Record) -> Any:
        contact: dict[str, Any] = {self._options.key: str(record.key)}
        if operation in ("remove", "archive"):
            return contact
        if operation != "update":
            contact["role"] = "user"
        attributes: dict[str, Any] = {}
        for name, value in record.fields.items():
            place = contact if name in _OF_CONTACT else attributes
            place[name] = _plain(name, value)
        return contact | {"custom_attributes": attributes} if attributes else contact

    async def deliver(
        self, line: Line, operation: Operation, records: Sequence[Record], items: Sequence[bytes]
    ) -> list[Outcome]:
        (record,), (item,) = records, items
        try:
            if operation in ("remove", "archive"):
                return [await self._take_away(line, operation, record)]
            return [Outcome("accepted", sent=await self._put(line, operation, record, item))]
        except Missing as missing:
            return [Outcome("rejected", str(missing), missing.status)]
        except Refused as refused:
            return [Outcome("rejected", without_values(str(refused), record), refused.status)]

    def inspect(self, response: Response) -> None:
        if response.status not in {400, 404, 409, 410, 413, 422}:
            return
        errors = objects(error_body(response), "errors")
        code, message = (str(errors[0].get(k) or "") for k in ("code", "message")) if errors else ("", "")
        if response.status in {404, 410}:
            if errors and response.path.rpartition("/contacts/")[1]:
                reason = "no such contact"
                raise Missing(reason, response.status)
            return
        if response.status == 409 and (existing := _EXISTING.search(message)):
            raise Conflict(message, response.status, existing[1])
        raise Refused(without_values(f"{code}: {message}" if errors else "no reason given"), response.status)

    async def empty(self, line: Line, records: Sequence[Record], fields: Sequence[str]) -> list[set[str]]:
        return [await self._empty(line, record, fields) for record in records]

    async def _empty(self, line: Line, record: Record, fields: Sequence[str]) -> set[str]:
        try:
            contact = await self._find(line, record)
        except Missing:
            return set(fields)
        held = {**(contact.get("custom_attributes") or {}), **{n: contact.get(n) for n in _OF_CONTACT}}
        return {name for name in fields if held.get(name) in (None, "")}

    async def _put(self, line: Line, operation: Operation, record: Record, item: bytes) -> str:
        """Create or update, and the contact's id."""
        if operation == "update":
            id_ = record.sent or (await self._find(line, record))["id"]
            return await self._send(line, "PUT", _path(id_), item)
        if operation == "upsert" and record.sent is not None:
            with suppress(Missing):  # somebody deleted or merged it since: it is created anew
                return await self._send(line, "PUT", _path(record.sent), item)
        try:
            return await self._send(line, "POST", "/contacts", item)
        except Conflict as conflict:
            if operation == "insert":
                return conflict.contact
            return await self._update_existing(line, record, item, conflict)

    async def _update_existing(self, line: Line, record: Record, item: bytes, conflict: Conflict) -> str:
        path = _path(conflict.contact)
        if conflict.archived:
            await line.send(Request("POST", f"{path}/unarchive"))
        held = str(body_of(await line.send(Request("GET", path))).get(self._options.key) or "")
        if self._options.key == "email":
            held = held.lower()
        if held and held != str(record.key):
            reason = f"a contact with another {self._options.key} has some of these details"
            raise Refused(reason, conflict.status)
        return await self._send(line, "PUT", path, item)

    async def _take_away(self, line: Line, operation: Operation, record: Record) -> Outcome:
        try:
            path = _path(record.sent or (await self._find(line, record))["id"])
            remove = Request("DELETE", path) if operation == "remove" else Request("POST", f"{path}/archive")
            await line.send(remove, records=1)
        except Missing:
            return ACCEPTED
        return ACCEPTED

    async def _find(self, line: Line, record: Record) -> dict[str, Any]:
        """The contact as Intercom has it.

        :raises Missing: it has none.
        """
        if record.sent is not None:
            return body_of(await line.send(Request("GET", _path(record.sent))))
        # Not find_by_external_id: its path holds the key, and paths get into messages.
        query = {"query": {"field": self._options.key, "operator": "=", "value": str(record.key)}}
        found = body_of(await line.send(Request("POST", "/contacts/search", encode(query))))
        if contacts := objects(found, "data"):
            return contacts[0]
        reason = "no such contact"
        raise Missing(reason)

    async def _send(self, line: Line, method: str, path: str, item: bytes) -> str:
        response = await line.send(Request(method, path, item), records=1)
        id_ = body_of(response).get("id")
        if id_ is None:
            msg = f"{method} {response.path} answered {response.status} without the contact's id"
            raise DataError(msg)
        return str(id_)


def _path(contact: str) -> str:
    return f"/contacts/{quote(contact, safe='')}"


def _plain(name: str, value: Any) -> Any:
    """A value as Intercom takes it: moments are whole seconds since 1970, as are days in ``*_at``."""
    if isinstance(value, (list, dict)):
        msg = f"the field {name!r} holds a list or an object, and Intercom takes single values"
        raise InvalidRecord(msg)
    if isinstance(value, date) and not isinstance(value, datetime) and name.endswith("_at"):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    return int(value.timestamp()) if isinstance(value, datetime) else value
