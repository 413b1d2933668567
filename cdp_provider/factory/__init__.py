# SPDX-License-Identifier: Apache-2.0
"""From a project to its DAG."""

from __future__ import annotations

from cdp_provider.factory.dag import CdpDag
from cdp_provider.factory.translator import Node, Translator

__all__ = ["CdpDag", "Node", "Translator"]
