"""A model behind an OpenAI-compatible or Anthropic endpoint."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Protocol

import msgspec

from stanchion.core.clock import Clock, SystemClock
from stanchion.core.codec import digest
from stanchion.core.components import ComponentSet
from stanchion.core.errors import UsageError
from stanchion.core.interaction import Interaction, StreamEvent, Usage, UsageEvent
from stanchion.core.version import package_version
from stanchion.models import anthropic, openai
from stanchion.models.answer_stream import AnswerStream, Api, decode_answer
from stanchion.models.http_client import Call, HttpClient, HttpLimits, checked_url, json_body, shown_url
from stanchion.models.retry import Deadline, Jitter, Retries, RetryPolicy, Sleep
from stanchion.models.wire import JsonObject

ANTHROPIC_VERSION = "2023-06-01"


class SecretLike(Protocol):
    """A value that shows itself only when asked to."""

    def reveal(self) -> str:
        """The value itself."""
        ...


class Prices(msgspec.Struct, frozen=True, kw_only=True):
    """US dollars per million tokens; cached input costs as much as other input unless it is told."""

    input_usd: float
    output_usd: float
    cached_input_usd: float | None = None

    def cost_usd(self, usage: Usage) -> float | None:
        """What an exchange cost; None when its tokens are not known."""
        if usage.input_tokens is None or usage.output_tokens is None:
            return None
        cached = min(usage.cached_input_tokens or 0, usage.input_tokens)
        cached_price = self.input_usd if self.cached_input_usd is None else self.cached_input_usd
        fresh = usage.input_tokens - cached
        return (fresh * self.input_usd + cached * cached_price + usage.output_tokens * self.output_usd) / 1e6


class EndpointOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How an endpoint is used. `extras` are parameters that go into every request as they are."""

    limits: HttpLimits = HttpLimits()
    retry: RetryPolicy = RetryPolicy()
    prices: Prices | None = None
    style: openai.Style = openai.PLAIN
    extras: dict[str, Any] = msgspec.field(default_factory=dict)


DEFAULTS = EndpointOptions()


class EndpointModel:
    """Asks an endpoint, with retries, and says clearly why when it does not answer.

    A stream is tried again only while nothing of it was passed on. The request's own model name is ignored:
    the endpoint's model is a part of its identity.

    Args:
        base_url: the API's base, such as `https://api.openai.com/v1` or `https://api.anthropic.com`.
        api: which wire format it speaks.
        model: the model's name there.
        api_key: sent as the API demands; never logged, shown or stored.
        options: limits, retries, prices, dialect.
        clock: for latency and `Retry-After` dates.
        sleep: waits between retries.
        jitter: draws the waits.
    """

    def __init__(
        self,
        base_url: str,
        *,
        model: str,
        api: Api = "openai",
        api_key: SecretLike | None = None,
        options: EndpointOptions = DEFAULTS,
        clock: Clock | None = None,
        sleep: Sleep = asyncio.sleep,
        jitter: Jitter | None = None,
    ) -> None:
        if api not in ("openai", "anthropic"):
            raise UsageError(f"unknown API {api!r}.", hint="Allowed: 'openai', 'anthropic'.")
        self._url = _chat_url(checked_url(base_url, what="the base URL of the endpoint"), api)
        self._api: Api = api
        self._model = model
        self._key = api_key
        self._options = options
        self._clock = clock or SystemClock()
        self._retries = Retries(options.retry, sleep=sleep, jitter=jitter)
        self._http = HttpClient(options.limits, clock=self._clock)
        identity = {"api": api, "url": shown_url(self._url), "model": model, "extras": options.extras}
        self._components = ComponentSet(model=digest(identity))

    @property
    def id(self) -> str:
        """The API and the model's name: `openai:gpt-x`."""
        return f"{self._api}:{self._model}"

    @property
    def components(self) -> ComponentSet:
        """The digest of address, model name and fixed parameters: what really runs there is not known."""
        return self._components

    async def invoke(self, interaction: Interaction) -> Interaction:
        """The request with the endpoint's answer.

        Raises:
            UnavailableError: when no answer came that can be judged.
            DeadlineError: when it did not come within `limits.deadline_s`, retries included.
            UsageError: when the API cannot say what the interaction says.
        """
        call = self._call(self._body(interaction, stream=False))
        began = self._clock.monotonic_ns()
        deadline = Deadline(self._options.limits.deadline_s, what=call.what)
        body = await self._retries.run(lambda: self._http.fetch_json(call), deadline)
        reply = decode_answer(self._api, body, what=call.what)
        latency_ms = (self._clock.monotonic_ns() - began) / 1e6
        usage = self._priced(reply.usage)
        reply = msgspec.structs.replace(reply, usage=usage, latency_ms=latency_ms)
        return msgspec.structs.replace(interaction, reply=reply)

    async def stream(self, interaction: Interaction) -> AsyncIterator[StreamEvent]:
        """The answer's events as they come; raises what `invoke` raises."""
        call = self._call(self._body(interaction, stream=True))
        deadline = Deadline(self._options.limits.deadline_s, what=call.what)
        answer = AnswerStream(self._http, call, self._api)
        try:
            event = await self._retries.run(answer.begin, deadline)
            while event is not None:
                yield self._with_cost(event)
                event = await deadline.hold(answer.next())
        finally:
            await answer.aclose()

    async def aclose(self) -> None:
        """Close the connections; safe to call twice."""
        await self._http.aclose()

    def _body(self, interaction: Interaction, *, stream: bool) -> JsonObject:
        asked = msgspec.structs.replace(interaction, model=self._model)
        extras = self._options.extras
        if self._api == "anthropic":
            return anthropic.encode_request(asked, stream=stream, extras=extras)
        return openai.encode_request(asked, stream=stream, extras=extras, style=self._options.style)

    def _call(self, body: JsonObject) -> Call:
        return Call(
            what=f"model {self.id!r} at {shown_url(self._url)}",
            url=self._url,
            headers=self._headers(),
            body=json_body(body),
        )

    def _headers(self) -> dict[str, str]:
        headers = {
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
            "accept-encoding": "identity",
            "user-agent": f"stanchion/{package_version()}",
        }
        if self._api == "anthropic":
            headers["anthropic-version"] = ANTHROPIC_VERSION
        if self._key is not None:
            name = "x-api-key" if self._api == "anthropic" else "authorization"
            headers[name] = _header_value(self._key.reveal(), bearer=self._api == "openai")
        return headers

    def _priced(self, usage: Usage) -> Usage:
        prices = self._options.prices
        return usage if prices is None else msgspec.structs.replace(usage, cost_usd=prices.cost_usd(usage))

    def _with_cost(self, event: StreamEvent) -> StreamEvent:
        return UsageEvent(usage=self._priced(event.usage)) if isinstance(event, UsageEvent) else event


def _chat_url(base: str, api: Api) -> str:
    """Where the API takes chats; an Anthropic base may or may not end in `/v1`. A query is kept."""
    path, mark, query = base.partition("?")
    path = path.rstrip("/")
    if api == "openai":
        return f"{path}/chat/completions{mark}{query}"
    return f"{path.removesuffix('/v1')}/v1/messages{mark}{query}"


def _header_value(secret: str, *, bearer: bool) -> str:
    if not secret.isascii() or not secret.isprintable() or secret != secret.strip():
        raise UsageError(
            "the API key holds characters that no HTTP header can carry.",
            hint="Look for a newline or a space at its end, where it is read from.",
        )
    return f"Bearer {secret}" if bearer else secret
