"""A streamed answer of PydanticAI under guard: its events in, and out what the guard lets go."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from stanchion.core.clock import SystemClock
from stanchion.core.errors import UnavailableError, UsageError
from stanchion.core.interaction import (
    ArgumentDelta,
    End,
    FinishReason,
    ReasoningDelta,
    StreamEvent,
    TextDelta,
    UnknownEvent,
    UsageEvent,
)
from stanchion.guard.exchange import PreparedInteraction
from stanchion.guard.streaming import StreamGuard
from stanchion.integrations.pydantic_ai_messages import arguments_of
from stanchion.integrations.recording import Recording


class GuardedStream:
    """What is ours of a streamed response; `pydantic_ai_guard` adds PydanticAI's `StreamedResponse`."""

    _parts_manager: Any
    finish_reason: Any
    _usage: Any

    def __init__(
        self,
        parameters: Any,
        *,
        inner: Any,
        guard: StreamGuard,
        recording: Recording,
        prepared: PreparedInteraction,
    ) -> None:
        """`inner` is the model's own stream; None when the request was refused."""
        super().__init__(model_request_parameters=parameters)  # type: ignore[call-arg]
        self._inner, self._guard, self._recording, self._prepared = inner, guard, recording, prepared
        self._begun: set[int] = set()
        self._made = SystemClock().now()

    async def _get_event_iterator(self) -> AsyncIterator[Any]:
        try:
            async for event in self._events():
                for shown in await self._guard.feed(event):
                    for out in self._written(shown):
                        yield out
                if self._guard.is_over:
                    break
            await self._guard.finish()
        except Exception as error:
            self._recording.broke("model stream", error)
            raise
        if self._inner is not None:
            self._usage = self._inner.usage
            self.provider_response_id = self._inner.provider_response_id
        self.finish_reason = "content_filter" if self._guard.was_stopped else self._reason()
        answer = None if self._guard.answer is None else self._guard.answer.reply
        new = () if answer is None else answer.decisions[len(self._prepared.decisions) :]
        self._recording.note(
            "model stream",
            new,
            is_allowed=not self._guard.was_stopped,
            guarantee=self._guard.guarantee.value,
        )

    def _reason(self) -> Any:
        return None if self._inner is None else self._inner.finish_reason

    async def _events(self) -> AsyncIterator[StreamEvent]:
        has_calls = False
        if self._inner is not None:
            async for event in self._inner:
                for one in self._read(event):
                    has_calls = has_calls or isinstance(one, ArgumentDelta)
                    yield one
        yield End(finish_reason=FinishReason.TOOL_CALLS if has_calls else FinishReason.STOP)

    def _read(self, event: Any) -> list[StreamEvent]:
        kind = event.event_kind
        if kind == "part_start":
            if event.index in self._begun:
                raise UnavailableError("a part of the stream began twice.", is_retryable=False)
            self._begun.add(event.index)
            return self._started(event.part, event.index)
        return self._more(event.delta, event.index) if kind == "part_delta" else []

    def _started(self, part: Any, index: int) -> list[StreamEvent]:
        match part.part_kind:
            case "text":
                return [TextDelta(text=part.content, index=index)]
            case "thinking":
                return [ReasoningDelta(text=part.content, index=index, signature=part.signature)]
            case "tool-call":
                text = "" if part.args is None else arguments_of(part.args)
                return [ArgumentDelta(index=index, call_id=part.tool_call_id, name=part.tool_name, json=text)]
            case kind:
                return [UnknownEvent(kind=f"pydantic-ai:{kind}")]

    def _more(self, delta: Any, index: int) -> list[StreamEvent]:
        match delta.part_delta_kind:
            case "text":
                return [TextDelta(text=delta.content_delta, index=index)]
            case "thinking":
                text = delta.content_delta or ""
                return [ReasoningDelta(text=text, index=index, signature=delta.signature_delta)]
            case "tool_call" if isinstance(delta.args_delta, str | None) and not delta.tool_name_delta:
                return [ArgumentDelta(index=index, json=delta.args_delta or "")]
            case kind:
                return [UnknownEvent(kind=f"pydantic-ai:{kind}-delta")]

    def _written(self, event: StreamEvent) -> list[Any]:
        manager = self._parts_manager
        match event:
            case TextDelta(text=text, index=index):
                return list(manager.handle_text_delta(vendor_part_id=f"text-{index}", content=text))
            case ReasoningDelta():
                made = manager.handle_thinking_delta(
                    vendor_part_id=f"thinking-{event.index}",
                    content=event.text or None,
                    signature=event.signature,
                    provider_name=self.provider_name,
                )
                return list(made) if event.text or event.signature else []
            case ArgumentDelta():
                return list(
                    manager.handle_tool_call_delta_events(
                        vendor_part_id=f"call-{event.index}",
                        tool_name=event.name,
                        args=event.json or None,
                        tool_call_id=event.call_id,
                    )
                )
            case End() | UsageEvent():
                return []
            case _:
                raise UsageError("this part of a stream cannot be said in PydanticAI.")

    async def close_stream(self) -> None:
        """Close the model's stream."""
        if self._inner is not None:
            await self._inner.close_stream()

    @property
    def model_name(self) -> str:
        """The model's name."""
        return "stanchion" if self._inner is None else str(self._inner.model_name)

    @property
    def provider_name(self) -> str | None:
        """The provider's name."""
        return None if self._inner is None else self._inner.provider_name

    @property
    def provider_url(self) -> str | None:
        """The provider's address."""
        return None if self._inner is None else self._inner.provider_url

    @property
    def timestamp(self) -> Any:
        """When the answer began."""
        return self._made if self._inner is None else self._inner.timestamp
