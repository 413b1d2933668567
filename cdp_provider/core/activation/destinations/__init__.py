# SPDX-License-Identifier: Apache-2.0
"""One vendor, one file; :data:`DESTINATIONS` maps the ``type`` of a destination to its class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdp_provider.core.activation.destinations.base import DestinationKind
from cdp_provider.core.plugins import KindsByName

if TYPE_CHECKING:
    from collections.abc import Mapping

DESTINATIONS: Mapping[str, type[DestinationKind]] = KindsByName(
    "cdp_provider.destinations",
    DestinationKind,  # type: ignore[type-abstract]
    {
        "braze": "cdp_provider.core.activation.destinations.braze:Braze",
        "customerio": "cdp_provider.core.activation.destinations.customerio:Customerio",
        "file": "cdp_provider.core.activation.destinations.file:File",
        "google_data_manager": (
            "cdp_provider.core.activation.destinations.google_data_manager:GoogleDataManager"
        ),
        "http": "cdp_provider.core.activation.destinations.http:HttpDestination",
        "hubspot": "cdp_provider.core.activation.destinations.hubspot:Hubspot",
        "intercom": "cdp_provider.core.activation.destinations.intercom:Intercom",
        "iterable": "cdp_provider.core.activation.destinations.iterable:IterableDestination",
        "klaviyo": "cdp_provider.core.activation.destinations.klaviyo:Klaviyo",
        "mailchimp": "cdp_provider.core.activation.destinations.mailchimp:Mailchimp",
        "meta_audience": "cdp_provider.core.activation.destinations.meta_audience:MetaAudience",
        "postgres": "cdp_provider.core.activation.destinations.postgres:Postgres",
        "salesforce": "cdp_provider.core.activation.destinations.salesforce:Salesforce",
        "sendgrid": "cdp_provider.core.activation.destinations.sendgrid:Sendgrid",
        "slack": "cdp_provider.core.activation.destinations.slack:Slack",
    },
)

__all__ = ["DESTINATIONS", "DestinationKind"]
