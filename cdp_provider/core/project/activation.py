# SPDX-License-Identifier: Apache-2.0
"""Destinations and syncs: who is told what about which profiles."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SerializeAsAny

from cdp_provider.core.project.base import Duration, Model, Name, Options, Whole


class Rate(Model):
    """Requests that an account allows: ``{requests: 20, per: 1 second}``."""

    requests: Whole = Field(ge=1)
    per: Duration


class Destination(Model):
    """An account of another tool.

    :param type: the kind of destination; ``http`` is described by its options alone.
    :param connection: id of an Airflow connection (``cdp_destination`` or ``http``).
    :param rate: the account's limit; shared by all syncs and workers that use it.
    :param batch: records in one request, at most.
    """

    name: Name
    type: str
    connection: str
    rate: Rate
    batch: Whole = Field(default=100, ge=1)
    options: SerializeAsAny[Options]


class Sync(Model):
    """Keeps a destination in step with a segment.

    :param segment: whose members are sent; left out, every profile is.
    :param key: trait or field of the profile that names the record at the destination.
    :param fields: the destination's field -> trait or field of the profile.
    :param mode: ``upsert`` never removes; ``mirror`` also removes who left the segment.
    :param parameters: fill the ``{name}`` places of the destination's paths, such as a list's id.
    :param max_attempts: a record that was rejected this often is not sent again until it changes.
    """

    name: Name
    segment: Name | None = None
    destination: Name
    key: Name
    fields: dict[str, Name] = Field(default_factory=dict)
    mode: Literal["upsert", "mirror"] = "upsert"
    parameters: dict[str, str] = Field(default_factory=dict)
    max_attempts: Whole = Field(default=5, ge=1)
