"""Every fault of a provider: no unguarded byte, one record that says what happened, an error of the API."""

from __future__ import annotations

import asyncio
import json
import os
import time

import pytest
import requests_raw
from gateway_faults import CARD, DEADLINE_S, IDLE_S, PROVIDER_FAULTS, SECRET, FaultyProvider
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


def models_of(url: str) -> Models:
    upstream = HttpUpstream(
        url, dialect=DIALECTS["openai"], clock=SystemClock(), key=Secret(KEY), idle_s=IDLE_S
    )
    one = Provider(
        name="faulty",
        vendor="openai",
        upstream=upstream,
        prices={},
        timeout_s=DEADLINE_S * 2,
        apis=frozenset(DIALECTS["openai"].paths),
    )
    return Models({"m": make_route("m", one, "m")}, providers={"faulty": one})


@pytest.fixture(scope="module")
def chaos(guard):
    records = Records()
    with FaultyProvider() as faulty:
        models = models_of(faulty.url)
        feature = FeatureModel(deadline_s=DEADLINE_S)
        configuration = live(models, {"default": guard}, records, feature_model=feature)
        with serve(gateway(configuration), http=bounded_protocol()) as served:
            yield served, records, faulty
            asyncio.run_coroutine_threadsafe(models.aclose(), served.loop).result(5)


def ask(served, path, *, stream):
    body = {"model": "m", "messages": HARMLESS, "stream": stream, "max_tokens": 50}
    return requests_raw.post(served.url, path, json.dumps(body).encode())


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


CASES = [
    pytest.param(
        fault, path, stream, id=f"{fault.id}-{path.rpartition('/')[2]}-{'stream' if stream else 'whole'}"
    )
    for fault in PROVIDER_FAULTS
    for path, stream in ((CHAT, False), (CHAT, True), (MESSAGES, True))
    if (fault.streamed if stream else fault.whole) is not None
]


@pytest.mark.parametrize(("fault", "path", "stream"), CASES)
def test_a_fault_of_the_provider_ends_as_the_table_says(chaos, fault, path, stream):
    served, records, faulty = chaos
    records.clear()
    faulty.play = fault.play
    expected = fault.streamed if stream else fault.whole
    status, headers, body = ask(served, path, stream=stream)
    record = records.only()
    told = error_of(path, body)
    shown = unescaped(body) + str(headers)
    for words in (CARD, CARD.replace(" ", ""), "1111 1111", SECRET, KEY, "169.254"):
        assert words not in shown
    assert record.outcome.value == expected.outcome
    assert record.error == expected.error
    assert record.tries
    assert record.tries[-1].provider == "faulty"
    if expected.code:
        assert told, "an error in the API's own shape"
        assert b"[DONE]" not in body
        if path == CHAT:
            assert told == expected.code
        assert status in (expected.status, 200)
        assert (status == 200) <= stream, "only a stream that has begun can end in an error under 200"
    else:
        assert (status, told) == (expected.status, "")
    assert headers["x-stanchion-reference"] == record.reference


def test_what_follows_an_answer_is_not_the_next_ones(chaos):
    served, records, faulty = chaos
    splits = next(fault for fault in PROVIDER_FAULTS if fault.id == "second-answer")
    for _ in range(5):
        records.clear()
        faulty.play = splits.play
        status, _, body = ask(served, CHAT, stream=False)
        assert status == 200
        assert SECRET.encode() not in body
        assert b"It is" in body


def _held(served, faulty):
    """What lives: file descriptors of the process, tasks of the loop, requests in progress."""
    end = time.monotonic() + 5
    while (served.gateway.in_flight or faulty.open) and time.monotonic() < end:
        time.sleep(0.02)
    tasks = served.call(lambda: len(asyncio.all_tasks()))
    return len(os.listdir("/proc/self/fd")), tasks, served.gateway.in_flight


def test_no_fault_leaves_a_connection_a_task_or_a_descriptor_behind(chaos):
    served, records, faulty = chaos
    quick = [f for f in PROVIDER_FAULTS if not f.id.startswith(("stalls", "drips", "pings", "huge"))]

    def everything():
        for fault in quick:
            for stream in (False, True):
                if (fault.streamed if stream else fault.whole) is not None:
                    faulty.play = fault.play
                    ask(served, CHAT, stream=stream)

    everything()
    before = _held(served, faulty)
    for _ in range(2):
        everything()
    after = _held(served, faulty)
    records.clear()
    assert after[2] == 0
    assert after[1] <= before[1] + 1, (before, after)
    assert after[0] <= before[0] + 3, (before, after)
