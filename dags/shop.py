# SPDX-License-Identifier: Apache-2.0
"""The example shop, whole, as one Airflow DAG: everything it does is declared in ``shop/cdp.yaml``."""

from __future__ import annotations

from pathlib import Path

from cdp_provider.factory import CdpDag

dag = CdpDag(project=Path(__file__).parent / "shop" / "cdp.yaml")
