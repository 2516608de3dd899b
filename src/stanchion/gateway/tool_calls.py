"""Answers that need a person, a switched-off tool, or the rules' word on where they go instead.

A client whose call or answer waits gets the words of the policy with a ticket, and the ticket in the header
`x-stanchion-ticket`. It sends its request again with that header to learn what was decided: what was parked
once it is approved, the same words while nobody has decided. A request that is handed over waits likewise;
the note of the person who approves it is the answer.
"""

from __future__ import annotations

from typing import Any

import msgspec

from stanchion.core.codec import digest
from stanchion.core.decision import Decision, Effect, Surface
from stanchion.core.errors import StanchionError
from stanchion.core.interaction import (
    FinishReason,
    Message,
    Part,
    Reply,
    Role,
    Text,
    ToolCall,
    assistant,
    stand_in,
)
from stanchion.core.origin import Origin
from stanchion.gateway.approvals import ASKED
from stanchion.gateway.exchange import Exchange
from stanchion.gateway.ports import Engaged, Outcome, Redeemed, Refused, Stage
from stanchion.guard.exchange import PreparedInteraction
from stanchion.guard.fallback import Fallback
from stanchion.guard.policy_model import SafeCompletions

TICKET_HEADER = b"x-stanchion-ticket"
_NO_MODEL = Decision(
    effect=Effect.ROUTE,
    surface=Surface.INPUT,
    rule_ids=("fallback.human",),
    reason="no model answered, and the fallback chain ends with a person.",
)


def is_more_to_decide(exchange: Exchange, said: Reply) -> bool:
    """Whether `decided_answer` has anything to decide about what a model said."""
    return exchange.live.parts.approvals is not None or bool(said.message.tool_calls)


async def decided_answer(
    exchange: Exchange, prepared: PreparedInteraction, said: Reply, shown: Reply
) -> Reply:
    """What may be shown of an answer; `said` is the model's, `shown` what the guard left of it."""
    if said.message.tool_calls:
        exchange.stage = Stage.TOOL_CALLS
        engaged = tool_switch(exchange, tuple(call.name for call in said.message.tool_calls))
        if engaged is not None:
            return _words(switched_off_words(exchange), said)
    decision = person_asked(exchange)
    return shown if decision is None else await parked(exchange, prepared, said, shown)


def tool_switch(exchange: Exchange, tools: tuple[str, ...]) -> Engaged | None:
    """The switch that forbids one of these tools, written down as the reason."""
    switches = exchange.live.parts.switches
    if switches is None:
        return None
    for tool in tools:
        engaged = switches.find_tool(exchange.facts, tool)
        if engaged is not None:
            exchange.switch_id = engaged.switch_id
            return engaged
    return None


def switched_off_words(exchange: Exchange) -> str:
    """What a client reads in place of an answer whose tool is switched off."""
    return said_by(exchange).state("switched_off", reference=exchange.reference)


def said_by(exchange: Exchange) -> Fallback:
    """The words of the feature's policy, in its language."""
    policy = exchange.held_to.guard.policy
    return Fallback(SafeCompletions() if policy is None else policy.safe_completions)


async def parked(exchange: Exchange, prepared: PreparedInteraction, said: Reply, shown: Reply) -> Reply:
    """Put an answer, or its tool calls, in the queue of people; it, when they agree while the client waits.

    What waits is what may leave: all that the rules redact is redacted before. A queue that cannot be
    written, or an answer that cannot be checked for that, means no: the guard's own words stay.
    """
    decision = person_asked(exchange)
    message = await exchange.held_to.guard.aredacted(prepared, said)
    if decision is None or message is None:
        return shown
    calls = [
        {"id": call.id, "name": call.name, "arguments": call.arguments, "raw": call.raw_arguments}
        for call in message.tool_calls
    ]
    subject: dict[str, Any] = {"calls": calls, "model": said.model}
    is_call = bool(calls) and decision.surface is Surface.TOOL_CALL
    if not is_call:
        subject["text"] = message.text
    return await _waiting(exchange, decision, subject, shown, kind="tool_call" if is_call else "answer")


async def handed_over(exchange: Exchange, decision: Decision = _NO_MODEL) -> Reply:
    """Put a request in the queue of people, who answer it with their note; words while they have not.

    Raises:
        Refused: `upstream_error` (503) where there is no queue, or it cannot be written.
    """
    interaction = exchange.asked.interaction
    questions = [one.text for one in interaction.messages if one.role is Role.USER]
    subject = {"question": questions[-1] if questions else "", "model": interaction.model}
    nobody = Reply(message=assistant(""), finish_reason=FinishReason.CONTENT_FILTER, model=interaction.model)
    told = await _waiting(exchange, decision, subject, nobody, kind="answer")
    if told is nobody:
        raise Refused(
            Outcome.UPSTREAM_ERROR,
            status=503,
            code="nobody_to_ask",
            message="no model answers, and no person can be asked now.",
            hint="Try again later.",
            retry_after_s=5.0,
        )
    return told


async def _waiting(
    exchange: Exchange, decision: Decision, subject: dict[str, Any], shown: Reply, *, kind: str
) -> Reply:
    """How a new ticket stands; `shown` itself where none could be made."""
    approvals, feature = exchange.live.parts.approvals, exchange.held_to
    if approvals is None:
        return shown
    try:
        subject = {**subject, ASKED: asked_digest(exchange)}
        ticket = await approvals.park(exchange.facts, kind=kind, subject=subject, decision=decision)
        exchange.ticket = ticket.ticket
        if feature.approval_wait_s > 0:
            await approvals.wait(ticket.ticket, seconds=feature.approval_wait_s)
            return await redeemed(exchange, ticket=ticket.ticket)
    except StanchionError as error:
        exchange.error = type(error).__name__
        return shown
    state = "handed_over" if "question" in subject else "pending"
    return _words(f"{shown.message.text} {_state(exchange, state)}".strip(), shown)


async def redeemed(exchange: Exchange, *, ticket: str = "") -> Reply:
    """What became of a ticket: what was approved, else words that say how it stands.

    Raises:
        Refused: `invalid`: 404 for a ticket that is not there, or is somebody else's, 409 for one that was
            redeemed, or was given for another request.
    """
    approvals = exchange.live.parts.approvals
    assert approvals is not None  # noqa: S101 - the caller looked
    exchange.ticket = ticket or exchange.header(TICKET_HEADER)
    found = await approvals.redeem(exchange.facts, exchange.ticket, asked=asked_digest(exchange))
    status = found.parked.status
    if status == "approved" and found.subject is not None:
        return _approved(exchange, found, found.subject)
    words = _state(exchange, status if status in ("pending", "expired") else "denied")
    model = exchange.asked.interaction.model
    return Reply(message=stand_in(words), finish_reason=FinishReason.CONTENT_FILTER, model=model)


def asked_digest(exchange: Exchange) -> str:
    """The digest of what was asked, whatever prompt of the registry stands before it."""
    asked = exchange.asked
    said = asked.interaction
    messages = said.messages[1:] if exchange.prompt_digest else said.messages
    whole = (messages, said.documents, said.tools, said.sampling, said.model, asked.extras)
    return digest(msgspec.to_builtins(whole))


def _approved(exchange: Exchange, found: Redeemed, subject: dict[str, Any]) -> Reply:
    parts: list[Part] = []
    if "question" in subject:
        parts.append(_text(found.parked.reason or _state(exchange, "handled")))
    elif subject.get("text"):
        parts.append(_text(str(subject["text"])))
    calls = [_call(call) for call in subject.get("calls", ())]
    if tool_switch(exchange, tuple(call.name for call in calls)) is not None:  # engaged since it was parked
        return _words(switched_off_words(exchange), Reply(message=assistant("")))
    exchange.is_approved = True
    return Reply(
        message=Message(role=Role.ASSISTANT, parts=(*parts, *calls)),
        finish_reason=FinishReason.TOOL_CALLS if calls else FinishReason.STOP,
        model=str(subject.get("model") or exchange.asked.interaction.model),
    )


def ticket_outcome(exchange: Exchange) -> Outcome:
    """The outcome of a request that has a ticket."""
    if exchange.switch_id:
        return Outcome.SWITCHED_OFF
    return Outcome.ALLOWED if exchange.is_approved else Outcome.PENDING_APPROVAL


def person_asked(exchange: Exchange) -> Decision | None:
    """The decision that wants a person's word on the answer, when nothing stricter was decided.

    That is `require_approval`, and `route` where the feature routes to people.
    """
    if exchange.live.parts.approvals is None:
        return None
    strictest = strictest_of(exchange.decisions)
    if strictest is None:
        return None
    way = exchange.held_to.on_route
    if strictest.enforced_effect is Effect.ROUTE and way is not None and way.human:
        return strictest
    return strictest if strictest.enforced_effect is Effect.REQUIRE_APPROVAL else None


def strictest_of(decisions: tuple[Decision, ...]) -> Decision | None:
    """The decision whose effect holds."""
    return max(decisions, key=lambda one: one.enforced_effect.rank, default=None)


def _state(exchange: Exchange, name: str) -> str:
    return said_by(exchange).state(name, ticket=exchange.ticket)


def _text(words: str) -> Text:
    return Text(text=words, origin=Origin.MODEL)


def _call(value: Any) -> ToolCall:
    return ToolCall(
        id=value["id"], name=value["name"], arguments=value["arguments"], raw_arguments=value["raw"]
    )


def _words(text: str, said: Reply) -> Reply:
    return Reply(
        message=stand_in(text),
        finish_reason=FinishReason.CONTENT_FILTER,
        model=said.model,
        usage=said.usage,
    )
