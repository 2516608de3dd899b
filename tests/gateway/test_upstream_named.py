"""A provider as clients hear of it, and as it hears of us: its name, our headers, and nothing else."""

import json

import pytest
import requests_raw
from gateway_server import Records, gateway, live, serve
from raw_provider import Talk, on_both_loops, raw_provider, whole
from test_upstream_tls import Authority

from stanchion.core.clock import SystemClock
from stanchion.core.errors import UnavailableError, UsageError
from stanchion.files.references import Secret
from stanchion.files.schema import load_file
from stanchion.gateway.building import make_models
from stanchion.gateway.gateway_file import GatewayModel
from stanchion.gateway.http_upstream import DIALECTS, HttpUpstream
from stanchion.gateway.upstream import Question
from stanchion.models.surfaces import SURFACES

HELLO = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
SAID = json.dumps(
    {
        "model": "m",
        "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hello"}}
        ],
    }
).encode()
JSON = b"content-type: application/json"
KINDS = [
    "api: openai\n    base_url: URL/v1",
    "api: anthropic\n    base_url: URL",
    "api: azure\n    azure: {endpoint: URL}",
    "api: bedrock\n    bedrock: {region: eu-central-1, access_key: AK, endpoint: URL}",
    "api: vertex\n    vertex: {project: p, location: l, endpoint: URL}",
]


def models(folder, provider):
    (folder / "key").write_text("a-secret")
    path = folder / "gateway.yaml"
    path.write_text(
        f"providers:\n  inside:\n    key: ${{file:key}}\n    {provider}\n"
        "models:\n  m: {provider: inside, model: there}\n"
    )
    return make_models(load_file(path, GatewayModel).value, folder=folder, clock=SystemClock())


def question(**more):
    request = SURFACES["openai.chat"].decode_request(HELLO)
    return Question(request=request, surface="openai.chat", model="there", **more)


async def drained(batches):
    return [batch async for batch in batches]


def faults():
    async def closes(talk):
        talk.close()

    async def speaks_nonsense(talk):
        await talk.say(b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n")

    async def breaks_off(talk):
        await talk.say(whole(SAID, JSON)[:-9], pause_s=0.01)
        talk.close()

    async def redirects(talk):
        await talk.answer(b"", b"location: http://10.1.2.3/", status=b"302 Found")

    async def no_json(talk):
        await talk.answer(b"oops", JSON)

    async def page(talk):
        await talk.answer(b"<html>", b"content-type: text/html")

    async def fails(talk):
        await talk.answer(b"{}", JSON, status=b"503 No")

    return [closes, speaks_nonsense, breaks_off, redirects, no_json, page, fails]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.split()[1])
@pytest.mark.parametrize("fault", faults(), ids=lambda fault: fault.__name__)
async def test_an_error_says_the_name_of_a_provider_and_not_where_it_is(tmp_path, kind, fault):
    async with raw_provider(fault) as provider:
        route = models(tmp_path, kind.replace("URL", f"http://127.0.0.1:{provider.port}")).find(
            "m", vendor="openai"
        )
        upstream = route.provider.upstream
        for stream in (False, True):
            with pytest.raises(UnavailableError) as caught:
                await (drained(upstream.stream(question())) if stream else upstream.ask(question()))
            said = str(caught.value)
            assert "127.0.0.1" not in said
            assert str(provider.port) not in said
            assert "10.1.2.3" not in said
        await upstream.aclose()


@pytest.mark.parametrize("stream", [False, True])
def test_the_client_hears_the_name_and_the_record_has_the_address(tmp_path, guard, stream):
    records = Records()
    made = models(tmp_path, "api: openai\n    base_url: http://127.0.0.1:9/v1")
    with serve(gateway(live(made, {"default": guard}, records))) as served:
        body = json.dumps({**HELLO, "stream": stream}).encode()
        status, headers, said = requests_raw.post(served.url, "/v1/chat/completions", body)
    assert status == 502
    assert b"the provider 'inside': it cannot be reached" in said
    assert b"127.0.0.1" not in said + str(headers).encode()
    [tried] = records.only().tries
    assert tried.detail.startswith("http://127.0.0.1:9/v1/chat/completions the provider 'inside': it cannot")


@on_both_loops
async def test_what_a_provider_hears():
    async def answers(talk):
        await talk.answer(SAID, JSON)

    async with raw_provider(answers) as provider:
        upstream = HttpUpstream(
            f"http://127.0.0.1:{provider.port}/base path/v1?k=1#part",
            dialect=DIALECTS["openai"],
            clock=SystemClock(),
            key=Secret("sk-1"),
        )
        place = "00-" + "1" * 32 + "-" + "2" * 16 + "-01"
        assert (await upstream.ask(question(traceparent=place))).message.text == "Hello"
        await upstream.ask(question(key="sk-of-a-client"))
        await upstream.ask(question())
        await upstream.aclose()
        await upstream.aclose()
    heads = [request.partition(b"\r\n\r\n")[0].split(b"\r\n") for request in provider.requests]
    assert provider.connections == 1
    assert heads[0][0] == b"POST /base%20path/v1/chat/completions?k=1 HTTP/1.1"
    names = [line.partition(b":")[0] for line in heads[0][1:]]
    assert sorted(names) == sorted(set(names))
    assert set(names) == {
        b"host",
        b"content-type",
        b"accept",
        b"accept-encoding",
        b"user-agent",
        b"authorization",
        b"traceparent",
        b"content-length",
    }
    assert b"host: 127.0.0.1:%d" % provider.port in heads[0]
    assert b"accept-encoding: identity" in heads[0]
    assert b"traceparent: " + place.encode() in heads[0]
    assert b"authorization: Bearer sk-1" in heads[0]
    assert b"authorization: Bearer sk-of-a-client" in heads[1]
    assert b"authorization: Bearer sk-1" in heads[2]


@pytest.mark.parametrize("key", ["a\r\nx-other: 1", "a\nb", "a b\t", " a", "\u00e9", "a\0"])
async def test_a_key_cannot_write_another_header(key):
    async with raw_provider() as provider:
        url = f"http://127.0.0.1:{provider.port}/v1"
        with pytest.raises(UsageError, match="characters"):
            HttpUpstream(url, dialect=DIALECTS["openai"], clock=SystemClock(), key=Secret(key))
        upstream = HttpUpstream(url, dialect=DIALECTS["openai"], clock=SystemClock())
        with pytest.raises(UsageError, match="characters"):
            await upstream.ask(question(key=key))
        assert provider.requests == []
        await upstream.aclose()


@pytest.mark.parametrize("coding", [b"gzip", b"br", b"GZIP, identity", b"zstd"])
async def test_a_coded_answer_is_refused_and_says_why(coding):
    async def coded(talk):
        await talk.answer(b"\x1f\x8b\x08", JSON, b"content-encoding: " + coding)

    async with raw_provider(coded) as provider:
        upstream = HttpUpstream(
            f"http://127.0.0.1:{provider.port}", dialect=DIALECTS["openai"], clock=SystemClock()
        )
        with pytest.raises(UnavailableError, match="compressed"):
            await upstream.ask(question())
        with pytest.raises(UnavailableError, match="compressed"):
            _ = [batch async for batch in upstream.stream(question())]
        await upstream.aclose()


@on_both_loops
async def test_over_tls_with_the_authorities_of_the_system(tmp_path, monkeypatch):
    from cryptography import x509

    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
    tls = authority.server(x509.DNSName("localhost"))
    async with raw_provider(lambda talk: Talk.answer(talk, SAID, JSON), tls=tls) as provider:
        upstream = HttpUpstream(
            f"https://localhost:{provider.port}/v1", dialect=DIALECTS["openai"], clock=SystemClock()
        )
        for _ in range(3):
            assert (await upstream.ask(question())).message.text == "Hello"
        assert provider.connections == 1
        await upstream.aclose()
