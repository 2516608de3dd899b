"""A provider behind HTTP: one pooled session, keys added here and nowhere else, bytes decoded into events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from stanchion.core.clock import Clock
from stanchion.core.errors import UnavailableError, UsageError
from stanchion.core.interaction import End, Reply, StreamEvent
from stanchion.core.version import package_version
from stanchion.gateway.upstream import Question
from stanchion.models import anthropic, anthropic_answers, openai, openai_answers
from stanchion.models.endpoint import ANTHROPIC_VERSION, SecretLike
from stanchion.models.events import events_of
from stanchion.models.http_client import checked_url, json_body, shown_url
from stanchion.models.http_errors import (
    connection_error,
    json_or_none,
    no_json_error,
    redirect_error,
    status_error,
    too_large_error,
)
from stanchion.models.sse import SseParser

if TYPE_CHECKING:
    import aiohttp

_ERROR_BODY_BYTES = 64 * 1024
_DONE = "[DONE]"


class Dialect:
    """How one vendor's API is asked and read."""

    vendor = ""
    path = ""

    def body(self, question: Question, *, stream: bool) -> Any:
        """The request body as a JSON value."""
        raise NotImplementedError

    def headers(self, key: str) -> dict[str, str]:
        """The headers that carry the key."""
        raise NotImplementedError

    def reply(self, value: Any) -> Reply:
        """A whole answer."""
        raise NotImplementedError

    def decoder(self) -> Any:
        """What turns `data` objects into events."""
        raise NotImplementedError


class OpenAiDialect(Dialect):
    """Chat completions."""

    vendor = openai.API
    path = "/chat/completions"

    def body(self, question: Question, *, stream: bool) -> Any:
        """See `Dialect.body`."""
        extras = question.extras if question.vendor == self.vendor else None
        return openai.encode_request(question.interaction, stream=stream, extras=extras) | {
            "model": question.model
        }

    def headers(self, key: str) -> dict[str, str]:
        """See `Dialect.headers`."""
        return {"authorization": f"Bearer {key}"} if key else {}

    def reply(self, value: Any) -> Reply:
        """See `Dialect.reply`."""
        return openai_answers.decode_response(value)

    def decoder(self) -> Any:
        """See `Dialect.decoder`."""
        return openai_answers.ChunkDecoder()


class AnthropicDialect(Dialect):
    """Messages."""

    vendor = anthropic.API
    path = "/v1/messages"

    def body(self, question: Question, *, stream: bool) -> Any:
        """See `Dialect.body`."""
        extras = question.extras if question.vendor == self.vendor else None
        return anthropic.encode_request(question.interaction, stream=stream, extras=extras) | {
            "model": question.model
        }

    def headers(self, key: str) -> dict[str, str]:
        """See `Dialect.headers`."""
        version = {"anthropic-version": ANTHROPIC_VERSION}
        return {**version, "x-api-key": key} if key else version

    def reply(self, value: Any) -> Reply:
        """See `Dialect.reply`."""
        return anthropic_answers.decode_response(value)

    def decoder(self) -> Any:
        """See `Dialect.decoder`."""
        return anthropic_answers.EventDecoder()


DIALECTS: dict[str, type[Dialect]] = {"openai": OpenAiDialect, "anthropic": AnthropicDialect}


class HttpUpstream:
    """Asks one provider over HTTP.

    Redirects are not followed, proxies of the environment are not used, and cookies are not kept. A pooled
    connection that the other side had closed is replaced once, when nothing of an answer had come.

    Args:
        base_url: the API's base, from the gateway file.
        dialect: how it is asked.
        key: sent as the API demands; never shown.
        clock: for `Retry-After` dates.
        connect_s: how long a connection may take.
        idle_s: how long the other side may say nothing.
        max_connections: how many at a time.
        max_response_bytes: the most that an answer may have.
    """

    def __init__(
        self,
        base_url: str,
        *,
        dialect: Dialect,
        clock: Clock,
        key: SecretLike | None = None,
        connect_s: float = 10.0,
        idle_s: float = 60.0,
        max_connections: int = 1000,
        max_response_bytes: int = 16 * 1024 * 1024,
    ) -> None:
        base = checked_url(base_url, what="the base URL of a provider")
        path, mark, query = base.partition("?")
        if dialect.path.startswith("/v1/"):
            path = path.removesuffix("/v1")
        self._url = f"{path.rstrip('/')}{dialect.path}{mark}{query}"
        self._dialect = dialect
        self._clock = clock
        self._connect_s = connect_s
        self._idle_s = idle_s
        self._max_connections = max_connections
        self._max_bytes = max_response_bytes
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._target: Any = None
        self._what = f"the provider at {shown_url(self._url)}"
        self._headers = self._with_key("" if key is None else key.reveal())

    async def ask(self, question: Question) -> Reply:
        """See `Upstream.ask`."""
        body = json_body(self._dialect.body(question, stream=False))
        response = await self._post(body, question.key)
        try:
            if response.status != 200:
                raise await self._refused(response)
            raw = await self._read(response, self._max_bytes)
        finally:
            response.close()
        value = json_or_none(raw)
        if value is None:
            raise no_json_error(self._what, {"content-type": response.headers.get("Content-Type", "")}, raw)
        return self._dialect.reply(value)

    async def stream(self, question: Question) -> AsyncGenerator[Sequence[StreamEvent], None]:
        """See `Upstream.stream`."""
        body = json_body(self._dialect.body(question, stream=True))
        response = await self._post(body, question.key)
        is_whole = False
        try:
            if response.status != 200:
                raise await self._refused(response)
            kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
            if kind in ("application/json", "text/html"):
                value = json_or_none(raw := await self._read(response, self._max_bytes))
                if value is None:
                    raise no_json_error(self._what, {"content-type": kind}, raw)
                yield tuple(events_of(self._dialect.reply(value)))
                return
            async for batch in self._events(response):
                is_whole = isinstance(batch[-1], End)
                yield batch
        finally:
            if is_whole:
                await _drained(response)
            response.close()

    async def aclose(self) -> None:
        """See `Upstream.aclose`."""
        session, self._session = self._session, None
        if session is not None:
            with suppress(RuntimeError):  # the loop they belonged to may be closed
                await session.close()

    async def _events(self, response: aiohttp.ClientResponse) -> AsyncGenerator[Sequence[StreamEvent], None]:
        parser, decoder = SseParser(), self._dialect.decoder()
        size = count = 0
        while chunk := await self._some(response):
            size += len(chunk)
            if size > self._max_bytes:
                raise too_large_error(self._what, self._max_bytes)
            batch: list[StreamEvent] = []
            for message in parser.feed(chunk):
                if message.data == _DONE:
                    batch += decoder.finish()
                else:
                    batch += decoder.feed(self._json(message.data))
                if batch and isinstance(batch[-1], End):
                    yield batch
                    return
            if batch:
                count += len(batch)
                yield batch
        last = decoder.finish(is_marked=False)
        if not last:
            raise UnavailableError(
                f"{self._what}: the stream broke off after {count} events, before the answer was over.",
                hint="Ask again; if it happens often, look at the provider and at proxies in between.",
            )
        yield last

    def _json(self, data: str) -> Any:
        value = json_or_none(data.encode())
        if value is None:
            raise UnavailableError(f"{self._what}: the stream holds an event that is not JSON.")
        return value

    async def _post(self, body: bytes, key: str) -> aiohttp.ClientResponse:
        import aiohttp

        session = self._session_here()
        headers = self._with_key(key) if key else self._headers
        for is_last in (False, True):
            try:
                response = await session.post(self._target, data=body, headers=headers, allow_redirects=False)
                break
            except (aiohttp.ServerDisconnectedError, ConnectionResetError) as error:
                if is_last:  # the first may have been a pooled connection that had died
                    raise connection_error(self._what, error) from None
            except (aiohttp.ClientError, OSError, ValueError) as error:
                raise connection_error(self._what, error) from None
        if 300 <= response.status < 400:
            response.close()
            raise redirect_error(self._what, response.status, "another address")
        return response

    async def _some(self, response: aiohttp.ClientResponse) -> bytes:
        """The next bytes; empty at the end."""
        import aiohttp

        try:
            return await response.content.readany()
        except (aiohttp.ClientError, OSError) as error:
            raise connection_error(self._what, error) from None

    async def _read(self, response: aiohttp.ClientResponse, limit: int) -> bytes:
        pieces: list[bytes] = []
        size = 0
        while piece := await self._some(response):
            size += len(piece)
            if size > limit:
                raise too_large_error(self._what, limit)
            pieces.append(piece)
        return b"".join(pieces)

    async def _refused(self, response: aiohttp.ClientResponse) -> UnavailableError:
        try:
            body = await self._read(response, _ERROR_BODY_BYTES)
        except UnavailableError:
            body = b""
        headers = {name.lower(): value for name, value in response.headers.items()}
        return status_error(self._what, response.status, headers, body, now=self._clock.now())

    def _with_key(self, key: str) -> dict[str, str]:
        if not key.isascii() or not key.isprintable() or key != key.strip():
            raise UsageError(
                "the API key holds characters that no HTTP header can carry.",
                hint="Look for a newline or a space at its end, where it is read from.",
            )
        return {
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
            "accept-encoding": "identity",
            "user-agent": f"stanchion/{package_version()}",
            **self._dialect.headers(key),
        }

    def _session_here(self) -> aiohttp.ClientSession:
        """The session of the running loop; a loop that is gone took its connections with it."""
        import aiohttp
        from yarl import URL

        loop = asyncio.get_running_loop()
        if self._session is None or self._loop is not loop:
            self._loop = loop
            self._target = URL(self._url)
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._max_connections, ttl_dns_cache=60),
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=self._connect_s, sock_read=self._idle_s
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
            )
        return self._session


async def _drained(response: aiohttp.ClientResponse) -> None:
    """Read what little follows the end, so that the connection can be used again."""
    with suppress(Exception):
        async with asyncio.timeout(0.05):
            await response.content.read(_ERROR_BODY_BYTES)
