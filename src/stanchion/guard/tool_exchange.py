"""One tool call under guard: may it be made, and may its result be read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from stanchion.core.decision import Effect, Surface
from stanchion.core.finding import Finding
from stanchion.core.interaction import ToolCall, ToolDefinition
from stanchion.core.origin import Origin
from stanchion.guard.answers import CheckedCall, CheckedValue
from stanchion.guard.call_grounds import call_objections, own_ground, schema_objections
from stanchion.guard.examine import Ground, Subject, SurfaceOutcome
from stanchion.guard.exchange import Exchange, is_stop
from stanchion.guard.fields import (
    Field,
    TextField,
    UncheckedPart,
    call_fields,
    child_path,
    json_depth,
    json_texts,
    rewrite_call,
    rewrite_json,
)
from stanchion.guard.policy_model import Policy
from stanchion.guard.tool_rules import MALFORMED
from stanchion.guard.vault import Vault
from stanchion.guard.workers import Door

_BYTES = (bytes, bytearray, memoryview)


class ToolExchange:
    """Checks single tool calls and results by the policy of an exchange."""

    def __init__(self, policy: Policy, exchange: Exchange) -> None:
        self._policy = policy
        self._exchange = exchange

    async def call(
        self,
        door: Door,
        call: ToolCall,
        *,
        vault: Vault,
        subject: Subject,
        definition: ToolDefinition | None = None,
        calls_before: int | None = None,
    ) -> CheckedCall:
        """The call as it may be made: redacted where rules say so, the vault's values restored."""
        declared = None if definition is None else (definition.name,)
        grounds = list(
            call_objections(self._policy, call, definition, declared=declared, calls_before=calls_before)
        )
        fields = list(call_fields(call, "call", Surface.TOOL_CALL))
        outcome = await self._outcome(door, fields, subject, surface=Surface.TOOL_CALL, grounds=grounds)
        decision = outcome.decision
        if is_stop(decision):
            ground = outcome.ground
            return CheckedCall(
                decision=decision,
                call=call,
                allowed=False,
                denial=_denial(ground, decision.reference),
                needs_approval=decision.effect is Effect.REQUIRE_APPROVAL,
            )
        texts = self._exchange.rewrites({Surface.TOOL_CALL: outcome}, vault, subject)
        rewritten = rewrite_call(call, "call", texts)
        if texts and any(schema_objections(rewritten, definition)):
            blocked = msgspec.structs.replace(decision, effect=Effect.BLOCK)
            ground = Ground(
                effect=Effect.BLOCK,
                rule_id="tools.schema",
                category=MALFORMED,
                reason=f"the arguments of tool {call.name[:64]!r} would not fit any more after redaction.",
            )
            return CheckedCall(
                decision=blocked, call=call, allowed=False, denial=_denial(ground, decision.reference)
            )
        restored = msgspec.structs.replace(rewritten, arguments=vault.restore_value(rewritten.arguments))
        return CheckedCall(decision=decision, call=restored, allowed=True)

    async def result(self, door: Door, value: Any, *, vault: Vault, subject: Subject) -> CheckedValue:
        """A tool's result as the model may read it; the value itself when nothing had to change."""
        grounds: list[tuple[Ground, Finding]] = []
        plain: Any = None
        try:
            plain = msgspec.to_builtins(value, str_keys=True, builtin_types=_BYTES)
        except (TypeError, ValueError, RecursionError):
            reason = f"a result of type {type(value).__name__} is no JSON value and cannot be checked."
            grounds.append(own_ground("tools.result", Effect.BLOCK, "input.media", reason))
        if json_depth(plain) > self._policy.limits.argument_depth:
            reason = f"the result is nested deeper than the limit of {self._policy.limits.argument_depth}."
            grounds.append(own_ground("limits.argument_depth", Effect.BLOCK, "input.limit", reason))
            plain = None
        media: list[str] = []
        plain = _read(plain, "result", media)
        fields: list[Field] = [
            TextField(
                field=path,
                surface=Surface.TOOL_RESULT,
                origin=Origin.TOOL_RESULT,
                text=text,
                is_rewritable=is_value,
            )
            for path, text, is_value in json_texts(plain, "result")
        ]
        fields += [
            UncheckedPart(field=path, surface=Surface.TOOL_RESULT, origin=Origin.TOOL_RESULT, kind="media")
            for path in media
        ]
        outcome = await self._outcome(door, fields, subject, surface=Surface.TOOL_RESULT, grounds=grounds)
        decision = outcome.decision
        if is_stop(decision):
            shown = self._exchange.notice(outcome, subject)
            return CheckedValue(decision=decision, value=shown, allowed=False)
        texts = self._exchange.rewrites({Surface.TOOL_RESULT: outcome}, vault, subject)
        used = rewrite_json(plain, "result", texts) if texts else value
        if isinstance(value, bytes | bytearray) and isinstance(used, str):
            used = type(value)(used.encode())
        return CheckedValue(decision=decision, value=used, allowed=True)

    async def _outcome(
        self,
        door: Door,
        fields: Sequence[Field],
        subject: Subject,
        *,
        surface: Surface,
        grounds: list[tuple[Ground, Finding]],
    ) -> SurfaceOutcome:
        if not fields:  # so that a call without arguments is decided and recorded like any other
            fields = [TextField(field="", surface=surface, origin=Origin.MODEL, text="")]
        outcomes = await self._exchange.examine(door, fields, subject, grounds={surface: grounds})
        return outcomes[surface]


def _denial(ground: Ground | None, reference: str) -> str:
    """A sentence with which a model can go on."""
    reason = ground.reason if ground is not None else "it is not allowed."
    needs_approval = ground is not None and ground.effect is Effect.REQUIRE_APPROVAL
    state = "Not done, it waits for a person's approval" if needs_approval else "Not done"
    return f"{state}: {reason} Go on without this call. (Reference: {reference})"


def _read(value: Any, place: str, media: list[str]) -> Any:
    """The value with bytes that are text as text; the places of other bytes are added to `media`."""
    if isinstance(value, dict):
        return {key: _read(item, child_path(place, str(key)), media) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_read(item, f"{place}[{i}]", media) for i, item in enumerate(value)]
    if not isinstance(value, _BYTES):
        return value
    text = _text_of(bytes(value))
    if text is None:
        media.append(place)
        return value
    return text


def _text_of(data: bytes) -> str | None:
    """The text that bytes are; None for anything else. A text in UTF-8 holds no zero bytes."""
    try:
        return None if b"\0" in data else data.decode("utf-8")
    except UnicodeDecodeError:
        return None
