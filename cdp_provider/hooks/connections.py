# SPDX-License-Identifier: Apache-2.0
"""What all hooks share: finding a connection, and reading an HTTP endpoint out of one."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.sdk.log import mask_secret

from cdp_provider.core.exceptions import ConfigurationError, NotFoundError
from cdp_provider.core.http import Endpoint

if TYPE_CHECKING:
    from collections.abc import Collection

    from airflow.sdk import Connection

AUTH_SCHEMES = ("bearer", "basic", "header")


def find(conn_id: str, types: Collection[str], purpose: str) -> Connection:
    """The Airflow connection `conn_id`.

    :param types: the connection types that will do.
    :param purpose: what it is for, for messages: ``a warehouse``.
    :raises NotFoundError: there is none of that id.
    :raises ConfigurationError: it is of another type.
    """
    try:
        connection = BaseHook.get_connection(conn_id)
    except AirflowNotFoundException as error:
        some_type = next(iter(types))
        msg = (
            f"there is no Airflow connection {conn_id!r}, which is to be {purpose}; add it under Admin >"
            f" Connections, with `airflow connections add {conn_id} --conn-type {some_type} ...` or as the"
            f" environment variable AIRFLOW_CONN_{conn_id.upper()}; its type may be {listed(types)}"
        )
        raise NotFoundError(msg) from error
    if connection.conn_type not in types:
        msg = (
            f"the Airflow connection {conn_id!r} is of type {connection.conn_type!r}, which cannot be"
            f" {purpose}; name a connection of type {listed(types)}"
        )
        raise ConfigurationError(msg)
    return connection


def listed(names: Collection[str]) -> str:
    """``a, b or c``."""
    *head, last = names
    return f"{', '.join(head)} or {last}" if head else last


def endpoint_of(connection: Connection) -> Endpoint:
    """The HTTP endpoint that a connection of type ``http`` or ``cdp_destination`` describes.

    The address is read as Airflow's own ``HttpHook`` reads it: `host` may be a whole URL; else `schema` is
    the protocol (``http`` when empty). A password alone is a bearer token, login and password are basic
    authentication, unless the extra ``auth_scheme`` says otherwise. Of the extras only ``auth_scheme``,
    ``auth_header``, ``headers``, ``verify_tls`` and ``timeout`` (seconds) are read.

    :raises ConfigurationError: the address, an extra or a credential is missing or wrong.
    """
    extra = connection.extra_dejson
    headers = _plain_headers(connection, extra) | _credentials(connection, extra)
    options: dict[str, Any] = {}
    if extra.get("timeout") is not None:
        options["timeout"] = _seconds(connection, extra["timeout"])
    verify = extra.get("verify_tls", True)
    if not isinstance(verify, bool):
        raise _fault(connection, f"extra verify_tls is {verify!r}", "give true or false")
    try:
        return Endpoint(_base_url(connection), headers=headers, verify=verify, **options)
    except ConfigurationError as error:
        msg = f"the Airflow connection {connection.conn_id!r} is wrong: {error}"
        raise ConfigurationError(msg) from error


def _fault(connection: Connection, wrong: str, advice: str) -> ConfigurationError:
    return ConfigurationError(f"the Airflow connection {connection.conn_id!r} is wrong: {wrong}; {advice}")


def _base_url(connection: Connection) -> str:
    host = connection.host
    if not host:
        raise _fault(connection, "it names no host", "put the base URL, https://..., into its host field")
    if "://" in host:
        return host
    port = f":{connection.port}" if connection.port else ""
    return f"{connection.schema or 'http'}://{host}{port}"


def _plain_headers(connection: Connection, extra: dict[str, Any]) -> dict[str, str]:
    headers = extra.get("headers") or {}
    if not isinstance(headers, dict) or not all(isinstance(value, str) for value in headers.values()):
        wrong = "extra headers is no mapping of names to texts"
        raise _fault(connection, wrong, 'write {"X-Tenant": "acme"}')
    return dict(headers)


def _credentials(connection: Connection, extra: dict[str, Any]) -> dict[str, str]:
    login, password = connection.login, connection.password
    scheme = extra.get("auth_scheme") or ("basic" if login else "bearer")
    if scheme not in AUTH_SCHEMES:
        raise _fault(connection, f"extra auth_scheme is {scheme!r}", f"use {listed(AUTH_SCHEMES)}")
    if not password and not login:
        return {}
    if not password:
        raise _fault(connection, "it has a login and no password", "fill in the password")
    if scheme == "basic":
        value = "Basic " + base64.b64encode(f"{login or ''}:{password}".encode()).decode()
        mask_secret(value.removeprefix("Basic "))
        return {"Authorization": value}
    mask_secret(password)
    if scheme == "header":
        return {str(extra.get("auth_header") or "X-API-Key"): password}
    return {"Authorization": f"Bearer {password}"}


def _seconds(connection: Connection, value: Any) -> float:
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = 0.0
    if seconds <= 0:
        raise _fault(connection, f"extra timeout is {value!r}", "give seconds, as a number above 0")
    return seconds
