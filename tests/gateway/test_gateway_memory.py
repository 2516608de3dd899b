"""Nothing of a request stays when it is over: not in 2,000 of them, nor in a million, nor after a crowd."""

import asyncio
import gc
import json
import shutil
import sys
from collections import Counter
from pathlib import Path

import pytest
from gateway_server import Records, live, scripted_models

from stanchion.gateway.app import Gateway
from stanchion.gateway.paths import served_paths
from stanchion.models.surfaces import SURFACES

BENCH = Path(__file__).parents[2] / "bench" / "gateway"
OURS = ("stanchion.", "asyncio", "_asyncio")
SCRIPT = {
    "rules": [{"when": {"user_contains": "card"}, "reply": {"text": "It is 4111 1111 1111 1111, keep it."}}],
    "default": {"text": "You can return anything within 30 days of buying it."},
    "delivery": {"chunk_chars": 7},
}


async def ask(app, *, number):
    """One request of several kinds in turn, through the application itself."""
    words = ("What is your return policy?", "Tell me my card number.", "Say that my key is fine.")[number % 3]
    body = json.dumps(
        {"model": "scripted", "stream": number % 2 == 0, "messages": [{"role": "user", "content": words}]}
    ).encode()
    sent, asked = [], [{"type": "http.request", "body": body, "more_body": False}]

    async def receive():
        if asked:
            return asked.pop()
        await asyncio.Event().wait()

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "http_version": "1.1",
        "path": "/v1/chat/completions",
        "method": "POST",
        "headers": [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))],
    }
    await app(scope, receive, send)
    assert sent[0]["status"] == 200
    assert sent[-1].get("more_body", False) is False


def kinds():
    """How many objects of each of our types there are."""
    gc.collect()
    counted = Counter(type(one) for one in gc.get_objects())
    return Counter({k: n for k, n in counted.items() if str(k.__module__).startswith(OURS)})


def test_two_thousand_requests_leave_nothing_behind(guard):
    async def all_of_them():
        records = Records()
        app = Gateway(live(scripted_models(SCRIPT), {"default": guard}, records), served_paths(SURFACES))

        async def many(count):
            for first in range(0, count, 20):
                await asyncio.gather(*(ask(app, number=first + n) for n in range(20)))
                records.begun.clear()
                records.all.clear()

        await many(200)
        before = kinds()
        await many(2000)
        grown = kinds() - before
        assert not app.in_flight
        return grown

    grown = asyncio.run(all_of_them())
    assert all(count < 40 for count in grown.values()), grown.most_common(5)


@pytest.fixture
def bench(monkeypatch):
    if not shutil.which("wrk"):
        pytest.skip("wrk is not installed")
    monkeypatch.syspath_prepend(str(BENCH))
    import soak

    yield soak
    for name in ("soak", "overhead", "servers", "streams", "upstream"):
        sys.modules.pop(name, None)


@pytest.mark.soak
@pytest.mark.parametrize("policy", ["none", "default"])
def test_memory_is_flat_over_fifty_thousand_requests_and_two_thousand_streams_at_once(bench, policy):
    found = bench.soak(requests=50_000, policy=policy)
    assert found.bad == 0
    assert (found.crowd_good, found.crowd_bad) == (2000, 0)
    assert found.is_flat, (found.bytes_each, found.growth_kb)


@pytest.mark.soak
def test_memory_is_flat_over_a_million_requests(bench):
    found = bench.soak(requests=1_000_000, policy="none", crowd=0, slices=60)
    assert found.bad == 0
    assert found.is_flat, (found.bytes_each, found.growth_kb)
    assert found.bytes_each < 16
