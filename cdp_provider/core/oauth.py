# SPDX-License-Identifier: Apache-2.0
"""OAuth 2.0 client credentials (RFC 6749, section 4.4): a program asks for a token in its own name."""

from __future__ import annotations

import base64
import threading
import time
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote_plus

from cdp_provider.core.exceptions import AccessError, DataError
from cdp_provider.core.http import HttpClient

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cdp_provider.core.http import Endpoint, Response

#: Codes that a token endpoint may refuse with (RFC 6749, section 5.2). No other text of its is repeated.
_REFUSALS = frozenset(
    {
        *("invalid_request", "invalid_client", "invalid_grant"),
        *("unauthorized_client", "unsupported_grant_type", "invalid_scope"),
    }
)

#: A token is renewed so many seconds before it expires, because requests take time; a short one at nine
#: tenths of its life.
_MARGIN = 60.0


class ClientCredentials:
    """Bearer tokens, asked for when the first is needed and again when one expires or is refused.

    :param endpoint: where tokens are given out.
    :param path: below it.
    :param sends: ``header``: id and secret travel as HTTP basic; ``body``: in the form, for servers that want
        that (RFC 6749, section 2.3.1).
    :param learned: told of every token, so that logs can mask it.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        path: str,
        client_id: str,
        client_secret: str,
        *,
        scope: str | None = None,
        sends: Literal["header", "body"] = "header",
        learned: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._endpoint = endpoint
        self._path = path
        self._id = client_id
        self._secret = client_secret
        self._scope = scope
        self._sends = sends
        self._learned = learned
        self._lock = threading.Lock()
        self._headers: dict[str, str] = {}
        self._until = 0.0

    def headers(self) -> dict[str, str]:
        """``Authorization``, with a token that holds for a while.

        :raises AccessError: id, secret or scope are refused.
        :raises UnavailableError: no usable answer came.
        :raises DataError: the answer holds no token.
        """
        with self._lock:
            if not self._headers or time.monotonic() >= self._until:
                self._fetch()
            return dict(self._headers)

    def renew(self, refused: Mapping[str, str] | None = None) -> None:
        """Forget the token, unless it is another one than was refused."""
        with self._lock:
            if refused is None or self._headers.items() <= refused.items():
                self._headers = {}

    def _fetch(self) -> None:
        form = {"grant_type": "client_credentials"}
        if self._scope:
            form["scope"] = self._scope
        headers = {"Accept": "application/json"}
        if self._sends == "body":
            form |= {"client_id": self._id, "client_secret": self._secret}
        else:
            pair = f"{quote_plus(self._id)}:{quote_plus(self._secret)}"
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        asked = time.monotonic()
        with HttpClient(self._endpoint) as client:
            response = client.send("POST", self._path, form=form, headers=headers)
        token, seconds = self._read(response)
        self._learned(token)
        self._headers = {"Authorization": f"Bearer {token}"}
        self._until = asked + max(seconds - _MARGIN, seconds * 0.9)

    def _read(self, response: Response) -> tuple[str, float]:
        """The token, and for how many seconds it holds: until it is refused, where that is not said."""
        if response.status in (400, 401, 403):
            code = str(response.json().get("error")) if response.body[:1] == b"{" else ""
            why = f" ({code})" if code in _REFUSALS else ""
            msg = (
                f"{response.method} {response.path} answered {response.status}{why} and gave no token; check"
                " client id (login), client secret (password) and scope of the connection"
            )
            raise AccessError(msg)
        response.raise_for_status()
        answer: Any = response.json()
        token = answer.get("access_token") if isinstance(answer, dict) else None
        # What is no token of RFC 6750 could not be written into a header.
        if not isinstance(token, str) or not token.isascii() or not token.isprintable() or not token:
            msg = (
                f"{response.method} {response.path} answered {response.status} without an access_token; check"
                " that token_url is the address of an OAuth token endpoint"
            )
            raise DataError(msg)
        try:
            return token, float(answer["expires_in"])  # some servers write it as text
        except (KeyError, TypeError, ValueError):
            return token, float("inf")
