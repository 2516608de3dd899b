"""Citations of a web search in chat completions: alike whole and streamed, and in the shapes of others."""

from __future__ import annotations

from typing import Any

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from stanchion.core.interaction import Citation, Interaction, Message, Opaque, Reply, Role, Text, user
from stanchion.core.origin import Origin
from stanchion.guard.pipeline import Guard
from stanchion.models.anthropic import encode_blocks
from stanchion.models.events import Assembler, events_of
from stanchion.models.openai import Style, encode_assistant
from stanchion.models.openai_answers import ChunkDecoder, ChunkEncoder, decode_response, encode_response
from stanchion.models.openai_citations import citation_part, flat_annotation, nested_annotation

LINK = {"start_index": 0, "end_index": 8, "title": "Returns", "url": "https://shop.example/returns"}
WORDS = Text(text="30 days.", origin=Origin.MODEL)
NESTED = {"type": "url_citation", "url_citation": LINK}
FLAT = {"type": "url_citation", **LINK}
WHOLE = {
    "model": "m",
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": "30 days.", "annotations": [NESTED]},
        }
    ],
}


def chunk(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    return {"model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}


def streamed(*deltas: dict[str, Any]) -> Reply:
    decoder, assembler = ChunkDecoder(), Assembler()
    for delta in deltas:
        for event in decoder.feed(chunk(delta)):
            assembler.feed(event)
    for event in decoder.finish():
        assembler.feed(event)
    return assembler.reply()


def test_whole_and_streamed_answers_say_the_same_citation() -> None:
    whole = decode_response(WHOLE)
    said = streamed({"content": "30 "}, {"content": "days."}, {"annotations": [NESTED]})
    assert [part for part in whole.message.parts if isinstance(part, Opaque)] == [citation_part(NESTED)]
    assert said.message.parts == whole.message.parts
    payload = citation_part(NESTED).payload
    assert payload == {"document_id": LINK["url"], "quote": "Returns", "wire": NESTED}


def test_a_client_of_the_api_reads_what_the_provider_said() -> None:
    reply = decode_response(WHOLE)
    body = encode_response(reply, response_id="r", created=1)
    read = ChatCompletion.model_validate(body).choices[0].message.annotations
    assert read is not None
    assert read[0].url_citation.url == LINK["url"]
    encoder = ChunkEncoder(response_id="r", created=1, model="m")
    chunks = [piece for event in events_of(reply) for piece in encoder.feed(event)]
    deltas = [ChatCompletionChunk.model_validate(one).choices[0].delta for one in chunks]
    assert [one.model_extra["annotations"] for one in deltas if "annotations" in (one.model_extra or {})] == [
        [NESTED]
    ]


def test_the_two_apis_of_the_vendor_say_each_others_citations() -> None:
    assert flat_annotation(NESTED, "", "") == FLAT
    assert nested_annotation(FLAT, "", "") == NESTED
    assert citation_part(FLAT).payload["document_id"] == citation_part(NESTED).payload["document_id"]


def test_chat_says_another_vendors_citation_as_a_link_or_not_at_all() -> None:
    search = {"type": "web_search_result_location", "url": "https://a.example", "cited_text": "words"}
    said = nested_annotation(search, "words", "A page")
    assert said is not None
    assert said["url_citation"]["url"] == "https://a.example"
    assert nested_annotation({"type": "char_location"}, "words", "contract.pdf") is None
    assert nested_annotation({"type": "file_citation", "file_id": "f1"}, "", "f1") is None
    encoder = ChunkEncoder(response_id="r", created=1, model="m")
    assert encoder.feed(Citation(document_id="contract.pdf", quote="words", index=0, wire=None)) == []


def test_anthropic_is_not_told_a_citation_of_openai() -> None:
    parts = (WORDS, citation_part(NESTED))
    assert encode_blocks(parts) == [{"type": "text", "text": "30 days."}]


def test_a_provider_is_not_sent_citations_of_earlier_answers() -> None:
    parts = (WORDS, citation_part(NESTED))
    assert encode_assistant(parts, Style()) == {"content": "30 days."}


@pytest.mark.parametrize(
    ("title", "is_allowed"), [("Returns", True), ("key AKIA" + "QY7LZP3MXN5DVTRB", False)]
)
def test_the_default_policy_reads_the_words_of_a_citation(title: str, is_allowed: bool) -> None:
    annotation = {"type": "url_citation", "url_citation": {**LINK, "title": title}}
    message = Message(role=Role.ASSISTANT, parts=(WORDS, citation_part(annotation)))
    guard = Guard.load("default")
    checked = guard.finish(guard.prepare(_asked()), Reply(message=message))
    assert checked.reply is not None
    parts = checked.reply.message.parts
    assert WORDS in parts
    assert (citation_part(annotation) in parts) is is_allowed


def _asked() -> Interaction:
    return Interaction(messages=(user("How long may I return it?"),), model="m")
