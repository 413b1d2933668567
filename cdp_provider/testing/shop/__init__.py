# SPDX-License-Identifier: Apache-2.0
"""The data of an invented shop, honest about the world, the same bytes for the same seed.

:func:`generate` writes into a folder

``crm/customers.ndjson``
    What the CRM holds: load it into :class:`cdp_provider.testing.vendor.VendorServer` with ``data=FOLDER``.
``web/YYYY-MM-DD.ndjson``
    60 days of web events in Segment's event spec, one file per day of receipt: late and doubled events,
    laptops that several people share, broken lines.
``orders/orders-YYYY-MM.csv``
    18 months of orders: guests, people who did not log in, e-mail addresses that have changed since, broken
    rows.
``truth.json``, ``people.ndjson``
    What is true about all that: see :class:`Truth`. Not for the pipeline, but for those who test it.

Names, addresses and numbers are random; mail addresses are in domains reserved for examples.
"""

from cdp_provider.testing.shop.generate import ANCHOR, SEED, generate
from cdp_provider.testing.shop.truth import BrokenLine, CrmTruth, OrdersTruth, Truth, WebTruth

__all__ = ["ANCHOR", "SEED", "BrokenLine", "CrmTruth", "OrdersTruth", "Truth", "WebTruth", "generate"]
