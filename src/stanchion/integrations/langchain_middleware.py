"""LangChain agents under guard: a middleware around every model call and every tool call (LangChain 1.x).

agent = create_agent(model, tools, middleware=[make_middleware(Guard.load())])

The model's answer leaves this middleware whole: LangChain hands tokens to its streams before any middleware
sees them, so the streams of the model itself are turned off here. `stream_mode="messages"` gives the checked
message. Callbacks, tracers and `astream_events` are told what the model really said; keep them inside.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from stanchion.core.codec import digest
from stanchion.core.errors import StanchionError
from stanchion.core.interaction import (
    FinishReason,
    Interaction,
    Media,
    Message,
    Opaque,
    Part,
    Reasoning,
    Reply,
    Role,
    Text,
    ToolCall,
    ToolDefinition,
    ToolResult,
)
from stanchion.core.origin import Origin
from stanchion.guard.answers import CheckedCall, CheckedValue
from stanchion.guard.exchange import PreparedInteraction, is_stop
from stanchion.guard.pipeline import Guard
from stanchion.integrations.foreign import load
from stanchion.integrations.recording import Recorder, Recording
from stanchion.integrations.rewriting import changed_parts, rewriting_of

_ROLES = {
    "system": (Role.SYSTEM, Origin.SYSTEM),
    "human": (Role.USER, Origin.USER),
    "ai": (Role.ASSISTANT, Origin.MODEL),
    "tool": (Role.TOOL, Origin.TOOL_RESULT),
}
_MEDIA = frozenset({"image", "image_url", "audio", "input_audio", "video", "file"})
_CALLS = frozenset({"tool_use", "tool_call", "function_call"})
_NO_STREAM = "nostream"  # langgraph's tag for a model whose tokens and end are not streamed
_BROKE = "This could not be checked, so it was not done."


def _parts(message: Any) -> tuple[Part, ...]:
    """The parts of a LangChain message: one for each of its content blocks, then its tool calls."""
    _, origin = _ROLES.get(message.type, (Role.USER, Origin.UNKNOWN))
    if message.type == "tool":
        text = message.content if isinstance(message.content, str) else message.text
        name = message.name or ""
        return (ToolResult(call_id=message.tool_call_id, name=name, text=text),)
    blocks = [message.content] if isinstance(message.content, str) else message.content
    parts = [_part(block, origin) for block in blocks]
    parts.extend(
        ToolCall(id=call["id"] or "", name=call["name"], arguments=call["args"])
        for call in getattr(message, "tool_calls", ())
    )
    parts.extend(
        ToolCall(
            id=call["id"] or "", name=call["name"] or "", arguments=None, raw_arguments=call["args"] or ""
        )
        for call in getattr(message, "invalid_tool_calls", ())
    )
    return tuple(parts)


def _part(block: Any, origin: Origin) -> Part:
    if isinstance(block, str):
        return Text(text=block, origin=origin)
    kind = str(block.get("type", ""))
    if kind in ("text", "output_text", "input_text") and isinstance(block.get("text"), str):
        return Text(text=block["text"], origin=origin)
    if kind in ("reasoning", "thinking"):
        return Reasoning(text=str(block.get("reasoning") or block.get("thinking") or ""))
    if kind in _CALLS:
        return Text(text="", origin=origin)  # told by `tool_calls`
    if kind in _MEDIA:
        return Media(media_type=kind, origin=origin, digest=digest(block))
    return Opaque(kind=f"langchain:{kind}", payload=block)


def _rewritten(message: Any, changed: dict[int, Part]) -> Any:
    """A LangChain message whose parts at these positions say something else."""
    if not changed:
        return message
    blocks = [message.content] if isinstance(message.content, str) else list(message.content)
    calls = list(getattr(message, "tool_calls", ()))
    for number, part in changed.items():
        match part:
            case ToolResult(text=text):
                return message.model_copy(update={"content": text})
            case Text(text=text) | Reasoning(text=text) if number < len(blocks):
                blocks[number] = _block(blocks[number], text)
            case ToolCall(arguments=dict() as arguments) if 0 <= number - len(blocks) < len(calls):
                calls[number - len(blocks)] = {**calls[number - len(blocks)], "args": arguments}
            case _:
                raise StanchionError("a part was rewritten in a way that LangChain cannot say.")
    content = blocks[0] if isinstance(message.content, str) else blocks
    update: dict[str, Any] = {"content": content}
    if calls:
        update["tool_calls"] = calls
    return message.model_copy(update=update)


def _block(block: Any, text: str) -> Any:
    if isinstance(block, str):
        return text
    name = next(name for name in ("text", "reasoning", "thinking") if name in block)
    return {**block, name: text}


class _Middleware:
    """What is ours of the middleware; `make_middleware` adds LangChain's base class."""

    _messages: Any
    _model_response: Any

    def __init__(self, guard: Guard, recording: Recording, session_id: Callable[[Any], str]) -> None:
        super().__init__()
        self._guard, self._recording, self._session_id = guard, recording, session_id

    # --- model calls ---

    def wrap_model_call(self, request: Any, handler: Callable[[Any], Any]) -> Any:
        """Check what the model would read, ask it without streaming, check what it said."""
        try:
            prepared = self._guard.prepare(self._interaction(request))
            asked = self._asked(request, prepared)
        except Exception as error:
            self._recording.broke("model request", error)
            raise
        if asked is None:
            return self._refusal(prepared)
        response = handler(asked)
        try:
            said, reply = self._said(response)
            return self._answered(response, said, self._guard.finish(prepared, reply), prepared)
        except Exception as error:
            self._recording.broke("model answer", error)
            raise

    async def awrap_model_call(self, request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
        """The asynchronous twin of `wrap_model_call`."""
        try:
            prepared = await self._guard.aprepare(self._interaction(request))
            asked = self._asked(request, prepared)
        except Exception as error:
            self._recording.broke("model request", error)
            raise
        if asked is None:
            return self._refusal(prepared)
        response = await handler(asked)
        try:
            said, reply = self._said(response)
            return self._answered(response, said, await self._guard.afinish(prepared, reply), prepared)
        except Exception as error:
            self._recording.broke("model answer", error)
            raise

    def _interaction(self, request: Any) -> Interaction:
        messages = [request.system_message] if request.system_message is not None else []
        return Interaction(
            messages=tuple(
                Message(role=_ROLES.get(one.type, (Role.USER, Origin.UNKNOWN))[0], parts=_parts(one))
                for one in [*messages, *request.messages]
            ),
            tools=tuple(_definition(tool) for tool in request.tools),
            session_id=self._session_id(request),
        )

    def _asked(self, request: Any, prepared: PreparedInteraction) -> Any:
        """The request as the guard left it; None when it was refused."""
        is_allowed = prepared.blocked is None
        self._recording.note("model request", prepared.decisions, is_allowed=is_allowed)
        if not is_allowed:
            return None
        change = rewriting_of(prepared.original, prepared.interaction)
        system = request.system_message
        old = ([] if system is None else [system]) + list(request.messages)
        by_message: dict[int, dict[int, Part]] = {}
        for (index, number), part in change.parts.items():
            by_message.setdefault(index, {})[number] = part
        new = [_rewritten(message, by_message.get(index, {})) for index, message in enumerate(old)]
        if system is not None:
            system, new = new[0], new[1:]
        if change.instruction:
            before = "" if system is None else system.text + "\n"
            system = self._messages.SystemMessage(content=before + change.instruction)
        tags = [*(request.model.tags or []), _NO_STREAM]
        model = request.model.model_copy(update={"tags": tags, "disable_streaming": True})
        return request.override(model=model, messages=new, system_message=system)

    def _refusal(self, prepared: PreparedInteraction) -> Any:
        assert prepared.blocked is not None  # noqa: S101 - asked for a refusal only then
        return self._message(prepared.blocked)

    def _said(self, response: Any) -> tuple[Any, Reply]:
        answers = [each for each in response.result if each.type == "ai"]
        if len(answers) != 1:
            raise StanchionError(f"the model gave {len(answers)} answers where one is expected.")
        message = Message(role=Role.ASSISTANT, parts=_parts(answers[0]))
        reason = FinishReason.TOOL_CALLS if message.tool_calls else FinishReason.STOP
        return answers[0], Reply(message=message, finish_reason=reason)

    def _answered(self, response: Any, said: Any, done: Interaction, prepared: PreparedInteraction) -> Any:
        reply = done.reply
        if reply is None:
            raise StanchionError("the answer could not be decided.")
        new = reply.decisions[len(prepared.decisions) :]
        is_stopped = any(is_stop(one) for one in new)
        self._recording.note("model answer", new, is_allowed=not is_stopped)
        if is_stopped:
            return self._message(reply, id=said.id)
        before = Message(role=Role.ASSISTANT, parts=_parts(said))
        changed = {number: part for (_, number), part in changed_parts(before, reply.message).items()}
        if not changed:
            return response
        shown = _rewritten(said, changed)
        result = [shown if each is said else each for each in response.result]
        # What was parsed from words that changed is no longer what they say.
        return self._model_response(result=result, structured_response=None)

    def _message(self, reply: Reply, **fields: Any) -> Any:
        strictest = max(reply.decisions, key=lambda one: one.enforced_effect.rank)
        told = {"finish_reason": "content_filter", "stanchion_reference": strictest.reference}
        return self._messages.AIMessage(content=reply.message.text, response_metadata=told, **fields)

    # --- tool calls ---

    def wrap_tool_call(self, request: Any, handler: Callable[[Any], Any]) -> Any:
        """Check a call before it is made and its result before anybody reads it."""
        session = self._session_id(request)
        try:
            checked = self._guard.check_tool_call(_call(request), session_id=session)
        except Exception as error:
            return self._tool_broke("tool call", request, error)
        if not self._may_call(checked):
            return self._tool_message(request, checked.denial)
        result = handler(_with_arguments(request, checked))
        try:
            return self._read(
                request,
                result,
                [self._guard.check_tool_result(text, session_id=session) for text in _results(result)],
            )
        except Exception as error:
            return self._tool_broke("tool result", request, error)

    async def awrap_tool_call(self, request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
        """The asynchronous twin of `wrap_tool_call`."""
        session = self._session_id(request)
        try:
            checked = await self._guard.acheck_tool_call(_call(request), session_id=session)
        except Exception as error:
            return self._tool_broke("tool call", request, error)
        if not self._may_call(checked):
            return self._tool_message(request, checked.denial)
        result = await handler(_with_arguments(request, checked))
        try:
            values = [await self._guard.acheck_tool_result(t, session_id=session) for t in _results(result)]
            return self._read(request, result, values)
        except Exception as error:
            return self._tool_broke("tool result", request, error)

    def _may_call(self, checked: CheckedCall) -> bool:
        self._recording.note("tool call", [checked.decision], is_allowed=checked.allowed)
        return checked.allowed

    def _read(self, request: Any, result: Any, values: list[CheckedValue]) -> Any:
        for value in values:
            self._recording.note("tool result", [value.decision], is_allowed=value.allowed)
        if not values:
            raise StanchionError("a tool gave something that no guard can read.")
        return result.model_copy(update={"content": str(values[0].value)})

    def _tool_broke(self, hook: str, request: Any, error: Exception) -> Any:
        self._recording.broke(hook, error)
        return self._tool_message(request, _BROKE)

    def _tool_message(self, request: Any, text: str) -> Any:
        call = request.tool_call
        return self._messages.ToolMessage(
            content=text, tool_call_id=call["id"], name=call["name"], status="error"
        )


def _call(request: Any) -> ToolCall:
    call = request.tool_call
    return ToolCall(id=call["id"] or "", name=call["name"], arguments=call["args"])


def _with_arguments(request: Any, checked: CheckedCall) -> Any:
    return request.override(tool_call={**request.tool_call, "args": checked.call.arguments})


def _results(result: Any) -> list[str]:
    """The text of a tool's message; nothing for a command, which could carry anything."""
    if getattr(result, "type", "") != "tool":
        return []
    return [
        result.content if isinstance(result.content, str) else msgspec.json.encode(result.content).decode()
    ]


def _definition(tool: Any) -> ToolDefinition:
    """A tool as the model is told of it."""
    calling = load("langchain_core.utils.function_calling", package="langchain-core", what="a tool")
    said = calling.convert_to_openai_tool(tool)["function"]
    return ToolDefinition(
        name=said["name"], description=said.get("description", ""), parameters=said.get("parameters", {})
    )


def make_middleware(
    guard: Guard,
    *,
    session_id: Callable[[Any], str] | None = None,
    on_decision: Recorder | None = None,
) -> Any:
    """An `AgentMiddleware` that guards model calls and tool calls.

    Args:
        guard: decides.
        session_id: tells the conversation of a request; default: each request on its own.
        on_decision: hears of every decision (default: the log).

    Raises:
        UsageError: without the package `langchain` (1.x).
    """
    what = "the LangChain middleware"
    types = load("langchain.agents.middleware.types", package="langchain", what=what)
    parts = {
        "_messages": load("langchain_core.messages", package="langchain-core", what=what),
        "_model_response": types.ModelResponse,
    }
    made = type("StanchionMiddleware", (_Middleware, types.AgentMiddleware), parts)
    return made(guard, Recording("langchain", on_decision), session_id or (lambda _: ""))
