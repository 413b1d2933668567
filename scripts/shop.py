# SPDX-License-Identifier: Apache-2.0
"""The example shop's surroundings: its data, the vendors it talks to, the connections to them."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx

from scripts.services import Service, Services, clean_environment, wait_until

if TYPE_CHECKING:
    from pathlib import Path


@dataclass
class Shop:
    """What surrounds the DAG ``shop``, below `home`; the vendors are one stand-in process of `services`.

    The stand-in keeps its state in a file, so it remembers an earlier run's deliveries.
    """

    services: Services
    home: Path
    checkout: Path
    vendor: str | None = None

    @property
    def data(self) -> Path:
        """Folder of the files that the sources read."""
        return self.home / "data"

    @property
    def warehouse(self) -> Path:
        """The DuckDB file that the DAG works in."""
        return self.home / "shop.duckdb"

    def generate(self) -> Service | None:
        """Begin to write the data; None when it is there and no older than what generates it."""
        generator = self.checkout / "cdp_provider" / "testing" / "shop"
        newest = max(path.stat().st_mtime for path in generator.glob("*.py"))
        if self._written.is_file() and self._written.stat().st_mtime > newest:
            return None
        return self._start("shop-data", "cdp_provider.testing.shop", str(self.data))

    def start(self, generation: Service | None, timeout: float = 60) -> None:
        """Start the stand-in for the vendors; :attr:`vendor` is its address from then on.

        :param generation: what :meth:`generate` returned.
        :raises ServiceError: the data could not be written, or the stand-in did not start.
        """
        if generation:
            generation.finish(timeout)
            self._written.touch()
        state = self.home / "vendor.sqlite"
        arguments = ["--port", "0", "--state", str(state), "--data", str(self.data)]
        service = self._start("vendor", "cdp_provider.testing.vendor", *arguments)
        listening = re.compile(r"listening on (http://\S+)")
        found = wait_until(
            lambda: listening.search(service.log.read_text()), [service], timeout, "the stand-in's start"
        )
        self.vendor = found.group(1)

    def connections(self) -> dict[str, dict[str, Any]]:
        """Airflow's connections to the warehouse, the files and the stand-in.

        The tokens are the stand-in's public ones; a real vendor's belong into Airflow's own connections.
        """
        return {
            "cdp_warehouse": {"conn_type": "duckdb", "host": str(self.warehouse)},
            "shop_files": {"conn_type": "fs", "extra": {"path": str(self.data)}},
            "shop_crm": {"conn_type": "http", "host": self.vendor, "password": "shop-crm-token"},
            "shop_crm_writeback": {
                "conn_type": "cdp_destination",
                "host": self.vendor,
                "password": "shop-crm-token",
            },
            "shop_mail": {"conn_type": "cdp_destination", "host": self.vendor, "password": "shop-mail-token"},
        }

    def doubled(self) -> int:
        """How many writes the vendors saw twice in a row for the same record, by their own records."""
        answer = httpx.get(f"{self.vendor}/_/state", timeout=60, trust_env=False)
        return len(answer.raise_for_status().json()["doubled"])

    @property
    def _written(self) -> Path:
        """Marks by its age what the data was written with; the data's own files keep theirs if unchanged."""
        return self.home / "data-written"

    def _start(self, name: str, module: str, *arguments: str) -> Service:
        command = [sys.executable, "-m", module, *arguments]
        return self.services.start(name, command, env=clean_environment(), cwd=self.checkout)
