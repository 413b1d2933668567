# SPDX-License-Identifier: Apache-2.0
"""Any tool with a batch endpoint over HTTP and JSON, described in the project file."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

import orjson

from cdp_provider.core.activation.destinations.answers import without_values
from cdp_provider.core.activation.destinations.base import (
    ACCEPTED,
    Capabilities,
    DestinationKind,
    Outcome,
    RateHeaders,
    Refused,
    Request,
)
from cdp_provider.core.activation.destinations.http_options import HttpDestinationOptions
from cdp_provider.core.activation.encoding import encode
from cdp_provider.core.exceptions import DataError
from cdp_provider.core.project.base import PLACE

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from cdp_provider.core.activation.destinations.base import Line, Operation, Record
    from cdp_provider.core.activation.destinations.http_options import HttpAnswer, HttpCall, HttpReadCall
    from cdp_provider.core.http import Response
    from cdp_provider.core.project.activation import Destination, Sync


class HttpDestination(DestinationKind):
    """Requests and answers as :class:`HttpDestinationOptions` describes them."""

    options = HttpDestinationOptions

    def __init__(self, destination: Destination, sync: Sync) -> None:
        super().__init__(destination, sync)
        self._options = cast("HttpDestinationOptions", destination.options)
        # What other kinds know of their vendor, this one is told by the project.
        self.rate_headers = RateHeaders(**self._options.headers.model_dump())

    @property
    def capabilities(self) -> Capabilities:
        described = self._options
        return Capabilities(
            operations=frozenset(cast("list[Operation]", list(described.calls))),
            max_batch=self.destination.batch or 100,
            max_bytes=described.max_bytes,
            max_record_bytes=described.max_record_bytes,
            folds_keys=described.key_case == "lower",
            reads=described.read is not None,
            repeatable=described.repeatable,
        )

    def item(self, operation: Operation, record: Record) -> dict[str, Any]:
        described = self._options
        item: dict[str, Any] = {described.key: record.key}
        if operation in ("remove", "archive"):
            return item
        if operation == "event" and described.event is not None:
            item |= {described.event.name: self.sync.event or self.sync.segment}
            item |= {described.event.time: record.time or record.intended}
            item |= {described.event.id: record.record_key} if described.event.id else {}
        return item | (dict(record.fields) if described.fields is None else {described.fields: record.fields})

    def request(self, operation: Operation, records: Sequence[Record], items: Sequence[bytes]) -> Request:
        # A record that is cleared is one that is upserted, with nulls.
        return self._request(self._options.calls["upsert" if operation == "clear" else operation], items)

    async def deliver(
        self, line: Line, operation: Operation, records: Sequence[Record], items: Sequence[bytes]
    ) -> list[Outcome]:
        request = self.request(operation, records, items)
        headers = {**request.headers, self._options.idempotency_header: line.idempotency_key}
        response = await line.send(replace(request, headers=headers), records=len(records))
        return self.outcomes(operation, response, records)

    def inspect(self, response: Response) -> None:
        shape = self._options.answer
        if shape is None or shape.refused_when is None or not 200 <= response.status < 300:
            return
        try:
            said = response.json()
        except DataError:
            return
        when = shape.refused_when
        if isinstance(when, str):
            refused = bool(dig(said, when))
        else:
            refused = any(dig(said, at) == value for at, value in when.items())
        if refused:
            raise Refused(_reason(said, shape) or "refused", response.status)

    def outcomes(self, operation: Operation, response: Response, records: Sequence[Record]) -> list[Outcome]:
        shape = self._options.answer
        if shape is None or (shape.status is None and shape.errors is None):
            return [ACCEPTED] * len(records)
        if shape.errors is not None:
            return _by_errors(self._list(response, shape.errors, or_none=True), shape, records)
        found = match(self._list(response, shape.results), shape.key, records)
        accepted = {_text(status) for status in shape.accepted}
        return [
            _outcome(result, shape, accepted, record) for result, record in zip(found, records, strict=True)
        ]

    async def empty(self, line: Line, records: Sequence[Record], fields: Sequence[str]) -> list[set[str]]:
        described = self._options
        read = cast("HttpReadCall", described.read)
        keys = [encode({described.key: record.key}) for record in records]
        response = await line.send(self._request(read, keys))
        held = match(self._list(response, read.results), described.key, records)
        values = [dig(record, described.fields) or {} for record in held]
        return [{name for name in fields if dig(value, name) in (None, "")} for value in values]

    def _request(self, call: HttpCall, items: Sequence[bytes]) -> Request:
        path = PLACE.sub(lambda place: quote(self.sync.parameters[place[1]], safe=""), call.path)
        body: Any = [orjson.Fragment(item) for item in items]
        if call.body is not None:
            whole: dict[str, Any] = {}
            for at, constant in call.constants.items():
                put(whole, at, self.filled(constant) if isinstance(constant, str) else constant)
            put(whole, call.body, body)
            body = whole
        return Request(call.method, path, encode(body))

    def _list(self, response: Response, path: str | None, *, or_none: bool = False) -> list[Any]:
        found = dig(response.json(), path)
        if found is None and or_none:
            return []
        if not isinstance(found, list):
            msg = (
                f"{response.method} {response.path} answered {response.status} without a list at"
                f" {path or 'the top'}; check how destination {self.destination.name} describes its answers"
            )
            raise DataError(msg)
        return found


def _outcome(result: Any, shape: HttpAnswer, accepted: Collection[str], record: Record) -> Outcome:
    if result is None:
        return Outcome("retryable", "no answer for this record")
    status = dig(result, shape.status)
    if status is not None and _text(status) in accepted:
        return ACCEPTED
    return Outcome("rejected", _reason(result, shape, record) or f"status {_text(status)}")


def _by_errors(errors: list[Any], shape: HttpAnswer, records: Sequence[Record]) -> list[Outcome]:
    """Outcomes by a list that names only who was rejected.

    :raises Refused: an error names none of several records, so only halving tells whose it is.
    """
    places = {str(place): place for place in range(len(records))}
    if shape.key is not None:
        places = {str(record.key).strip().casefold(): place for place, record in enumerate(records)}
    outcomes = [ACCEPTED] * len(records)
    for error in errors:
        named = dig(error, shape.key or shape.index)
        place = places.get(str(named).strip().casefold())
        if place is None and len(records) > 1:
            raise Refused(_reason(error, shape) or "refused")
        outcomes[place or 0] = Outcome("rejected", _reason(error, shape, records[place or 0]) or "refused")
    return outcomes


def _reason(said: Any, shape: HttpAnswer, record: Record | None = None) -> str | None:
    reason = dig(said, shape.reason) if shape.reason is not None else None
    return None if reason is None else without_values(_text(reason), record)


def match(results: list[Any], path: str | None, records: Sequence[Record]) -> list[Any]:
    """The result of each record, None where there is none.

    :param path: where a result says its record's key; None: they stand in the order of the records.
    """
    if path is None:
        return [results[place] if place < len(results) else None for place in range(len(records))]
    keys = [str(record.key) for record in records]
    names = [dig(result, path) for result in results]
    if names == keys:
        return results
    exact = {str(name): result for name, result in zip(names, results, strict=True)}
    # Some tools answer with their own spelling of the key.
    folded = {key.strip().casefold(): result for key, result in exact.items()}
    return [exact.get(key, folded.get(key.strip().casefold())) for key in keys]


def dig(value: Any, path: str | None) -> Any:
    """What stands at a dotted path; None where it ends early, and the value itself without a path."""
    if path and "." not in path:
        return value.get(path) if isinstance(value, dict) else None
    for part in path.split(".") if path else ():
        value = value.get(part) if isinstance(value, dict) else None
    return value


def put(body: dict[str, Any], path: str, value: Any) -> None:
    """Set what stands at a dotted path."""
    *parents, last = path.split(".")
    for parent in parents:
        body = body.setdefault(parent, {})
    body[last] = value


def _text(value: Any) -> str:
    """As JSON writes it, but for the quotes of a text."""
    return value if isinstance(value, str) else encode(value).decode()
