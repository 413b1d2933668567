# SPDX-License-Identifier: Apache-2.0
"""Tokens for Google's APIs, from connections of Airflow's Google provider."""

from __future__ import annotations

import threading
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from airflow.sdk.log import mask_secret

from cdp_provider.core.exceptions import AccessError, ConfigurationError
from cdp_provider.core.http import Endpoint

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.sdk import Connection


def endpoint_of_google(
    connection: Connection, *, headers: Mapping[str, str], base_url: str | None
) -> Endpoint:
    """An API of Google, with tokens of a connection of type ``google_cloud_platform``. The connection's extra
    ``scope`` says for what.

    :param base_url: for a connection without a host.
    :raises ConfigurationError: the provider is not installed, or there is no address.
    """
    whose = f"the Airflow connection {connection.conn_id!r}"
    if find_spec("airflow.providers.google") is None:
        msg = f"{whose} needs Airflow's Google provider; install apache-airflow-providers-google"
        raise ConfigurationError(msg)
    url = connection.host or base_url
    if not url:
        msg = f"{whose} names no host, and the kind of destination has no address of its own; fill it in"
        raise ConfigurationError(msg)
    return Endpoint(url, headers=dict(headers), credentials=GoogleCredentials(connection.conn_id))


class GoogleCredentials:
    """Bearer tokens of a connection; asked for when the first is needed.

    :param conn_id: a connection of type ``google_cloud_platform``.
    """

    def __init__(self, conn_id: str) -> None:
        self._conn_id = conn_id
        self._lock = threading.Lock()
        self._credentials: Any = None

    def headers(self) -> dict[str, str]:
        """``Authorization``, with a token that holds for a while.

        :raises AccessError: Google gives none.
        """
        with self._lock:
            if self._credentials is None:
                self._credentials = self._load()
            if not self._credentials.valid:
                self._refresh()
            return {"Authorization": f"Bearer {self._credentials.token}"}

    def renew(self, refused: Mapping[str, str] | None = None) -> None:
        """Forget the token, unless it is another one than was refused."""
        with self._lock:
            token = getattr(self._credentials, "token", None)
            if token and (refused is None or refused.get("Authorization") == f"Bearer {token}"):
                self._refresh()

    def _load(self) -> Any:
        from airflow.providers.google.common.hooks.base_google import GoogleBaseHook

        return GoogleBaseHook(gcp_conn_id=self._conn_id).get_credentials()

    def _refresh(self) -> None:
        from google.auth.exceptions import GoogleAuthError
        from google.auth.transport.requests import Request

        try:
            self._credentials.refresh(Request())
        except GoogleAuthError as error:
            msg = (
                f"Google gave no token for the Airflow connection {self._conn_id!r} ({type(error).__name__});"
                " check its key and the extra scope"
            )
            raise AccessError(msg) from None
        mask_secret(self._credentials.token)
