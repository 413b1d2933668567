# SPDX-License-Identifier: Apache-2.0
"""Many requests at once to one destination; as careful as :class:`~cdp_provider.core.http.HttpClient`.

aiohttp, because it takes a tenth of httpx's time per request, and delivery is where requests are many.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Self

import aiohttp
from yarl import URL

from cdp_provider.core.exceptions import ConfigurationError, DataError, UnavailableError
from cdp_provider.core.http import Response, tls

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from cdp_provider.core.http import Endpoint

#: An answer says little more than how each record of one batch fared.
MAX_BODY_BYTES = 16 * 1024 * 1024

#: An answer whose bytes drip in is lost after so many times the connection's timeout.
_PATIENCE = 10


class NotSentError(UnavailableError):
    """No connection was made, so the destination has seen nothing."""


class Client:
    """Requests over connections that are kept alive. Use it with ``async with``.

    Redirects are not followed, cookies not kept, certificates checked, bodies cut off.

    :param connections: at the same time, at most.
    """

    def __init__(self, endpoint: Endpoint, *, connections: int, max_body: int = MAX_BODY_BYTES) -> None:
        self._endpoint = endpoint
        self._connections = connections
        self._max_body = max_body

    async def __aenter__(self) -> Self:
        verify = tls(self._endpoint.verify)
        timeout = self._endpoint.timeout
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._connections, ssl=verify),
            headers=dict(self._endpoint.headers),
            timeout=aiohttp.ClientTimeout(total=timeout * _PATIENCE, sock_connect=timeout, sock_read=timeout),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=True,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def send(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Response:
        """The answer, whatever its status.

        :param path: as in :meth:`Endpoint.url`, quoted.
        :raises NotSentError: there was no connection to send anything over.
        :raises UnavailableError: no whole answer came.
        :raises DataError: the answer is larger than allowed.
        """
        credentials = self._endpoint.credentials
        if credentials is None:
            return await self._send(method, path, body, headers)
        shown = await asyncio.to_thread(credentials.headers)
        response = await self._send(method, path, body, {**shown, **headers})
        if response.status != 401:
            return response
        await asyncio.to_thread(credentials.renew, shown)
        shown = await asyncio.to_thread(credentials.headers)
        return await self._send(method, path, body, {**shown, **headers})

    async def _send(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Response:
        url = URL(self._endpoint.url(path), encoded=True)
        what = f"{method} {url.path}"
        try:
            async with self._session.request(
                method, url, data=body, headers=headers, allow_redirects=False, proxy=self._endpoint.proxy
            ) as answer:
                text = await self._read(answer, what)
                return Response(
                    method, url.path, answer.status, {n.lower(): v for n, v in answer.headers.items()}, text
                )
        except aiohttp.ClientConnectorCertificateError:
            msg = f"{what}: the certificate of the destination is not trusted; check host and verify_tls"
            raise ConfigurationError(msg) from None
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            reason = error.strerror if isinstance(error, OSError) else "no answer in time"
            msg = f"{what}: no connection ({reason}); check host, port and certificate of the connection"
            raise NotSentError(msg) from None
        except TimeoutError:
            msg = f"{what}: no answer within the connection's timeout; try again later, or raise the timeout"
            raise UnavailableError(msg) from None
        except (aiohttp.InvalidURL, ValueError) as error:
            # The driver's own text would quote the header or the URL.
            why = type(error).__name__
            msg = f"{what}: the request cannot be written as HTTP ({why}); check the connection"
            raise ConfigurationError(msg) from None
        except (aiohttp.ClientError, ssl.SSLError, OSError) as error:
            msg = f"{what}: the answer broke off ({type(error).__name__}); try again later"
            raise UnavailableError(msg) from None

    async def _read(self, answer: aiohttp.ClientResponse, what: str) -> bytes:
        body = bytearray()
        async for chunk in answer.content.iter_any():
            body += chunk
            if len(body) > self._max_body:
                msg = (
                    f"{what} answered with more than {self._max_body} bytes; check that the path is the right"
                    " one"
                )
                raise DataError(msg)
        return bytes(body)
