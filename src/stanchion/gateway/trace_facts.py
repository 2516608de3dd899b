"""The place of a request in a trace, what of it goes to the provider, and what stands for words in spans."""

from __future__ import annotations

import secrets

import msgspec

from stanchion.core.interaction import Message, Text, ToolCall, ToolResult
from stanchion.gateway.exchange import Exchange
from stanchion.gateway.ports import RequestFacts
from stanchion.telemetry.trace_context import TraceContext, begun, parse


def traced(exchange: Exchange) -> RequestFacts:
    """The facts with the ids of the trace; a span's id only where spans are made.

    A client's `traceparent` is gone on with, and so is its decision whether it is sampled. Its `tracestate`
    is not: what clients put there is theirs.
    """
    share, said = exchange.live.trace_share, exchange.header(b"traceparent")
    if share is None and not said:
        return exchange.facts
    came = parse(said)
    if share is None:
        if came is None:
            return exchange.facts
        return msgspec.structs.replace(
            exchange.facts, trace_id=came.trace_id, parent_span_id=came.span_id, is_sampled=came.is_sampled
        )
    here = begun(came, share=share)
    return msgspec.structs.replace(
        exchange.facts,
        trace_id=here.trace_id,
        span_id=here.span_id,
        parent_span_id="" if came is None else came.span_id,
        is_sampled=here.is_sampled,
    )


def try_span(facts: RequestFacts) -> str:
    """A new span's id for a try at a provider; empty where no spans are made."""
    return secrets.token_hex(8) if facts.span_id else ""


def traceparent_of(facts: RequestFacts, span_id: str) -> str:
    """The header for a provider: below our span, or as the client sent it where we make none; or empty."""
    above = span_id or facts.parent_span_id
    if not facts.trace_id or not above:
        return ""
    return TraceContext(trace_id=facts.trace_id, span_id=above, is_sampled=facts.is_sampled).traceparent


def content_hashes(exchange: Exchange) -> tuple[str, str]:
    """What stands for the words asked and answered in spans: keyed, the same for the same words; or empty.

    Only whoever has the key for ids can tell whether two requests said the same.
    """
    facts = exchange.facts
    if not facts.span_id or not facts.is_sampled or exchange.request is None:
        return "", ""
    keys = exchange.live.id_keys
    asked = "\0".join(_words(message) for message in exchange.request.interaction.messages)
    answered = "" if exchange.shown is None else _words(exchange.shown.message)
    return keys.key("content", asked), keys.key("content", answered)


def _words(message: Message) -> str:
    said = []
    for part in message.parts:
        if isinstance(part, Text | ToolResult):
            said.append(part.text)
        elif isinstance(part, ToolCall):
            said.append(f"{part.name}({part.raw_arguments or ''})")
    return "\n".join(said)
