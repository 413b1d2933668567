# SPDX-License-Identifier: Apache-2.0
"""``python -m cdp_provider.testing.vendor``: the stand-in vendor as a process of its own."""

from __future__ import annotations

import argparse
import signal
import sqlite3
import sys
import threading
from typing import TYPE_CHECKING

from cdp_provider.testing.vendor.server import VendorServer

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; 0 after an orderly stop, 2 if it cannot start."""
    parser = argparse.ArgumentParser(
        prog="python -m cdp_provider.testing.vendor",
        description="A stand-in CRM and e-mail tool on 127.0.0.1, for tests of connectors and destinations.",
    )
    parser.add_argument("--port", type=int, default=9100, help="TCP port; 0 takes a free one (default 9100)")
    parser.add_argument("--state", default=":memory:", help="SQLite file that survives a restart")
    parser.add_argument("--data", help="folder written by `python -m cdp_provider.testing.shop`")
    parser.add_argument(
        "--throttle-every", type=int, default=13, help="every n-th CRM read answers 429; 0: none (default 13)"
    )
    parser.add_argument(
        "--fail-every", type=int, default=29, help="every n-th CRM read answers 500; 0: none (default 29)"
    )
    parser.add_argument(
        "--rate", type=int, default=20, help="writes per second and destination; 0: no limit (default 20)"
    )
    given = parser.parse_args(arguments)

    try:
        vendor = VendorServer(
            state=given.state,
            port=given.port,
            data=given.data,
            throttle_every=given.throttle_every or None,
            fail_every=given.fail_every or None,
            mail_rate=given.rate or None,
            crm_rate=given.rate or None,
        )
    except (OSError, OverflowError, ValueError, sqlite3.Error) as error:
        where = f"port {given.port} and state {given.state}"
        sys.stderr.write(f"The stand-in vendor cannot start with {where}: {error}\n")
        return 2
    stop = threading.Event()
    with vendor:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        sys.stdout.write(f"listening on {vendor.url}\n")
        sys.stdout.flush()
        stop.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
