"""An HTTP session to one address that sends and receives JSON."""

from __future__ import annotations

import asyncio
import io
import json
import os
import ssl
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

import orjson

from latentscore_data.core.base.proxies import proxy_for
from latentscore_data.core.llm.server_errors import CallFailed, Refusal

if TYPE_CHECKING:
    import aiohttp

ANSWER_AT_MOST = 32 * 2**20
"""Maximum size of a decompressed answer in bytes; real answers are much smaller."""

REFUSAL_AT_MOST = 2**20
"""Maximum bytes of an error response that are read."""

_LARGE = 2**20
"""Size from which aiohttp needs a body as a stream."""

_SPARE_FILES = 256


class HTTPSession:
    """Sends bodies to one address and keeps connections open. It does not follow redirects, so a key is sent only to
    its host.

    The caller sets the time-out. The session is opened at the first call, in that event loop.
    """

    def __init__(self, url: str, headers: dict[str, str], connections: int) -> None:
        self._url = url
        self._headers = headers
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None

    async def post(self, body: bytes) -> Any:
        """Send a body and return the parsed answer. Raises :class:`Refusal` and :class:`CallFailed`."""
        import aiohttp

        session = self._session or self._open()
        try:
            data = body if len(body) < _LARGE else io.BytesIO(body)
            async with session.post(self._url, data=data, allow_redirects=False) as response:
                if 300 <= response.status < 400:
                    raise self._redirected(response)
                if response.status >= 400:
                    raw, _ = await _read(response, REFUSAL_AT_MOST)
                    raise Refusal(response.status, response.headers, raw.decode("utf-8", "replace"))
                raw, whole = await _read(response, ANSWER_AT_MOST)
        except aiohttp.ClientConnectorCertificateError as error:
            raise CallFailed(
                f"the certificate of {urlsplit(self._url).hostname} is not trusted ({error.certificate_error}); "
                "name the file with the authority's certificate in SSL_CERT_FILE",
                final=True,
            ) from None
        except (aiohttp.ClientError, OSError) as error:
            if isinstance(error, TimeoutError):
                raise
            # Either no connection was made, or the outcome is unknown.
            billed = not isinstance(error, aiohttp.ClientConnectorError)
            raise CallFailed(f"connection failed: {error or type(error).__name__}", maybe_billed=billed) from None
        if not whole:
            raise CallFailed(f"the answer is longer than {ANSWER_AT_MOST:,} bytes", final=True, maybe_billed=True)
        return _parsed(raw)

    def _open(self) -> aiohttp.ClientSession:
        import aiohttp

        _allow_files(self._connections + _SPARE_FILES)
        proxy = proxy_for(self._url)
        # Loading hundreds of certificates is slow, and not needed for servers on this machine.
        needed = "https" in (urlsplit(self._url).scheme, urlsplit(proxy or "").scheme)
        trusted = _trusted() if needed else True
        connector = aiohttp.TCPConnector(limit=0, ttl_dns_cache=300, keepalive_timeout=30, ssl=trusted)
        self._session = aiohttp.ClientSession(
            connector=connector,
            headers=self._headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            proxy=proxy,
        )
        return self._session

    def _redirected(self, response: aiohttp.ClientResponse) -> CallFailed:
        where = urlsplit(urljoin(self._url, response.headers.get("Location", "")))
        return CallFailed(
            f"the server redirects calls to {where.scheme}://{where.netloc}{where.path}, and redirects are not followed; "
            "if that is right, give its address with --api-base",
            status=response.status,
            final=True,
        )

    async def aclose(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()
            # TLS connections are closed in the next iterations of the event loop.
            await asyncio.sleep(0)


async def _read(response: aiohttp.ClientResponse, most: int) -> tuple[bytes, bool]:
    """(the body or its beginning, true for all of it)."""
    pieces: list[bytes] = []
    size = 0
    async for piece in response.content.iter_any():
        pieces.append(piece)
        size += len(piece)
        if size > most:
            response.close()
            return b"".join(pieces)[:most], False
    return b"".join(pieces), True


def _parsed(raw: bytes) -> Any:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        pass
    try:
        # orjson refuses lone surrogates and NaN, but such answers are accepted.
        return json.loads(raw)
    except (ValueError, RecursionError):
        raise CallFailed("the server's answer is not JSON", maybe_billed=True) from None


def _trusted() -> ssl.SSLContext:
    """Return the system's and certifi's authorities; only those of ``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` if these are set."""
    context = ssl.create_default_context()
    if not (os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR")):
        import certifi

        context.load_verify_locations(certifi.where())
    return context


def _allow_files(count: int) -> None:
    """Raise this process's limit of open files to ``count``, as far as the system allows."""
    try:
        import resource
    except ImportError:  # Windows, where there is no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count:
        most = count if hard == resource.RLIM_INFINITY else min(count, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
