"""Notices that are added to answers: that a machine speaks, what it read, and what could not be confirmed.

They stand at the end of an answer that ended of itself, as a paragraph of their own. Answers with tool calls
and answers in a format that a program reads get none.
"""

from __future__ import annotations

import msgspec

from stanchion.core.decision import Decision
from stanchion.core.interaction import FinishReason, Reply, Role, Text
from stanchion.core.origin import Origin
from stanchion.gateway.exchange import Exchange
from stanchion.gateway.tool_calls import said_by

_MOST_SOURCES = 10
_LONGEST_SOURCE = 200
_FORMATS = ("response_format", "text", "output_config", "output_format")


def with_notices(exchange: Exchange, reply: Reply) -> Reply:
    """The answer with its notices; itself where there are none."""
    if exchange.held_to.notices is None:
        return reply
    if reply.finish_reason is not FinishReason.STOP or reply.message.tool_calls:
        return reply
    words = notices(exchange)
    if not words:
        return reply
    parts = (*reply.message.parts, Text(text=words, origin=Origin.MODEL))
    return msgspec.structs.replace(reply, message=msgspec.structs.replace(reply.message, parts=parts))


def notices(exchange: Exchange) -> str:
    """The paragraph that is added to the answer of a request; empty for none."""
    wanted = exchange.held_to.notices
    if wanted is None or _is_for_a_program(exchange):
        return ""
    words, interaction = said_by(exchange), exchange.asked.interaction
    told: list[str] = []
    is_first = all(message.role is not Role.ASSISTANT for message in interaction.messages)
    if wanted.disclosure == "always" or (wanted.disclosure == "first" and is_first):
        told.append(words.transparency("disclosure"))
    named = _sources(exchange) if wanted.sources else ""
    if named:
        told.append(words.transparency("sources", sources=named))
    if wanted.uncertainty and any(map(_is_unconfirmed, exchange.decisions)):
        told.append(words.transparency("uncertainty"))
    return "\n\n" + " ".join(told) if told else ""


def _is_for_a_program(exchange: Exchange) -> bool:
    request = exchange.asked
    is_schema = request.interaction.sampling.response_schema is not None
    return is_schema or any(request.extras.get(name) for name in _FORMATS)


def _sources(exchange: Exchange) -> str:
    interaction = exchange.asked.interaction
    names = [document.source or document.id for document in interaction.documents]
    names += [
        part.source or ""
        for message in interaction.messages
        for part in message.parts
        if isinstance(part, Text) and part.origin is Origin.RETRIEVED
    ]
    unique = [name[:_LONGEST_SOURCE] for name in dict.fromkeys(names) if name and name.isprintable()]
    return ", ".join(unique[:_MOST_SOURCES])


def _is_unconfirmed(decision: Decision) -> bool:
    return any(finding.category.startswith("grounding.") for finding in decision.findings)
