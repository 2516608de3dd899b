"""`calls_per_session` holds by the gateway's own count, whatever history a client sends."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests_raw
from gateway_server import Records, gateway, live, scripted_models, serve

from stanchion.cli.serve_view import apart_lines
from stanchion.core.clock import ManualClock
from stanchion.files.references import Secret
from stanchion.gateway.ledger_redis import connect
from stanchion.gateway.live import Parts
from stanchion.gateway.session_calls import TTL_S, CallsHere, CallsTogether, kept_calls
from stanchion.guard.pipeline import Guard

POLICY = (
    "version: 1\nname: once\nextends: [default]\ntools:\n  default: block\n  named:\n    refund: {LIMIT}\n"
)
TOOL = {"type": "function", "function": {"name": "refund", "parameters": {"type": "object"}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "refund", "arguments": "{}"}}
SCRIPT = {"default": {"text": "", "tool_calls": [{"name": "refund", "arguments": {}}]}}


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """A function that asks for an answer with a call of `refund`; whether the call came."""
    guards = {}
    for name, limit in (("once", "calls_per_session: 1"), ("twice", "calls_per_session: 2"), ("any", "")):
        path = tmp_path_factory.mktemp("policies") / "policy.yaml"
        path.write_text(POLICY.replace("LIMIT", limit))
        guards[name] = Guard.load(str(path))
    parts = Parts(calls=CallsHere(clock=ManualClock()))
    with serve(gateway(live(scripted_models(SCRIPT), guards, Records(), parts=parts))) as served:

        def ask(session, *, feature="once", stream=False, earlier=0):
            messages = [{"role": "user", "content": "Refund me"}]
            for _ in range(earlier):
                messages += [
                    {"role": "assistant", "content": None, "tool_calls": [CALL]},
                    {"role": "tool", "tool_call_id": "c1", "content": "done"},
                ]
            body = {"model": "scripted", "messages": messages, "tools": [TOOL], "stream": stream}
            headers = [*requests_raw.JSON]
            if session:
                headers.append(("x-stanchion-session", session))
            path = f"/features/{feature}/v1/chat/completions"
            status, _, answer = requests_raw.post(
                served.url, path, json.dumps(body).encode(), headers=headers
            )
            assert status == 200, answer
            return b'"tool_calls":[' in answer

        yield ask


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_without_history_has_the_limit_of_its_session(asked, stream):
    session = f"s{stream}"
    assert [asked(session, stream=stream) for _ in range(4)] == [True, False, False, False]
    assert asked(f"other-{stream}", stream=stream)


def test_the_greater_of_history_and_count_holds(asked):
    assert not asked("h1", feature="twice", earlier=2)
    assert asked("h1", feature="twice", earlier=1), "what was stopped did not count"
    assert asked("h1", feature="twice")
    assert not asked("h1", feature="twice")


@pytest.mark.parametrize("stream", [False, True])
def test_without_a_session_a_limited_call_is_stopped(asked, stream):
    assert not asked("", stream=stream)
    assert asked("", feature="any", stream=stream)


def test_answers_at_the_same_time_are_not_all_the_last_one(asked):
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(lambda _: asked("same"), range(8))) == 1


async def test_counts_are_forgotten_after_a_day_and_beyond_the_most():
    clock = ManualClock()
    calls = CallsHere(clock=clock, most=2)
    assert await calls.add("a", {"f": 1, "g": 1}) == {"f": 0, "g": 0}
    assert await calls.add("a", {"f": 2}) == {"f": 1}
    assert await calls.add("b", {"f": 1}) == {"f": 0}
    assert await calls.add("a", {"g": 1}) == {"g": 0}, "the longest unused of three"
    clock.advance(TTL_S)
    assert await calls.add("b", {"f": 1}) == {"f": 0}
    assert await calls.add("b", {"f": -5}) == {"f": 1}
    assert await calls.add("b", {"f": 1}) == {"f": 0}, "never below none"


@pytest.mark.redis
async def test_workers_count_together_in_redis(redis_url):
    one, other = (CallsTogether(connect(Secret(redis_url), timeout_s=1.0), timeout_s=1.0) for _ in range(2))
    try:
        assert await one.add("s", {"f": 1, "g": 2}) == {"f": 0, "g": 0}
        found = await asyncio.gather(*(each.add("s", {"f": 1}) for each in (one, other) * 10))
        assert sorted(each["f"] for each in found) == list(range(1, 21))
        assert await other.add("s", {"g": -3}) == {"g": 2}
        assert await other.add("s", {"g": 1}) == {"g": 0}
        assert await other.add("", {"g": 1}) == {"g": None}
    finally:
        await one.close()
        await other.close()


async def test_while_redis_is_away_nothing_is_known():
    calls = CallsTogether(connect(Secret("redis://127.0.0.1:1/0"), timeout_s=0.2), timeout_s=0.2)
    assert await calls.add("s", {"f": 1}) == {"f": None}
    await calls.close()


@pytest.mark.redis
def test_several_workers_say_at_the_start_what_they_keep_apart(redis_url, tmp_path, guard):
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY.replace("LIMIT", "calls_per_session: 1"))
    guards = {"plain": Guard.unprotected(), "default": guard, "once": Guard.load(str(path))}
    kept: dict = {}

    def lines(workers, fleet=None):
        calls = kept_calls(kept, None, fleet, clock=ManualClock())
        configuration = live(scripted_models(SCRIPT), guards, Records(), parts=Parts(calls=calls))
        return apart_lines(configuration, workers=workers)

    assert lines(1) == []
    values, calls = lines(2)
    assert "(features: default, once)" in values
    assert "(features: once): 2 workers" in calls
    together = lines(2, Secret(redis_url))
    assert together == [values]
    assert kept_calls(kept, None, Secret(redis_url), clock=ManualClock()) is kept["calls"][1]
