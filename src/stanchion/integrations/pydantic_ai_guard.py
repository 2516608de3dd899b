"""PydanticAI agents under guard: a capability around every model request (streamed or not) and every tool.

agent = Agent("openai:gpt-5", capabilities=[make_capability(Guard.load())])

Streams are released by the guard piece by piece. `guarded_model(model, guard)` guards a model alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

from stanchion.core.errors import UnavailableError, UsageError
from stanchion.core.interaction import FinishReason, Interaction, Message, Reply, Role, ToolDefinition
from stanchion.guard.exchange import PreparedInteraction, is_stop
from stanchion.guard.pipeline import Guard
from stanchion.guard.streaming import StreamGuard
from stanchion.integrations.foreign import load
from stanchion.integrations.pydantic_ai_messages import (
    arguments_of,
    conversation,
    neutral_parts,
    put,
    rewritten,
)
from stanchion.integrations.pydantic_ai_stream import GuardedStream
from stanchion.integrations.recording import Recorder, Recording
from stanchion.integrations.rewriting import changed_parts
from stanchion.models.events import tool_call

_BROKE = "This could not be checked, so it was not done."


class _Model:
    """What is ours of the model; `_kinds` adds PydanticAI's `WrapperModel`."""

    wrapped: Any
    _sdk: Any
    _stream_type: Any

    def __init__(self, wrapped: Any, guard: Guard, recording: Recording, session: str) -> None:
        super().__init__(wrapped)  # type: ignore[call-arg]
        self._guard, self._recording, self._session = guard, recording, session

    async def _asked(self, messages: list[Any], parameters: Any) -> tuple[PreparedInteraction, list[Any]]:
        try:
            said, slots = conversation(messages)
            tools = [*parameters.function_tools, *parameters.output_tools]
            asked = Interaction(
                messages=said,
                tools=tuple(
                    ToolDefinition(
                        name=tool.name,
                        description=tool.description or "",
                        parameters=tool.parameters_json_schema,
                    )
                    for tool in tools
                ),
                session_id=self._session,
            )
            prepared = await self._guard.aprepare(asked)
            is_allowed = prepared.blocked is None
            new = rewritten(messages, slots, prepared) if is_allowed else messages
        except Exception as error:
            self._recording.broke("model request", error)
            raise
        self._recording.note("model request", prepared.decisions, is_allowed=is_allowed)
        return prepared, new

    async def request(self, messages: list[Any], model_settings: Any, model_request_parameters: Any) -> Any:
        """Ask under guard."""
        prepared, new = await self._asked(messages, model_request_parameters)
        if prepared.blocked is not None:
            return self._refusal(prepared.blocked)
        response = await self.wrapped.request(new, model_settings, model_request_parameters)
        try:
            parts = [neutral_parts(part)[0] for part in response.parts]
            said = Message(role=Role.ASSISTANT, parts=tuple(parts))
            reason = FinishReason.TOOL_CALLS if said.tool_calls else FinishReason.STOP
            done = (await self._guard.afinish(prepared, Reply(message=said, finish_reason=reason))).reply
        except Exception as error:
            self._recording.broke("model answer", error)
            raise
        if done is None:
            raise UnavailableError("the answer could not be decided.", is_retryable=False)
        decisions = done.decisions[len(prepared.decisions) :]
        is_stopped = any(is_stop(one) for one in decisions)
        self._recording.note("model answer", decisions, is_allowed=not is_stopped)
        if is_stopped:
            text = self._sdk.TextPart(content=done.message.text)
            return dataclasses.replace(response, parts=[text], finish_reason="content_filter")
        shown = list(response.parts)
        for (_, number), part in changed_parts(said, done.message).items():
            shown[number] = put(shown[number], 0, part)
        return dataclasses.replace(response, parts=shown)

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[Any],
        model_settings: Any,
        model_request_parameters: Any,
        run_context: Any = None,
    ) -> AsyncGenerator[Any]:
        """Ask under guard, and release the answer as it is decided."""
        prepared, new = await self._asked(messages, model_request_parameters)
        guard = self._guard.stream(prepared)
        if prepared.blocked is not None:
            yield self._stream(model_request_parameters, None, guard, prepared)
            return
        async with self.wrapped.request_stream(
            new, model_settings, model_request_parameters, run_context
        ) as inner:
            yield self._stream(model_request_parameters, inner, guard, prepared)

    def _stream(self, parameters: Any, inner: Any, guard: StreamGuard, prepared: PreparedInteraction) -> Any:
        return self._stream_type(
            parameters, inner=inner, guard=guard, recording=self._recording, prepared=prepared
        )

    async def count_tokens(
        self, messages: list[Any], model_settings: Any, model_request_parameters: Any
    ) -> Any:
        """Count what would be sent, which is what the guard leaves."""
        prepared, new = await self._asked(messages, model_request_parameters)
        if prepared.blocked is not None:
            raise UsageError("this request was refused, so there is nothing to count.")
        return await self.wrapped.count_tokens(new, model_settings, model_request_parameters)

    async def batch_encode(self, request: Any) -> Any:
        """Refused: what comes back from a batch meets no guard."""
        raise UsageError("batches are not guarded.", hint="Ask without a batch.")

    async def compact_messages(self, request_context: Any, *, instructions: str | None = None) -> Any:
        """Refused: the vendor would read the messages past the guard."""
        raise UsageError("compaction by the vendor is not guarded.", hint="Compact with a guarded model.")

    def _refusal(self, reply: Reply) -> Any:
        part = self._sdk.TextPart(content=reply.message.text)
        return self._sdk.ModelResponse(
            parts=[part], model_name=self.wrapped.model_name, finish_reason="content_filter"
        )


class _Capability:
    """What is ours of the capability; `make_capability` adds PydanticAI's base class."""

    _sdk: Any

    def __init__(self, guard: Guard, recording: Recording, session: str, recorder: Recorder | None) -> None:
        super().__init__()
        self._guard, self._recording, self._session, self._recorder = guard, recording, session, recorder

    def get_wrapper_model(self, model: Any) -> Any:
        """The model under guard."""
        return guarded_model(model, self._guard, session_id=self._session, on_decision=self._recorder)

    async def wrap_tool_execute(
        self, ctx: Any, *, call: Any, tool_def: Any, args: dict[str, Any], handler: Any
    ) -> Any:
        """Check a call before its tool runs, and its result before a model reads it."""
        asked = tool_call(id=call.tool_call_id, name=call.tool_name, raw_arguments=arguments_of(call.args))
        try:
            checked = await self._guard.acheck_tool_call(asked, session_id=self._session)
        except Exception as error:
            self._recording.broke("tool call", error)
            return _BROKE
        is_changed = checked.allowed and checked.call != asked
        self._recording.note("tool call", [checked.decision], is_allowed=checked.allowed and not is_changed)
        if not checked.allowed or is_changed:
            return checked.denial or "Not done: its arguments hold what may not be passed on."
        result = await handler(args)
        try:
            value = await self._guard.acheck_tool_result(result, session_id=self._session)
        except Exception as error:
            self._recording.broke("tool result", error)
            return _BROKE
        self._recording.note("tool result", [value.decision], is_allowed=value.allowed)
        return value.value


def guarded_model(
    model: Any, guard: Guard, *, session_id: str = "", on_decision: Recorder | None = None
) -> Any:
    """A model of PydanticAI that is asked, and answers, under guard.

    Raises:
        UsageError: without the package `pydantic-ai`.
    """
    kind, _ = _kinds()
    return kind(model, guard, Recording("pydantic-ai", on_decision), session_id)


def make_capability(guard: Guard, *, session_id: str = "", on_decision: Recorder | None = None) -> Any:
    """A capability that guards the model requests and the tools of an agent.

    Args:
        guard: decides.
        session_id: of the conversation; default: each request on its own.
        on_decision: hears of every decision (default: the log).

    Raises:
        UsageError: without the package `pydantic-ai`.
    """
    _, kind = _kinds()
    return kind(guard, Recording("pydantic-ai", on_decision), session_id, on_decision)


@cache
def _kinds() -> tuple[type[Any], type[Any]]:
    """The model and the capability, with PydanticAI's base classes."""
    what = "the PydanticAI integration"
    package = "pydantic-ai"
    models = load("pydantic_ai.models", package=package, what=what)
    wrapper = load("pydantic_ai.models.wrapper", package=package, what=what)
    capabilities = load("pydantic_ai.capabilities", package=package, what=what)
    messages = load("pydantic_ai.messages", package=package, what=what)
    stream = type("StanchionStream", (GuardedStream, models.StreamedResponse), {})
    model = type("StanchionModel", (_Model, wrapper.WrapperModel), {"_sdk": messages, "_stream_type": stream})
    return model, type("StanchionGuard", (_Capability, capabilities.AbstractCapability), {"_sdk": messages})
