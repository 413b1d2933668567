# SPDX-License-Identifier: Apache-2.0
"""Fakes and a conformance suite for connectors, also of one's own; see ``docs/own-connector.md``."""

import sys

if pytest := sys.modules.get("pytest"):
    # Without it a failed assertion of the suite would not say what it compared.
    pytest.register_assert_rewrite(
        "cdp_provider.testing.connectors.conformance",
        "cdp_provider.testing.connectors.http",
        "cdp_provider.testing.connectors.stage",
    )

from cdp_provider.testing.connectors.api import TOKEN, ApiSource, FakeApi
from cdp_provider.testing.connectors.conformance import ConnectorConformance
from cdp_provider.testing.connectors.http import HttpConformance
from cdp_provider.testing.connectors.source import SourceUnderTest
from cdp_provider.testing.connectors.stage import Stage, moment, newest, record

__all__ = [
    "TOKEN",
    "ApiSource",
    "ConnectorConformance",
    "FakeApi",
    "HttpConformance",
    "SourceUnderTest",
    "Stage",
    "moment",
    "newest",
    "record",
]
