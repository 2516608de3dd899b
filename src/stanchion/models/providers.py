"""Providers: where a request goes, with which headers and body, and how its answer is read.

A provider turns a body of its API into a `Call`; `UpstreamClient` sends it. Options are plain structs without
secrets; keys and credentials are passed in beside them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, Protocol
from urllib.parse import urlencode

import msgspec

from stanchion.core.clock import Clock, SystemClock
from stanchion.core.errors import UnavailableError, UsageError
from stanchion.core.interaction import Interaction, Reply, StreamEvent
from stanchion.core.version import package_version
from stanchion.models.answer_reader import AnswerReader
from stanchion.models.events import events_of
from stanchion.models.http_client import Call, HttpClient, HttpLimits, checked_url, json_body, shown_url
from stanchion.models.http_errors import json_or_none, no_json_error
from stanchion.models.strict_json import decode_strict
from stanchion.models.upstreams import UPSTREAMS, UpstreamCodec
from stanchion.models.wire import JsonObject

ANTHROPIC_VERSION = "2023-06-01"
_PATHS = {
    "openai.chat": "/chat/completions",
    "openai.responses": "/responses",
    "openai.embeddings": "/embeddings",
    "openai.moderations": "/moderations",
}
# What a caller may add to a request: never a key, a host or the length of a body.
_OWN_HEADERS = frozenset(
    {"authorization", "api-key", "x-api-key", "host", "content-length", "transfer-encoding", "connection"}
    | {"cookie", "proxy-authorization", "x-amz-date", "x-amz-security-token", "content-type"}
)


class SecretLike(Protocol):
    """A value that shows itself only when asked to."""

    def reveal(self) -> str:
        """The value itself."""
        ...


class Provider(Protocol):
    """One provider and one of its APIs."""

    @property
    def codec(self) -> UpstreamCodec:
        """How its requests are written and its answers read."""
        ...

    async def call(
        self, body: JsonObject, *, model: str, stream: bool, headers: Mapping[str, str] | None = None
    ) -> Call:
        """The request as it is sent.

        Args:
            body: what the codec wrote.
            model: the model's name at the provider (a deployment, a model id).
            stream: whether the answer is to be streamed.
            headers: further headers, such as `traceparent`.

        Raises:
            UnavailableError: when no token could be had.
            UsageError: for a header that the provider sets itself, or a key that no header can carry.
        """
        ...

    def refusal(self, error: UnavailableError) -> Reply | None:
        """The answer in an error that is one: the provider's own filter stopped it. Usually None."""
        ...


def base_headers(further: Mapping[str, str] | None, own: Mapping[str, str]) -> dict[str, str]:
    """The headers of a request; what a caller adds may not replace the provider's own.

    Raises:
        UsageError: for a header that the provider sets itself, or one that splits a line.
    """
    headers = {
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        "accept-encoding": "identity",
        "user-agent": f"stanchion/{package_version()}",
    }
    for name, value in (further or {}).items():
        low = name.lower()
        if low in _OWN_HEADERS or not _is_header(low, value):
            raise UsageError(f"the header {low[:60]!r} cannot be added to a request for a provider.")
        headers[low] = value
    return headers | dict(own)


def _is_header(name: str, value: str) -> bool:
    return name.replace("-", "").replace("_", "").isalnum() and value.isascii() and value.isprintable()


def secret_text(secret: SecretLike | None) -> str:
    """A key as a header carries it; empty without one.

    Raises:
        UsageError: for a key with characters that no header can carry.
    """
    key = "" if secret is None else secret.reveal()
    if not key.isascii() or not key.isprintable() or key != key.strip():
        raise UsageError(
            "the API key holds characters that no HTTP header can carry.",
            hint="Look for a newline or a space at its end, where it is read from.",
        )
    return key


class OpenAiProvider:
    """OpenAI, or whatever speaks one of its APIs.

    Args:
        base_url: up to and with `/v1`.
        api: `openai.chat`, `openai.responses`, `openai.embeddings` or `openai.moderations`.
        key: sent as a bearer token.
        codec: another dialect than the usual one.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api: str = "openai.chat",
        key: SecretLike | None = None,
        codec: UpstreamCodec | None = None,
    ) -> None:
        if api not in _PATHS:
            raise UsageError(f"unknown API {api!r}.", hint=f"Allowed: {', '.join(_PATHS)}.")
        path, mark, query = checked_url(base_url, what="the base URL of the provider").partition("?")
        self._url = f"{path.rstrip('/')}{_PATHS[api]}{mark}{query}"
        self._own = {"authorization": f"Bearer {secret_text(key)}"} if key is not None else {}
        self.codec = codec or UPSTREAMS[api]

    async def call(
        self, body: JsonObject, *, model: str, stream: bool, headers: Mapping[str, str] | None = None
    ) -> Call:
        """See `Provider.call`."""
        return Call(
            what=f"model {model!r} at {shown_url(self._url)}",
            url=self._url,
            headers=base_headers(headers, self._own),
            body=json_body({**body, "model": model}),
        )

    def refusal(self, error: UnavailableError) -> Reply | None:
        """None: errors are errors."""
        return None


class AnthropicProvider:
    """Anthropic, or whatever speaks its messages API; the base may or may not end in `/v1`."""

    def __init__(self, base_url: str, *, key: SecretLike | None = None, beta: tuple[str, ...] = ()) -> None:
        path, mark, query = checked_url(base_url, what="the base URL of the provider").partition("?")
        self._url = f"{path.rstrip('/').removesuffix('/v1')}/v1/messages{mark}{query}"
        self._own = {"anthropic-version": ANTHROPIC_VERSION}
        if key is not None:
            self._own["x-api-key"] = secret_text(key)
        if beta:
            self._own["anthropic-beta"] = ",".join(beta)
        self.codec = UPSTREAMS["anthropic.messages"]

    async def call(
        self, body: JsonObject, *, model: str, stream: bool, headers: Mapping[str, str] | None = None
    ) -> Call:
        """See `Provider.call`."""
        return Call(
            what=f"model {model!r} at {shown_url(self._url)}",
            url=self._url,
            headers=base_headers(headers, self._own),
            body=json_body({**body, "model": model}),
        )

    def refusal(self, error: UnavailableError) -> Reply | None:
        """None: errors are errors."""
        return None


def with_query(url: str, **query: str) -> str:
    """The address with a query; empty values are left out."""
    said = {name.replace("_", "-"): value for name, value in query.items() if value}
    return f"{url}?{urlencode(said)}" if said else url


class UpstreamClient:
    """Asks one provider, once for each call: no retries, which belong to whoever knows the deadline.

    Args:
        provider: where and how.
        limits: connections and sizes; `deadline_s` is the caller's business.
        clock: for `Retry-After` dates and signatures.
        what: how errors call it, where whoever reads them need not know its address.
    """

    def __init__(
        self,
        provider: Provider,
        *,
        limits: HttpLimits | None = None,
        clock: Clock | None = None,
        what: str = "",
    ) -> None:
        self._provider = provider
        self._what = what
        self._http = HttpClient(limits or HttpLimits(max_connections=1000), clock=clock or SystemClock())

    async def ask(
        self,
        interaction: Interaction,
        *,
        model: str,
        extras: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """The whole answer.

        Raises:
            UnavailableError: when there is none that can be judged.
            UsageError: when the API cannot say what is asked.
        """
        call = await self._call(interaction, model, (extras, headers), stream=False)
        try:
            answered, raw = await self._http.fetch(call)
        except UnavailableError as error:
            return self._refused(error)
        if json_or_none(raw) is None:
            raise no_json_error(call.what, answered, raw)
        value = decode_strict(raw, what=f"{call.what}: the answer is something")
        return self._provider.codec.decode_reply(value)

    async def stream(
        self,
        interaction: Interaction,
        *,
        model: str,
        extras: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[list[StreamEvent], None]:
        """The events of the answer, as many at a time as came together; the last one is `End`.

        Raises:
            UnavailableError: when there is no answer, or it breaks off.
            UsageError: when the API cannot say what is asked.
        """
        codec = self._provider.codec
        call = await self._call(interaction, model, (extras, headers), stream=True)
        limit = self._http.limits.max_response_bytes
        try:
            async with self._http.open(call) as response:
                chunks = self._http.read_chunks(call, response, limit=limit)
                kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
                if kind in ("application/json", "text/html"):
                    raw = b"".join([chunk async for chunk in chunks])
                    if json_or_none(raw) is None:
                        raise no_json_error(call.what, {"content-type": kind}, raw)
                    yield list(events_of(codec.decode_reply(decode_strict(raw, what=call.what))))
                    return
                async with aclosing(_read(codec.reader(), chunks)) as batches:
                    async for batch in batches:
                        yield batch
        except UnavailableError as error:
            yield list(events_of(self._refused(error)))

    async def aclose(self) -> None:
        """Close the connections; safe to call twice."""
        await self._http.aclose()

    async def _call(
        self,
        interaction: Interaction,
        model: str,
        further: tuple[Mapping[str, Any] | None, Mapping[str, str] | None],
        *,
        stream: bool,
    ) -> Call:
        extras, headers = further
        asked = msgspec.structs.replace(interaction, model=model)
        body = self._provider.codec.encode_request(asked, stream=stream, extras=extras)
        call = await self._provider.call(body, model=model, stream=stream, headers=headers)
        return msgspec.structs.replace(call, what=self._what) if self._what else call

    def _refused(self, error: UnavailableError) -> Reply:
        """The reply in an error that is one.

        Raises:
            UnavailableError: for every other error.
        """
        reply = self._provider.refusal(error)
        if reply is None:
            raise error
        return reply


async def _read(reader: AnswerReader, chunks: Any) -> AsyncGenerator[list[StreamEvent], None]:
    async for chunk in chunks:
        events = reader.feed(chunk)
        if events:
            yield events
        if reader.is_over:
            return
    events = reader.end()
    if events:
        yield events
