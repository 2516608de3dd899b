"""Where answers come from: models by name, each behind a provider of the gateway file, with its fallbacks.

The address of a provider comes from the gateway file only; a request chooses among names.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from stanchion.core.codec import digest
from stanchion.core.errors import did_you_mean
from stanchion.core.interaction import Interaction, Reply, StreamEvent, Usage
from stanchion.gateway.ports import Outcome, Refused
from stanchion.models.client import ModelClient
from stanchion.models.endpoint import Prices
from stanchion.models.wire import Request


class Shown(Protocol):
    """What a client has been sent of an answer."""

    @property
    def has_begun(self) -> bool:
        """Whether any of it has."""
        ...


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What a model is asked: a request as the guard left it, in the words of the API it came by (`surface`).

    `key` is the client's own key for the vendor, where the gateway forwards it; `traceparent` goes with it
    where there is a trace. `headers` are what the client says to its vendor in headers. `lost` is where a
    provider counts what its API has no word for. `shown` is the streamed answer to the client, where there is
    one: pieces of it may be gathered once it has begun.
    """

    request: Request
    surface: str
    model: str
    key: str = ""
    traceparent: str = ""
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    lost: dict[str, int] = msgspec.field(default_factory=dict)
    shown: Shown | None = None

    @property
    def interaction(self) -> Interaction:
        """The exchange so far."""
        return self.request.interaction


class Upstream(Protocol):
    """One provider."""

    async def ask(self, question: Question) -> Reply:
        """The whole answer.

        Raises:
            UnavailableError, DeadlineError: when there is none that can be judged.
            UsageError: when the API cannot say what is asked.
        """
        ...

    def stream(self, question: Question) -> AsyncGenerator[Sequence[StreamEvent], None]:
        """The answer's events, as many at a time as came together; the last one is `End`."""
        ...

    async def aclose(self) -> None:
        """Close the connections; safe to call twice."""
        ...


class ClientUpstream:
    """A model in this process, such as the scripted or the local one."""

    def __init__(self, client: ModelClient) -> None:
        self._client = client

    async def ask(self, question: Question) -> Reply:
        """See `Upstream.ask`."""
        answered = await self._client.invoke(_under_its_name(question))
        if answered.reply is None:
            raise ValueError("a model client answered without a reply")
        return answered.reply

    async def stream(self, question: Question) -> AsyncGenerator[Sequence[StreamEvent], None]:
        """See `Upstream.stream`."""
        events = self._client.stream(_under_its_name(question))
        try:
            async for event in events:
                yield (event,)
        finally:
            close = getattr(events, "aclose", None)
            if close is not None:
                await close()

    async def aclose(self) -> None:
        """See `Upstream.aclose`."""
        await self._client.aclose()


def _under_its_name(question: Question) -> Interaction:
    """The exchange with the model's name at the provider, which clients may know by another."""
    asked = question.interaction
    return asked if asked.model == question.model else msgspec.structs.replace(asked, model=question.model)


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """A provider by its name in the gateway file; `vendor` is whose dialect it speaks.

    `takes_keys` says that a client's own key of this vendor may be forwarded to it; `apis` are the APIs it
    speaks, empty for a model in this process. `address` is for records; no client is told it.
    `allow_parameters` and `unknown_parameters` (`block`, `drop` or `pass`) are the rules of
    `extra_parameters`, `allow_tools` those of `builtin_tools`, `allow_betas`, `allow_versions` and
    `unknown_betas` (`block` or `drop`) those of `anthropic_headers`.
    """

    name: str
    vendor: str
    upstream: Upstream
    prices: Mapping[str, Prices]
    timeout_s: float = 60.0
    takes_keys: bool = False
    apis: frozenset[str] = frozenset()
    allow_parameters: frozenset[str] = frozenset()
    unknown_parameters: str = "block"
    address: str = ""
    allow_tools: frozenset[str] = frozenset()
    allow_betas: frozenset[str] = frozenset()
    allow_versions: frozenset[str] = frozenset()
    unknown_betas: str = "block"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fallback:
    """What is done when a model does not answer: another model, a canned answer, or a person."""

    model: str = ""
    answer: str = ""
    human: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A model as clients name it, and what stands behind the name."""

    name: str
    provider: Provider
    model: str
    prices: Prices | None = None
    fallback: tuple[Fallback, ...] = ()
    digest: str = ""

    def priced(self, usage: Usage) -> Usage:
        """The usage with its cost, where prices are known."""
        if self.prices is None or usage.cost_usd is not None:
            return usage
        return msgspec.structs.replace(usage, cost_usd=self.prices.cost_usd(usage))


def make_route(
    name: str,
    provider: Provider,
    model: str,
    *,
    prices: Prices | None = None,
    fallback: tuple[Fallback, ...] = (),
) -> Route:
    """A route with the digest of what it is known to be: provider and model name."""
    return Route(
        name=name,
        provider=provider,
        model=model,
        prices=prices or provider.prices.get(model),
        fallback=fallback,
        digest=digest({"provider": provider.name, "vendor": provider.vendor, "model": model}),
    )


class Models:
    """The models by name. `pass_through` maps a vendor's API to the provider that takes unknown names."""

    def __init__(
        self,
        routes: Mapping[str, Route],
        *,
        providers: Mapping[str, Provider],
        pass_through: Mapping[str, str] | None = None,
    ) -> None:
        self.routes = dict(routes)
        self.providers = dict(providers)
        self.pass_through = dict(pass_through or {})
        self._passed: dict[tuple[str, str], Route] = {}

    def find(self, name: str, *, vendor: str) -> Route:
        """What stands behind a model's name.

        Raises:
            Refused: `invalid` with status 404 for a name that is not known, with the nearest ones.
        """
        route = self.routes.get(name)
        if route is not None:
            return route
        provider = self.providers.get(self.pass_through.get(vendor, ""))
        if provider is None or not _is_name(name):
            raise Refused(
                Outcome.INVALID,
                status=404,
                code="model_not_found",
                message="there is no model of this name here.",
                hint=did_you_mean(name[:100], self.routes),
            )
        passed = self._passed.get((vendor, name))
        if passed is None:
            passed = make_route(name, provider, name)
            if len(self._passed) < _MOST_PASSED:
                self._passed[vendor, name] = passed
        return passed

    def knows(self, name: str, *, vendor: str) -> bool:
        """Whether a model of this name can be asked for."""
        return name in self.routes or (self.pass_through.get(vendor, "") in self.providers and _is_name(name))

    def names(self) -> tuple[str, ...]:
        """The names that clients may use."""
        return tuple(self.routes)

    async def aclose(self) -> None:
        """Close the connections of every provider."""
        for provider in self.providers.values():
            await provider.upstream.aclose()


_MOST_PASSED = 256


def _is_name(name: str) -> bool:
    """Whether it may be a model's name: no URL, no path upwards, nothing that splits a line."""
    return (
        0 < len(name) <= 200
        and name.isascii()
        and name.isprintable()
        and " " not in name
        and "://" not in name
        and ".." not in name
        and not name.startswith("/")
    )
