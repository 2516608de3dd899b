"""Providers over HTTP: another gateway as the provider, and one that misbehaves on purpose."""

import asyncio
import dataclasses
import json
from contextlib import contextmanager

import anthropic
import openai
import pytest
import requests_raw
from gateway_server import Records, gateway, live, scripted_models, serve

from stanchion.core.clock import SystemClock
from stanchion.core.errors import UsageError
from stanchion.files.references import Secret
from stanchion.gateway.http_upstream import DIALECTS, HttpUpstream, api_urls
from stanchion.gateway.ports import Outcome
from stanchion.gateway.upstream import Fallback, Models, Provider, make_route
from stanchion.guard.pipeline import Guard

HARMLESS = [{"role": "user", "content": "What is your return policy?"}]
ANSWER = "You can return anything within 30 days of buying it."
SCRIPT = {
    "rules": [
        {
            "when": {"user_contains": "weather"},
            "reply": {"tool_calls": [{"name": "weather", "arguments": {"city": "Bern"}}]},
        }
    ],
    "default": {"text": ANSWER, "usage": {"input_tokens": 12, "output_tokens": 11}},
    "delivery": {"chunk_chars": 7},
}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
]
CLOCK = SystemClock()


def provider(url, api, *, key="sk-of-the-gateway", **options):
    upstream = HttpUpstream(
        url, dialect=DIALECTS[api], clock=CLOCK, key=Secret(key) if key else None, **options
    )
    return Provider(
        name=api,
        vendor=api,
        upstream=upstream,
        prices={},
        takes_keys=not key,
        apis=frozenset(DIALECTS[api].paths),
        timeout_s=5,
    )


@contextmanager
def in_front_of(guard, providers, *, fallback=(), **more):
    """A gateway whose model `m` is asked of the first provider."""
    records = Records()
    named = {each.name: each for each in providers}
    routes = {f"m-{each.name}": make_route(f"m-{each.name}", each, "scripted") for each in providers}
    routes["m"] = make_route("m", providers[0], "scripted", fallback=fallback)
    models = Models(routes, providers=named)
    with serve(gateway(live(models, {"default": guard}, records, **more))) as served:
        try:
            yield served, records
        finally:
            asyncio.run_coroutine_threadsafe(models.aclose(), served.loop).result(5)


@pytest.fixture(scope="module")
def vendor():
    """A provider that speaks both APIs."""
    configuration = live(scripted_models(SCRIPT), {"default": Guard.unprotected()}, Records())
    with serve(gateway(configuration)) as served:
        yield served


@pytest.fixture(scope="module")
def both(guard, vendor):
    providers = [provider(f"{vendor.url}/v1", "openai"), provider(vendor.url, "anthropic")]
    with in_front_of(guard, providers) as pair:
        yield pair


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["m-openai", "m-anthropic"])
@pytest.mark.parametrize("surface", ["chat", "messages"])
def test_every_api_reaches_every_provider(both, surface, model, stream):
    served, records = both
    records.clear()
    if surface == "chat":
        with openai.OpenAI(base_url=f"{served.url}/v1", api_key="k", max_retries=0) as client:
            answered = client.chat.completions.create(model=model, messages=HARMLESS, stream=stream)
            words = (
                "".join(c.choices[0].delta.content or "" for c in answered)
                if stream
                else answered.choices[0].message.content
            )
    else:
        with anthropic.Anthropic(base_url=served.url, api_key="k", max_retries=0) as client:
            asked = {"model": model, "max_tokens": 50, "messages": HARMLESS}
            if stream:
                with client.messages.stream(**asked) as events:
                    words = events.get_final_message().content[0].text
            else:
                words = client.messages.create(**asked).content[0].text
    record = records.only()
    assert words == ANSWER
    assert record.outcome is Outcome.ALLOWED
    assert (record.usage.input_tokens, record.usage.output_tokens) == (12, 11)
    assert [one.status for one in record.tries] == ["ok"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["m-openai", "m-anthropic"])
def test_tool_calls_are_translated(both, model, stream):
    served, records = both
    records.clear()
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="k", max_retries=0) as client:
        asked = [{"role": "user", "content": "What is the weather?"}]
        answered = client.chat.completions.create(model=model, messages=asked, tools=TOOLS, stream=stream)
        if stream:
            calls = [c for chunk in answered for c in chunk.choices[0].delta.tool_calls or ()]
            said = "".join(call.function.arguments or "" for call in calls)
        else:
            said = answered.choices[0].message.tool_calls[0].function.arguments
    assert json.loads(said) == {"city": "Bern"}


# --- a provider that misbehaves -----------------------------------------------------------------------------


class Stub:
    """An ASGI application that answers with what it is told, and remembers what it was asked."""

    def __init__(self):
        self.status, self.headers, self.pieces, self.pause_s = 200, {}, [], 0.0
        self.seen = []
        self.hangs = False

    def set(self, *pieces, status=200, kind="application/json", headers=None, hangs=False, pause_s=0.0):
        self.status, self.pieces, self.hangs, self.pause_s = status, pieces, hangs, pause_s
        self.headers = {"content-type": kind, **(headers or {})}
        self.seen.clear()

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        self.seen.append((scope["path"], dict(scope["headers"]), body))
        raw = [(name.encode(), value.encode()) for name, value in self.headers.items()]
        await send({"type": "http.response.start", "status": self.status, "headers": raw})
        for piece in self.pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            await asyncio.sleep(self.pause_s)
        if self.hangs:
            await asyncio.sleep(30)
        await send({"type": "http.response.body", "body": b""})


@pytest.fixture(scope="module")
def stub():
    made = Stub()
    with serve(made) as served:
        made.url = served.url
        yield made


@pytest.fixture(scope="module")
def misbehaving(guard, stub):
    with in_front_of(guard, [provider(f"{stub.url}/v1", "openai", idle_s=0.4)]) as pair:
        yield pair


def ask(served, *, stream=False, **more):
    body = {"model": "m", "messages": HARMLESS, "stream": stream, **more}
    return requests_raw.post(served.url, "/v1/chat/completions", json.dumps(body).encode())


def chunk(text="", **more):
    delta = {"content": text} if text else {}
    value = {"id": "1", "choices": [{"index": 0, "delta": delta, **more}], "model": "m"}
    return b"data: " + json.dumps(value).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"
WHOLE = json.dumps(
    {
        "model": "m",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": ANSWER}, "finish_reason": "stop"}
        ],
    }
).encode()


@pytest.mark.parametrize(
    ("answer", "status", "code"),
    [
        ({"status": 400}, 400, "upstream_refused"),
        ({"status": 404}, 404, "upstream_refused"),
        ({"status": 401}, 502, "upstream_key"),
        ({"status": 429, "headers": {"retry-after": "3"}}, 429, "upstream_rate_limit"),
        ({"status": 500}, 500, "upstream_unavailable"),
        ({"status": 503}, 503, "upstream_unavailable"),
        (
            {"status": 307, "headers": {"location": "http://169.254.169.254/latest"}},
            502,
            "upstream_unavailable",
        ),
        ({}, 502, "upstream_unavailable"),
        ({"kind": "text/html"}, 502, "upstream_unavailable"),
        ({"hangs": True}, 502, "upstream_unavailable"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_a_provider_does_wrong_is_said_clearly(misbehaving, stub, answer, status, code, stream):
    served, records = misbehaving
    records.clear()
    stub.set(b"<html>its own words: hunter2</html>", **answer)
    said, headers, body = ask(served, stream=stream)
    error = json.loads(body)["error"]
    assert (said, error["code"]) == (status, code)
    assert b"hunter2" not in body
    assert b"169.254" not in body or status == 502
    assert len(stub.seen) == 1, "a redirect is not followed, a refusal is not repeated"
    record = records.only()
    assert record.outcome in (Outcome.UPSTREAM_ERROR, Outcome.DEADLINE)
    if status == 429:
        assert headers["retry-after"] == "3"


@pytest.mark.parametrize(
    "pieces",
    [
        [b"data: {broken\n\n"],
        [chunk("Hello."), b"data: {broken\n\n"],
        [chunk("Hello.")],
        [chunk("Hello."), b'data: {"error": {"message": "hunter2", "type": "server_error"}}\n\n'],
        [b"data: \xff\xfe\n\n"],
        [b"data: " + b"x" * (17 * 1024 * 1024)],
        [b'data: {"choices": [], "choices": [{"index": 0, "delta": {"content": "hunter2"}}]}\n\n', DONE],
        [chunk("Hello."), b'data: {"choices": [{"index": 1, "delta": {"content": "hunter2"}}]}\n\n', DONE],
    ],
)
def test_a_stream_that_is_none_never_ends_as_a_whole_answer(misbehaving, stub, pieces):
    served, records = misbehaving
    records.clear()
    stub.set(*pieces, kind="text/event-stream")
    _, _, body = ask(served, stream=True)
    assert b"[DONE]" not in body
    assert b'finish_reason":"stop' not in body
    assert b"hunter2" not in body
    assert b'"error"' in body
    assert records.only().outcome is Outcome.UPSTREAM_ERROR


def test_a_stream_cut_anywhere_gives_the_same_answer(misbehaving, stub):
    served, _ = misbehaving
    whole = b"".join(
        [chunk("It is "), chunk("4111 1111 "), chunk("1111 1111"), chunk(finish_reason="stop"), DONE]
    )
    answers = set()
    for size in (1, 3, 17, len(whole)):
        stub.set(*(whole[at : at + size] for at in range(0, len(whole), size)), kind="text/event-stream")
        status, _, body = ask(served, stream=True)
        assert status == 200
        deltas = [json.loads(line[6:]) for line in body.splitlines() if line.startswith(b"data: {")]
        answers.add("".join(d["choices"][0]["delta"].get("content", "") for d in deltas if d["choices"]))
    assert len(answers) == 1
    assert "1111" not in answers.pop()


def test_keys_of_the_gateway_are_added_and_those_of_the_client_stay(misbehaving, stub):
    served, _ = misbehaving
    stub.set(WHOLE)
    body = json.dumps({"model": "m", "messages": HARMLESS}).encode()
    headers = [
        ("content-type", "application/json"),
        ("authorization", "Bearer sk-of-the-client"),
        ("cookie", "a=b"),
        ("x-forwarded-for", "10.0.0.1"),
    ]
    status, _, said = requests_raw.post(served.url, "/v1/chat/completions", body, headers=headers)
    assert status == 200
    _, sent, _ = stub.seen[0]
    assert sent[b"authorization"] == b"Bearer sk-of-the-gateway"
    assert not {b"cookie", b"x-forwarded-for"} & set(sent)
    assert b"sk-of" not in said


def test_a_client_key_goes_on_only_where_the_gateway_has_none_and_is_for_one_user(guard, stub):
    body = json.dumps({"model": "m", "messages": HARMLESS}).encode()
    headers = [("content-type", "application/json"), ("authorization", "Bearer sk-of-the-client")]
    for is_local, expected in ((True, b"Bearer sk-of-the-client"), (False, None)):
        stub.set(WHOLE)
        with in_front_of(guard, [provider(f"{stub.url}/v1", "openai", key="")], is_local=is_local) as (
            served,
            _,
        ):
            assert requests_raw.post(served.url, "/v1/chat/completions", body, headers=headers)[0] == 200
        assert stub.seen[0][1].get(b"authorization") == expected


def test_parameters_that_nobody_knows_reach_the_same_vendor_only(guard, stub):
    stub.set(WHOLE)
    open_one = dataclasses.replace(provider(f"{stub.url}/v1", "openai"), unknown_parameters="pass")
    with in_front_of(guard, [open_one]) as (served, _):
        assert ask(served, brand_new_knob=7, stop=["x"])[0] == 200
    sent = json.loads(stub.seen[0][2])
    assert (sent["brand_new_knob"], sent["stop"], sent["model"]) == (7, ["x"], "scripted")


def test_the_chain_of_fallbacks_is_walked(guard, stub, vendor):
    stub.set(b"", status=500)
    broken, other = provider(f"{stub.url}/v1", "openai"), provider(vendor.url, "anthropic")
    chain = (Fallback(model="m-anthropic"),)
    with in_front_of(guard, [broken, other], fallback=chain) as (served, records):
        for stream in (False, True):
            records.clear()
            status, _, body = ask(served, stream=stream)
            assert status == 200
            assert b"days" in body
            assert [(t.provider, t.status) for t in records.only().tries] == [
                ("openai", "http_500"),
                ("anthropic", "ok"),
            ]


def test_a_canned_answer_is_better_than_none_but_not_than_a_refused_request(guard, stub):
    broken = provider(f"{stub.url}/v1", "openai")
    chain = (Fallback(answer="We are closed for a moment."),)
    with in_front_of(guard, [broken], fallback=chain) as (served, records):
        stub.set(b"", status=503)
        assert b"We are closed" in ask(served)[2]
        assert [one.provider for one in records.only().tries] == ["openai", "canned"]
        stub.set(b"{}", status=422)
        records.clear()
        assert ask(served)[0] == 422
        assert [one.status for one in records.only().tries] == ["http_422"]


@pytest.mark.parametrize(
    ("base", "chat", "messages"),
    [
        ("https://a.example/v1", "https://a.example/v1/chat/completions", "https://a.example/v1/messages"),
        ("https://a.example/v1/", "https://a.example/v1/chat/completions", "https://a.example/v1/messages"),
        (
            "https://a.example/x?k=1",
            "https://a.example/x/chat/completions?k=1",
            "https://a.example/x/v1/messages?k=1",
        ),
    ],
)
def test_addresses_come_from_the_base_url(base, chat, messages):
    assert api_urls(base, DIALECTS["openai"].paths)["openai.chat"] == chat
    assert api_urls(base, DIALECTS["anthropic"].paths)["anthropic.messages"] == messages


@pytest.mark.parametrize("base", ["ftp://a/v1", "http://user:pw@a/v1", "a.example", "file:///etc/passwd"])
def test_addresses_that_are_none_are_refused(base):
    with pytest.raises(UsageError):
        api_urls(base, DIALECTS["openai"].paths)


@pytest.mark.parametrize("name", ["http://169.254.169.254/", "../admin", "a b", "a\nb", "/etc", "x" * 300])
def test_a_models_name_is_never_an_address(stub, guard, name):
    one = provider(f"{stub.url}/v1", "openai")
    models = Models({}, providers={"openai": one}, pass_through={"openai": "openai"})
    records = Records()
    stub.set(WHOLE)
    with serve(gateway(live(models, {"default": guard}, records))) as served:
        body = json.dumps({"model": name, "messages": HARMLESS}).encode()
        assert requests_raw.post(served.url, "/v1/chat/completions", body)[0] == 404
    assert stub.seen == []
