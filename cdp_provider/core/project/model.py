# SPDX-License-Identifier: Apache-2.0
"""The whole project: one frozen, typed object that every later step reads."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from cdp_provider.core.project.activation import Consent, Destination, Sync
from cdp_provider.core.project.base import Model, Name, Whole
from cdp_provider.core.project.conditions import Condition
from cdp_provider.core.project.identity import Identity
from cdp_provider.core.project.profiles import Profiles
from cdp_provider.core.project.streams import Source, Stream

if TYPE_CHECKING:
    from collections.abc import Iterator


class WarehouseRef(Model):
    """Where everything is kept.

    :param connection: id of an Airflow connection of type ``duckdb`` or ``postgres``.
    """

    connection: str
    schema_name: Name = Field(default="cdp", alias="schema")


class Limit(Model):
    """How many of those who fulfil a segment's condition belong to it.

    :param by: the field or trait that ranks them; profiles without one do not belong.
    :param per: so many for each value of this field or trait, of those who have one.
    :param ties: of those with the last admitted value, ``id``: the smaller profile ids as far as there is
        room; ``include``: all; ``exclude``: none, if there is no room for all.
    """

    count: Whole = Field(ge=1)
    by: Name
    order: Literal["descending", "ascending"] = "descending"
    per: Name | None = None
    ties: Literal["id", "include", "exclude"] = "id"


class Segment(Model):
    """A named set of profiles.

    :param but_not: members of these segments do not belong to it (``except`` in YAML).
    """

    name: Name
    description: str = ""
    where: Condition
    limit: Limit | None = None
    but_not: tuple[Name, ...] = Field(default=(), alias="except")


def parse_share(value: Any) -> Any:
    """``"12.5 %"`` or ``0.125`` -> Decimal, more than nothing and at most one."""
    text = str(value).strip()
    try:
        share = Decimal(text[:-1].strip()) / 100 if text.endswith("%") else Decimal(text)
    except InvalidOperation:
        share = None
    if share is None or isinstance(value, bool) or not 0 < share <= 1:
        msg = f"{value!r} is no share; write '10 %' or 0.1"
        raise ValueError(msg)
    return share


Share = Annotated[Decimal, BeforeValidator(parse_share, json_schema_input_type=str | float)]


class Split(Model):
    """Profiles divided by chance, the same chance in every run.

    :param segment: who is divided; left out, every profile.
    :param groups: name -> share; who is left over belongs to no group.
    :param salt: splits with the same salt divide alike; the split's name unless said otherwise.
    :param stratify: fields or traits; within each combination of their values the shares are exact.
    """

    name: Name
    segment: Name | None = None
    groups: dict[Name, Share] = Field(min_length=1)
    salt: str | None = Field(default=None, min_length=1)
    stratify: tuple[Name, ...] = ()


class Segmentation(Model):
    """Everything that decides who is in which segment.

    :param exclusive: lists of segments; who fulfils several of a list belongs to the first of them only.
    :param suppression: segments whose members belong to no other segment.
    """

    segments: tuple[Segment, ...] = ()
    splits: tuple[Split, ...] = ()
    exclusive: dict[Name, tuple[Name, ...]] = Field(default_factory=dict)
    suppression: tuple[Name, ...] = ()
    consent: Consent = Consent()


class Project(Model):
    """A customer data platform, declared.

    :param schedule: cron expression or Airflow preset; None for runs started by hand or by other DAGs.
    """

    project: Name
    description: str = ""
    owner: str = "airflow"
    tags: tuple[str, ...] = ()
    schedule: str | None = None
    warehouse: WarehouseRef
    sources: dict[Name, Source] = Field(min_length=1)
    identity: Identity = Identity()
    profiles: Profiles = Profiles()
    segments: dict[Name, Segment] = Field(default_factory=dict)
    splits: dict[Name, Split] = Field(default_factory=dict)
    exclusive: dict[Name, tuple[Name, ...]] = Field(default_factory=dict)
    suppression: tuple[Name, ...] = ()
    destinations: dict[Name, Destination] = Field(default_factory=dict)
    syncs: dict[Name, Sync] = Field(default_factory=dict)
    consent: Consent = Consent()

    def streams(self) -> Iterator[Stream]:
        """All streams, in the order of the file: the "source order" of identity resolution."""
        for source in self.sources.values():
            yield from source.streams.values()

    def segmentation(self) -> Segmentation:
        """What the segments are decided by."""
        return Segmentation(
            segments=tuple(self.segments.values()),
            splits=tuple(self.splits.values()),
            exclusive=self.exclusive,
            suppression=self.suppression,
            consent=self.consent,
        )
