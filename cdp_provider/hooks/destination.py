# SPDX-License-Identifier: Apache-2.0
"""Where a sync delivers to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook

from cdp_provider.core.exceptions import CdpError, ConfigurationError, NotFoundError
from cdp_provider.core.http import HttpClient
from cdp_provider.hooks.connections import endpoint_of, find
from cdp_provider.hooks.google import endpoint_of_google
from cdp_provider.hooks.warehouse import opener_of_postgres

if TYPE_CHECKING:
    from airflow.sdk import Connection

    from cdp_provider.core.activation.destinations import DestinationKind
    from cdp_provider.core.http import Endpoint

_GOOGLE = "google_cloud_platform"

#: Airflow connection type -> schemes of the addresses that its provider's file system opens.
_STORES = {
    "aws": ("s3", "s3a", "s3n"),
    _GOOGLE: ("gs", "gcs"),
    "wasb": ("abfs", "abfss", "adl"),
    "adls": ("abfs", "abfss", "adl"),
}


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


def folder_of(connection: Connection) -> Any:
    """The folder that the extra ``path`` of a connection names: an address such as ``s3://bucket/folder``,
    opened by the provider of the connection's type; for the types ``fs`` and ``file`` a path on this worker.

    :raises ConfigurationError: it names none, or the provider is not installed.
    :raises NotFoundError: there is no such folder on this worker.
    """
    named = connection.extra_dejson.get("path")
    schemes = _STORES.get(str(connection.conn_type), ())
    example = f"{schemes[0]}://bucket/folder" if schemes else "/the/folder"
    whose = f"the Airflow connection {connection.conn_id!r}"
    if not isinstance(named, str) or not named:
        msg = f'{whose} names no folder; set its extra to {{"path": "{example}"}}'
        raise ConfigurationError(msg)
    if not schemes:
        if not Path(named).is_dir():
            msg = f"the folder {named!r} of {whose} does not exist on this worker; create or mount it"
            raise NotFoundError(msg)
        return Path(named)
    scheme = named.partition("://")[0]
    if scheme not in schemes:
        msg = f"{whose} of type {connection.conn_type} names {named!r}; write an address such as {example!r}"
        raise ConfigurationError(msg)
    from airflow.sdk import ObjectStoragePath
    from airflow.sdk.io import has_fs

    if not has_fs(scheme):
        msg = f"no installed provider opens {scheme}://, which {whose} names; install the one of its type"
        raise ConfigurationError(msg)
    return ObjectStoragePath(named, conn_id=connection.conn_id)
