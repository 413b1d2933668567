# SPDX-License-Identifier: Apache-2.0
"""Salesforce: records of any object, told apart by an external id.

- https://developer.salesforce.com/docs/platform/api-rest/guide/resources-composite-sobjects-collections-upsert.html
- https://developer.salesforce.com/docs/platform/api-asynch/guide/bulk-api-2-0-ingest.html
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast
from urllib.parse import quote

import orjson
from pydantic import Field

from cdp_provider.core.activation.destinations.answers import body_of, objects
from cdp_provider.core.activation.destinations.base import (
    Capabilities,
    DestinationKind,
    Limits,
    Outcome,
    Refused,
    Request,
)
from cdp_provider.core.activation.destinations.fit import field_problems, operation_problems
from cdp_provider.core.activation.destinations.salesforce_answers import (
    cell_text,
    first_error,
    once_gone,
    outcome_of,
    outcome_of_call,
    readable,
    reason_of,
    scalar,
)
from cdp_provider.core.activation.destinations.salesforce_bulk import row, run_job
from cdp_provider.core.activation.encoding import encode
from cdp_provider.core.exceptions import ConfigurationError, DataError, RateLimitedError
from cdp_provider.core.project.activation import Rate
from cdp_provider.core.project.base import Duration, Options

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cdp_provider.core.activation.destinations.base import Line, Operation, Record
    from cdp_provider.core.http import Response
    from cdp_provider.core.project.activation import Destination, Sync
    from cdp_provider.core.project.problems import Problem

_OPERATIONS: frozenset[Operation] = frozenset({"upsert", "remove"})
_COLLECTION, _COMPOSITE, _JOB = 200, 25, 10_000
#: Answers of a job repeat its rows.
_JOB_BYTES = 6_000_000

_WRONG = frozenset(
    {
        "INVALID_FIELD",
        "INVALID_TYPE",
        "INVALIDENTITY",
        "NOT_FOUND",
        "FEATURENOTENABLED",
        "UNSUPPORTED_API_VERSION",
    }
)
#: The quota counts the last 24 hours, so that a little of it comes back all the time.
_QUOTA_PAUSE = 900.0


class SalesforceOptions(Options):
    """Records of one object in a Salesforce org.

    :param object: API name of the object, such as ``Contact`` or ``Customer__c``.
    :param external_id: API name of the field that the sync's key fills; an external id, and unique.
    :param key_case: ``lower`` when the field is unique regardless of case and holds e-mail addresses.
    :param api: ``collections`` sends 200 records in a request, and uses up a call of the org's quota each
        time; ``bulk`` sends 10,000 in a job, which takes Salesforce a minute or more.
    :param version: of the API.
    :param wait: how long a worker waits for a bulk job.
    """

    needs_connection: ClassVar[bool] = True

    object: str = Field(pattern=r"^[A-Za-z]\w*$")
    external_id: str = Field(pattern=r"^[A-Za-z]\w*$")
    key_case: Literal["keep", "lower"] = "keep"
    api: Literal["collections", "bulk"] = "collections"
    version: str = Field(default="66.0", pattern=r"^\d+\.0$")
    wait: Duration = timedelta(hours=1)

    def sync_problems(self, sync: Sync) -> Iterator[Problem]:
        """A mode that Salesforce has no call for, a field that is not the sync's to write."""
        yield from operation_problems(sync, _OPERATIONS)
        yield from field_problems(sync, {self.external_id, "Id", "attributes"})


class Salesforce(DestinationKind):
    """Upserts by external id. Salesforce deletes by its own ids, which the ledger keeps; a record whose id it
    has not is deleted by its external id, 25 at a time."""

    options = SalesforceOptions
    limits: ClassVar[Mapping[str, Limits]] = {
        "": Limits((Rate(requests=100_000, per=timedelta(days=1)),), concurrency=25)
    }
    limits_source = (
        "https://developer.salesforce.com/docs/platform/salesforce-app-limits-cheatsheet/guide"
        "/salesforce-app-limits-platform-api.html"
    )

    def __init__(self, destination: Destination, sync: Sync) -> None:
        super().__init__(destination, sync)
        self._options = cast("SalesforceOptions", destination.options)
        self._bulk = self._options.api == "bulk"
        self._data = f"/services/data/v{self._options.version}"
        self._columns = (self._options.external_id, *sync.fields)

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            operations=_OPERATIONS,
            max_batch=_JOB if self._bulk else _COLLECTION,
            max_bytes=_JOB_BYTES if self._bulk else None,
            folds_keys=self._options.key_case == "lower",
            remembers=True,
        )

    def item(self, operation: Operation, record: Record) -> Any:
        if operation == "remove":
            return record.sent or str(record.key)
        values = {name: scalar(name, value) for name, value in record.fields.items()}
        if not self._bulk:
            return {
                "attributes": {"type": self._options.object},
                self._options.external_id: record.key,
                **values,
            }
        cells = [cell_text(values[name]) if name in values else "" for name in self._columns[1:]]
        return row([str(record.key), *cells])

    def request(self, operation: Operation, records: Sequence[Record], items: Sequence[bytes]) -> Request:
        path = f"{self._data}/composite/sobjects/{self._options.object}/{self._options.external_id}"
        return Request("PATCH", path, b'{"allOrNone":false,"records":[' + b",".join(items) + b"]}")

    async def deliver(
        self, line: Line, operation: Operation, records: Sequence[Record], items: Sequence[bytes]
    ) -> list[Outcome]:
        if operation == "remove":
            known = [record for record in records if record.sent]
            unknown = [record for record in records if not record.sent]
            removed = await self._remove(line, known) | await self._remove_by_key(line, unknown)
            return [once_gone(removed[record.record_key]) for record in records]
        if not self._bulk:
            return await super().deliver(line, operation, records, items)
        rows = [row(self._columns), *orjson.loads(b"[" + b",".join(items) + b"]")]
        job = {"operation": "upsert", "externalIdFieldName": self._options.external_id}
        return await self._job(line, job, rows, [str(record.key) for record in records], records)

    def outcomes(self, operation: Operation, response: Response, records: Sequence[Record]) -> list[Outcome]:
        results = response.json()
        if not isinstance(results, list) or len(results) != len(records):
            msg = f"{response.method} {response.path} answered {response.status} without a result per record"
            raise DataError(msg)
        return [outcome_of(result, record) for result, record in zip(results, records, strict=True)]

    def inspect(self, response: Response) -> None:
        if response.status < 400:
            return
        error = first_error(response)
        code = str(error.get("errorCode") or "")
        what = f"{response.method} {response.path} answered {response.status}: {code}"
        if code in {"REQUEST_LIMIT_EXCEEDED", "EXCEEDED_QUOTA", "ExceededQuota"}:
            usage = response.headers.get("sforce-limit-info", "no Sforce-Limit-Info")[:60]
            pause = _QUOTA_PAUSE if "TotalRequests" in str(error.get("message")) else None
            msg = f"{what}; the org's calls are used up ({usage}); raise the quota, or use api: bulk"
            raise RateLimitedError(msg, retry_after=pause)
        if code in _WRONG:
            msg = f"{what}; check object, external_id and fields, and what the user may see of them"
            raise ConfigurationError(msg)
        if response.status == 400 and code:
            raise Refused(reason_of(code, error.get("message"), error.get("fields")), response.status)

    async def _remove(self, line: Line, records: Sequence[Record]) -> dict[str, Outcome]:
        """By Salesforce's ids; at most a batch."""
        ids = [str(record.sent) for record in records]
        if not ids:
            return {}
        if self._bulk:
            told = await self._job(line, {"operation": "delete"}, ["Id", *ids], ids, records)
        else:
            listed = ",".join(quote(number, safe="") for number in ids)
            path = f"{self._data}/composite/sobjects?ids={listed}&allOrNone=false"
            response = await line.send(Request("DELETE", path), records=len(records))
            told = self.outcomes("remove", response, records)
        return {record.record_key: outcome for record, outcome in zip(records, told, strict=True)}

    async def _remove_by_key(self, line: Line, records: Sequence[Record]) -> dict[str, Outcome]:
        sobject = f"{self._data}/sobjects/{self._options.object}/{self._options.external_id}"
        outcomes: dict[str, Outcome] = {}
        for start in range(0, len(records), _COMPOSITE):
            part = records[start : start + _COMPOSITE]
            calls = [
                {
                    "method": "DELETE",
                    "url": f"{sobject}/{quote(str(record.key), safe='')}",
                    "referenceId": f"r{n}",
                }
                for n, record in enumerate(part)
            ]
            body = encode({"allOrNone": False, "compositeRequest": calls})
            response = await line.send(Request("POST", f"{self._data}/composite", body), records=len(part))
            told = {
                result.get("referenceId"): result
                for result in objects(body_of(response), "compositeResponse")
            }
            for n, record in enumerate(part):
                outcomes[record.record_key] = outcome_of_call(told.get(f"r{n}"), record)
        return outcomes

    async def _job(
        self,
        line: Line,
        job: Mapping[str, str],
        rows: Sequence[str],
        keys: Sequence[str],
        records: Sequence[Record],
    ) -> list[Outcome]:
        path = f"{self._data}/jobs/ingest"
        job = {"object": self._options.object, **job}
        told = await run_job(line, path, job, rows, self._options.wait)
        if told is None:
            return [Outcome("ambiguous", "Salesforce still works on the job; raise the option wait")] * len(
                records
            )
        unheard = Outcome("retryable", "no answer for this record")
        outcomes = [told.get(key, unheard) for key in keys]
        return [readable(outcome, record) for outcome, record in zip(outcomes, records, strict=True)]
