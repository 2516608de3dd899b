"""Tool calls of an answer: switches that forbid a tool, and calls that wait for a person.

A client whose call waits gets the words of the policy with a ticket, and the ticket in the header
`x-stanchion-approval`. It sends its request again with that header to learn what was decided: the calls
themselves once they are approved, the same words while nobody has decided.
"""

from __future__ import annotations

from typing import Any

from stanchion.core.decision import Decision, Effect
from stanchion.core.errors import StanchionError
from stanchion.core.interaction import FinishReason, Message, Reply, Role, ToolCall, assistant
from stanchion.gateway.exchange import Exchange
from stanchion.gateway.ports import Outcome

SWITCHED_OFF = "A tool that this answer needs was switched off by its operator. Reference: {reference}."
_STATES = {
    "pending": "A person has to agree to this first. Ask again with the ticket {ticket}.",
    "denied": "A person did not agree to this. Ticket: {ticket}.",
    "expired": "Nobody agreed to this in time. Ticket: {ticket}.",
}


async def decided_calls(exchange: Exchange, said: Reply, shown: Reply) -> Reply:
    """What may be shown of an answer with tool calls; `shown` is what the guard left of it."""
    switches = exchange.live.parts.switches
    if switches is not None:
        for call in said.message.tool_calls:
            engaged = switches.find_tool(exchange.facts, call.name)
            if engaged is not None:
                exchange.switch_id = engaged.switch_id
                return _words(SWITCHED_OFF.format(reference=exchange.reference), said)
    decision = approval_asked(exchange.decisions)
    if decision is None or exchange.live.parts.approvals is None:
        return shown
    return await parked(exchange, decision, said, shown)


async def parked(exchange: Exchange, decision: Decision, said: Reply, shown: Reply) -> Reply:
    """Put the calls of an answer in the queue of people; the calls when they agree while the client waits.

    A queue that cannot be written means no: the guard's own words stay.
    """
    approvals, feature = exchange.live.parts.approvals, exchange.held_to
    if approvals is None:
        return shown
    calls = [
        {"id": call.id, "name": call.name, "arguments": call.arguments, "raw": call.raw_arguments}
        for call in said.message.tool_calls
    ]
    try:
        ticket = await approvals.park(
            exchange.facts,
            kind="tool_call",
            subject={"calls": calls, "model": said.model},
            decision=decision,
        )
        exchange.ticket = ticket.ticket
        if feature.approval_wait_s > 0:
            await approvals.wait(ticket.ticket, seconds=feature.approval_wait_s)
            return await redeemed(exchange, ticket=ticket.ticket)
    except StanchionError as error:
        exchange.error = type(error).__name__
        return shown
    words = f"{shown.message.text} {_STATES['pending'].format(ticket=ticket.ticket)}"
    return _words(words, said)


async def redeemed(exchange: Exchange, *, ticket: str = "") -> Reply:
    """What became of a ticket: the calls when they were approved, else words that say how it stands.

    Raises:
        Refused: `invalid` (404) for a ticket that is not there, or is somebody else's.
    """
    approvals = exchange.live.parts.approvals
    assert approvals is not None  # noqa: S101 - the caller looked
    exchange.ticket = ticket or exchange.header(b"x-stanchion-approval")
    found = await approvals.redeem(exchange.facts, exchange.ticket)
    status = found.parked.status
    model = exchange.asked.interaction.model
    if status == "approved" and found.subject is not None:
        exchange.is_approved = True
        parts = tuple(_call(call) for call in found.subject.get("calls", ()))
        return Reply(
            message=Message(role=Role.ASSISTANT, parts=parts),
            finish_reason=FinishReason.TOOL_CALLS,
            model=str(found.subject.get("model") or model),
        )
    words = _STATES.get(status, _STATES["denied"]).format(ticket=exchange.ticket)
    return Reply(message=assistant(words), finish_reason=FinishReason.CONTENT_FILTER, model=model)


def ticket_outcome(exchange: Exchange) -> Outcome:
    """The outcome of a request that has a ticket."""
    return Outcome.ALLOWED if exchange.is_approved else Outcome.PENDING_APPROVAL


def approval_asked(decisions: tuple[Decision, ...]) -> Decision | None:
    """The decision that wants a person's word, when nothing stricter was decided."""
    strictest = max(decisions, key=lambda one: one.enforced_effect.rank, default=None)
    if strictest is None or strictest.enforced_effect is not Effect.REQUIRE_APPROVAL:
        return None
    return strictest


def _call(value: Any) -> ToolCall:
    return ToolCall(
        id=value["id"], name=value["name"], arguments=value["arguments"], raw_arguments=value["raw"]
    )


def _words(text: str, said: Reply) -> Reply:
    return Reply(
        message=assistant(text),
        finish_reason=FinishReason.CONTENT_FILTER,
        model=said.model,
        usage=said.usage,
    )
