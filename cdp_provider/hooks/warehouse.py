# SPDX-License-Identifier: Apache-2.0
"""The warehouse behind an Airflow connection."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook

from cdp_provider.core.exceptions import ConfigurationError, NotFoundError
from cdp_provider.core.warehouse import ENGINES, DuckDBWarehouse
from cdp_provider.hooks.connections import find

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.sdk import Connection

    from cdp_provider.core.warehouse import Warehouse


class WarehouseHook(BaseHook):
    """Turns a connection of type ``duckdb`` or ``postgres`` into a warehouse.

    Connections are opened by Airflow's own hooks, so whatever those understand (extras, IAM, MotherDuck)
    works here too.

    :param warehouse_conn_id: its type picks the engine.
    :param schema: schema that holds everything of the product.
    :param lock_timeout: seconds to wait for another process that holds the warehouse.
    """

    conn_name_attr = "warehouse_conn_id"

    def __init__(self, warehouse_conn_id: str, *, schema: str = "cdp", lock_timeout: float = 120.0) -> None:
        super().__init__()
        self.warehouse_conn_id = warehouse_conn_id
        self.schema = schema
        self.lock_timeout = lock_timeout
        self._opened: list[Any] = []

    @cached_property
    def warehouse(self) -> Warehouse:
        """The warehouse; nothing is connected before one of its sessions begins.

        :raises NotFoundError: there is no such connection.
        :raises ConfigurationError: it is of a type without an engine, or not fit to be a warehouse.
        """
        connection = find(self.warehouse_conn_id, tuple(ENGINES), "a warehouse")
        engine = ENGINES[str(connection.conn_type)]
        connect = _duckdb(connection) if engine is DuckDBWarehouse else opener_of_postgres(connection)
        remembered = self._remembered(connect, engine.single_process)
        return engine(remembered, schema=self.schema, lock_timeout=self.lock_timeout)

    def get_conn(self) -> Any:
        """A driver connection of the engine, as Airflow's hook opens it."""
        return self.warehouse.connect()

    def cancel(self) -> None:
        """End the statements that run right now, at the server too. For ``on_kill``."""
        for connection in self._opened:
            if isinstance(self.warehouse, DuckDBWarehouse):
                connection.interrupt()
            elif not connection.closed:
                connection.cancel_safe(timeout=5.0)

    def _remembered(self, connect: Callable[[], Any], single: bool) -> Callable[[], Any]:
        def remember() -> Any:
            opened = connect()
            others = [] if single else [other for other in self._opened if not other.closed]
            self._opened = [*others, opened]
            return opened

        return remember


def _duckdb(connection: Connection) -> Callable[[], Any]:
    from airflow.providers.duckdb.hooks.duckdb import IN_MEMORY_DATABASE, DuckDBHook

    hook = DuckDBHook(duckdb_conn_id=connection.conn_id)
    database = hook.get_database()
    if database == IN_MEMORY_DATABASE:
        msg = (
            f"the Airflow connection {connection.conn_id!r} names no database file; an in-memory DuckDB ends"
            " with the task that opened it, so put a path into its host field"
        )
        raise ConfigurationError(msg)
    if "://" not in database and not database.startswith("md:") and not Path(database).parent.is_dir():
        msg = (
            f"the folder of the DuckDB file {database!r} (connection {connection.conn_id!r}) does not exist;"
            " create it, or correct the connection's host"
        )
        raise NotFoundError(msg)
    return hook.get_conn


def opener_of_postgres(connection: Connection) -> Callable[[], Any]:
    """What opens a psycopg 3 connection, whose rows are tuples, as Airflow's own hook does.

    :raises ConfigurationError: Airflow would use psycopg 2.
    """
    from airflow.providers.postgres.hooks.postgres import USE_PSYCOPG3, PostgresHook

    if not USE_PSYCOPG3:
        msg = (
            f"the Airflow connection {connection.conn_id!r} would be opened with psycopg2, and"
            " psycopg 3 is needed: install psycopg[binary]>=3.2 and SQLAlchemy 2"
        )
        raise ConfigurationError(msg)
    from psycopg.rows import tuple_row

    hook = PostgresHook(postgres_conn_id=connection.conn_id)

    def connect() -> Any:
        opened: Any = hook.get_conn()
        opened.row_factory = tuple_row  # the extra "cursor" may ask for another
        return opened

    return connect
