"""A model without a model: deterministic replies from a script, a recording, or both.

For tests, demos, drills and replays. It is never counted as a real model's answers: its id starts with
`scripted:` and its component digest is the script's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any, NoReturn

import msgspec

from stanchion.core.codec import digest, short
from stanchion.core.components import ComponentSet
from stanchion.core.errors import DeadlineError, UnavailableError
from stanchion.core.interaction import (
    End,
    FinishReason,
    Interaction,
    Message,
    Part,
    Reasoning,
    Refusal,
    Reply,
    Role,
    StreamEvent,
    Text,
    ToolCall,
    Usage,
)
from stanchion.core.origin import Origin
from stanchion.models.client import request_digest
from stanchion.models.events import events_of, tool_call
from stanchion.models.recording import Recording
from stanchion.models.script import (
    Delivery,
    Failure,
    FailureKind,
    Rule,
    Script,
    ScriptedCall,
    ScriptedReply,
    View,
    matched,
)
from stanchion.models.template import fill

Sleep = Callable[[float], Awaitable[None]]


class _Planned(msgspec.Struct, frozen=True, kw_only=True):
    """What will happen for one request."""

    reply: Reply
    delivery: Delivery
    failure: Failure | None = None


class ScriptedModel:
    """Plays a script and, before it, a recording.

    A request that neither knows is an `UnavailableError` unless the script has a default: an unmatched
    request is never answered in silence.
    """

    def __init__(
        self,
        script: Script | None = None,
        *,
        recording: Recording | None = None,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._script = script or Script(name="recording")
        self._recording = recording
        self._sleep = sleep
        self._left = {n: rule.times for n, rule in enumerate(self._script.rules) if rule.times is not None}
        self._components = ComponentSet(model=self._identity())

    @property
    def id(self) -> str:
        """`scripted:` and the script's name."""
        return f"scripted:{self._script.name}"

    @property
    def components(self) -> ComponentSet:
        """The digest of script and recording as the model."""
        return self._components

    async def invoke(self, interaction: Interaction) -> Interaction:
        """The request with the scripted reply."""
        planned = self._plan(interaction)
        await self._wait(planned.delivery.delay_ms)
        if planned.failure is not None:
            _fail(planned.failure)
        if planned.delivery.drop_end:
            raise UnavailableError(f"model {self.id!r}: the answer broke off, as the script says.")
        return msgspec.structs.replace(interaction, reply=planned.reply)

    async def stream(self, interaction: Interaction) -> AsyncIterator[StreamEvent]:
        """The scripted reply in pieces, failing where the script says so."""
        planned = self._plan(interaction)
        delivery = planned.delivery
        await self._wait(delivery.delay_ms)
        events = events_of(planned.reply, chunk_chars=delivery.chunk_chars)
        for number, event in enumerate(events):
            if planned.failure is not None and number >= planned.failure.after_events:
                break
            if delivery.drop_end and isinstance(event, End):
                continue
            if number:
                await self._wait(delivery.chunk_delay_ms)
            yield event
        if planned.failure is not None:
            _fail(planned.failure)

    async def aclose(self) -> None:
        """Nothing to let go of."""

    def _identity(self) -> str:
        return digest(
            {"script": self._script, "recording": self._recording.digest if self._recording else ""}
        )

    async def _wait(self, milliseconds: float) -> None:
        if milliseconds > 0:
            await self._sleep(milliseconds / 1000)

    def _plan(self, interaction: Interaction) -> _Planned:
        recorded = self._recording.find(interaction) if self._recording is not None else None
        if recorded is not None:
            return _Planned(reply=recorded, delivery=self._script.delivery)
        view = View(interaction)
        for rule, variables in self._matches(view):
            delivery = self._script.delivery if rule.delivery == Delivery() else rule.delivery
            reply = self._reply(rule.reply, variables, view)
            return _Planned(reply=reply, delivery=delivery, failure=rule.failure)
        if self._script.default is None:
            raise self._unmatched(interaction, view)
        reply = self._reply(self._script.default, view.variables(), view)
        return _Planned(reply=reply, delivery=self._script.delivery)

    def _matches(self, view: View) -> Iterator[tuple[Rule, Mapping[str, Any]]]:
        for number, rule in enumerate(self._script.rules):
            if self._left.get(number) == 0:
                continue
            variables = matched(rule.when, view)
            if variables is not None:
                if number in self._left and (left := self._left[number]) is not None:
                    self._left[number] = left - 1
                yield rule, variables

    def _reply(self, scripted: ScriptedReply, variables: Mapping[str, Any], view: View) -> Reply:
        calls = tuple(
            _call(call, variables, default_id=f"call_{view.turn}_{number}")
            for number, call in enumerate(scripted.tool_calls, start=1)
        )
        words = (
            (scripted.reasoning, lambda text: Reasoning(text=text)),
            (scripted.text, lambda text: Text(text=text, origin=Origin.MODEL)),
            (scripted.refusal, lambda text: Refusal(text=text)),
        )
        parts: list[Part] = [make(_text(text, variables)) for text, make in words if text]
        usual = FinishReason.TOOL_CALLS if calls else FinishReason.STOP
        return Reply(
            message=Message(role=Role.ASSISTANT, parts=(*parts, *calls)),
            finish_reason=scripted.finish_reason or usual,
            model=self.id,
            usage=scripted.usage or Usage(),
        )

    def _unmatched(self, interaction: Interaction, view: View) -> UnavailableError:
        what = f"request {short(request_digest(interaction))}, turn {view.turn}"
        size = f"last user text of {len(view.last_user)} characters"
        return UnavailableError(
            f"model {self.id!r}: nothing matches {what} ({size}).",
            hint="Add a rule or a `default` to the script, or record this request.",
        )


def _call(call: ScriptedCall, variables: Mapping[str, Any], *, default_id: str) -> ToolCall:
    call_id = call.id or default_id
    if call.raw_arguments is not None:
        return tool_call(id=call_id, name=call.name, raw_arguments=_text(call.raw_arguments, variables))
    return ToolCall(id=call_id, name=call.name, arguments=fill(call.arguments, variables))


def _text(template: str, variables: Mapping[str, Any]) -> str:
    value = fill(template, variables)
    return value if isinstance(value, str) else str(value)


def _fail(failure: Failure) -> NoReturn:
    match failure.kind:
        case FailureKind.UNAVAILABLE:
            raise UnavailableError(failure.message)
        case FailureKind.DEADLINE:
            raise DeadlineError(failure.message)
