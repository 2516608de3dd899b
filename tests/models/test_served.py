"""What providers say of how they served: told in their own words to clients of their APIs only."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from stanchion.core.interaction import Interaction, UsageEvent, user
from stanchion.models.plain_chat import read_answer, write_answer
from stanchion.models.served import read_served
from stanchion.models.surfaces import SURFACES
from stanchion.models.upstreams import UPSTREAMS
from stanchion.models.wire import Request

ASKED = Request(interaction=Interaction(messages=(user("Hi."),), model="m"))
CHAT: dict[str, Any] = {
    "id": "c",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi."}, "finish_reason": "stop"}],
    "service_tier": "priority",
    "system_fingerprint": "fp_44709d6fcb",
}
MESSAGE: dict[str, Any] = {
    "id": "m",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [{"type": "text", "text": "Hi."}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 1, "output_tokens": 2, "service_tier": "batch", "inference_geo": "eu"},
}


def said(upstream: str, body: dict[str, Any], surface: str) -> dict[str, Any]:
    reply = UPSTREAMS[upstream].decode_reply(body)
    return SURFACES[surface].encode_reply(reply, asked=ASKED, response_id="r", created=1)


def test_the_words_of_a_vendor_reach_clients_of_its_apis_and_no_others() -> None:
    chat = said("openai.chat", CHAT, "openai.chat")
    assert (chat["service_tier"], chat["system_fingerprint"]) == ("priority", "fp_44709d6fcb")
    response = said("openai.chat", CHAT, "openai.responses")
    assert response["service_tier"] == "priority"
    assert "system_fingerprint" not in response, "the API has no such word"
    assert (
        not {"service_tier", "system_fingerprint"}
        & said("openai.chat", CHAT, "anthropic.messages")["usage"].keys()
    )
    usage = said("anthropic.messages", MESSAGE, "anthropic.messages")["usage"]
    assert (usage["service_tier"], usage["inference_geo"]) == ("batch", "eu")
    foreign = said("anthropic.messages", MESSAGE, "openai.chat")
    assert "batch" not in json.dumps(foreign)


@given(st.text(max_size=80))
def test_what_has_not_the_form_of_a_name_is_left_out_on_every_way(words: str) -> None:
    body = {**CHAT, "system_fingerprint": words, "service_tier": None}
    name = read_served("openai", body, ("system_fingerprint",))
    is_name = name is not UNSET
    assert is_name == (
        words.isascii()
        and words.replace(".", "").replace("-", "").replace("_", "").isalnum()
        and words[:1].isalpha()
        and len(words) <= 64
    )
    long = UPSTREAMS["openai.chat"].decode_reply(body)
    assert long.usage.served == name
    short = read_answer(msgspec.json.encode(body))
    assert short is None or short == long
    if is_name:
        assert short is not None
        written = write_answer(short, asked=ASKED, response_id="r", created=1)
        assert written is not None
        assert json.loads(written)["system_fingerprint"] == words


@pytest.mark.parametrize("has_role_first", [True, False])
def test_every_chunk_says_it_from_the_first_one_on(has_role_first: bool) -> None:
    head = {k: CHAT[k] for k in ("id", "created", "model", "service_tier", "system_fingerprint")}

    def chunk(delta: dict[str, Any], reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        body = {**head, "object": "chat.completion.chunk", "choices": [choice]}
        return b"data: " + msgspec.json.encode(body) + b"\n\n"

    frames = [chunk({"role": "assistant", "content": ""})] if has_role_first else []
    frames += [chunk({"content": word}) for word in ("Hi ", "you ", "all ", "there.")]
    frames += [chunk({}, "stop"), b"data: [DONE]\n\n"]
    reader = UPSTREAMS["openai.chat"].reader()
    encoder = SURFACES["openai.chat"].stream_encoder(asked=ASKED, response_id="r", created=1)
    events = [event for frame in frames for event in reader.feed(frame)]
    assert sum(isinstance(event, UsageEvent) for event in events) == 1
    out = b"".join(piece for event in events for piece in encoder.feed(event))
    chunks = [json.loads(line[6:]) for line in out.decode().split("\n\n") if line]
    assert [one["system_fingerprint"] for one in chunks] == ["fp_44709d6fcb"] * len(chunks)
    assert {one["service_tier"] for one in chunks} == {"priority"}
    assert "".join(one["choices"][0]["delta"].get("content", "") for one in chunks) == "Hi you all there."
