"""A provider behind HTTP: one pooled session, keys added here and nowhere else, bytes decoded into events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from stanchion.core.clock import Clock
from stanchion.core.errors import UnavailableError, UsageError
from stanchion.core.interaction import Reply, StreamEvent
from stanchion.core.version import package_version
from stanchion.gateway.upstream import Question
from stanchion.models.answer_reader import AnswerReader
from stanchion.models.endpoint import ANTHROPIC_VERSION, SecretLike
from stanchion.models.events import events_of
from stanchion.models.http_client import checked_url, json_body, shown_url
from stanchion.models.http_errors import (
    connection_error,
    json_or_none,
    looks_like_html,
    no_json_error,
    redirect_error,
    status_error,
    too_large_error,
)
from stanchion.models.plain import plain_reply
from stanchion.models.strict_json import decode_strict
from stanchion.models.translation import fitted
from stanchion.models.upstreams import UPSTREAMS, UpstreamCodec

if TYPE_CHECKING:
    import aiohttp

_ERROR_BODY_BYTES = 64 * 1024


class Dialect(msgspec.Struct, frozen=True, kw_only=True):
    """How a kind of provider is asked: the paths of its APIs, and the one for requests of any other API."""

    vendor: str
    paths: dict[str, str]
    main: str

    def headers(self, key: str) -> dict[str, str]:
        """The headers that carry the key."""
        if self.vendor == "anthropic":
            version = {"anthropic-version": ANTHROPIC_VERSION}
            return {**version, "x-api-key": key} if key else version
        return {"authorization": f"Bearer {key}"} if key else {}


DIALECTS: dict[str, Dialect] = {
    "openai": Dialect(
        vendor="openai",
        main="openai.chat",
        paths={
            "openai.chat": "/chat/completions",
            "openai.responses": "/responses",
            "openai.embeddings": "/embeddings",
            "openai.moderations": "/moderations",
        },
    ),
    "anthropic": Dialect(
        vendor="anthropic", main="anthropic.messages", paths={"anthropic.messages": "/v1/messages"}
    ),
}


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
        self._urls = api_urls(base_url, dialect.paths)
        self._dialect = dialect
        self._clock = clock
        self._connect_s = connect_s
        self._idle_s = idle_s
        self._max_connections = max_connections
        self._max_bytes = max_response_bytes
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._targets: dict[str, Any] = {}
        self._what = f"the provider at {shown_url(self._urls[dialect.main])}"
        self._key = key  # it may change while we run; what does not is in the session's headers
        self._known_key = "" if key is None else key.reveal()
        self._headers = self._with_key(self._known_key)

    async def ask(self, question: Question) -> Reply:
        """See `Upstream.ask`."""
        codec, body = self._written(question, stream=False)
        response = await self._post(codec.name, body, question)
        try:
            if response.status != 200:
                raise await self._refused(response)
            raw = await self._read(response, self._max_bytes)
        finally:
            response.close()
        is_page = "html" in response.headers.get("Content-Type", "").lower()
        plain = None if is_page else plain_reply(codec.name, raw)
        return codec.decode_reply(self._value(raw, response)) if plain is None else plain

    async def stream(self, question: Question) -> AsyncGenerator[Sequence[StreamEvent], None]:
        """See `Upstream.stream`."""
        codec, body = self._written(question, stream=True)
        response = await self._post(codec.name, body, question)
        reader: AnswerReader | None = None
        try:
            if response.status != 200:
                raise await self._refused(response)
            kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
            if kind in ("application/json", "text/html"):
                raw = await self._read(response, self._max_bytes)
                yield tuple(events_of(codec.decode_reply(self._value(raw, response))))
                return
            reader, size = codec.reader(), 0
            while data := await self._some(response):
                size += len(data)
                if size > self._max_bytes:
                    raise too_large_error(self._what, self._max_bytes)
                events = reader.feed(data)
                if events:
                    yield events
                if reader.is_over:
                    return
            last = reader.end()
            if last:
                yield last
        finally:
            if reader is not None and reader.is_over and not response.content.at_eof():
                await _drained(response)
            response.close()

    async def aclose(self) -> None:
        """See `Upstream.aclose`."""
        session, self._session = self._session, None
        if session is not None:
            with suppress(RuntimeError):  # the loop they belonged to may be closed
                await session.close()

    def _written(self, question: Question, *, stream: bool) -> tuple[UpstreamCodec, bytes]:
        """The codec of the API that is asked, and the request in its words."""
        paths = self._dialect.paths
        name = question.surface if question.surface in paths else self._dialect.main
        codec = UPSTREAMS[name]
        request = question.request
        said = fitted(request, surface=question.surface, upstream=name)
        for each, count in said.lost.items():
            question.lost[each] = question.lost.get(each, 0) + count
        interaction = said.interaction
        if interaction.model != question.model:
            interaction = msgspec.structs.replace(interaction, model=question.model)
        return codec, json_body(codec.encode_request(interaction, stream=stream, extras=said.extras))

    def _value(self, raw: bytes, response: aiohttp.ClientResponse) -> Any:
        headers = {"content-type": response.headers.get("Content-Type", "")}
        if json_or_none(raw[:1]) is None and looks_like_html(headers, raw):
            raise no_json_error(self._what, headers, raw)
        return decode_strict(raw, what=f"{self._what}: the answer is something")

    async def _post(self, api: str, body: bytes, question: Question) -> aiohttp.ClientResponse:
        import aiohttp

        session = self._session_here()
        headers = self._with_key(question.key) if question.key else self._renewed()
        if question.traceparent:
            headers = {**headers, "traceparent": question.traceparent}
        for is_last in (False, True):
            try:
                response = await session.post(
                    self._targets[api], data=body, headers=headers, allow_redirects=False
                )
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

    def _renewed(self) -> dict[str, str]:
        """The headers that differ from the session's because the key was renewed; mostly none."""
        key = "" if self._key is None else self._key.reveal()
        return {} if key == self._known_key else self._with_key(key)

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
            self._targets = {api: URL(url) for api, url in self._urls.items()}
            self._session = aiohttp.ClientSession(
                headers=self._headers,
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


def api_urls(base_url: str, paths: Mapping[str, str]) -> dict[str, str]:
    """Where each API is asked below a base URL; a query is kept, and a base may end in `/v1` or not.

    Raises:
        UsageError: for what is no http(s) URL, or one with a user name or password.
    """
    base = checked_url(base_url, what="the base URL of a provider")
    path, mark, query = base.partition("?")
    path = path.rstrip("/")
    found = {}
    for api, below in paths.items():
        root = path.removesuffix("/v1") if below.startswith("/v1/") else path
        found[api] = f"{root}{below}{mark}{query}"
    return found
