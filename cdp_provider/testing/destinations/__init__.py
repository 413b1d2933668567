# SPDX-License-Identifier: Apache-2.0
"""Fakes and a conformance suite for destinations, also of one's own; see ``docs/own-destination.md``."""

import sys

if pytest := sys.modules.get("pytest"):
    # Without it a failed assertion of the suite would not say what it compared.
    pytest.register_assert_rewrite("cdp_provider.testing.destinations.conformance")

from cdp_provider.testing.destinations.conformance import DestinationConformance
from cdp_provider.testing.destinations.fake import FakeAnswer, FakeRequest, FakeServer, FakeVendor

__all__ = ["DestinationConformance", "FakeAnswer", "FakeRequest", "FakeServer", "FakeVendor"]
