# SPDX-License-Identifier: Apache-2.0
"""``python -m scripts.ui [--port N]``: the demo's Airflow, left running. ``--stop`` ends it."""

from __future__ import annotations

import argparse
import sys

from scripts.airflow_api import ApiError
from scripts.services import ServiceError, end, find
from scripts.stage import RECORD, services_for, set_up

PORT = 8080


def main(arguments: list[str] | None = None) -> int:
    """0 when Airflow is up (or stopped), 1 when it could not be started."""
    parser = argparse.ArgumentParser(prog="python -m scripts.ui", description=__doc__)
    parser.add_argument("--port", type=int, default=PORT, help=f"wanted port, default {PORT}")
    parser.add_argument("--stop", action="store_true", help="end whatever this checkout has running")
    given = parser.parse_args(arguments)
    return stop() if given.stop else start(given.port)


def start(port: int) -> int:
    """Start Airflow and the vendors and leave them running; a failed start leaves nothing."""
    services = services_for("ui")
    try:
        _, airflow = set_up(services, print, port=port)
    except BaseException as error:
        services.stop()
        if not isinstance(error, (ServiceError, ApiError, OSError)):
            raise
        print(f"\n{error}", file=sys.stderr)
        return 1
    services.note()
    if airflow.port != port:
        print(f"Port {port} is taken.")
    print(f"Open {airflow.address}/dags/shop and press Trigger; no login. `make stop` ends it.")
    return 0


def stop() -> int:
    """End the processes of this checkout, whoever started them."""
    found = find(RECORD)
    if found is None:
        print("Nothing is running.")
        return 0
    end(found.processes)
    RECORD.unlink(missing_ok=True)
    print("Stopped.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
