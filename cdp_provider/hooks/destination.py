# SPDX-License-Identifier: Apache-2.0
"""Where a sync delivers to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook

from cdp_provider.core.exceptions import CdpError
from cdp_provider.core.http import HttpClient
from cdp_provider.hooks.connections import endpoint_of, find
from cdp_provider.hooks.folders import folder_of
from cdp_provider.hooks.google import endpoint_of_google
from cdp_provider.hooks.warehouse import opener_of_postgres

if TYPE_CHECKING:
    from airflow.sdk import Connection

    from cdp_provider.core.activation.destinations import DestinationKind
    from cdp_provider.core.http import Endpoint

_GOOGLE = "google_cloud_platform"


class DestinationHook(BaseHook):
    """Turns a connection into what a kind of destination speaks to.

    :param destination_conn_id: of type ``cdp_destination``, or one that the kind names. For an API: base URL
        in `host`, token in `password`.
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
        return endpoint_of(self._find("http"))

    def target(self, kind: type[DestinationKind]) -> Any:
        """What :attr:`~cdp_provider.core.activation.destinations.base.DestinationKind.transport` says: an
        ``Endpoint``, a callable that opens a psycopg connection, or an object like ``pathlib.Path``.

        :raises ConfigurationError: the connection is missing or wrong, or of a type that the kind cannot use.
        """
        if kind.transport == "sql":
            connection = find(self.destination_conn_id, kind.connection_types, "a destination of rows")
            return opener_of_postgres(connection)
        if kind.transport == "files":
            return folder_of(find(self.destination_conn_id, kind.connection_types, "a destination of files"))
        connection = self._find(*kind.connection_types)
        if connection.conn_type == _GOOGLE:
            return endpoint_of_google(connection, headers=kind.headers, base_url=kind.base_url)
        # A bearer token is what is assumed of those that say nothing, and login and password mean basic then.
        auth = None if kind.auth == type(kind.auth)() else kind.auth
        return endpoint_of(connection, auth=auth, headers=kind.headers, base_url=kind.base_url)

    def _find(self, *types: str) -> Connection:
        return find(self.destination_conn_id, (self.conn_type, *types), "a destination")

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
