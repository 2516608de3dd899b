"""The order in which a request is decided: switches, limits, admission, inputs, the model, the answer."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

import msgspec

from stanchion.core.decision import Effect
from stanchion.core.errors import UsageError
from stanchion.core.interaction import (
    FinishReason,
    Interaction,
    Reply,
    Text,
    ToolResult,
    Usage,
    assistant,
)
from stanchion.gateway.answering import send_reply
from stanchion.gateway.asking import HandedOver, ask
from stanchion.gateway.exchange import Exchange
from stanchion.gateway.extra_parameters import check_extras
from stanchion.gateway.filled_prompt import said_as_one
from stanchion.gateway.guard_sessions import guard_session
from stanchion.gateway.http_io import Answer
from stanchion.gateway.json_body import decode_body, invalid
from stanchion.gateway.live import Feature, variant_name
from stanchion.gateway.manifest import outcome_of
from stanchion.gateway.permits import admit, check_scope, heed_switches
from stanchion.gateway.ports import ApiSurface, Outcome, Refused, RequestFacts, Stage
from stanchion.gateway.session_calls import SessionCounter
from stanchion.gateway.stream_flow import stream_answer
from stanchion.gateway.tool_calls import (
    TICKET_HEADER,
    decided_answer,
    handed_over,
    is_more_to_decide,
    redeemed,
    strictest_of,
    ticket_outcome,
)
from stanchion.gateway.transparency import with_notices
from stanchion.gateway.upstream import Question, Route
from stanchion.guard.exchange import PreparedInteraction
from stanchion.models.plain import plain_request
from stanchion.models.surface import SurfaceCodec
from stanchion.models.wire import Request, WireError
from stanchion.store.identity import is_plain

_LONGEST_ID = 200
_WITHOUT_MODEL = frozenset({"check", "check_tool_call", "feedback"})
# what these answer with is no text that a model writes
_WITHOUT_WORDS = frozenset(
    {ApiSurface.OPENAI_EMBEDDINGS, ApiSurface.OPENAI_MODERATIONS, ApiSurface.ANTHROPIC_COUNT_TOKENS}
    | {ApiSurface.CHECK, ApiSurface.CHECK_TOOL_CALL}
)
_CHARACTERS_PER_TOKEN = 4


def decode(codec: SurfaceCodec, value: Any) -> Request:
    """The request in a JSON value.

    Raises:
        Refused: `invalid`, naming the path of what is wrong and never its value.
    """
    try:
        request = codec.decode_request(value)
    except WireError as error:
        raise invalid("invalid_request", error.message, error.hint or "") from None
    if not request.interaction.model and codec.name not in _WITHOUT_MODEL:
        raise invalid("invalid_request", "model: a model's name is needed here.")
    return request


def read_request(codec: SurfaceCodec, raw: bytes) -> Request:
    """The request in a body.

    Raises:
        Refused: `invalid`.
    """
    plain = plain_request(codec.name, raw)
    return decode(codec, decode_body(raw)) if plain is None or not plain.interaction.model else plain


def choose_feature(exchange: Exchange, named: str) -> Feature:
    """The feature of a request: named by path or header, else the key's only one, else the default.

    Raises:
        Refused: `invalid` (404) for a name that is not known, `denied` (403) for one the key may not use.
    """
    live, allowed = exchange.live, exchange.caller.features
    name = named or exchange.header(b"x-stanchion-feature")
    if not name:
        name = allowed[0] if len(allowed) == 1 else live.default_feature
    if allowed and name not in allowed:
        raise Refused(
            Outcome.DENIED,
            status=403,
            code="feature_not_allowed",
            message="this key may not use this feature.",
            hint="Ask for a key of the feature.",
        )
    feature = live.features.get(name)
    if feature is None:
        raise invalid("feature_not_found", "there is no feature of this name here.", status=404)
    return feature


def take_facts(exchange: Exchange, feature: Feature, request: Request) -> None:
    """Write down what is known of a request that was read and whose sender is known."""
    caller, keys, is_single_user = exchange.caller, exchange.live.id_keys, exchange.is_single_user
    session = exchange.header(b"x-stanchion-session")
    user, tenant = caller.user_key, caller.tenant
    if is_single_user or not user:
        user = keys.key("subject", exchange.header(b"x-stanchion-user") or _user_of(request)) or user
    if is_single_user:
        tenant = keys.key("tenant", exchange.header(b"x-stanchion-tenant")) or tenant
    interaction = request.interaction
    trace = exchange.facts
    session_id = session if not session or is_plain(session) else keys.key("session", session)
    exchange.facts = RequestFacts(
        id=exchange.id,
        surface=exchange.surface,
        is_stream=request.stream,
        feature=feature.name,
        tenant=tenant,
        key_id=caller.key_id,
        user_key=user,
        session_id=session_id,
        environment=exchange.live.environment,
        traffic=_traffic(exchange),
        model=interaction.model[:_LONGEST_ID],
        tools=tuple([tool.name for tool in interaction.tools]),
        guard_version=feature.guard_version,
        trace_id=trace.trace_id,
        span_id=trace.span_id,
        parent_span_id=trace.parent_span_id,
        is_sampled=trace.is_sampled,
    )
    exchange.request = msgspec.structs.replace(
        request,
        interaction=msgspec.structs.replace(
            interaction,
            id=exchange.id,
            environment=exchange.live.environment,
            feature=feature.name,
            session_id=guard_session(exchange, session_id),
            tenant=tenant,
        ),
    )


async def enforce(exchange: Exchange, codec: SurfaceCodec, answer: Answer) -> None:
    """Decide a request that was read, from its switches to its answer.

    Raises:
        Refused: when it is not answered by a model, nor in the model's place.
    """
    heed_switches(exchange)
    route = route_of(exchange, exchange.asked, codec.name.partition(".")[0])
    request = exchange.asked
    await reserve(exchange, request)
    if exchange.live.parts.approvals is not None and exchange.header(TICKET_HEADER):
        told = await redeemed(exchange)
        await count_without_model(exchange)
        await send(exchange, codec, told, answer)
        return
    admit(exchange, route, request)
    prepared = await prepare(exchange, request.interaction)
    calls, policy = exchange.live.parts.calls, exchange.held_to.guard.policy
    if calls is not None and policy is not None and policy.tools.named:
        counter = SessionCounter(counts=calls, session_id=request.interaction.session_id)
        prepared = msgspec.structs.replace(prepared, counter=counter)
    if prepared.blocked is not None:
        instead = await _instead(exchange, prepared.blocked)
        if isinstance(instead, Reply):
            await send(exchange, codec, instead, answer)
            return
        # what was decided is recorded, and has had its effect: the answer is decided on for itself
        exchange.beside += prepared.decisions
        route, prepared = instead, msgspec.structs.replace(prepared, blocked=None, decisions=())
    exchange.stage = Stage.UPSTREAM
    try:
        await _answered(exchange, codec, prepared, answer, route=route)
    except HandedOver:
        await send(exchange, codec, await handed_over(exchange), answer)


async def _instead(exchange: Exchange, blocked: Reply) -> Reply | Route:
    """What a request gets that the rules stopped: their words, or where the feature routes such requests."""
    stopping, way = strictest_of(exchange.decisions), exchange.held_to.on_route
    if stopping is None or stopping.enforced_effect is not Effect.ROUTE or way is None:
        return blocked
    if way.answer:
        return Reply(message=assistant(way.answer), finish_reason=FinishReason.STOP)
    if way.human:
        return await handed_over(exchange, stopping)
    route = exchange.live.models.routes[way.model]
    exchange.facts = msgspec.structs.replace(exchange.facts, model=route.name, provider=route.provider.name)
    heed_switches(exchange)
    admit(exchange, route, exchange.asked)
    check_extras(
        exchange.asked,
        surface=exchange.surface.value,
        provider=route.provider,
        headers=exchange.vendor_headers,
    )
    return route


async def _answered(
    exchange: Exchange, codec: SurfaceCodec, prepared: PreparedInteraction, answer: Answer, *, route: Route
) -> None:
    """Ask the model, decide about what it says, and send what may be shown."""
    request, feature = exchange.asked, exchange.held_to
    question = question_of(exchange, route, prepared)
    if request.stream:
        await stream_answer(exchange, codec, prepared, answer, route=route, question=question)
        return
    reply = await ask(exchange, route, question)
    exchange.usage = exchange.priced(reply.usage)
    exchange.stage = Stage.OUTPUT
    began_ns = exchange.live.clock.monotonic_ns()
    checked = await feature.guard.afinish(prepared, reply)
    exchange.guard_ns += exchange.live.clock.monotonic_ns() - began_ns
    assert checked.reply is not None  # noqa: S101 - `afinish` gives one
    exchange.decisions = (*checked.reply.decisions, *exchange.beside)
    exchange.shown = exchange.said = reply
    shown = checked.reply
    if is_more_to_decide(exchange, reply):
        shown = await decided_answer(exchange, prepared, reply, shown)
    await send(exchange, codec, with_notices(exchange, shown), answer)


def question_of(exchange: Exchange, route: Route, prepared: PreparedInteraction) -> Question:
    """What the model is asked, in the words of the client's API."""
    request = exchange.asked
    if not prepared.is_unchanged:
        request = msgspec.structs.replace(
            request, interaction=prepared.interaction, extras=dict(prepared.parameters)
        )
    if exchange.prompt_digest:
        one = said_as_one(request.interaction, filled=exchange.asked.interaction.messages[0])
        request = msgspec.structs.replace(request, interaction=one)
    return Question(
        request=request,
        surface=exchange.surface,
        model=route.model,
        lost=exchange.unknown_events,
        headers=exchange.vendor_headers,
        key=_forwarded_key(exchange, route, exchange.surface.partition(".")[0]),
    )


def send(exchange: Exchange, codec: SurfaceCodec, reply: Reply, answer: Answer) -> Awaitable[None]:
    """Send the answer, with what the decisions amount to as the outcome."""
    exchange.outcome = ticket_outcome(exchange) if exchange.ticket else exchange_outcome(exchange)
    exchange.stage = Stage.DONE if exchange.stage is not Stage.INPUT else Stage.INPUT
    return send_reply(exchange, codec, reply, answer)


def exchange_outcome(exchange: Exchange) -> Outcome:
    """What the decisions so far amount to; a tool's switch goes before them."""
    return Outcome.SWITCHED_OFF if exchange.switch_id else outcome_of(exchange.decisions)


def route_of(exchange: Exchange, request: Request, vendor: str) -> Route:
    """What stands behind the model's name, by the rollout where there is one.

    Raises:
        Refused: for a name that is not known, that the key may not use, or that is switched off.
    """
    live, facts = exchange.live, exchange.facts
    name = request.interaction.model
    prompt = exchange.header(b"x-stanchion-prompt")
    if live.parts.rollout is not None:
        exchange.assignment = live.parts.rollout.choose(facts)
    if live.parts.flags is not None:
        exchange.assignment = live.parts.flags.steer(facts, exchange.assignment)
    if exchange.assignment is not None:
        name = exchange.assignment.model or name
        prompt = exchange.assignment.prompt or prompt
        facts = _put_policy(exchange)
    if prompt:
        facts = put_prompt(exchange, prompt)
    check_scope(exchange, request.interaction.model)
    route = live.models.find(name, vendor=vendor)
    exchange.facts = msgspec.structs.replace(facts, model=route.name, provider=route.provider.name)
    heed_switches(exchange)
    check_extras(
        exchange.asked,
        surface=exchange.surface,
        provider=route.provider,
        headers=exchange.vendor_headers,
    )
    return route


def _put_policy(exchange: Exchange) -> RequestFacts:
    """Hold the request to the policy of its variant, where it has one."""
    policy = "" if exchange.assignment is None else exchange.assignment.policy
    if policy:
        feature = exchange.feature = exchange.live.variants[variant_name(exchange.held_to.name, policy)]
        exchange.facts = msgspec.structs.replace(exchange.facts, guard_version=feature.guard_version)
    return exchange.facts


def put_prompt(exchange: Exchange, reference: str) -> RequestFacts:
    """Put a prompt of the registry before what was asked; variables come as JSON in a header.

    Raises:
        Refused: `invalid` for a prompt that is not served, or variables that do not fit it.
    """
    registry = exchange.live.parts.prompts
    if registry is None:
        raise invalid("prompt_not_found", "this gateway has no registry of prompts.", status=404)
    given = exchange.headers.get(b"x-stanchion-prompt-variables", b"{}")
    try:
        variables = decode_body(given)
    except Refused:  # it speaks of the body
        variables = None
    if not isinstance(variables, dict):
        message = "the header x-stanchion-prompt-variables is not one JSON object."
        raise invalid("prompt_variables", message, 'For example {"name": "Ann"}.')
    prompt = registry.resolve(reference, variables)
    request = exchange.asked
    interaction = request.interaction
    exchange.request = msgspec.structs.replace(
        request,
        interaction=msgspec.structs.replace(interaction, messages=(prompt.message, *interaction.messages)),
    )
    exchange.prompt_digest = prompt.digest
    exchange.facts = msgspec.structs.replace(exchange.facts, prompt=prompt.versioned)
    return exchange.facts


async def reserve(exchange: Exchange, request: Request, *more: Interaction) -> None:
    """Set aside what the request may take, with `more` that it asks about at once."""
    exchange.stage = Stage.LIMITS
    blocks, limits = exchange.live.parts.blocks, exchange.live.parts.limits
    if blocks is not None:
        blocks.check(exchange.facts)
    if limits is None:
        return
    wanted = request.interaction.sampling.max_output_tokens or None
    if exchange.surface in _WITHOUT_WORDS:
        wanted = 0
    tokens = sum(map(_tokens, (request.interaction, *more)))
    counted = {"requests": 1 + len(more)} if more else {}
    exchange.reservation = await limits.reserve(
        exchange.facts, input_tokens=tokens, max_output_tokens=wanted, **counted
    )


async def count_without_model(exchange: Exchange) -> None:
    """Count a request that was served, and that no model was asked for."""
    if exchange.reservation is not None:
        await exchange.reservation.settle(Usage(input_tokens=0, output_tokens=0))
        exchange.reservation = None


async def prepare(exchange: Exchange, interaction: Interaction) -> PreparedInteraction:
    """What may be sent to the model, after every input surface was checked."""
    feature, clock = exchange.held_to, exchange.live.clock
    exchange.stage = Stage.INPUT
    began_ns = clock.monotonic_ns()
    try:
        prepared = await feature.guard.aprepare(interaction, parameters=exchange.asked.extras)
    except UsageError as error:
        raise invalid("not_checkable", error.message, error.hint or "") from None
    exchange.guard_ns += clock.monotonic_ns() - began_ns
    exchange.decisions = prepared.decisions
    return prepared


def _forwarded_key(exchange: Exchange, route: Route, vendor: str) -> str:
    """The client's own key for its vendor; empty where the gateway has keys of its own to give."""
    provider = route.provider
    if not (exchange.is_single_user and provider.takes_keys and provider.vendor == vendor):
        return ""
    key = exchange.header(b"x-api-key")
    bearer = exchange.header(b"authorization")
    return key or (bearer[7:].strip() if bearer[:7].lower() == "bearer " else "")


def _tokens(interaction: Interaction) -> int:
    """A rough count of what is asked, for reserving: a token for every four characters."""
    characters = sum(
        len(part.text)
        for message in interaction.messages
        for part in message.parts
        if isinstance(part, Text | ToolResult)
    )
    return characters // _CHARACTERS_PER_TOKEN + 1


def _user_of(request: Request) -> str:
    """The end user as the APIs name one: `user`, `safety_identifier`, or `metadata.user_id`."""
    extras = request.extras
    if not extras:
        return ""
    for name in ("safety_identifier", "user"):
        value = extras.get(name)
        if isinstance(value, str):
            return value
    metadata = extras.get("metadata")
    value = metadata.get("user_id") if isinstance(metadata, dict) else None
    return value if isinstance(value, str) else ""


def _traffic(exchange: Exchange) -> str:
    said = exchange.header(b"x-stanchion-traffic")
    if not said:
        return "live"
    may_say = exchange.is_single_user or "responder" in exchange.caller.roles
    return said if may_say and said in ("sentinel", "drill") else "live"
