# SPDX-License-Identifier: Apache-2.0
"""Where the workers that share an account meet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk.log import mask_secret

from cdp_provider.core.activation.limits import limits_of
from cdp_provider.core.exceptions import ConfigurationError
from cdp_provider.hooks.connections import find

if TYPE_CHECKING:
    from airflow.sdk import Connection

    from cdp_provider.core.activation.limits import LimitStore
    from cdp_provider.core.warehouse import Warehouse

#: Seconds; a limiter that hangs would hold up every delivery.
_TIMEOUT = 10.0


def limits_for(conn_id: str | None, warehouse: Warehouse) -> LimitStore:
    """Redis, where a connection of that type is named; else the warehouse, or a file beside it.

    Of the connection's extras only ``db``, ``ssl`` and ``ssl_ca_certs`` are read, as Airflow's own Redis hook
    names them.

    :raises NotFoundError: there is no such connection.
    :raises ConfigurationError: it is of another type, wrong, or the extra ``redis`` is not installed.
    """
    return (
        limits_of(warehouse) if conn_id is None else _redis(find(conn_id, ("redis",), "an account's limits"))
    )


def _redis(connection: Connection) -> LimitStore:
    try:
        import redis

        from cdp_provider.core.activation.limits.redis import RedisLimits
    except ImportError as error:
        msg = (
            f"the Airflow connection {connection.conn_id!r} is to keep the accounts' limits, and the package"
            " redis is not installed; install airflow-provider-cdp[redis]"
        )
        raise ConfigurationError(msg) from error
    extra = connection.extra_dejson
    database, ssl = extra.get("db", 0), extra.get("ssl", False)
    if not str(database).isdecimal() or not isinstance(ssl, bool):
        msg = (
            f"the Airflow connection {connection.conn_id!r} has the extras db {database!r} and ssl {ssl!r};"
            " give db as the number of a Redis database, and ssl as true or false"
        )
        raise ConfigurationError(msg)
    if connection.password:
        mask_secret(connection.password)
    return RedisLimits(
        lambda: redis.Redis(
            connection.host or "localhost",
            connection.port or 6379,
            db=int(database),
            username=connection.login or None,
            password=connection.password or None,
            ssl=ssl,
            ssl_ca_certs=extra.get("ssl_ca_certs"),
            socket_timeout=_TIMEOUT,
            socket_connect_timeout=_TIMEOUT,
        )
    )
