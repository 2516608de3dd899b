"""JSON over HTTP with limits: connections, sizes, deadlines, redirects. aiohttp is loaded on first use."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

import msgspec

from stanchion.core.clock import Clock
from stanchion.core.errors import UnavailableError, UsageError
from stanchion.models.http_errors import (
    connection_error,
    json_or_none,
    no_json_error,
    redirect_error,
    status_error,
    too_large_error,
)

if TYPE_CHECKING:
    import aiohttp

_MAX_REDIRECTS = 3
_ERROR_BODY_BYTES = 64 * 1024


class HttpLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a client may use. `deadline_s` is for one request with all its retries."""

    deadline_s: float = 60.0
    connect_s: float = 10.0
    max_connections: int = 16
    max_response_bytes: int = 16 * 1024 * 1024


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One request; `what` names it in errors, `headers` may hold the key and are never shown."""

    what: str
    url: str
    headers: dict[str, str]
    body: bytes | None = None
    method: str = "POST"

    def __repr__(self) -> str:
        return f"Call({self.method} {shown_url(self.url)})"


class HttpClient:
    """Connections to one or more hosts; belongs to no event loop in particular."""

    def __init__(self, limits: HttpLimits, *, clock: Clock) -> None:
        self.limits = limits
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def fetch(self, call: Call) -> tuple[Mapping[str, str], bytes]:
        """Headers (lower-case names) and body of a successful answer.

        Raises:
            UnavailableError: for everything else.
        """
        async with self.open(call) as response:
            headers = _lower(response.headers)
            return headers, await self._read(call, response, limit=self.limits.max_response_bytes)

    async def fetch_json(self, call: Call) -> Any:
        """The JSON value of a successful answer.

        Raises:
            UnavailableError: for everything else, a web page or an empty body included.
        """
        headers, body = await self.fetch(call)
        value = json_or_none(body)
        if value is None:
            raise no_json_error(call.what, headers, body)
        return value

    @asynccontextmanager
    async def open(self, call: Call) -> AsyncIterator[aiohttp.ClientResponse]:
        """A successful response whose body was not read yet; leaving the block closes it.

        Raises:
            UnavailableError: for a status that is no success, a redirect to another host, no connection.
        """
        import aiohttp

        url = call.url
        for _ in range(_MAX_REDIRECTS + 1):
            try:
                response = await (await self._session_here()).request(
                    call.method, _as_it_is(url), data=call.body, headers=call.headers, allow_redirects=False
                )
            except (aiohttp.ClientError, OSError, ValueError) as error:
                if isinstance(error, TimeoutError):
                    raise
                raise connection_error(call.what, error) from None
            if not 300 <= response.status < 400:
                break
            response.close()
            url = _redirected(call, response.status, url, response.headers.get("Location", ""))
        else:
            raise redirect_error(call.what, response.status, "itself, again and again")
        try:
            if response.status >= 400:
                raise await self._refused(call, response)
            yield response
        finally:
            response.close()

    async def read_chunks(
        self, call: Call, response: aiohttp.ClientResponse, *, limit: int
    ) -> AsyncIterator[bytes]:
        """The body as it comes, up to `limit` bytes.

        Raises:
            UnavailableError: when the connection breaks or the limit is passed.
        """
        import aiohttp

        size = 0
        try:
            async for chunk in response.content.iter_any():
                size += len(chunk)
                if size > limit:
                    raise too_large_error(call.what, limit)
                yield chunk
        except (aiohttp.ClientError, OSError) as error:
            if isinstance(error, TimeoutError):
                raise
            raise connection_error(call.what, error) from None

    async def aclose(self) -> None:
        """Close the connections; safe to call twice."""
        session, self._session = self._session, None
        if session is not None:
            with contextlib.suppress(RuntimeError):  # the loop they belonged to may be closed
                await session.close()

    async def _session_here(self) -> aiohttp.ClientSession:
        """The session of the running loop; a loop that is gone took its connections with it."""
        import aiohttp

        loop = asyncio.get_running_loop()
        if self._session is None or self._loop is not loop:
            await self.aclose()
            self._loop = loop
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self.limits.max_connections),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=self.limits.connect_s),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
            )
        return self._session

    async def _read(self, call: Call, response: aiohttp.ClientResponse, *, limit: int) -> bytes:
        body = bytearray()
        async for chunk in self.read_chunks(call, response, limit=limit):
            body += chunk
        return bytes(body)

    async def _refused(self, call: Call, response: aiohttp.ClientResponse) -> UnavailableError:
        try:
            body = await self._read(call, response, limit=_ERROR_BODY_BYTES)
        except UnavailableError:
            body = b""
        headers = _lower(response.headers)
        return status_error(call.what, response.status, headers, body, now=self._clock.now())


def _as_it_is(url: str) -> Any:
    """The address without another encoding: a signature covers it as it was written."""
    from yarl import URL

    return URL(url, encoded=url.isascii() and " " not in url)


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _redirected(call: Call, status: int, url: str, location: str) -> str:
    """Where a redirect leads: only 307 and 308 keep the request, and only the same host may see it again."""
    target = urlsplit(urljoin(url, location))
    here = urlsplit(url)
    is_same = (target.scheme, target.hostname, target.port) == (here.scheme, here.hostname, here.port)
    if status not in (307, 308) or not location or not is_same:
        where = f"{target.scheme}://{target.netloc.rpartition('@')[2]}" if location else ""
        raise redirect_error(call.what, status, where)
    return target.geturl()


def json_body(value: Any) -> bytes:
    """The value as JSON bytes.

    Raises:
        UsageError: when it holds a text that is no Unicode (a lone surrogate).
    """
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError as error:
        raise UsageError("the request holds a lone surrogate, which no JSON can carry.") from error


def checked_url(url: str, *, what: str) -> str:
    """The URL without a trailing slash.

    Raises:
        UsageError: when it is not http(s) with a host, or carries a user name or password.
    """
    try:
        parts = urlsplit(url)
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        is_good = False
    if not is_good:
        raise UsageError(f"{what} is not an http(s) URL.", hint="For example http://127.0.0.1:8080/v1")
    if parts.username is not None or parts.password is not None:
        raise UsageError(
            f"{what} carries a user name or password.", hint="Pass secrets as the key or a header."
        )
    return url.rstrip("/")


def shown_url(url: str) -> str:
    """The URL as messages show it: scheme, host, port and path; what may hold a secret is left out."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
