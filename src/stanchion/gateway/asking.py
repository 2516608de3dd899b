"""Asking the model: breaker, deadline, fallback chain; and what is told the client when nobody answers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing

import msgspec

from stanchion.core.errors import DeadlineError, StanchionError, UnavailableError, UsageError
from stanchion.core.interaction import End, FinishReason, Reply, StreamEvent, assistant
from stanchion.gateway.anthropic_headers import BETA, passed_headers
from stanchion.gateway.deadlines import within
from stanchion.gateway.exchange import Exchange
from stanchion.gateway.extra_parameters import with_passed_extras
from stanchion.gateway.live import Live
from stanchion.gateway.permits import stand_again, standing_of, take_over
from stanchion.gateway.ports import Outcome, Refused, UpstreamTry
from stanchion.gateway.trace_facts import traceparent_of, try_span
from stanchion.gateway.upstream import Provider, Question, Route
from stanchion.gateway.upstream_fields import plain_events, plain_reply
from stanchion.models.events import events_of

_OUR_FAULT = frozenset({400, 404, 405, 409, 413, 415, 422})  # another provider would not like it either
_MAX_DETAIL = 400
_PASSED = frozenset({500, 503, 504, 529})  # clients tell these apart
# codes of vendors by which programs decide what to do next
_VENDOR_CODES = frozenset(
    {"context_length_exceeded", "insufficient_quota", "model_not_found", "rate_limit_exceeded"}
    | {"string_above_max_length", "unsupported_parameter", "unsupported_value", "invalid_value"}
    | {"invalid_api_key", "billing_hard_limit_reached", "invalid_image", "image_too_large"}
)
_ERRORS = (UnavailableError, DeadlineError, UsageError, TimeoutError)


class HandedOver(Exception):
    """The fallback chain ends with a person."""


async def ask(exchange: Exchange, route: Route, question: Question) -> Reply:
    """The answer of the first that gives one.

    Raises:
        Refused: `upstream_error` or `deadline`, when nobody does.
        HandedOver: when the chain ends with a person.
    """
    chain = _Chain(exchange, route)
    for here in chain:
        if isinstance(here, Reply):
            return here
        try:
            asked = here.provider.upstream.ask(chain.asked(question, here))
            reply = await within(exchange, here.provider.timeout_s, asked)
        except _ERRORS as error:
            chain.failed(here, error)
        except BaseException:
            chain.cut(here)
            raise
        else:
            chain.answered(here)
            return plain_reply(reply, here.name)
    raise chain.refusal()


async def stream(
    exchange: Exchange, route: Route, question: Question
) -> AsyncGenerator[Sequence[StreamEvent], None]:
    """The events of the first that begins to answer; from then on nobody else is asked.

    Raises:
        Refused: `upstream_error` or `deadline`, when nobody does, or when the answer breaks off.
    """
    chain = _Chain(exchange, route)
    for here in chain:
        if isinstance(here, Reply):
            yield tuple(events_of(here))
            return
        has_begun = is_whole = False
        source = here.provider.upstream.stream(chain.asked(question, here))
        async with aclosing(source):
            try:
                async for batch in source:
                    has_begun, is_whole = True, isinstance(batch[-1], End)
                    yield plain_events(batch, here.name)
            except _ERRORS as error:
                chain.failed(here, error)
                if has_begun:
                    raise chain.refusal() from None
            except BaseException:  # a reader that has enough closes us at the last event too
                if not is_whole:
                    chain.cut(here)
                raise
            else:
                return
            finally:
                if is_whole:
                    chain.answered(here)
    raise chain.refusal()


def question_for(route: Route, question: Question) -> Question:
    """The question as the provider of a route may get it: parameters, headers and key by its section."""
    provider = route.provider
    if question.request.extras:
        request = with_passed_extras(question.request, surface=question.surface, provider=provider)
        if request is not question.request:
            question = msgspec.structs.replace(question, request=request)
    if question.headers:
        question = _with_headers(question, provider)
    key = question.key
    if key and not (provider.takes_keys and question.surface.partition(".")[0] == provider.vendor):
        key = ""
    if route.model == question.model and key == question.key:
        return question
    return msgspec.structs.replace(question, model=route.model, key=key)


def _with_headers(question: Question, provider: Provider) -> Question:
    """The question with the headers that this provider gets; betas that are left out are counted."""
    said, left = passed_headers(question.headers, provider=provider)
    if question.surface not in provider.apis:
        said, left = {}, left + len([name for name in said.get(BETA, "").split(",") if name])
    if left:
        question.lost[BETA] = question.lost.get(BETA, 0) + left
    return msgspec.structs.replace(question, headers=said)


class _Chain:
    """The routes to try in order; writes down every try."""

    def __init__(self, exchange: Exchange, route: Route) -> None:
        self._exchange = exchange
        self._live: Live = exchange.live
        self._route = route
        self._error: StanchionError | TimeoutError | None = None
        self._stopped: tuple[Refused, str] | None = None
        self._may_go_on = True
        self._began_ns = 0
        self._span_id = ""
        self._is_clients_key = False
        self._left_alone: list[str] = []  # providers whose breaker is open

    def __iter__(self) -> Iterator[Route | Reply]:
        if self._may_call(self._route):
            yield self._begun(self._route)
        for fallback in self._route.fallback:
            if not self._may_go_on:
                return
            if fallback.model:
                route = self._live.models.routes[fallback.model]
                if self._takes_over(route):
                    yield self._begun(route)
            elif fallback.answer:
                self._note("canned", "", "answered")
                yield Reply(message=assistant(fallback.answer), finish_reason=FinishReason.STOP)
                return
            else:
                self._note("human", "", "handed_over")
                raise HandedOver

    def _may_call(self, route: Route) -> bool:
        breaker = self._live.parts.breaker
        if breaker is None or breaker.allows(route.provider.name):
            return True
        self._left_alone.append(route.provider.name)
        self._note(route.provider.name, route.model, "breaker_open")
        return False

    def _takes_over(self, route: Route) -> bool:
        """Whether a fallback may answer; the request stands as before where it may not."""
        exchange = self._exchange
        before = standing_of(exchange)
        try:
            take_over(exchange, route)
        except Refused as refused:
            self._stopped = refused, exchange.switch_id
            self._note(route.provider.name, route.model, refused.code)
        else:
            self._stopped = None
            if self._may_call(route):
                return True
        stand_again(exchange, before)
        return False

    def _begun(self, route: Route) -> Route:
        self._exchange.route = route
        self._began_ns = self._live.clock.monotonic_ns()
        return route

    def asked(self, question: Question, route: Route) -> Question:
        """The question as this route gets it, with its place in the trace."""
        facts, said = self._exchange.facts, question_for(route, question)
        self._is_clients_key = bool(said.key)
        self._span_id = try_span(facts)
        place = traceparent_of(facts, self._span_id)
        return msgspec.structs.replace(said, traceparent=place) if place else said

    def answered(self, route: Route) -> None:
        latency_ms = self._note(route.provider.name, route.model, "ok")
        if self._live.parts.breaker is not None:
            self._live.parts.breaker.succeeded(route.provider.name, latency_ms=latency_ms)

    def cut(self, route: Route) -> None:
        """We had enough, or were ended; that says nothing about the provider."""
        self._note(route.provider.name, route.model, "cut")
        if self._live.parts.breaker is not None:
            self._live.parts.breaker.released(route.provider.name)

    def failed(self, route: Route, error: StanchionError | TimeoutError) -> None:
        self._error = error
        self._note(route.provider.name, route.model, _status(error), detail=_detail(route, error))
        status = error.status if isinstance(error, UnavailableError) else None
        self._may_go_on = status not in _OUR_FAULT
        breaker = self._live.parts.breaker
        if breaker is None:
            return
        if self._may_go_on and not isinstance(error, UsageError):
            breaker.failed(route.provider.name)
        else:  # the request's own fault says nothing about others
            breaker.released(route.provider.name)

    def _note(self, provider: str, model: str, status: str, *, detail: str = "") -> float:
        elapsed_ns = self._live.clock.monotonic_ns() - self._began_ns if self._began_ns else 0
        self._began_ns = 0
        self._exchange.upstream_ns += elapsed_ns
        latency_ms = round(elapsed_ns / 1e6, 3)
        self._exchange.tries.append(
            UpstreamTry(
                provider=provider,
                model=model,
                status=status,
                latency_ms=latency_ms,
                span_id=self._span_id,
                detail=detail,
            )
        )
        self._span_id = ""
        return latency_ms

    def refusal(self) -> Refused:
        """What the client is told when nobody answered."""
        error = self._error
        if self._stopped is not None:  # the last that could have answered was not allowed to
            if error is not None:
                self._exchange.error = _status(error)
            refused, self._exchange.switch_id = self._stopped
            return refused
        if error is None:
            return Refused(
                Outcome.UPSTREAM_ERROR,
                status=503,
                code="upstream_breaker_open",
                message="the provider has failed too often and is left alone for a while.",
                hint="Try again later.",
                retry_after_s=self._wait_s(),
            )
        self._exchange.error = _status(error)
        return _refusal(error, is_clients_key=self._is_clients_key)

    def _wait_s(self) -> float:
        """When the first of the providers that are left alone may be tried again; at least a second."""
        breaker = self._live.parts.breaker
        waits = [] if breaker is None else [breaker.retry_after_s(name) for name in self._left_alone]
        return max(1.0, min(waits, default=1.0))


def _detail(route: Route, error: StanchionError | TimeoutError) -> str:
    """What the record keeps of a failure: the address, and the error, which quotes nobody's words."""
    if not isinstance(error, UnavailableError):
        return route.provider.address
    return f"{route.provider.address} {error.message}".strip()[:_MAX_DETAIL]


def _status(error: StanchionError | TimeoutError) -> str:
    if isinstance(error, UnavailableError):
        return f"http_{error.status}" if error.status is not None else "unavailable"
    if isinstance(error, UsageError):
        return "not_sayable"
    return "timeout"


def _refusal(error: StanchionError | TimeoutError, *, is_clients_key: bool = False) -> Refused:
    if isinstance(error, DeadlineError | TimeoutError):
        return Refused(
            Outcome.DEADLINE,
            status=504,
            code="upstream_timeout",
            message="the provider did not answer in time.",
            hint="Try again, or ask for fewer tokens.",
        )
    if isinstance(error, UsageError):
        return Refused(
            Outcome.INVALID, status=400, code="not_sayable", message=error.message, hint=error.hint or ""
        )
    status: int = getattr(error, "status", None) or 502
    labels: tuple[str, ...] = getattr(error, "labels", ())
    is_told = status == 429 or status in _OUR_FAULT or status in _PASSED
    is_told = is_told or (is_clients_key and status in (401, 403))  # its own key, and so its own business
    code = {429: "upstream_rate_limit", 401: "upstream_key", 403: "upstream_key"}.get(
        status, "upstream_refused" if status in _OUR_FAULT else "upstream_unavailable"
    )
    if status < 500 and is_told:
        code = next((label for label in labels if label in _VENDOR_CODES), code)
    return Refused(
        Outcome.UPSTREAM_ERROR,
        status=status if is_told else 502,
        code=code,
        message=error.message,
        hint=error.hint or "",
        retry_after_s=getattr(error, "retry_after_s", None),
        may_retry=None if is_told else status not in (401, 403),
    )
