# SPDX-License-Identifier: Apache-2.0
"""A real Airflow on this machine: SQLite, LocalExecutor, loopback only, everything below one folder."""

from __future__ import annotations

import json
import socket
import sys
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from scripts.airflow_api import AirflowApi
from scripts.services import Service, Services, clean_environment, wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

HOST = "127.0.0.1"
COMPONENTS = ("metadatabase", "scheduler", "dag_processor", "triggerer")


def free_port(wanted: int | None = None) -> int:
    """A TCP port on the loopback interface: `wanted` or the next free one above it; any when None."""
    candidates = range(wanted, min(wanted + 50, 65536)) if wanted else (0,)
    for port in candidates:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            found: int = probe.getsockname()[1]
            return found
    msg = f"no free port between {candidates[0]} and {candidates[-1]}; name another one with PORT=..."
    raise OSError(msg)


@dataclass
class LocalAirflow:
    """API server, scheduler, DAG processor and triggerer, each a process of `services`.

    :param home: ``AIRFLOW_HOME``: metadata, logs, configuration.
    :param dags: the DAGs folder.
    :param checkout: working directory of all processes.
    :param connections: connection id -> its fields as Airflow's JSON form has them; handed over by the
        environment, so they are never stored.
    """

    services: Services
    home: Path
    dags: Path
    checkout: Path
    port: int
    connections: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """Where UI and API listen."""
        return f"http://{HOST}:{self.port}"

    def migrate(self) -> Service | None:
        """Begin to create or upgrade the metadata database; None when it already fits this Airflow."""
        self.home.mkdir(parents=True, exist_ok=True)
        if self._migrated.is_file() and self._migrated.read_text() == version("apache-airflow-core"):
            return None
        self._migrated.unlink(missing_ok=True)
        return self._start("db-migrate", "db", "migrate")

    def start(self, migration: Service | None, timeout: float = 120) -> None:
        """Start everything and return when every component reports itself healthy.

        :param migration: what :meth:`migrate` returned.
        :raises ServiceError: a component ended, or is not healthy after `timeout` seconds.
        """
        if migration:
            migration.finish(timeout)
            self._migrated.write_text(version("apache-airflow-core"))
        self.services.address = self.address
        server = self._start("api-server", "api-server")
        running = [server, self._start("dag-processor", "dag-processor")]
        # Both serve their logs on all interfaces unless told not to; the API server reads the files anyway.
        running.append(self._start("triggerer", "triggerer", "--skip-serve-logs"))
        with AirflowApi(self.address) as api:
            wait_until(api.reachable, running, timeout, "Airflow's API server")
            # Not earlier: a scheduler that finds queued tasks sends them to an API that does not answer yet,
            # and each of them loses a try.
            running.append(self._start("scheduler", "scheduler", "--skip-serve-logs"))
            # The first call of the task API builds its routes, for seconds; better now than in a task.
            wait_until(lambda: api.reachable("/execution/health"), running, timeout, "Airflow's task API")
            wait_until(lambda: _healthy(api), running, timeout, "Airflow's start")

    @property
    def _migrated(self) -> Path:
        return self.home / "migrated"

    def _start(self, name: str, *arguments: str) -> Service:
        command = [sys.executable, "-m", "airflow", *arguments]
        return self.services.start(name, command, env=self.environment(), cwd=self.checkout)

    def environment(self) -> dict[str, str]:
        """The variables that make any ``airflow`` command speak of this Airflow."""
        settings = {
            "api.base_url": self.address,
            "api.host": HOST,
            "api.port": self.port,
            "core.dags_are_paused_at_creation": False,
            "core.dags_folder": self.dags,
            "core.execution_api_server_url": f"{self.address}/execution/",
            "core.executor": "LocalExecutor",
            "core.load_examples": False,
            "core.parallelism": 8,
            "core.plugins_folder": self.home / "plugins",
            # Whoever reaches the loopback interface is an admin: no password to look up for a trial.
            "core.simple_auth_manager_all_admins": True,
            "dag_processor.bundle_refresh_check_interval": 5,
            "dag_processor.min_file_process_interval": 5,
            "dag_processor.refresh_interval": 5,
            "database.sql_alchemy_conn": f"sqlite:///{self.home / 'airflow.db'}",
            "logging.base_log_folder": self.home / "logs",
            "scheduler.scheduler_idle_sleep_time": 0.2,
            # A task whose process was killed is tried again after this, not after five minutes.
            "scheduler.task_instance_heartbeat_timeout": 20,
            "scheduler.task_instance_heartbeat_timeout_detection_interval": 5,
        }
        variables = {
            f"AIRFLOW__{key.replace('.', '__').upper()}": str(value) for key, value in settings.items()
        }
        connections = {
            f"AIRFLOW_CONN_{name.upper()}": json.dumps(fields) for name, fields in self.connections.items()
        }
        return {**clean_environment(), **variables, **connections, "AIRFLOW_HOME": str(self.home)}


def _healthy(api: AirflowApi) -> bool:
    health = api.health()
    return all(health.get(name) == "healthy" for name in COMPONENTS)
