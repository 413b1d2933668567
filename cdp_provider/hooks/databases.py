# SPDX-License-Identifier: Apache-2.0
"""Databases behind Airflow connections."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk.exceptions import AirflowException

from cdp_provider.core.exceptions import ConfigurationError
from cdp_provider.core.ingest.sql import Database
from cdp_provider.hooks.warehouse import opener_of_postgres

if TYPE_CHECKING:
    from airflow.sdk import Connection


def database_of(connection: Connection) -> Database:
    """What a connection of any type whose hook is a ``DbApiHook`` leads to; opened by that hook.

    :raises ConfigurationError: its type is unknown or no database's, or its provider is not installed.
    """
    if connection.conn_type == "postgres":
        return Database("postgresql", opener_of_postgres(connection))
    from airflow.providers.common.sql.hooks.sql import DbApiHook

    try:
        hook: object = connection.get_hook()  # type: ignore[no-untyped-call]
    except (AirflowException, ImportError) as error:
        msg = (
            f"no installed provider opens the Airflow connection {connection.conn_id!r} of type"
            f" {connection.conn_type!r}; install the one of its type, or correct the type"
        )
        raise ConfigurationError(msg) from error
    if not isinstance(hook, DbApiHook):
        msg = (
            f"the Airflow connection {connection.conn_id!r} is of type {connection.conn_type!r}, which is no"
            " database; name a connection to one, such as postgres, mysql or sqlite"
        )
        raise ConfigurationError(msg)
    return Database(str(connection.conn_type), hook.get_conn)
