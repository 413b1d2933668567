# SPDX-License-Identifier: Apache-2.0
"""Where a source's rows are fetched from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook

from cdp_provider.core.exceptions import ConfigurationError, NotFoundError
from cdp_provider.core.ingest import CONNECTORS
from cdp_provider.hooks.connections import endpoint_of, find

if TYPE_CHECKING:
    from cdp_provider.core.http import Endpoint
    from cdp_provider.core.ingest.base import Connector
    from cdp_provider.core.project.streams import Stream
    from cdp_provider.core.warehouse import Warehouse


class SourceHook(BaseHook):
    """Turns a connection into the connector that reads a stream.

    :param source_conn_id: of type ``http`` for an API, ``fs`` or ``file`` (extra ``path``) for files; None
        for files below `root`.
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
    def folder(self) -> Path:
        """The folder below which a source's files lie.

        :raises ConfigurationError: neither the connection nor the project says which.
        :raises NotFoundError: there is no such folder.
        """
        if self.source_conn_id is None:
            named, whose = self.root, "the project"
        else:
            connection = find(self.source_conn_id, ("fs", "file"), "a source of files")
            named, whose = connection.extra_dejson.get("path"), f"connection {self.source_conn_id!r}"
        if not named:
            msg = (
                f"a source of files needs a folder, and {whose} names none; name a connection of type fs"
                ' whose extra is {"path": "/the/folder"}'
            )
            raise ConfigurationError(msg)
        folder = Path(named)
        if not folder.is_dir():
            msg = f"the folder {named!r} ({whose}) does not exist on this worker; create or mount it"
            raise NotFoundError(msg)
        return folder

    def connector(self, stream: Stream) -> Connector:
        """The connector that understands the stream's options."""
        kind: Any = next((k for k in CONNECTORS.values() if isinstance(stream.options, k.options)), None)
        if kind is None:
            msg = (
                f"no connector reads the stream {stream.ref}, whose options are"
                f" {type(stream.options).__name__}; there are {', '.join(CONNECTORS)}"
            )
            raise ConfigurationError(msg)
        connector: Connector = kind(getattr(self, kind.reaches))
        return connector
