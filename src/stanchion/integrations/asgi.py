"""ASGI middleware for one's own endpoints: named JSON fields of requests and answers, and streams.

app = GuardMiddleware(app, Guard.load(), [Endpoint("/chat", request=["question"], response=["answer"])])

Works with Starlette, FastAPI and every other ASGI application. Requests to other paths pass untouched. At a
named path everything is guarded or refused: a body that cannot be read, a field of another type, an answer of
another kind. The values of one request that were taken out come back in its answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from stanchion.core.clock import SortableIds, SystemClock
from stanchion.core.errors import UnavailableError, UsageError
from stanchion.core.interaction import Interaction, Message, Reply, Role, Text
from stanchion.core.origin import Origin
from stanchion.guard.exchange import PreparedInteraction, is_stop
from stanchion.guard.pipeline import Guard
from stanchion.guard.streaming import StreamGuard
from stanchion.integrations.asgi_answer import (
    App,
    Endpoint,
    GuardedAnswer,
    Receive,
    RefusedHere,
    Scope,
    Send,
    error_body,
    header,
    read_body,
    replayed,
    with_length,
)
from stanchion.integrations.json_fields import put_texts, texts_at
from stanchion.integrations.recording import Recorder, Recording
from stanchion.models.strict_json import decode_strict

_ids = SortableIds(SystemClock())


class GuardMiddleware:
    """See the module. `on_blocked` makes the answer to a refused request, from its words and reference."""

    def __init__(
        self,
        app: App,
        guard: Guard,
        endpoints: Sequence[Endpoint],
        *,
        on_blocked: Callable[[str, str], Any] | None = None,
        on_decision: Recorder | None = None,
    ) -> None:
        """`endpoints` are looked up by path and method; a path that ends in `/*` names all below it."""
        self._app, self._guard = app, guard
        self._endpoints = tuple(endpoints)
        self._on_blocked = on_blocked or _blocked_body
        self._recording = Recording("asgi", on_decision)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        endpoint = self._endpoint(scope)
        if endpoint is None:
            await self._app(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": "not guarded"})
            return
        answer = GuardedAnswer(self, endpoint, send)
        try:
            body = await read_body(receive, endpoint.max_request_bytes)
            prepared, body = await self.prepare(endpoint, scope, body)
            answer.prepared = prepared
            if prepared.blocked is not None:
                await answer.refuse(
                    403, self._on_blocked(prepared.blocked.message.text, _reference(prepared))
                )
                return
            await self._app(with_length(scope, len(body)), replayed(body, receive), answer.send)
            await answer.finish()
        except RefusedHere as refused:
            await answer.refuse(refused.status, error_body(refused.code, refused.message))

    def _endpoint(self, scope: Scope) -> Endpoint | None:
        if scope["type"] not in ("http", "websocket"):
            return None
        path = scope["path"].removeprefix(scope.get("root_path", "")).rstrip("/") or "/"
        for endpoint in self._endpoints:
            named = endpoint.path.rstrip("/") or "/"
            is_below = named.endswith("/*") and path.startswith(named[:-1])
            is_asked = scope["type"] == "websocket" or scope["method"] in endpoint.methods
            if (path == named or is_below) and is_asked:
                return endpoint
        return None

    async def prepare(
        self, endpoint: Endpoint, scope: Scope, body: bytes
    ) -> tuple[PreparedInteraction, bytes]:
        """The request as the guard left it."""
        value: Any = None
        try:
            if endpoint.request:
                if header(scope["headers"], b"content-encoding") not in (b"", b"identity"):
                    raise RefusedHere(415, "not_checkable", "a compressed body cannot be checked.")
                value = decode_strict(body, what="the body is something")
            found = texts_at(value, endpoint.request)
        except (UnavailableError, UsageError) as error:
            raise RefusedHere(422, "not_checkable", error.message) from None
        parts = tuple(Text(text=text, origin=Origin.USER) for _, text in found)
        asked = Interaction(messages=(Message(role=Role.USER, parts=parts),), session_id=_ids.new("endpoint"))
        try:
            prepared = await self._guard.aprepare(asked)
        except Exception as error:
            self._recording.broke("request", error)
            raise RefusedHere(500, "not_checked", "the request could not be checked.") from None
        self._recording.note("request", prepared.decisions, is_allowed=prepared.blocked is None)
        if prepared.blocked is not None or prepared.is_unchanged:
            return prepared, body
        message = prepared.interaction.messages[-1]
        new = [part.text for part in message.parts if isinstance(part, Text)][: len(found)]
        put_texts(value, [place for place, _ in found], new)
        return prepared, msgspec.json.encode(value)

    async def finish(self, prepared: PreparedInteraction, texts: Sequence[str]) -> list[str] | str:
        """Texts of an answer as they may be shown; the words in place of all of them when it is stopped."""
        parts = tuple(Text(text=text, origin=Origin.MODEL) for text in texts)
        try:
            said = Reply(message=Message(role=Role.ASSISTANT, parts=parts))
            done = (await self._guard.afinish(prepared, said)).reply
            if done is None:
                raise UnavailableError("the answer could not be decided.", is_retryable=False)
        except Exception as error:
            self._recording.broke("response", error)
            raise RefusedHere(500, "not_checked", "the answer could not be checked.") from None
        new = done.decisions[len(prepared.decisions) :]
        is_stopped = any(is_stop(one) for one in new)
        self._recording.note("response", new, is_allowed=not is_stopped)
        if is_stopped:
            return done.message.text
        return [part.text for part in done.message.parts if isinstance(part, Text)]

    def stream(self, prepared: PreparedInteraction) -> StreamGuard:
        """A guard for a streamed answer."""
        return self._guard.stream(prepared)

    def ended(self, guard: StreamGuard, prepared: PreparedInteraction) -> None:
        """Tell of a stream that is over."""
        reply = None if guard.answer is None else guard.answer.reply
        new = () if reply is None else reply.decisions[len(prepared.decisions) :]
        self._recording.note("stream", new, is_allowed=not guard.was_stopped, guarantee=guard.guarantee.value)

    def broke(self, hook: str, error: BaseException) -> None:
        """Tell of a check that broke."""
        self._recording.broke(hook, error)


def _blocked_body(words: str, reference: str) -> Any:
    return {"error": {"code": "blocked", "message": words, "reference": reference}}


def _reference(prepared: PreparedInteraction) -> str:
    held = max(prepared.decisions, key=lambda one: one.enforced_effect.rank, default=None)
    return "" if held is None else held.reference
