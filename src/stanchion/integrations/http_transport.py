"""Transports for httpx (1.x as `httpx`, 2.x as `httpx2`) with a guard between a vendor's SDK and the network.

The SDK's own HTTP client still sends: its proxies, certificates, hooks and retries stay as they are.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterator
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

from stanchion.core.errors import StanchionError, UsageError
from stanchion.guard.pipeline import Guard
from stanchion.guard.workers import start_on_background_loop
from stanchion.integrations.client_exchange import (
    EVENTS,
    ClientExchange,
    Sent,
    StreamExchange,
    refusal,
)
from stanchion.integrations.recording import Recording
from stanchion.integrations.wire_apis import ERRORS, WireApi, api_named, api_of, passes_unread
from stanchion.models.http_errors import json_or_none
from stanchion.models.surface import encode_json

_DROPPED = frozenset(
    {"content-length", "content-encoding", "content-type", "transfer-encoding", "connection", "set-cookie"}
)
_KEPT_OF_ERRORS = ("type", "code", "param", "message", "status")
_MAX_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Guarding:
    """What every request of one client goes through. `vendor` is `openai` or `anthropic`."""

    guard: Guard
    vendor: str
    recording: Recording
    session_id: Callable[[], str]
    unguarded_paths: Collection[str] = ()

    def exchange(self, request: Any) -> ClientExchange | Sent | None:
        """The exchange of a request, the refusal of one that no guard can read, or None: it may pass."""
        method, path = request.method.upper(), request.url.path
        api = api_of(self.vendor, method, path)
        if api is not None:
            return ClientExchange(api, self.recording, session_id=self.session_id())
        if passes_unread(method, path, self.unguarded_paths):
            return None
        hint = "Name its path in `unguarded_paths` if nothing that has to be checked goes over it."
        return self.refused(403, "not_guarded", f"no guard reads {method} {path[:200]}. {hint}")

    def refused(self, status: int, code: str, message: str) -> Sent:
        """An error in the vendor's shape."""
        codec = api_named(ERRORS[self.vendor]).surface
        return refusal(codec, status=status, code=code, message=message)

    def failed(self, exchange: ClientExchange, where: str, error: Exception) -> Sent:
        """What the SDK gets when something could not be checked: an error, and nothing unchecked."""
        exchange.broke(where, error)
        status = 502 if where == "answer" else 400 if isinstance(error, UsageError) else 500
        told = str(error) if isinstance(error, StanchionError) else f"the {where} could not be checked."
        return self.refused(status, f"{where}_not_checked", told)


def kept_headers(headers: Any, sent: Sent | None = None, *, content_type: str = "") -> list[tuple[str, str]]:
    """The vendor's headers without those that told of the body as it was."""
    kept = [(name, value) for name, value in headers.items() if name.lower() not in _DROPPED]
    if sent is not None:
        return [*kept, ("content-type", sent.content_type), *sent.headers.items()]
    return [*kept, ("content-type", content_type)]


def plain_error(status: int, raw: bytes, api: WireApi) -> bytes:
    """A vendor's error body with what its API documents: some servers put a failed answer beside that."""
    body = json_or_none(raw)
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(body, dict) or not isinstance(error, dict):
        message = f"the endpoint answered with status {status}."
        return encode_json(api.surface.encode_error(status=status, code="upstream_error", message=message))
    kept = {
        name: value
        for name in _KEPT_OF_ERRORS
        if isinstance(value := error.get(name), str | int | None) and name in error
    }
    top = {name: body[name] for name in ("type", "request_id") if isinstance(body.get(name), str)}
    return encode_json({**top, "error": kept})


def _forwarded(module: ModuleType, request: Any, content: bytes) -> Any:
    headers = [
        (name, value)
        for name, value in request.headers.items()
        if name.lower() not in ("content-length", "transfer-encoding")
    ]
    return module.Request(
        request.method, request.url, headers=headers, content=content, extensions=request.extensions
    )


def _response(module: ModuleType, sent: Sent, headers: Any = None) -> Any:
    return module.Response(sent.status, headers=kept_headers(headers or {}, sent), content=sent.body)


def _is_stream(exchange: ClientExchange, response: Any) -> bool:
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    return exchange.asked.stream and exchange.api.surface.can_stream and kind == "text/event-stream"


def _limited(size: int) -> None:
    if size > _MAX_BYTES:
        raise UsageError(f"the answer is larger than {_MAX_BYTES} bytes.")


class _Events:
    """The bytes of a guarded stream."""

    def __init__(self, response: Any, stream: StreamExchange) -> None:
        self._response, self._stream = response, stream

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._response.iter_bytes():
            out = start_on_background_loop(self._stream.feed(piece)).result()
            if out:
                yield out
            if self._stream.is_over:
                return
        out = start_on_background_loop(self._stream.end()).result()
        if out:
            yield out

    def close(self) -> None:
        """Close the connection to the vendor."""
        self._response.close()


class _Transport:
    """Guards what a synchronous client sends and receives."""

    http: ModuleType
    events: type[Any]

    def __init__(self, client: Any, guarding: Guarding) -> None:
        """`client` is the SDK's own HTTP client."""
        self._client, self._with = client, guarding

    def handle_request(self, request: Any) -> Any:
        """The vendor's answer to a request, as the guard left both."""
        found = self._with.exchange(request)
        if isinstance(found, Sent):
            return _response(self.http, found)
        raw = request.read()
        if found is None:
            return self._client.send(_forwarded(self.http, request, raw), stream=True)
        try:
            refused = found.take(self._with.guard.prepare(found.read(raw)))
            content = b"" if refused is not None else found.outgoing()
        except Exception as error:
            return _response(self.http, self._with.failed(found, "request", error))
        if refused is not None:
            return _response(self.http, refused)
        response = self._client.send(_forwarded(self.http, request, content), stream=True)
        return self._answered(found, response)

    def _answered(self, exchange: ClientExchange, response: Any) -> Any:
        if response.is_success and _is_stream(exchange, response):
            stream = StreamExchange(
                exchange, self._with.guard.stream(exchange.prepared), self._with.recording
            )
            headers = kept_headers(response.headers, content_type=EVENTS)
            headers.append(("x-stanchion-guarantee", stream.guarantee))
            return self.http.Response(200, headers=headers, stream=self.events(response, stream))
        try:
            raw = self._read(response)
            if response.status_code >= 400:
                body = plain_error(response.status_code, raw, exchange.api)
                return _response(self.http, Sent(response.status_code, body), response.headers)
            done = self._with.guard.finish(exchange.prepared, exchange.heard(raw))
            return _response(self.http, exchange.finished(done), response.headers)
        except self.http.HTTPError:
            raise
        except Exception as error:
            return _response(self.http, self._with.failed(exchange, "answer", error))

    def _read(self, response: Any) -> bytes:
        body = bytearray()
        try:
            for piece in response.iter_bytes():
                body += piece
                _limited(len(body))
        finally:
            response.close()
        return bytes(body)

    def close(self) -> None:
        """Close the connection to the vendor."""
        self._client.close()


class _AsyncEvents:
    """The bytes of a guarded stream."""

    def __init__(self, response: Any, stream: StreamExchange) -> None:
        self._response, self._stream = response, stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._response.aiter_bytes():
            out = await self._stream.feed(piece)
            if out:
                yield out
            if self._stream.is_over:
                return
        out = await self._stream.end()
        if out:
            yield out

    async def aclose(self) -> None:
        """Close the connection to the vendor."""
        await self._response.aclose()


class _AsyncTransport:
    """Guards what an asynchronous client sends and receives, without blocking the event loop."""

    http: ModuleType
    events: type[Any]

    def __init__(self, client: Any, guarding: Guarding) -> None:
        """`client` is the SDK's own HTTP client."""
        self._client, self._with = client, guarding

    async def handle_async_request(self, request: Any) -> Any:
        """The vendor's answer to a request, as the guard left both."""
        found = self._with.exchange(request)
        if isinstance(found, Sent):
            return _response(self.http, found)
        raw = await request.aread()
        if found is None:
            return await self._client.send(_forwarded(self.http, request, raw), stream=True)
        try:
            refused = found.take(await self._with.guard.aprepare(found.read(raw)))
            content = b"" if refused is not None else found.outgoing()
        except Exception as error:
            return _response(self.http, self._with.failed(found, "request", error))
        if refused is not None:
            return _response(self.http, refused)
        response = await self._client.send(_forwarded(self.http, request, content), stream=True)
        return await self._answered(found, response)

    async def _answered(self, exchange: ClientExchange, response: Any) -> Any:
        if response.is_success and _is_stream(exchange, response):
            stream = StreamExchange(
                exchange, self._with.guard.stream(exchange.prepared), self._with.recording
            )
            headers = kept_headers(response.headers, content_type=EVENTS)
            headers.append(("x-stanchion-guarantee", stream.guarantee))
            return self.http.Response(200, headers=headers, stream=self.events(response, stream))
        try:
            raw = await self._read(response)
            if response.status_code >= 400:
                body = plain_error(response.status_code, raw, exchange.api)
                return _response(self.http, Sent(response.status_code, body), response.headers)
            done = await self._with.guard.afinish(exchange.prepared, exchange.heard(raw))
            return _response(self.http, exchange.finished(done), response.headers)
        except self.http.HTTPError:
            raise
        except Exception as error:
            return _response(self.http, self._with.failed(exchange, "answer", error))

    async def _read(self, response: Any) -> bytes:
        body = bytearray()
        try:
            async for piece in response.aiter_bytes():
                body += piece
                _limited(len(body))
        finally:
            await response.aclose()
        return bytes(body)

    async def aclose(self) -> None:
        """Close the connection to the vendor."""
        await self._client.aclose()


@cache
def transports(module: ModuleType) -> tuple[type[Any], type[Any]]:
    """The synchronous and the asynchronous transport for `httpx` or `httpx2`."""
    events = type("Events", (_Events, module.SyncByteStream), {})
    later = type("AsyncEvents", (_AsyncEvents, module.AsyncByteStream), {})
    return (
        type("GuardedTransport", (_Transport, module.BaseTransport), {"http": module, "events": events}),
        type(
            "AsyncGuardedTransport",
            (_AsyncTransport, module.AsyncBaseTransport),
            {"http": module, "events": later},
        ),
    )
