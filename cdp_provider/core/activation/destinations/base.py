# SPDX-License-Identifier: Apache-2.0
"""What every kind of destination is: a mapping between records and one vendor's requests and answers.

A kind says what a request looks like and what an answer means. Limits, retries, batches, halving of refused
batches, the ledger and the log are the same for all of them and live in
:mod:`cdp_provider.core.activation.delivery`.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from cdp_provider.core.auth import Auth
from cdp_provider.core.exceptions import CdpError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from cdp_provider.core.http import Response
    from cdp_provider.core.project.activation import Destination, Rate, Sync
    from cdp_provider.core.project.base import Options

#: ``clear`` empties the mapped fields of a record; kinds get it as an ``upsert`` whose values are null.
Operation = Literal["upsert", "insert", "update", "clear", "remove", "archive", "event"]

#: ``invalid``: never sent. ``rejected``: refused by the destination. ``retryable``: it answered, but not
#: about this record; or nothing was applied. ``throttled`` and ``ambiguous``: it did not answer the request;
#: in the second case nobody knows whether it was applied.
State = Literal["accepted", "invalid", "rejected", "retryable", "throttled", "ambiguous"]

_REASON_LENGTH = 500
_PLACE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(slots=True)
class Record:
    """One record on its way; not changed once made. Keys and fields are personal data, so they stay out of
    its repr.

    :param record_key: names the record in the ledger.
    :param key: the key as the destination gets it.
    :param fields: destination's field -> value; empty for ``remove`` and ``archive``, all null for ``clear``.
    :param payload_hash: of what is sent, as the ledger has it.
    :param attempts: answers that this payload got before.
    :param intended: end of the window that first meant to send this payload.
    :param place: where it stood in that window's order of sending.
    :param sent: :attr:`Outcome.sent` of the payload that the destination holds.
    :param time: when what an event speaks of happened.
    """

    record_key: str = field(repr=False)
    key: str | int = field(repr=False)
    profile_id: int | None
    fields: Mapping[str, Any] = field(repr=False)
    operation: Operation
    payload_hash: str
    attempts: int
    intended: datetime
    place: int = 0
    sent: str | None = field(default=None, repr=False)
    time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """A request to make.

    :param path: below the connection's base URL, quoted, with its query.
    :param body: the body as it travels; None for none.
    :param limit: the endpoint class whose limits it counts against; a key of :attr:`DestinationKind.limits`.
    """

    method: str
    path: str
    body: bytes | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    limit: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one record fared.

    :param reason: the destination's own, or ours for what was never sent. No value of the record.
    :param status: HTTP status of the answer; delivery fills it in.
    :param sent: of an accepted record, what the ledger keeps for its later change or removal: hashed
        identifiers as JSON, the vendor's id. Only where capabilities say ``remembers``.
    """

    state: State
    reason: str | None = None
    status: int | None = None
    sent: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.reason is not None:
            # PostgreSQL has no NUL in text, and a vendor may put anything into its reasons.
            object.__setattr__(self, "reason", self.reason.replace("\x00", "")[:_REASON_LENGTH])


ACCEPTED = Outcome("accepted")


@dataclass(slots=True)
class Result:
    """What one request meant for one record; not changed once made."""

    record: Record
    outcome: Outcome
    idempotency_key: str


class InvalidRecord(CdpError):
    """A record that cannot be sent as it is. The message says why, without its values."""


class Refused(CdpError):
    """The destination refused a request as a whole because of what it holds: delivery halves the batch until
    each culprit stands alone, and then rejects it with this reason."""

    def __init__(self, reason: str, status: int | None = None) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True, slots=True)
class Limits:
    """What one endpoint class of an account allows.

    :param rates: all of them hold at once.
    :param concurrency: requests at the same time; None: any number.
    """

    rates: tuple[Rate, ...] = ()
    concurrency: int | None = None


@dataclass(frozen=True, slots=True)
class RateHeaders:
    """Where a vendor's answers say how much is left. What they say only ever lowers the rate.

    :param remaining: header with the requests that are left.
    :param reset: header that says until when.
    :param reset_is: ``seconds`` left, or the ``epoch`` of that moment.
    :param retry_after: header of a refusal that says how long to wait; seconds or a date.
    """

    remaining: str | None = None
    reset: str | None = None
    reset_is: Literal["seconds", "epoch"] = "seconds"
    retry_after: str = "Retry-After"


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a destination can do.

    :param operations: of these ``upsert``, ``insert``, ``update``, ``remove``, ``archive``, ``event``.
    :param max_batch: records that one request may hold.
    :param max_bytes: bytes of a request's body.
    :param max_record_bytes: bytes of one record in it; a larger one is invalid.
    :param folds_keys: it takes two keys that differ in case for one, so keys are compared and sent in lower
        case.
    :param reads: it can be asked for current values (:meth:`DestinationKind.empty`): ``write: if_empty``
        needs that.
    :param remembers: removals and changes need to know what was sent (:attr:`Outcome.sent`).
    :param repeatable: a request whose answer was lost may be sent again. Where it may not, a record whose
        answer was lost stays ``ambiguous`` until a person releases it.
    :param snapshot: each run gets all records, changed or not.
    :param purposes: what persons must have agreed to before their data may go there.
    """

    operations: frozenset[Operation] = frozenset({"upsert"})
    max_batch: int = 100
    max_bytes: int | None = None
    max_record_bytes: int | None = None
    folds_keys: bool = False
    reads: bool = False
    remembers: bool = False
    repeatable: bool = True
    snapshot: bool = False
    purposes: tuple[str, ...] = ()


class Line(Protocol):
    """The way to the destination that delivery gives a kind for one batch.

    :ivar target: what the connection became: an :class:`~cdp_provider.core.http.Endpoint`, or what
        :attr:`DestinationKind.transport` says.
    :ivar idempotency_key: of the batch at hand; the same for every try of it.
    """

    target: Any
    idempotency_key: str

    async def send(self, request: Request, *, records: int = 0) -> Response:
        """The 2xx answer to a request, once the account's limits admit it. 429, 5xx and lost answers are
        tried again, as patiently as the sync is.

        :param records: how many records it carries, for limits that count records.
        :raises Refused: 400, 409, 413 or 422, or what :meth:`DestinationKind.inspect` takes for that.
        :raises RateLimitedError: the account is busy for longer than a worker waits.
        :raises UnavailableError: no usable answer.
        :raises ConfigurationError: credentials, path or connection are wrong.
        """

    async def sleep(self, seconds: float) -> None:
        """Wait, for instance until a job at the destination is done; ends early when the task is stopped."""


class DestinationKind(ABC):
    """One vendor's way to be told about records. Subclass it in a file of its own and register it in
    :data:`~cdp_provider.core.activation.destinations.DESTINATIONS`.

    Most kinds say :meth:`item`, :meth:`request` and :meth:`outcomes`; one whose vendor answers later, or
    takes several requests, says :meth:`deliver` instead of the last two.
    """

    #: What a project file says about a destination of this kind.
    options: ClassVar[type[Options]]
    #: ``http``: :attr:`Line.target` is an ``Endpoint``. ``sql``: a callable that opens a psycopg connection.
    #: ``files``: an object like ``pathlib.Path``.
    transport: ClassVar[Literal["http", "sql", "files"]] = "http"
    #: Airflow connection types that will do, besides ``cdp_destination``.
    connection_types: ClassVar[tuple[str, ...]] = ("http",)
    auth: ClassVar[Auth] = Auth()
    #: Sent with every request, for instance the version of the API.
    headers: ClassVar[Mapping[str, str]] = {}
    #: Base URL for connections that name no host; None where each account has its own.
    base_url: ClassVar[str | None] = None
    #: As documented by the vendor, by endpoint class; "" is where records go. See :attr:`limits_source`.
    limits: ClassVar[Mapping[str, Limits]] = {}
    #: Address of the page that documents the limits.
    limits_source: ClassVar[str] = ""
    rate_headers: RateHeaders = RateHeaders()

    def __init__(self, destination: Destination, sync: Sync) -> None:
        self.destination = destination
        self.sync = sync

    @property
    def own_limits(self) -> Limits:
        """Of the endpoint class "", which is where records go: what the project says comes first."""
        known, said = self.limits.get("", Limits()), self.destination
        rates = known.rates if said.rate is None else said.rate
        return Limits(rates, said.concurrency or known.concurrency)

    def asked(self, operation: Operation) -> Operation:
        """What :meth:`item` and :meth:`deliver` are asked for: to clear is to write nulls."""
        if operation != "clear":
            return operation
        return "upsert" if "upsert" in self.capabilities.operations else "update"

    def filled(self, text: str) -> str:
        """A text of the options, with the sync's parameters in its ``{places}``."""
        return _PLACE.sub(lambda place: self.sync.parameters[place[1]], text)

    @property
    @abstractmethod
    def capabilities(self) -> Capabilities:
        """What this destination, as it is described, can do."""

    @abstractmethod
    def item(self, operation: Operation, record: Record) -> Any:
        """What stands for a record in a request's body, as JSON-able value (decimals, dates and timestamps
        included; see :mod:`cdp_provider.core.activation.encoding`).

        :raises InvalidRecord: it cannot be sent as it is.
        """

    def request(self, operation: Operation, records: Sequence[Record], items: Sequence[bytes]) -> Request:
        """The one request that brings all `records`; equal records give equal bytes.

        :param items: JSON text of the :meth:`item` of each record.
        """
        raise NotImplementedError

    def outcomes(self, operation: Operation, response: Response, records: Sequence[Record]) -> list[Outcome]:
        """How each of `records` fared, in their order, by a 2xx answer.

        :raises DataError: the answer cannot be read, so nobody knows what was applied.
        """
        raise NotImplementedError

    async def deliver(
        self, line: Line, operation: Operation, records: Sequence[Record], items: Sequence[bytes]
    ) -> list[Outcome]:
        """Bring a batch, and say how each record fared, in their order. Errors as of :meth:`Line.send`."""
        response = await line.send(self.request(operation, records, items), records=len(records))
        return self.outcomes(operation, response, records)

    def inspect(self, response: Response) -> None:  # noqa: B027 - statuses tell enough of most vendors
        """Raise what an answer means where its status alone does not tell: a quota used up that comes as 403,
        a refusal inside a 200. Called for every answer, before its status is judged.

        :raises RateLimitedError: the account is busy; with ``retry_after`` where the answer says so.
        :raises UnavailableError: the vendor has trouble of its own.
        :raises Refused: the batch is refused for what it holds.
        :raises ConfigurationError: credentials or options are wrong.
        """

    async def empty(self, line: Line, records: Sequence[Record], fields: Sequence[str]) -> list[set[str]]:
        """Which of `fields` have no value at the destination, for each record; all of them for a record that
        is not there. Asked only where capabilities say ``reads``."""
        raise NotImplementedError
