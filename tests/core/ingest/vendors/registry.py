# SPDX-License-Identifier: Apache-2.0
"""Vendors to read from, one file each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.core.ingest.vendors.hubspot import HubSpot
from tests.core.ingest.vendors.intercom import Intercom
from tests.core.ingest.vendors.klaviyo import Klaviyo
from tests.core.ingest.vendors.shopify import Shopify
from tests.core.ingest.vendors.stripe import Stripe
from tests.core.ingest.vendors.zendesk import Zendesk

if TYPE_CHECKING:
    from tests.core.ingest.vendors.base import Vendor

VENDORS: dict[str, type[Vendor]] = {
    kind.name: kind for kind in (Stripe, HubSpot, Zendesk, Intercom, Shopify, Klaviyo)
}
