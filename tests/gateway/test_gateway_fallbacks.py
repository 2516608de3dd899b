"""What a key, a switch and the gate forbid by one name is not reached by a fallback, nor by a parameter."""

from __future__ import annotations

import dataclasses
import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anthropic
import openai
import pytest
from gateway_fakes import BODY, Upstream, Yes, post
from gateway_server import Records, gateway, live, serve

from stanchion.bootstrap_control import make_admin_plane, make_replica_plane
from stanchion.config import load_settings
from stanchion.core.errors import UnavailableError
from stanchion.core.interaction import End, FinishReason, Reply, Usage, UsageEvent, assistant
from stanchion.gateway.actor import Actor
from stanchion.gateway.live import Parts
from stanchion.gateway.ports import AdmissionAnswer, Caller, Outcome
from stanchion.gateway.switch_state import SwitchTarget
from stanchion.gateway.upstream import Fallback, Models, Provider, make_route
from stanchion.models.endpoint import Prices

ANN = Actor(person="ann")
USAGE = Usage(input_tokens=1_000_000, output_tokens=1_000_000)
pytestmark = pytest.mark.parametrize("stream", [False, True])


class Counted(Upstream):
    """An upstream that says what it took, and keeps the parameters that it was sent."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.extras: list[dict[str, Any]] = []

    async def ask(self, question: Any) -> Reply:
        self.extras.append(question.request.extras)
        await super().ask(question)
        return Reply(message=assistant("Hello."), finish_reason=FinishReason.STOP, usage=USAGE)

    async def stream(self, question: Any) -> Any:
        self.extras.append(question.request.extras)
        async for batch in super().stream(question):
            if isinstance(batch[-1], End):
                yield (UsageEvent(usage=USAGE),)
            yield batch


class Scoped(Yes):
    """A key that may use some models."""

    models: tuple[str, ...] = ()

    async def authenticate(self, headers: Any, *, surface: Any) -> Caller:
        return Caller(key_id="k1", models=self.models)


class Gate:
    """An admission list: sets with one of these models were gated."""

    def __init__(self, *gated: str) -> None:
        self.gated = gated

    def check(self, facts: Any, components: Any) -> AdmissionAnswer:
        is_gated = components.model in self.gated
        return AdmissionAnswer(action="allow" if is_gated else "block", is_gated=is_gated)


def chain(*, third: bool = False, **second: Any) -> Any:
    """`fb` is dead and falls back on `claude`, that on `last` where there is a third."""
    dead = Upstream(error=UnavailableError("it is down.", status=503), pieces=("x",))
    ant, last = Counted(**second.pop("upstream", {})), Counted()
    providers = {
        "dead": Provider(name="dead", vendor="openai", upstream=dead, prices={}),
        "ant": Provider(name="ant", vendor="openai", upstream=ant, prices={}, **second),
        "last": Provider(name="last", vendor="openai", upstream=last, prices={}),
    }
    steps = (Fallback(model="claude"), *((Fallback(model="last"),) if third else ()))
    prices = {name: Prices(input_usd=price, output_usd=0.0) for name, price in (("fb", 1.0), ("claude", 7.0))}
    routes = {
        "fb": make_route("fb", providers["dead"], "d", prices=prices["fb"], fallback=steps),
        "claude": make_route("claude", providers["ant"], "c", prices=prices["claude"]),
        "last": make_route("last", providers["last"], "l"),
    }
    return SimpleNamespace(models=Models(routes, providers=providers), dead=dead, ant=ant, last=last)


@contextmanager
def served(found: Any, guard: Any, parts: Parts | None = None) -> Iterator[tuple[Any, Records]]:
    records = Records()
    with serve(gateway(live(found.models, {"default": guard}, records, parts=parts))) as running:
        yield running, records


@contextmanager
def switched(folder: Path) -> Iterator[Any]:
    """The real switch board of this process, and the desk that engages its switches."""
    settings = load_settings(folder=folder, environ={"HOME": str(folder)})
    replica = make_replica_plane(settings, is_loopback=True)
    plane = make_admin_plane(settings, reader=replica.reader)
    replica.watch.start()

    def engage(target: str) -> str:
        return plane.switches.engage(SwitchTarget.parse(target), reason="leaks", actor=ANN).answer.id

    try:
        yield SimpleNamespace(board=replica.switches, engage=engage)
    finally:
        replica.watch.stop()
        plane.close()


def until(check: Any) -> None:
    end = time.monotonic() + 20
    while not check():
        assert time.monotonic() < end
        time.sleep(0.01)


def body(stream: bool, model: str = "fb", **more: Any) -> dict[str, Any]:
    return {**BODY, "model": model, "stream": stream, **more}


def opened(running: Any, said: dict[str, Any]) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", int(running.url.rpartition(":")[2])), timeout=20)
    data = json.dumps(said).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    connection.sendall(f"{head}content-length: {len(data)}\r\n\r\n".encode() + data)
    return connection


def test_the_record_names_the_route_that_answered(guard, stream) -> None:
    found = chain()
    digest = found.models.routes["claude"].digest
    with served(found, guard, Parts(admission=Gate(digest, found.models.routes["fb"].digest))) as (
        it,
        records,
    ):
        assert post(it, body=body(stream))[0] == 200
        record = records.only()
    assert (record.facts.model, record.facts.provider) == ("claude", "ant")
    assert record.components.model == digest
    assert record.usage.cost_usd == pytest.approx(7.0)
    assert [(one.provider, one.status) for one in record.tries] == [("dead", "http_503"), ("ant", "ok")]


@pytest.mark.parametrize("target", ["provider:ant", "model:claude"])
def test_a_switch_stops_a_fallback(guard, tmp_path, stream, target) -> None:
    found = chain()
    with switched(tmp_path) as desk, served(found, guard, Parts(switches=desk.board)) as (it, records):
        switch = desk.engage(target)
        until(lambda: desk.board.version > 0)
        status, _, said = post(it, body=body(stream))
        record = records.only()
        assert desk.board.following == 0
    assert (status, json.loads(said)["error"]["code"]) == (503, "switched_off")
    assert found.ant.asked == 0
    assert (record.outcome, record.switch_id) == (Outcome.SWITCHED_OFF, switch)
    assert (record.facts.model, record.facts.provider) == ("fb", "dead")
    assert [(one.provider, one.status) for one in record.tries] == [
        ("dead", "http_503"),
        ("ant", "switched_off"),
    ]


def test_the_next_of_the_chain_answers_where_one_is_switched_off(guard, tmp_path, stream) -> None:
    found = chain(third=True)
    with switched(tmp_path) as desk, served(found, guard, Parts(switches=desk.board)) as (it, records):
        desk.engage("provider:ant")
        until(lambda: desk.board.version > 0)
        assert post(it, body=body(stream))[0] == 200
        record = records.only()
    assert (found.ant.asked, found.last.asked) == (0, 1)
    assert (record.outcome, record.facts.provider, record.switch_id) == (Outcome.ALLOWED, "last", "")


@pytest.mark.parametrize("target", ["provider:ant", "model:claude"])
def test_a_switch_ends_a_fallback_under_way(guard, tmp_path, stream, target) -> None:
    found = chain(upstream={"hangs": True, "after": 1 if stream else 0, "pieces": ("One. " * 300, "Two.")})
    with (
        switched(tmp_path) as desk,
        served(found, guard, Parts(switches=desk.board)) as (it, records),
        opened(it, body(stream)) as connection,
    ):
        until(lambda: found.ant.asked)
        switch = desk.engage(target)
        said = b""
        while b"switched_off" not in said:
            piece = connection.recv(65536)
            assert piece, said
            said += piece
        record = records.only()
        assert desk.board.following == 0
    assert (record.outcome, record.switch_id) == (Outcome.SWITCHED_OFF, switch)
    assert found.ant.was_cancelled


@pytest.mark.parametrize("target", ["provider:ant", "guard:VERSION"])
def test_a_switch_of_what_is_known_late_ends_a_request_under_way(guard, tmp_path, stream, target) -> None:
    """The provider is known only when the route is."""
    found = chain(upstream={"hangs": True, "after": 1 if stream else 0, "pieces": ("One. " * 300, "Two.")})
    version = f"guard_version:{guard.policy.digest}"
    target = version if target.startswith("guard") else target
    with (
        switched(tmp_path) as desk,
        served(found, guard, Parts(switches=desk.board)) as (it, records),
        opened(it, body(stream, "claude")) as connection,
    ):
        until(lambda: found.ant.asked)
        desk.engage(target)
        said = b""
        while b"switched_off" not in said:
            piece = connection.recv(65536)
            assert piece, said
            said += piece
        assert records.only().outcome is Outcome.SWITCHED_OFF
    assert found.ant.was_cancelled


def test_a_key_does_not_reach_a_model_by_a_fallback(guard, stream) -> None:
    found, key = chain(), Scoped()
    key.models = ("fb",)
    with served(found, guard, Parts(access=key)) as (it, records):
        status, _, said = post(it, body=body(stream))
        assert (status, json.loads(said)["error"]["code"]) == (403, "model_not_allowed")
        assert (found.ant.asked, records.only().outcome) == (0, Outcome.DENIED)
        records.clear()
        key.models = ("fb", "claude")
        assert post(it, body=body(stream))[0] == 200


def test_a_fallback_passes_the_gate_of_its_own_set(guard, stream) -> None:
    found = chain()
    with served(found, guard, Parts(admission=Gate(found.models.routes["fb"].digest))) as (it, records):
        status, _, said = post(it, body=body(stream))
        record = records.only()
    assert (status, json.loads(said)["error"]["code"]) == (403, "not_admitted")
    assert (found.ant.asked, record.outcome) == (0, Outcome.NOT_ADMITTED)
    assert record.components.model == found.models.routes["fb"].digest


def test_a_parameter_that_steers_does_not_reach_a_provider(guard, stream) -> None:
    found = chain()
    steering = ("models", "route", "fallbacks", "provider", "api_base", "base_url", "extra_body", "plugins")
    more = ("extra_headers", "data_sources", "transforms", "Models", "mcp_servers", "container")
    with served(found, guard) as (it, _):
        for name in (*steering, *more):
            status, _, said = post(it, body=body(stream, "claude", **{name: ["other/model-77"]}))
            error = json.loads(said)["error"]
            assert (status, error["code"]) == (400, "parameter_not_allowed"), name
            assert name in error["message"]
            assert b"model-77" not in said
    assert found.ant.asked == 0


def test_unknown_parameters_follow_the_rule_of_the_provider(guard, stream) -> None:
    for rule, status, sent in (
        ("block", 400, []),
        ("drop", 200, [{"user": "u"}]),
        ("pass", 200, [{"user": "u", "zap": "value-77"}]),
    ):
        found = chain(unknown_parameters=rule)
        with served(found, guard) as (it, _):
            said = post(it, body=body(stream, "claude", zap="value-77", user="u"))
            assert said[0] == status
            assert post(it, body=body(stream, "claude", models=["x"]))[0] == 400, "a rule for unknown ones"
        if status == 400:
            assert json.loads(said[2])["error"]["code"] == "unknown_parameter"
            assert b"zap" in said[2]
            assert b"value-77" not in said[2]
        assert found.ant.extras == sent


def test_a_provider_may_allow_what_its_fallbacks_do_not(guard, stream) -> None:
    found = chain(allow_parameters=frozenset({"models", "zap"}))
    with served(found, guard) as (it, _):
        assert post(it, body=body(stream, "claude", models=["m"], zap=1))[0] == 200
        assert post(it, body=body(stream, "last", models=["m"]))[0] == 400
    assert found.ant.extras == [{"models": ["m"], "zap": 1}]
    found = chain()
    providers = found.models.providers
    steps = (Fallback(model="last"),)
    dead = dataclasses.replace(providers["dead"], allow_parameters=frozenset({"models"}))
    found.models.routes["fb"] = make_route("fb", dead, "d", fallback=steps)
    with served(found, guard) as (it, records):
        assert post(it, body=body(stream, models=["m"]))[0] == 400
        assert records.only().facts.provider == "dead"
    assert found.last.asked == 0


def test_documented_parameters_of_real_clients_pass(guard, stream) -> None:
    found = chain()
    with served(found, guard) as (it, _):
        client = openai.OpenAI(base_url=f"{it.url}/v1", api_key="k", max_retries=0)
        chat = client.chat.completions.create(
            model="claude",
            messages=[{"role": "user", "content": "Hello"}],
            stream=stream,
            **({"stream_options": {"include_usage": True}} if stream else {}),
            user="u1",
            metadata={"a": "b"},
            presence_penalty=0.1,
            frequency_penalty=0.1,
            logit_bias={"1": 1},
            parallel_tool_calls=False,
            reasoning_effort="low",
            prompt_cache_key="k",
            safety_identifier="s",
            service_tier="auto",
            verbosity="low",
            store=False,
        )
        assert list(chat) if stream else chat.choices
        answer = client.responses.create(
            model="claude",
            input="Hello",
            stream=stream,
            include=["reasoning.encrypted_content"],
            reasoning={"effort": "low"},
            text={"verbosity": "low"},
            truncation="auto",
            max_tool_calls=3,
            metadata={"a": "b"},
        )
        assert list(answer) if stream else answer.output
        messages = anthropic.Anthropic(base_url=it.url, api_key="k", max_retries=0).messages.create(
            model="claude",
            max_tokens=2000,
            messages=[{"role": "user", "content": "Hello"}],
            stream=stream,
            metadata={"user_id": "u"},
            service_tier="auto",
            thinking={"type": "enabled", "budget_tokens": 1024},
            extra_body={"top_k": 3},  # documented, and left out of newer clients
        )
        assert list(messages) if stream else messages.content
        with pytest.raises(openai.BadRequestError, match="models"):
            client.chat.completions.create(
                model="claude",
                messages=[{"role": "user", "content": "Hello"}],
                extra_body={"models": ["other/model"]},
            )
    assert found.ant.asked == 3


def test_a_fallback_that_is_left_alone_leaves_the_request_as_it_was(guard, stream) -> None:
    found = chain()
    breaker = SimpleNamespace(
        allows=lambda name: name != "ant",
        succeeded=lambda name, *, latency_ms: None,
        failed=lambda name: None,
        released=lambda name: None,
        retry_after_s=lambda name: 0.0,
        state=lambda name: "closed",
    )
    with served(found, guard, Parts(breaker=breaker)) as (it, records):
        assert post(it, body=body(stream))[0] == 503
        record = records.only()
    assert (record.facts.model, record.facts.provider) == ("fb", "dead")
    assert [one.status for one in record.tries] == ["http_503", "breaker_open"]
