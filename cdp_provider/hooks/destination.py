# SPDX-License-Identifier: Apache-2.0
"""Where a sync delivers to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import BaseHook

from cdp_provider.core.exceptions import CdpError
from cdp_provider.core.http import HttpClient
from cdp_provider.hooks.connections import endpoint_of, find

if TYPE_CHECKING:
    from cdp_provider.core.http import Endpoint


class DestinationHook(BaseHook):
    """Turns a connection of type ``cdp_destination`` or ``http`` into an HTTP endpoint.

    :param destination_conn_id: base URL in `host`, token in `password`.
    """

    conn_name_attr = "destination_conn_id"
    default_conn_name = "cdp_destination_default"
    conn_type = "cdp_destination"
    hook_name = "CDP destination"

    def __init__(self, destination_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.destination_conn_id = destination_conn_id

    @property
    def endpoint(self) -> Endpoint:
        """The API, with its credentials in headers that no ``repr`` shows.

        :raises ConfigurationError: there is no such connection, or it does not describe an API.
        """
        return endpoint_of(find(self.destination_conn_id, (self.conn_type, "http"), "a destination"))

    def test_connection(self) -> tuple[bool, str]:
        """Whether the base URL answers, and does not refuse the credentials. For Airflow's UI."""
        try:
            with HttpClient(self.endpoint) as client:
                answer = client.send("GET", "/")
        except CdpError as error:
            return False, str(error)
        if answer.status in (401, 403):
            return False, f"the destination answers, but refuses the credentials ({answer.status})"
        return True, f"the destination answers ({answer.status})"
