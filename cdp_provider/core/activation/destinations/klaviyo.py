# SPDX-License-Identifier: Apache-2.0
"""Klaviyo: profiles through bulk import jobs, and members of a list.

https://developers.klaviyo.com/en/reference/bulk_import_profiles
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast
from urllib.parse import quote, unquote, urlencode

import orjson

from cdp_provider.core.activation.destinations.answers import body_of, error_body, objects, without_values
from cdp_provider.core.activation.destinations.base import (
    ACCEPTED,
    Capabilities,
    DestinationKind,
    Limits,
    Outcome,
    RateHeaders,
    Refused,
    Request,
)
from cdp_provider.core.activation.destinations.fit import (
    field_problems,
    operation_problems,
    parameter_problems,
)
from cdp_provider.core.activation.destinations.jobs import count, finished, part
from cdp_provider.core.activation.encoding import text
from cdp_provider.core.auth import Auth
from cdp_provider.core.exceptions import DataError
from cdp_provider.core.project.activation import Rate
from cdp_provider.core.project.base import Duration, Options

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

    from cdp_provider.core.activation.destinations.base import Line, Operation, Record
    from cdp_provider.core.http import Response
    from cdp_provider.core.project.activation import Destination, Sync
    from cdp_provider.core.project.problems import Problem

_JOBS = "/api/profile-bulk-import-jobs"

#: Klaviyo's own attributes of a profile, all of them texts, as the parts of its location are. What else a
#: sync maps is a custom property.
_ATTRIBUTES = frozenset(
    {
        *("email", "phone_number", "external_id", "first_name", "last_name"),
        *("organization", "locale", "title", "image"),
    }
)
_LOCATION = "location."
_CURSOR = re.compile(r"[?&]page\[cursor\]=([^&]+)")
_PLACE_IN_BATCH = re.compile(r"/data/(\d+)(?:/|$)")

#: Profiles that one question can ask for, and that one request can take off a list.
_LOOKED_UP, _TAKEN_OFF = 100, 1_000


def _limits(burst: int, steady: int) -> Limits:
    second, minute = timedelta(seconds=1), timedelta(minutes=1)
    return Limits((Rate(requests=burst, per=second), Rate(requests=steady, per=minute)))


class KlaviyoOptions(Options):
    """Profiles of an account.

    :param list: id of a list: upserts add to it, removals take off it.
    :param identifier: what the sync's key is to Klaviyo.
    :param wait: how long an import job may take before its records count as ambiguous.
    """

    needs_connection: ClassVar[bool] = True

    list: str | None = None
    identifier: Literal["email", "phone_number", "external_id"] = "email"
    wait: Duration = timedelta(minutes=10)

    @property
    def operations(self) -> frozenset[Operation]:
        """What can be done: only lists let go of anybody."""
        return frozenset({"upsert"} if self.list is None else {"upsert", "remove"})

    def sync_problems(self, sync: Sync) -> Iterator[Problem]:
        """A mode that bulk imports lack, a removal without a list, a field in the key's place."""
        yield from operation_problems(sync, self.operations)
        yield from parameter_problems(sync, self.places())
        yield from field_problems(sync, (self.identifier,))


class Klaviyo(DestinationKind):
    """Profiles of Klaviyo. A batch is a job, which is asked after until it is complete."""

    options = KlaviyoOptions
    auth = Auth("header", "Authorization", "Klaviyo-API-Key ")
    headers: ClassVar = {"revision": "2026-07-15", "Content-Type": "application/vnd.api+json"}
    base_url = "https://a.klaviyo.com"
    limits: ClassVar = {
        "": _limits(10, 150),
        "jobs": _limits(10, 150),
        "errors": _limits(10, 150),
        "profiles": _limits(75, 750),
        "lists": _limits(10, 150),
    }
    limits_source = "https://developers.klaviyo.com/en/docs/rate_limits_and_error_handling"
    rate_headers = RateHeaders("RateLimit-Remaining", "RateLimit-Reset")

    def __init__(self, destination: Destination, sync: Sync) -> None:
        super().__init__(destination, sync)
        self._options = cast("KlaviyoOptions", destination.options)
        self._key = self._options.identifier
        self._fold = str.casefold if self._key == "email" else str
        self._list = self.filled(self._options.list or "")

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            self._options.operations,
            max_batch=10_000,
            max_bytes=5_000_000,
            max_record_bytes=100_000,
            folds_keys=self._key == "email",
        )

    def item(self, operation: Operation, record: Record) -> Any:
        attributes: dict[str, Any] = {self._key: str(record.key)}
        location: dict[str, Any] = {}
        properties: dict[str, Any] = {}
        unset = []
        for name, value in record.fields.items():
            if name in _ATTRIBUTES:
                attributes[name] = None if value is None else text(value)
            elif name.startswith(_LOCATION):
                location[name.removeprefix(_LOCATION)] = None if value is None else text(value)
            elif value is None:
                unset.append(name)
            else:
                properties[name] = value
        if location:
            attributes["location"] = location
        if properties:
            attributes["properties"] = properties
        item: dict[str, Any] = {"type": "profile", "attributes": attributes}
        if unset:
            item["meta"] = {"patch_properties": {"unset": unset}}
        return item

    def request(self, operation: Operation, records: Sequence[Record], items: Sequence[bytes]) -> Request:
        profiles = b'"attributes":{"profiles":{"data":[%b]}}' % b",".join(items)
        if self._list:
            lists = orjson.dumps({"lists": {"data": [{"type": "list", "id": self._list}]}})
            profiles += b',"relationships":%b' % lists
        return Request("POST", _JOBS, b'{"data":{"type":"profile-bulk-import-job",%b}}' % profiles)

    async def deliver(
        self, line: Line, operation: Operation, records: Sequence[Record], items: Sequence[bytes]
    ) -> list[Outcome]:
        if operation == "remove":
            return await self._take_off(line, records)
        created = await line.send(self.request(operation, records, items), records=len(records))
        job = part(body_of(created), "data").get("id")
        if not isinstance(job, str):
            msg = f"{created.method} {created.path} answered {created.status} without the id of a job"
            raise DataError(msg)
        path = f"{_JOBS}/{quote(job, safe='')}"
        done = await finished(line, Request("GET", path, limit="jobs"), _ended, self._options.wait)
        if done is None:
            return [Outcome("ambiguous", "the import job was not done in time")] * len(records)
        told = part(done, "data", "attributes")
        if told["status"] == "cancelled":
            return [Outcome("retryable", "the import job was cancelled")] * len(records)
        failed = count(told, "failed_count")
        reasons = await self._reasons(line, f"{path}/import-errors", records) if failed else {}
        if failed > len(reasons):
            msg = f"{failed} profiles failed, and the import's errors do not name all of them"
            raise Refused(msg)
        return [
            Outcome("rejected", reasons[place]) if place in reasons else ACCEPTED
            for place in range(len(records))
        ]

    def inspect(self, response: Response) -> None:
        if response.status in (400, 409, 422) and (body := error_body(response)) is not None:
            said = "; ".join(
                f"{error.get('code')}: {error.get('detail')}" for error in objects(body, "errors")
            )
            raise Refused(without_values(said or f"answered {response.status}"), response.status)

    async def _reasons(self, line: Line, path: str, records: Sequence[Record]) -> dict[int, str]:
        """Place of each record that an import refused -> why."""
        places = {self._fold(str(record.key)): place for place, record in enumerate(records)}
        reasons = {}
        async for error in _pages(line, path, {}, "errors"):
            told = part(error, "attributes")
            place = self._place(told, places)
            if place is not None:
                reason = f"{told.get('code')}: {told.get('detail')}"
                reasons[place] = without_values(reason, records[place])
        return reasons

    def _place(self, told: Mapping[str, Any], places: Mapping[str, int]) -> int | None:
        """Whom an error is about: its payload names the profile, or its pointer the place in the batch."""
        payload = part(told, "original_payload", "data") or part(told, "original_payload")
        named = self._fold(str({**payload, **part(payload, "attributes")}.get(self._key)))
        if named in places:
            return places[named]
        found = _PLACE_IN_BATCH.search(str(part(told, "source").get("pointer")))
        return int(found[1]) if found and int(found[1]) < len(places) else None

    async def _take_off(self, line: Line, records: Sequence[Record]) -> list[Outcome]:
        """Off the list, by the ids that Klaviyo knows the profiles by; who is not there is off it already."""
        ids = []
        for start in range(0, len(records), _LOOKED_UP):
            keys = orjson.dumps([str(record.key) for record in records[start : start + _LOOKED_UP]]).decode()
            asked = {"fields[profile]": self._key, "filter": f"any({self._key},{keys})"}
            async for profile in _pages(line, "/api/profiles", asked, "profiles"):
                ids.append({"type": "profile", "id": str(profile.get("id"))})
        path = f"/api/lists/{quote(self._list, safe='')}/relationships/profiles"
        for start in range(0, len(ids), _TAKEN_OFF):
            body = orjson.dumps({"data": ids[start : start + _TAKEN_OFF]})
            await line.send(Request("DELETE", path, body, limit="lists"))
        return [ACCEPTED] * len(records)


async def _pages(
    line: Line, path: str, query: Mapping[str, str], limit: str
) -> AsyncIterator[dict[str, Any]]:
    """What stands on all pages."""
    cursor: Mapping[str, str] = {}
    while True:
        asked = urlencode({**query, "page[size]": "100", **cursor}, quote_via=quote)
        body = body_of(await line.send(Request("GET", f"{path}?{asked}", limit=limit)))
        for each in objects(body, "data"):
            yield each
        # Only the cursor is taken from the link: the connection's host may be another than Klaviyo's own.
        following = _CURSOR.search(unquote(str(part(body, "links").get("next"))))
        if following is None or following[1] == cursor.get("page[cursor]"):
            return
        cursor = {"page[cursor]": following[1]}


def _ended(body: Mapping[str, Any]) -> bool:
    return part(body, "data", "attributes").get("status") in ("complete", "cancelled")
