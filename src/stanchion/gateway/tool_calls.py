"""Tool calls of an answer: switches that forbid a tool, and calls that wait for a person."""

from __future__ import annotations

from stanchion.core.decision import Decision, Effect
from stanchion.core.interaction import FinishReason, Reply, assistant
from stanchion.gateway.exchange import Exchange
from stanchion.guard.exchange import PreparedInteraction

SWITCHED_OFF = "A tool that this answer needs was switched off by its operator. Reference: {reference}."


async def decided_calls(
    exchange: Exchange, prepared: PreparedInteraction, said: Reply, shown: Reply
) -> Reply:
    """What may be shown of an answer with tool calls, after `shown` is what the guard left of it."""
    switches = exchange.live.parts.switches
    if switches is not None:
        for call in shown.message.tool_calls:
            engaged = switches.find_tool(exchange.facts, call.name)
            if engaged is not None:
                exchange.switch_id = engaged.switch_id
                return tool_switched_off(exchange, said)
    return shown


def tool_switched_off(exchange: Exchange, said: Reply) -> Reply:
    """The words in place of an answer that calls a tool which is switched off."""
    return Reply(
        message=assistant(SWITCHED_OFF.format(reference=exchange.reference)),
        finish_reason=FinishReason.CONTENT_FILTER,
        model=said.model,
        usage=said.usage,
    )


def approval_asked(decisions: tuple[Decision, ...]) -> Decision | None:
    """The decision that wants a person's word, when nothing stricter was decided."""
    strictest = max(decisions, key=lambda one: one.enforced_effect.rank, default=None)
    if strictest is None or strictest.enforced_effect is not Effect.REQUIRE_APPROVAL:
        return None
    return strictest
