# SPDX-License-Identifier: Apache-2.0
"""Where a source's rows are fetched from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook

from cdp_provider.core.exceptions import ConfigurationError
from cdp_provider.core.ingest import CONNECTORS
from cdp_provider.hooks.connections import endpoint_of, find
from cdp_provider.hooks.databases import database_of
from cdp_provider.hooks.folders import folder_of, local_folder
from cdp_provider.hooks.kafka import kafka_config
from cdp_provider.hooks.settings import settings_of

if TYPE_CHECKING:
    from cdp_provider.core.http import Endpoint
    from cdp_provider.core.ingest.base import Connector
    from cdp_provider.core.ingest.program import Settings
    from cdp_provider.core.ingest.sql import Database
    from cdp_provider.core.project.streams import Stream
    from cdp_provider.core.warehouse import Warehouse


class SourceHook(BaseHook):
    """Turns a connection into the connector that reads a stream.

    :param source_conn_id: of type ``http`` for an API, ``fs``, ``file`` or that of an object storage (extra
        ``path``) for files; None for files below `root`.
    :param root: folder that stands in for a missing connection: the project's own.
    :param home: the warehouse that is landed in, for sources that lie in it.
    """

    conn_name_attr = "source_conn_id"

    def __init__(
        self,
        source_conn_id: str | None = None,
        *,
        root: str | None = None,
        home: Warehouse | None = None,
    ) -> None:
        super().__init__()
        self.source_conn_id = source_conn_id
        self.root = root
        self.home = home

    @property
    def warehouse(self) -> Warehouse:
        """The warehouse that is landed in.

        :raises ConfigurationError: the hook was made without one.
        """
        if self.home is None:
            msg = "this source lies in the warehouse; give SourceHook the warehouse as `home`"
            raise ConfigurationError(msg)
        return self.home

    @property
    def endpoint(self) -> Endpoint:
        """The API behind an ``http`` connection.

        :raises ConfigurationError: there is no such connection, or it does not describe one.
        """
        if self.source_conn_id is None:
            msg = "an HTTP source needs a connection of type http; name one under connection (source_conn_id)"
            raise ConfigurationError(msg)
        return endpoint_of(find(self.source_conn_id, ("http",), "an HTTP source"))

    @property
    def database(self) -> Database:
        """The database behind a connection of any type whose hook is a ``DbApiHook``.

        :raises ConfigurationError: there is no such connection, or it leads to no database.
        """
        if self.source_conn_id is None:
            msg = "a source of type sql needs a connection to a database; name one under connection"
            raise ConfigurationError(msg)
        return database_of(find(self.source_conn_id, (), "a database"))

    @property
    def kafka(self) -> dict[str, Any]:
        """The client's settings in a connection of type ``kafka``.

        :raises ConfigurationError: there is no such connection, it names no brokers, or Airflow's provider
            for Kafka is not installed.
        """
        if self.source_conn_id is None:
            msg = "a source of type kafka needs a connection of that type; name one under connection"
            raise ConfigurationError(msg)
        return kafka_config(self.source_conn_id)

    @property
    def settings(self) -> Settings:
        """What a connection of any type holds, and the project's folder; nothing of it without a connection.

        :raises ConfigurationError: there is no such connection.
        """
        return settings_of(self.source_conn_id, self.root)

    @property
    def folder(self) -> Any:
        """The folder below which a source's files lie: a ``pathlib.Path``, or an ``ObjectStoragePath`` where
        the connection names an address such as ``s3://bucket/folder``.

        :raises ConfigurationError: neither the connection nor the project says which, or the provider that
            opens it is not installed.
        :raises NotFoundError: there is no such folder.
        """
        if self.source_conn_id is not None:
            return folder_of(find(self.source_conn_id, (), "a source of files"))
        if not self.root:
            msg = (
                "a source of files needs a folder, and the project names none; name a connection of type fs"
                ' whose extra is {"path": "/the/folder"}'
            )
            raise ConfigurationError(msg)
        return local_folder(self.root, "the project")

    def connector(self, stream: Stream) -> Connector:
        """The connector that understands the stream's options."""
        options = type(stream.options)
        # The one that its options lie next to is looked at first: others need not be imported.
        names = sorted(CONNECTORS, key=lambda name: name not in options.__module__)
        kind: Any = next((CONNECTORS[name] for name in names if CONNECTORS[name].options is options), None)
        if kind is None:
            msg = (
                f"no connector reads the stream {stream.ref}, whose options are"
                f" {type(stream.options).__name__}; there are {', '.join(CONNECTORS)}"
            )
            raise ConfigurationError(msg)
        connector: Connector = kind(getattr(self, kind.reaches))
        return connector
