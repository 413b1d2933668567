# SPDX-License-Identifier: Apache-2.0
"""OAuth 2.0: tokens that a program asks for in its own name, or on behalf of who once agreed."""

from __future__ import annotations

import base64
import logging
import threading
import time
from typing import TYPE_CHECKING, Any, ClassVar, Literal
from urllib.parse import quote_plus

from cdp_provider.core.exceptions import AccessError, DataError
from cdp_provider.core.http import HttpClient

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cdp_provider.core.http import Endpoint, Response

_log = logging.getLogger(__name__)

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


class _Tokens:
    """Bearer tokens, asked for when the first is needed and again when one expires or is refused.

    :param endpoint: where tokens are given out.
    :param path: below it.
    :param sends: ``header``: id and secret travel as HTTP basic; ``body``: in the form, for servers that want
        that (RFC 6749, section 2.3.1).
    :param learned: told of every token, so that logs can mask it.
    """

    #: What a refusal may be about, for messages.
    _doubtful: ClassVar[str]

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

        :raises AccessError: what we show for a token is refused.
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

    def _grant(self) -> dict[str, str]:
        """What is shown for a token."""
        raise NotImplementedError

    def _heard(self, answer: dict[str, Any]) -> None:
        """An answer that holds a token."""

    def _fetch(self) -> None:
        form = self._grant()
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
                f" {self._doubtful} of the connection"
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
        self._heard(answer)
        try:
            return token, float(answer["expires_in"])  # some servers write it as text
        except (KeyError, TypeError, ValueError):
            return token, float("inf")


class ClientCredentials(_Tokens):
    """A program asks in its own name (RFC 6749, section 4.4)."""

    _doubtful = "client id (login), client secret (password) and scope"

    def _grant(self) -> dict[str, str]:
        return {"grant_type": "client_credentials"}


class RefreshToken(_Tokens):
    """A program asks on behalf of who once agreed, and got a refresh token for it (RFC 6749, section 6).

    A server may hand out a new refresh token with every access token; it is used from then on. Nobody but a
    person can store it in the connection, so the log says that it is time to.
    """

    _doubtful = "client id (login), client secret (password) and the extra refresh_token"

    def __init__(
        self, endpoint: Endpoint, path: str, client_id: str, client_secret: str, token: str, **options: Any
    ) -> None:
        """
        :param token: the refresh token.
        :param options: as of :class:`ClientCredentials`.
        """
        super().__init__(endpoint, path, client_id, client_secret, **options)
        self._token = token

    def _grant(self) -> dict[str, str]:
        return {"grant_type": "refresh_token", "refresh_token": self._token}

    def _heard(self, answer: dict[str, Any]) -> None:
        token = answer.get("refresh_token")
        if not isinstance(token, str) or not token or token == self._token:
            return
        self._learned(token)
        self._token = token
        _log.warning(
            "%s: the server rotated the refresh token, store it in the connection (extra refresh_token): the"
            " old one may be refused from now on",
            self._path.partition("?")[0],
        )
