"""A provider behind HTTP: one pool of connections, keys added here only, bytes decoded into events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from stanchion.core.clock import Clock
from stanchion.core.errors import UnavailableError, UsageError
from stanchion.core.interaction import Reply, StreamEvent
from stanchion.core.running_loop import running_loop
from stanchion.core.version import package_version
from stanchion.gateway.upstream import Question
from stanchion.gateway.upstream_connection import Incoming
from stanchion.gateway.upstream_faults import LinkFault, fault_error
from stanchion.gateway.upstream_pool import Origin, Pool, PoolLimits
from stanchion.models.answer_reader import AnswerReader
from stanchion.models.endpoint import ANTHROPIC_VERSION, SecretLike
from stanchion.models.events import events_of
from stanchion.models.http_client import checked_url, json_body, shown_url
from stanchion.models.http_errors import (
    json_or_none,
    looks_like_html,
    no_json_error,
    redirect_error,
    status_error,
    too_large_error,
)
from stanchion.models.openai_vectors import EMBEDDINGS, check_vectors
from stanchion.models.plain import plain_question, plain_reply
from stanchion.models.strict_json import decode_strict
from stanchion.models.translation import fitted
from stanchion.models.upstreams import UPSTREAMS, UpstreamCodec

if TYPE_CHECKING:
    from yarl import URL

_ERROR_BODY_BYTES = 64 * 1024
_CODINGS = (b"", b"identity")


class Dialect(msgspec.Struct, frozen=True, kw_only=True):
    """How a kind of provider is asked: the paths of its APIs, and the one for requests of any other API.

    `said` are headers for requests whose client says nothing else.
    """

    vendor: str
    paths: dict[str, str]
    main: str
    said: dict[str, str] = {}

    def key_line(self, key: str) -> bytes:
        """The header that carries the key; nothing without one.

        Raises:
            UsageError: for a key that no header can carry.
        """
        said = _plain(key, "")  # spaces around it would hide behind the word before it
        if not said:
            return b""
        return (
            b"x-api-key: %s\r\n" if self.vendor == "anthropic" else b"authorization: Bearer %s\r\n"
        ) % said


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
        vendor="anthropic",
        main="anthropic.messages",
        paths={
            "anthropic.messages": "/v1/messages",
            "anthropic.count_tokens": "/v1/messages/count_tokens",
        },
        said={"anthropic-version": ANTHROPIC_VERSION},
    ),
}


class HttpUpstream:
    """Asks one provider over HTTP.

    Redirects are not followed, proxies of the environment are not used, and cookies are not kept. A pooled
    connection that the other side had closed is replaced once, when nothing of an answer had come.

    Args:
        base_url: the API's base, from the gateway file.
        name: the provider's name there; errors say it and not the address, because clients read them.
        dialect: how it is asked.
        key: sent as the API demands; never shown.
        clock: for `Retry-After` dates.
        connect_s: how long a connection may take.
        idle_s: how long the other side may say nothing.
        max_connections: how many at a time.
        gather_s: once a client has been sent something of a stream, how long more of it is gathered.
        max_response_bytes: the most that an answer may have.
    """

    def __init__(
        self,
        base_url: str,
        *,
        dialect: Dialect,
        clock: Clock,
        name: str = "",
        key: SecretLike | None = None,
        connect_s: float = 10.0,
        idle_s: float = 60.0,
        max_connections: int = 1000,
        gather_s: float = 0.0,
        max_response_bytes: int = 16 * 1024 * 1024,
    ) -> None:
        self._urls = api_urls(base_url, dialect.paths)
        self._dialect = dialect
        self._clock = clock
        self._gather_s = gather_s
        self._limits = PoolLimits(connect_s=connect_s, idle_s=idle_s, max_connections=max_connections)
        self._max_bytes = max_response_bytes
        self._pool: Pool | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._what = f"the provider {name!r}" if name else "the provider"
        self.address = shown_url(self._urls[dialect.main])
        self._key = key  # it may change while we run
        self._known_key = "" if key is None else key.reveal()
        self._known_line = dialect.key_line(self._known_key)
        self._heads = self._made_heads()

    async def ask(self, question: Question) -> Reply:
        """See `Upstream.ask`."""
        codec, body = self._written(question, stream=False)
        head, pool = self._head(codec.name, body, question), self._pool_here()
        try:
            incoming = await pool.ask(head, body, collect=self._max_bytes)
        except LinkFault as fault:
            raise fault_error(self._what, fault, limit=self._max_bytes) from None
        try:
            if incoming.status != 200:
                raise await self._refused(incoming)
            self._check_coding(incoming)
            raw = incoming.taken()
        finally:
            incoming.close()
        is_page = b"html" in incoming.headers.get(b"content-type", b"").lower()
        plain = None if is_page else plain_reply(codec.name, raw)
        reply = codec.decode_reply(self._value(raw, incoming)) if plain is None else plain
        if codec.name == EMBEDDINGS:
            check_vectors(reply, question.request)
        return reply

    async def stream(self, question: Question) -> AsyncGenerator[Sequence[StreamEvent], None]:
        """See `Upstream.stream`."""
        codec, body = self._written(question, stream=True)
        head, pool = self._head(codec.name, body, question), self._pool_here()
        try:
            incoming = await pool.ask(head, body)
        except LinkFault as fault:
            raise fault_error(self._what, fault, limit=self._max_bytes) from None
        reader: AnswerReader | None = None
        try:
            if incoming.status != 200:
                raise await self._refused(incoming)
            self._check_coding(incoming)
            kind = incoming.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
            if kind in (b"application/json", b"text/html"):
                raw = await self._read(incoming, self._max_bytes)
                yield tuple(events_of(codec.decode_reply(self._value(raw, incoming))))
                return
            reader, size = codec.reader(), 0
            while data := await self._some(incoming):
                size += len(data)
                if size > self._max_bytes:
                    raise too_large_error(self._what, self._max_bytes)
                events = reader.feed(data)
                if events:
                    yield events
                if reader.is_over:
                    return
                if self._gather_s and question.shown is not None and question.shown.has_begun:
                    await incoming.rest(self._gather_s)
            last = reader.end()
            if last:
                yield last
        finally:
            incoming.close(may_linger=reader is not None and reader.is_over)

    async def aclose(self) -> None:
        """See `Upstream.aclose`."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()
            if self._loop is asyncio.get_running_loop():
                await asyncio.sleep(0)  # the transports close their sockets in the next turn

    def _written(self, question: Question, *, stream: bool) -> tuple[UpstreamCodec, bytes]:
        """The codec of the API that is asked, and the request in its words."""
        surface, request = question.surface, question.request
        name = surface if surface in self._dialect.paths else self._dialect.main
        codec = UPSTREAMS[name]
        interaction, extras = request.interaction, request.extras
        if name != surface:
            said = fitted(request, surface=surface, upstream=name)
            interaction, extras = said.interaction, said.extras
            for each, count in said.lost.items():
                question.lost[each] = question.lost.get(each, 0) + count
        plain = plain_question(name, interaction, model=question.model, stream=stream, extras=extras)
        if plain is not None:
            return codec, plain
        if interaction.model != question.model:
            interaction = msgspec.structs.replace(interaction, model=question.model)
        return codec, json_body(codec.encode_request(interaction, stream=stream, extras=extras))

    def _value(self, raw: bytes, incoming: Incoming) -> Any:
        headers = _words(incoming)
        if json_or_none(raw[:1]) is None and looks_like_html(headers, raw):
            raise no_json_error(self._what, headers, raw)
        return decode_strict(raw, what=f"{self._what}: the answer is something")

    def _head(self, api: str, body: bytes, question: Question) -> bytes:
        """The head of a request, with the empty line at its end."""
        head = self._heads[api] + self._key_line(question.key)
        if question.traceparent:
            head += b"traceparent: %s\r\n" % _plain(question.traceparent, "traceparent")
        said = self._dialect.said
        if question.headers:
            said = said | question.headers
        if said:
            head += _lines(said)
        return b"%scontent-length: %d\r\n\r\n" % (head, len(body))

    def _check_coding(self, incoming: Incoming) -> None:
        coding = incoming.headers.get(b"content-encoding")
        if coding is not None and coding.strip().lower() not in _CODINGS:
            raise UnavailableError(
                f"{self._what}: its answer is compressed, though we ask for none of that.",
                hint="Look at what stands in front of the endpoint.",
                is_retryable=False,
            )

    async def _some(self, incoming: Incoming) -> bytes:
        """The next bytes; empty at the end."""
        try:
            return await incoming.some()
        except LinkFault as fault:
            raise fault_error(self._what, fault, limit=self._max_bytes) from None

    async def _read(self, incoming: Incoming, limit: int) -> bytes:
        pieces: list[bytes] = []
        size = 0
        while piece := await self._some(incoming):
            size += len(piece)
            if size > limit:
                raise too_large_error(self._what, limit)
            pieces.append(piece)
        return b"".join(pieces)

    async def _refused(self, incoming: Incoming) -> UnavailableError:
        """What any status but 200 means; redirects are not followed."""
        if 300 <= incoming.status < 400:
            return redirect_error(self._what, incoming.status, "another address")
        try:
            body = await self._read(incoming, _ERROR_BODY_BYTES)
        except UnavailableError:
            body = b""
        return status_error(self._what, incoming.status, _words(incoming), body, now=self._clock.now())

    def _key_line(self, key: str) -> bytes:
        """The header that carries the key: the client's own where it gave one, else the gateway's."""
        if key:
            return self._dialect.key_line(key)
        key = "" if self._key is None else self._key.reveal()
        if key != self._known_key:  # it was renewed
            self._known_line, self._known_key = self._dialect.key_line(key), key
        return self._known_line

    def _made_heads(self) -> dict[str, bytes]:
        """The head of a request to each API, without its key and its length."""
        from yarl import URL

        heads = {}
        for api, written in self._urls.items():
            url = URL(written)
            headers = {
                "host": _authority(url),
                "content-type": "application/json",
                "accept": "application/json, text/event-stream",
                "accept-encoding": "identity",
                "user-agent": f"stanchion/{package_version()}",
            }
            heads[api] = b"POST %s HTTP/1.1\r\n%s" % (_plain(url.raw_path_qs, "the address"), _lines(headers))
        return heads

    def _pool_here(self) -> Pool:
        """The pool of the running loop; a loop that is gone took its connections with it."""
        loop = running_loop()
        if self._pool is None or self._loop is not loop:
            from yarl import URL

            if self._pool is not None:
                self._pool.close()
            self._loop = loop
            url = URL(self._urls[self._dialect.main])
            origin = Origin(scheme=url.scheme, host=url.raw_host or "", port=url.port or 80)
            self._pool = Pool(origin, self._limits)
        return self._pool


def _lines(headers: Mapping[str, str]) -> bytes:
    """Headers as they are sent."""
    return b"".join([b"%s: %s\r\n" % (name.encode(), _plain(value, name)) for name, value in headers.items()])


def _plain(value: str, name: str) -> bytes:
    """A value as the header of this name carries it; no name: the API key.

    Raises:
        UsageError: when no header can.
    """
    if not value.isascii() or not value.isprintable() or value != value.strip():
        raise UsageError(
            f"{name or 'the API key'} holds characters that no HTTP header can carry.",
            hint="Look for a newline or a space at its end, where it is read from.",
        )
    return value.encode("ascii")


def _authority(url: URL) -> str:
    """What `host` says: the port only where it is not the scheme's own."""
    host = url.raw_host or ""
    shown = f"[{host.partition('%')[0]}]" if ":" in host else host
    return shown if url.is_default_port() else f"{shown}:{url.port}"


def _words(incoming: Incoming) -> dict[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in incoming.headers.items()}


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
