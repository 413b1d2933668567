# SPDX-License-Identifier: Apache-2.0
"""The folder behind a connection: a path on this worker, or an address in an object storage."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from cdp_provider.core.exceptions import ConfigurationError, NotFoundError
from cdp_provider.hooks.connections import listed

if TYPE_CHECKING:
    from airflow.sdk import Connection


class _Store(NamedTuple):
    """How a type of connection opens addresses.

    :param schemes: of the addresses that its provider's file system opens.
    :param package: what brings that file system, with everything it needs.
    :param module: the library that the provider imports only then.
    """

    schemes: tuple[str, ...]
    package: str
    module: str


_AZURE = _Store(("abfs", "abfss", "adl"), "apache-airflow-providers-microsoft-azure", "adlfs")
_SSH = _Store(("sftp", "ssh"), "apache-airflow-providers-sftp[sshfs]", "sshfs")

#: Airflow connection type -> what opens its addresses. Other types open what their providers register.
_STORES = {
    "aws": _Store(("s3", "s3a", "s3n"), "apache-airflow-providers-amazon[s3fs]", "s3fs"),
    "google_cloud_platform": _Store(("gs", "gcs"), "apache-airflow-providers-google", "gcsfs"),
    "wasb": _AZURE,
    "adls": _AZURE,
    "sftp": _SSH,
    "ssh": _SSH,
}
_LOCAL = ("fs", "file")


def folder_of(connection: Connection) -> Any:
    """The folder that the extra ``path`` of a connection names: an address such as ``s3://bucket/folder``,
    opened by the provider of the connection's type; for the types ``fs`` and ``file`` a path on this worker.

    :returns: a ``pathlib.Path`` or ``ObjectStoragePath``, or what is as much of one as
        :class:`~cdp_provider.core.ingest.folder.Folder` needs.
    :raises ConfigurationError: it names none, or the provider is not installed.
    :raises NotFoundError: there is no such folder on this worker.
    """
    kind, named = str(connection.conn_type), connection.extra_dejson.get("path")
    store = _STORES.get(kind)
    whose = f"the Airflow connection {connection.conn_id!r}"
    example = f"{store.schemes[0]}://bucket/folder" if store and store is not _SSH else "/the/folder"
    if not isinstance(named, str) or not named:
        msg = f'{whose} names no folder; set its extra to {{"path": "{example}"}}'
        raise ConfigurationError(msg)
    if kind in _LOCAL and "://" not in named:
        return local_folder(named, whose)
    address = f"sftp://{named}" if store is _SSH and named.startswith("/") else named
    scheme, host = urlsplit(address)[:2]
    if kind in _LOCAL or (store is None and not scheme):
        msg = (
            f"{whose} is of type {kind!r}, which opens no {named!r}; use type fs for a folder on the workers,"
            f" or that of the storage: {listed(tuple(_STORES))}"
        )
        raise ConfigurationError(msg)
    # A bucket has no user, and a server's name is in the connection.
    fits = host in ("", connection.host) if store is _SSH else "@" not in host
    if (store and scheme not in store.schemes) or not fits:
        msg = f"{whose} of type {kind} names {named!r}; write an address such as {example!r}"
        raise ConfigurationError(msg)
    return _opened(store, address, connection)


def local_folder(named: str, whose: str) -> Path:
    """A folder on this worker.

    :param whose: who names it, for messages.
    :raises NotFoundError: it is not there.
    """
    folder = Path(named)
    if not folder.is_dir():
        msg = f"the folder {named!r} of {whose} does not exist on this worker; create or mount it"
        raise NotFoundError(msg)
    return folder


def _opened(store: _Store | None, address: str, connection: Connection) -> Any:
    from airflow.sdk import ObjectStoragePath
    from airflow.sdk.io import has_fs

    scheme, _, path = urlsplit(address)[:3]
    if not has_fs(scheme) or (store and find_spec(store.module) is None):
        advice = f"pip install '{store.package}'" if store else "install the one that does"
        msg = (
            f"no installed provider opens {scheme}://, which the Airflow connection {connection.conn_id!r}"
            f" names; {advice}"
        )
        raise ConfigurationError(msg)
    if store is _SSH:
        return _Server(connection.conn_id, path)
    return ObjectStoragePath(address, conn_id=connection.conn_id)


@dataclass(frozen=True)
class _Server:
    """A folder of an SSH server, connected to anew by each that asks: Airflow and fsspec would keep one
    connection per process, and once it is cut a triggerer would look into nothing until it is restarted.
    """

    conn_id: str
    path: str
    protocol: str = "sftp"

    @property
    def fs(self) -> Any:
        from airflow.sdk.io import get_fs

        anew: dict[str, Any] = {"skip_instance_cache": True}
        return get_fs(self.protocol, self.conn_id, anew)
