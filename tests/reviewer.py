# SPDX-License-Identifier: Apache-2.0
"""A person who answers, through Airflow's API, what a task asks."""

from __future__ import annotations

import threading
from typing import Any

_PATIENCE = 120.0


class Reviewer(threading.Thread):
    """Waits until a task asks, and answers as the web page does; from ``start()`` to ``leave()``.

    :param answer: "Approve" or "Reject".
    """

    def __init__(self, dag_id: str, task_id: str, answer: str) -> None:
        super().__init__(daemon=True)
        self._dag_id = dag_id
        self._task_id = task_id
        self._answer = answer
        self._over = threading.Event()
        self.asked: list[dict[str, Any]] = []
        self.failure: str | None = None

    def run(self) -> None:
        from airflow.api_fastapi.app import create_app
        from fastapi.testclient import TestClient

        with TestClient(create_app(apps="core"), headers=_token()) as client:
            address = f"/api/v2/dags/{self._dag_id}/dagRuns"
            while not self._over.wait(0.5):
                found = client.get(f"{address}/~/hitlDetails?response_received=false")
                for detail in found.json().get("hitl_details", []):
                    self._give(client, address, detail)

    def _give(self, client: Any, address: str, detail: dict[str, Any]) -> None:
        self.asked.append(detail)
        run = detail["task_instance"]["dag_run_id"]
        answered = client.patch(
            f"{address}/{run}/taskInstances/{self._task_id}/-1/hitlDetails",
            json={"chosen_options": [self._answer], "params_input": {}},
        )
        if answered.status_code != 200:
            self.failure = answered.text

    def leave(self) -> None:
        self._over.set()
        self.join(_PATIENCE)
        assert self.failure is None, self.failure


def _token() -> dict[str, str]:
    from airflow.api_fastapi.app import create_auth_manager
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

    manager = create_auth_manager()
    manager.init()
    token = manager.generate_jwt(SimpleAuthManagerUser(username="jo", role="admin"))
    return {"Authorization": f"Bearer {token}"}
