# SPDX-License-Identifier: Apache-2.0
"""HubSpot: contacts or companies, a hundred at a time.

https://developers.hubspot.com/docs/api-reference/latest/crm/objects/contacts/guide
"""

from __future__ import annotations

import re
from datetime import timedelta
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from pydantic import Field

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
from cdp_provider.core.activation.destinations.fit import field_problems, operation_problems
from cdp_provider.core.activation.encoding import encode
from cdp_provider.core.exceptions import DataError, RateLimitedError, UnavailableError
from cdp_provider.core.project.activation import Rate
from cdp_provider.core.project.base import Options

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cdp_provider.core.activation.destinations.base import Line, Operation, Record
    from cdp_provider.core.http import Response
    from cdp_provider.core.project.activation import Destination, Sync
    from cdp_provider.core.project.problems import Problem

_OPERATIONS: frozenset[Operation] = frozenset({"upsert", "insert", "update", "remove", "archive"})
_TEN_SECONDS = timedelta(seconds=10)
_CALLS = {"insert": "create", "update": "update", "upsert": "upsert"}
#: In the message of a VALIDATION_ERROR, which quotes the value as well.
_INVALID = re.compile(r'"error":"(\w+)"[^{}]*?"name":"(\w+)"')
#: A daily quota that is used up says neither when it ends nor in which time zone.
_DAILY_PAUSE = 3600.0


class HubspotOptions(Options):
    """Contacts or companies of a HubSpot account.

    :param object: which of the two.
    :param id_property: the property that the sync's key stands for; its values are unique in HubSpot.
        ``email`` for contacts when left out; companies have none until you make one.
    """

    needs_connection: ClassVar[bool] = True

    object: Literal["contacts", "companies"] = "contacts"
    id_property: str | None = Field(default=None, pattern=r"^[a-z][a-z0-9_]*$")

    def model_post_init(self, context: Any, /) -> None:
        """Refuse companies without a property that tells them apart."""
        if self.object == "companies" and self.id_property in (None, "domain", "name"):
            msg = (
                f"id_property is {self.id_property!r}, whose values are not unique among companies; make a"
                " property that requires unique values in HubSpot, and name it here"
            )
            raise ValueError(msg)

    def sync_problems(self, sync: Sync) -> Iterator[Problem]:
        """A mode that HubSpot has not, a field in the key's place."""
        yield from operation_problems(sync, _OPERATIONS)
        yield from field_problems(sync, (self.id_property or "email",))


class Hubspot(DestinationKind):
    """The object APIs' batches. ``objectWriteTraceId`` of an input says which record an answer is about."""

    options = HubspotOptions
    base_url = "https://api.hubapi.com"
    limits: ClassVar[Mapping[str, Limits]] = {
        "": Limits((Rate(requests=100, per=_TEN_SECONDS), Rate(requests=250_000, per=timedelta(days=1))))
    }
    limits_source = "https://developers.hubspot.com/docs/developer-tooling/platform/usage-guidelines"

    def __init__(self, destination: Destination, sync: Sync) -> None:
        super().__init__(destination, sync)
        options = cast("HubspotOptions", destination.options)
        self._path = f"/crm/objects/2026-09/{options.object}/batch"
        self._key = options.id_property or "email"

    @property
    def capabilities(self) -> Capabilities:
        folds = self._key == "email"
        return Capabilities(_OPERATIONS, max_batch=100, folds_keys=folds, reads=True, remembers=True)

    def item(self, operation: Operation, record: Record) -> Any:
        if operation in ("remove", "archive"):
            return {"id": record.sent or str(record.key)}
        properties = {name: _text(name, value) for name, value in record.fields.items()}
        if operation == "insert":
            properties[self._key] = str(record.key)
            return {"properties": properties, "associations": [], "objectWriteTraceId": _trace(record)}
        return {
            "id": str(record.key),
            "idProperty": self._key,
            "properties": properties,
            "objectWriteTraceId": _trace(record),
        }

    def request(self, operation: Operation, records: Sequence[Record], items: Sequence[bytes]) -> Request:
        call = _CALLS.get(operation, "archive")
        return Request("POST", f"{self._path}/{call}", b'{"inputs":[' + b",".join(items) + b"]}")

    async def deliver(
        self, line: Line, operation: Operation, records: Sequence[Record], items: Sequence[bytes]
    ) -> list[Outcome]:
        if operation not in ("remove", "archive"):
            return await super().deliver(line, operation, records, items)
        unknown = [record for record in records if record.sent is None]
        found = await self._read(line, unknown, ()) if unknown else {}
        ids = [record.sent or found.get(self._name(record.key), {}).get("id") for record in records]
        if there := [encode({"id": id_}) for id_ in ids if id_]:
            await line.send(self.request(operation, records, there), records=len(there))
        return [ACCEPTED] * len(records)

    def outcomes(self, operation: Operation, response: Response, records: Sequence[Record]) -> list[Outcome]:
        body = body_of(response)
        if not isinstance(body.get("results"), list):
            msg = f"{response.method} {response.path} answered {response.status} without a list of results"
            raise DataError(msg)
        results, errors = objects(body, "results"), objects(body, "errors")
        if errors and not results and not any(_about(error) for error in errors):
            raise Refused(_reason(errors[0]), response.status)
        about = {name: {"category": "refused", **error} for error in errors for name in _about(error)}
        about |= {str(found.get("objectWriteTraceId") or self._key_of(found)): found for found in results}
        whole = not errors and len(results) == len(records)
        names = [(_trace(record), str(record.key), self._name(record.key)) for record in records]
        answers = [next((about[name] for name in known if name in about), None) for known in names]
        return [_outcome(operation, *pair, whole) for pair in zip(records, answers, strict=True)]

    def inspect(self, response: Response) -> None:
        if response.status < 400:
            return
        body = error_body(response)
        what = f"{response.method} {response.path} answered {response.status}"
        if response.status == 429 and body.get("policyName") == "DAILY":
            msg = f"{what}: the account's daily quota is used up; it begins anew at the account's midnight"
            raise RateLimitedError(msg, retry_after=response.retry_after() or _DAILY_PAUSE)
        if response.status in {423, 477}:
            msg = f"{what}: HubSpot has locked the data for a moment, or is moving the account"
            raise UnavailableError(msg, retry_after=response.retry_after() or 2.0)
        if response.status in {400, 409, 413, 422}:
            raise Refused(_reason(body), response.status)

    async def empty(self, line: Line, records: Sequence[Record], fields: Sequence[str]) -> list[set[str]]:
        found = await self._read(line, records, fields)
        held = [found.get(self._name(record.key), {}).get("properties") or {} for record in records]
        return [{name for name in fields if values.get(name) in (None, "")} for values in held]

    async def _read(
        self, line: Line, records: Sequence[Record], fields: Sequence[str]
    ) -> dict[str, dict[str, Any]]:
        """Key, folded -> the record at HubSpot."""
        body = {
            "idProperty": self._key,
            "properties": [self._key, *fields],
            "propertiesWithHistory": [],
            "inputs": [{"id": str(record.key)} for record in records],
        }
        response = await line.send(Request("POST", f"{self._path}/read", encode(body)))
        return {self._key_of(result): result for result in objects(body_of(response), "results")}

    def _key_of(self, result: Mapping[str, Any]) -> str:
        return self._name((result.get("properties") or {}).get(self._key))

    def _name(self, key: Any) -> str:
        """A key as HubSpot spells it: addresses in lower case."""
        return str(key).strip().lower() if self._key == "email" else str(key)


def _outcome(operation: Operation, record: Record, answer: Mapping[str, Any] | None, whole: bool) -> Outcome:
    """:param answer: the result or the error that is about the record.
    :param whole: whether all records are done, whatever they are called in the answer.
    """
    if answer is None:
        return ACCEPTED if whole else Outcome("retryable", "no answer for this record")
    if "category" not in answer:
        return Outcome("accepted", sent=str(answer["id"]) if "id" in answer else None)
    if operation == "insert" and answer["category"] == "CONFLICT":
        return Outcome("accepted", sent=next(iter(answer["context"].get("existingId") or ()), None))
    return Outcome("rejected", without_values(_reason(answer), record))


def _trace(record: Record) -> str:
    """Names a record in a batch without saying who it is."""
    return blake2b(record.record_key.encode(), digest_size=8).hexdigest()


def _text(name: str, value: Any) -> str:
    """A property's value; HubSpot takes all of them as text, several options with semicolons between them."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, (list, tuple)):
        return ";".join(_text(name, part) for part in value)
    if isinstance(value, dict):
        msg = f"the field {name!r} holds an object, and a property of HubSpot is a single value or a list"
        raise InvalidRecord(msg)
    return encode(value).decode().strip('"')


def _about(error: Mapping[str, Any]) -> list[str]:
    """Which inputs an error speaks of: their trace ids, or what they were looked up by."""
    context = error.get("context")
    names = (context.get("objectWriteTraceId") or context.get("ids")) if isinstance(context, dict) else None
    return [str(name) for name in names] if isinstance(names, list) else []


def _reason(error: Mapping[str, Any]) -> str:
    category, message = error.get("category") or "refused", str(error.get("message") or "")
    if invalid := _INVALID.findall(message):
        return f"{category}: " + ", ".join(f"{name} {code}" for code, name in invalid)
    return f"{category}: {without_values(message)}"
