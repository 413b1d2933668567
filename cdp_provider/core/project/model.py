# SPDX-License-Identifier: Apache-2.0
"""The whole project: one frozen, typed object that every later step reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from cdp_provider.core.project.activation import Consent, Destination, Sync
from cdp_provider.core.project.base import Model, Name
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


class Segment(Model):
    """A named set of profiles."""

    name: Name
    description: str = ""
    where: Condition


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
    destinations: dict[Name, Destination] = Field(default_factory=dict)
    syncs: dict[Name, Sync] = Field(default_factory=dict)
    consent: Consent = Consent()

    def streams(self) -> Iterator[Stream]:
        """All streams, in the order of the file: the "source order" of identity resolution."""
        for source in self.sources.values():
            yield from source.streams.values()
