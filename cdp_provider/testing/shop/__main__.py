# SPDX-License-Identifier: Apache-2.0
"""``python -m cdp_provider.testing.shop FOLDER``: write the example shop's data."""

from __future__ import annotations

import argparse
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cdp_provider.testing.shop.generate import ANCHOR, SEED, generate

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the data; 0 when written, 2 if the arguments make no sense."""
    parser = argparse.ArgumentParser(
        prog="python -m cdp_provider.testing.shop",
        description="Write the example shop's customers, web events and orders, and the truth about them.",
    )
    parser.add_argument("folder", type=Path, help="folder to write to; made if absent")
    parser.add_argument("--customers", type=int, default=10_000, help="rows of the CRM (default 10000)")
    parser.add_argument("--events", type=int, default=100_000, help="sound web events (default 100000)")
    parser.add_argument("--orders", type=int, default=15_000, help="sound orders (default 15000)")
    parser.add_argument("--seed", type=int, default=SEED, help=f"another seed, another shop (default {SEED})")
    parser.add_argument(
        "--anchor",
        type=datetime.fromisoformat,
        default=ANCHOR,
        help=f"UTC midnight at which the data ends (default {ANCHOR.isoformat()})",
    )
    given = parser.parse_args(arguments)
    try:
        truth = generate(
            given.folder,
            customers=given.customers,
            events=given.events,
            orders=given.orders,
            seed=given.seed,
            anchor=given.anchor,
        )
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(
        f"{given.folder}: {truth.crm.rows} customers, {truth.web.lines} lines of web events,"
        f" {truth.orders.rows} order rows\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
