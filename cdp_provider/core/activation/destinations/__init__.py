# SPDX-License-Identifier: Apache-2.0
"""One vendor, one file; :data:`DESTINATIONS` maps the ``type`` of a destination to its class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdp_provider.core.activation.destinations.base import DestinationKind
from cdp_provider.core.activation.destinations.braze import Braze
from cdp_provider.core.activation.destinations.customerio import Customerio
from cdp_provider.core.activation.destinations.file import File
from cdp_provider.core.activation.destinations.google_data_manager import GoogleDataManager
from cdp_provider.core.activation.destinations.http import HttpDestination
from cdp_provider.core.activation.destinations.hubspot import Hubspot
from cdp_provider.core.activation.destinations.intercom import Intercom
from cdp_provider.core.activation.destinations.iterable import IterableDestination
from cdp_provider.core.activation.destinations.klaviyo import Klaviyo
from cdp_provider.core.activation.destinations.mailchimp import Mailchimp
from cdp_provider.core.activation.destinations.meta_audience import MetaAudience
from cdp_provider.core.activation.destinations.postgres import Postgres
from cdp_provider.core.activation.destinations.salesforce import Salesforce
from cdp_provider.core.activation.destinations.sendgrid import Sendgrid
from cdp_provider.core.activation.destinations.slack import Slack
from cdp_provider.core.plugins import KindsByName

if TYPE_CHECKING:
    from collections.abc import Mapping

DESTINATIONS: Mapping[str, type[DestinationKind]] = KindsByName(
    "cdp_provider.destinations",
    DestinationKind,  # type: ignore[type-abstract]
    {
        "braze": Braze,
        "customerio": Customerio,
        "file": File,
        "google_data_manager": GoogleDataManager,
        "http": HttpDestination,
        "hubspot": Hubspot,
        "intercom": Intercom,
        "iterable": IterableDestination,
        "klaviyo": Klaviyo,
        "mailchimp": Mailchimp,
        "meta_audience": MetaAudience,
        "postgres": Postgres,
        "salesforce": Salesforce,
        "sendgrid": Sendgrid,
        "slack": Slack,
    },
)

__all__ = ["DESTINATIONS", "DestinationKind", "HttpDestination"]
