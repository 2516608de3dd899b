"""A gateway in front of a faulty provider, and what every fault is held to."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import contextmanager

import requests_raw
from gateway_fault_table import OWN
from gateway_faults import CARD, DEADLINE_S, IDLE_S
from gateway_server import Records, gateway, live, serve

from stanchion.core.clock import SystemClock
from stanchion.files.references import Secret
from stanchion.gateway.gateway_file import FeatureModel
from stanchion.gateway.http_protocol import bounded_protocol
from stanchion.gateway.http_upstream import DIALECTS, HttpUpstream
from stanchion.gateway.upstream import Models, Provider, make_route

KEY = "sk-key-of-the-gateway"
CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
HARMLESS = [{"role": "user", "content": "What is your return policy?"}]


def models_of(url: str, *, idle_s: float = IDLE_S, timeout_s: float = DEADLINE_S * 2) -> Models:
    upstream = HttpUpstream(
        url, dialect=DIALECTS["openai"], clock=SystemClock(), key=Secret(KEY), idle_s=idle_s
    )
    one = Provider(
        name="faulty",
        vendor="openai",
        upstream=upstream,
        prices={},
        timeout_s=timeout_s,
        apis=frozenset(DIALECTS["openai"].paths),
    )
    return Models({"m": make_route("m", one, "m")}, providers={"faulty": one})


def body(*, stream: bool) -> bytes:
    return json.dumps({"model": "m", "messages": HARMLESS, "stream": stream}).encode()


@contextmanager
def in_front(faulty, guard, *, port=0, feature=None, server=None, **more):
    """A gateway whose one model is the faulty provider's."""
    records = Records()
    idle_s = more.pop("idle_s", IDLE_S)
    models = models_of(f"http://127.0.0.1:{port}/v1" if port else faulty.url, idle_s=idle_s)
    feature = feature or FeatureModel(deadline_s=DEADLINE_S)
    observers = more.pop("observers", ())
    configuration = live(models, {"default": guard}, records, feature_model=feature, **more)
    object.__setattr__(configuration, "observers", (*observers, records))
    made = gateway(configuration)
    records.gateway = made
    with serve(made, **{"http": bounded_protocol(), **(server or {})}) as served:
        try:
            yield served, records
        finally:
            asyncio.run_coroutine_threadsafe(models.aclose(), served.loop).result(5)


def tried(served, records, id):
    """Both kinds of request under a fault, and that they end as the table says."""
    for stream in (False, True):
        expected = OWN[id].streamed if stream else OWN[id].whole
        if expected is None:
            continue
        records.clear()
        status, headers, said = requests_raw.post(served.url, CHAT, body(stream=stream))
        record = records.only()
        shown = unescaped(said) + str(headers)
        assert CARD not in shown
        assert "1111 1111" not in shown
        assert (record.outcome.value, record.error) == (expected.outcome, expected.error)
        assert error_of(CHAT, said) == expected.code
        assert status == expected.status or (status == 200 and stream and b"data:" in said)
        assert headers["x-stanchion-reference"] == record.reference


def until(condition, seconds=8.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def unescaped(body: bytes) -> str:
    """The texts of an answer put together, as a reader would see them, behind the answer as it came."""
    found = [body.decode("utf-8", "replace")]
    for line in body.split(b"\n"):
        try:
            value = json.loads(line.removeprefix(b"data: "))
        except ValueError:
            continue
        waiting = [value]
        while waiting:
            item = waiting.pop(0)
            if isinstance(item, dict):
                waiting = [*item.values(), *waiting]
            elif isinstance(item, list):
                waiting = [*item, *waiting]
            elif isinstance(item, str):
                found.append(item)
    return found[0] + "\n" + "".join(found[1:])


def error_of(path, body):
    """Code of the error in the API's own shape, at the end of a stream too; empty for an answer."""
    last = [line for line in body.strip().split(b"\n") if line.strip()][-1]
    value = json.loads(last.removeprefix(b"data: ")) if last != b"data: [DONE]" else {}
    error = value.get("error") if isinstance(value, dict) else None
    if not error:
        return ""
    if path == MESSAGES:
        assert value["type"] == "error"
        assert set(error) >= {"type", "message"}
    else:
        assert set(error) >= {"message", "type", "param", "code"}
    assert error["message"]
    return error.get("code") or error["message"]
