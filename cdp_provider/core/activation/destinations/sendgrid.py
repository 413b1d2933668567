# SPDX-License-Identifier: Apache-2.0
"""SendGrid: marketing contacts, and members of a list.

https://www.twilio.com/docs/sendgrid/api-reference/contacts/add-or-update-a-contact
"""

from __future__ import annotations

import csv
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast
from urllib.parse import quote, urlsplit

import orjson

from cdp_provider.core.activation.client import Client
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
from cdp_provider.core.activation.destinations.fit import (
    field_problems,
    operation_problems,
    parameter_problems,
)
from cdp_provider.core.activation.destinations.jobs import count, finished, part
from cdp_provider.core.activation.encoding import text
from cdp_provider.core.exceptions import CdpError, DataError, NotFoundError
from cdp_provider.core.http import Endpoint
from cdp_provider.core.project.base import Duration, Options

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cdp_provider.core.activation.destinations.base import Line, Operation, Record
    from cdp_provider.core.http import Response
    from cdp_provider.core.project.activation import Destination, Sync
    from cdp_provider.core.project.problems import Problem

_CONTACTS = "/v3/marketing/contacts"

#: SendGrid's own fields, all of them texts -> characters that they hold; what else a sync maps is a custom
#: field, by its id.
_RESERVED: dict[str, int | None] = {
    "address_line_1": 100,
    "address_line_2": 100,
    "anonymous_id": 254,
    "city": 60,
    "country": 50,
    "email": 254,
    "external_id": 254,
    "first_name": 50,
    "last_name": 50,
    "phone_number_id": None,
    "postal_code": None,
    "state_province_region": 50,
}
_OPERATIONS: frozenset[Operation] = frozenset({"upsert", "remove"})
#: Of a job.
_ENDS = ("completed", "errored", "failed")
#: Contacts that one search can ask for.
_LOOKED_UP = 100


class SendgridOptions(Options):
    """Marketing contacts of an account.

    :param list: id of a list: upserts add to it, removals take off it. Without one, removals delete the
        contact itself.
    :param identifier: what the sync's key is to SendGrid.
    :param wait: how long a job may take before its records count as ambiguous.
    """

    needs_connection: ClassVar[bool] = True

    list: str | None = None
    identifier: Literal["email", "phone_number_id", "external_id", "anonymous_id"] = "email"
    wait: Duration = timedelta(minutes=10)

    def sync_problems(self, sync: Sync) -> Iterator[Problem]:
        """A mode that SendGrid lacks, a field in the key's place."""
        yield from operation_problems(sync, _OPERATIONS)
        yield from parameter_problems(sync, self.places())
        yield from field_problems(sync, (self.identifier,))


class Sendgrid(DestinationKind):
    """Contacts of SendGrid. A batch is a job, which is asked after until it is done."""

    options = SendgridOptions
    base_url = "https://api.sendgrid.com"
    #: SendGrid publishes no numbers: its answers say how much is left.
    limits: ClassVar = {"": Limits(), "imports": Limits(), "search": Limits(), "removals": Limits()}
    limits_source = (
        "https://www.twilio.com/docs/sendgrid/api-reference/how-to-use-the-sendgrid-v3-api/rate-limits"
    )
    rate_headers = RateHeaders("X-RateLimit-Remaining", "X-RateLimit-Reset", "epoch")

    def __init__(self, destination: Destination, sync: Sync) -> None:
        super().__init__(destination, sync)
        self._options = cast("SendgridOptions", destination.options)
        self._key = self._options.identifier
        self._fold = str.casefold if self._key == "email" else str
        self._list = self.filled(self._options.list or "")

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            _OPERATIONS, max_batch=30_000, max_bytes=6_000_000, folds_keys=self._key == "email"
        )

    def item(self, operation: Operation, record: Record) -> Any:
        item: dict[str, Any] = {self._key: _text(self._key, record.key)}
        custom: dict[str, Any] = {}
        for name, value in record.fields.items():
            if name in _RESERVED:
                item[name] = _text(name, value)
            else:
                custom[name] = value
        return {**item, "custom_fields": custom} if custom else item

    def request(self, operation: Operation, records: Sequence[Record], items: Sequence[bytes]) -> Request:
        lists = b'"list_ids":[%b],' % orjson.dumps(self._list) if self._list else b""
        return Request("PUT", _CONTACTS, b'{%b"contacts":[%b]}' % (lists, b",".join(items)))

    async def deliver(
        self, line: Line, operation: Operation, records: Sequence[Record], items: Sequence[bytes]
    ) -> list[Outcome]:
        if operation == "remove":
            return await self._remove(line, records)
        job = _job(await line.send(self.request(operation, records, items), records=len(records)))
        done = await self._finished(line, job)
        if done is None:
            return [Outcome("ambiguous", "the import job was not done in time")] * len(records)
        if done["status"] == "completed":
            return [ACCEPTED] * len(records)
        results = part(done, "results")
        reasons = await self._reasons(line, str(results.get("errors_url") or ""), records)
        if done["status"] == "failed":
            return [
                Outcome("rejected", reasons.get(place, "the import failed")) for place in range(len(records))
            ]
        failed = count(results, "errored_count") or 1
        if failed > len(reasons):
            msg = f"{failed} contacts failed, and the import's file of errors does not name all of them"
            raise Refused(msg)
        return [
            Outcome("rejected", reasons[place]) if place in reasons else ACCEPTED
            for place in range(len(records))
        ]

    def inspect(self, response: Response) -> None:
        if response.status == 400 and (body := error_body(response)) is not None:
            said = "; ".join(
                f"{error.get('field') or 'contacts'}: {error.get('message')}"
                for error in objects(body, "errors")
            )
            raise Refused(without_values(said or "answered 400"), response.status)

    async def _finished(self, line: Line, job: str) -> dict[str, Any] | None:
        request = Request("GET", f"{_CONTACTS}/imports/{quote(job, safe='')}", limit="imports")
        return await finished(line, request, lambda answer: answer.get("status") in _ENDS, self._options.wait)

    async def _reasons(self, line: Line, url: str, records: Sequence[Record]) -> dict[int, str]:
        """Place of each record that an import's file of errors names -> why.

        SendGrid documents that the file holds addresses and reasons, but not in which columns, so a record
        is found by its key in any of them.
        """
        try:
            rows = csv.DictReader((await _download(line, url)).splitlines())
            places = {self._fold(str(record.key)): place for place, record in enumerate(records)}
            reasons = {}
            for row in rows:
                cells = {str(name).casefold(): str(cell) for name, cell in row.items()}
                place = next((places[c] for c in map(self._fold, cells.values()) if c in places), None)
                if place is not None:
                    told = [cell for name, cell in cells.items() if "error" in name or "reason" in name]
                    reasons[place] = without_values("; ".join(told) or "the import failed", records[place])
        except (CdpError, csv.Error, ValueError):
            return {}  # then halving finds them
        return reasons

    async def _remove(self, line: Line, records: Sequence[Record]) -> list[Outcome]:
        """By the ids that SendGrid knows contacts by; who is not there is removed already."""
        outcomes: list[Outcome] = []
        jobs: list[tuple[int, str | None]] = []
        for start in range(0, len(records), _LOOKED_UP):
            part = records[start : start + _LOOKED_UP]
            ids = quote(",".join(await self._ids(line, part)), safe=",")
            if not ids:
                jobs.append((len(part), None))
            elif self._list:
                path = f"/v3/marketing/lists/{quote(self._list, safe='')}/contacts?contact_ids={ids}"
                await line.send(Request("DELETE", path, limit="removals"))
                jobs.append((len(part), None))
            else:
                request = Request("DELETE", f"{_CONTACTS}?ids={ids}", limit="removals")
                jobs.append((len(part), _job(await line.send(request))))
        for size, job in jobs:
            outcomes += [ACCEPTED if job is None else await self._deleted(line, job)] * size
        return outcomes

    async def _ids(self, line: Line, records: Sequence[Record]) -> list[str]:
        body = orjson.dumps({"identifiers": [str(record.key) for record in records]})
        try:
            request = Request("POST", f"{_CONTACTS}/search/identifiers/{self._key}", body, limit="search")
            found = part(body_of(await line.send(request)), "result")
        except NotFoundError:
            return []
        ids = [part(each, "contact").get("id") for each in found.values()]
        return [str(known) for known in dict.fromkeys(ids) if known is not None]

    async def _deleted(self, line: Line, job: str) -> Outcome:
        done = await self._finished(line, job)
        if done is None:
            return Outcome("ambiguous", "the deletion job was not done in time")
        return ACCEPTED if done["status"] == "completed" else Outcome("rejected", "the deletion job failed")


def _text(name: str, value: Any) -> str:
    written = text(value)
    most = _RESERVED[name]
    if most is not None and len(written) > most:
        msg = f"{name} has more than {most} characters"
        raise InvalidRecord(msg)
    return written


def _job(response: Response) -> str:
    job = body_of(response).get("job_id")
    if not isinstance(job, str):
        msg = f"{response.method} {response.path} answered {response.status} without the id of a job"
        raise DataError(msg)
    return job


async def _download(line: Line, url: str) -> str:
    """A file that SendGrid put up elsewhere: fetched without our credentials."""
    parts = urlsplit(url)
    origin = f"{parts.scheme}://{parts.netloc}"
    if parts.scheme != "https" and not f"{line.target.base_url}/".startswith(f"{origin}/"):
        return ""
    async with Client(Endpoint(origin), connections=1) as client:
        response = await client.send("GET", f"{parts.path}?{parts.query}", None, {})
    response.raise_for_status()
    return response.body.decode("utf-8-sig", "replace")
