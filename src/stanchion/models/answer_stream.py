"""One streamed answer of an endpoint: bytes -> server-sent events -> stream events."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any, Literal

from stanchion.core.errors import UnavailableError
from stanchion.core.interaction import Reply, StreamEvent
from stanchion.models.events import events_of
from stanchion.models.http_client import Call, HttpClient
from stanchion.models.http_errors import json_or_none, no_json_error
from stanchion.models.upstreams import UPSTREAMS

if TYPE_CHECKING:
    import aiohttp

Api = Literal["openai", "anthropic"]
_CODECS = {"openai": UPSTREAMS["openai.chat"], "anthropic": UPSTREAMS["anthropic.messages"]}


def decode_answer(api: Api, body: Any, *, what: str) -> Reply:
    """The reply in a whole answer.

    Raises:
        UnavailableError: when its shape is not that of the API, or it is an error object.
    """
    try:
        return _CODECS[api].decode_reply(body)
    except UnavailableError as error:
        raise _named(error, what) from error


class AnswerStream:
    """Asks once and hands out events one by one; `begin` may be called again after it failed."""

    def __init__(self, http: HttpClient, call: Call, api: Api) -> None:
        self._http = http
        self._call = call
        self._api = api
        self._events: AsyncGenerator[StreamEvent, None] | None = None

    async def begin(self) -> StreamEvent | None:
        """Ask, and wait for the first event.

        Raises:
            UnavailableError: when there is none.
        """
        await self.aclose()
        self._events = self._run()
        return await self.next()

    async def next(self) -> StreamEvent | None:
        """The next event; None after `End`.

        Raises:
            UnavailableError: when the stream breaks off, or is no event stream.
        """
        return None if self._events is None else await anext(self._events, None)

    async def aclose(self) -> None:
        """Close the connection; the endpoint stops generating when it notices."""
        if self._events is not None:
            await self._events.aclose()

    async def _run(self) -> AsyncGenerator[StreamEvent, None]:
        what = self._call.what
        async with self._http.open(self._call) as response:
            kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
            try:
                if kind in ("application/json", "text/html"):
                    async for event in self._whole(response):
                        yield event
                    return
                async for event in self._streamed(response):
                    yield event
            except UnavailableError as error:
                raise _named(error, what) from error

    async def _whole(self, response: aiohttp.ClientResponse) -> AsyncGenerator[StreamEvent, None]:
        """Some servers answer a request for a stream with a whole answer; some with a web page."""
        body = bytearray()
        limit = self._http.limits.max_response_bytes
        async for chunk in self._http.read_chunks(self._call, response, limit=limit):
            body += chunk
        value = json_or_none(bytes(body))
        if value is None:
            headers = {"content-type": response.headers.get("Content-Type", "")}
            raise no_json_error(self._call.what, headers, bytes(body))
        for event in events_of(decode_answer(self._api, value, what=self._call.what)):
            yield event

    async def _streamed(self, response: aiohttp.ClientResponse) -> AsyncGenerator[StreamEvent, None]:
        reader = _CODECS[self._api].reader()
        limit = self._http.limits.max_response_bytes
        async for chunk in self._http.read_chunks(self._call, response, limit=limit):
            for event in reader.feed(chunk):
                yield event
            if reader.is_over:
                return
        for event in reader.end():
            yield event


def _named(error: UnavailableError, what: str) -> UnavailableError:
    """The same error, saying which endpoint it was about."""
    if error.message.startswith(what):
        return error
    return UnavailableError(
        f"{what}: {error.message}",
        hint=error.hint,
        status=error.status,
        retry_after_s=error.retry_after_s,
        is_retryable=error.is_retryable,
    )
