"""One's own Starlette endpoints under the middleware, over real HTTP messages."""

from __future__ import annotations

import asyncio
import json

import pytest
from frameworks import ATTACK, LEAK, MINE, REDACTED, abroken
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient

from stanchion.core.errors import UsageError
from stanchion.integrations.asgi import GuardMiddleware
from stanchion.integrations.asgi_answer import Endpoint
from stanchion.integrations.json_fields import put_texts, texts_at

ENDPOINTS = [
    Endpoint("/chat", request=["question", "history.*.content"], response=["answer", "sources.*"]),
    Endpoint("/stream", request=["question"], stream="text"),
    Endpoint("/sse", request=["question"], stream="sse"),
    Endpoint("/events", request=["question"], stream="choices.0.delta.content"),
    Endpoint(
        "/small", request=["question"], response=["answer"], max_request_bytes=64, max_response_bytes=64
    ),
    Endpoint("/kind/*", request=["question"], response=["answer"]),
]
SAID = {"answer": LEAK, "sources": ["fine"], "took_ms": 3}


class App:
    """What reached the application, and what it says."""

    def __init__(self, guard, events):
        self.asked, self.says, self.cut = [], LEAK, 5
        routes = [
            Route("/chat", self.chat, methods=["POST"]),
            Route("/small", self.chat, methods=["POST"]),
            Route("/open", self.chat, methods=["POST"]),
            Route("/kind/{name}", self.kind, methods=["POST"]),
            *(Route(f"/{name}", self.streamed, methods=["POST"]) for name in ("stream", "sse", "events")),
            WebSocketRoute("/chat", self.chat),
        ]
        app = GuardMiddleware(Starlette(routes=routes), guard, ENDPOINTS, on_decision=events.append)
        self.client = TestClient(app, raise_server_exceptions=False)

    async def chat(self, request):
        body = await request.json()
        self.asked.append(body)
        said = self.says if self.says != "echo" else body["question"]
        return JSONResponse({**SAID, "answer": said})

    async def kind(self, request):
        kinds = {
            "text": PlainTextResponse(LEAK),
            "gzip": Response(b"x", headers={"content-encoding": "gzip", "content-type": "application/json"}),
            "wrong": JSONResponse({"answer": {"text": LEAK}}),
            "twice": Response(
                b'{"answer":"fine","answer":"%s"}' % LEAK.encode(), media_type="application/json"
            ),
            "error": JSONResponse({"detail": "no"}, status_code=422),
            "nothing": Response(status_code=204),
        }
        return kinds[request.path_params["name"]]

    async def streamed(self, request):
        body = await request.json()
        self.asked.append(body)
        said = self.says if self.says != "echo" else body["question"]
        pieces = [said[start : start + self.cut] for start in range(0, len(said), self.cut)]
        kind = request.url.path

        async def data():
            for piece in pieces:
                if kind == "/stream":
                    yield piece
                elif kind == "/sse":
                    yield f"data: {piece}\n\n"
                else:
                    yield "data: " + json.dumps({"choices": [{"delta": {"content": piece}}]}) + "\n\n"
                await asyncio.sleep(0)
            if kind == "/events":
                yield 'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'

        media = "text/plain" if kind == "/stream" else "text/event-stream"
        return StreamingResponse(data(), media_type=media)

    def post(self, path, question, **more):
        return self.client.post(path, json={"question": question, **more})


@pytest.fixture
def app(guard, events):
    return App(guard, events)


def words(path, text):
    if path == "/stream":
        return text
    data = [line.removeprefix("data: ") for line in text.split("\n") if line.startswith("data: ")]
    if path == "/sse":
        return "".join(data)
    return "".join(
        json.loads(each)["choices"][0]["delta"].get("content", "") for each in data if each != "[DONE]"
    )


def test_named_fields_are_guarded_and_values_come_back(app, events):
    answer = app.post("/chat", "Which card?")
    assert answer.json() == {**SAID, "answer": REDACTED}
    app.says = "echo"
    answer = app.post("/chat", MINE, history=[{"content": "my card is 5555 5555 5555 4444"}], user="u1")
    assert answer.json()["answer"] == MINE
    assert "5555" not in str(app.asked)
    assert app.asked[-1]["user"] == "u1"
    assert [event.hook for event in events] == ["request", "response"] * 2


def test_a_refused_request_never_reaches_the_application(app, events):
    answer = app.post("/chat", "hello", history=[{"content": ATTACK}])
    assert answer.status_code == 403
    assert answer.json()["error"]["reference"] in answer.json()["error"]["message"]
    assert app.asked == []
    assert not events[0].is_allowed


@pytest.mark.parametrize("path", ["/stream", "/sse", "/events"])
def test_streams_are_released_by_the_guard(app, events, path):
    answer = app.post(path, "Which card?")
    assert words(path, answer.text) == REDACTED
    assert (events[-1].hook, events[-1].guarantee) == ("stream", "no-leak")
    app.says = "echo"
    assert words(path, app.post(path, MINE).text) == MINE
    assert app.post(path, ATTACK).status_code == 403
    if path == "/events":
        assert answer.text.endswith('"finish_reason": "stop"}]}\n\ndata: [DONE]\n\n')


@settings(max_examples=25, deadline=None)
@given(cut=st.integers(1, 60), path=st.sampled_from(["/stream", "/sse", "/events"]))
def test_every_chunking_shows_the_same(guard, cut, path):
    app = App(guard, [])
    app.cut = cut
    assert words(path, app.post(path, "Which card?").text) == REDACTED


def test_other_paths_and_methods_pass_untouched(app, events):
    assert app.post("/open", ATTACK).json()["answer"] == LEAK
    assert app.client.get("/chat").status_code == 405
    assert events == []


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"no json", 422),
        (b'{"question": 3}', 422),
        (b'{"question": "a", "question": "b"}', 422),
        (b"[1]", 422),
        (b"[" * 5000 + b"]" * 5000, 422),
        (b'{"question": "' + b"x" * 2_000_000 + b'"}', 413),
    ],
)
def test_a_request_that_cannot_be_read_is_refused(app, body, status):
    assert app.client.post("/chat", content=body).status_code == status
    assert app.asked == []


def test_a_compressed_request_is_refused(app):
    answer = app.client.post("/chat", content=b"x", headers={"content-encoding": "gzip"})
    assert answer.status_code == 415


@pytest.mark.parametrize("name", ["text", "gzip", "wrong", "twice"])
def test_an_answer_that_cannot_be_read_is_refused(app, name):
    answer = app.post(f"/kind/{name}", "Hello")
    assert answer.status_code == 502
    assert "4111" not in answer.text


def test_errors_and_empty_answers_pass(app):
    assert app.post("/kind/error", "Hello").json() == {"detail": "no"}
    assert app.post("/kind/nothing", "Hello").status_code == 204


def test_limits_hold_both_ways(app):
    assert app.post("/small", "x" * 100).status_code == 413
    assert app.post("/small", "x").json()["error"]["code"] == "too_large"


def test_a_web_socket_at_a_guarded_path_is_closed(app):
    from starlette.websockets import WebSocketDisconnect

    with pytest.raises(WebSocketDisconnect), app.client.websocket_connect("/chat"):
        pass


@pytest.mark.parametrize(("method", "asked"), [("aprepare", 0), ("afinish", 1)])
def test_a_check_that_breaks_lets_nothing_through(app, guard, events, monkeypatch, method, asked):
    monkeypatch.setattr(guard, method, abroken)
    answer = app.post("/chat", "Which card?")
    assert answer.status_code == 500
    assert "words of the user" not in answer.text
    assert "4111" not in answer.text
    assert len(app.asked) == asked
    assert events[-1].error == "RuntimeError"


@pytest.mark.parametrize("path", ["/stream", "/sse"])
def test_a_stream_whose_check_breaks_shows_nothing(app, events, monkeypatch, path):
    from stanchion.guard.streaming import StreamGuard

    monkeypatch.setattr(StreamGuard, "_fed_text", abroken)
    assert "card" not in app.post(path, "Which?").text
    assert events[-1].error == "RuntimeError"


def test_paths_lead_to_texts_and_nothing_else():
    value = {"a": [{"b": "x"}, {"b": None}, {}], "c": "y"}
    found = texts_at(value, ["a.*.b", "c", "a.0.b", "missing.deep"])
    assert found == [(("a", 0, "b"), "x"), (("c",), "y")]
    put_texts(value, [place for place, _ in found], ["1", "2"])
    assert value == {"a": [{"b": "1"}, {"b": None}, {}], "c": "2"}
    for path in ("a", "c.d", "c.*", "a.*"):
        with pytest.raises(UsageError, match="is needed here"):
            texts_at(value, [path])
