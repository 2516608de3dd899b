"""Endpoints that fail in every way a network allows: one clear error each, without key or prompt."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web
from loopback import Handler, answering, raw_server, serving

from stanchion.core.errors import DeadlineError, StanchionError, UnavailableError, UsageError
from stanchion.core.interaction import Interaction, StreamEvent, TextDelta, Usage, user
from stanchion.models.client import ModelClient
from stanchion.models.endpoint import EndpointModel, EndpointOptions, Prices
from stanchion.models.events import collect
from stanchion.models.http_client import HttpLimits
from stanchion.models.http_errors import retry_after_s
from stanchion.models.retry import Retries, RetryPolicy

KEY = "sk-" + "very" + "secret"
PROMPT = "my private words"
ASKED = Interaction(messages=(user(PROMPT),))
ANSWER = {
    "model": "m1",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi."}, "finish_reason": "stop"}],
    "usage": {
        "prompt_tokens": 1000,
        "completion_tokens": 100,
        "prompt_tokens_details": {"cached_tokens": 400},
    },
}
ONCE = RetryPolicy(attempts=1)


class Key:
    """What a secret looks like to a client."""

    def __init__(self, value: str = KEY) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value


class Waits:
    """A clock for retries: remembers how long it was asked to wait, and does not."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.seconds.append(seconds)


def make(url: str, waits: Waits | None = None, **options: Any) -> EndpointModel:
    sleep = (waits or Waits()).sleep
    settings = EndpointOptions(**{"retry": ONCE, **options})
    return EndpointModel(
        f"{url}/v1",
        model="m1",
        api_key=Key(),
        options=settings,
        sleep=sleep,
        jitter=lambda low, high: high,
    )


@asynccontextmanager
async def asking(
    handler: Handler, waits: Waits | None = None, **options: Any
) -> AsyncIterator[EndpointModel]:
    async with serving(handler) as url:
        model = make(url, waits, **options)
        try:
            yield model
        finally:
            await model.aclose()


async def failure(model: EndpointModel, *, stream: bool = False) -> StanchionError:
    """The error of one request; it names neither key nor prompt, and says what to do."""
    with pytest.raises((UnavailableError, DeadlineError)) as caught:
        await (collect(model.stream(ASKED)) if stream else model.invoke(ASKED))
    said = f"{caught.value} {caught.value!r} {caught.value.__cause__!r}"
    assert KEY not in said
    assert PROMPT not in said
    assert caught.value.hint
    assert "'openai:m1'" in caught.value.message
    return caught.value


async def test_an_answer_with_its_cost() -> None:
    prices = Prices(input_usd=1.0, output_usd=10.0, cached_input_usd=0.1)
    async with asking(answering(body=ANSWER), prices=prices) as model:
        assert isinstance(model, ModelClient)
        reply = (await model.invoke(ASKED)).reply
    assert reply is not None
    assert reply.message.text == "Hi."
    assert reply.latency_ms is not None
    # 600 fresh at 1 $, 400 cached at 0.1 $, 100 out at 10 $ per million
    assert reply.usage.cost_usd == pytest.approx((600 * 1 + 400 * 0.1 + 100 * 10) / 1e6)
    assert Prices(input_usd=1, output_usd=1).cost_usd(Usage(output_tokens=1)) is None


async def test_the_key_goes_where_each_api_wants_it() -> None:
    seen: list[dict[str, str]] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        seen.append({k.lower(): v for k, v in request.headers.items()} | {"path": request.path})
        return web.json_response({"error": {"type": "x"}}, status=400)

    async with serving(handle) as url:
        for api, base in (("openai", f"{url}/v1/"), ("anthropic", url), ("anthropic", f"{url}/v1")):
            model = EndpointModel(base, api=api, model="m", api_key=Key())  # type: ignore[arg-type]
            with pytest.raises(UnavailableError):
                await model.invoke(ASKED)
            await model.aclose()
    assert seen[0]["authorization"] == f"Bearer {KEY}"
    assert [s["path"] for s in seen] == ["/v1/chat/completions", "/v1/messages", "/v1/messages"]
    assert seen[1]["x-api-key"] == KEY
    assert "authorization" not in seen[1]
    assert seen[1]["anthropic-version"] == "2023-06-01"


QUOTING = {"error": {"message": f"bad key {KEY} for {PROMPT}", "type": "some_error", "code": "why"}}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("handler", "says", "is_retryable"),
    [
        (answering(401, QUOTING), "did not accept the key (HTTP 401, some_error, why)", False),
        (answering(403, QUOTING), "forbids this", False),
        (answering(404, QUOTING), "no such model or path (HTTP 404", False),
        (answering(400, QUOTING), "refused the request (HTTP 400", False),
        (answering(429, QUOTING, retry_after="7"), "rate limit is reached (HTTP 429", True),
        (answering(500, "<html>oops</html>"), "failed (HTTP 500 with an HTML page", True),
        (answering(529, QUOTING), "failed (HTTP 529", True),
        (answering(200, "<!doctype html><p>Log in"), "not JSON but an HTML page", False),
        (answering(200, "{broken", content_type="application/json"), "not JSON but 7 bytes", False),
        (answering(200, {"hello": PROMPT}), "does not have the shape of the openai API", False),
        (answering(200, QUOTING), "an error object (some_error, why)", True),
        (answering(302, "", location="http://elsewhere.example/v1"), "redirects (HTTP 302)", False),
        (answering(307, "", location="http://elsewhere.example/v1"), "to http://elsewhere.example", False),
        (answering(307, "", location="/v1/chat/completions"), "again and again", False),
    ],
)
async def test_every_bad_answer_is_one_clear_error(
    handler: Handler, says: str, is_retryable: bool, stream: bool
) -> None:
    async with asking(handler) as model:
        error = await failure(model, stream=stream)
    assert isinstance(error, UnavailableError)
    assert says in error.message
    assert error.is_retryable is is_retryable


async def test_down_slow_and_too_large() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    model = make(f"http://127.0.0.1:{port}")
    assert "cannot be reached" in (await failure(model)).message
    await model.aclose()

    async def slow(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(5)
        return web.Response()

    async with asking(slow, limits=HttpLimits(deadline_s=0.1)) as model:
        for stream in (False, True):
            error = await failure(model, stream=stream)
            assert isinstance(error, DeadlineError)
            assert "within 0.1 s" in error.message
    async with asking(answering(body=ANSWER), limits=HttpLimits(max_response_bytes=50)) as model:
        assert "larger than the limit of 50 bytes" in (await failure(model)).message


async def test_a_same_host_redirect_that_keeps_the_request_is_followed() -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        if request.path == "/v1/chat/completions":
            return web.Response(status=308, headers={"location": "/v2/chat"})
        assert request.headers["authorization"] == f"Bearer {KEY}"
        return web.json_response(ANSWER)

    async with asking(handle) as model:
        assert (await model.invoke(ASKED)).reply is not None


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def chunked(text: str) -> bytes:
    data = text.encode()
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def event(**delta: Any) -> str:
    return "data: " + json.dumps({"model": "m1", "choices": [{"delta": delta}]}) + "\n\n"


@pytest.mark.parametrize(
    ("body", "reset", "says"),
    [
        (chunked(event(content="Hel")), True, "connection broke"),
        (chunked(event(content="Hel")), False, "connection broke"),
        (chunked(event(content="Hel")) + b"0\r\n\r\n", False, "broke off after 1 events"),
        (chunked(event(content="Hel") + 'data: {"choi') + b"0\r\n\r\n", False, "broke off after 1 events"),
        (chunked("data: {oops}\n\n") + b"0\r\n\r\n", False, "an event that is not JSON"),
        (chunked("hello there") + b"0\r\n\r\n", False, "no event stream"),
        (chunked('data: {"error": {"type": "server_error"}}\n\n') + b"0\r\n\r\n", False, "server_error"),
    ],
)
async def test_every_broken_stream_is_one_clear_error(body: bytes, reset: bool, says: str) -> None:
    async with raw_server(HEAD + body, then_reset=reset) as url:
        model = make(url)
        error = await failure(model, stream=True)
        await model.aclose()
    assert says in error.message


async def test_what_came_before_a_break_was_passed_on_and_is_not_asked_again() -> None:
    async with raw_server(HEAD + chunked(event(content="Hel"))) as url:
        waits = Waits()
        model = make(url, waits, retry=RetryPolicy(attempts=3))
        seen: list[StreamEvent] = []
        with pytest.raises(UnavailableError):
            await into(seen, model.stream(ASKED))
        await model.aclose()
    assert seen == [TextDelta(text="Hel")]
    assert waits.seconds == []


async def into(seen: list[StreamEvent], events: AsyncIterator[StreamEvent]) -> None:
    async for one in events:
        seen.append(one)  # noqa: PERF401  (what came before the failure must be kept)


async def test_servers_that_leave_out_the_done_mark_or_do_not_stream_are_understood() -> None:
    end = json.dumps({"model": "m1", "choices": [{"delta": {}, "finish_reason": "stop"}]})
    body = chunked(event(content="Hi.") + f"data: {end}\n\n") + b"0\r\n\r\n"
    async with raw_server(HEAD + body) as url:
        model = make(url)
        assert (await collect(model.stream(ASKED))).message.text == "Hi."
        await model.aclose()
    async with asking(answering(body=ANSWER)) as model:
        assert (await collect(model.stream(ASKED))).message.text == "Hi."


async def test_closing_a_stream_early_hangs_up() -> None:
    hung_up = asyncio.Event()

    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        try:
            while True:
                await response.write(event(content="x").encode())
                await asyncio.sleep(0.005)
        except (ConnectionError, asyncio.CancelledError):
            hung_up.set()
            raise

    async with asking(handle) as model:
        stream = model.stream(ASKED)
        await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]  # it is an async generator
        await asyncio.wait_for(hung_up.wait(), 5)


# --- retries ------------------------------------------------------------------------------------------------


def flaky(*answers: tuple[int, dict[str, str]]) -> tuple[Handler, Callable[[], int]]:
    count = 0

    async def handle(request: web.Request) -> web.StreamResponse:
        nonlocal count
        count += 1
        if count <= len(answers):
            status, headers = answers[count - 1]
            return web.json_response({"error": {"type": "busy"}}, status=status, headers=headers)
        return web.json_response(ANSWER)

    return handle, lambda: count


async def test_retryable_failures_are_tried_again_with_growing_waits_and_retry_after() -> None:
    handler, count = flaky((503, {}), (429, {"retry-after": "3"}), (500, {"retry-after-ms": "10"}))
    waits = Waits()
    async with asking(handler, waits, retry=RetryPolicy(attempts=4, first_wait_s=0.5)) as model:
        assert (await model.invoke(ASKED)).reply is not None
    assert waits.seconds == [0.5, 3.0, 2.0]
    assert count() == 4


async def test_streams_are_retried_while_nothing_came() -> None:
    handler, count = flaky((503, {}))
    waits = Waits()
    async with asking(handler, waits, retry=RetryPolicy(attempts=2)) as model:
        assert (await collect(model.stream(ASKED))).message.text == "Hi."
    assert count() == 2


async def test_attempts_end_and_the_error_says_how_many() -> None:
    handler, count = flaky(*[(503, {})] * 9)
    async with asking(handler, retry=RetryPolicy(attempts=3)) as model:
        assert "asked 3 times" in (await failure(model)).message
    assert count() == 3


async def test_what_cannot_get_better_is_not_tried_again() -> None:
    handler, count = flaky((401, {}))
    async with asking(handler, retry=RetryPolicy(attempts=5)) as model:
        await failure(model)
    assert count() == 1


async def test_a_wait_beyond_the_deadline_is_not_waited() -> None:
    handler, count = flaky((429, {"retry-after": "3600"}))
    waits = Waits()
    async with asking(handler, waits, retry=RetryPolicy(attempts=5)) as model:
        error = await failure(model)
    assert isinstance(error, UnavailableError)
    assert error.retry_after_s == 3600
    assert (count(), waits.seconds) == (1, [])


async def test_the_budget_is_shared_by_all_requests_of_a_client() -> None:
    handler, count = flaky(*[(503, {})] * 99)
    policy = RetryPolicy(attempts=3, budget=4)
    async with asking(handler, retry=policy) as model:
        for _ in range(6):
            await failure(model)
    assert count() == 6 + 4


def test_jitter_is_full_and_bounded() -> None:
    drawn: list[tuple[float, float]] = []

    def draw(low: float, high: float) -> float:
        drawn.append((low, high))
        return low

    retries = Retries(RetryPolicy(attempts=9, first_wait_s=1, max_wait_s=5), jitter=draw)
    error = UnavailableError("x")
    assert [retries.wait_s(error, attempt=n, remaining_s=99) for n in range(1, 6)] == [0.0] * 5
    assert drawn == [(0, 1), (0, 2), (0, 4), (0, 5), (0, 5)]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        ("Fri, 31 Dec 1999 23:59:59 GMT", 59.0),
        ("Fri, 31 Dec 1999 23:00:00 GMT", 0.0),
        ("soon", None),
        ("", None),
        ("-5", None),
    ],
)
def test_retry_after_as_rfc_9110_says_it(value: str, seconds: float | None) -> None:
    now = datetime(1999, 12, 31, 23, 59, 0, tzinfo=UTC)
    assert retry_after_s({"retry-after": value}, now=now) == seconds


# --- construction -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["", "api.example.com", "ftp://x", "http://", "http://u:p@x/v1", "http://x:99999"]
)
def test_a_bad_base_url_is_refused(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        EndpointModel(url, model="m")
    assert "u:p" not in str(caught.value)


async def test_a_key_that_no_header_can_carry_is_refused_without_showing_it() -> None:
    model = EndpointModel("http://127.0.0.1:9/v1", model="m", api_key=Key(KEY + "\n"))
    with pytest.raises(UsageError) as caught:
        await model.invoke(ASKED)
    assert KEY not in str(caught.value)


def test_the_identity_has_no_secret_in_it() -> None:
    one = EndpointModel("http://x/v1?api-version=1&sig=abc", model="m", api_key=Key("a"))
    two = EndpointModel("http://x/v1?api-version=1&sig=xyz", model="m", api_key=Key("b"))
    other = EndpointModel("http://x/v1", model="m2")
    assert one.components == two.components != other.components
    assert one.id == "openai:m"


def test_one_model_may_be_used_from_one_event_loop_after_another() -> None:
    """The sync door runs each call in a loop of its own; the connections of the last one are gone with it."""

    async def once(models: list[EndpointModel]) -> str:
        async with serving(answering(body=ANSWER)) as url:
            models.append(make(url))
            models[0]._url = f"{url}/v1/chat/completions"  # each loop's server has a port of its own
            reply = (await models[0].invoke(ASKED)).reply
            assert reply is not None
            return reply.message.text

    models: list[EndpointModel] = []
    assert [asyncio.run(once(models)) for _ in range(3)] == ["Hi."] * 3
    asyncio.run(models[0].aclose())
