"""The guard manifest: which checks a request needed, which ran, and what was enforced.

What is expected is worked out from the request itself, not from what the guard says it looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from stanchion.core.decision import CheckStatus, Decision, Effect, Mode, Surface
from stanchion.core.interaction import (
    Interaction,
    Message,
    Opaque,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    ToolResult,
)
from stanchion.core.origin import Origin
from stanchion.gateway.ports import Outcome
from stanchion.guard.exchange import is_stop
from stanchion.guard.pipeline import Guard

_SURFACE_OF = {
    Origin.SYSTEM: Surface.SYSTEM,
    Origin.RETRIEVED: Surface.RETRIEVED,
    Origin.MEMORY: Surface.RETRIEVED,
    Origin.TOOL_RESULT: Surface.TOOL_RESULT,
    Origin.TOOL_DEFINITION: Surface.TOOL_DEFINITION,
}
_RAN, _SKIPPED = CheckStatus.RAN, CheckStatus.SKIPPED  # a look into an enumeration costs more than a name
_ALLOW, _ENFORCE = Effect.ALLOW, Mode.ENFORCE
_OUTCOMES = {
    Effect.BLOCK: Outcome.BLOCKED,
    Effect.REQUIRE_APPROVAL: Outcome.PENDING_APPROVAL,
    Effect.ROUTE: Outcome.REPLACED,
    Effect.REPLACE: Outcome.REPLACED,
    Effect.TRANSFORM: Outcome.REDACTED,
    Effect.REDACT: Outcome.REDACTED,
    Effect.ALLOW: Outcome.ALLOWED,
}


def asked_surfaces(interaction: Interaction) -> set[Surface]:
    """The surfaces on which a request says anything in words."""
    found: set[Surface] = set()
    for message in interaction.messages:
        for part in message.parts:
            kind = type(part)
            if kind is Text or kind is ToolResult:
                found.add(_SURFACE_OF.get(part.origin, Surface.INPUT))  # type: ignore[union-attr]
            elif kind is ToolCall or kind is Refusal or kind is Reasoning:
                found.add(Surface.INPUT)
    if interaction.documents:
        found.add(Surface.RETRIEVED)
    if interaction.tools:
        found.add(Surface.TOOL_DEFINITION)
    return found


def answered_surfaces(message: Message) -> set[Surface]:
    """The surfaces on which an answer says anything in words."""
    found: set[Surface] = set()
    for part in message.parts:
        kind = type(part)
        if kind is ToolCall:
            found.add(Surface.TOOL_CALL)
        elif kind is Reasoning:
            found.add(Surface.REASONING)
        elif kind is not Opaque:
            found.add(Surface.OUTPUT)
    return found


def counts(guard: Guard, surfaces: Iterable[Surface], decisions: Sequence[Decision]) -> dict[str, int]:
    """How many checks were expected, ran, and did not run; how many decisions were acted on."""
    seen: set[Surface] = set()
    expected = ran = enforced = 0
    for decision in decisions:
        seen.add(decision.surface)
        if decision.mode is _ENFORCE:
            enforced += 1
        for check in decision.checks:
            status = check.status
            if status is _RAN:
                ran += 1
            elif status is not _SKIPPED:
                expected += 1
    expected += ran
    for surface in surfaces:
        if surface not in seen:
            expected += len(guard.checks(surface))
    return {"expected": expected, "ran": ran, "did_not_run": expected - ran, "enforced": enforced}


def outcome_of(decisions: Sequence[Decision]) -> Outcome:
    """What the decisions amount to for the client: the strictest that was acted on."""
    strictest, is_stopped = Effect.ALLOW, False
    for decision in decisions:
        effect = decision.effect
        if effect is _ALLOW or decision.mode is not _ENFORCE:
            continue
        is_stopped = is_stopped or is_stop(decision)
        if effect.rank > strictest.rank:
            strictest = effect
    if strictest is Effect.REPLACE and not is_stopped:
        return Outcome.REDACTED  # a document was taken out, and the exchange went on
    return _OUTCOMES[strictest]
