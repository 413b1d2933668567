# SPDX-License-Identifier: Apache-2.0
"""Destinations and syncs: who is told what about which profiles."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import BeforeValidator, Field, SerializeAsAny, field_validator

from cdp_provider.core.project.base import Duration, Model, Name, Options, Size, Whole


class Rate(Model):
    """What an account allows in a span of time: ``{requests: 20, per: 1 second}``.

    :param requests: so many requests; or
    :param records: so many records, however they are spread over requests.
    :param per: any span of this length; with `resets`, a calendar day.
    :param resets: time zone at whose midnight a daily quota begins anew, such as ``America/Los_Angeles``.
    """

    requests: Whole | None = Field(default=None, ge=1)
    records: Whole | None = Field(default=None, ge=1)
    per: Duration
    resets: str | None = None

    @field_validator("resets")
    @classmethod
    def _known_zone(cls, zone: str | None) -> str | None:
        try:
            return zone and ZoneInfo(zone).key
        except (ValueError, OSError, KeyError):
            msg = f"{zone!r} is no time zone; write one such as 'UTC' or 'America/Los_Angeles'"
            raise ValueError(msg) from None

    def model_post_init(self, context: Any, /) -> None:
        """Refuse a rate of both or of nothing, and a reset of anything but days."""
        if (self.requests is None) == (self.records is None):
            msg = "a rate counts either requests or records; write {requests: 20, per: 1 second}"
            raise ValueError(msg)
        if self.resets is not None and self.per != timedelta(days=1):
            msg = "only a quota per day resets at midnight; write per: 1 day, or leave resets out"
            raise ValueError(msg)

    @property
    def amount(self) -> int:
        """How many requests or records."""
        return self.requests or self.records or 0


def _rates(value: Any) -> Any:
    return [value] if isinstance(value, (dict, Rate)) else value


Rates = Annotated[tuple[Rate, ...], BeforeValidator(_rates, json_schema_input_type=Rate | tuple[Rate, ...])]


class Destination(Model):
    """An account of another tool.

    :param type: the kind of destination; ``http`` is described by its options alone.
    :param connection: id of an Airflow connection.
    :param rate: the account's limits, all of which hold; what the vendor documents when left out. Shared by
        all syncs and workers that use the account.
    :param account: destinations with the same account share its limits; the connection's id when left out.
    :param concurrency: requests at the same time, of all workers together; the vendor's when left out.
    :param batch: records in one request, at most; as many as the vendor takes when left out.
    :param batch_size: bytes of one request, at most; likewise.
    :param purposes: what a person must have agreed to before their data go there, besides what the kind of
        destination demands by itself; see :class:`Consent`.
    :param circuit: after so many failed runs in a row a sync tries a single batch first.
    """

    name: Name
    type: str
    connection: str
    rate: Rates | None = None
    account: str | None = None
    concurrency: Whole | None = Field(default=None, ge=1)
    batch: Whole | None = Field(default=None, ge=1)
    batch_size: Size | None = None
    purposes: tuple[Name, ...] = ()
    circuit: Whole = Field(default=3, ge=1)
    options: SerializeAsAny[Options]


class SyncField(Model):
    """A value that travels: ``{from: first_name, write: if_empty}``, or just ``first_name``.

    :param source: trait or field of the profile (``from`` in YAML).
    :param write: ``always``; or ``if_empty``, where the destination has no value yet.
    :param null: ``send`` a missing value as null, or ``skip`` the field then.
    """

    source: Name = Field(alias="from")
    write: Literal["always", "if_empty"] = "always"
    null: Literal["send", "skip"] = "send"


def _sync_field(value: Any) -> Any:
    return {"from": value} if isinstance(value, str) else value


class Sync(Model):
    """Keeps a destination in step with a segment.

    :param segment: whose members are sent; left out, every profile is.
    :param key: trait or field of the profile that names the record at the destination.
    :param fields: the destination's field -> trait or field of the profile.
    :param mode: ``upsert`` creates and updates; ``insert`` only creates; ``update`` only updates what is
        there; ``mirror`` also removes who left the segment, ``archive`` archives them; ``event`` sends one
        event per entry into the segment, once.
    :param removal: what ``mirror`` does with who left: ``remove`` the record, ``clear`` its mapped fields, or
        ``nothing``.
    :param event: name of the events that the mode ``event`` sends; the segment's name when left out.
    :param parameters: fill the ``{name}`` places of the destination's options, such as a list's id.
    :param max_attempts: a record that was rejected this often is a dead letter: not sent again until it
        changes or is released.
    :param approve_above: share (0 to 1) of the acknowledged records that one run may remove without a
        person's approval; None asks nobody.
    :param log_payload: whether the delivery log keeps what was sent.
    :param log_retention: how long the delivery log is kept, counted back from the run's window.
    """

    name: Name
    segment: Name | None = None
    destination: Name
    key: Name
    fields: dict[
        str, Annotated[SyncField, BeforeValidator(_sync_field, json_schema_input_type=str | SyncField)]
    ] = Field(default_factory=dict)
    mode: Literal["upsert", "insert", "update", "mirror", "archive", "event"] = "upsert"
    removal: Literal["remove", "clear", "nothing"] = "remove"
    event: str | None = None
    parameters: dict[str, str] = Field(default_factory=dict)
    max_attempts: Whole = Field(default=5, ge=1)
    approve_above: float | None = Field(default=None, ge=0, le=1)
    log_payload: bool = False
    log_retention: Duration = timedelta(days=90)

    def model_post_init(self, context: Any, /) -> None:
        """Refuse what says nothing in the sync's mode."""
        if self.removal != "remove" and self.mode != "mirror":
            msg = f"removal: {self.removal} belongs to mode: mirror, and the mode is {self.mode}"
            raise ValueError(msg)
        if self.event is not None and self.mode != "event":
            msg = f"event belongs to mode: event, and the mode is {self.mode}"
            raise ValueError(msg)

    @property
    def sources(self) -> tuple[Name, ...]:
        """Fields and traits whose values travel, in the order of `fields`."""
        return tuple(field.source for field in self.fields.values())

    @property
    def takes_away(self) -> bool:
        """Whether it removes, clears or archives who left."""
        return self.mode == "archive" or (self.mode == "mirror" and self.removal != "nothing")


class Consent(Model):
    """What persons agreed to. Checked when data are about to leave.

    :param purposes: purpose -> field or trait (boolean) that says whether a person agreed to it. Only true
        means yes: a purpose without an entry, or a profile without a value, means no.
    :param suppressed: fields or traits (boolean); a profile of which one is true never leaves.
    """

    purposes: dict[Name, Name] = Field(default_factory=dict)
    suppressed: tuple[Name, ...] = ()
