# SPDX-License-Identifier: Apache-2.0
"""One careful HTTP client for everything that core fetches or sends.

Answers become this product's errors by how one recovers from them; neither a token nor a body nor a query
string is ever part of a message.
"""

from __future__ import annotations

import re
import ssl
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, Self
from urllib.parse import SplitResult, urlencode, urlsplit

import httpx
import orjson

from cdp_provider.core.exceptions import (
    AccessError,
    ConfigurationError,
    DataError,
    NotFoundError,
    RateLimitedError,
    UnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType

#: No answer may be larger than this, unpacked.
MAX_BODY_BYTES = 64 * 1024 * 1024

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\x20-\x7e\t]*")
_PROXY = re.compile(r"https?://[^\s/@]*@?[^\s/@:]+(:[0-9]{1,5})?/?")
_SECONDS = re.compile(r"\d{1,9}(\.\d+)?")
#: Client errors that the same request may not meet again: timeout and "too early".
_PASSING = frozenset({408, 425})


class Credentials(Protocol):
    """Secrets that expire. Shared by threads; the methods block."""

    def headers(self) -> dict[str, str]:
        """What lets a request in right now.

        :raises AccessError: we are refused a token.
        :raises UnavailableError: nobody gave one.
        """

    def renew(self, refused: Mapping[str, str] | None = None) -> None:
        """Called when a request was answered with 401: the next :meth:`headers` are new ones.

        :param refused: the headers that the request carried; others may have renewed them since. None:
            whatever there is.
        """


@dataclass(frozen=True)
class Endpoint:
    """Where a service is and how to be let in; an Airflow connection becomes one of these.

    :param base_url: ``https://host[:port][/prefix]``, without credentials, query or fragment.
    :param headers: sent with every request; they hold the secrets, so ``repr`` leaves them out.
    :param credentials: give further headers, which change.
    :param verify: whether TLS certificates are checked, or the path of a CA bundle to check them against.
    :param timeout: seconds to connect, and seconds without a byte until the answer counts as lost.
    :param proxy: address of an HTTP proxy, which may hold a user and a password; None: what the environment
        says (``HTTPS_PROXY``, ``NO_PROXY``).
    :raises ConfigurationError: the address, a header or the proxy cannot be used.
    """

    base_url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    verify: bool | str = True
    timeout: float = 30.0
    credentials: Credentials | None = field(default=None, repr=False)
    proxy: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        parts = _split(self.base_url)
        if parts.username is not None or parts.password is not None:
            msg = "the base URL holds a user name or password; put them into the connection's own fields"
            raise ConfigurationError(msg)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
            msg = (
                f"{self.base_url.partition('?')[0]!r} is no base URL; write http:// or https://, a host and,"
                " if need be, a port and a path, such as https://api.example.com/v2"
            )
            raise ConfigurationError(msg)
        if self.proxy is not None and not _PROXY.fullmatch(self.proxy):
            msg = "the proxy is no address of one; write http://[user:password@]host:port"
            raise ConfigurationError(msg)
        for name, value in self.headers.items():
            if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
                msg = (
                    f"the header {name!r} holds characters that HTTP does not allow (line breaks, or letters"
                    " beyond ASCII); look for a stray newline at the end of the token"
                )
                raise ConfigurationError(msg)

    def url(self, path: str) -> str:
        """`path` under the base URL. A whole URL is allowed where it stays on the same host.

        :raises ConfigurationError: it would carry our headers to another host.
        """
        if "://" not in path.partition("?")[0]:
            return f"{self.base_url.rstrip('/')}/{path.lstrip('/')}"
        if _origin(path) != _origin(self.base_url):
            msg = (
                f"{self.base_url} points to another host, {_split(path).hostname}; requests carry a secret"
                " and stay with the host of the connection, so correct the connection or the path"
            )
            raise ConfigurationError(msg)
        return path


@dataclass(frozen=True)
class Response:
    """An answer, read to its end.

    :param headers: by lower-case name.
    """

    method: str
    path: str
    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    def json(self) -> Any:
        """The body as JSON.

        :raises DataError: it is something else.
        """
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError:
            self.fail_as_not_json()

    def fail_as_not_json(self) -> NoReturn:
        """:raises DataError: always; says what came instead of JSON."""
        kind = self.headers.get("content-type", "no content type").partition(";")[0][:60]
        msg = (
            f"{self.method} {self.path} answered {self.status} with {len(self.body)} bytes of {kind!r} that"
            " are not JSON; check that the path is one of the API and not of a web page"
        )
        raise DataError(msg) from None

    def retry_after(self, header: str = "Retry-After") -> float | None:
        """Seconds to wait as the header says, a date being read against the answer's own clock."""
        text = self.headers.get(header.lower(), "").strip()
        if _SECONDS.fullmatch(text):
            return float(text)
        until, now = _http_date(text), self.date()
        return None if until is None or now is None else max(0.0, until - now)

    def date(self) -> float | None:
        """When the answer was made, in seconds since 1970, by the clock of who made it."""
        return _http_date(self.headers.get("date", ""))

    def raise_for_status(self) -> None:
        """Nothing for a 2xx answer.

        :raises AccessError: 401, 403.
        :raises NotFoundError: 404, 410.
        :raises RateLimitedError: 429; carries ``retry_after``.
        :raises UnavailableError: 5xx, 408, 425; carries ``retry_after``.
        :raises ConfigurationError: any other status.
        """
        if 200 <= self.status < 300:
            return
        what = f"{self.method} {self.path} answered {self.status}"
        if self.status in {401, 403}:
            msg = f"{what}: our credentials were refused; check the token or password, and its rights"
            raise AccessError(msg)
        if self.status in {404, 410}:
            msg = f"{what}: nothing is there; check the path, and the base URL of the connection"
            raise NotFoundError(msg)
        if self.status == 429:
            msg = f"{what}: the rate limit is used up; wait as long as it says, or ask less often"
            raise RateLimitedError(msg, retry_after=self.retry_after())
        if self.status >= 500 or self.status in _PASSING:
            msg = f"{what}: the service has trouble of its own; try again later"
            raise UnavailableError(msg, retry_after=self.retry_after())
        if 300 <= self.status < 400:
            msg = f"{what}: redirects are not followed; put the final address into the connection or the path"
            raise ConfigurationError(msg)
        msg = f"{what}: the request was refused; check the path, its parameters and the body against the API"
        raise ConfigurationError(msg)


class HttpClient:
    """Requests to one endpoint over connections that are kept alive. Close it, or use ``with``.

    Redirects are not followed, and bodies are cut off at `max_body` bytes.
    """

    def __init__(self, endpoint: Endpoint, *, max_body: int = MAX_BODY_BYTES) -> None:
        self.endpoint = endpoint
        self._max_body = max_body
        self._client = httpx.Client(
            headers=dict(endpoint.headers),
            verify=tls(endpoint.verify),
            timeout=endpoint.timeout,
            proxy=endpoint.proxy,
            follow_redirects=False,
        )

    def send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """The answer, whatever its status; a 401 only when new credentials were refused as well.

        :param path: as in :meth:`Endpoint.url`.
        :param params: added to the query that `path` may already have: texts, numbers, booleans or lists of
            them.
        :param json: the body, unless None.
        :param form: the body as an HTML form would send it, instead.
        :raises UnavailableError: no whole answer came.
        :raises DataError: the answer is larger than allowed.
        """
        url = self._url(path, params)
        content = None if json is None else orjson.dumps(json)
        extra = dict(headers or {})
        if form is not None:
            content = urlencode(form).encode()
            extra.setdefault("Content-Type", "application/x-www-form-urlencoded")
        elif content is not None:
            extra.setdefault("Content-Type", "application/json")
        credentials = self.endpoint.credentials
        if credentials is None:
            return self._ask(method, url, content, extra)
        given = credentials.headers()
        response = self._ask(method, url, content, extra | given)
        if response.status != 401:
            return response
        credentials.renew(given)
        return self._ask(method, url, content, extra | credentials.headers())

    def request(self, method: str, path: str, **options: Any) -> Response:
        """:meth:`send` and :meth:`Response.raise_for_status`."""
        response = self.send(method, path, **options)
        response.raise_for_status()
        return response

    def close(self) -> None:
        """Give the connections back."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, method: str, url: httpx.URL, content: bytes | None, headers: dict[str, str]) -> Response:
        what = f"{method} {url.path}"
        with (
            _transport_errors(what),
            self._client.stream(method, url, content=content, headers=headers) as answer,
        ):
            body = self._read(answer, what)
        return Response(method, url.path, answer.status_code, dict(answer.headers), body)

    def _url(self, path: str, params: Mapping[str, Any] | None) -> httpx.URL:
        try:
            url = httpx.URL(self.endpoint.url(path))
        except httpx.InvalidURL as error:
            msg = f"the path {path.partition('?')[0]!r} cannot be part of an address ({error}); correct it"
            raise ConfigurationError(msg) from None
        return url.copy_merge_params(dict(params)) if params else url

    def _read(self, answer: httpx.Response, what: str) -> bytes:
        body = bytearray()
        for chunk in answer.iter_bytes():
            body += chunk
            if len(body) > self._max_body:
                msg = (
                    f"{what} answered with more than {self._max_body} bytes; ask for smaller pages"
                    " (page_size), or check that the path is the right one"
                )
                raise DataError(msg)
        return bytes(body)


@contextmanager
def _transport_errors(what: str) -> Iterator[None]:
    try:
        yield
    except httpx.TimeoutException:
        msg = f"{what}: no answer within the connection's timeout; try again later, or raise the timeout"
        raise UnavailableError(msg) from None
    except (httpx.LocalProtocolError, httpx.UnsupportedProtocol, UnicodeError):
        # The driver's own text would quote the header or the URL.
        msg = f"{what}: the request cannot be written as HTTP; check the connection's headers and address"
        raise ConfigurationError(msg) from None
    except httpx.ConnectError as error:
        msg = f"{what}: no connection ({error}); check host, port and certificate of the connection"
        raise UnavailableError(msg) from error
    except httpx.HTTPError as error:
        msg = f"{what}: the answer broke off ({type(error).__name__}); try again later"
        raise UnavailableError(msg) from None


def _split(url: str) -> SplitResult:
    """Like ``urlsplit``, whose complaints about brackets and ports come as :class:`ConfigurationError`."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - read to have it checked
    except ValueError as error:
        msg = f"an address cannot be read ({error}); write https://host[:port]/path"
        raise ConfigurationError(msg) from None
    return parts


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = _split(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def tls(verify: bool | str) -> bool | ssl.SSLContext:
    """What an HTTP library wants to know of :attr:`Endpoint.verify`.

    :raises NotFoundError: the bundle of CA certificates cannot be read.
    """
    if not isinstance(verify, str):
        return verify
    try:
        return ssl.create_default_context(cafile=verify)
    except OSError as error:
        msg = f"{verify!r} cannot be read as a bundle of CA certificates ({type(error).__name__})"
        raise NotFoundError(msg) from error


def _http_date(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError):
        return None
