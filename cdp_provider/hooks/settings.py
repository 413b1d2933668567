# SPDX-License-Identifier: Apache-2.0
"""Everything that a connection of any type holds, for programs that understand it."""

from __future__ import annotations

from pathlib import Path

from airflow.sdk.log import mask_secret

from cdp_provider.core.ingest.program import Settings
from cdp_provider.hooks.connections import find

_FIELDS = ("host", "port", "schema", "login", "password")


def settings_of(conn_id: str | None, root: str | None) -> Settings:
    """The fields and the extra of a connection; its password and the extra's texts are masked in logs.

    :param root: the project's folder.
    :raises NotFoundError: there is no such connection.
    """
    folder = Path(root) if root else None
    if conn_id is None:
        return Settings(folder=folder)
    connection = find(conn_id, (), "that of a program")
    fields = {name: getattr(connection, name) for name in _FIELDS}
    settings = Settings(
        {name: value for name, value in fields.items() if value not in (None, "")},
        connection.extra_dejson,
        folder,
    )
    for secret in settings.secrets():
        mask_secret(secret)
    return settings
