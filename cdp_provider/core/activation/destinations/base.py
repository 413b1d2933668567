# SPDX-License-Identifier: Apache-2.0
"""What every kind of destination is: a mapping between records and one vendor's requests and answers.

A destination does no input or output of its own. Batches, limits, retries and the ledger are the same for
all of them and live in :mod:`cdp_provider.core.activation.delivery`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from cdp_provider.core.http import Response
    from cdp_provider.core.project.activation import Destination, Sync
    from cdp_provider.core.project.base import Options

Operation = Literal["upsert", "remove"]

#: ``retryable``: the destination answered, but not about this record. ``throttled`` and ``ambiguous``: it did
#: not answer the request; in the second case nobody knows whether it was applied.
State = Literal["accepted", "removed", "rejected", "retryable", "throttled", "ambiguous"]

_REASON_LENGTH = 500


@dataclass(frozen=True, slots=True)
class Record:
    """One record on its way. Keys and fields are personal data, so they stay out of its repr.

    :param record_key: the key as text, as the ledger has it.
    :param key: the key as the destination gets it.
    :param fields: destination's field -> value; empty for a removal.
    :param payload_hash: of what is sent, as the ledger has it.
    :param attempts: answers that this payload got before.
    :param intended: end of the window that first meant to send this payload.
    """

    record_key: str = field(repr=False)
    key: str | int = field(repr=False)
    fields: Mapping[str, Any] = field(repr=False)
    operation: Operation
    payload_hash: str
    attempts: int
    intended: datetime


@dataclass(frozen=True, slots=True)
class Request:
    """A request to make.

    :param path: below the connection's base URL, quoted.
    :param json: the body's JSON text.
    """

    method: str
    path: str
    json: bytes = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one record fared."""

    state: State
    reason: str | None = None

    def __post_init__(self) -> None:
        if self.reason is not None:
            # PostgreSQL has no NUL in text, and a vendor may put anything into its reasons.
            object.__setattr__(self, "reason", self.reason.replace("\x00", "")[:_REASON_LENGTH])

    @property
    def taken(self) -> bool:
        """Whether the destination did what was asked."""
        return self.state in ("accepted", "removed")


@dataclass(frozen=True, slots=True)
class Result:
    """What one request meant for one record."""

    record: Record
    outcome: Outcome
    idempotency_key: str


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a destination can do.

    :param removes: it can take a record away again; a mirror needs that.
    :param max_batch: records that one of its requests may hold; None when only the project knows.
    :param folds_keys: it takes two keys that differ in case for one, so keys are compared and sent in lower
        case.
    """

    removes: bool = False
    max_batch: int | None = None
    folds_keys: bool = False


class DestinationKind(ABC):
    """One vendor's way to be told about records. Subclass it in a file of its own and register it in
    :data:`~cdp_provider.core.activation.destinations.DESTINATIONS`."""

    #: What a project file says about a destination of this kind.
    options: ClassVar[type[Options]]

    def __init__(self, destination: Destination, sync: Sync) -> None:
        self.destination = destination
        self.sync = sync

    @property
    @abstractmethod
    def capabilities(self) -> Capabilities:
        """What this destination, as it is described, can do."""

    @abstractmethod
    def request(self, operation: Operation, records: Sequence[Record]) -> Request:
        """The one request that brings all `records`; equal records give equal bytes."""

    @abstractmethod
    def outcomes(self, operation: Operation, response: Response, records: Sequence[Record]) -> list[Outcome]:
        """How each of `records` fared, in their order, by a 2xx answer.

        :raises DataError: the answer cannot be read, so nobody knows what was applied.
        """
