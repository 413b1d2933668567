# SPDX-License-Identifier: Apache-2.0
"""How a project file describes a tool with a batch endpoint over HTTP and JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from cdp_provider.core.project.base import PLACE, Model, Options, Size
from cdp_provider.core.project.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cdp_provider.core.project.activation import Sync

_CALLS = ("upsert", "insert", "update", "remove", "archive", "event")
_CALLS_OF_MODE = {"mirror": ("upsert", "remove"), "archive": ("upsert", "archive")}


class HttpCall(Model):
    """One endpoint: ``{method: POST, path: "/lists/{list}/members", body: members}``.

    :param path: below the connection's base URL; ``{name}`` is filled by the sync's parameters.
    :param body: where in the body the list of records stands (dotted); left out, the list is the whole body.
    :param constants: what else stands in the body (``with`` in YAML), by dotted path.
    """

    method: Literal["POST", "PUT", "PATCH", "DELETE"] = "POST"
    path: str = Field(pattern=r"^/")
    body: str | None = None
    constants: dict[str, str | bool | int | float] = Field(default_factory=dict, alias="with")

    def model_post_init(self, context: Any, /) -> None:
        """Refuse constants beside a list that is the whole body."""
        if self.constants and self.body is None:
            msg = "with stands beside the list of records, so body has to say where that stands"
            raise ValueError(msg)


class HttpEventCall(HttpCall):
    """An endpoint for events: what an event's parts are called in it.

    :param name: key of the event's name.
    :param time: key of the time at which it happened.
    :param id: key of an id that is the same whenever the event is sent, for tools that drop repeats by it.
    """

    name: str = "name"
    time: str = "time"
    id: str | None = None


class HttpReadCall(HttpCall):
    """An endpoint that is given keys and answers what the tool holds; for ``write: if_empty``.

    :param results: the list of records in the answer (dotted); left out, the answer itself is the list.
    """

    results: str | None = None


class HttpAnswer(Model):
    """What a 2xx answer says; all paths are dotted. It lists a result for every record, or only the errors.

    :param results: the list of results; left out, the answer itself is the list.
    :param errors: the list of errors instead: whoever it does not name is accepted.
    :param key: the record's key in a result or error; left out, results stand in the order of the records.
    :param index: the record's place in the request, from 0, in an error.
    :param status: the record's status in a result.
    :param accepted: statuses that mean "done"; any other is a rejection.
    :param reason: where a result, an error, or a refusal of the whole batch says why.
    :param refused_when: the whole batch is refused when something stands at this path; or ``{path: value}``.
    """

    results: str | None = None
    errors: str | None = None
    key: str | None = None
    index: str | None = None
    status: str | None = None
    accepted: tuple[str | bool | int, ...] = ()
    reason: str | None = None
    refused_when: str | dict[str, str | bool | int] | None = None

    def model_post_init(self, context: Any, /) -> None:
        """Refuse a description that leaves open how a record fared."""
        msg = None
        if self.errors is not None:
            if self.results is not None or self.status is not None or self.accepted:
                msg = "an answer lists errors, or results with a status; leave one of them out"
            elif (self.key is None) == (self.index is None):
                msg = "an error names its record by key or by index; say one of them"
        elif self.index is not None:
            msg = "index belongs to errors; results without a key stand in the order of the records"
        elif (self.status is None) != (not self.accepted):
            msg = "status and accepted belong together: where the status stands, and which ones mean done"
        elif self.status is None and (self.refused_when is None or self.results or self.key):
            msg = "say status and accepted, or errors, or refused_when"
        if msg is not None:
            raise ValueError(msg)


class HttpHeaders(Model):
    """Headers by which the tool tells its limits.

    :param remaining: requests that are left.
    :param reset: until when.
    :param reset_is: ``seconds`` left, or the ``epoch`` of that moment.
    :param retry_after: how long to wait after a 429.
    """

    remaining: str | None = None
    reset: str | None = None
    reset_is: Literal["seconds", "epoch"] = "seconds"
    retry_after: str = "Retry-After"


class HttpDestinationOptions(Options):
    """A tool with a batch endpoint. A sync's mode needs the calls of its operations.

    :param upsert: creates and updates records.
    :param insert: creates records.
    :param update: updates records that are there.
    :param remove: takes records away.
    :param archive: archives records.
    :param event: takes events.
    :param read: says what the tool holds; without it no field can be ``write: if_empty``.
    :param key: what the key is called in a record.
    :param key_case: ``lower`` when the tool takes keys that differ in case for one, as e-mail tools do.
    :param fields: key under which mapped fields stand; left out, they stand beside the key.
    :param answer: left out, a 2xx accepts every record of its request.
    :param headers: names of the headers that tell the tool's limits.
    :param idempotency_header: carries a key that is the same for each try of a request.
    :param max_bytes: bytes of a request's body.
    :param max_record_bytes: bytes of one record; a larger one is invalid.
    :param repeatable: whether a request whose answer was lost may be sent again. Say false where the tool
        would do it twice and heeds no idempotency key.
    """

    needs_connection: ClassVar[bool] = True

    upsert: HttpCall | None = None
    insert: HttpCall | None = None
    update: HttpCall | None = None
    remove: HttpCall | None = None
    archive: HttpCall | None = None
    event: HttpEventCall | None = None
    read: HttpReadCall | None = None
    key: str
    key_case: Literal["keep", "lower"] = "keep"
    fields: str | None = None
    answer: HttpAnswer | None = None
    headers: HttpHeaders = HttpHeaders()
    idempotency_header: str = Field(default="Idempotency-Key", pattern=r"^[A-Za-z0-9-]+$")
    max_bytes: Size | None = None
    max_record_bytes: Size | None = None
    repeatable: bool = True

    def model_post_init(self, context: Any, /) -> None:
        """Refuse a tool that can do nothing."""
        if not self.calls:
            msg = f"describe at least one call: {', '.join(_CALLS)}"
            raise ValueError(msg)

    @property
    def calls(self) -> dict[str, HttpCall]:
        """Operation -> how it is called."""
        return {name: call for name in _CALLS if (call := getattr(self, name)) is not None}

    def sync_problems(self, sync: Sync) -> Iterator[Problem]:
        """A mode without its calls, a place that nothing fills, a field in the key's place."""
        needed = [name for name in _CALLS_OF_MODE.get(sync.mode, (sync.mode,)) if name != "remove"]
        needed += ["remove"] if sync.mode == "mirror" and sync.removal == "remove" else []
        needed += ["read"] if any(field.write == "if_empty" for field in sync.fields.values()) else []
        for name in needed:
            if getattr(self, name) is None:
                message = f"destination {sync.destination} describes no {name} call, which this sync needs"
                yield Problem(("mode",), message, f"describe {name}, or use another mode")
        texts = [text for name in needed if (call := getattr(self, name)) for text in _texts(call)]
        for name in sorted({name for text in texts for name in PLACE.findall(text)} - set(sync.parameters)):
            message = f"destination {sync.destination} needs the parameter {name!r}"
            yield Problem(("parameters",), message, f"add parameters: {{{name}: ...}}")
        if self.fields is None and self.key in sync.fields:
            message = f"{self.key!r} is the name of the key in a record of destination {sync.destination}"
            hint = "rename the field, or put fields under a key of their own"
            yield Problem(("fields", self.key), message, hint, at_key=True)


def _texts(call: HttpCall) -> Iterator[str]:
    yield call.path
    yield from (value for value in call.constants.values() if isinstance(value, str))
