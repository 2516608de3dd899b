"""Embeddings and moderations: what is embedded or judged is text that a guard can read, or is refused."""

from __future__ import annotations

from typing import Any

import pytest

from stanchion.core.errors import UnavailableError, UsageError
from stanchion.core.interaction import Media, Opaque, Text, Usage
from stanchion.core.origin import Origin
from stanchion.models.openai_vectors import TOKENS, Embeddings, Moderations, decode_models, openai_models
from stanchion.models.wire import WireError

EMBEDDINGS, MODERATIONS = Embeddings(), Moderations()


@pytest.mark.parametrize("value", ["one", ["one"], ["one", "two"]])
def test_inputs_are_what_a_user_says_and_come_back(value: Any) -> None:
    asked = EMBEDDINGS.decode_request({"model": "e", "input": value, "dimensions": 3})
    parts = [part for message in asked.interaction.messages for part in message.parts]
    assert all(isinstance(part, Text) and part.origin is Origin.USER for part in parts)
    body = EMBEDDINGS.encode_request(asked.interaction, stream=False, extras=asked.extras)
    expected = value[0] if isinstance(value, list) and len(value) == 1 else value
    assert body == {"model": "e", "input": expected, "dimensions": 3}


@pytest.mark.parametrize("value", [[1, 2, 3], [[1, 2], [3]]])
def test_token_numbers_are_refused_unless_a_rule_lets_them_pass(value: Any) -> None:
    with pytest.raises(WireError, match="token numbers cannot be checked"):
        EMBEDDINGS.decode_request({"model": "e", "input": value})
    asked = Embeddings(tokens="pass").decode_request({"model": "e", "input": value}).interaction
    assert all(isinstance(p, Opaque) and p.kind == TOKENS for p in asked.messages[0].parts)
    sent = EMBEDDINGS.encode_request(asked, stream=False)["input"]
    assert sent == value


@pytest.mark.parametrize(
    "body",
    [{}, {"model": "e"}, {"model": "e", "input": []}, {"model": "e", "input": [3.5]}, {"input": "x"},
        {"model": "e", "input": {"a": 1}}, {"model": "e", "input": ["x"] * 2049}],
)  # fmt: skip
def test_wrong_requests_are_clear(body: Any) -> None:
    with pytest.raises(WireError):
        EMBEDDINGS.decode_request(body)


@pytest.mark.parametrize(
    "body",
    [{"data": [{"embedding": ["x"]}]}, {"data": {}}, {"data": [{}]}, {"error": {"code": "x"}}, []],
)
def test_wrong_answers_are_the_endpoints_fault(body: Any) -> None:
    with pytest.raises(UnavailableError):
        EMBEDDINGS.decode_reply(body)


def test_vectors_in_base64_pass_as_they_are() -> None:
    usage = {"prompt_tokens": 3, "total_tokens": 3}
    vector = {"object": "embedding", "index": 0, "embedding": "AAAAPw=="}
    body = {"data": [vector], "model": "e", "usage": usage}
    reply = EMBEDDINGS.decode_reply(body)
    assert reply.usage == Usage(input_tokens=3)
    asked = EMBEDDINGS.decode_request({"model": "e", "input": "x"})
    assert EMBEDDINGS.encode_reply(reply, asked=asked, response_id="r", created=1)["data"] == body["data"]


def test_there_are_no_streams() -> None:
    asked = EMBEDDINGS.decode_request({"model": "e", "input": "x"})
    with pytest.raises(UsageError, match="no streamed answers"):
        EMBEDDINGS.stream_encoder(asked=asked, response_id="r", created=1)
    with pytest.raises(UsageError, match="no streamed answers"):
        MODERATIONS.reader()


def test_moderations_take_texts_and_pictures() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}
    value = [{"type": "text", "text": "x"}, picture]
    asked = MODERATIONS.decode_request({"input": value}).interaction
    assert [type(part) for message in asked.messages for part in message.parts] == [Text, Media]
    assert MODERATIONS.encode_request(asked, stream=False)["input"] == value
    with pytest.raises(WireError):
        MODERATIONS.decode_request({"input": [3]})


def test_verdicts_are_checked_for_their_shape() -> None:
    with pytest.raises(UnavailableError):
        MODERATIONS.decode_reply({"results": [{"flagged": "yes"}]})


def test_a_list_of_models_is_read() -> None:
    assert decode_models(openai_models(["a"], created=1)) == ("a",)
    with pytest.raises(UnavailableError):
        decode_models({"data": [{}]})
