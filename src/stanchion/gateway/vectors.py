"""Embeddings, moderations, counts of tokens: texts go in under guard; what comes back holds no words."""

from __future__ import annotations

from stanchion.core.interaction import FinishReason, Reply, Text, Usage
from stanchion.gateway.answering import send_reply
from stanchion.gateway.asking import HandedOver, ask
from stanchion.gateway.enforcement import (
    exchange_outcome,
    prepare,
    question_of,
    reserve,
    route_of,
)
from stanchion.gateway.exchange import Exchange
from stanchion.gateway.http_io import Answer
from stanchion.gateway.json_body import invalid
from stanchion.gateway.permits import admit, heed_switches
from stanchion.gateway.ports import Outcome, Refused, Stage
from stanchion.gateway.upstream import Route
from stanchion.guard.exchange import PreparedInteraction
from stanchion.models.openai_vectors import DEFAULT_MODERATION, ModerationVerdict, moderation_reply
from stanchion.models.surface import SurfaceCodec


async def embed(exchange: Exchange, codec: SurfaceCodec, answer: Answer) -> None:
    """Vectors of texts. A text that is stopped is an error: there is no vector to say so with.

    Raises:
        Refused: when a text is stopped, or the provider has no embeddings.
    """
    route = await _begun(exchange, codec)
    reply = await _asked(exchange, await _passed(exchange), route)
    exchange.usage = exchange.priced(reply.usage)
    await _sent(exchange, codec, reply, answer)


async def count_tokens(exchange: Exchange, codec: SurfaceCodec, answer: Answer) -> None:
    """How many tokens a message would have, as the provider counts what the guard left of it.

    It counts as a request, and uses no tokens.

    Raises:
        Refused: when a text is stopped, or the provider does not speak Anthropic's API.
    """
    route = await _begun(exchange, codec)
    reply = await _asked(exchange, await _passed(exchange), route)
    exchange.usage = Usage(input_tokens=0, output_tokens=0)
    await _sent(exchange, codec, reply, answer)


async def _passed(exchange: Exchange) -> PreparedInteraction:
    """What may be sent; there is no answer in which to say that a text was stopped, so that is an error."""
    prepared = await prepare(exchange, exchange.asked.interaction)
    if prepared.blocked is not None:
        raise Refused(
            exchange_outcome(exchange),
            status=400,
            code="content_filter",
            message=f"a text was stopped by policy. Reference: {exchange.reference}.",
        )
    return prepared


async def moderate(exchange: Exchange, codec: SurfaceCodec, answer: Answer) -> None:
    """Verdicts on texts. One that our own policy stops is flagged by us, and not given away."""
    try:
        route = await _begun(exchange, codec)
    except Refused as refused:
        if refused.code != "model_not_found" or exchange.asked.interaction.model != DEFAULT_MODERATION:
            raise
        message = f"this gateway has no model {DEFAULT_MODERATION}, which is asked where none is named."
        hint = "Name a model in the request, or let the operator add this one to the gateway file."
        raise invalid("model_not_found", message, hint, status=404) from None
    prepared = await prepare(exchange, exchange.asked.interaction)
    if prepared.blocked is not None:
        reply = moderation_reply(_own_verdicts(exchange), model=exchange.asked.interaction.model)
        exchange.outcome = exchange_outcome(exchange)
        await send_reply(exchange, codec, reply, answer)
        return
    reply = await _asked(exchange, prepared, route)
    exchange.usage = exchange.priced(reply.usage)
    await _sent(exchange, codec, reply, answer)


async def _asked(exchange: Exchange, prepared: PreparedInteraction, route: Route) -> Reply:
    """The provider's answer; words of ours or of a person are none here."""
    exchange.stage = Stage.UPSTREAM
    try:
        reply = await ask(exchange, route, question_of(exchange, route, prepared))
    except HandedOver:
        reply = None
    if reply is None or (exchange.tries and exchange.tries[-1].provider == "canned"):
        raise Refused(
            Outcome.UPSTREAM_ERROR,
            status=502,
            may_retry=True,
            code="upstream_unavailable",
            message="no provider answered.",
            hint="Try again later.",
        )
    return reply


async def _begun(exchange: Exchange, codec: SurfaceCodec) -> Route:
    request = exchange.asked
    heed_switches(exchange)
    route = route_of(exchange, request, codec.name.partition(".")[0])
    if codec.name not in route.provider.apis:
        raise invalid("api_not_supported", f"the provider of this model has no {codec.name}.", status=404)
    await reserve(exchange, request)
    admit(exchange, route, request)
    return route


async def _sent(exchange: Exchange, codec: SurfaceCodec, reply: Reply, answer: Answer) -> None:
    exchange.outcome, exchange.stage = exchange_outcome(exchange), Stage.DONE
    await send_reply(exchange, codec, reply, answer)
    exchange.finish_reason = FinishReason.STOP


def _own_verdicts(exchange: Exchange) -> list[ModerationVerdict]:
    """One verdict for each input; findings name their input by `messages[n].parts[0]`."""
    parts = [part for message in exchange.asked.interaction.messages for part in message.parts]
    verdicts = []
    for number, part in enumerate(parts):
        field = f"messages[{number}].parts[0]"
        scores: dict[str, float] = {}
        for decision in exchange.decisions:
            for finding in decision.findings:
                if finding.location.field == field and isinstance(part, Text):
                    scores[finding.category] = max(scores.get(finding.category, 0.0), finding.score)
        flagged = bool(scores) or exchange_outcome(exchange) is Outcome.BLOCKED
        verdicts.append(
            ModerationVerdict(flagged=flagged, categories=dict.fromkeys(scores, True), scores=scores)
        )
    return verdicts
