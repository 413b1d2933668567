# SPDX-License-Identifier: Apache-2.0
"""What all hooks share: finding a connection, and reading an HTTP endpoint out of one."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.sdk.log import mask_secret

from cdp_provider.core.auth import Auth
from cdp_provider.core.exceptions import ConfigurationError, NotFoundError
from cdp_provider.core.http import Endpoint
from cdp_provider.core.oauth import ClientCredentials, RefreshToken

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from airflow.sdk import Connection

    from cdp_provider.core.http import Credentials

AUTH_SCHEMES = ("bearer", "basic", "header", "client_credentials", "refresh_token")


def find(conn_id: str, types: Collection[str], purpose: str) -> Connection:
    """The Airflow connection `conn_id`.

    :param types: the connection types that will do; none: all.
    :param purpose: what it is for, for messages: ``a warehouse``.
    :raises NotFoundError: there is none of that id.
    :raises ConfigurationError: it is of another type.
    """
    try:
        connection = BaseHook.get_connection(conn_id)
    except AirflowNotFoundException as error:
        some_type = next(iter(types), "...")
        allowed = f"; its type may be {listed(types)}" if types else ""
        msg = (
            f"there is no Airflow connection {conn_id!r}, which is to be {purpose}; add it under Admin >"
            f" Connections, with `airflow connections add {conn_id} --conn-type {some_type} ...` or as the"
            f" environment variable AIRFLOW_CONN_{conn_id.upper()}{allowed}"
        )
        raise NotFoundError(msg) from error
    if types and connection.conn_type not in types:
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


def endpoint_of(
    connection: Connection,
    *,
    auth: Auth | None = None,
    headers: Mapping[str, str] | None = None,
    base_url: str | None = None,
) -> Endpoint:
    """The HTTP endpoint that a connection of type ``http`` or ``cdp_destination`` describes.

    The address is read as Airflow's own ``HttpHook`` reads it: `host` may be a whole URL; else `schema` is
    the protocol (``http`` when empty). The extra ``auth_scheme`` says how login and password travel; without
    it `auth` does; else a password alone is a bearer token, and login and password are basic authentication.
    Of the extras only ``auth_scheme``, ``auth_header``, ``auth_prefix``, ``token_url``, ``token_auth``,
    ``scope``, ``refresh_token``, ``headers``, ``verify_tls``, ``timeout`` (seconds) and ``proxy`` are read.

    :param auth: what the vendor wants.
    :param headers: what the vendor wants in every request; the connection's own win.
    :param base_url: for a connection without a host.
    :raises ConfigurationError: the address, an extra or a credential is missing or wrong.
    """
    extra = connection.extra_dejson
    options = _options(connection, extra)
    url = _base_url(connection, base_url)
    plain = {**(headers or {}), **_plain_headers(connection, extra)}
    scheme = extra.get("auth_scheme") or (auth.scheme if auth else "basic" if connection.login else "bearer")
    if scheme not in AUTH_SCHEMES:
        raise _fault(connection, f"extra auth_scheme is {scheme!r}", f"use {listed(AUTH_SCHEMES)}")
    if scheme in ("client_credentials", "refresh_token"):
        options["credentials"] = _oauth(connection, extra, scheme, _endpoint(connection, url, **options))
    else:
        plain |= _secret_headers(connection, extra, scheme, auth or Auth())
    return _endpoint(connection, url, headers=plain, **options)


def _endpoint(connection: Connection, url: str, **options: Any) -> Endpoint:
    try:
        return Endpoint(url, **options)
    except ConfigurationError as error:
        msg = f"the Airflow connection {connection.conn_id!r} is wrong: {error}"
        raise ConfigurationError(msg) from error


def _options(connection: Connection, extra: dict[str, Any]) -> dict[str, Any]:
    verify = extra.get("verify_tls", True)
    if not isinstance(verify, bool):
        raise _fault(connection, f"extra verify_tls is {verify!r}", "give true or false")
    options: dict[str, Any] = {"verify": verify}
    if extra.get("timeout") is not None:
        options["timeout"] = _seconds(connection, extra["timeout"])
    if proxy := extra.get("proxy"):
        options["proxy"] = str(proxy)
        if password := urlsplit(str(proxy)).password:
            mask_secret(password)
    return options


def _fault(connection: Connection, wrong: str, advice: str) -> ConfigurationError:
    return ConfigurationError(f"the Airflow connection {connection.conn_id!r} is wrong: {wrong}; {advice}")


def _base_url(connection: Connection, default: str | None) -> str:
    host = connection.host or default
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


def _secret_headers(connection: Connection, extra: dict[str, Any], scheme: str, auth: Auth) -> dict[str, str]:
    """Login and password as headers; masked in logs."""
    login, password = connection.login, connection.password
    if not password and not login:
        return {}
    if not password:
        raise _fault(connection, "it has a login and no password", "fill in the password")
    mask_secret(password)
    if scheme == "basic":
        pair = base64.b64encode(f"{login or auth.login}:{password}".encode()).decode()
        mask_secret(pair)
        return {"Authorization": f"Basic {pair}"}
    if scheme == "bearer":
        return {"Authorization": f"Bearer {password}"}
    vendors = auth if auth.scheme == "header" else Auth("header", "X-API-Key")
    prefix = extra.get("auth_prefix", "" if extra.get("auth_header") else vendors.prefix)
    return {str(extra.get("auth_header") or vendors.header): f"{prefix or ''}{password}"}


def _oauth(connection: Connection, extra: dict[str, Any], scheme: str, endpoint: Endpoint) -> Credentials:
    """Tokens from ``token_url``: an address, or a path below the base URL."""
    place, sends = extra.get("token_url"), extra.get("token_auth") or "header"
    if not connection.login or not connection.password:
        wrong = "it lacks the client id (login) or the client secret (password)"
        raise _fault(connection, wrong, "fill in both")
    if not isinstance(place, str) or not place:
        raise _fault(connection, f"auth_scheme {scheme} needs the extra token_url", "add it")
    if sends not in ("header", "body"):
        raise _fault(connection, f"extra token_auth is {sends!r}", "use header or body")
    mask_secret(connection.password)
    if "://" in place:
        parts = urlsplit(place)
        options = {"verify": endpoint.verify, "timeout": endpoint.timeout, "proxy": endpoint.proxy}
        endpoint = _endpoint(connection, f"{parts.scheme}://{parts.netloc}", **options)
    more: dict[str, Any] = {"scope": extra.get("scope") or None, "sends": sends, "learned": mask_secret}
    client = (endpoint, place, connection.login, connection.password)
    if scheme == "client_credentials":
        return ClientCredentials(*client, **more)
    token = extra.get("refresh_token")
    if not isinstance(token, str) or not token:
        raise _fault(connection, "auth_scheme refresh_token needs the extra refresh_token", "add it")
    mask_secret(token)
    return RefreshToken(*client, token, **more)


def _seconds(connection: Connection, value: Any) -> float:
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = 0.0
    if seconds <= 0:
        raise _fault(connection, f"extra timeout is {value!r}", "give seconds, as a number above 0")
    return seconds
