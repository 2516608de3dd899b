"""A guardrail for LiteLLM: requests, answers and streams of its proxy under guard.

litellm.callbacks = [make_guardrail(Guard.load())]

Chat completions and Anthropic messages are guarded whole and streamed, responses and embeddings whole. Other
calls are refused: no hook of LiteLLM shows what is in them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from stanchion.core.errors import UsageError
from stanchion.core.interaction import Interaction, Reply
from stanchion.guard.exchange import PreparedInteraction, is_stop
from stanchion.guard.pipeline import Guard
from stanchion.integrations.foreign import load
from stanchion.integrations.recording import Recorder, Recording
from stanchion.integrations.wire_apis import WireApi, api_named
from stanchion.models.openai_answers import ChunkDecoder, ChunkEncoder
from stanchion.models.wire import Request

_CALLS = {
    "completion": "openai.chat",
    "acompletion": "openai.chat",
    "anthropic_messages": "anthropic.messages",
    "aanthropic_messages": "anthropic.messages",
    "responses": "openai.responses",
    "aresponses": "openai.responses",
    "embedding": "openai.embeddings",
    "aembedding": "openai.embeddings",
    "embeddings": "openai.embeddings",
}
_CONTENT = {
    "openai.chat": ("messages", "tools", "n", "functions", "function_call"),
    "anthropic.messages": ("messages", "system", "tools"),
    "openai.responses": ("input", "instructions", "tools", "previous_response_id", "conversation", "prompt"),
    "openai.embeddings": ("input",),
}
_STREAMED = ("openai.chat", "anthropic.messages")
_MOST_KEPT = 10_000


class NotGuarded(UsageError):
    """A call that no hook can guard; the proxy answers it with this status."""

    status_code = 403


class _Kept(msgspec.Struct, frozen=True):
    """What is remembered of a request until its answer."""

    api: WireApi
    request: Request
    prepared: PreparedInteraction


class _Guardrail:
    """What is ours of the guardrail; `make_guardrail` adds LiteLLM's base class."""

    _types: Any
    _exceptions: Any

    def __init__(self, guard: Guard, recording: Recording, **options: Any) -> None:
        super().__init__(**options)
        self._guard, self._recording = guard, recording
        self._kept: OrderedDict[str, _Kept] = OrderedDict()

    async def async_pre_call_deployment_hook(self, kwargs: dict[str, Any], call_type: Any) -> Any:
        """Calls of the SDK, without the proxy: their streams meet no hook, so they are refused."""
        if kwargs.get("stream") and "proxy_server_request" not in kwargs:
            raise NotGuarded(
                "LiteLLM's SDK shows a guardrail nothing of a stream.",
                hint="Use the proxy, a guarded client, or the gateway.",
            )
        return await super().async_pre_call_deployment_hook(kwargs, call_type)  # type: ignore[misc]

    async def async_pre_call_hook(
        self, user_api_key_dict: Any, cache: Any, data: dict[str, Any], call_type: str
    ) -> dict[str, Any]:
        """Check what is asked, and put in its place what may be asked.

        Raises:
            ModifyResponseException: with the safe completion, for what may not be asked.
            NotGuarded: for calls that no hook can guard.
        """
        kept = await self._prepared(data, str(getattr(call_type, "value", call_type)), "pre_call")
        if kept.prepared.blocked is not None:
            self._refuse(kept.prepared.blocked, data)
        if kept.prepared.is_unchanged:
            return data
        said = kept.api.upstream.encode_request(kept.prepared.interaction, stream=False)
        return {**data, **{name: said[name] for name in _CONTENT[kept.api.name] if name in said}}

    async def async_moderation_hook(
        self, data: dict[str, Any], user_api_key_dict: Any, call_type: str
    ) -> None:
        """Check beside the call, where nothing can be rewritten: what would have to be is refused."""
        kept = await self._prepared(data, str(getattr(call_type, "value", call_type)), "during_call")
        if kept.prepared.blocked is not None:
            self._refuse(kept.prepared.blocked, data)
        if not kept.prepared.is_unchanged:
            raise NotGuarded(
                "this request would have to be rewritten, which a during_call hook cannot do.",
                hint="Use the mode pre_call.",
            )

    async def async_post_call_success_hook(
        self, data: dict[str, Any], user_api_key_dict: Any, response: Any
    ) -> Any:
        """The answer as it may be shown; unchanged answers are the very same object."""
        kept = await self._known(data, response)
        if kept.api.name == "openai.embeddings":
            return response
        try:
            reply = kept.api.upstream.decode_reply(_plain(response))
            done = (await self._guard.afinish(kept.prepared, reply)).reply
        except Exception as error:
            self._recording.broke("post_call", error)
            raise
        assert done is not None  # noqa: S101 - `afinish` gives one
        new = done.decisions[len(kept.prepared.decisions) :]
        self._recording.note("post_call", new, is_allowed=not any(is_stop(one) for one in new))
        if done.message == reply.message and done.finish_reason is reply.finish_reason:
            return response
        body = kept.api.surface.encode_reply(
            done, asked=kept.request, response_id=_id_of(response), created=0
        )
        return body if isinstance(response, dict) else type(response)(**body)

    async def async_post_call_streaming_iterator_hook(
        self, user_api_key_dict: Any, response: Any, request_data: dict[str, Any]
    ) -> AsyncIterator[Any]:
        """The stream as it may be shown. An answer that cannot be decided ends in an error."""
        kept = await self._known(request_data, None)
        guard = self._guard.stream(kept.prepared)
        flow: Any = _Wire(kept) if kept.api.name == "anthropic.messages" else _Chunks(kept, self._types)
        try:
            async for event in _events(flow, response):
                for shown in await guard.feed(event):
                    for out in flow.written(shown):
                        yield out
                if guard.is_over:
                    break
            await guard.finish()
        except Exception as error:
            self._recording.broke("stream", error)
            raise
        for out in flow.finished():
            yield out
        answer = None if guard.answer is None else guard.answer.reply
        new = () if answer is None else answer.decisions[len(kept.prepared.decisions) :]
        self._recording.note("stream", new, is_allowed=not guard.was_stopped, guarantee=guard.guarantee.value)

    async def _prepared(self, data: dict[str, Any], call_type: str, hook: str) -> _Kept:
        name = _CALLS.get(call_type)
        if name is None or (data.get("stream") and name not in _STREAMED):
            raise NotGuarded(
                f"no guard reads {call_type!r}{' streams' if name else ''} in LiteLLM.",
                hint="Ask chat completions or messages, or use the gateway.",
            )
        try:
            request = self._request(api_named(name), data)
            kept = _Kept(api_named(name), request, await self._guard.aprepare(request.interaction))
        except Exception as error:
            self._recording.broke(hook, error)
            raise
        self._recording.note(hook, kept.prepared.decisions, is_allowed=kept.prepared.blocked is None)
        key = str(data.get("litellm_call_id") or "")
        if key:
            self._kept[key] = kept
            while len(self._kept) > _MOST_KEPT:
                self._kept.popitem(last=False)
        return kept

    async def _known(self, data: dict[str, Any], response: Any) -> _Kept:
        """What was prepared for this answer; prepared anew when only answers are guarded."""
        kept = self._kept.pop(str(data.get("litellm_call_id") or ""), None)
        if kept is not None:
            return kept
        call_type = "acompletion"
        if "input" in data and "messages" not in data:
            call_type = "aembedding" if response is not None and hasattr(response, "data") else "aresponses"
        elif isinstance(response, dict) and response.get("type") == "message":
            call_type = "anthropic_messages"
        return await self._prepared(data, call_type, "post_call request")

    def _request(self, api: WireApi, data: dict[str, Any]) -> Request:
        body = {name: data[name] for name in _CONTENT[api.name] if data.get(name) is not None}
        body = _plain(body) | {"model": str(data.get("model") or "unknown")}
        if api.name == "anthropic.messages":
            body["max_tokens"] = data.get("max_tokens") or 1
        request = api.surface.decode_request(body)
        session = str(data.get("litellm_session_id") or "")
        interaction: Interaction = msgspec.structs.replace(request.interaction, session_id=session)
        return msgspec.structs.replace(
            request, interaction=interaction, stream=bool(data.get("stream")), include_usage=True
        )

    def _refuse(self, reply: Reply, data: dict[str, Any]) -> None:
        raise self._exceptions.ModifyResponseException(
            message=reply.message.text,
            model=str(data.get("model") or "unknown"),
            request_data=data,
            guardrail_name=getattr(self, "guardrail_name", None),
        )


class _Chunks:
    """Chunks of chat completions as LiteLLM's objects, to events and back."""

    def __init__(self, kept: _Kept, types: Any) -> None:
        self._types = types
        self._decoder = ChunkDecoder()
        self._model = kept.request.interaction.model
        self._encoder: ChunkEncoder | None = None

    def events(self, piece: Any) -> list[Any]:
        """The events of a chunk."""
        body = _plain(piece)
        if self._encoder is None:
            created = body.get("created")
            self._encoder = ChunkEncoder(
                response_id=str(body.get("id") or "chatcmpl"),
                created=created if isinstance(created, int) else 0,
                model=str(body.get("model") or self._model),
                include_usage=True,
            )
        return self._decoder.feed(body)

    def end(self) -> list[Any]:
        """What the end of the stream means."""
        return self._decoder.finish(is_marked=False)

    def written(self, event: Any) -> list[Any]:
        """The chunks of an event."""
        assert self._encoder is not None  # noqa: S101 - a chunk came first
        return [self._types.ModelResponseStream(**chunk) for chunk in self._encoder.feed(event)]

    def finished(self) -> list[Any]:
        """Nothing: the proxy writes `[DONE]`."""
        return []


class _Wire:
    """Server-sent events as bytes, to events and back."""

    def __init__(self, kept: _Kept) -> None:
        self._reader = kept.api.upstream.reader()
        self._encoder = kept.api.surface.stream_encoder(
            asked=kept.request, response_id="msg_litellm", created=0
        )

    def events(self, piece: Any) -> list[Any]:
        """The events of some bytes."""
        return self._reader.feed(piece if isinstance(piece, bytes) else str(piece).encode())

    def end(self) -> list[Any]:
        """What the end of the stream means."""
        return self._reader.end()

    def written(self, event: Any) -> list[Any]:
        """The frames of an event."""
        return list(self._encoder.feed(event))

    def finished(self) -> list[Any]:
        """The last frames."""
        return list(self._encoder.finish())


async def _events(flow: Any, response: Any) -> AsyncIterator[Any]:
    """The events of a stream, its end among them."""
    async for piece in response:
        for event in flow.events(piece):
            yield event
    for event in flow.end():
        yield event


def _plain(value: Any) -> Any:
    """A value of LiteLLM as JSON."""
    if hasattr(value, "model_dump"):
        return _plain(value.model_dump(mode="json", exclude_none=True))
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items() if not _is_empty_extra(name, each)}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


def _is_empty_extra(name: str, value: Any) -> bool:
    """Whether this is LiteLLM's own field for what a vendor said besides, and says nothing."""
    is_own = name == "provider_specific_fields"
    return is_own and not (isinstance(value, dict) and any(each is not None for each in value.values()))


def _id_of(response: Any) -> str:
    return str(
        (response.get("id") if isinstance(response, dict) else getattr(response, "id", "")) or "answer"
    )


def make_guardrail(
    guard: Guard,
    *,
    name: str = "stanchion",
    on_decision: Recorder | None = None,
    default_on: bool = True,
    modes: tuple[str, ...] = ("pre_call", "post_call"),
) -> Any:
    """A `CustomGuardrail` of LiteLLM that is on for every request.

    Args:
        guard: decides.
        name: of the guardrail in LiteLLM's configuration.
        on_decision: hears of every decision (default: the log).
        default_on: whether it runs for requests that do not name it.
        modes: `pre_call`, `during_call`, `post_call`.

    Raises:
        UsageError: without the package `litellm`.
    """
    what = "the LiteLLM guardrail"
    base = load("litellm.integrations.custom_guardrail", package="litellm", what=what)
    hooks = load("litellm.types.guardrails", package="litellm", what=what).GuardrailEventHooks
    parts = {"_types": load("litellm.types.utils", package="litellm", what=what), "_exceptions": base}
    own = {name: hook for name, hook in vars(_Guardrail).items() if name.startswith("async_")}
    # LiteLLM's proxy calls a hook only where the class itself has it, an inherited one not
    made = type("StanchionGuardrail", (_Guardrail, base.CustomGuardrail), {**own, **parts})
    return made(
        guard,
        Recording("litellm", on_decision),
        guardrail_name=name,
        default_on=default_on,
        event_hook=[hooks(mode) for mode in modes],
    )
