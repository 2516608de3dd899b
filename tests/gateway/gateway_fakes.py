"""Parts, guards and providers that agree, break, hang or end as a test needs."""

import asyncio
import dataclasses
import json
from contextlib import contextmanager

import requests_raw
from gateway_server import Records, gateway, live, serve

from stanchion.core.interaction import End, FinishReason, Reply, TextDelta, assistant
from stanchion.gateway.gateway_file import FeatureModel
from stanchion.gateway.live import Parts
from stanchion.gateway.ports import AdmissionAnswer, Caller, Engaged
from stanchion.gateway.upstream import Models, Provider, make_route

HARMLESS = [{"role": "user", "content": "What is your return policy?"}]
SECRET_WORDS = "the words of the request"
BODY = {"model": "scripted", "messages": [{"role": "user", "content": SECRET_WORDS}]}
REFUND = {"type": "object", "properties": {"amount": {"type": "number"}}}
CHAT = "/v1/chat/completions"


def post(served, path=CHAT, body=None, *, raw=None, headers=None):
    data = json.dumps(BODY if body is None else body).encode() if raw is None else raw
    return requests_raw.post(served.url, path, data, headers=headers)


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

    def move(self, facts):
        pass

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

                async def feed(self, event, *, is_last=False):
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
