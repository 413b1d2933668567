# SPDX-License-Identifier: Apache-2.0
"""The stage of both commands: the shop's surroundings and an Airflow, started side by side."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.local_airflow import LocalAirflow, free_port
from scripts.services import Services, end, find
from scripts.shop import Shop

if TYPE_CHECKING:
    from collections.abc import Callable

CHECKOUT = Path(__file__).resolve().parent.parent
HOME = CHECKOUT / ".airflow"
RECORD = HOME / "running.json"


def services_for(purpose: str, *, record: Path = RECORD) -> Services:
    """A place for this command's processes; what a killed command left behind is ended first.

    :raises SystemExit: another command's processes are running and meant to.
    """
    record.parent.mkdir(parents=True, exist_ok=True)
    found = find(record)
    if found and not found.orphaned:
        where = f" at {found.address}" if found.address else ""
        msg = (
            f"This checkout's Airflow is already running{where} (make {found.purpose}). `make stop` ends it."
        )
        raise SystemExit(msg)
    if found:
        print(f"An earlier `make {found.purpose}` was killed; ending what it left running.", flush=True)
        end(found.processes)
    return Services(record, record.parent / "logs" / "services", purpose)


def set_up(
    services: Services, say: Callable[[str], None], *, port: int | None = None
) -> tuple[Shop, LocalAirflow]:
    """Data, vendors and Airflow, ready; what does not wait for the other runs at the same time.

    :param port: the wanted port, or the next free one above it; any free one when None.
    """
    began = time.perf_counter()
    shop = Shop(services, HOME, CHECKOUT)
    airflow = LocalAirflow(services, HOME, CHECKOUT / "dags", CHECKOUT, free_port(port))
    migration, generation = airflow.migrate(), shop.generate()
    if migration or generation:
        say("First run: writing the shop's data and creating Airflow's database.")
    shop.start(generation)
    airflow.connections = shop.connections()
    airflow.start(migration)
    say(f"Airflow and the shop's vendors are up after {time.perf_counter() - began:.1f} s: {airflow.address}")
    return shop, airflow
