"""Filters for Semantic Kernel: rendered prompts, functions that are called, and what both give.

add_filters(kernel, Guard.load())

They see what runs through the kernel: prompt functions (whole and streamed) and plug-in functions, those that
a model calls among them. A chat service that is asked directly, past the kernel, meets no filter.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from typing import Any

from stanchion.core.clock import SortableIds, SystemClock
from stanchion.core.errors import BlockedError, UsageError
from stanchion.core.interaction import End, FinishReason, Interaction, TextDelta, ToolCall, user
from stanchion.guard.exchange import PreparedInteraction, is_stop
from stanchion.guard.pipeline import Guard
from stanchion.integrations.foreign import load
from stanchion.integrations.recording import Recorder, Recording

Next = Callable[[Any], Awaitable[None]]
_ids = SortableIds(SystemClock())


class _Filters:
    """The filters of one kernel."""

    def __init__(self, guard: Guard, recording: Recording, results: Any) -> None:
        self._guard, self._recording, self._results = guard, recording, results
        self._prepared: ContextVar[PreparedInteraction | None] = ContextVar("stanchion_prompt", default=None)

    async def prompt(self, context: Any, next: Next) -> None:
        """Check a prompt when it is rendered, and put in its place what may be sent."""
        await next(context)
        if context.rendered_prompt is None:
            return
        asked = Interaction(messages=(user(context.rendered_prompt),), session_id=_ids.new("kernel"))
        try:
            prepared = await self._guard.aprepare(asked)
        except Exception as error:
            self._recording.broke("prompt", error)
            raise
        self._prepared.set(prepared)
        self._recording.note("prompt", prepared.decisions, is_allowed=prepared.blocked is None)
        if prepared.blocked is not None:
            context.function_result = self._result(context.function, prepared.blocked.message.text)
            return
        changed = prepared.interaction.messages
        if len(changed) != 1:
            raise UsageError("a policy that adds a system message cannot be used with prompt filters.")
        context.rendered_prompt = changed[0].text

    async def function(self, context: Any, next: Next) -> None:
        """Check a function's arguments before it runs and its result before anybody reads it."""
        if context.function.is_prompt:
            token = self._prepared.set(None)
            try:
                await next(context)
                await self._answered(context, self._prepared.get())
            finally:
                self._prepared.reset(token)
            return
        await self._called(context, next)

    async def _answered(self, context: Any, prepared: PreparedInteraction | None) -> None:
        """The answer to a prompt, as it may be shown."""
        if context.result is None or (prepared is not None and prepared.blocked is not None):
            return
        if prepared is None:
            raise UsageError("a prompt was answered that no filter saw.", hint="Use add_filters.")
        value = context.result.value
        if hasattr(value, "__aiter__"):
            context.result = self._result(context.function, self._stream(value, prepared))
            return
        for number, message in enumerate(value if isinstance(value, list) else [value]):
            text = str(message)
            shown = await self._shown(text, prepared)
            if shown != text:
                replaced = _with_text(message, shown)
                if isinstance(value, list):
                    value[number] = replaced
                else:
                    context.result = self._result(context.function, replaced)

    async def _shown(self, text: str, prepared: PreparedInteraction) -> str:
        from stanchion.core.interaction import Reply, assistant

        try:
            done = await self._guard.afinish(prepared, Reply(message=assistant(text)))
        except Exception as error:
            self._recording.broke("answer", error)
            raise
        if done.reply is None:
            raise UsageError("the answer could not be decided.")
        new = done.reply.decisions[len(prepared.decisions) :]
        self._recording.note("answer", new, is_allowed=not any(is_stop(one) for one in new))
        return done.reply.message.text

    async def _stream(self, pieces: Any, prepared: PreparedInteraction) -> AsyncIterator[Any]:
        """The words of a stream as they may be shown, in messages like those that came."""
        guard = self._guard.stream(prepared)
        last: Any = None
        try:
            async for piece in pieces:
                messages = piece if isinstance(piece, list) else [piece]
                for message in messages:
                    last = message
                    for event in await guard.feed(TextDelta(text=str(message))):
                        if isinstance(event, TextDelta):
                            yield [_with_text(message, event.text)]
                if guard.is_over:
                    break
            if not guard.is_over:
                for event in await guard.feed(End(finish_reason=FinishReason.STOP)):
                    if isinstance(event, TextDelta):
                        yield [_with_text(last, event.text)]
            await guard.finish()
        except Exception as error:
            self._recording.broke("stream", error)
            raise
        answer = None if guard.answer is None else guard.answer.reply
        new = () if answer is None else answer.decisions[len(prepared.decisions) :]
        self._recording.note("stream", new, is_allowed=not guard.was_stopped, guarantee=guard.guarantee.value)

    async def _called(self, context: Any, next: Next) -> None:
        name = context.function.fully_qualified_name
        call = ToolCall(id=name, name=name, arguments=dict(context.arguments))
        try:
            checked = await self._guard.acheck_tool_call(call)
        except Exception as error:
            self._recording.broke("function call", error)
            raise
        self._recording.note("function call", [checked.decision], is_allowed=checked.allowed)
        if not checked.allowed:
            context.result = self._result(context.function, checked.denial)
            return
        if checked.call.arguments is not None:
            context.arguments.update(checked.call.arguments)
        await next(context)
        if context.result is None:
            return
        if hasattr(context.result.value, "__aiter__") or hasattr(context.result.value, "__next__"):
            raise BlockedError("a function's stream cannot be checked.", reference=checked.reference)
        try:
            value = await self._guard.acheck_tool_result(context.result.value)
        except Exception as error:
            self._recording.broke("function result", error)
            raise
        self._recording.note("function result", [value.decision], is_allowed=value.allowed)
        if value.value != context.result.value:
            context.result = self._result(context.function, value.value)

    def _result(self, function: Any, value: Any) -> Any:
        return self._results.FunctionResult(function=function.metadata, value=value)


def _with_text(message: Any, text: str) -> Any:
    """A message of Semantic Kernel that says something else; other items of it are left out."""
    if isinstance(message, str):
        return text
    items = getattr(message, "items", None)
    if items is None:
        return message.model_copy(update={"text": text})
    words = [item for item in items if type(item).__name__.endswith("TextContent")]
    if not words:
        raise UsageError("a message without words cannot say something else.")
    return message.model_copy(update={"items": [words[0].model_copy(update={"text": text})]})


def add_filters(kernel: Any, guard: Guard, *, on_decision: Recorder | None = None) -> None:
    """Put the filters into a kernel; call it once, before other filters are added.

    Raises:
        UsageError: without the package `semantic-kernel`.
    """
    what = "the Semantic Kernel filters"
    kinds = load("semantic_kernel.filters.filter_types", package="semantic-kernel", what=what).FilterTypes
    results = load("semantic_kernel.functions.function_result", package="semantic-kernel", what=what)
    filters = _Filters(guard, Recording("semantic kernel", on_decision), results)
    kernel.add_filter(kinds.PROMPT_RENDERING, filters.prompt)
    kernel.add_filter(kinds.FUNCTION_INVOCATION, filters.function)
