# SPDX-License-Identifier: Apache-2.0
"""Any tool with a batch endpoint over HTTP and JSON, described in the project file."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast
from urllib.parse import quote

from pydantic import Field

from cdp_provider.core.activation.destinations.base import (
    Capabilities,
    DestinationKind,
    Outcome,
    Request,
)
from cdp_provider.core.activation.encoding import encode
from cdp_provider.core.exceptions import DataError
from cdp_provider.core.project.base import Model, Options
from cdp_provider.core.project.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cdp_provider.core.activation.destinations.base import Operation, Record
    from cdp_provider.core.http import Response
    from cdp_provider.core.project.activation import Destination, Sync

_PLACE = re.compile(r"\{(\w+)\}")


class Call(Model):
    """One endpoint: ``{method: POST, path: "/lists/{list}/members", body: members}``.

    :param path: below the connection's base URL; ``{name}`` is filled by the sync's parameters.
    :param body: key under which the list of records stands; left out, the list is the whole body.
    """

    method: Literal["POST", "PUT", "PATCH", "DELETE"] = "POST"
    path: str = Field(pattern=r"^/")
    body: str | None = None


class AnswerShape(Model):
    """Where an answer says what became of each record; all paths are dotted.

    :param results: the list of results; left out, the answer itself is the list.
    :param key: the record's key in a result; left out, results stand in the order of the records.
    :param status: the record's status in a result.
    :param accepted: statuses that mean "done"; any other is a rejection.
    :param reason: where a result says why its record was rejected.
    """

    results: str | None = None
    key: str | None = None
    status: str
    accepted: tuple[str, ...] = Field(min_length=1)
    reason: str


class HttpDestinationOptions(Options):
    """A tool with a batch endpoint.

    :param upsert: creates and updates records.
    :param remove: takes records away; without it no sync can mirror.
    :param key: what the key is called in a record.
    :param key_case: ``lower`` when the tool takes keys that differ in case for one, as e-mail tools do.
    :param fields: key under which mapped fields stand; left out, they stand beside the key.
    :param answer: left out, a 2xx accepts every record of its request.
    """

    needs_connection: ClassVar[bool] = True

    upsert: Call
    remove: Call | None = None
    key: str
    key_case: Literal["keep", "lower"] = "keep"
    fields: str | None = None
    answer: AnswerShape | None = None

    def sync_problems(self, sync: Sync) -> Iterator[Problem]:
        """A mirror without `remove`, a place in a path that nothing fills, a field in the key's place."""
        if sync.mode == "mirror" and self.remove is None:
            yield Problem(
                ("mode",),
                f"destination {sync.destination} describes no remove call, so a sync cannot mirror to it",
                "describe remove, or use mode: upsert",
            )
        calls = (self.upsert, self.remove if sync.mode == "mirror" else None)
        needed = {name for call in calls if call for name in _PLACE.findall(call.path)}
        for name in sorted(needed - set(sync.parameters)):
            yield Problem(
                ("parameters",),
                f"the path of destination {sync.destination} needs the parameter {name!r}",
                f"add parameters: {{{name}: ...}}",
            )
        if self.fields is None and self.key in sync.fields:
            yield Problem(
                ("fields", self.key),
                f"{self.key!r} is the name of the key in a record of destination {sync.destination}",
                "rename the field, or put fields under a key of their own",
                at_key=True,
            )


class HttpDestination(DestinationKind):
    """Requests and answers as :class:`HttpDestinationOptions` describes them."""

    options = HttpDestinationOptions

    def __init__(self, destination: Destination, sync: Sync) -> None:
        super().__init__(destination, sync)
        self._options = cast("HttpDestinationOptions", destination.options)

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            removes=self._options.remove is not None, folds_keys=self._options.key_case == "lower"
        )

    def request(self, operation: Operation, records: Sequence[Record]) -> Request:
        call = self._call(operation)
        items = [self._item(record) for record in records]
        body = encode({call.body: items} if call.body else items)
        return Request(call.method, self._path(call), body, {"Content-Type": "application/json"})

    def outcomes(self, operation: Operation, response: Response, records: Sequence[Record]) -> list[Outcome]:
        done = Outcome("removed" if operation == "remove" else "accepted")
        shape = self._options.answer
        if shape is None:
            return [done] * len(records)
        results = _dig(response.json(), shape.results)
        if not isinstance(results, list):
            msg = (
                f"{response.method} {response.path} answered {response.status} without a list at"
                f" {shape.results or 'the top'}; check answer.results of destination {self.destination.name}"
            )
            raise DataError(msg)
        return [_outcome(result, shape, done) for result in _match(results, shape.key, records)]

    def _call(self, operation: Operation) -> Call:
        if operation == "remove" and self._options.remove is not None:
            return self._options.remove
        return self._options.upsert

    def _path(self, call: Call) -> str:
        return _PLACE.sub(lambda place: quote(self.sync.parameters[place[1]], safe=""), call.path)

    def _item(self, record: Record) -> dict[str, Any]:
        item: dict[str, Any] = {self._options.key: record.key}
        if record.operation == "remove":
            return item
        if self._options.fields is None:
            return item | dict(record.fields)
        return item | {self._options.fields: record.fields}


def _outcome(result: Mapping[str, Any] | None, shape: AnswerShape, done: Outcome) -> Outcome:
    if result is None:
        return Outcome("retryable", "no answer for this record")
    status = _dig(result, shape.status)
    if status is not None and str(status) in shape.accepted:
        return done
    reason = _dig(result, shape.reason)
    return Outcome("rejected", f"status {status}" if reason is None else str(reason))


def _match(results: list[Any], path: str | None, records: Sequence[Record]) -> list[Any]:
    """The result of each record, None where there is none."""
    if path is None:
        return [results[place] if place < len(results) else None for place in range(len(records))]
    exact = {str(_dig(result, path)): result for result in results}
    # Some tools answer with their own spelling of the key.
    folded = {key.strip().casefold(): result for key, result in exact.items()}
    return [exact.get(r.record_key, folded.get(r.record_key.casefold())) for r in records]


def _dig(value: Any, path: str | None) -> Any:
    """What stands at a dotted path; None where it ends early."""
    for part in path.split(".") if path else ():
        value = value.get(part) if isinstance(value, dict) else None
    return value
