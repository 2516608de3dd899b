"""A probe that ends by the request's own fault, or the client's, does not keep a healthy provider off."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from gateway_fakes import BODY, Upstream, models_of, post
from gateway_server import Records, gateway, live, serve

from stanchion.core.clock import SystemClock
from stanchion.core.errors import UnavailableError, UsageError
from stanchion.gateway.breaker import BreakerRule, BreakerSection, SlidingBreaker
from stanchion.gateway.live import Parts

pytestmark = pytest.mark.parametrize("stream", [False, True])
DOWN = UnavailableError("it is down.", status=500)
OWN_FAULTS = [
    *(UnavailableError("too long.", status=status) for status in (400, 404, 409, 413, 422)),
    UsageError("this API has no words for that."),
]


@contextmanager
def opened(guard: Any, *, stream: bool, open_s: float) -> Iterator[Any]:
    """A gateway whose provider has just failed so often that it is left alone."""
    rule = BreakerRule(minimum_calls=2, open_s=open_s, open_most_s=60, probes=2)
    breaker = SlidingBreaker(BreakerSection(default=rule), clock=SystemClock())
    upstream, records = Upstream(error=DOWN), Records()
    configuration = live(models_of(upstream), {"default": guard}, records, parts=Parts(breaker=breaker))
    body = {**BODY, "model": "scripted", "stream": stream}
    with serve(gateway(configuration)) as running:
        for _ in range(2):
            assert post(running, body=body)[0] == 500
        yield SimpleNamespace(running=running, body=body, breaker=breaker, upstream=upstream, records=records)


def until(check: Any) -> None:
    end = time.monotonic() + 20
    while not check():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.parametrize("fault", OWN_FAULTS, ids=lambda one: str(getattr(one, "status", "not_sayable")))
def test_requests_that_are_at_fault_themselves_leave_the_probes_to_others(guard, stream, fault) -> None:
    with opened(guard, stream=stream, open_s=0.2) as it:
        until(lambda: it.breaker.state("p") == "half_open")
        it.upstream.error = fault
        for _ in range(5):  # more than there are probes: each was given back
            status, _, _ = post(it.running, body=it.body)
            assert status == (400 if isinstance(fault, UsageError) else fault.status)
        assert it.breaker.state("p") == "half_open"  # a provider that only refuses is not proved to be well
        it.upstream.error = None
        for _ in range(2):
            assert post(it.running, body=it.body)[0] == 200
        assert it.breaker.state("p") == "closed"


def test_clients_that_hang_up_leave_the_probes_to_others(guard, stream) -> None:
    with opened(guard, stream=stream, open_s=0.2) as it:
        until(lambda: it.breaker.state("p") == "half_open")
        it.upstream.error, it.upstream.hangs = None, True
        data = json.dumps(it.body).encode()
        head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        for number in range(4):
            asked = it.upstream.asked
            address = ("127.0.0.1", int(it.running.url.rpartition(":")[2]))
            with socket.create_connection(address, timeout=20) as client:
                client.sendall(f"{head}content-length: {len(data)}\r\n\r\n".encode() + data)
                until(lambda: it.upstream.asked > asked)  # noqa: B023 - called in this turn only
            until(lambda: len(it.records.all) == 3 + number)  # noqa: B023
            assert it.records.all[-1].tries[-1].status == "cut"
        it.upstream.hangs = False
        for _ in range(2):
            assert post(it.running, body=it.body)[0] == 200
        assert it.breaker.state("p") == "closed"


def test_the_breaker_says_when_to_come_back(guard, stream) -> None:
    with opened(guard, stream=stream, open_s=40) as it:
        status, headers, text = post(it.running, body=it.body)
        assert (status, json.loads(text)["error"]["code"]) == (503, "upstream_breaker_open")
        assert 30 < int(headers["retry-after"]) <= 40
