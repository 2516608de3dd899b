"""From what was decided to what is sent: headers, whole answers, and errors in each API's shape."""

from __future__ import annotations

import math

import msgspec

from stanchion.core.decision import CheckStatus, Decision
from stanchion.core.interaction import Reply
from stanchion.gateway.exchange import Exchange
from stanchion.gateway.http_io import Answer, RawHeaders
from stanchion.gateway.ports import ApiSurface, Refused
from stanchion.gateway.trace_facts import traceparent_of
from stanchion.models.events import events_of
from stanchion.models.plain import plain_body
from stanchion.models.surface import StreamEncoder, SurfaceCodec, encode_json

_JSON = (b"content-type", b"application/json")
_EVENTS = (b"content-type", b"text/event-stream; charset=utf-8")
_NO_STORE = (b"cache-control", b"no-store")
_MAX_EXPLANATION = 4096
_OF_ANTHROPIC = (ApiSurface.ANTHROPIC_MESSAGES, ApiSurface.ANTHROPIC_COUNT_TOKENS)


class Explained(msgspec.Struct, frozen=True, kw_only=True):
    """What `x-stanchion-explain: 1` is answered with: one decision in ids and counts."""

    surface: str
    effect: str
    mode: str
    rules: tuple[str, ...]
    ran: int
    failed: tuple[str, ...]
    categories: tuple[str, ...]


def explained(decision: Decision) -> Explained:
    """A decision without a word of the text."""
    return Explained(
        surface=decision.surface.value,
        effect=decision.effect.value,
        mode=decision.mode.value,
        rules=decision.rule_ids,
        ran=sum(check.status is CheckStatus.RAN for check in decision.checks),
        failed=tuple(
            check.detector
            for check in decision.checks
            if check.status in (CheckStatus.TIMED_OUT, CheckStatus.ERRORED)
        ),
        categories=tuple(dict.fromkeys(finding.category for finding in decision.findings)),
    )


def head(exchange: Exchange, *, is_stream: bool) -> RawHeaders:
    """The headers of every answer: its reference, the state of the guard, and what else was asked for."""
    headers: RawHeaders = [
        _EVENTS if is_stream else _JSON,
        (b"x-stanchion-reference", exchange.reference.encode()),
        (b"x-request-id", exchange.id.encode()),
    ]
    if exchange.surface in _OF_ANTHROPIC:
        headers.append((b"request-id", exchange.id.encode()))
    feature = exchange.feature
    if feature is not None:
        headers.append((b"x-stanchion-guard", feature.guard_state.encode()))
        if is_stream:
            headers.append((b"x-stanchion-guarantee", exchange.guarantee.encode()))
            headers.append(_NO_STORE)
        if exchange.headers.get(b"x-stanchion-explain") == b"1":
            listed = encode_json([explained(decision) for decision in exchange.decisions])
            if len(listed) > _MAX_EXPLANATION:
                listed = b'"too long for a header; look the reference up"'
            headers.append((b"x-stanchion-decisions", listed))
    if exchange.facts.span_id:
        headers.append((b"traceresponse", traceparent_of(exchange.facts, exchange.facts.span_id).encode()))
    if exchange.ticket:
        headers.append((b"x-stanchion-ticket", exchange.ticket.encode()))
    if exchange.assignment is not None and exchange.assignment.variants:
        told = ", ".join(f"{name}={variant}" for name, variant in exchange.assignment.variants.items())
        headers.append((b"x-stanchion-variant", told.encode()))
    return headers


async def send_reply(exchange: Exchange, codec: SurfaceCodec, reply: Reply, answer: Answer) -> None:
    """A whole answer, or the same answer as a stream when a stream was asked for."""
    request = exchange.asked
    created = int(exchange.live.clock.now().timestamp())
    exchange.status = 200
    exchange.finish_reason = reply.finish_reason
    if request.stream and codec.can_stream:
        encoder = codec.stream_encoder(asked=request, response_id=exchange.id, created=created)
        pieces = [piece for event in events_of(reply) for piece in encoder.feed(event)]
        data = b"".join([*pieces, *encoder.finish()])
        if exchange.before_end is not None:
            await exchange.before_end()
        if not answer.has_begun:
            await answer.begin(200, head(exchange, is_stream=True))
        await answer.end(data)
        return
    body = plain_body(codec.name, reply, asked=request, response_id=exchange.id, created=created)
    if body is None:
        said = codec.encode_reply(reply, asked=request, response_id=exchange.id, created=created)
        body = encode_json(said)
    if exchange.before_end is not None:
        await exchange.before_end()
    await answer.whole(200, head(exchange, is_stream=False), body)


async def send_refusal(
    exchange: Exchange,
    codec: SurfaceCodec,
    refused: Refused,
    answer: Answer,
    *,
    encoder: StreamEncoder | None = None,
) -> None:
    """An error in the API's own shape; in the middle of a stream, as its last event."""
    exchange.outcome = refused.outcome
    message = f"{refused.message} {refused.hint}".strip()
    if answer.has_begun:
        if encoder is not None and not answer.is_over:
            frames = encoder.error(
                status=refused.status,
                code=refused.code,
                message=message,
                retry_after_s=refused.retry_after_s,
            )
            await answer.end(b"".join(frames))
        return
    exchange.status = refused.status
    headers = head(exchange, is_stream=False)
    if refused.retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(refused.retry_after_s))))
    elif refused.may_retry is not None and (refused.status in (409, 429) or refused.status >= 500):
        headers.append((b"x-should-retry", b"true" if refused.may_retry else b"false"))
    error = codec.encode_error(
        status=refused.status, code=refused.code, message=message, retry_after_s=refused.retry_after_s
    )
    await answer.whole(refused.status, headers, encode_json(error))
