# SPDX-License-Identifier: Apache-2.0
"""What advertising audiences have in common: lists of persons whom a tool knows by hashes of identifiers.

Such a tool is told whom to add and whom to take out, and never says who is in. So the ledger keeps the hashes
of each record: with them a person is taken out whose profile is gone by then, and an identifier that changed
is taken back.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from cdp_provider.core.activation.destinations.base import (
    Capabilities,
    DestinationKind,
    InvalidRecord,
    Outcome,
)
from cdp_provider.core.activation.destinations.fit import parameter_problems
from cdp_provider.core.activation.encoding import encode
from cdp_provider.core.project.base import Options
from cdp_provider.core.project.problems import Problem, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cdp_provider.core.activation.destinations.base import Line, Operation, Record
    from cdp_provider.core.project.activation import Sync

#: A person: kind of identifier -> its hash, or what else the tool is told.
Person = dict[str, Any]

Action = Literal["add", "remove"]

#: No identifier, only the record's name in the ledger.
NO_IDENTIFIER = "none"


class AudienceOptions(Options):
    """What the options of all audiences share. A subclass has a field `key`, the identifier that the sync's
    key is.

    :cvar identifiers: names that a sync's fields may have.
    """

    needs_connection: ClassVar[bool] = True
    purposes: ClassVar[tuple[str, ...]] = ("advertising",)
    identifiers: ClassVar[tuple[str, ...]]

    def sync_problems(self, sync: Sync) -> Iterator[Problem]:
        """A mode that means nothing to an audience, fields that it has not, a place that nothing fills."""
        if sync.mode not in {"upsert", "mirror"} or sync.removal == "clear":
            message = f"the audience {sync.destination!r} only takes persons in and out"
            yield Problem(("mode",), message, "use mode: mirror, or upsert to only add")
        key = getattr(self, "key", NO_IDENTIFIER)
        if key == NO_IDENTIFIER and not sync.fields:
            message = f"nothing tells the audience {sync.destination!r} who a person is"
            yield Problem(("fields",), message, "map an identifier, or say what the key is (options: key)")
        for name, field in sync.fields.items():
            if name not in self.identifiers:
                hint = did_you_mean(name, self.identifiers)
                yield Problem(
                    ("fields", name), f"{name!r} is no identifier of a person there", hint, at_key=True
                )
            elif name == key:
                message = f"{name!r} is what the sync's key already fills"
                yield Problem(("fields", name), message, "leave the field out", at_key=True)
            if field.write == "if_empty":
                message = "an audience does not say what it holds"
                yield Problem(("fields", name, "write"), message, "write: always")
        yield from parameter_problems(sync, self.places())


class Audience(DestinationKind):
    """Persons in, persons out. A subclass says how a person is told apart (:meth:`person`) and how persons
    are sent (:meth:`send`)."""

    #: Persons in one request, as the vendor documents.
    max_persons: ClassVar[int] = 10_000

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            operations=frozenset({"upsert", "remove"}),
            max_batch=self.max_persons,
            folds_keys=self.key in {"email", "emailAddress", "EMAIL"},
            remembers=True,
            purposes=AudienceOptions.purposes,
        )

    @property
    def key(self) -> str:
        """The identifier that the sync's key is, or :data:`NO_IDENTIFIER`."""
        return str(getattr(self.destination.options, "key", NO_IDENTIFIER))

    @abstractmethod
    def person(self, values: Mapping[str, Any]) -> Person:
        """Identifiers, normalised and hashed; empty if `values` hold none.

        :param values: identifier -> value, as the sync maps them.
        """

    @abstractmethod
    def written(self, action: Action, person: Person) -> Any:
        """A person as part of a request's body."""

    @abstractmethod
    async def send(self, line: Line, action: Action, items: Sequence[bytes]) -> list[Outcome]:
        """Bring persons in or out, and say how each fared.

        :param items: JSON text of each, as :meth:`written`.
        """

    @abstractmethod
    def remembered(self, item: bytes) -> str:
        """What the ledger keeps of a person who was added."""

    @abstractmethod
    def recalled(self, sent: str) -> Person:
        """The person of whom that was kept."""

    def item(self, operation: Operation, record: Record) -> Any:
        if operation != "remove":
            return self.written("add", self._person(record))
        person = self._person(record) if record.sent is None else self.recalled(record.sent)
        return self.written("remove", person)

    async def deliver(
        self, line: Line, operation: Operation, records: Sequence[Record], items: Sequence[bytes]
    ) -> list[Outcome]:
        if operation == "remove":
            return await self.send(line, "remove", items)
        outcomes: dict[int, Outcome] = {}
        gone = {
            place: encode(self.written("remove", lost))
            for place, record in enumerate(records)
            if record.sent is not None and (lost := self._lost(record.sent, record))
        }
        if gone:
            taken = await self.send(line, "remove", list(gone.values()))
            told = zip(gone, taken, strict=True)
            outcomes = {place: outcome for place, outcome in told if outcome.state != "accepted"}
        places = [place for place in range(len(records)) if place not in outcomes]
        if places:
            added = await self.send(line, "add", [items[place] for place in places])
            for place, outcome in zip(places, added, strict=True):
                accepted = outcome.state == "accepted"
                outcomes[place] = (
                    Outcome("accepted", sent=self.remembered(items[place])) if accepted else outcome
                )
        return [outcomes[place] for place in range(len(records))]

    def _person(self, record: Record) -> Person:
        values = dict(record.fields)
        if self.key != NO_IDENTIFIER:
            values[self.key] = record.key
        if person := self.person({name: value for name, value in values.items() if value is not None}):
            return person
        msg = (
            f"none of {', '.join(sorted(values)) or 'its values'} is an identifier that the audience takes;"
            " check their form (phone numbers need a country code, or the option region)"
        )
        raise InvalidRecord(msg)

    def _lost(self, sent: str, record: Record) -> Person:
        """What was sent and is no longer true of the person."""
        person = self._person(record)
        return {name: value for name, value in self.recalled(sent).items() if person.get(name) != value}
