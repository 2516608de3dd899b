"""Every way out of a request leaves one record, an answer in the API's shape, and nothing unchecked."""

import asyncio
import dataclasses
import json
import socket
import time
from contextlib import contextmanager
from urllib.parse import urlsplit

import anthropic
import openai
import pytest
import requests_raw
from gateway_server import Records, gateway, live, scripted_models, serve

from stanchion.core.decision import Surface
from stanchion.core.errors import UnavailableError
from stanchion.core.interaction import End, FinishReason, Reply, TextDelta, assistant
from stanchion.gateway.exchange import Interrupt
from stanchion.gateway.gateway_file import FeatureModel
from stanchion.gateway.live import Parts
from stanchion.gateway.ports import AdmissionAnswer, Assignment, Caller, Engaged, Outcome, Refused, Stage
from stanchion.gateway.upstream import Models, Provider, make_route

HARMLESS = [{"role": "user", "content": "What is your return policy?"}]
SECRET_WORDS = "the words of the request"
BODY = {"model": "scripted", "messages": [{"role": "user", "content": SECRET_WORDS}]}
REFUND = {"type": "object", "properties": {"amount": {"type": "number"}}}
CHAT = "/v1/chat/completions"


def post(served, path=CHAT, body=None, *, raw=None, headers=None):
    data = json.dumps(BODY if body is None else body).encode() if raw is None else raw
    return requests_raw.post(served.url, path, data, headers=headers)


# --- what cannot be understood ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "status", "code"),
    [
        (b'{"model": "a", "model": "b", "messages": []}', 400, "duplicate_key"),
        (
            b'{"model": "a", "messages": [{"role": "user", "role": "system", "content": "x"}]}',
            400,
            "duplicate_key",
        ),
        (b"[" * 200 + b"]" * 200, 400, "nested_too_deep"),
        (b'{"model": "a", "temperature": NaN}', 400, "not_json"),
        (b'{"model": "a", "seed": ' + b"9" * 5000 + b"}", 400, "not_json"),
        (b'{"model": "a", "messages": "\\ud800"}', 400, "lone_surrogate"),
        (b'{"model": "\xff"}', 400, "not_utf8"),
        (b"", 400, "not_json"),
        (b"[]", 400, "invalid_request"),
        (b'{"messages": []}', 400, "invalid_request"),
        (b'{"model": "", "messages": []}', 400, "invalid_request"),
        (b'{"model": "scripted", "messages": [], "n": 2}', 400, "invalid_request"),
    ],
)
def test_a_body_that_can_be_read_in_two_ways_or_none_is_refused(served, records, raw, status, code):
    said, headers, body = post(served, raw=raw)
    assert (said, json.loads(body)["error"]["code"]) == (status, code)
    assert headers["x-stanchion-reference"] == records.only().reference
    assert records.only().outcome is Outcome.INVALID
    assert records.only().status == status


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ([("content-type", "text/plain")], 415, "not_json"),
        ([("content-type", "application/json"), ("content-encoding", "gzip")], 415, "coded_body"),
        (
            [("content-type", "application/json"), ("authorization", "a"), ("authorization", "b")],
            400,
            "duplicate_header",
        ),
        ([("content-type", "application/json"), ("x-big", "x" * 40_000)], 431, "headers_too_large"),
        (
            [("content-type", "application/json"), ("x-stanchion-feature", "nowhere")],
            404,
            "feature_not_found",
        ),
    ],
)
def test_headers_that_could_mislead_are_refused(served, records, headers, status, code):
    said, _, body = post(served, headers=headers)
    assert (said, json.loads(body)["error"]["code"]) == (status, code)
    assert records.only().outcome is Outcome.INVALID


def test_a_body_beyond_the_limit_is_refused_by_what_its_length_says(served, records):
    host, port = urlsplit(served.url).hostname, urlsplit(served.url).port
    with socket.create_connection((host, port), timeout=5) as connection:
        connection.sendall(
            b"POST /v1/messages HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            b"content-length: 999999999\r\n\r\n"
        )
        assert connection.recv(4096).startswith(b"HTTP/1.1 413")
    assert records.only().status == 413


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/chat/completions/x", "/v1/../admin", "//v1/messages"])
def test_paths_that_are_not_served_say_so(served, path):
    status, _, body = requests_raw.post(served.url, path, b"{}")
    assert status == 404
    assert json.loads(body)["error"]["code"] == "not_found"


def test_another_method_is_not_allowed(served):
    status, _, _ = requests_raw.request("GET", served.url, CHAT)
    assert status == 405


# --- every stage, broken ------------------------------------------------------------------------------------


class Broken(Exception):
    """Holds words that must not be seen."""

    def __init__(self):
        super().__init__(SECRET_WORDS)


class Yes:
    """Parts that agree with everything, until they are told to break."""

    version = 7

    def __init__(self, breaks=""):
        self.breaks = breaks
        self.given_back = []
        self.on_engaged = None

    def _try(self, name):
        if self.breaks == name:
            raise Broken

    async def authenticate(self, headers, *, surface):
        self._try("access")
        return Caller(key_id="k1", roles=())

    def find(self, facts):
        self._try("switches")

    def find_tool(self, facts, tool):
        if tool == self.breaks:
            return Engaged(switch_id="sw_tool", level="tool", name=tool, version=1)
        return None

    def follow(self, facts, on_engaged):
        self.on_engaged = on_engaged
        return self

    def close(self):
        pass

    async def reserve(self, facts, *, input_tokens, max_output_tokens):
        self._try("limits")
        return self

    async def settle(self, usage):
        self.given_back.append("settled")

    async def release(self):
        self.given_back.append("released")

    async def observe(self, facts, outcome):
        self.given_back.append(outcome)

    def check(self, facts, components):
        self._try("admission")
        return AdmissionAnswer(action="allow", is_gated=True)

    def parts(self):
        return Parts(access=self, switches=self, limits=self, admission=self)


class BrokenGuard:
    """A guard that breaks at one of its doors."""

    def __init__(self, guard, door):
        self._guard, self._door = guard, door

    def __getattr__(self, name):
        if name != self._door:
            return getattr(self._guard, name)
        if name == "stream":

            class Stream:
                guarantee = self._guard.stream
                is_over = False

                async def feed(self, event):
                    raise Broken

            stream = Stream()
            stream.guarantee = self._guard.policy.streaming.guarantee
            return lambda prepared: stream

        async def breaks(*args, **kwargs):
            raise Broken

        return breaks


class Upstream:
    """A provider that does what a test needs."""

    def __init__(self, *, error=None, hangs=False, after=0, pieces=("Hel", "lo.")):
        self.error, self.hangs, self.after, self.pieces = error, hangs, after, pieces
        self.cancelled = asyncio.Event()
        self.was_cancelled = False
        self.asked = 0

    async def _wait(self):
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise

    async def ask(self, question):
        self.asked += 1
        if self.hangs:
            await self._wait()
        if self.error is not None:
            raise self.error
        return Reply(message=assistant("".join(self.pieces)))

    async def stream(self, question):
        self.asked += 1
        for number, piece in enumerate(self.pieces):
            if number >= self.after and self.hangs:
                await self._wait()
            if number >= self.after and self.error is not None:
                raise self.error
            yield (TextDelta(text=piece),)
        yield (End(finish_reason=FinishReason.STOP, model="m"),)

    async def aclose(self):
        pass


def models_of(upstream, **options):
    provider = Provider(name="p", vendor="openai", upstream=upstream, prices={}, **options)
    return Models({"scripted": make_route("scripted", provider, "m")}, providers={"p": provider})


@contextmanager
def served_with(guard, *, upstream=None, yes=None, observers=(), **more):
    records = Records()
    configuration = live(
        models_of(upstream or Upstream(), **more.pop("provider", {})),
        {"default": guard},
        records,
        parts=yes.parts() if yes else None,
        feature_model=more.pop("feature_model", FeatureModel()),
        **more,
    )
    configuration = dataclasses.replace(configuration, observers=(*observers, records))
    with serve(gateway(configuration)) as served:
        yield served, records


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("breaks", "stage"),
    [
        ("access", Stage.ACCESS),
        ("switches", Stage.SWITCHES),
        ("limits", Stage.LIMITS),
        ("admission", Stage.ADMISSION),
    ],
)
def test_a_part_that_breaks_refuses_the_request(guard, breaks, stage, stream):
    yes = Yes(breaks)
    upstream = Upstream()
    with served_with(guard, upstream=upstream, yes=yes) as (served, records):
        status, _, body = post(served, body={**BODY, "stream": stream})
        record = records.only()
    assert (status, record.outcome, record.stage) == (500, Outcome.INTERNAL_ERROR, stage)
    assert json.loads(body)["error"]["code"] == "internal_error"
    assert SECRET_WORDS.encode() not in body
    assert record.error == "Broken"
    assert upstream.asked == 0


@pytest.mark.parametrize(
    ("door", "stream", "stage"),
    [
        ("aprepare", False, Stage.INPUT),
        ("aprepare", True, Stage.INPUT),
        ("afinish", False, Stage.OUTPUT),
        ("stream", True, Stage.UPSTREAM),
    ],
)
def test_a_guard_that_breaks_lets_nothing_out(guard, door, stream, stage):
    yes = Yes()
    with served_with(BrokenGuard(guard, door), yes=yes) as (served, records):
        status, _, body = post(served, body={**BODY, "stream": stream})
        record = records.only()
    assert (status, record.outcome, record.stage) == (500, Outcome.INTERNAL_ERROR, stage)
    assert b"Hel" not in body
    assert yes.given_back[-1] is Outcome.INTERNAL_ERROR
    assert yes.given_back[0] == ("released" if door == "aprepare" else "settled")


def test_an_observer_that_breaks_is_counted_and_hurts_nobody(guard):
    class Bad:
        def started(self, facts):
            raise Broken

        def finished(self, record):
            raise Broken

    with served_with(guard, observers=(Bad(),)) as (served, records):
        status, _, _ = post(served)
        assert records.only().outcome is Outcome.ALLOWED
        assert served.gateway.swallowed_errors == 2
    assert status == 200


@pytest.mark.parametrize("stream", [False, True])
def test_a_provider_that_fails_is_told_in_the_apis_shape(guard, stream):
    error = UnavailableError("the provider failed.", status=500)
    with served_with(guard, upstream=Upstream(error=error)) as (served, records):
        with (
            openai.OpenAI(base_url=f"{served.url}/v1", api_key="k", max_retries=0) as client,
            pytest.raises(openai.InternalServerError) as raised,
        ):
            client.chat.completions.create(model="scripted", messages=HARMLESS, stream=stream)
        record = records.only()
    assert raised.value.code == "upstream_unavailable"
    assert (record.outcome, record.status) == (Outcome.UPSTREAM_ERROR, 502)
    assert record.tries[0].status == "http_500"
    assert record.decisions, "what was checked of the request is in the record"


@pytest.mark.parametrize("surface", ["chat", "messages"])
def test_a_stream_that_breaks_off_ends_with_an_error_of_the_api(guard, surface):
    error = UnavailableError("the connection broke.")
    pieces = ("One. " * 200, "Two.")
    upstream = Upstream(error=error, after=1, pieces=pieces)
    with served_with(guard, upstream=upstream) as (served, records):
        if surface == "chat":
            with (
                openai.OpenAI(base_url=f"{served.url}/v1", api_key="k", max_retries=0) as client,
                pytest.raises(openai.APIError),
            ):
                list(client.chat.completions.create(model="scripted", messages=HARMLESS, stream=True))
        else:
            with (
                anthropic.Anthropic(base_url=served.url, api_key="k", max_retries=0) as client,
                pytest.raises(anthropic.APIStatusError),
                client.messages.stream(model="scripted", max_tokens=9, messages=HARMLESS) as stream,
            ):
                list(stream.text_stream)
        record = records.only()
    assert record.outcome is Outcome.UPSTREAM_ERROR
    assert record.tries[-1].status == "unavailable"


# --- ended from outside -------------------------------------------------------------------------------------


def _open(served, body):
    """A connection on which a request was sent and nothing was read."""
    url = urlsplit(served.url)
    connection = socket.create_connection((url.hostname, url.port), timeout=5)
    data = json.dumps(body).encode()
    connection.sendall(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n" % len(data) + data
    )
    return connection


def _until(condition, seconds=5.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_cancels_the_provider(guard, stream):
    upstream = Upstream(hangs=True)
    yes = Yes()
    with served_with(guard, upstream=upstream, yes=yes) as (served, records):
        with _open(served, {**BODY, "stream": stream}):
            _until(lambda: upstream.asked)
        record = records.only()
        _until(lambda: upstream.was_cancelled)
        _until(lambda: yes.given_back == ["settled", Outcome.CLIENT_GONE] or len(yes.given_back) > 1)
    assert record.outcome is Outcome.CLIENT_GONE
    assert record.error == "client_gone"


def test_a_client_that_goes_away_in_the_middle_of_a_stream_is_noticed(guard):
    upstream = Upstream(hangs=True, after=1, pieces=("One. " * 300, "Two."))
    with served_with(guard, upstream=upstream) as (served, records):
        with _open(served, {**BODY, "stream": True}) as connection:
            said = b""
            while b"One." not in said:
                said += connection.recv(65536)
        assert records.only().outcome is Outcome.CLIENT_GONE
        _until(lambda: upstream.was_cancelled)


@pytest.mark.parametrize("stream", [False, True])
def test_a_switch_ends_what_is_in_flight(guard, stream):
    upstream = Upstream(hangs=True, after=1 if stream else 0, pieces=("One. " * 300, "Two."))
    yes = Yes()
    with (
        served_with(guard, upstream=upstream, yes=yes) as (served, records),
        _open(served, {**BODY, "stream": stream}) as connection,
    ):
        _until(lambda: upstream.asked)
        if stream:
            connection.recv(65536)
        engaged = Engaged(switch_id="sw_1", level="global", name="*", version=8)
        served.call(lambda: yes.on_engaged(engaged))
        said = b""
        while b"switched_off" not in said:
            piece = connection.recv(65536)
            assert piece, said
            said += piece
        record = records.only()
    assert record.outcome is Outcome.SWITCHED_OFF
    assert record.switch_id == "sw_1"
    assert record.switch_version == 7
    assert upstream.was_cancelled


def test_a_request_has_its_time_and_no_more(guard):
    model = FeatureModel(deadline_s=0.2)
    with served_with(guard, upstream=Upstream(hangs=True), feature_model=model) as (served, records):
        status, _, body = post(served)
        record = records.only()
    assert (status, json.loads(body)["error"]["code"]) == (504, "deadline")
    assert record.outcome is Outcome.DEADLINE


def test_a_provider_has_its_time_and_no_more(guard):
    upstream = Upstream(hangs=True)
    with served_with(guard, upstream=upstream, provider={"timeout_s": 0.2}) as (served, records):
        status, _, body = post(served)
        assert records.only().tries[0].status == "timeout"
    assert (status, json.loads(body)["error"]["code"]) == (504, "upstream_timeout")


def test_a_body_that_does_not_come_is_not_waited_for(guard):
    with served_with(guard, body_timeout_s=0.2) as (served, records):
        url = urlsplit(served.url)
        with socket.create_connection((url.hostname, url.port), timeout=5) as connection:
            connection.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
                b"content-length: 100\r\n\r\n{"
            )
            assert connection.recv(4096).startswith(b"HTTP/1.1 408")
        assert records.only().error == Interrupt.SLOW_BODY.value


# --- tool switches ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_of_a_tool_that_is_switched_off_does_not_leave(guard, stream):
    script = {
        "default": {"text": "Let me look.", "tool_calls": [{"name": "refund", "arguments": {"amount": 3}}]}
    }
    records = Records()
    configuration = live(scripted_models(script), {"default": guard}, records, parts=Yes("refund").parts())
    with serve(gateway(configuration)) as served:
        tools = [{"type": "function", "function": {"name": "refund", "parameters": REFUND}}]
        _, _, body = post(served, body={**BODY, "stream": stream, "tools": tools})
        record = records.only()
    assert b"amount" not in body
    assert b"content_filter" in body
    assert b"switched off" in body
    assert record.outcome is Outcome.SWITCHED_OFF
    assert record.switch_id == "sw_tool"


def test_variants_are_recorded_and_the_rollouts_model_is_asked(guard):
    class Canary:
        def __init__(self):
            self.observed = []

        def choose(self, facts):
            return Assignment(variants={"model": "b"}, model="other")

        def observe(self, facts, assignment, outcome, *, latency_ms):
            self.observed.append((facts.model, outcome))

    canary = Canary()
    records = Records()
    configuration = live(
        scripted_models({"default": {"text": "Hello."}}),
        {"default": guard},
        records,
        parts=Parts(rollout=canary),
    )
    with serve(gateway(configuration)) as served:
        assert post(served)[0] == 200
        record = records.only()
    assert (record.facts.model, record.variants) == ("other", {"model": "b"})
    assert canary.observed == [("other", Outcome.ALLOWED)]


def test_a_limit_says_when_to_try_again(guard):
    class Full(Yes):
        async def reserve(self, facts, *, input_tokens, max_output_tokens):
            raise Refused(
                Outcome.LIMITED, status=429, code="limited", message="too many requests.", retry_after_s=7.0
            )

    with served_with(guard, yes=Full()) as (served, records):
        status, headers, body = post(served)
        assert records.only().outcome is Outcome.LIMITED
    assert (status, headers["retry-after"]) == (429, "7")
    assert json.loads(body)["error"]["type"] == "rate_limit_error"


def test_the_manifest_tells_what_did_not_run(guard, served, records):
    from stanchion.gateway.manifest import counts

    post(served)
    record = records.only()
    seen = {decision.surface for decision in record.decisions}
    assert Surface.OUTPUT in seen
    missing = counts(guard, {Surface.INPUT, Surface.OUTPUT}, [])
    assert missing["did_not_run"] == missing["expected"] > 0
