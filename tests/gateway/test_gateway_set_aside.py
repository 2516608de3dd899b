"""What is set aside for a request: by its words, its length, and whether it gets words at all."""

import json

import pytest
import requests_raw
from gateway_server import Records, gateway, live, serve

from stanchion.core.clock import SortableIds, SystemClock
from stanchion.core.interaction import Message, Opaque, Reply, Role, Usage, assistant
from stanchion.gateway.limits import make_limits
from stanchion.gateway.limits_file import parse_section
from stanchion.gateway.live import Parts
from stanchion.gateway.upstream import Models, Provider, make_route

APIS = ("openai.embeddings", "openai.moderations", "anthropic.count_tokens")
HELLO = [{"role": "user", "content": "Hello"}]


class Answers:
    """A provider of words and of vectors."""

    async def ask(self, question):
        message = assistant("Hello.")
        if question.surface == "openai.embeddings":
            data = [{"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}]
            message = Message(
                role=Role.ASSISTANT, parts=(Opaque(kind="openai.embeddings:data", payload=data),)
            )
        elif question.surface == "openai.moderations":
            verdict = {"flagged": False, "categories": {}, "category_scores": {}}
            message = Message(
                role=Role.ASSISTANT, parts=(Opaque(kind="openai.moderations:results", payload=[verdict]),)
            )
        return Reply(message=message, model="m", usage=Usage(input_tokens=1))

    async def aclose(self):
        pass


@pytest.fixture(scope="module")
def asked(guard):
    """A function that asks under a limit of 200 tokens; where no length is named, `default` is set aside."""
    provider = Provider(name="p", vendor="openai", upstream=Answers(), prices={}, apis=frozenset(APIS))
    models = Models({"m": make_route("m", provider, "m")}, providers={"p": provider})

    def ask(path, body, *, default=150):
        section = {"default_output_tokens": default, "rules": [{"id": "t", "tokens": 200, "every": "1h"}]}
        clock = SystemClock()
        limits = make_limits(parse_section(section), clock=clock, ids=SortableIds(clock))
        configuration = live(models, {"default": guard}, Records(), parts=Parts(limits=limits))
        with serve(gateway(configuration)) as served:
            status, _, answer = requests_raw.post(served.url, path, json.dumps(body).encode())
        return status, answer

    return ask


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", {"model": "m", "input": "a", "encoding_format": "float"}),
        ("/v1/moderations", {"model": "m", "input": "a"}),
        ("/v1/check", {"text": "a"}),
        ("/v1/check", {"interactions": [{"messages": []}, {"messages": []}]}),
        ("/v1/check-tool-call", {"call": {"type": "tool_call", "id": "1", "name": "f", "arguments": {}}}),
    ],
)
def test_what_gets_no_words_has_none_set_aside(asked, path, body):
    status, answer = asked(path, body, default=10_000)
    assert status == 200, answer


def test_a_request_without_a_length_sets_aside_what_the_settings_say(asked):
    chat = "/v1/chat/completions"
    assert asked(chat, {"model": "m", "messages": HELLO})[0] == 200
    status, answer = asked(chat, {"model": "m", "messages": HELLO}, default=201)
    assert (status, json.loads(answer)["error"]["code"]) == (429, "rate_limit_exceeded")
    assert asked(chat, {"model": "m", "messages": HELLO, "max_tokens": 20}, default=201)[0] == 200
    assert asked(chat, {"model": "m", "messages": HELLO, "max_tokens": 201})[0] == 429
